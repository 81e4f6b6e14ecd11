"""The progress bar of all long work, on a terminal and in a notebook."""

from typing import Any

from tqdm.auto import tqdm


def progress_bar(total: int, *, unit: str, description: str = "") -> "tqdm[Any]":
    """Make a progress bar that appears after a second and disappears at the end; call its `update(n)` after every n items."""
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
