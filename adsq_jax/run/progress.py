"""One progress bar for all long work, on a terminal and in a notebook."""

from typing import Any

from tqdm.auto import tqdm


def progress_bar(total: int, *, unit: str, description: str = "") -> "tqdm[Any]":
    """Make a progress bar on standard error that appears after a second and disappears when the work is done.

    Args:
      total: how many there are.
      unit: what they are, in the plural.
      description: what is being done, shown before the bar.

    Returns:
      A context manager; call its `update(count)` with how many were done since the last call.
    """
    return tqdm(
        total=total,
        unit=f" {unit}",
        desc=description or None,
        unit_scale=total >= 1_000_000,
        delay=1,
        mininterval=0.5,
        dynamic_ncols=True,
        leave=False,
    )
