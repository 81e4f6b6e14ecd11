"""Arrays of a file that holds several, by name: which one is meant."""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np

from adsq_jax.errors import InputError, did_you_mean, printable

MAX_BYTES = 2 << 30  # of one array, and of a file that is read as a whole
_SHOWN = 8  # names in a message


class NamedArray(NamedTuple):
    """An array of a file, not read yet."""

    name: str
    shape: tuple[int, ...]
    problem: str  # why it can't be read, "a struct"; "" if it can be
    load: Callable[[], np.ndarray]

    def __str__(self) -> str:
        return f"{printable(self.name, keep='')[:100]} {list(self.shape)}"


def choose(arrays: Sequence[NamedArray], name: str | None, *, file: str, dimensions: Collection[int]) -> NamedArray:
    """Return the array of that name or, without a name, the only one that is suitable.

    Args:
      arrays: what the file holds.
      name: of the array, or None.
      file: the file's path, for messages.
      dimensions: how many dimensions a suitable array may have; it has more than one number.

    Raises:
      InputError: there is no array of that name, it can't be read, or without a name not exactly one is suitable.
    """
    if name is not None:
        named = [array for array in arrays if array.name == name]
        if not named:
            near = did_you_mean(name, [array.name for array in arrays])
            raise InputError(f"it has no array {name!r:.100}{near}; fix: name one of {_listed(arrays)}")
        if len(named) > 1:
            raise InputError(f"it has {len(named)} arrays of the name {name!r:.100}; fix: save it again")
        if named[0].problem:
            raise InputError(f"{name!r:.100} is {named[0].problem}; fix: save it as an array of numbers")
        return named[0]
    suitable = [
        array for array in arrays if not array.problem and len(array.shape) in dimensions and max(array.shape, default=1) > 1
    ]
    if len(suitable) > 1:
        example = printable(suitable[0].name, keep="")[:100]
        raise InputError(f"it has {len(suitable)} arrays, {_listed(suitable)}; fix: name one, {file}:{example}")
    if not suitable:
        wanted = " or ".join(str(number) for number in sorted(dimensions))
        held = ", ".join(f"{array} ({array.problem})" if array.problem else str(array) for array in arrays[:_SHOWN])
        raise InputError(
            f"it has no array of {wanted} dimensions with more than one number; it holds {held or 'nothing'}"
            f"{', ...' if len(arrays) > _SHOWN else ''}; fix: save such an array in it, or give another file"
        )
    return suitable[0]


def _listed(arrays: Sequence[NamedArray]) -> str:
    shown = ", ".join(str(array) for array in arrays[:_SHOWN]) or "none"
    return f"{shown}, ..." if len(arrays) > _SHOWN else shown
