"""The pages of the documentation: their blocks run, and the commands, flags, config keys and files that they name exist."""

import contextlib
import functools
import importlib
import importlib.util
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import pages
from support.public_names import public_names

from adsq_jax import config as config_module
from adsq_jax import methods
from adsq_jax.__main__ import COMMANDS
from adsq_jax.data.__main__ import main as data_main
from adsq_jax.export.__main__ import main as export_main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUNNER = Path(pages.__file__)
SECONDS = 600  # for all blocks of a page


def runs(page):
    """Whether any block of a page is run; a page that breaks the conventions is reported by a test, not by the collection."""
    try:
        return any(not block.reason for block in pages.blocks(page))
    except pages.PageError:
        return False


def run_page(page, folder, *, commands=Path(sys.executable).parent):
    """Run a page's blocks in a folder, and return the exit status and the output; what they have left running is stopped.

    Args:
      page: the page.
      folder: where its blocks run; `adsq` and `python` are found in `commands`.
      commands: the folder of these, first on the PATH.
    """
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{folder}", "PYTHONUNBUFFERED": "1"}
    environment["PATH"] = f"{commands}:{environment['PATH']}"
    log = folder.parent / f"{folder.name}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", str(RUNNER), str(page)],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return process.returncode, log.read_text(errors="replace")


def name(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_page_keeps_the_conventions(page):
    """Each block has a known language, and each comment says what is known; tests/support/pages.py says which."""
    pages.blocks(page)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if runs(page)], ids=name)
def test_page_runs(page, tmp_path):
    """The blocks of a page run in order in a fresh folder with pictures."""
    folder = tmp_path / "page"
    folder.mkdir()
    pages.make_pictures(folder)
    status, output = run_page(page, folder)
    assert status == 0, output[-6_000:]


@functools.cache
def flags_of(*command):
    """The flags of a command, as its help shows them."""
    module = importlib.import_module(COMMANDS[command[0]][0])
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), pytest.raises(SystemExit):
        module.main([*command[1:], "--help"])
    return set(re.findall(r"^  --(\w+)$", shown.getvalue(), re.MULTILINE))


@functools.cache
def config_keys():
    """Every config key of any method, and the start of each; a section is one of them."""
    configs = [config_module.default(method=method) for method in methods.METHODS]
    keys = set()

    def add(tree, prefix):
        for key, value in tree.items():
            keys.add(f"{prefix}{key}")
            if hasattr(value, "items"):
                add(value, f"{prefix}{key}.")

    for config in configs:
        add(config, "")
    return keys


def problems_of(code, *, own_methods=False):
    """Yield what a piece of bash names that doesn't exist: commands, flags, config keys, configs, modules, files."""
    code = re.sub(r"\\\n\s*", " ", code)
    for command, rest in re.findall(r"(?<![\w/.-])adsq +([a-z]\w*)([^\n|;&#]*)", code):
        if command not in COMMANDS:
            yield f"adsq {command}"
            continue
        names = (command, *rest.split()[:1]) if command == "index" and not rest.lstrip().startswith("-") else (command,)
        if names[1:] and not names[1].isalpha():
            names = names[:1]
        for flag in re.findall(r"(?<=\s)--(\w+)", rest):
            if flag not in flags_of(*names) and flag.removeprefix("no") not in flags_of(*names):
                yield f"adsq {' '.join(names)} --{flag}"
    for key in re.findall(r"--config\.([a-z_.]+[a-z_])\b(?=[=`\s]|$)", code):
        if key not in config_keys() and not (own_methods and key.startswith("baseline.")):
            yield f"--config.{key}"
    for config in re.findall(r"--config=([a-z0-9_]+)(?=[\s:`]|$)", code):
        if not (ROOT / "configs" / f"{config}.py").exists():
            yield f"--config={config}"
    for module in re.findall(r"python3? -m ((?:adsq_jax|benchmarks)[\w.]*)", code):
        if importlib.util.find_spec(module) is None:
            yield f"python -m {module}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_page_names_exists(page):
    """Commands, flags, config keys, configs, modules and files exist, in blocks that aren't run, too, and in sentences."""
    pieces = [block.code for block in pages.blocks(page) if block.language == "bash"] + list(pages.inline_code(page))
    own_methods = "method=mypackage." in page.read_text()
    missing = [problem for piece in pieces for problem in problems_of(piece, own_methods=own_methods)]
    for piece in pages.inline_code(page):
        path = re.match(r"(?:configs|benchmarks|adsq_jax|docs|launch|tests)/[\w./]*\w", piece)
        if path and not re.search(r"/[A-Z]+(?![\w])", path[0]) and not (ROOT / path[0]).exists():  # SET stands for others
            missing.append(path[0])
    assert not missing


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
def test_the_page_of_files_names_every_field(colours, filled, tmp_path):
    """docs/reference/files.md names each file of a run, an index and an encoder, and each field of their JSON."""
    page = (ROOT / "docs" / "reference" / "files.md").read_text()
    (pictures, run), data, encoder = colours, tmp_path / "data", tmp_path / "encoder"
    data_main(["--config=configs/folder.py", f"--config.data.directory={pictures}", f"--out={data}"])
    export_main([f"--workdir={run}", f"--out={encoder}"])
    files = (run / "result.json", run / "model" / "model.json", data / "manifest.json", encoder / "manifest.json")
    names = {field for path in files for field in json.loads(path.read_text())}
    names |= {path.name for folder in (run, run / "codes", data, encoder, Path(filled[2])) for path in folder.iterdir()}
    names = {re.sub(r"^\.features-.*", ".features-*.int8", name) for name in names}
    assert {name for name in names if f"`{name}`" not in page and f"`{name}/`" not in page} == set()


def test_every_public_name_explains_itself():
    """Each public function and class has a docstring, and so have a class's public methods."""
    for part, name, found, own in public_names():
        if own.startswith("adsq_jax"):
            assert found.__doc__, (part, name)
            assert not found.__doc__.startswith(f"{found.__name__}("), (part, name)  # as dataclasses get by themselves
            for member, value in vars(found).items() if isinstance(found, type) else ():
                if callable(value) and not member.startswith("_"):
                    assert value.__doc__, (part, name, member)


BAD = {
    "```\nls\n```\n": "page.md:1: expected a fenced block",
    "A\n\n```sh\nls\n```\n": "page.md:3: expected a fenced block",
    "A:\n\n    ls\n": "page.md:3: expected a fenced block",
    "<!-- not run: -->\n```bash\nls\n```\n": "page.md:1: expected a specific reason",
    "<!-- not run: slow -->\n```bash\nls\n```\n": "page.md:1: expected a specific reason",
    "<!-- not run: needs a cluster -->\n\nA\n\n```bash\nls\n```\n": "page.md:1: expected a block",
    "```bash\nls\n```\n\n<!-- not run: needs a cluster -->\n": "page.md:5: expected a block",
    "<!-- not run: needs a cluster -->\n```text\nls\n```\n": "page.md:1: expected a block",
    "<!-- notrun: needs a cluster -->\n```bash\nls\n```\n": "page.md:1: unknown comment",
    "<!-- run with: --x=1 -->\n```bash\nls\n```\n": "page.md:1: <!-- run with",
    "<!-- hidden sh\nls\n-->\n": "page.md:1: expected hidden bash",
    '=== "CPU"\n    ```bash\n    ls\n    ```\n': "page.md:2: this fence begins no block",
}


@pytest.mark.parametrize("text", BAD)
def test_a_page_that_breaks_the_conventions(text, tmp_path):
    """The error names the page and the line."""
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(pages.PageError, match=re.escape(BAD[text])):
        pages.blocks(page)


GOOD = """---
hide: navigation
---
# A page

```python
value = 1
def double(number):
    return 2 * number
```

!!! note
    In an admonition:

    ```bash
    echo $((3 + 4)) >number.txt
    ```

1. In a list:

    ```python
    value += double(int(open("number.txt").read()))
    ```

<!-- hidden python
from pathlib import Path

assert value == 15, value
Path("hidden.txt").write_text(str(value))
-->
<!-- not run: it would fail -->

```bash
exit 1
```

<!-- a_table -->
| a |
|---|
<!-- /a_table -->

<!-- run with: --config.bits=12 --log='a b' -->
```bash
adsq train --config=digits \\
  --seed=1 2>&1 && adsq search
```

```text
15
```
"""
FAKE = """#!/bin/bash
printf '<%s>' "$@" >>calls.txt
"""


def test_blocks_run_in_order(tmp_path):
    """Python keeps its names, bash and Python share a folder, hidden blocks run, and others get their flags or are left out."""
    page, folder, commands = tmp_path / "page.md", tmp_path / "page", tmp_path / "bin"
    page.write_text(GOOD)
    folder.mkdir()
    commands.mkdir()
    (commands / "adsq").write_text(FAKE)
    (commands / "adsq").chmod(0o755)
    status, output = run_page(page, folder, commands=commands)
    assert status == 0, output
    assert (folder / "hidden.txt").read_text() == "15"
    flags = "<train><--config=digits><--seed=1><--config.bits=12><--log=a b>"
    assert (folder / "calls.txt").read_text() == f"{flags}<search>"
    assert [block.reason for block in pages.blocks(page)] == ["", "", "", "", "it would fail", ""]


FAILS = {
    "```python\nvalue = 1\n\nvalue.missing\n```\n": ("page.md:2: this block of python failed", 'page.md", line 4'),
    "A\n\n```bash\necho one\nfalse | true\necho two\n```\n": ("page.md:4: this block of bash failed", "one\n"),
    "```bash\nexit 3\n```\n\n```python\nprint(5)\n```\n": ("page.md:2: this block", "exit status 3"),
    "```python\nimport sys\nsys.exit(0)\n```\n": ("page.md:2: this block of python failed", "SystemExit"),
}


@pytest.mark.parametrize("text", FAILS)
def test_a_block_that_fails(text, tmp_path):
    """The output ends with page and line, nothing runs after it, and a traceback shows the page's own line."""
    page, folder = tmp_path / "page.md", tmp_path / "page"
    page.write_text(text)
    folder.mkdir()
    status, output = run_page(page, folder)
    assert status == 1
    assert all(part in output for part in FAILS[text]), output
    assert "two" not in output.replace("echo two", "")
    assert not output.rstrip().endswith("5")


def test_what_is_missing_is_found():
    """Unknown commands, flags, keys, configs and modules are reported; real ones aren't."""
    bad = "adsq trian --x\nadsq encode --imagse=A \\\n  --best\nadsq index copy A B --radius=2\npython -m adsq_jax.sarch\n"
    bad += "adsq train --config=digit:bits=48 --config.optim.learning_rat=1 --log=wandb"
    assert list(problems_of(bad)) == [
        "adsq trian",
        "adsq encode --imagse",
        "adsq index copy --radius",
        "--config.optim.learning_rat",
        "--config=digit",
        "python -m adsq_jax.sarch",
    ]
    good = "adsq index duplicates A --radius=2 && adsq data --config=digits --noread_images | tee x\nadsq COMMAND --help\n"
    assert not list(problems_of(good + "adsq train --config=digits:method=dpsh --config.baseline.quantization=0.1 --sweep='a'"))
