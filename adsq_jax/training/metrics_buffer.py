"""Metrics that wait on the device, the error if one is not finite, and `TimedBatches`, which time the wait for batches."""

import time
from collections.abc import Generator, Iterator

import jax
import numpy as np

from adsq_jax.errors import InputError


class NotFinite(InputError):
    """A loss term, the gradient, or a relaxed code is NaN or infinite."""


class MetricsBuffer:
    """Holds metrics on the device until it is time to look at them, so that the training loop need not wait for them."""

    def __init__(self, every: int):
        """Fetch the metrics every `every` steps."""
        self._every = every
        self._steps: list[tuple[int, dict[str, jax.Array]]] = []

    def add(self, step: int, metrics: dict[str, jax.Array], *, last: bool, where: str) -> dict[str, float] | None:
        """Add one step's metrics; at multiples of `every`, and at the last step, return the means since then.

        Raises:
          NotFinite: a step's metrics are not finite; the text names the step and the terms.
        """
        self._steps.append((step, metrics))
        if step % self._every and not last:
            return None
        fetched = [(at, {name: np.mean(x) for name, x in jax.device_get(values).items()}) for at, values in self._steps]
        self._steps.clear()
        for at, values in fetched:
            bad = [name for name, value in values.items() if not np.isfinite(value)]
            if bad:
                terms = [name for name in bad if name not in ("loss", "grad_norm")] or bad
                raise NotFinite(f"{where}, step {at}: {', '.join(terms)} not finite")
        return {name: float(np.mean([values[name] for _, values in fetched])) for name in fetched[0][1]}


class TimedBatches:
    """Batches, and the seconds that were spent waiting for them."""

    def __init__(self, batches: Generator[dict[str, np.ndarray]]):
        """Wrap a generator of batches."""
        self._batches, self.waited = batches, 0.0

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        start = time.monotonic()
        batch = next(self._batches)
        self.waited += time.monotonic() - start
        return batch

    def close(self) -> None:
        """End the threads that read ahead."""
        self._batches.close()
