"""Recipes: a method's file as something to call, `dpsh(eta=0.2)`, with checked settings."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from numbers import Real
from types import ModuleType
from typing import Any

from adsq_jax.errors import InputError, nearest_name
from adsq_jax.methods.method import Method
from adsq_jax.methods.objective import Terms


@dataclass(frozen=True)
class Recipe:
    """A method whose settings are still open: call it with some of them to get a `Method`; the others keep their defaults.

    Attributes:
      module: the method's file. It needs `loss`; it may have SETTINGS, the settings with their defaults, and TUNING_GRID; and
        `method`, where the method wants more than a loss, such as two networks or a discrete step.

    Raises:
      InputError: the module has no `loss`, or one of the others is of the wrong type.
    """

    module: ModuleType

    def __post_init__(self) -> None:
        module = self.module
        if not callable(getattr(module, "loss", None)):
            raise InputError(
                f"expected a method, got the module {module.__name__!r} without loss; fix: define loss(inputs) in "
                f"{getattr(module, '__file__', None) or 'it'}, or name another module"
            )
        settings, make = getattr(module, "SETTINGS", {}), getattr(module, "method", module.loss)
        if not isinstance(settings, Mapping) or not all(isinstance(key, str) for key in settings) or not callable(make):
            raise InputError(
                f"expected SETTINGS = {{'NAME': DEFAULT}} and method(*, ...) in the module {module.__name__!r}, got other "
                "types; fix: define them so, or leave them out"
            )

    def __repr__(self) -> str:
        return f"methods.{self.name}({', '.join(f'{name}={value!r}' for name, value in self.settings.items())})"

    @property
    def name(self) -> str:
        """The name that `methods.find` knows it by."""
        return self.module.__name__.removeprefix("adsq_jax.methods.")

    @property
    def settings(self) -> dict[str, Any]:
        """The settings and their defaults, a copy."""
        return copy.deepcopy(dict(getattr(self.module, "SETTINGS", {})))

    @property
    def tuning_grid(self) -> tuple[dict[str, Any], ...]:
        """The choices of settings that the comparison of methods tries, a copy."""
        return copy.deepcopy(tuple(getattr(self.module, "TUNING_GRID", ())))

    @property
    def loss(self) -> Callable[..., Terms]:
        """The loss, a pure function: given `LossInputs` and its own settings, it returns the terms of the sum to minimise."""
        return self.module.loss

    def __call__(self, **settings: Any) -> Method:
        """Return the method with these settings, and the defaults of the others.

        Args:
          **settings: any of `settings`; for a setting that is a dict, such as ADSQ's weights, any of its entries.

        Returns:
          The method, for `adsq_jax.fit`.

        Raises:
          InputError: there is no such setting, its value has the wrong type, or the module makes no `Method`.
        """
        filled = _filled(self.settings, settings, name=self.name)
        if not hasattr(self.module, "method"):
            return Method(loss=partial(self.loss, **filled))
        made = self.module.method(**filled)
        if not isinstance(made, Method):
            raise InputError(
                f"expected a Method from {self.name}'s method(...), got {type(made).__name__}; fix: return Method(loss=...) "
                "there"
            )
        return made


def _filled(defaults: Mapping[str, Any], given: Mapping[str, Any], *, name: str) -> dict[str, Any]:
    """Return the defaults with the given values in their place."""
    filled = dict(defaults)
    for key, value in given.items():
        if key not in defaults:
            raise InputError(f"expected a setting of {name}, got {key!r}; fix: {nearest(key, defaults)}")
        default = defaults[key]
        if isinstance(default, Mapping) and isinstance(value, Mapping):
            filled[key] = _filled(default, value, name=f"{name}'s {key}")
            continue
        kinds = {bool: bool, float: Real, int: Real}
        kind = Mapping if isinstance(default, Mapping) else kinds.get(type(default), object)
        if not isinstance(value, kind) or (isinstance(value, Real) and not math.isfinite(value)):
            raise InputError(
                f"expected {name}'s {key} like its default {default!r}, got {value!r}; fix: give a value of its kind"
            )
        filled[key] = value
    return filled


def nearest(name: str, names: Mapping[str, Any]) -> str:
    """Return advice on a wrong name: the nearest one if there is one, and all names."""
    near = nearest_name(name, names)
    return ("" if near is None else f"did you mean {near!r}? ") + f"give one of {', '.join(names)}"
