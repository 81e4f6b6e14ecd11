"""Each method in the real training loop on mock data: its loss falls, and a stopped run continues to the same end."""

import json
from functools import cache

import numpy as np
import pytest
from support import mock_data
from support.runs import make_setup, same, stop_at_batch, train

from adsq_jax.errors import Stopped
from adsq_jax.methods import METHODS
from adsq_jax.training import init

RESUMED = ("greedyhash", "dsdh")  # one with a classifier, and one with a discrete step
BASELINES = [name for name in METHODS if name != "adsq"]  # test_loop.py trains ADSQ


def small_config(method):
    """Return a config of two rounds of 24 updates a network; most with a frozen trunk, which compiles sooner."""
    small = mock_data.small_config(method=method)
    small.train.epochs_per_round = small.train.log_every = 6
    small.optim.schedule, small.optim.warmup = "constant", 0.0
    small.optim.trunk_lr_scale = float(method in RESUMED)
    small.data.feature_views = 2 if METHODS[method]().second_view else 0
    return small


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a function from a method to the final state and the folder of an uninterrupted run, one run a method."""

    @cache
    def run(name):
        directory = tmp_path_factory.mktemp(name)
        return train(make_setup(small_config(name)), directory=directory)[1], directory

    return run


@pytest.mark.parametrize("name", BASELINES)
def test_two_rounds_lower_the_loss(name, whole):
    """The loss of the last updates is below the first; discrete steps and LabelNet run where a method has them."""
    state, directory = whole(name)
    method = METHODS[name]()
    assert int(state.step) == 48 * len(state.img_nets)
    assert list(state.img_nets) == (["f", "g"] if method.twin else ["f"])
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    phases = {"img_net": True, "label_net": method.label_net, "codes": method.update_codes is not None}
    assert {line["phase"] for line in lines} == {phase for phase, used in phases.items() if used}
    for net in state.img_nets:
        losses = [line["loss"] for line in lines if line.get("net") == net]
        assert len(losses) == 8
        assert np.mean(losses[-2:]) < np.mean(losses[:2]), losses


# Trains each method twice, once in parts.
@pytest.mark.parametrize("at", [10, 30])
@pytest.mark.parametrize("name", RESUMED)
def test_stopped_and_resumed_it_ends_the_same(name, at, whole, tmp_path, monkeypatch):
    """Stopped in the first or in the second round, it ends with the state of an uninterrupted run."""
    setup = make_setup(small_config(name))
    taken = stop_at_batch(at, setup, monkeypatch)
    with pytest.raises(Stopped):
        train(setup, directory=tmp_path)
    assert len(taken) == at
    _, state = train(make_setup(small_config(name)), directory=tmp_path)
    assert same(state, whole(name)[0])
    assert ("method" in state.img_nets["f"].params) == (name == "greedyhash")


@pytest.mark.parametrize("name", ["greedyhash", "classify", "hyp2"])
def test_a_methods_own_parameters_are_learned(name, whole):
    """The classifier's kernel and bias, or the proxies, have changed after two rounds."""
    start = init(make_setup(small_config(name))).img_nets["f"].params["method"]
    after = whole(name)[0].img_nets["f"].params["method"]
    assert start.keys() == after.keys() == ({"proxies"} if name == "hyp2" else {"kernel", "bias"})
    for key in start:
        assert np.abs(np.asarray(after[key]) - np.asarray(start[key])).max() > 1e-4
