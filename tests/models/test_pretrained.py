"""Pretrained weights: every backbone's logits against its reference's on the same weights, and refusal of misfits.

The references are golden files in tests/models/reference/, by torchvision and timm, from seeded weights.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import seeded

from adsq_jax.errors import InputError
from adsq_jax.models import backbones, pretrained
from adsq_jax.models.backbones.resnet import ResNet
from adsq_jax.models.layers import Layers

REFERENCE = Path(__file__).parent / "reference"
REFERENCES = {
    "torchvision_alexnet": "alexnet",
    "torchvision_vgg16": "vgg16",
    "torchvision_resnet18": "resnet18",
    "torchvision_resnet50": "resnet50",
    "torchvision_vit_b_16": "vit_b16",
    "timm_resnet18": "resnet18",
    "timm_resnet50": "resnet50",
    "timm_vgg16": "vgg16",
    "timm_vit_base_patch16_224": "vit_b16",
    "timm_tf_efficientnet_lite0": "efficientnet_lite0",
    "efficientnet_lite_pytorch_lite0": "efficientnet_lite0",
    "augreg_vit_b16": "vit_b16",
}


def golden_of(file):
    """Return the arrays of a golden file, by name."""
    with np.load(REFERENCE / f"{file}.npz") as golden:
        return dict(golden)


def shapes_of(model, side):
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)


# Runs a network of ImageNet at its full width, here and in PyTorch.
@pytest.mark.parametrize("file", REFERENCES)
def test_logits_are_the_references(file):
    """Logits differ by less than 1e-5 of the largest at each size; every array is loaded or skipped."""
    name, golden = REFERENCES[file], golden_of(file)
    arrays = seeded.weights(seeded.layout(golden))
    layout = pretrained.find_layout(arrays, backbone=name, source="file")
    model = backbones.build(name, width=0, layers=Layers(), classes=1000, **layout.options)
    sides = [int(key.removeprefix("logits_")) for key in golden if key.startswith("logits_")]
    assert 224 in sides
    for side in sides:
        placed = pretrained.assign(arrays, layout=layout, shapes=shapes_of(model, side), source="file")
        found = jax.jit(lambda v, x: model.apply(v, x, train=False))(placed.variables, seeded.images(side))
        expected = golden[f"logits_{side}"]
        assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
        assert sorted(placed.loaded + placed.skipped) == sorted(arrays)
        assert all(skipped.endswith("num_batches_tracked") for skipped in placed.skipped)
        assert sum(x.size for x in jax.tree.leaves(placed.variables["params"])) == golden["parameters"]


@pytest.mark.parametrize("file", REFERENCES)
def test_the_classifier_is_skipped_where_there_is_none(file):
    """Without `classes` only the classifier's two arrays and torch's counters are skipped."""
    name, golden = REFERENCES[file], golden_of(file)
    arrays = {key: np.broadcast_to(np.float32(0), shape) for key, shape in seeded.layout(golden).items()}
    layout = pretrained.find_layout(arrays, backbone=name, source="file")
    model = backbones.build(name, width=0, layers=Layers(), **layout.options)
    placed = pretrained.assign(arrays, layout=layout, shapes=shapes_of(model, 224), source="file")
    others = [skipped for skipped in placed.skipped if not skipped.endswith("num_batches_tracked")]
    assert sorted(arrays[skipped].shape[0] for skipped in others) in ([1000, 1000], [768, 1000])


def test_position_embeddings_are_resized_as_timm_does_it():
    """14x14 patches are resized to 6x6 as by timm's resample_abs_pos_embed; the class token's embedding stays."""
    golden = golden_of("timm_vit_base_patch16_224")
    arrays = seeded.weights(seeded.layout(golden))
    layout = pretrained.find_layout(arrays, backbone="vit_b16", source="file")
    shapes = shapes_of(backbones.build("vit_b16", width=0, layers=Layers()), 96)
    placed = pretrained.assign(arrays, layout=layout, shapes=shapes, source="file")
    found = placed.variables["params"]["positions"][0, :, :8]
    np.testing.assert_allclose(found, golden["pos_embedding_96"], rtol=1e-3, atol=1e-5)


RESNET = ResNet(stages=(1, 1), bottleneck=False, width=4)


def resnet_arrays():
    """Return arrays for RESNET in torchvision's names, by a mapping independent of the package."""
    names = {"stem": "conv1", "stem_norm": "bn1"}
    for stage in (1, 2):
        for part, there in (("conv1", "conv1"), ("norm1", "bn1"), ("conv2", "conv2"), ("norm2", "bn2")):
            names[f"stage{stage}_block0/{part}"] = f"layer{stage}.0.{there}"
    names |= {"stage2_block0/shortcut": "layer2.0.downsample.0", "stage2_block0/shortcut_norm": "layer2.0.downsample.1"}
    leaves = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    arrays = {}
    for path, x in jax.tree.leaves_with_path(shapes_of(RESNET, 32)):
        *layer, leaf = [part.key for part in path[1:]]
        shape = x.shape[::-1][:2] + x.shape[:2] if x.ndim == 4 else x.shape
        arrays[f"{names['/'.join(layer)]}.{leaves[leaf]}"] = np.arange(x.size, dtype=np.float32).reshape(shape)
    return {**arrays, "fc.weight": np.zeros((10, 8), np.float32), "fc.bias": np.zeros(10, np.float32)}


def placed(arrays):
    layout = pretrained.find_layout(arrays, backbone="resnet18", source="w.pth")
    return pretrained.assign(arrays, layout=layout, shapes=shapes_of(RESNET, 32), source="w.pth")


def test_kernels_are_transposed():
    """torch's [out, in, h, w] becomes [h, w, in, out]."""
    arrays = resnet_arrays()
    kernel = placed(arrays).variables["params"]["stage2_block0"]["shortcut"]["kernel"]
    there = arrays["layer2.0.downsample.0.weight"]
    assert all(kernel[0, 0, i, o] == there[o, i, 0, 0] for i in range(4) for o in range(8))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"layer1.0.conv2.weight": np.zeros((4, 4, 5, 5), np.float32)},
            ["layer1.0.conv2.weight", "[4, 4, 5, 5]", "[3, 3, 4, 4]"],
        ),
        ({"layer1.0.bn1.weight": np.zeros(5, np.float32)}, ["layer1.0.bn1.weight", "[5]", "[4]"]),
        ({"conv1.weight": np.zeros((4, 1, 7, 7), np.float32)}, ["conv1.weight", "[4, 1, 7, 7]", "[7, 7, 3, 4]"]),
        ({"conv1.weight": np.zeros((), np.float32)}, ["conv1.weight", "[]", "[7, 7, 3, 4]"]),
        ({"conv1.weight": np.zeros((0, 3), np.float32)}, ["conv1.weight", "[0, 3]", "[7, 7, 3, 4]"]),
        ({"layer1.0.conv2.weight": None}, ["stage1_block0/conv2/kernel", "[3, 3, 4, 4]", "nothing for"]),
        ({"layer2.0.bn1.running_var": None}, ["stage2_block0/norm1/var", "nothing for"]),
        ({"layer9.0.conv1.weight": np.zeros((4, 4, 3, 3), np.float32)}, ["layer9.0.conv1.weight", "fits no parameter"]),
        ({"conv1.bias": np.zeros(4, np.float32)}, ["conv1.bias", "fits no parameter"]),
        ({"attention.weight": np.zeros(4, np.float32)}, ["attention.weight", "[4]", "isn't of resnet18"]),
        ({"": np.zeros(4, np.float32)}, ["isn't of resnet18"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_named(change, words):
    """A missing array, one too many, or another shape gives one line with the file, the parameter, and both shapes."""
    arrays = {name: x for name, x in {**resnet_arrays(), **change}.items() if x is not None}
    with pytest.raises(InputError) as caught:
        placed(arrays)
    assert all(word in str(caught.value) for word in ["w.pth", *words])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("backbone", pretrained.LAYOUTS)
@pytest.mark.parametrize("file", REFERENCES)
def test_names_of_another_network_are_refused(file, backbone):
    """Names of one backbone's weights are refused by the others in one line."""
    arrays = {name: np.zeros(()) for name in seeded.layout(golden_of(file))}
    lites = file == "efficientnet_lite_pytorch_lite0" and backbone.startswith("efficientnet_lite")
    if REFERENCES[file] == backbone or lites or {REFERENCES[file], backbone} <= {"resnet18", "resnet50"}:  # named alike
        pretrained.find_layout(arrays, backbone=backbone, source="w.pth")
        return
    with pytest.raises(InputError, match=rf"w\.pth isn't of {backbone}.*give the weights of this backbone") as caught:
        pretrained.find_layout(arrays, backbone=backbone, source="w.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "backbone", "name"),
    [
        ("torchvision_resnet18", "resnet50", r"layer1\.0\.\w+\.\w+"),
        ("torchvision_resnet50", "resnet18", r"layer1\.0\.\w+\.\w+"),
        ("efficientnet_lite_pytorch_lite0", "efficientnet_lite1", r"_blocks\.3\.\w+\.weight"),  # Lite1 has a block more before
        ("efficientnet_lite_pytorch_lite0", "efficientnet_lite2", r"_blocks\.3\.\w+\.weight"),
    ],
)
def test_shapes_of_another_network_are_refused(file, backbone, name):
    """ResNets have the same names, and EfficientNet-Lites; a shape, or an extra array, tells them apart."""
    arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in seeded.layout(golden_of(file)).items()}
    layout = pretrained.find_layout(arrays, backbone=backbone, source="w.pth")
    shapes = shapes_of(backbones.build(backbone, width=0, layers=Layers()), 64)
    with pytest.raises(InputError, match=rf"w\.pth: '{name}'\["):
        pretrained.assign(arrays, layout=layout, shapes=shapes, source="w.pth")


def test_a_backbone_without_published_weights():
    """The message lists the backbones that have some."""
    with pytest.raises(InputError, match="small_cnn has no pretrained weights: choose one of alexnet, vgg16"):
        pretrained.find_layout({}, backbone="small_cnn", source="w.pth")
