"""Backbones: ResNet against its layers written out in NumPy, published sizes, and statistics over several devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adsq_jax.models import backbones
from adsq_jax.models.backbones.alexnet import AlexNet
from adsq_jax.models.backbones.efficientnet_lite import EfficientNetLite
from adsq_jax.models.backbones.resnet import ResNet
from adsq_jax.models.backbones.small_cnn import SmallCNN
from adsq_jax.models.backbones.vgg import VGG
from adsq_jax.models.backbones.vit import ViT
from adsq_jax.models.layers import Layers

FEATURES = {  # of the published sizes, as the papers have them
    "small_cnn": 256,
    "alexnet": 4096,
    "vgg16": 4096,
    "resnet18": 512,
    "resnet50": 2048,
    **{f"efficientnet_lite{number}": 1280 for number in (0, 1, 2)},
    "vit_b16": 768,
}
SHARED = Layers(axis_name="devices")
TINY = {
    "basic": ResNet(stages=(1, 2), bottleneck=False, width=4, layers=SHARED),
    "bottleneck": ResNet(stages=(1, 1), bottleneck=True, width=4, layers=SHARED),
    "small_cnn": SmallCNN(width=4, layers=SHARED),
    "efficientnet_lite": EfficientNetLite(stages=((3, 1, 1, 4, 1), (5, 2, 2, 8, 2)), stem=4, width=16, layers=SHARED),
}
UNNORMED = {
    "vgg": VGG(stages=((1, 4), (2, 8)), units=12, layers=SHARED),
    "vit": ViT(patch=8, width=12, depth=2, heads=3, hidden=16, layers=SHARED),
}


def variables_of(model, images):
    """Return random parameters and running statistics; initial values of 0 and 1 would hide mistakes."""
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    random = np.random.default_rng(0)

    def draw(path, x):
        low = 0.5 if path[-1].key in ("scale", "var") else -1.0
        return jnp.asarray(random.uniform(low, 1.0, x.shape) / np.sqrt(x.size / x.shape[-1]), jnp.float32)

    return jax.tree.map_with_path(draw, shapes)


def images_of(side, batch=8):
    return np.random.default_rng(1).normal(size=(batch, side, side, 3)).astype(np.float32)


class PlainResNet:
    """The published ResNet in NumPy; every convolution is padded by half of its kernel on all sides."""

    def __init__(self, variables, *, train):
        self.params, self.averages, self.train = variables["params"], variables["batch_stats"], train

    def windows(self, x, size, stride, fill):
        """Return the inputs of each pixel of a kernel, [size * size, batch, h', w', c]."""
        pad = size // 2
        x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=fill)
        height, width = ((side - size) // stride + 1 for side in x.shape[1:3])
        return [
            x[:, i : i + stride * height : stride, j : j + stride * width : stride][:, :height, :width]
            for i in range(size)
            for j in range(size)
        ]

    def conv(self, x, params, stride=1):
        kernel = np.asarray(params["kernel"], np.float64)  # [size, size, in, out]
        windows = self.windows(x, kernel.shape[0], stride, 0.0)
        return sum(window @ weights for window, weights in zip(windows, kernel.reshape(-1, *kernel.shape[2:]), strict=True))

    def norm(self, x, params, averages):
        mean, variance = (x.mean((0, 1, 2)), x.var((0, 1, 2))) if self.train else (averages["mean"], averages["var"])
        return (x - mean) / np.sqrt(variance + 1e-5) * params["scale"] + params["bias"]

    def block(self, x, name, stride, strides):
        """Apply a block whose convolutions have these `strides`, with a projection where the shape changes."""
        params, averages = self.params[name], self.averages[name]
        y = x
        for k, s in enumerate(strides):
            y = self.conv(y, params[f"conv{k + 1}"], s)
            y = self.norm(y, params[f"norm{k + 1}"], averages[f"norm{k + 1}"])
            y = np.maximum(y, 0) if k + 1 < len(strides) else y
        if x.shape != y.shape:
            x = self.conv(x, params["shortcut"], stride)
            x = self.norm(x, params["shortcut_norm"], averages["shortcut_norm"])
        return np.maximum(x + y, 0)

    def __call__(self, x, *, stages, bottleneck):
        x = self.conv(x.astype(np.float64), self.params["stem"], 2)
        x = np.maximum(self.norm(x, self.params["stem_norm"], self.averages["stem_norm"]), 0)
        x = np.max(self.windows(x, 3, 2, -np.inf), axis=0)
        for stage, blocks in enumerate(stages):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                strides = (1, stride, 1) if bottleneck else (stride, 1)
                x = self.block(x, f"stage{stage + 1}_block{block}", stride, strides)
        return x.mean(axis=(1, 2))


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("side", [32, 27])
@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_resnet_equals_the_published_layers(kind, side, train):
    """The ResNet equals the NumPy one, in training and evaluation, for even and odd images."""
    model = TINY[kind].clone(layers=Layers())
    images = images_of(side)
    variables = variables_of(model, images)
    found, _ = jax.jit(lambda v, x: model.apply(v, x, train=train, mutable=["batch_stats"]))(variables, images)
    plain = PlainResNet(jax.tree.map(np.asarray, variables), train=train)
    expected = plain(images, stages=model.stages, bottleneck=model.bottleneck)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


PUBLISHED = {  # parameters in torchvision, and in the authors' EfficientNet-Lite0
    "alexnet": 61_100_840,
    "vgg16": 138_357_544,
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "vit_b16": 86_567_656,
    "efficientnet_lite0": 4_652_008,
    "efficientnet_lite1": 5_416_680,
    "efficientnet_lite2": 6_092_072,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers_of_parameters(name):
    """The number of parameters is the published one, with and without the classifier of 1,000 classes."""
    counts = []
    for classes in (1000, None):
        model = backbones.build(name, width=0, layers=Layers(), classes=classes)
        images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
        shapes = jax.eval_shape(lambda x, model=model: model.init(jax.random.key(0), x, train=False), images)
        counts.append(sum(x.size for x in jax.tree.leaves(shapes["params"])))
    assert counts == [PUBLISHED[name], PUBLISHED[name] - 1000 * (FEATURES[name] + 1)]


@pytest.mark.parametrize("side", [8, 28, 32, 63, 64, 224, 250])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", backbones.NAMES)
def test_every_backbone_maps_images_of_any_size_that_it_takes_to_features(name, dtype, side):
    """Features and parameters are float32 in both modes and dtypes, unless `check_side` refuses the size."""
    try:
        backbones.check_side(name, side)
    except ValueError:
        assert side < {"alexnet": 63, "vgg16": 32, "vit_b16": 16}.get(name, 0) or (name == "vit_b16" and side % 16)
        return
    model = backbones.build(name, width=0, layers=Layers(dtype=dtype))
    images = jax.ShapeDtypeStruct((3, side, side, 3), jnp.float32)
    for train in (False, True):
        found, variables = jax.eval_shape(
            lambda x, train=train: model.init_with_output(jax.random.key(0), x, train=train), images
        )
        assert found.shape == (3, FEATURES[name])
        assert {x.dtype for x in jax.tree.leaves((found, variables))} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", ["small_cnn", "resnet18", "resnet50"])
def test_width_scales_the_features(name):
    """The number of features is proportional to the width."""
    model = backbones.build(name, width=4, layers=Layers())
    images = jax.ShapeDtypeStruct((3, 32, 32, 3), jnp.float32)
    found, _ = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, train=False), images)
    assert found.shape == (3, FEATURES[name] * 4 // (32 if name == "small_cnn" else 64))


# Runs each network in two dtypes.
@pytest.mark.parametrize("kind", [*TINY, *UNNORMED])
def test_bfloat16_is_near_float32(kind):
    """In bfloat16, features are near those of float32, and not the same."""
    model = {**TINY, **UNNORMED}[kind].clone(layers=Layers())
    images = images_of(16)
    variables = variables_of(model, images)
    exact = model.apply(variables, images, train=False)
    found = model.clone(layers=Layers(dtype="bfloat16")).apply(variables, images, train=False)
    assert found.dtype == jnp.float32
    assert 0 < np.abs(found - exact).max() < 0.05 * np.abs(exact).max()


@pytest.mark.parametrize("kind", TINY)
def test_frozen_statistics_stay_and_are_those_of_evaluation(kind):
    """With batch_norm="frozen", training mode equals evaluation mode on any number of devices, and no average changes."""
    model, images = TINY[kind].clone(layers=Layers(axis_name="devices", batch_norm="frozen")), images_of(16)
    variables = variables_of(model.clone(layers=Layers()), images)
    run = jax.jit(jax.vmap(lambda x: model.apply(variables, x, train=True, mutable=["batch_stats"]), axis_name="devices"))
    found, updated = run(images.reshape(4, 2, *images.shape[1:]))
    expected = model.apply(variables, images, train=False)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)
    for path, x in jax.tree.leaves_with_path(updated):
        before = dict(jax.tree.leaves_with_path(variables))[path]
        assert all(np.array_equal(part, before) for part in x)


# Runs a network of many layers without compiling it as a whole.
@pytest.mark.parametrize("kind", ["alexnet", "vgg"])
def test_dropout_only_in_training(kind):
    """In training some units are 0, others with each key; evaluation drops none."""
    layers = Layers(dropout=0.5)
    model = {"alexnet": AlexNet(units=64, layers=layers), "vgg": UNNORMED["vgg"].clone(units=64, layers=layers)}[kind]
    images = images_of(64)
    variables = model.init(jax.random.key(0), images, train=False)

    def run(train, seed):
        return model.apply(variables, images, train=train, rngs={"dropout": jax.random.key(seed)})

    assert np.array_equal(run(False, 0), run(False, 1))
    assert not np.allclose(run(True, 0), run(True, 1))
    if kind == "vgg":  # dropout is the last that happens there
        zeros = float(np.mean(np.asarray(run(True, 0)) == 0)) - float(np.mean(np.asarray(run(False, 0)) == 0))
        assert 0.1 < zeros < 0.5


def test_vit_norms_have_the_published_epsilon():
    """The epsilon is 1e-6; a nearly constant input tells it from 1e-5."""
    model = UNNORMED["vit"].clone(layers=Layers())
    variables = jax.tree.map(jnp.zeros_like, variables_of(model, images_of(16)))
    variables["params"]["class_token"] = jnp.full((1, 1, 12), 1e-3).at[0, 0, ::2].set(-1e-3)
    variables["params"]["norm"]["scale"] = jnp.ones(12)
    found = model.apply(variables, images_of(16), train=False)
    np.testing.assert_allclose(np.abs(found), 1e-3 / np.sqrt(1e-6 + 1e-6), rtol=1e-4)


@pytest.mark.parametrize("kind", TINY)
def test_statistics_over_four_shards_are_those_of_the_whole_batch(kind):
    """4 x 2 images under a mapped axis give the features and running averages of 8 images on one device."""
    images = images_of(16)
    alone = TINY[kind].clone(layers=Layers())
    variables = variables_of(alone, images)

    def apply(model, x):
        return model.apply(variables, x, train=True, mutable=["batch_stats"])

    whole, whole_updates = jax.jit(lambda x: apply(alone, x))(images)
    sharded = jax.jit(jax.vmap(lambda x: apply(TINY[kind], x), axis_name="devices"))
    shards, shard_updates = sharded(images.reshape(4, 2, *images.shape[1:]))
    np.testing.assert_allclose(shards.reshape(whole.shape), whole, rtol=1e-3, atol=1e-4)
    for device in range(4):
        jax.tree.map(
            lambda x, y, d=device: np.testing.assert_allclose(x[d], y, rtol=1e-4, atol=1e-5), shard_updates, whole_updates
        )


@pytest.mark.parametrize("kind", TINY)
def test_running_averages_move_by_a_tenth_of_the_way(kind):
    """Each step gives 0.9 old + 0.1 batch: averages that start 1 apart end 0.9 apart."""
    model, images = TINY[kind].clone(layers=Layers()), images_of(16)
    variables = variables_of(model, images)
    shifted = {**variables, "batch_stats": jax.tree.map(lambda x: x + 1, variables["batch_stats"])}
    step = jax.jit(lambda v: model.apply(v, images, train=True, mutable=["batch_stats"]))
    (features, low), (same_features, high) = step(variables), step(shifted)
    np.testing.assert_array_equal(features, same_features)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b - a, 0.9, rtol=1e-4), low, high)


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_a_new_residual_block_passes_its_input_on(kind):
    """The last norm of each block starts at 0, all others at 1."""

    def scales():  # returns only these, so that XLA compiles only these
        params = TINY[kind].init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)), train=False)["params"]
        return {jax.tree_util.keystr(path): x for path, x in jax.tree.leaves_with_path(params) if path[-1].key == "scale"}

    last = "norm3" if kind == "bottleneck" else "norm2"
    for path, scale in jax.jit(scales)().items():
        assert (scale == (0 if last in path else 1)).all()


def test_unknown_backbone_is_refused():
    """The message lists all backbones and suggests the nearest."""
    known = rf"no backbone named 'resnet34' \(did you mean resnet50\?\): choose one of {', '.join(backbones.NAMES)}"
    with pytest.raises(ValueError, match=known):
        backbones.build("resnet34", width=0, layers=Layers())
    with pytest.raises(ValueError, match=known):
        backbones.check_side("resnet34", 224)


def test_another_width_of_a_backbone_that_has_one_is_refused():
    """A width that the backbone can't have is refused."""
    with pytest.raises(ValueError, match="vgg16 has one width: give 0, not 8"):
        backbones.build("vgg16", width=8, layers=Layers())
