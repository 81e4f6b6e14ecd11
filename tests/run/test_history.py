"""What a run has finished: which numbers of rounds can follow, and what a folder of an older version counts as."""

import pytest

from adsq_jax.errors import InputError
from adsq_jax.run import history, workdir

BAD = '[{"rounds": 3, "planned": 3, "extension": ["restart"]}]'


def config_of(directory, rounds):
    workdir.write_json(directory / "config.json", {"train": {"rounds": rounds}})


def finished(directory, planned):
    return history.finished(directory, planned=planned, key="train.rounds").rounds


def test_a_run_is_extended_twice(tmp_path):
    """Each number of rounds joins the history once it has finished; while an extension trains, the earlier ones count."""
    assert finished(tmp_path, 3) == ()
    config_of(tmp_path, 3)
    assert finished(tmp_path, 3) == ()
    history.add(tmp_path, rounds=3, planned=3, seconds=1.0, extension=None)
    history.add(tmp_path, rounds=3, planned=3, seconds=2.0, extension=None, mean_ap=0.5)
    assert finished(tmp_path, 3) == ()
    assert finished(tmp_path, 5) == (3,)
    config_of(tmp_path, 5)
    assert finished(tmp_path, 5) == (3,)
    history.add(tmp_path, rounds=5, planned=5, seconds=4.0, extension=("constant", 0.5), mean_ap=0.6)
    found = history.finished(tmp_path, planned=9, key="train.rounds")
    assert found == history.Finished((3, 5), (("constant", 0.5),))
    assert [entry["map"] for entry in history.read(tmp_path)] == [0.5, 0.6]


def test_a_run_that_stopped_early_goes_on_from_where_it_was(tmp_path):
    """Of 10 planned rounds 7 were trained: an extension begins after 7."""
    config_of(tmp_path, 10)
    history.add(tmp_path, rounds=7, planned=10, seconds=1.0, extension=None)
    assert finished(tmp_path, 10) == ()
    assert finished(tmp_path, 12) == (7,)


def test_fewer_rounds_and_an_unfinished_run_are_refused(tmp_path):
    """One line each, with the number to give."""
    config_of(tmp_path, 4)
    with pytest.raises(InputError, match=r"that has not finished, got train\.rounds=3; fix: give 4, or another folder"):
        finished(tmp_path, 3)
    with pytest.raises(InputError, match=r"4 rounds that has not finished, got train\.rounds=5; fix: give 4, or"):
        finished(tmp_path, 5)
    history.add(tmp_path, rounds=4, planned=4, seconds=1.0, extension=None)
    with pytest.raises(InputError, match=r"a run of 4 rounds, got train\.rounds=3; fix: give 4 or more"):
        finished(tmp_path, 3)


def test_a_run_of_an_older_version_has_finished_if_it_has_its_model(tmp_path):
    """Without history.json the model counts; what is found is written down before config.json changes."""
    config_of(tmp_path, 4)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text("{}")
    workdir.write_json(tmp_path / "result.json", {"map": 0.25, "seconds": 3.0})
    assert finished(tmp_path, 6) == (4,)
    history.keep(tmp_path, planned=4, key="train.rounds")
    assert history.read(tmp_path) == []
    history.keep(tmp_path, planned=6, key="train.rounds")
    assert history.read(tmp_path) == [{"rounds": 4, "planned": 4, "seconds": 3.0, "map": 0.25}]
    config_of(tmp_path, 6)
    assert finished(tmp_path, 6) == (4,)


@pytest.mark.parametrize("content", ["{}", "[3]", '[{"rounds": 0, "planned": 3}]', '[{"rounds": "3", "planned": 3}]', BAD, "["])
def test_a_damaged_history_is_one_line(content, tmp_path):
    """It is neither read nor replaced."""
    (tmp_path / "history.json").write_text(content)
    with pytest.raises(InputError, match=r"history\.json .*fix: restore it"):
        history.add(tmp_path, rounds=1, planned=1, seconds=0.0, extension=None)
    assert (tmp_path / "history.json").read_text() == content
