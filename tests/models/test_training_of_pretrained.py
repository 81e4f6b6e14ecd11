"""Training from pretrained weights: both ImgNets start from them, and the result names them."""

import itertools
import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from support import mock_data
from support.resnet_weights import WIDTH, assert_equal, in_trunk, named_as_torch, torch_arrays
from support.runs import make_setup, run, train

from adsq_jax import data, load, training
from adsq_jax.errors import InputError
from adsq_jax.models import network
from adsq_jax.training.guidance import guidance


def small_config(path="", **changes):
    config = mock_data.small_config()
    config.model.backbone, config.model.width, config.model.pretrained = "resnet18", WIDTH, str(path)
    config.update_from_flattened_dict(changes)
    return config


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "trained"])
def test_both_networks_start_from_the_files_weights(frozen, short_file):
    """f and g have the file's trunk, number by number, and random heads; a frozen trunk is shared."""
    state = training.init(make_setup(small_config(short_file, **{"optim.trunk_lr_scale": 0.0 if frozen else 1.0})))
    expected, nets = in_trunk(torch_arrays((1, 1))), state.img_nets
    for net in nets.values():
        trunk = state.trunk if frozen else {"params": net.params, "batch_stats": net.batch_stats}
        assert_equal(named_as_torch({kind: tree["backbone"] for kind, tree in trunk.items()}), expected)
    for head in ("semantic", "hash"):
        kernels = [np.asarray(net.params[head]["kernel"]) for net in nets.values()]
        assert not np.isin(kernels[0], kernels[1]).any()
        assert all(np.isfinite(kernel).all() and kernel.std() > 0 for kernel in kernels)
    assert (state.trunk is not None) == frozen
    assert all(("backbone" in net.params) != frozen for net in nets.values())


# Compiles a ResNet, its gradients and its encoder.
@pytest.mark.slow
def test_a_run_with_pretrained_weights(short_file, tmp_path, capsys):
    """The report is logged and is in result.json; both trunks are trained, and the weights in memory don't change."""
    setup = make_setup(small_config(short_file))
    result = run(setup, tmp_path / "run")
    assert capsys.readouterr().err.splitlines().count(network.format_report(setup.pretrained.report)) == 1
    trained = load(tmp_path / "run").variables
    for name in ("f", "g"):
        trunk = named_as_torch({kind: tree["backbone"] for kind, tree in trained[name].items()})
        for layer, x in in_trunk(torch_arrays((1, 1))).items():
            assert not np.array_equal(trunk[layer], x), layer
    assert_equal(named_as_torch(setup.pretrained.variables), in_trunk(torch_arrays((1, 1))))
    assert result["pretrained"] == setup.pretrained.report
    assert json.loads((tmp_path / "run" / "result.json").read_text())["pretrained"] == setup.pretrained.report


def test_a_file_that_changed_between_two_calls(short_file, tmp_path):
    """A run isn't continued once its file of weights has changed, since its result would name the wrong one."""
    train(make_setup(small_config(short_file)), directory=tmp_path)
    np.savez(short_file, **{name: x + 1 for name, x in torch_arrays((1, 1)).items()})
    with pytest.raises(InputError, match=r"short\.npz"):
        train(make_setup(small_config(short_file)), directory=tmp_path)


def steps(setup, count):
    """Return f before and after its first updates against LabelNet's codes, and their losses."""
    state = training.init(setup)
    bank = guidance(setup, state).codes[setup.sets.set_index]
    fixed = replace(training.targets(setup, state, net="f"), bank=bank)
    epochs = (data.batches(setup.data, batch_size=setup.batch_size, seed=0, epoch=epoch) for epoch in itertools.count())
    before, losses = state.img_nets["f"], []
    for batch in itertools.islice(itertools.chain.from_iterable(epochs), count):
        state, metrics = training.step(setup, state, batch, net="f", fixed=fixed)
        losses.append(float(np.mean(metrics["loss"])))
    return before, state.img_nets["f"], losses


# Compiles the step of two ResNets.
@pytest.mark.slow
def test_the_trunks_learning_rate(short_file):
    """At a tenth of the rate one plain SGD step moves the trunk a tenth as far, and the heads as far."""
    moved = []
    for scale in (1.0, 0.1):
        config = small_config(short_file, **{"optim.name": "sgd", "optim.trunk_lr_scale": scale, "optim.warmup": 0.0})
        config.optim.schedule, config.optim.learning_rate = "constant", 1.0
        config.optim.weight_decay, config.optim.clip_norm = 0.0, 0.0
        before, after, _ = steps(make_setup(config), 1)
        moved.append(jax.tree.map(lambda x, y: np.asarray(y) - np.asarray(x), before.params, after.params))
    for head in ("semantic", "hash"):
        assert np.array_equal(moved[0][head]["kernel"], moved[1][head]["kernel"])
    for path, whole in jax.tree_util.tree_leaves_with_path(moved[0]["backbone"]):
        tenth = dict(jax.tree_util.tree_leaves_with_path(moved[1]["backbone"]))[path]
        assert np.abs(whole).max() > 0, path
        np.testing.assert_allclose(tenth, whole / 10, rtol=1e-3, atol=1e-3 * np.abs(whole).max())


# Compiles the step and the network of two ResNets.
@pytest.mark.slow
def test_frozen_batch_norm(short_file):
    """With batch_norm="frozen" an update changes no running average, and training mode gives what evaluation gives."""
    for kind in ("frozen", "global"):
        setup = make_setup(small_config(short_file, **{"model.batch_norm": kind, "optim.warmup": 0.0}))
        before, after, _ = steps(setup, 1)
        same = jax.tree.map(np.array_equal, before.batch_stats, after.batch_stats)
        assert all(jax.tree.leaves(same)) if kind == "frozen" else not any(jax.tree.leaves(same))
        assert not np.array_equal(
            before.params["backbone"]["stem_norm"]["scale"], after.params["backbone"]["stem_norm"]["scale"]
        )
        net = network.with_axis(setup.img_net, head="tanh", axis_name=None)
        variables = {"params": before.params, "batch_stats": before.batch_stats}
        images = np.stack([setup.data.source[row]["image"] for row in range(6)])
        trained, _ = jax.jit(lambda v, x, net=net: net.apply(v, x, train=True, mutable=["batch_stats"]))(variables, images)
        evaluated = jax.jit(lambda v, x, net=net: net.apply(v, x, train=False))(variables, images)
        agrees = [np.allclose(x, y, rtol=1e-5, atol=1e-6) for x, y in zip(trained, evaluated, strict=True)]
        assert agrees == [kind == "frozen"] * 2


# Compiles the step in two dtypes, and trains 12 updates of each.
def test_bfloat16():
    """Parameters, averages, the optimiser's state and outputs are float32; losses fall as with float32."""
    losses = []
    for dtype in ("float32", "bfloat16"):
        config = mock_data.small_config()
        config.model.dtype, config.optim.warmup = dtype, 0.0
        setup = make_setup(config)
        _, after, run_losses = steps(setup, 12)
        images = np.stack([setup.data.source[row]["image"] for row in range(6)])
        variables = {"params": after.params, "batch_stats": after.batch_stats}
        outputs = jax.eval_shape(lambda v, x, net=setup.trained_net: net.apply(v, x, train=False), variables, images)
        losses.append(run_losses)
        assert {x.dtype for x in jax.tree.leaves(after.opt_state)} == {np.dtype(np.float32), np.dtype(np.int32)}
        trees = (after.params, after.batch_stats, after.bank, outputs)
        assert {x.dtype for x in jax.tree.leaves(trees)} == {np.dtype(np.float32)}
    assert losses[0] != losses[1]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.05)
    assert losses[1][-1] < 0.95 * losses[1][0]
