"""Config files: those that come with this package, by their names in any folder, and anyone's by their paths."""

import os
from pathlib import Path

from adsq_jax import storage
from adsq_jax.errors import InputError, did_you_mean

FOLDER = Path(__file__).parents[1] / "configs"


def names() -> list[str]:
    """Return the names of the configs that come with this package."""
    return sorted(path.stem for path in FOLDER.glob("[!_]*.py"))


def find(text: str) -> str:
    """Return the file that a config's flag names.

    Args:
      text: NAME, one of `names`; or FILE.py, where `~` is the home, and `configs/NAME.py` is this package's where the current
        folder has no such file. Either may have an argument, after a colon.

    Returns:
      The file's path, with the argument.

    Raises:
      InputError: there is no config of that name, or no such file.
    """
    given, colon, argument = text.partition(":")
    path = storage.expand_home(given)
    folder, file = os.path.split(path)
    name, known = file.removesuffix(".py"), names()
    if os.path.exists(path) and not os.path.isdir(path) and given not in known:
        return f"{path}{colon}{argument}"
    if name in known and path in (name, f"configs/{name}.py"):
        return f"{FOLDER / name}.py{colon}{argument}"
    hint = did_you_mean(name, known) if folder in ("", "configs") else ""
    raise InputError(f"there is no config {path!r:.200}{hint}; fix: give one of {', '.join(known)}, or an existing FILE.py")


def may_need_current_folder(text: str) -> bool:
    """Return whether a config's flag names code that may lie in the current folder: a file, or a method's module there.

    Args:
      text: as in `find`.
    """
    given, _, argument = text.partition(":")
    pairs = (pair.partition("=") for pair in argument.split(","))
    methods = [value.split(".")[0] for key, _, value in pairs if key == "method"]
    return given not in names() or any(os.path.isdir(name) or os.path.isfile(f"{name}.py") for name in methods)
