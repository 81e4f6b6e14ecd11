"""The real loop, on mock data."""

import json
import signal
import time

import jax
import mock_data
import numpy as np
import pytest

from adsq_jax import main, workdir
from adsq_jax.errors import InputError
from adsq_jax.parallel import DataParallel
from adsq_jax.train import train as train_from
from adsq_jax.trainer import Stopped, Trainer


def build(config, *, devices=1, **kwargs):
    data = mock_data.dataset(image_size=config.data.image_size, **kwargs)
    return Trainer(config, data, parallel=DataParallel(config.parallel, devices=jax.devices()[:devices]))


def train(trainer, *, directory):
    return train_from(trainer, directory=directory, began=time.monotonic())


def run(trainer, directory):
    """Trains and measures in a folder as main does."""
    workdir.claim(directory, json.loads(trainer.config.to_json())).close()
    return main.run(trainer, directory, began=time.monotonic())


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


SLOW = ("cifar10", "imagenet100", "nuswide")  # ResNets compile for half a minute each


@pytest.mark.parametrize(
    "name", [pytest.param(path.stem, marks=[pytest.mark.slow] * (path.stem in SLOW)) for path in mock_data.CONFIGS]
)
def test_every_config_runs_and_changes_every_parameter(name, tmp_path):
    """Two rounds of the real loop with each config's own network: all parameters of LabelNet, f and g have moved."""
    config = mock_data.small_config(name, image_size=32 if "resnet" in mock_data.load_config(name).model.backbone else 8)
    config.optim.weight_decay = 0.0  # it would move kernels by itself
    trainer = build(config, multi_label=name == "nuswide", protocol=config.data.protocol)
    start = trainer.init()
    state, _ = train(trainer, directory=tmp_path)
    networks = {"label_net": state.label_net, **state.img_nets}
    before = {"label_net": start.label_net, **start.img_nets}
    for network, after in networks.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(after.params):
            old = dict(jax.tree_util.tree_leaves_with_path(before[network].params))[path]
            assert not np.array_equal(leaf, old), f"{network}{jax.tree_util.keystr(path)} has not changed"


def test_the_folder_of_a_run_has_what_the_design_names(tmp_path):
    """After a run: result.json with all its keys, codes with their shapes, metrics with every loss term by name."""
    result = run(build(mock_data.small_config()), tmp_path)
    assert result == json.loads((tmp_path / "result.json").read_text())
    assert set(result["map_by_query_net"]) == {"ff", "gg", "fg", "sum"}
    assert result["map"] == result["map_by_query_net"]["sum"] == result["metrics"]["all"]["map"]
    named = "protocol split_sha256 bits seed method n_query n_train n_database seconds versions machine date"
    assert set(named.split()) <= set(result)
    for part, size in (("query", 20), ("database", 120)):
        for net in ("f", "g", "sum"):
            codes = np.load(tmp_path / "codes" / f"{part}_{net}.npy", allow_pickle=False)
            assert codes.dtype == np.uint8
            assert codes.shape == (size, 2)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    terms = {"likelihood", "guidance", "difference", "quantization", "balance", "loss", "grad_norm", "images_per_second"}
    assert all(terms <= set(line) for line in lines if line["phase"] == "img_net")
    assert {line["phase"] for line in lines} == {"label_net", "img_net", "codes"}


@pytest.mark.parametrize("kind", ["shard_map", "pmap"])
def test_the_whole_loop_on_four_devices(kind, tmp_path, monkeypatch):
    """Both ways to run in parallel learn on four devices what one learns, and go on after a stop as if there was none."""
    config = mock_data.small_config()
    one, _ = train(build(config), directory=tmp_path / "one")
    config.parallel = kind
    whole, _ = train(build(config, devices=4), directory=tmp_path / "whole")
    for name in ("f", "g"):
        np.testing.assert_allclose(whole.img_nets[name].bank, one.img_nets[name].bank, atol=0.02)
    trainer = build(config, devices=4)
    stop_at_batch(11, trainer, monkeypatch)
    with pytest.raises(Stopped):
        train(trainer, directory=tmp_path / "parts")
    assert same(train(build(config, devices=4), directory=tmp_path / "parts")[0], whole)


def stop_at_batch(at, trainer, monkeypatch):
    """Sends this process SIGTERM when the trainer takes its batch number `at`; gives the list of batches taken."""
    split, calls = trainer.parallel.split, []

    def counting(batch):
        calls.append(1)
        if len(calls) == at:
            signal.raise_signal(signal.SIGTERM)
        return split(batch)

    monkeypatch.setattr(trainer.parallel, "split", counting)
    return calls


def test_training_learns(tmp_path):
    """A learnable toy set is learned: mAP well above that of the untrained networks."""
    config = mock_data.small_config()
    config.train.rounds, config.train.epochs_per_round = 4, 4
    trained = run(build(config), tmp_path / "trained")
    config.optim.learning_rate = 1e-9
    untrained = run(build(config), tmp_path / "untrained")
    assert trained["map"] > 0.9
    assert untrained["map"] < 0.7


def test_a_signal_during_step_1_stops_before_step_2(tmp_path, monkeypatch):
    """SIGTERM while LabelNet trains: it stops at once, nothing of step 1 is kept, and the same command begins anew."""
    config = mock_data.small_config()
    trainer = build(config)
    step = trainer.label_net_step

    def interrupted(*args):
        signal.raise_signal(signal.SIGTERM)
        return step(*args)

    monkeypatch.setattr(trainer, "label_net_step", interrupted)
    with pytest.raises(Stopped):
        train(trainer, directory=tmp_path)
    assert not list((tmp_path / "checkpoints").glob("[0-9]*"))
    assert same(train(build(config), directory=tmp_path)[0], train(build(config), directory=tmp_path / "whole")[0])


@pytest.mark.parametrize("at", [2, 4, 7, 8, 13, 16])
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(at, tmp_path, monkeypatch):
    """SIGTERM after any step saves; the same command then ends with the same state and steps, bit for bit."""
    config = mock_data.small_config()
    whole, _ = train(build(config), directory=tmp_path / "whole")
    trainer = build(config)
    calls = stop_at_batch(at, trainer, monkeypatch)
    with pytest.raises(Stopped):
        train(trainer, directory=tmp_path / "parts")
    assert len(calls) == at
    parts, _ = train(build(config), directory=tmp_path / "parts")
    assert same(whole, parts)
    lines = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "parts")]
    steps = [[(line["phase"], line["step"]) for line in map(json.loads, run)] for run in lines]
    assert sorted(set(steps[1]) - {("img_net", at)}) == sorted(set(steps[0]) - {("img_net", at)})
    assert len(set(steps[1])) == len(steps[1])
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_the_same_seed_gives_the_same_codes_and_another_seed_others(tmp_path):
    """Codes are a function of config and seed."""
    config = mock_data.small_config()
    states = []
    for run, seed in enumerate((0, 0, 1)):
        config.seed = seed
        states.append(train(build(config), directory=tmp_path / str(run))[0])
    assert same(states[0], states[1])
    assert not same(states[0], states[2])


@pytest.mark.parametrize(("term", "named"), [("likelihood", "likelihood"), ("loss", "grad_norm, loss")])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(term, named, tmp_path, monkeypatch):
    """A NaN in the 15th update: the error names step and term, and the checkpoint of the first round is whole."""
    config = mock_data.small_config()
    trainer = build(config)
    step, calls = trainer.img_net_step, []

    def broken(*args):
        calls.append(1)
        state, metrics = step(*args)
        bad = {term: np.nan, "loss": np.nan, "grad_norm": np.inf} if len(calls) == 15 else {}
        return state, {**metrics, **bad}

    monkeypatch.setattr(trainer, "img_net_step", broken)
    with pytest.raises(InputError, match=rf"round 2/2 g, step 15: {named} not finite; .*step 8, is kept"):
        train(trainer, directory=tmp_path)
    assert same(train(build(config), directory=tmp_path)[0], train(build(config), directory=tmp_path / "whole")[0])


def test_b_fixed_after_step_1(tmp_path):
    """objective.update_codes=False: the codes at the end are LabelNet's signs; with it, the B-step has been recorded."""
    config = mock_data.small_config()
    config.objective.update_codes = False
    trainer = build(config)
    state, _ = train(trainer, directory=tmp_path)
    _, label_codes = trainer.guidance(state)
    assert np.array_equal(state.codes, np.where(label_codes < 0, -1, 1)[trainer.sets.set_index])
    assert '"codes"' not in (tmp_path / "metrics.jsonl").read_text()


def test_no_twin(tmp_path):
    """objective.twin=False: one network, held against its own bank as it is renewed; only `ff` is measured."""
    config = mock_data.small_config()
    config.objective.twin, config.eval.query_net = False, "ff"
    trainer = build(config)
    result = run(trainer, tmp_path)
    assert set(result["map_by_query_net"]) == {"ff"}
    assert not (tmp_path / "codes" / "query_g.npy").exists()
    assert trainer.total_steps == 8


def test_no_label_net(tmp_path):
    """objective.label_net=False: no guidance term, and the codes start from a B-step on the untrained ImgNets' banks."""
    config = mock_data.small_config()
    config.objective.label_net = False
    trainer = build(config)
    state, _ = train(trainer, directory=tmp_path)
    assert state.label_net is None
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {line["phase"] for line in lines} == {"img_net", "codes"}
    assert all("guidance" not in line for line in lines)
    assert lines[0]["phase"] == "codes"
    assert lines[0]["step"] == 0


def test_no_difference_loss(tmp_path):
    """objective.difference=False: the term weighs nothing in LabelNet, ImgNets and the B-step, which is then one sweep."""
    config = mock_data.small_config()
    config.objective.difference = False
    trainer = build(config)
    state, _ = train(trainer, directory=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    weights = {"f": config.objective.weights, "label_net": config.label_net.weights}
    for line in lines:
        kind = "label_net" if line["phase"] == "label_net" else "f"
        if line["phase"] != "codes":
            total = sum(value * line[name] for name, value in weights[kind].items() if name in line and name != "difference")
            assert line["loss"] == pytest.approx(total, rel=1e-5)
        else:
            assert line["difference_share"] == 0
    _, label_codes = trainer.guidance(state)
    pull = 0.1 * sum(np.asarray(net.bank, np.float64) for net in state.img_nets.values())
    pull += 0.1 * label_codes.astype(np.float64)[trainer.sets.set_index]
    assert np.array_equal(state.codes, np.where(pull < 0, -1, 1))


def test_the_banks_are_what_the_networks_give_in_evaluation_mode(tmp_path):
    """After each half-round the bank equals a fresh encoding of the training set."""
    trainer = build(mock_data.small_config())
    state, _ = train(trainer, directory=tmp_path)
    for net in state.img_nets.values():
        fresh = trainer.encoder(net, trainer.dataset.source, trainer.dataset.split.train)
        assert np.array_equal(fresh, net.bank)


def test_checkpoints_by_round(tmp_path):
    """checkpoint.every_rounds and checkpoint.keep: which steps stay on the disk."""
    config = mock_data.small_config()
    config.train.rounds, config.checkpoint.every_rounds, config.checkpoint.keep = 5, 2, 3
    train(build(config), directory=tmp_path)
    steps = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit())
    assert steps == [16, 32, 40]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train.batch_size", 6, "can't be shared by 4 devices"),
        ("train.batch_size", 80, "more than the 64 training images"),
        ("data.image_size", 9, "is 8x8, and the network wants 9x9"),
    ],
)
def test_a_config_that_does_not_fit_the_data_is_refused(key, value, message):
    """One line that says what doesn't fit."""
    config = mock_data.small_config()
    data = mock_data.dataset()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(InputError, match=message):
        Trainer(config, data, parallel=DataParallel("shard_map"))
