"""Rounds that are added to a finished run: the earlier rounds stay as they were, and the new ones can be interrupted."""

import json
import shutil

import numpy as np
import pytest
from support import mock_data
from support.runs import make_setup, run, same, stop_at_batch, train

import adsq_jax as aj
from adsq_jax import main
from adsq_jax.devices.data_parallel import TrainDevices
from adsq_jax.errors import InputError, Stopped
from adsq_jax.run import history, workdir
from adsq_jax.training import loop


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run of two rounds, and its result."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, run(make_setup(mock_data.small_config()), folder)


def four_rounds(**changes):
    config = mock_data.small_config()
    config.train.rounds = 4
    config.update_from_flattened_dict(changes)
    return make_setup(config, finished_rounds=(2,))


def test_an_extension_goes_on_from_the_last_state(finished, tmp_path):
    """Two rounds, then two more: the second run trains steps 17 to 32 only, and result.json has the history."""
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    result = run(four_rounds(), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["phase"] == "img_net"] == list(range(2, 33, 2))
    assert [(entry["rounds"], entry["planned"]) for entry in result["history"]] == [(2, 2), (4, 4)]
    assert [entry["map"] for entry in result["history"]] == [finished[1]["map"], result["map"]]


def test_an_interrupted_extension_ends_the_same(finished, tmp_path, monkeypatch):
    """Stopped in the third round and continued, the state equals that of an extension without interruption, bit for bit."""
    states = []
    for name, at in (("whole", None), ("parts", 3)):
        shutil.copytree(finished[0], tmp_path / name)
        setup = four_rounds()
        if at is not None:
            stop_at_batch(at, setup, monkeypatch)
            with pytest.raises(Stopped):
                train(setup, directory=tmp_path / name)
            setup = four_rounds()
        states.append(train(setup, directory=tmp_path / name)[1])
    assert int(states[0].step) == 32
    assert same(*states)


def test_the_rate_of_an_extension_is_as_the_config_says(finished, tmp_path):
    """A scale of 1e-9 leaves the networks where they were; the first two rounds are the same with any of them."""
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    before = aj.load(tmp_path).variables["f"]["params"]["hash"]["kernel"]
    setup = four_rounds(**{"optim.extension": "constant", "optim.extension_scale": 1e-9, "optim.weight_decay": 0.0})
    _, state = train(setup, directory=tmp_path)
    np.testing.assert_allclose(state.img_nets["f"].params["hash"]["kernel"], before, atol=1e-6)


def test_methods_see_the_progress_of_the_first_rounds():
    """What a loss does in the course of training is done: in rounds that were added the progress is 1."""
    setup = four_rounds()
    assert [setup.progress(step) for step in (0, 7, 8, 16, 24)] == [0, 0, 0.5, 1, 1]


def test_the_command_extends_a_finished_run_alone(finished, tmp_path):
    """More rounds and their schedule may differ from a finished run's config; fewer rounds, and another seed, may not."""
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    config = mock_data.small_config()
    assert main._is_finished(config, tmp_path)
    config.train.rounds, config.optim.extension_scale = 4, 0.5
    assert not main._is_finished(config, tmp_path)
    claim(config, tmp_path)
    assert workdir.read_json(tmp_path / "config.json")["train"]["rounds"] == 4
    config.train.rounds = 3
    with pytest.raises(InputError, match=r"a run of 4 rounds that has not finished, got train\.rounds=3"):
        claim(config, tmp_path)
    config.train.rounds, config.seed = 5, 1
    with pytest.raises(InputError, match="has not finished"):
        claim(config, tmp_path)
    config.train.rounds, config.seed, config.optim.extension_scale = 4, 0, 0.1
    with pytest.raises(InputError, match=r"extension_scale is 0\.5 there and 0\.1 here"):  # the extension has begun
        claim(config, tmp_path)
    history.add(tmp_path, rounds=4, planned=4, seconds=0.0, extension=("restart", 0.5))
    config.train.rounds, config.seed = 5, 1
    with pytest.raises(InputError, match="seed is 0 there and 1 here"):
        claim(config, tmp_path)
    assert workdir.read_json(tmp_path / "config.json")["train"]["rounds"] == 4


def claim(config, directory):
    """What the command does before it trains."""
    main._claim(config, directory, json.loads(config.to_json()), finished=main._finished(config, directory)).close()


def test_each_extension_keeps_its_own_schedule(finished, tmp_path):
    """A second extension trains with its own scale, and builds the first one's schedule with that one's."""
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    history.add(tmp_path, rounds=4, planned=4, seconds=0.0, extension=("constant", 0.25))
    config = mock_data.small_config()
    config.train.rounds, config.optim.extension_scale, config.optim.weight_decay = 6, 0.5, 0.0
    workdir.write_json(tmp_path / "config.json", {"train": {"rounds": 4}})
    found = main._finished(config, tmp_path)
    assert found == history.Finished((2, 4), (("constant", 0.25),))
    setup = loop.setup_from_config(config, mock_data.dataset(), devices=TrainDevices(), finished=found)
    assert setup.extensions == (("constant", 0.25), ("restart", 0.5))


def test_without_its_checkpoints_a_run_is_not_extended(finished, tmp_path):
    """It isn't trained again from the start without a word; its metrics stay."""
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoints")
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match="no checkpoint of the 2 rounds that had finished"):
        train(four_rounds(), directory=tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_a_finished_run_did_not_start_from_another(finished):
    """--from of a run that it didn't start from is refused, though there is nothing to train."""
    config = mock_data.small_config()
    main._check_start(config, finished[0], None)
    with pytest.raises(InputError, match="didn't start from"):
        main._check_start(config, finished[0], finished[0])


def test_early_stopping_scores_each_round(tmp_path):
    """With checkpoints every five rounds the rounds before them count too, and the last state is saved."""
    config = mock_data.small_config()
    config.data.validation, config.train.stop_after_rounds_without_gain, config.checkpoint.every_rounds = 1, 2, 5
    config.train.rounds, config.optim.learning_rate = 5, 1e-12
    result = run(make_setup(config), tmp_path)
    (entry,) = result["history"]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["phase"] == "validation"] == [8 * n for n in range(entry["rounds"] + 1)]
    assert (tmp_path / "checkpoints" / str(8 * entry["rounds"])).is_dir()


def test_early_stopping_in_a_run(tmp_path):
    """Scores that never rise end training after the first round; result.json has the best, whose model is kept apart."""
    config = mock_data.small_config()
    config.data.validation, config.train.stop_after_rounds_without_gain, config.optim.learning_rate = 1, 1, 1e-12
    config.train.rounds = 5
    result = run(make_setup(config), tmp_path)
    (entry,) = result["history"]
    assert entry["rounds"] < entry["planned"] == 5
    assert result["best"]["map"] >= result["map"]
    images = mock_data.dataset().source.pixels[:8]
    assert aj.load(tmp_path, best=True).encode(images).shape == (8, 12)


def test_in_python(tmp_path):
    """`fit` goes on with more rounds in the same folder, and starts another length from a run; without either it refuses."""
    data = mock_data.dataset()
    images, labels = data.source.pixels, data.source.labels[np.arange(140)].argmax(axis=1)
    short = {"epochs_per_round": 1, "batch_size": 16, "method": "dpsh"}
    run_ = aj.fit(images, labels, bits=12, rounds=1, workdir=tmp_path / "a", **short)
    more = aj.fit(images, labels, bits=12, rounds=2, workdir=tmp_path / "a", **short)
    assert int(more.state.step) == 2 * int(run_.state.step)
    with pytest.raises(InputError, match=r"a run of 2 rounds, got fit\.rounds=1"):
        aj.fit(images, labels, bits=12, rounds=1, workdir=tmp_path / "a", **short)
    other = aj.fit(images, labels, bits=24, rounds=1, from_run=tmp_path / "a", **short)
    assert other.setup.start_report["new"] == ["hash"]
    with pytest.raises(InputError, match="holds no best model"):
        aj.load(tmp_path / "a", best=True)
