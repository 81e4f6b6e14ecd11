"""Score a run on held-out images while it trains: keep the best state's model, and see when there is no gain any more."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from adsq_jax import storage
from adsq_jax.devices import processes
from adsq_jax.run import workdir
from adsq_jax.training.setup import TrainSetup
from adsq_jax.training.state import TrainState

_FILE = "score.json"  # beside the best model


class Validation:
    """The scores of a run on held-out images. With several processes all of them call it, and all get the same scores."""

    def __init__(
        self,
        measure: Callable[[TrainSetup, TrainState], float],
        *,
        save: Callable[[TrainSetup, TrainState], Any],
        directory: Path,
        patience: int = 0,
    ):
        """Start without a score.

        Args:
          measure: scores a state on held-out images, higher is better.
          save: called with each state that is better than all before it; keeps its model in `directory`.
          directory: where the best model is kept, and `score.json`, which has its step and score.
          patience: rounds without a better state after which `exhausted` is True; 0: it never is.
        """
        self.patience = patience
        self._measure, self._save, self._path = measure, save, directory / _FILE
        self._best: tuple[int, float] | None = None

    @property
    def best(self) -> tuple[int, float] | None:
        """The step and the score of the model that is kept."""
        return self._best

    def resume(self, *, step: int) -> None:
        """Begin with the best model of an earlier call, unless it is of a later step than the one that the run resumes from."""
        self._best = None
        if storage.is_file(self._path):
            found = workdir.read_json(self._path)
            if isinstance(found, dict) and type(found.get("step")) is int and isinstance(found.get("map"), float):
                self._best = (found["step"], found["map"]) if found["step"] <= step else None

    def score(self, setup: TrainSetup, state: TrainState) -> float:
        """Score a state, and keep its model if it is the best."""
        measured = self._measure(setup, state)
        if self._best is None or measured > self._best[1]:
            self._best = (int(state.step), measured)
            self._save(setup, state)
            if processes.leads():
                workdir.write_json(self._path, {"step": int(state.step), "map": measured})
        return measured

    def exhausted(self, setup: TrainSetup, state: TrainState) -> bool:
        """Return whether a round has ended and the last `patience` rounds, since an extension, brought no better state."""
        rounds, within = divmod(int(state.step), setup.steps_per_round)
        if not self.patience or self._best is None or within:
            return False
        since = max(self._best[0] / setup.steps_per_round, *(0, *setup.finished_rounds))
        return rounds - since >= self.patience
