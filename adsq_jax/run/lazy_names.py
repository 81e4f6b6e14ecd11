"""Names of a package that are loaded when they are first used."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from adsq_jax.errors import needing


def loader(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package, which loads a name when it is first used.

    Args:
      package: the package's name.
      modules: the module of each name, below the package; for a module, its own name.

    Returns:
      A function that returns what a name stands for. It raises `MissingPackage` if an extra isn't installed that the module
      needs, and `AttributeError` for an unknown name.
    """

    def load(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with needing(f"{package}.{name}"):
            module = importlib.import_module(f"{package}.{modules[name]}")
            return module if modules[name] == name else getattr(module, name)

    return load
