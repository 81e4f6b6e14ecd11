"""A run that is killed again and again ends like an undisturbed one; benchmarks/robustness/kills.py does it at length."""

import json

import pytest

from benchmarks.robustness import kills as benchmark

pytestmark = pytest.mark.benchmark
SMALL = {"rounds": 2, "bits": 64}  # many bits are for hitting the B-step, which these tests don't aim at
SAME = {"codes": True, "map": True, "metrics": True}


# Five starts of a run, one after the other.
def test_kills_while_training_saving_and_evaluating_change_nothing(tmp_path):
    """kill -9 in each of these phases, then the same command: codes, mAP and metrics are those of an undisturbed run."""
    measured = benchmark.campaign(tmp_path, ["training", "saving", "evaluating"], seed=0, processes=1, **SMALL)
    assert measured["same"] == SAME, measured
    assert [kill["aimed"] for kill in measured["kills"]] == ["training", "saving", "evaluating"]
    assert measured["restarts"] == 3


# Three starts of a run of two processes, one after the other.
@pytest.mark.slow
def test_a_kill_of_one_process_of_two_changes_nothing(tmp_path):
    """The same with launch/local.sh and one process of two killed while it saves: the other ends, and the run continues."""
    measured = benchmark.campaign(tmp_path, ["saving"], seed=1, processes=2, **SMALL)
    assert measured["same"] == SAME, measured
    assert measured["restarts"] == 1


def test_a_plan_ends_with_evaluating():
    """Of twenty kills the last five aim at evaluating, when nothing else is left to hit; before, at the phase hit least."""
    assert benchmark.plan(20) == [None] * 15 + ["evaluating"] * 5


def test_the_phase_of_a_run(tmp_path):
    """From its files and what it has printed: a round's last update begins the B-step, which its line of codes ends."""
    output = ""

    def phase(**options):
        return benchmark.phase_on_disk(tmp_path, output, **options)

    def update(phase, step):
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"phase": phase, "step": step}) + "\n")

    update("img_net", 3)  # of an earlier start
    assert phase() == "starting"
    output += "running on 1 x cpu\n"
    assert phase() == "training"
    update("img_net", 5)  # when it saves
    assert phase() == "between"
    update("img_net", 14)
    assert phase() == "b_step"
    update("codes", 14)
    assert phase() == "between"
    (tmp_path / "checkpoints" / "14").mkdir(parents=True)
    assert phase() == "saving"
    assert phase(old=benchmark.unfinished(tmp_path)) == "between"  # that of an earlier start is not being saved
    (tmp_path / "checkpoints" / "14" / "manifest.json").touch()
    assert phase() == "between"
    output += "encoding 100 query images\n"
    assert phase() == "evaluating"
    (tmp_path / "result.json").touch()
    assert phase() == "between"
