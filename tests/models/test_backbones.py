"""Backbones: ResNet against its layers written out in NumPy, published sizes, and statistics over several devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adsq_jax.models import backbones
from adsq_jax.models.backbones.resnet import ResNet
from adsq_jax.models.backbones.small_cnn import SmallCNN

FEATURES = {"small_cnn": 8, "resnet18": 8, "resnet50": 32}  # in widths
TINY = {
    "basic": ResNet(stages=(1, 2), bottleneck=False, width=4, axis_name="devices"),
    "bottleneck": ResNet(stages=(1, 1), bottleneck=True, width=4, axis_name="devices"),
    "small_cnn": SmallCNN(width=4, axis_name="devices"),
}


def variables_of(model, images):
    """Parameters and running statistics, all of them random, so that none hides behind 0 or 1."""
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    random = np.random.default_rng(0)

    def draw(path, x):
        low = 0.5 if path[-1].key in ("scale", "var") else -1.0
        return jnp.asarray(random.uniform(low, 1.0, x.shape) / np.sqrt(x.size / x.shape[-1]), jnp.float32)

    return jax.tree.map_with_path(draw, shapes)


def images_of(side, batch=8):
    return np.random.default_rng(1).normal(size=(batch, side, side, 3)).astype(np.float32)


class PlainResNet:
    """The published ResNet on NumPy arrays: every convolution padded by half of its kernel on all sides."""

    def __init__(self, variables, *, train):
        self.params, self.averages, self.train = variables["params"], variables["batch_stats"], train

    def windows(self, x, size, stride, fill):
        """[size * size, batch, h', w', c]: what each place of a kernel sees."""
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
        """`strides` are those of the block's convolutions; a projection comes where the shape changes."""
        params, averages = self.params[name], self.averages[name]
        y = x
        for k, s in enumerate(strides):
            y = self.conv(y, params[f"Conv_{k}"], s)
            y = self.norm(y, params[f"BatchNorm_{k}"], averages[f"BatchNorm_{k}"])
            y = np.maximum(y, 0) if k + 1 < len(strides) else y
        if x.shape != y.shape:
            k = len(strides)
            x = self.conv(x, params[f"Conv_{k}"], stride)
            x = self.norm(x, params[f"BatchNorm_{k}"], averages[f"BatchNorm_{k}"])
        return np.maximum(x + y, 0)

    def __call__(self, x, *, stages, bottleneck):
        x = self.conv(x.astype(np.float64), self.params["stem"], 2)
        x = np.maximum(self.norm(x, self.params["stem_norm"], self.averages["stem_norm"]), 0)
        x = np.max(self.windows(x, 3, 2, -np.inf), axis=0)
        for stage, blocks in enumerate(stages):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                strides = (1, stride, 1) if bottleneck else (stride, 1)
                x = self.block(x, f"stage{stage}_block{block}", stride, strides)
        return x.mean(axis=(1, 2))


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("side", [32, 27])
@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_resnet_equals_the_published_layers(kind, side, train):
    """Strides, padding, projections, norms by running averages or by the batch, and the mean, for even and odd images."""
    model = TINY[kind].clone(axis_name=None)
    images = images_of(side)
    variables = variables_of(model, images)
    found, _ = jax.jit(lambda v, x: model.apply(v, x, train=train, mutable=["batch_stats"]))(variables, images)
    plain = PlainResNet(jax.tree.map(np.asarray, variables), train=train)
    expected = plain(images, stages=model.stages, bottleneck=model.bottleneck)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize(("name", "published"), [("resnet18", 11_176_512), ("resnet50", 23_508_032)])
def test_resnet_has_the_published_number_of_parameters(name, published):
    """torchvision's count without its classifier, at width 64."""
    model = backbones.build(name, width=64, axis_name=None)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
    assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == published


@pytest.mark.parametrize("side", [8, 28, 32, 224])
@pytest.mark.parametrize("name", backbones.NAMES)
def test_every_backbone_maps_images_of_any_size_to_features(name, side):
    """float32[batch, its number of features], in both modes."""
    model = backbones.build(name, width=4, axis_name=None)
    images = jax.ShapeDtypeStruct((3, side, side, 3), jnp.float32)
    for train in (False, True):
        found, _ = jax.eval_shape(lambda x, train=train: model.init_with_output(jax.random.key(0), x, train=train), images)
        assert found.shape == (3, 4 * FEATURES[name])
        assert found.dtype == jnp.float32


@pytest.mark.parametrize("kind", TINY)
def test_statistics_over_four_shards_are_those_of_the_whole_batch(kind):
    """Features and running averages of 4 x 2 images under a mapped axis are those of 8 images on one device."""
    images = images_of(16)
    alone = TINY[kind].clone(axis_name=None)
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
    """After a step each average is 0.9 old + 0.1 batch: starting from two values, the results are 0.9 times as far apart."""
    model, images = TINY[kind].clone(axis_name=None), images_of(16)
    variables = variables_of(model, images)
    shifted = {**variables, "batch_stats": jax.tree.map(lambda x: x + 1, variables["batch_stats"])}
    step = jax.jit(lambda v: model.apply(v, images, train=True, mutable=["batch_stats"]))
    (features, low), (same_features, high) = step(variables), step(shifted)
    np.testing.assert_array_equal(features, same_features)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b - a, 0.9, rtol=1e-4), low, high)


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_a_new_residual_block_passes_its_input_on(kind):
    """The last norm of each block starts at 0, all others at 1."""

    def scales():  # nothing else, so that nothing else is compiled
        params = TINY[kind].init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)), train=False)["params"]
        return {jax.tree_util.keystr(path): x for path, x in jax.tree.leaves_with_path(params) if path[-1].key == "scale"}

    last = "BatchNorm_2" if kind == "bottleneck" else "BatchNorm_1"
    for path, scale in jax.jit(scales)().items():
        assert (scale == (0 if last in path else 1)).all()


def test_unknown_backbone_is_refused():
    """The message names the ones there are."""
    with pytest.raises(ValueError, match="no backbone named 'alexnet': choose one of small_cnn, resnet18, resnet50"):
        backbones.build("alexnet", width=64, axis_name=None)
