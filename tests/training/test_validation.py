"""Which state was best on held-out images, and when training ends for want of a gain."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from adsq_jax.training.validation import Validation


@dataclass
class Scores:
    """Scores by step, and which states were kept as the best."""

    values: dict
    directory: Path
    best: list = field(default_factory=list)

    def validation(self, patience=0):
        def measure(setup, state):
            return self.values[state.step]

        def save(setup, state):
            self.best.append(state.step)

        return Validation(measure, save=save, directory=self.directory, patience=patience)


def rounds_until_exhausted(scores, *, patience, finished=(), start=0):
    """Score after each round of ten steps; the round after which no more is to be trained, or None."""
    setup = SimpleNamespace(steps_per_round=10, finished_rounds=finished)
    validation = scores.validation(patience)
    for number in range(start, len(scores.values)):
        state = SimpleNamespace(step=10 * number)
        validation.score(setup, state)
        if validation.exhausted(setup, state):
            return number
    return None


@pytest.fixture
def scores_of(tmp_path):
    def make(*values):
        return Scores({10 * number: value for number, value in enumerate(values)}, tmp_path)

    return make


def test_the_best_is_the_first_of_the_highest(scores_of):
    """A state that is as good as one before it is no better."""
    scores = scores_of(0.1, 0.5, 0.4, 0.5, 0.6)
    assert rounds_until_exhausted(scores, patience=0) is None
    assert scores.best == [0, 10, 40]


@pytest.mark.parametrize(("patience", "last"), [(1, 2), (2, 3), (3, 8), (4, None)])
def test_training_ends_after_rounds_without_a_gain(patience, last, scores_of):
    """The gain of round 4 comes in time for a patience of 3, and that of round 5 is the last one."""
    assert rounds_until_exhausted(scores_of(0.1, 0.5, 0.4, 0.5, 0.6, 0.7, 0.6, 0.6, 0.6), patience=patience) == last


def test_an_extension_has_its_own_patience(scores_of):
    """What was trained before the extension doesn't count against it."""
    scores = scores_of(0.1, 0.9, 0.5, 0.5, 0.5, 0.5)
    assert rounds_until_exhausted(scores, patience=2) == 3
    assert rounds_until_exhausted(scores, patience=2, finished=(3,)) == 5


def test_a_score_after_the_step_that_a_run_resumes_from_is_forgotten(scores_of):
    """The run trains those steps again, and calls the state the best again."""
    setup = SimpleNamespace(steps_per_round=10, finished_rounds=())
    for step, best in [(10, [20]), (20, [])]:
        scores = scores_of(0.1, 0.2, 0.5)
        before = scores.validation()
        before.score(setup, SimpleNamespace(step=20))
        assert before.best == (20, 0.5)
        scores.best.clear()
        validation = scores.validation()
        validation.resume(step=step)
        validation.score(setup, SimpleNamespace(step=20))
        assert scores.best == best
        assert validation.best == (20, 0.5)


def test_a_damaged_score_is_no_score(scores_of):
    """The next state that is scored is kept as the best."""
    scores = scores_of(0.1)
    for content in ("[]", '{"step": 3}', '{"step": "3", "map": 0.5}'):
        (scores.directory / "score.json").write_text(content)
        validation = scores.validation()
        validation.resume(step=10)
        assert validation.best is None
