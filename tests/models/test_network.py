"""Networks from plain arguments: a file's weights are assigned number by number, and misfits are named."""

import hashlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import seeded
from safetensors.numpy import save_file
from support.resnet_weights import WIDTH, assert_equal, in_trunk, named_as_torch, torch_arrays

from adsq_jax.devices.mesh import AXIS
from adsq_jax.errors import InputError
from adsq_jax.models import BACKBONES, network
from adsq_jax.models.layers import Layers


def build(path="", **arguments):
    return network.build("resnet18", **{"bits": 12, "width": WIDTH, "pretrained": str(path), "axis_name": AXIS, **arguments})


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_the_whole_of_a_resnet18(ending, tmp_path):
    """Every number of the trunk is assigned; the report has each name once, and the file's hash."""
    arrays, path = torch_arrays((2, 2, 2, 2)), tmp_path / f"weights.{ending}"
    if ending == "npz":
        np.savez(path, **arrays)
    else:
        save_file({name: np.asarray(x) for name, x in arrays.items()}, path)
    net, weights, _ = build(path)
    assert_equal(named_as_torch(weights.variables), in_trunk(arrays))
    assert all(x.dtype == np.float32 for x in jax.tree.leaves(weights.variables))
    report = weights.report
    assert sorted(report["loaded"]) == sorted(in_trunk(arrays))
    assert sorted(report["skipped"]) == sorted(arrays.keys() - in_trunk(arrays).keys())
    assert report["n_loaded"] == sum(x.size for x in in_trunk(arrays).values())
    assert report["initial"] == ["semantic", "hash"]
    assert (report["source"], report["layout"]) == (str(path), "torchvision or timm")
    assert report["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert json.loads(json.dumps(report)) == report
    images = jnp.zeros((1, 8, 8, 3), jnp.uint8)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), images, train=False))
    same = jax.tree.map(
        lambda x, y: x.shape == y.shape,
        {kind: tree["backbone"] for kind, tree in shapes.items() if "backbone" in tree},
        weights.variables,
    )
    assert all(jax.tree.leaves(same))


def test_a_line_for_people(short_file):
    """One line names the file, its layout, and how much was loaded and skipped; torch's counters are counted."""
    report = build(short_file).pretrained.report
    line = network.format_report(report)
    arrays = in_trunk(torch_arrays((1, 1)))
    assert line == (
        f"{short_file} (torchvision or timm): {len(arrays)} arrays, {sum(x.size for x in arrays.values()):,} numbers loaded; "
        "skipped: fc.weight, fc.bias, 6 counters of batches; at their initial value: semantic, hash"
    )
    assert network.format_report({**report, "skipped": []}).endswith("skipped: nothing; at their initial value: semantic, hash")


def test_names_in_a_file_do_not_reach_the_terminal(short, tmp_path):
    """Names with line ends and control characters are printed as plain text, in one line."""
    np.savez(tmp_path / "w.npz", **torch_arrays((1, 1)), **{"fc.\x1b[31m\nx": np.zeros(1, np.float32)})
    try:
        line = network.format_report(build(tmp_path / "w.npz").pretrained.report)
    except InputError as error:
        line = str(error)
    assert line.isprintable()


def test_without_pretrained_weights():
    """There is no report; images are normalised to [-1, 1], or as given, by tuples or arrays."""
    built = build()
    assert built.pretrained is None
    assert (built.img_net.mean, built.img_net.deviation) == ((0.5,) * 3, (0.5,) * 3)
    assert repr(built) == "Network(ResNet, 12 bits, random weights)"
    net = build(mean=np.array([0.25, 0.5, 0.75], np.float32), deviation=(0.4, 0.5, 1), bits=np.int64(24)).img_net
    assert json.dumps(net.bits) == "24"
    assert (net.mean, net.deviation) == ((0.25, 0.5, 0.75), (0.4, 0.5, 1))
    assert repr(net.deviation) == "(0.4, 0.5, 1)"  # an integer stays one in model.json


@pytest.mark.parametrize("given", ["", "mean", "deviation"])
def test_the_normalisation_is_the_files_unless_given(given, short_file):
    """Mean and deviation are torchvision's unless given; the report has those in use."""
    expected = {"mean": (0.485, 0.456, 0.406), "deviation": (0.229, 0.224, 0.225)}
    arguments = {given: (0.1, 0.2, 0.3)} if given else {}
    expected |= arguments
    net, weights, _ = build(short_file, **arguments)
    assert {"mean": tuple(net.mean), "deviation": tuple(net.deviation)} == expected
    assert {key: tuple(weights.report[key]) for key in expected} == expected
    image = jnp.array([[[[0, 100, 255]]]], jnp.uint8)
    inputs = net.clone(backbone=lambda x, train: x).apply({}, image, train=False, method="trunk")
    normal = (np.array([0, 100 / 255, 1]) - expected["mean"]) / expected["deviation"]
    np.testing.assert_allclose(inputs[0, 0, 0], normal, rtol=1e-5)


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
    """A missing array, one too many, or another shape gives one line with the file, the parameter and its shapes."""
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
    """A missing file is named."""
    with pytest.raises(InputError, match=r"nowhere\.npz doesn't exist"):
        build(tmp_path / "nowhere.npz")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"bits": 0}, "bits to be a whole number from 1 to 256, got 0"),
        ({"bits": 257}, "got 257"),
        ({"bits": 12.0}, "got 12.0"),
        ({"bits": True}, "got True"),
        ({"width": -1}, "width to be a whole number from 0 to 65536, got -1"),
        ({"features": 0}, "features to be a whole number from 1 to 65536"),
        ({"mean": (0.5, 0.5)}, r"mean to be three numbers from 0 to 1, or \(\)"),
        ({"mean": 0.5}, "got '0.5'"),
        ({"mean": (124, 116, 104)}, "three numbers from 0 to 1"),
        ({"mean": (0.1, 0.2, float("nan"))}, "three numbers from 0 to 1"),
        ({"mean": "abc"}, "three numbers from 0 to 1"),
        ({"deviation": (0.2, 0.0, 0.2)}, "deviation from 0.001"),
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
    """`with_axis` changes the head and the axis of BatchNorm, of the backbone and the head, and no parameter; or refuses."""
    net = build(axis_name=None).img_net
    copy = network.with_axis(net, head="linear", axis_name=AXIS)
    assert (copy.head, copy.axis_name) == ("linear", AXIS)
    assert copy.backbone.layers == Layers(axis_name=AXIS)
    assert net.backbone.layers == Layers()
    assert (net.head, net.axis_name) == ("tanh", None)
    again = network.with_axis(copy, head="tanh", axis_name=None)
    assert again == net
    images = jnp.zeros((1, 32, 32, 3), jnp.uint8)
    shapes = [jax.eval_shape(lambda n=n: n.init(jax.random.key(0), images, train=False)) for n in (net, copy)]
    assert jax.tree.structure(shapes[0]) == jax.tree.structure(shapes[1])
    heads = net.clone(backbone=None)
    assert network.with_axis(heads, head="tanh", axis_name=AXIS) == heads.clone(axis_name=AXIS)
    with pytest.raises(InputError, match="expected head to be tanh or linear or batch_norm or layer_norm, got 'sigmoid'"):
        network.with_axis(net, head="sigmoid", axis_name=None)


@pytest.mark.parametrize("file", ["torchvision_resnet18", "timm_tf_efficientnet_lite0"])
def test_a_file_of_weights_says_whose_it_is(file, tmp_path):
    """Without a backbone's name, the one is built that the weights fit, by names and shapes; others are refused in one line."""
    with np.load(Path(__file__).parent / "reference" / f"{file}.npz") as golden:
        arrays = seeded.weights(seeded.layout(dict(golden)))
    np.savez(tmp_path / "weights.npz", **arrays)
    built = network.build("", bits=8, pretrained=str(tmp_path / "weights.npz"))
    assert built.arguments["backbone"] == file.partition("_")[2].removeprefix("tf_")
    np.savez(tmp_path / "other.npz", **dict(list(arrays.items())[1:]))
    with pytest.raises(InputError, match="isn't of a known backbone; fix: give weights of one of alexnet"):
        network.build("", bits=8, pretrained=str(tmp_path / "other.npz"))
