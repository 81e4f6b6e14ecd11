"""One update: the same on any number of devices, however they are run."""

from dataclasses import replace
from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import mock_data
from support.runs import make_setup, on_devices

from adsq_jax.devices.mesh import AXIS
from adsq_jax.methods import adsq
from adsq_jax.methods.objective import PairStatistics
from adsq_jax.models import backbones
from adsq_jax.models.img_net import ImgNet
from adsq_jax.models.layers import Layers
from adsq_jax.training import compute_features, init, rounds
from adsq_jax.training.guidance import guidance
from adsq_jax.training.state import ImgNetState, Targets
from adsq_jax.training.step import _loss_inputs, img_net_gradients, img_net_update

STEPS = 20
LOSS_ARRAYS = (
    "relaxed_codes", "labels", "similar", "bank", "bank_codes", "row_weights", "errors", "semantic", "similar_sets",
    "batch_similar_sets", "label_set"
)  # fmt: skip
WEIGHTS = {"likelihood": 1.0, "neighbours": 0.5, "difference": 1.0, "quantization": 0.1, "bit_likelihood": 0.05, "balance": 0.1}


@cache
def losses(kind, devices, *, twin):
    """Every metric of each network over STEPS updates of the real loop's parts, before the first B-step."""
    config = mock_data.small_config()
    config.parallel, config.train.epochs_per_round = kind, 10
    config.objective.twin = twin
    asked = {"code_guidance": 0.5, "neighbours": 0.5, "bit_likelihood": 0.1, "consistency": 0.5}  # 0 if not asked for
    config.objective.weights.update(asked)
    config.eval.query_net = "ff"
    setup = make_setup(config, devices=devices)
    state = init(setup)
    label_codes = np.asarray(guidance(setup, state).codes)
    if twin:  # as after LabelNet's training
        rows = label_codes[setup.sets.set_index]
        state = replace(state, img_nets={name: replace(net, bank=rows) for name, net in state.img_nets.items()})
    found = []
    for name in setup.networks:
        net, targets = on_devices(setup, state, net=name)
        for batch, _ in zip(rounds.train_batches(setup, net=name, step=0), range(STEPS), strict=False):
            net, metrics = setup.donating_img_net_step(net, targets, rounds.split_batch(setup, batch))
            found.append({key: float(np.mean(x)) for key, x in metrics.items()})
        net = setup.devices.from_devices(net, setup.specs.img_nets[name])
        found.append({"bank": float(np.abs(net.bank).sum())})
    return found


# Compiles the step for each number of devices.
@pytest.mark.parametrize("twin", [True, False])
@pytest.mark.parametrize(("kind", "devices"), [("shard_map", 4), ("pmap", 1), ("pmap", 4)])
def test_any_number_of_devices_gives_the_same_losses(kind, devices, twin):
    """Every term, the loss and the gradient's norm agree with one device's to 1e-5 over 20 steps; so does the bank."""
    one, many = losses("shard_map", 1, twin=twin), losses(kind, devices, twin=twin)
    assert one[0].keys() > {
        "likelihood",
        "neighbours",
        "code_guidance",
        "guidance",
        "difference",
        "quantization",
        "bit_likelihood",
        "balance",
        "consistency",
    }
    for at, (a, b) in enumerate(zip(one, many, strict=True)):
        assert a.keys() == b.keys()
        for name in a:
            assert b[name] == pytest.approx(a[name], rel=1e-5, abs=1e-8), f"step {at}: {name}"


def one_step(state, targets, batch, *, optimizer, **settings):
    """An update under a mapped axis."""
    found, bank, metrics = img_net_gradients(state, targets, batch, **settings)
    return img_net_update(state, found, bank, optimizer=optimizer), metrics


def over_devices(step, state, targets, batch, *, devices):
    """Runs a step by vmap over shares of batch and rows; the new state with all rows of its bank."""
    state_axes = ImgNetState(params=None, batch_stats=None, opt_state=None, key=None, bank=0)
    target_axes = Targets(bank=0, codes=0, set_index=0, row_weights=0, sets=None, progress=None, guidance=None)
    shares = partial(jax.tree.map, lambda x: x.reshape(devices, -1, *x.shape[1:]))
    state = replace(state, bank=shares(state.bank))
    rows = {key: shares(getattr(targets, key)) for key in ("bank", "codes", "set_index", "row_weights")}
    run = jax.jit(jax.vmap(step, in_axes=(state_axes, target_axes, 0), axis_name=AXIS))
    found, metrics = run(state, replace(targets, **rows), shares(batch))
    return replace(found, bank=found.bank.reshape(-1, found.bank.shape[-1])), metrics


def problem(*, twin=True):
    """An ImgNet's state, targets, and a batch of 8 of the 12 training images."""
    random = np.random.default_rng(0)
    model = ImgNet(
        backbone=backbones.build("small_cnn", width=4, layers=Layers(axis_name=AXIS)),
        bits=6,
        features=8,
        mean=(0.5, 0.5, 0.5),
        deviation=(0.5, 0.5, 0.5),
        head="tanh",
    )
    optimizer = optax.sgd(0.1)
    images = random.integers(0, 256, (8, 8, 8, 3)).astype(np.uint8)
    variables = model.init(jax.random.key(0), images, train=False)
    state = ImgNetState(
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(variables["params"]),
        key=np.array([0, 1], np.uint32),
        bank=random.uniform(-1, 1, (12, 6)).astype(np.float32),
    )
    targets = Targets(
        bank=random.uniform(-1, 1, (12, 6)).astype(np.float32) if twin else None,
        codes=random.choice(np.array([-1, 1], np.int8), (12, 6)),
        set_index=np.arange(12, dtype=np.int32) % 3,
        row_weights=np.full(12, 1 / 12, np.float32),
        sets=np.eye(3, dtype=np.uint8),
        progress=np.float32(0.5),
        guidance=None,
    )
    step = partial(
        one_step,
        model=model,
        optimizer=optimizer,
        statistics=PairStatistics(ratio=0.5, similar_weight=1.5, dissimilar_weight=0.75),
        loss=partial(adsq.loss, weights=WEIGHTS),
        seed=0,
        axis_name=AXIS,
    )
    index = np.array([9, 2, 4, 11, 0, 5, 7, 1], np.int32)
    batch = {"inputs": images, "index": index, "label_set": index % 3}
    return step, state, targets, batch


# Compiles the step of one share and that of four.
@pytest.mark.slow
def test_a_mapped_axis_without_devices():
    """vmap over an axis of 4 shares gives the step of one share: parameters, statistics and bank."""
    step, state, targets, batch = problem(twin=False)
    one, many = (over_devices(step, state, targets, batch, devices=devices)[0] for devices in (1, 4))
    np.testing.assert_allclose(many.bank, one.bank, rtol=1e-5, atol=1e-6)
    one, many = replace(one, bank=None), replace(many, bank=None)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many), strict=True):
        for share in np.asarray(b):
            np.testing.assert_allclose(share, np.asarray(a)[0], rtol=1e-5, atol=1e-6)


# Compiles the step with and without an axis.
@pytest.mark.parametrize("twin", [True, False])
def test_one_device_needs_no_axis(twin):
    """With axis_name=None, jitted alone, a step is that of one share under a mapped axis."""
    step, state, targets, batch = problem(twin=twin)
    mapped, mapped_metrics = over_devices(step, state, targets, batch, devices=1)
    model = step.keywords["model"].clone(backbone=step.keywords["model"].backbone.clone(layers=Layers()))
    alone = jax.jit(partial(step.func, **{**step.keywords, "model": model, "axis_name": None}))
    plain, metrics = alone(*jax.tree.map(jnp.asarray, (state, targets, batch)))
    for name, value in metrics.items():
        np.testing.assert_allclose(value, mapped_metrics[name][0], rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(plain.bank, mapped.bank, rtol=1e-5, atol=1e-6)
    for a, b in zip(jax.tree.leaves(plain.params), jax.tree.leaves(mapped.params), strict=True):
        np.testing.assert_allclose(a, np.asarray(b)[0], rtol=1e-4, atol=1e-6)


def test_without_a_twin_the_bank_rows_of_the_batch_and_no_others_are_renewed():
    """The batch's rows become its own relaxed codes in training mode, the other rows stay; with a twin all stay."""
    banks = {}
    for twin in (True, False):
        step, state, targets, batch = problem(twin=twin)
        banks[twin] = np.asarray(over_devices(step, state, targets, batch, devices=4)[0].bank)
    assert np.array_equal(banks[True], state.bank)
    others = np.setdiff1d(np.arange(12), batch["index"])
    assert np.array_equal(banks[False][others], state.bank[others])
    model = step.keywords["model"].clone(backbone=step.keywords["model"].backbone.clone(layers=Layers()))
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    (_, relaxed_codes), _ = model.apply(variables, batch["inputs"], train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(banks[False][batch["index"]], relaxed_codes, rtol=1e-5, atol=1e-6)


def test_without_a_twin_the_loss_is_against_the_own_bank():
    """targets.bank=None gives the loss of the network's own bank as the other's."""
    found = []
    for bank in ("none", "own"):
        step, state, targets, batch = problem(twin=False)
        targets = replace(targets, bank=None if bank == "none" else state.bank)
        found.append(over_devices(step, state, targets, batch, devices=4)[1])
    for name in found[0]:
        np.testing.assert_array_equal(found[0][name], found[1][name])


PLACES = np.random.default_rng(2).normal(size=(2, 8, 6)).astype(np.float32)  # weights of both views' codes


def both_views(inputs):
    """A loss in which each image, bit and view has a weight of its own."""
    return {"first": jnp.sum(PLACES[0] * inputs.relaxed_codes), "second": jnp.sum(PLACES[1] * inputs.second_view)}


def test_two_views_are_one_batch_of_the_network():
    """Over four shares, the loss gets both views' codes in the order of the batch, and BatchNorm averages over both."""
    step, state, targets, batch = problem(twin=False)
    batch["second_inputs"] = batch["inputs"][:, :, ::-1] // 2
    found, metrics = over_devices(partial(step, loss=both_views), state, targets, batch, devices=4)
    model = step.keywords["model"].clone(backbone=step.keywords["model"].backbone.clone(layers=Layers()))
    variables, views = {"params": state.params, "batch_stats": state.batch_stats}, (batch["inputs"], batch["second_inputs"])
    (_, codes), updated = model.apply(variables, np.concatenate(views), train=True, mutable=["batch_stats"])
    for name, weights, wanted in zip(("first", "second"), PLACES, np.split(np.asarray(codes), 2), strict=True):
        np.testing.assert_allclose(metrics[name], np.full(4, np.sum(weights * wanted)), rtol=1e-4)
    np.testing.assert_allclose(found.bank[batch["index"]], codes[:8], rtol=1e-5, atol=1e-6)
    for a, b in zip(jax.tree.leaves(found.batch_stats), jax.tree.leaves(updated["batch_stats"]), strict=True):
        np.testing.assert_allclose(a, np.broadcast_to(b, a.shape), rtol=1e-5, atol=1e-6)


# Compiles the trunk and the step for one device and for four.
@pytest.mark.slow
def test_two_views_of_a_frozen_trunks_features(tmp_path):
    """Both are stored views of the same image, the first as without a second view; four devices give one device's losses."""
    config = mock_data.small_config(method="dhd")
    config.optim.trunk_lr_scale, config.data.feature_views, config.data.crop_padding = 0.0, 3, 2
    found = []
    for devices in (1, 4):
        setup = make_setup(config, devices=devices)
        state = init(setup)
        setup = compute_features(setup, state, directory=tmp_path)
        views = np.stack(setup.features.views)  # [view, image, width]
        net, targets = on_devices(setup, state)
        plain = replace(setup, method=replace(setup.method, second_view=False))
        made = (rounds.train_batches(which, net="f", step=0) for which in (setup, plain))
        for (batch, first), _ in zip(zip(*made, strict=True), range(3), strict=False):
            assert np.array_equal(batch["inputs"], first["inputs"])
            stored = views[:, batch["index"]]
            one, two = (np.flatnonzero((stored == batch[x]).all(axis=2).any(axis=1)) for x in ("inputs", "second_inputs"))
            assert len(one) == len(two) == 3  # all views come
            assert (stored == batch["second_inputs"]).all(axis=2).any(axis=0).all()
            assert (batch["inputs"] != batch["second_inputs"]).any(axis=1).mean() > 0.8  # two views may have the same window
            net, metrics = setup.donating_img_net_step(net, targets, rounds.split_batch(setup, batch))
            found.append({key: float(np.mean(x)) for key, x in metrics.items()})
    for one, many in zip(found[:3], found[3:], strict=True):
        assert one["distillation"] > 1e-4
        assert many == pytest.approx(one, rel=1e-4)


class _Halved(nn.Module):
    """A backbone that drops half of its units in training."""

    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dropout(0.5, deterministic=not train)(jnp.ones((x.shape[0], 400)) + 0 * x.mean())


def test_dropout_differs_by_update_and_by_device_and_comes_again_from_the_state():
    """Each update and each device drops other units; the same state gives the same update."""
    step, state, targets, batch = problem(twin=False)
    model = step.keywords["model"].clone(backbone=_Halved())
    params = jax.tree.map(jnp.asarray, model.init(jax.random.key(1), batch["inputs"], train=False)["params"])
    state = replace(state, params=params, batch_stats={}, opt_state=step.keywords["optimizer"].init(params))
    run = partial(over_devices, partial(step.func, **{**step.keywords, "model": model}), devices=4)
    first, again = run(state, targets, batch)[0], run(state, targets, batch)[0]
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True))
    rows = np.asarray(first.bank)[batch["index"]]  # each image alike, so only what was dropped tells them apart
    assert len(np.unique(rows, axis=0)) == 8
    assert not np.array_equal(np.asarray(first.key)[0], state.key)
    later = run(replace(state, key=np.asarray(first.key)[0]), targets, batch)[0]
    assert not np.allclose(np.asarray(later.bank)[batch["index"]], rows)


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_loss_inputs(devices):
    """On each device the whole batch, its own rows and its part; means over devices are those over everything."""
    _, _, targets, batch = problem()
    random = np.random.default_rng(2)
    relaxed, semantic = (random.normal(size=(8, k)).astype(np.float32) for k in (6, 3))
    shares = partial(jax.tree.map, lambda x: x.reshape(devices, -1, *x.shape[1:]))
    given = jax.tree.map(jnp.asarray, targets)

    def inputs_of(semantic, relaxed, bank, codes, set_index, row_weights, own, label_set):
        own = jax.lax.all_gather(own, AXIS, tiled=True) - jax.lax.axis_index(AXIS) * len(bank)
        here = replace(given, bank=bank, codes=codes, set_index=set_index, row_weights=row_weights)
        found = _loss_inputs(
            semantic,
            jax.lax.all_gather(relaxed, AXIS, tiled=True),
            parameters=None,
            bank=bank,
            local_index=own,
            targets=here,
            label_set=label_set,
            statistics=PairStatistics(0.5, 1.5, 0.75),
            seed=0,
            second_view=None,
            axis_name=AXIS,
        )
        return {key: getattr(found, key) for key in LOSS_ARRAYS} | {
            "devices": jnp.int32(found.n_devices),
            "total": found.sum_over_devices(found.row_weights.sum()),
        }

    parts = (
        semantic,
        relaxed,
        targets.bank,
        targets.codes,
        targets.set_index,
        targets.row_weights,
        batch["index"],
        batch["label_set"],
    )
    found = jax.tree.map(np.asarray, jax.vmap(inputs_of, axis_name=AXIS)(*shares(parts)))
    labels = np.eye(3)[batch["label_set"]]
    similar = (labels @ np.eye(3)[targets.set_index].T > 0).reshape(8, devices, -1)  # [batch, device, rows]
    for device in range(devices):
        assert np.array_equal(found["relaxed_codes"][device], relaxed)
        assert np.array_equal(found["labels"][device], labels)
        assert np.array_equal(found["batch_similar_sets"][device], labels > 0)
        assert np.array_equal(found["label_set"][device], batch["label_set"])
        assert np.array_equal(found["similar"][device], similar[:, device])
    assert np.array_equal(found["bank"].reshape(12, 6), targets.bank)
    assert np.array_equal(found["bank_codes"].reshape(12, 6), targets.codes)
    assert np.array_equal(found["semantic"].reshape(8, 3), semantic)
    assert np.array_equal(found["similar_sets"].reshape(8, 3), labels > 0)
    values = random.normal(size=(8, 12))
    of_devices = [np.sum(found["row_weights"][d] * values.reshape(8, devices, -1)[:, d]) for d in range(devices)]
    np.testing.assert_allclose(np.mean(of_devices), values.mean(), rtol=1e-5)
    errors = relaxed - targets.codes[batch["index"]]
    np.testing.assert_allclose(found["errors"].sum(axis=0), errors, rtol=1e-5)
    assert (found["devices"] == devices).all()
    np.testing.assert_allclose(found["total"], np.full(devices, devices / 8), rtol=1e-6)  # a pair counts 1 / 96, times devices
