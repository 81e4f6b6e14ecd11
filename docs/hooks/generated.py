"""Make the pages that are written nowhere: config keys and commands as the program explains them, and the notebooks."""

import contextlib
import html
import importlib
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import nbconvert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

from adsq_jax import config as config_module
from adsq_jax import methods
from adsq_jax.__main__ import COMMANDS
from adsq_jax.index.__main__ import COMMANDS as INDEX_COMMANDS

NOTEBOOKS = sorted((Path(__file__).parents[2] / "examples").glob("*.ipynb"))
_SECTIONS = {
    "": ("The run", "Keys without a section."),
    "data": ("data", "The data set, its split, and how images are read and augmented."),
    "model": ("model", "The ImgNets."),
    "label_net": ("label_net", "LabelNet and its training."),
    "objective": ("objective", "ADSQ's loss and B-step; [The objective](../explanation/objective.md) explains the terms."),
    "optim": ("optim", "The optimiser of the ImgNets."),
    "train": ("train", "How long training takes, and in what batches."),
    "checkpoint": ("checkpoint", "When a run is saved."),
    "eval": ("eval", "How the trained codes are measured."),
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Name a page for each notebook in the navigation."""
    config.nav = [{**entry} for entry in config.nav or []]
    for entry in config.nav:
        if "Examples" in entry:
            entry["Examples"] = [{_short(path): f"examples/{path.stem}.md"} for path in NOTEBOOKS]
    config.nav = [entry for entry in config.nav if entry.get("Examples", True)]
    return config


def _short(notebook: Path) -> str:
    """Return a notebook's name in the navigation."""
    return notebook.stem.replace("_", " ").capitalize().replace("python", "Python")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages."""
    pages: dict[str, str | bytes] = {
        "reference/api/methods.md": _methods_page(),
        "reference/commands.md": _commands_page(),
        "reference/config.md": _config_page(),
    }
    for path in NOTEBOOKS:
        pages.update(_notebook(path))
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose cells are HTML."""
    head = "".join(f"<th>{head}</th>" for head in heads)
    body = "\n".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n"


def _code(text: str, *, anchor: str = "") -> str:
    place = f' id="{html.escape(anchor)}"' if anchor else ""
    breaking = re.sub(r"(?<=\w)\.(?=[a-z])", ".<wbr>", html.escape(text))  # where a narrow screen may break it
    return f"<code{place}>{breaking}</code>" if text else ""


def _text(comment: str) -> str:
    """Return a comment or a help text as HTML, with flags and what stands between backticks as code."""
    return re.sub(r"`([^`]+)`|(?<!\S)(--\w+(?:\.\w+)*\*?(?:=\w+)?)", r"<code>\1\2</code>", html.escape(comment, quote=False))


def _keys(rows: Iterable[tuple[str, str, str]], *, anchors: bool = True) -> str:
    cells = [[_code(key, anchor=key if anchors else ""), _code(value), _text(comment)] for key, value, comment in rows]
    return _table(("key", "default", "meaning"), cells)


def _config_page() -> str:
    """Return the page of every config key, from config.py and the files of the methods."""
    parts = [
        "# Config keys",
        "Each key is set by `--config.KEY=VALUE`, for instance `--config.optim.learning_rate=1e-3`. The defaults below are the "
        "package's; a config sets its own, which `adsq train --config=digits --help` shows. The code length, the "
        "protocol and the method follow the config's name: `--config=digits:bits=48,method=dpsh`. A method is part of "
        "the name because it decides which keys there are.",
    ]
    described = config_module.described(config_module.default())
    for section in [*_SECTIONS, *(name for name in described if name not in _SECTIONS)]:
        title, about = _SECTIONS.get(section, (section, ""))
        parts += [f"## {title} {{ #{section or 'run'} }}", about, _keys(described[section])]
    parts += [
        "## baseline { #baseline }",
        "With another method than ADSQ, `baseline` takes the place of `objective`, and there is a LabelNet only where the "
        "method has one. These are the settings of each method.",
    ]
    for name in methods.METHODS:
        rows = config_module.described(config_module.default(method=name)).get("baseline", [])
        if name != "adsq":
            settings = _keys(rows, anchors=False) if rows else "It has no settings of its own."
            parts += [f"### {name} {{ #{_settings(name)} }}", settings]
    return "\n\n".join(parts) + "\n"


def _methods_page() -> str:
    """Return the page of `adsq_jax.methods`: what a method is, the terms of ADSQ's loss, and each method's file."""
    parts = [_object("methods", level=1), _object("methods.objective")]
    for name in methods.METHODS:
        members = "      members: [loss, method]"
        parts.append(f"{_object(f'methods.{name}')}\n{members}\n\n[Settings of {name}](../config.md#{_settings(name)})")
    return "\n\n".join(parts) + "\n"


def _object(name: str, *, level: int = 2) -> str:
    return f"::: adsq_jax.{name}\n    options:\n      heading_level: {level}"


def _settings(method: str) -> str:
    return "objective" if method == "adsq" else f"baseline-{method}"


def help_of(*command: str) -> tuple[str, list[tuple[str, str]]]:
    """Return what a command's help says: the text above the flags, and each flag with its explanation."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        importlib.import_module(COMMANDS[command[0]][0]).main([*command[1:], "--help"])
    above, *flags = re.split(r"^  --(?=\w+$)", shown.getvalue().partition("\nConfig keys")[0], flags=re.MULTILINE)
    explained = [flag.partition("\n") for flag in flags]
    return above.strip(), [(f"--{name}", " ".join(text.split())) for name, _, text in explained if name != "help"]


def _commands_page() -> str:
    """Return the page of every command's flags, from their help."""
    parts = [
        "# Commands",
        "`adsq COMMAND --flag=value ...` runs a command; `adsq COMMAND --help` shows its flags. `~` at the start of any path "
        "is the home. A flag without a value, such as `--best`, is on or, as `--nobest`, off. Bad input ends a command with "
        "one line and the exit status 2, Ctrl-C with 130.",
        _table(
            ("command", "does"), [[f'<a href="#{name}">adsq {name}</a>', _text(text)] for name, (_, text) in COMMANDS.items()]
        ),
    ]
    for name in COMMANDS:
        above, flags = help_of(name)
        above = re.sub(r"^(adsq .+)$", r"`\1`", above, flags=re.MULTILINE).replace("`\n`", "`  \n`")  # two spaces: a new line
        parts += [f"## adsq {name} {{ #{name} }}", above]
        if any(flag == "--config" for flag, _ in flags):
            parts.append("The keys of `--config` are explained in [Config keys](config.md).")
        for inner in INDEX_COMMANDS if name == "index" else ():
            above, inner_flags = help_of(name, inner)
            text, _, usage = above.rpartition(": ")
            parts += [f"### adsq {name} {inner} {{ #{name}-{inner} }}", f"{text}: `{usage}`."]
            parts += [_flags(inner_flags)] if inner_flags else []
        parts += [_flags(flags)] if flags else []
    return "\n\n".join(parts) + "\n"


def _flags(flags: Iterable[tuple[str, str]]) -> str:
    return _table(("flag", "meaning"), [[_code(flag), _text(text)] for flag, text in flags])


def _notebook(path: Path) -> dict[str, Any]:
    """Return the page of a notebook with the outputs that it holds, and the files of its pictures."""
    exporter = nbconvert.MarkdownExporter()
    exporter.register_preprocessor(CoalesceStreamsPreprocessor, enabled=True)  # what a loop prints is one block
    content, resources = exporter.from_filename(str(path), resources={"output_files_dir": f"{path.stem}_files"})
    title, _, rest = content.lstrip().replace("![png](", "![What the cell above shows](").partition("\n")
    source = f"This page is the notebook `examples/{path.name}`; `examples/{path.stem}.py` is the same as a script."
    files: dict[str, Any] = {f"examples/{path.stem}.md": f"{title}\n\n{source}\n{rest}"}
    files.update({f"examples/{name}": data for name, data in resources["outputs"].items()})
    return files
