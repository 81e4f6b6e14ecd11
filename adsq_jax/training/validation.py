"""Score a run on held-out images while it trains: which state was best, and whether there is still a gain."""

from collections.abc import Callable
from typing import Any

from adsq_jax.training.setup import TrainSetup
from adsq_jax.training.state import TrainState


class Validation:
    """The scores of a run on held-out images. With several processes all of them call it, and all get the same scores."""

    def __init__(
        self,
        measure: Callable[[TrainSetup, TrainState], float],
        *,
        on_best: Callable[[TrainSetup, TrainState], Any],
        patience: int = 0,
    ):
        """Start without a score.

        Args:
          measure: scores a state on held-out images, higher is better.
          on_best: called with each state that is better than all before it, and before it is saved.
          patience: rounds without a better state after which `exhausted` is True; 0: it never is.
        """
        self.patience = patience
        self._measure, self._on_best = measure, on_best
        self._best: tuple[int, float] | None = None

    def resume(self, best: tuple[int, float] | None, *, step: int) -> None:
        """Begin with the best step and score of an earlier sitting, unless it is after the step that the run resumes from."""
        self._best = best if best is not None and best[0] <= step else None

    def score(self, setup: TrainSetup, state: TrainState) -> float:
        """Score a state."""
        measured = self._measure(setup, state)
        if self._best is None or measured > self._best[1]:
            self._best = (int(state.step), measured)
            self._on_best(setup, state)
        return measured

    def exhausted(self, setup: TrainSetup, state: TrainState) -> bool:
        """Return whether a round has ended and the last `patience` rounds, since an extension, brought no better state."""
        rounds, within = divmod(int(state.step), setup.steps_per_round)
        if not self.patience or self._best is None or within:
            return False
        since = max(self._best[0] / setup.steps_per_round, *(0, *setup.finished_rounds))
        return rounds - since >= self.patience
