"""The progress bar of all long work, on a terminal and in a notebook."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from tqdm.auto import tqdm

from adsq_jax.run import terminal


def progress_bar(total: int, *, unit: str, description: str = "") -> "tqdm[Any]":
    """Make a progress bar that appears after a second and disappears at the end; call its `update(n)` after every n items."""
    return tqdm(
        total=total,
        unit=f" {unit}",
        desc=terminal.clean(description) or None,
        file=terminal.bar_stream(),
        unit_scale=total >= 1_000_000,
        delay=1,
        mininterval=0.5,
        dynamic_ncols=True,
        leave=False,
    )


@contextlib.contextmanager
def reporting(
    on_progress: Callable[[int], Any] | None, total: int, *, unit: str, description: str = ""
) -> Iterator[Callable[[int], Any]]:
    """Yield `on_progress`; None: the update of a progress bar, which takes the other arguments."""
    if on_progress is not None:
        yield on_progress
        return
    with progress_bar(total, unit=unit, description=description) as bar:
        yield bar.update
