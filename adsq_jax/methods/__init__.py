"""Hashing methods: ADSQ and published ones, with the same networks, data, training loop and metric.

`methods.dpsh(eta=0.2)` is a method to train, `methods.dpsh.loss(methods.loss_inputs(relaxed_codes, labels))` its loss on one
batch. Each method is one file with SETTINGS, its settings and their defaults; TUNING_GRID, the two choices of settings that the
comparison tries on held-out images; `loss`; and `method`. Your own method can be any module that has a `loss`, and the others
where it needs them.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from adsq_jax.errors import InputError, first_line
from adsq_jax.methods import objective
from adsq_jax.methods.batch import loss_inputs
from adsq_jax.methods.method import LossInputs, Method
from adsq_jax.methods.objective import Terms
from adsq_jax.methods.recipe import Recipe, nearest

__all__ = ["METHODS", "LossInputs", "Method", "Recipe", "Terms", "as_method", "find", "loss_inputs", "objective"]


def _recipe(name: str) -> Recipe:
    return Recipe(import_module(f"{__name__}.{name}"))


# Each name is the recipe, not the file that it is made of; `from adsq_jax.methods.dpsh import ...` still reads the file.
adsq = _recipe("adsq")
dsh = _recipe("dsh")
dpsh = _recipe("dpsh")
dhn = _recipe("dhn")
hashnet = _recipe("hashnet")
dsdh = _recipe("dsdh")
adsh = _recipe("adsh")
dadh = _recipe("dadh")
dseh = _recipe("dseh")
dch = _recipe("dch")
greedyhash = _recipe("greedyhash")
csq = _recipe("csq")
orthohash = _recipe("orthohash")
bihalf = _recipe("bihalf")
psldh = _recipe("psldh")
dpn = _recipe("dpn")
hyp2 = _recipe("hyp2")
dhd = _recipe("dhd")
classify = _recipe("classify")

# every method by its name, as in configs
METHODS: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        *(adsq, dsh, dpsh, dhn, hashnet, dsdh, adsh, dadh, dseh, dch, greedyhash, csq, orthohash),
        *(bihalf, psldh, dpn, hyp2, dhd, classify),
    )
}
__all__ += METHODS


def find(name: str, *, allow_import: bool = False) -> Recipe:
    """Return the recipe of a name.

    Args:
      name: one of METHODS, or the name of a module with a method of your own, such as `mymethod` or `mypackage.mymodule`.
      allow_import: import that module, which runs it; False where the name was read from a file.

    Returns:
      The recipe.

    Raises:
      InputError: there is no such method, or its module can't be imported or lacks a part of a method.
    """
    if name in METHODS:
        return METHODS[name]
    if "." not in name and not (allow_import and _is_module(name)):
        raise InputError(f"there is no method {name!r}: {nearest(name, METHODS)}, or a module of your own that Python finds")
    if not allow_import:
        raise InputError(
            f"expected one of {', '.join(METHODS)}, got the module {name!r}; fix: name it where imports are allowed"
        )
    try:
        module = import_module(name)
    except (ImportError, TypeError) as error:  # TypeError: a relative name
        raise InputError(
            f"expected a module with a method, got {name!r}: {first_line(error)}; fix: check its name, and that Python finds it"
        ) from error
    except Exception as error:  # a ValueError would pass for one of the config's argument, and lose its place
        raise InputError(
            f"expected a module with a method, got {name!r}, which raises {type(error).__name__}: {first_line(error)}; fix: "
            "import it by itself"
        ) from error
    return Recipe(module)


def _is_module(name: str) -> bool:
    try:
        return bool(name) and find_spec(name) is not None
    except ValueError:  # a module that was made by hand, such as __main__
        return name in sys.modules


def as_method(method: "str | Recipe | ModuleType | Method") -> Method:
    """Return a method, with its default settings where it isn't one yet.

    Args:
      method: a method, a recipe, a module with a method, or a name as in `find`; a module is imported.

    Returns:
      The method.

    Raises:
      InputError: it is none of these, or there is no such method.
    """
    if isinstance(method, Method):
        return method
    if isinstance(method, str):
        return find(method, allow_import=True)()
    if isinstance(method, ModuleType):
        return Recipe(method)()
    if isinstance(method, Recipe):
        return method()
    raise InputError(
        f"expected a method, got {type(method).__name__}; fix: give methods.adsq(), or one of {', '.join(METHODS)}"
    )
