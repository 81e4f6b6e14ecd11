"""A run that is killed again and again ends as one that was left in peace; benchmarks/robustness/kills.py does it at length."""

from pathlib import Path

import pytest

from benchmarks.robustness import kills as benchmark


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Fewer bits: the B-step, which needs them to be hit, isn't aimed at here."""
    real = benchmark.flags
    monkeypatch.setattr(benchmark, "flags", lambda kills: [flag.replace("bits=256", "bits=64") for flag in real(kills)])


def test_kills_while_training_saving_and_evaluating_change_nothing(tmp_path):
    """kill -9 in each of these phases, then the same command: codes, mAP and lines of metrics are those of a run in peace."""
    found = benchmark.campaign(tmp_path, ["training", "saving", "evaluating"], seed=0, processes=1)
    assert found["same"] == {"codes": True, "map": True, "metrics": True}, found
    assert [kill["aimed"] for kill in found["kills"]] == ["training", "saving", "evaluating"]
    assert found["restarts"] == 3


@pytest.mark.slow
def test_kills_of_one_process_of_two_change_nothing(tmp_path):
    """The same with launch/local.sh and one process of two killed: the rest ends, and the run goes on."""
    found = benchmark.campaign(tmp_path, ["training", "saving", "evaluating"], seed=1, processes=2)
    assert found["same"] == {"codes": True, "map": True, "metrics": True}, found
    assert found["restarts"] == 3


def test_a_plan_ends_with_evaluating():
    """Of twenty kills the last five are in evaluating, when nothing else is left to hit; before, what was hit least."""
    assert benchmark.plan(20) == [None] * 15 + ["evaluating"] * 5


def test_the_stack_tells_the_phase():
    """A refresh of the banks within training is neither training nor evaluating; what is saved or encoded at the end is."""
    loop = ["Trainer.half_round adsq_jax/training/rounds.py", "train adsq_jax/training/loop.py"]
    assert benchmark.phase_of(loop) == "training"
    assert benchmark.phase_of(["Trainer.refresh_bank adsq_jax/training/rounds.py", *loop]) == "between"
    assert benchmark.phase_of(["_sweep adsq_jax/codes.py", "update_codes adsq_jax/codes.py"]) == "b_step"
    assert benchmark.phase_of(["Checkpoints.save adsq_jax/run/checkpoint.py", "train adsq_jax/training/loop.py"]) == "saving"
    measuring = ["encode adsq_jax/inference/evaluation.py", "evaluate adsq_jax/inference/evaluation.py"]
    assert benchmark.phase_of(measuring) == "evaluating"
    assert benchmark.phase_of([]) == "between"


def test_stacks_name_functions_that_there_are():
    """Each function that a phase is read from is in the package."""
    root = Path(__file__).parents[2]
    for functions in benchmark.STACKS.values():
        for function in functions:
            name, path = function.split(" ")
            assert f"def {name.split('.')[-1]}(" in (root / path).read_text(), function
