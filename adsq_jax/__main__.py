"""The command `adsq`: one name for all commands.

`adsq COMMAND --help` shows the flags of a command, `adsq --version` the versions that a report of a defect needs.
`python -m adsq_jax` is the same as `adsq`.
"""

import importlib
import importlib.metadata
import platform
import sys
from collections.abc import Sequence

from adsq_jax import __version__, command_line
from adsq_jax.errors import InputError, did_you_mean, needing

COMMANDS = {
    "train": ("adsq_jax.main", "Train a config to the end and measure the codes."),
    "evaluate": ("adsq_jax.evaluate", "Measure how codes retrieve: a run's, or anyone's."),
    "codes": ("adsq_jax.export.codes", "Write the codes and labels of a run or an index for other programs."),
    "encode": ("adsq_jax.encode", "Encode pictures into an index."),
    "search": ("adsq_jax.search", "Find the nearest pictures in an index."),
    "index": ("adsq_jax.index.__main__", "Look into an index, copy it, remove or move items, find duplicates."),
    "report": ("adsq_jax.report.__main__", "Make a page with plots of a finished run."),
    "demo": ("adsq_jax.demo.__main__", "Serve a page on which to search an index."),
    "export": ("adsq_jax.export.__main__", "Export a trained encoder as files that need neither this package nor Flax."),
    "data": ("adsq_jax.data.__main__", "Check a data set, and write the manifest of its split."),
}
_EXTRAS = {"encode": "index,pretrained", "search": "index", "demo": "demo", "report": "report"}  # of more than `train`


def main(arguments: Sequence[str]) -> None:
    """Call the command that is named first with the arguments that follow.

    Args:
      arguments: what follows `adsq`.

    Raises:
      InputError: there is no such command, or the command raises it.
    """
    name, *rest = arguments or ["--help"]
    if name in ("--help", "-h", "help"):
        lines = (f"  {command:<10}{explanation}" for command, (_, explanation) in COMMANDS.items())
        print("adsq COMMAND [--help] [--flag=value ...]\nadsq --version\n", *lines, sep="\n")
        return
    if name == "--version":
        print(version())
        return
    if name not in COMMANDS:
        raise InputError(f"adsq {name:.100}: expected one of the commands {', '.join(COMMANDS)}{did_you_mean(name, COMMANDS)}")
    with needing(f"adsq {name}", extras=_EXTRAS.get(name)):
        importlib.import_module(COMMANDS[name][0]).main(rest)


def version() -> str:
    """Return the versions of this package, Python, JAX and the system in one line."""
    system = f"{platform.system()}-{platform.release()} {platform.machine()}"
    jax = importlib.metadata.version("jax")  # importing JAX takes long
    return f"adsq_jax {__version__}, Python {platform.python_version()}, jax {jax}, {system}"


def run() -> None:
    """Run the command `adsq` with the arguments of this process."""
    command_line.run(main)


if __name__ == "__main__":
    sys.argv[0] = "adsq"
    run()
