"""Networks from plain arguments: a file's weights end up in both ImgNets, number by number; what doesn't fit is named."""

import hashlib
import json
import re
import time
from dataclasses import replace

import jax
import jax.numpy as jnp
import mock_data
import numpy as np
import pytest
from safetensors.numpy import save_file

from adsq_jax import main
from adsq_jax.devices.data_parallel import DataParallel
from adsq_jax.devices.mesh import AXIS
from adsq_jax.errors import InputError
from adsq_jax.models import BACKBONES, backbones, network
from adsq_jax.models.layers import Layers
from adsq_jax.run import workdir
from adsq_jax.training.loop import train
from adsq_jax.training.rounds import TARGET_PLACES, Trainer

WIDTH = 4


def torch_arrays(blocks, *, classes=10):
    """Random arrays of a ResNet of basic blocks, named and shaped as torchvision's; `blocks` a stage."""
    shapes = {"conv1.weight": (WIDTH, 3, 7, 7), **norm("bn1", WIDTH)}
    last = WIDTH
    for stage, count in enumerate(blocks):
        width = WIDTH * 2**stage
        for block in range(count):
            prefix = f"layer{stage + 1}.{block}."
            shapes[f"{prefix}conv1.weight"] = (width, last, 3, 3)
            shapes[f"{prefix}conv2.weight"] = (width, width, 3, 3)
            shapes |= {**norm(f"{prefix}bn1", width), **norm(f"{prefix}bn2", width)}
            if last != width:
                shapes |= {f"{prefix}downsample.0.weight": (width, last, 1, 1), **norm(f"{prefix}downsample.1", width)}
            last = width
    shapes |= {"fc.weight": (classes, last), "fc.bias": (classes,)}
    random = np.random.default_rng(0)
    arrays = {name: (random.random(shape) - 0.3).astype(np.float32) / 3 for name, shape in shapes.items()}
    arrays |= {name: x + np.float32(0.5) for name, x in arrays.items() if name.endswith("running_var")}
    counters = {name.replace("var", "count"): np.int64(7) for name in arrays if name.endswith("running_var")}
    return arrays | {name.replace("running_count", "num_batches_tracked"): x for name, x in counters.items()}


def norm(name, width):
    return {f"{name}.{leaf}": (width,) for leaf in ("weight", "bias", "running_mean", "running_var")}


def named_as_torch(variables):
    """A backbone's variables under torch's names and in torch's shapes: the inverse of what is tested, written anew."""
    found = {}
    for kind, leaves in (("params", {"kernel": "weight", "scale": "weight"}), ("batch_stats", {})):
        for path, x in jax.tree_util.tree_leaves_with_path(variables[kind]):
            *layers, leaf = [part.key for part in path]
            layer = ".".join(layers)
            layer = re.sub(r"stage(\d)_block(\d)", r"layer\1.\2", layer.replace("stem_norm", "bn1").replace("stem", "conv1"))
            layer = layer.replace("shortcut_norm", "downsample.1").replace("shortcut", "downsample.0").replace("norm", "bn")
            leaf = leaves.get(leaf, {"mean": "running_mean", "var": "running_var"}.get(leaf, leaf))
            found[f"{layer}.{leaf}"] = np.moveaxis(x, (3, 2), (0, 1)) if x.ndim == 4 else np.asarray(x)
    return found


def in_trunk(arrays):
    return {name: x for name, x in arrays.items() if not name.startswith("fc.") and not name.endswith("num_batches_tracked")}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name in found:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def small_config(place="", **changes):
    config = mock_data.small_config()
    config.model.backbone, config.model.width, config.model.pretrained = "resnet18", WIDTH, str(place)
    config.update_from_flattened_dict(changes)
    return config


def build(path="", **arguments):
    return network.build("resnet18", **{"bits": 12, "width": WIDTH, "pretrained": str(path), "axis_name": AXIS, **arguments})


def build_trainer(config):
    return Trainer(config, mock_data.dataset(), parallel=DataParallel("shard_map", devices=jax.devices()[:1]))


@pytest.fixture
def short(monkeypatch):
    """Makes resnet18 a network of two blocks, which compiles in seconds."""
    published = backbones._PUBLISHED["resnet18"]
    monkeypatch.setitem(backbones._PUBLISHED, "resnet18", published._replace(sizes={**published.sizes, "stages": (1, 1)}))


@pytest.fixture
def short_file(short, tmp_path):
    np.savez(tmp_path / "short.npz", **torch_arrays((1, 1)))
    return tmp_path / "short.npz"


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_the_whole_of_a_resnet18(ending, tmp_path):
    """Every array of the trunk is in its place, number by number; the account has each name once, and the file's hash."""
    arrays, path = torch_arrays((2, 2, 2, 2)), tmp_path / f"weights.{ending}"
    if ending == "npz":
        np.savez(path, **arrays)
    else:
        save_file({name: np.asarray(x) for name, x in arrays.items()}, path)
    net, found = build(path)
    assert_equal(named_as_torch(found.variables), in_trunk(arrays))
    assert all(x.dtype == np.float32 for x in jax.tree.leaves(found.variables))
    account = found.account
    assert sorted(account["loaded"]) == sorted(in_trunk(arrays))
    assert sorted(account["skipped"]) == sorted(arrays.keys() - in_trunk(arrays).keys())
    assert account["n_loaded"] == sum(x.size for x in in_trunk(arrays).values())
    assert account["initial"] == ["semantic", "hash"]
    assert (account["source"], account["layout"]) == (str(path), "torchvision or timm")
    assert account["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert json.loads(json.dumps(account)) == account
    images = jnp.zeros((1, 8, 8, 3), jnp.uint8)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), images, train=False))
    same = jax.tree.map(
        lambda x, y: x.shape == y.shape,
        {kind: tree["backbone"] for kind, tree in shapes.items() if "backbone" in tree},
        found.variables,
    )
    assert all(jax.tree.leaves(same))


def test_a_line_for_people(short_file):
    """The file, its layout, how much was loaded, what was not: one line; torch's counters by their number."""
    _, found = build(short_file)
    line = network.format_account(found.account)
    arrays = in_trunk(torch_arrays((1, 1)))
    assert line == (
        f"{short_file} (torchvision or timm): {len(arrays)} arrays, {sum(x.size for x in arrays.values()):,} numbers loaded; "
        "skipped: fc.weight, fc.bias, 6 counters of batches; at their initial value: semantic, hash"
    )
    assert network.format_account({**found.account, "skipped": []}).endswith(
        "skipped: nothing; at their initial value: semantic, hash"
    )


def test_names_in_a_file_do_not_reach_the_terminal(short, tmp_path):
    """A classifier's array whose name has a line end, and what a terminal would obey, is refused or told in one plain line."""
    np.savez(tmp_path / "w.npz", **torch_arrays((1, 1)), **{"fc.\x1b[31m\nx": np.zeros(1, np.float32)})
    try:
        line = network.format_account(build(tmp_path / "w.npz").pretrained.account)
    except InputError as error:
        line = str(error)
    assert line.isprintable()


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "trained"])
def test_both_networks_start_from_the_files_weights(frozen, short_file):
    """f and g have the file's trunk, to the number, and heads of their own; a frozen one they share."""
    state = build_trainer(small_config(short_file, **{"optim.trunk_lr_scale": 0.0 if frozen else 1.0})).init()
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


def test_a_run_with_pretrained_weights(short_file, tmp_path, capsys):
    """The account is told and stands in result.json; both trunks move away from the file's weights, which stay as they are."""
    trainer = build_trainer(small_config(short_file))
    workdir.claim(tmp_path / "run", json.loads(trainer.config.to_json())).close()
    state, _ = train(trainer, directory=tmp_path / "run", began=time.monotonic(), validate=None)
    assert capsys.readouterr().err.splitlines().count(network.format_account(trainer.pretrained.account)) == 1
    for net in state.img_nets.values():
        found = named_as_torch({"params": net.params["backbone"], "batch_stats": net.batch_stats["backbone"]})
        for name, x in in_trunk(torch_arrays((1, 1))).items():
            assert not np.array_equal(found[name], x), name
    assert_equal(named_as_torch(trainer.pretrained.variables), in_trunk(torch_arrays((1, 1))))
    result = main.run(trainer, tmp_path / "run", began=time.monotonic())
    assert result["pretrained"] == trainer.pretrained.account
    assert json.loads((tmp_path / "run" / "result.json").read_text())["pretrained"] == trainer.pretrained.account


def test_a_file_that_changed_between_two_sittings(short_file, tmp_path):
    """A checkpoint is of one file's weights: with another one at its place the run is refused, so that no result names it."""
    train(build_trainer(small_config(short_file)), directory=tmp_path, began=time.monotonic(), validate=None)
    np.savez(short_file, **{name: x + 1 for name, x in torch_arrays((1, 1)).items()})
    with pytest.raises(InputError, match=r"short\.npz"):
        train(build_trainer(small_config(short_file)), directory=tmp_path, began=time.monotonic(), validate=None)


def test_without_pretrained_weights():
    """There is no account; images are normalised to [-1, 1], or as given, by tuples or arrays."""
    built = build()
    assert built.pretrained is None
    assert (built.img_net.mean, built.img_net.deviation) == ((0.5,) * 3, (0.5,) * 3)
    assert repr(built) == "Network(ResNet, 12 bits, random weights)"
    net = build(mean=np.array([0.25, 0.5, 0.75], np.float32), deviation=(0.4, 0.5, 1)).img_net
    assert (net.mean, net.deviation) == ((0.25, 0.5, 0.75), (0.4, 0.5, 1))
    assert repr(net.deviation) == "(0.4, 0.5, 1)"  # an integer stays one in model.json


@pytest.mark.parametrize("given", ["", "mean", "deviation"])
def test_the_normalisation_is_the_files_unless_given(given, short_file):
    """torchvision's mean and deviation, each of them unless the config has one; the account says which."""
    expected = {"mean": (0.485, 0.456, 0.406), "deviation": (0.229, 0.224, 0.225)}
    arguments = {given: (0.1, 0.2, 0.3)} if given else {}
    expected |= arguments
    net, found = build(short_file, **arguments)
    assert {"mean": tuple(net.mean), "deviation": tuple(net.deviation)} == expected
    assert {key: tuple(found.account[key]) for key in expected} == expected
    image = jnp.array([[[[0, 100, 255]]]], jnp.uint8)
    seen = net.clone(backbone=lambda x, train: x).apply({}, image, train=False, method="trunk")
    normal = (np.array([0, 100 / 255, 1]) - expected["mean"]) / expected["deviation"]
    np.testing.assert_allclose(seen[0, 0, 0], normal, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layer2.0.conv1.weight": None}, ["stage2_block0/conv1/kernel", "[3, 3, 4, 8]"]),
        ({"layer1.0.bn2.running_mean": None}, ["stage1_block0/norm2/mean", "[4]"]),
        ({"layer3.0.conv1.weight": np.zeros((16, 8, 3, 3), np.float32)}, ["layer3.0.conv1.weight", "[16, 8, 3, 3]"]),
        ({"layer1.0.conv1.bias": np.zeros(4, np.float32)}, ["layer1.0.conv1.bias", "[4]"]),
        ({"head.weight": np.zeros(4, np.float32)}, ["head.weight", "[4]", "isn't of resnet18"]),
        (
            {"layer1.0.conv2.weight": np.zeros((8, 4, 3, 3), np.float32)},
            ["layer1.0.conv2.weight", "[8, 4, 3, 3]", "stage1_block0/conv2/kernel", "[3, 3, 4, 4]"],
        ),
        ({"bn1.bias": np.zeros(64, np.float32)}, ["bn1.bias", "[64]", "stem_norm/bias", "[4]"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_file_that_does_not_fit(change, words, short, tmp_path):
    """An array that is missing, one too many, another shape: one line with the file, the parameter, and its shapes."""
    arrays = {name: x for name, x in {**torch_arrays((1, 1)), **change}.items() if x is not None}
    assert_refused(arrays, words, tmp_path)


def assert_refused(arrays, words, folder):
    np.savez(folder / "w.npz", **arrays)
    with pytest.raises(InputError) as caught:
        build(folder / "w.npz")
    assert all(
        word in str(caught.value) for word in [str(folder / "w.npz"), "--config.model" if len(words) > 2 else "give", *words]
    )
    assert "\n" not in str(caught.value)


def test_a_file_of_another_network(short, tmp_path):
    """AlexNet's names and ResNet-50's blocks are refused for resnet18."""
    alexnet = {f"features.{k}.{leaf}": np.zeros(2, np.float32) for k in (0, 3, 6, 8, 10) for leaf in ("weight", "bias")}
    assert_refused(alexnet, ["isn't of resnet18", "'features.0.weight'", "[2]"], tmp_path)
    bottleneck = {"layer1.0.conv3.weight": np.zeros((16, 4, 1, 1), np.float32)}
    assert_refused({**torch_arrays((1, 1)), **bottleneck}, ["layer1.0.conv3.weight", "[16, 4, 1, 1]"], tmp_path)


def test_no_file(tmp_path):
    """The path is in the message."""
    with pytest.raises(InputError, match=r"nowhere\.npz doesn't exist"):
        build(tmp_path / "nowhere.npz")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"bits": 0}, "bits to be a whole number from 1 to 256, got 0"),
        ({"bits": 257}, "got 257"),
        ({"bits": 12.0}, "got 12.0"),
        ({"bits": True}, "got True"),
        ({"width": -1}, "width to be a whole number at least 0, got -1"),
        ({"features": 0}, "features to be a whole number at least 1"),
        ({"mean": (0.5, 0.5)}, r"mean to be three numbers from 0 to 1, or \(\)"),
        ({"mean": 0.5}, "got '0.5'"),
        ({"mean": (124, 116, 104)}, "three numbers from 0 to 1"),
        ({"mean": (0.1, 0.2, float("nan"))}, "three numbers from 0 to 1"),
        ({"mean": "abc"}, "three numbers from 0 to 1"),
        ({"deviation": (0.2, 0.0, 0.2)}, "deviation above 0"),
        ({"batch_norm": "local"}, "batch_norm to be global or frozen, got 'local'"),
        ({"dtype": "float16"}, "dtype to be float32 or bfloat16"),
        ({"dropout": 1.0}, "dropout from 0 to below 1"),
        ({"image_size": 0, "pretrained": "w.npz"}, "image_size to be a whole number at least 1"),
    ],
    ids=str,
)
def test_arguments_out_of_range(arguments, words):
    """Each is refused in one line that names it and what was given, before any file is read."""
    with pytest.raises(InputError, match=words) as caught:
        build(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["resnet34", "resnet-50", ["resnet18"], None])
def test_an_unknown_backbone(name):
    """The nearest name is suggested where there is one, and all are listed."""
    with pytest.raises(InputError, match=rf"choose one of {', '.join(BACKBONES)}") as caught:
        network.build(name, bits=12)
    nearest = {"resnet34": "resnet50", "resnet-50": "resnet50"}.get(str(name))
    assert nearest is None or f"did you mean {nearest}?" in str(caught.value)


def test_a_copy_for_other_devices():
    """`with_axis` changes `bounded` and the axis of BatchNorm, and no parameter; a backbone without `layers` stays."""
    net = build(axis_name=None).img_net
    copy = network.with_axis(net, bounded=False, axis_name=AXIS)
    assert not copy.bounded
    assert copy.backbone.layers == Layers(axis_name=AXIS)
    assert net.backbone.layers == Layers()
    assert net.bounded
    again = network.with_axis(copy, bounded=True, axis_name=None)
    assert again == net
    images = jnp.zeros((1, 32, 32, 3), jnp.uint8)
    shapes = [jax.eval_shape(lambda n=n: n.init(jax.random.key(0), images, train=False)) for n in (net, copy)]
    assert jax.tree.structure(shapes[0]) == jax.tree.structure(shapes[1])
    heads = net.clone(backbone=None)
    assert network.with_axis(heads, bounded=True, axis_name=AXIS) == heads


def steps(trainer, count):
    """f before and after its first updates, and their losses."""
    state = trainer.init()
    _, label_codes = trainer.guidance(state)
    targets = replace(trainer.targets(state, "f"), bank=label_codes[trainer.sets.set_index])
    before, places = jax.tree.map(np.array, state.img_nets["f"]), trainer.places.img_nets["f"]
    net, targets = trainer.parallel.enter(state.img_nets["f"], places), trainer.parallel.enter(targets, TARGET_PLACES)
    losses = []
    for _, batch in zip(range(count), trainer._batches("f", step=0), strict=False):
        net, metrics = trainer.img_net_step(net, targets, trainer.split(batch))
        losses.append(float(np.mean(metrics["loss"])))
    return before, trainer.parallel.leave(net, places), losses


def test_the_trunks_learning_rate(short_file):
    """At a tenth of the rate one plain SGD step moves the trunk a tenth as far, and the heads as far."""
    moved = []
    for scale in (1.0, 0.1):
        config = small_config(short_file, **{"optim.name": "sgd", "optim.trunk_lr_scale": scale, "optim.warmup": 0.0})
        config.optim.schedule, config.optim.learning_rate = "constant", 1.0
        config.optim.weight_decay, config.optim.clip_norm = 0.0, 0.0
        before, after, _ = steps(build_trainer(config), 1)
        moved.append(jax.tree.map(lambda x, y: np.asarray(y) - x, before.params, after.params))
    for head in ("semantic", "hash"):
        assert np.array_equal(moved[0][head]["kernel"], moved[1][head]["kernel"])
    for path, whole in jax.tree_util.tree_leaves_with_path(moved[0]["backbone"]):
        tenth = dict(jax.tree_util.tree_leaves_with_path(moved[1]["backbone"]))[path]
        assert np.abs(whole).max() > 0, path
        np.testing.assert_allclose(tenth, whole / 10, rtol=1e-3, atol=1e-3 * np.abs(whole).max())


def test_frozen_batch_norm(short_file):
    """model.batch_norm="frozen": an update leaves the running averages alone, and training sees what evaluation sees."""
    for kind in ("frozen", "global"):
        trainer = build_trainer(small_config(short_file, **{"model.batch_norm": kind, "optim.warmup": 0.0}))
        before, after, _ = steps(trainer, 1)
        same = jax.tree.map(np.array_equal, before.batch_stats, after.batch_stats)
        assert all(jax.tree.leaves(same)) if kind == "frozen" else not any(jax.tree.leaves(same))
        assert not np.array_equal(
            before.params["backbone"]["stem_norm"]["scale"], after.params["backbone"]["stem_norm"]["scale"]
        )
        net = network.with_axis(trainer.whole_net, bounded=True, axis_name=None)
        variables = {"params": before.params, "batch_stats": before.batch_stats}
        images = np.stack([trainer.dataset.source[row]["image"] for row in range(6)])
        trained, _ = jax.jit(lambda v, x, net=net: net.apply(v, x, train=True, mutable=["batch_stats"]))(variables, images)
        evaluated = jax.jit(lambda v, x, net=net: net.apply(v, x, train=False))(variables, images)
        agrees = [np.allclose(x, y, rtol=1e-5, atol=1e-6) for x, y in zip(trained, evaluated, strict=True)]
        assert agrees == [kind == "frozen"] * 2


def test_bfloat16():
    """Parameters, averages, the optimiser's state and outputs are float32; losses fall as float32's do, if not the same."""
    losses = []
    for dtype in ("float32", "bfloat16"):
        config = mock_data.small_config()
        config.model.dtype, config.optim.warmup = dtype, 0.0
        trainer = build_trainer(config)
        _, after, found = steps(trainer, 12)
        images = np.stack([trainer.dataset.source[row]["image"] for row in range(6)])
        variables = {"params": after.params, "batch_stats": after.batch_stats}
        outputs = jax.eval_shape(lambda v, x, net=trainer.img_net: net.apply(v, x, train=False), variables, images)
        losses.append(found)
        assert {x.dtype for x in jax.tree.leaves(after.opt_state)} == {np.dtype(np.float32), np.dtype(np.int32)}
        kept = (after.params, after.batch_stats, after.bank, outputs)
        assert {x.dtype for x in jax.tree.leaves(kept)} == {np.dtype(np.float32)}
    assert losses[0] != losses[1]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.05)
    assert losses[1][-1] < 0.95 * losses[1][0]
