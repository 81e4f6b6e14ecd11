"""The blocks of a page of the documentation, and a program that runs them: python -P tests/support/pages.py PAGE.

A `bash` or `python` block is run, unless the comment above it is `<!-- not run: REASON -->`. `<!-- run with: FLAGS -->` appends
flags to each `adsq train` of the block below; `<!-- hidden python` and `<!-- hidden bash`, closed by `-->`, hold code that the
reader doesn't see. The blocks of a page run in order in one folder, those of Python in one interpreter; a block of Python that
begins with the name of a file, as `# mymethod.py`, becomes that file.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import traceback
import types
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.admon import admon_plugin
from mdit_py_plugins.front_matter import front_matter_plugin

RUN = ("bash", "python")
SHOWN = ("text", "json", "yaml", "ini", "html")
_COMMENT = re.compile(
    r"<!--\s*(?:(?P<what>not run|run with):(?P<value>.*?)|(?P<table>/?[a-z0-9_]+)|hidden (?P<language>\w+)\n(?P<code>.*?))"
    r"\s*-->",
    re.DOTALL,
)
_FILE = re.compile(r"# (\w+\.py)\n")
_FENCE = re.compile(r"\s*(```|~~~)")


class PageError(Exception):
    """A page that breaks the conventions; the message begins with page and line."""


class Block(NamedTuple):
    """A block of bash or Python."""

    language: str
    code: str
    line: int  # where the code begins, from 1
    flags: str = ""  # appended to each `adsq train`
    reason: str = ""  # why it isn't run; "": it is


class Above(NamedTuple):
    """A comment about the block below it."""

    what: str  # "not run" or "run with"
    value: str
    line: int


def tokens(page: Path) -> list[Token]:
    """Parse a page as MkDocs does where that matters: with admonitions and without its front matter."""
    return MarkdownIt("commonmark").use(admon_plugin).use(front_matter_plugin).parse(page.read_text())


def blocks(page: Path) -> list[Block]:
    """Return the blocks of bash and Python, hidden ones too, in order.

    Raises:
      PageError: a block without a known language, or a comment that is no known one or stands above no block.
    """
    found, fences = [], set()
    above = None  # the comment `not run` or `run with` that no block has followed yet
    for token in [*tokens(page), Token("end", "", 0)]:
        if token.type == "fence" and token.info.strip() in RUN:
            found.append(_block(token, above, page))
            above = None
        elif above is not None and not token.type.endswith("_close"):
            raise PageError(f"{page}:{above.line}: expected a block of bash or python below <!-- {above.what}: ... -->")
        elif token.type in ("fence", "code_block") and (token.type == "code_block" or token.info.strip() not in SHOWN):
            got = repr(token.info.strip()) if token.info.strip() else "none"
            languages = ", ".join(RUN + SHOWN)
            raise PageError(f"{page}:{token.map[0] + 1}: expected a fenced block of one of {languages}, got {got}")
        elif token.type == "html_block" and token.content.lstrip().startswith("<!--"):
            comment = _comment(token, page)
            found += [comment] if isinstance(comment, Block) else []
            above = comment if isinstance(comment, Above) else None
        if token.type == "fence":
            fences |= set(range(*token.map))
    for number, text in enumerate(page.read_text().splitlines()):
        if _FENCE.match(text) and number not in fences:
            raise PageError(f"{page}:{number + 1}: this fence begins no block; fix: its indentation, or a blank line above it")
    return found


def _block(token: Token, above: Above | None, page: Path) -> Block:
    if above is not None and above.what == "run with" and "adsq train" not in token.content:
        raise PageError(f"{page}:{above.line}: <!-- run with: ... --> is for blocks with `adsq train`")
    values = {} if above is None else {"flags" if above.what == "run with" else "reason": above.value}
    return Block(token.info.strip(), token.content, token.map[0] + 2, **values)


def _comment(token: Token, page: Path) -> Block | Above | None:
    """Return a hidden block, or what a comment says of the block below; None for the mark of a table."""
    line = token.map[0] + 1
    comment = _COMMENT.fullmatch(token.content.strip())
    if comment is None:
        raise PageError(f"{page}:{line}: unknown comment; tests/support/pages.py names the known ones")
    if comment["language"]:
        if comment["language"] not in RUN:
            raise PageError(f"{page}:{line}: expected hidden bash or hidden python, got hidden {comment['language']}")
        return Block(comment["language"], textwrap.dedent(comment["code"]) + "\n", line + 1)
    if comment["table"]:
        return None
    if len(comment["value"].split()) < (2 if comment["what"] == "not run" else 1):
        raise PageError(f"{page}:{line}: expected a specific reason, or flags, after <!-- {comment['what']}:")
    return Above(comment["what"], comment["value"].strip(), line)


def inline_code(page: Path) -> Iterator[str]:
    """Yield each piece of code within a sentence, a table or a heading."""
    for token in tokens(page):
        yield from (child.content for child in token.children or () if child.type == "code_inline")


def make_pictures(folder: Path) -> None:
    """Write what each page finds in its folder: PICTURES/{cats,dogs,birds}/01.jpg to 12.jpg, cat.jpg and dog.jpg."""
    import numpy as np
    from PIL import Image, ImageDraw

    random = np.random.default_rng(0)
    shapes = {"cats": ((0, 45, 120), 3), "dogs": ((60, 30, 150), 4), "birds": ((140, 40, 130), 6)}  # hue, corners
    for name, (hsv, corners) in shapes.items():
        for number in range(1, 14):
            hue = int(hsv[0] + random.integers(-12, 13)) % 256
            picture = Image.new("HSV", (96, 96), (hue, int(random.integers(60, 120)), int(random.integers(170, 230))))
            draw = ImageDraw.Draw(picture)
            x, y = (int(value) for value in random.integers(34, 63, 2))
            size, turn = int(random.integers(18, 32)), int(random.integers(0, 360))
            draw.regular_polygon((x, y, size), corners, rotation=turn, fill=(hue, 220, 120))
            draw.ellipse((x - size // 3, y - size // 3, x, y), fill=(hue, 30, 250))
            noisy = np.asarray(picture.convert("RGB")) + random.normal(0, 6, (96, 96, 3))
            path = folder / "PICTURES" / name / f"{number:02d}.jpg" if number < 13 else folder / f"{name[:-1]}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.name != "bird.jpg":
                Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=92)


def _run_bash(block: Block, folder: Path) -> None:
    """Run a block; with flags, an `adsq` that appends them is found before the real one, however the block calls it."""
    environment = dict(os.environ)
    if block.flags:
        adsq = folder / "adsq"
        real = shutil.which("adsq")
        adsq.write_text(f'#!/bin/bash\n[[ $1 != train ]] || set -- "$@" {block.flags}\nexec {real} "$@"\n')
        adsq.chmod(0o755)
        environment["PATH"] = f"{folder}:{environment['PATH']}"
    subprocess.run(["bash", "-eo", "pipefail", "-c", block.code], env=environment, check=True)


def main(page: Path) -> None:
    """Run the blocks of a page in this process's folder; on a failure, say where and end with status 1."""
    module = types.ModuleType("__main__")  # as in a notebook: without a file, which processes of a pool would import again
    sys.modules["__main__"], sys.argv = module, [""]
    with tempfile.TemporaryDirectory() as folder:
        for block in blocks(page):
            if block.reason:
                continue
            print(f"--- {page}:{block.line}: {block.language}", flush=True)
            try:
                file = _FILE.match(block.code)
                if block.language == "bash":
                    _run_bash(block, Path(folder))
                elif file is not None:
                    Path(file[1]).write_text(block.code)
                else:  # with the page's own name and lines, which tracebacks show
                    exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), module.__dict__)
                sys.stdout.flush()
            except (Exception, SystemExit) as error:
                sys.stdout.flush()
                if isinstance(error, subprocess.CalledProcessError) and block.language == "bash":
                    print(f"exit status {error.returncode}", file=sys.stderr)
                else:
                    traceback.print_exc()
                print(f"{page}:{block.line}: this block of {block.language} failed", file=sys.stderr)
                sys.stderr.flush()
                sys.exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
