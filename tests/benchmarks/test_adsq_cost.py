"""benchmarks/speed/adsq_cost.py: the plain step leaves ADSQ out and trains the network; shares add up."""

import json
import re
from dataclasses import replace

import jax
import numpy as np
import pytest

from adsq_jax.training import init, rounds
from benchmarks.speed import adsq_cost
from benchmarks.speed.adsq_cost import Case

pytestmark = pytest.mark.benchmark

SMALL = Case(backbone="small_cnn", width=4, side=8, batch=4, full_batch=10, rows=60, bits=8, classes=5)


@pytest.mark.parametrize("label_sets", [0, 12])
def test_labels(label_sets):
    """One label an image, each class as often; or at most so many sets, each with a label."""
    labels = adsq_cost.make_labels(Case(rows=60, classes=5, label_sets=label_sets))
    assert labels.shape == (60, 5)
    assert labels.dtype == np.uint8
    if label_sets:
        assert 2 < len(np.unique(labels, axis=0)) <= label_sets
        assert labels.sum(axis=1).min() >= 1
        assert labels.sum(axis=1).max() > 1
    else:
        assert (labels.sum(axis=1) == 1).all()
        assert (labels.sum(axis=0) == 12).all()


# Compiles the steps of two small networks, with and without ADSQ.
def test_the_script_measures_and_makes_the_table(tmp_path, capsys):
    """By each clock, the shares are those of its own seconds; the table shows their sum."""
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in vars(SMALL).items()]
    adsq_cost.main([*flags, "--turns=2", f"--out={tmp_path}"])
    result = json.loads((tmp_path / "adsq_cost.json").read_text())
    printed = capsys.readouterr().out
    assert result["steps_a_round"] == 2 * 3 * 6
    for clock, name in enumerate(("wall", "CPU")):
        seconds, shares, a_round = (
            result[name]["seconds"],
            result[name]["shares"],
            36 * 10 / 4 * result[name]["seconds"]["plain"],
        )
        assert shares["b_step"] == pytest.approx(seconds["b_step"] / a_round)
        assert shares["label_net"] == pytest.approx(seconds["label_net"] / (10 * a_round))
        turns = [[turn[clock] for turn in result["times"][kind]] for kind in ("adsq", "plain")]
        assert shares["pairs"] == pytest.approx(np.median(np.divide(*turns)) - 1)
        assert result[name]["share"] == pytest.approx(sum(shares.values()))
        assert result[name]["refreshing_share"] == pytest.approx(2 * 15 * seconds["encode"] / a_round)
        assert f"{100 * result[name]['share']:.2f} %" in printed


# Compiles both steps.
def test_the_plain_step_leaves_the_pairs_out():
    """ADSQ's compiled step has arrays of batch x rows, the plain one none; both change the same parameters."""
    setup = adsq_cost.make_setup(SMALL)
    setup = replace(setup, label_net_settings=replace(setup.label_net_settings, steps=2))
    state = adsq_cost.fill_banks(setup, rounds.train_label_net(setup, init(setup)))
    inputs = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    rows = 60 // len(setup.devices.devices)
    batch, pairs, changed = {"inputs": inputs, "index": np.arange(4, dtype=np.int32)}, {}, {}
    for name, one in (("adsq", setup), ("plain", adsq_cost.without_adsq(setup))):
        fixed, net = rounds.targets(one, state, net="f"), state.img_nets["f"]
        placed = one.devices.to_devices(net, one.specs.img_nets["f"])
        program = one.img_net_step.lower(placed, fixed, rounds.split_batch(one, batch)).compile().as_text()
        pairs[name] = len(re.findall(rf"\[(?:4,{rows}|{rows},4)\]", program))
        after, _ = rounds.step(one, rounds.step(one, state, batch, net="f", fixed=fixed)[0], batch, net="f", fixed=fixed)
        changed[name] = jax.tree.map(lambda a, b: bool(np.any(np.asarray(a) != b)), after.img_nets["f"].params, net.params)
    assert pairs["adsq"]
    assert not pairs["plain"]
    assert changed["adsq"] == changed["plain"]
    assert all(jax.tree.leaves(changed["plain"]))
