"""Labels of shape [n, 1], which may be class ids or a single class of multi-hot labels: one rule for all that take labels."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from adsq_jax.errors import InputError

_ROWS = 65_536  # looked at together, of a file that is mapped from the disk


def is_column(labels: Any) -> bool:
    """Return whether labels, of NumPy or JAX, are numbers [n, 1]; bool [n, 1] is a single class."""
    return labels.shape[1:] == (1,) and labels.dtype != bool


def to_ids(labels: Mapping[str, Any]) -> dict[str, Any]:
    """Return columns [n, 1] as ids [n] if they can be nothing else: a value is above 1, or others are ids.

    Args:
      labels: arrays that have one form, by their names: class ids [n], multi-hot [n, c], or columns [n, 1].

    Returns:
      The same; columns as ids, or as they are if that isn't certain: `check` refuses them.
    """
    columns = {name: array for name, array in labels.items() if is_column(array)}
    has_ids = any(array.ndim == 1 for array in labels.values())
    if not has_ids and not any((rows > 1).any() for array in columns.values() for rows in _blocks(array)):
        return dict(labels)
    return {**labels, **{name: array[:, 0] for name, array in columns.items()}}


def check(labels: Any, *, name: str) -> None:
    """Check that labels are no column.

    Raises:
      InputError: they are numbers [n, 1]; `name` is theirs, in the message.
    """
    if is_column(labels):
        raise InputError(
            f"{name} have shape [n, 1] and values 0 and 1, which may be class ids or one class of multi-hot labels; fix: give "
            "ids as [n], labels[:, 0], and multi-hot labels as [n, c] with a column per class, or, if c is 1, as bool of NumPy"
            "; in MATLAB, ids + 1, or [labels, 0 * labels]"
        )


def _blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    return (np.asarray(array[start : start + _ROWS]) for start in range(0, len(array), _ROWS))
