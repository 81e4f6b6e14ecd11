"""A run that is killed again and again ends like an undisturbed one; benchmarks/robustness/kills.py does it at length."""

from pathlib import Path

import pytest

from benchmarks.robustness import kills as benchmark

pytestmark = pytest.mark.benchmark


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Use fewer bits: the many bits are for hitting the B-step, which these tests don't aim at."""
    real = benchmark.flags
    monkeypatch.setattr(benchmark, "flags", lambda kills: [flag.replace("bits=256", "bits=64") for flag in real(kills)])


def test_kills_while_training_saving_and_evaluating_change_nothing(tmp_path):
    """kill -9 in each of these phases, then the same command: codes, mAP and metrics are those of an undisturbed run."""
    measured = benchmark.campaign(tmp_path, ["training", "saving", "evaluating"], seed=0, processes=1)
    assert measured["same"] == {"codes": True, "map": True, "metrics": True}, measured
    assert [kill["aimed"] for kill in measured["kills"]] == ["training", "saving", "evaluating"]
    assert measured["restarts"] == 3


@pytest.mark.slow
def test_kills_of_one_process_of_two_change_nothing(tmp_path):
    """The same with launch/local.sh and one process of two killed: the other ends, and the run continues."""
    measured = benchmark.campaign(tmp_path, ["training", "saving", "evaluating"], seed=1, processes=2)
    assert measured["same"] == {"codes": True, "map": True, "metrics": True}, measured
    assert measured["restarts"] == 3


def test_a_plan_ends_with_evaluating():
    """Of twenty kills the last five aim at evaluating, when nothing else is left to hit; before, at the phase hit least."""
    assert benchmark.plan(20) == [None] * 15 + ["evaluating"] * 5


def test_the_phase_of_a_stack():
    """A refresh of the banks within training is neither training nor evaluating; saving and encoding at the end count."""
    loop = ["half_round adsq_jax/training/rounds.py", "train adsq_jax/training/loop.py"]
    assert benchmark.phase_from_stack(loop) == "training"
    assert benchmark.phase_from_stack(["refresh_bank adsq_jax/training/rounds.py", *loop]) == "between"
    assert (
        benchmark.phase_from_stack(["_sweep adsq_jax/methods/b_step.py", "update_codes adsq_jax/methods/b_step.py"]) == "b_step"
    )
    assert benchmark.phase_from_stack(["Checkpoints.save adsq_jax/run/checkpoint.py", loop[1]]) == "saving"
    measuring = ["encode_parts adsq_jax/inference/evaluation.py", "evaluate adsq_jax/inference/evaluation.py"]
    assert benchmark.phase_from_stack(measuring) == "evaluating"
    assert benchmark.phase_from_stack([]) == "between"


def test_stacks_name_functions_that_exist():
    """Each function that a phase is read from is in the package."""
    root = Path(__file__).parents[2]
    for functions in benchmark.STACKS.values():
        for function in functions:
            name, path = function.split(" ")
            assert f"def {name.split('.')[-1]}(" in (root / path).read_text(), function
