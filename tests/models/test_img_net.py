"""ImgNet: normalisation of images, layers, heads, initialisation, and training against evaluation."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adsq_jax.devices.mesh import AXIS
from adsq_jax.models import backbones
from adsq_jax.models.img_net import ImgNet
from adsq_jax.models.layers import Layers

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)


class Channels(nn.Module):
    """A backbone that returns each channel's mean, to show the tests its input."""

    @nn.compact
    def __call__(self, x, *, train):
        return jnp.mean(x, axis=(1, 2))


def build(backbone=None, *, bits=5, features=7, head="tanh", axis_name=None):
    backbone = backbone or backbones.build("small_cnn", width=4, layers=Layers())
    fields = {"mean": MEAN, "deviation": DEVIATION, "head": head, "axis_name": axis_name}
    return ImgNet(backbone=backbone, bits=bits, features=features, **fields)


@pytest.fixture(scope="module")
def variables():
    """Return random variables of the small network, with positive variances."""
    shapes = jax.eval_shape(lambda: build().init(jax.random.key(0), IMAGES, train=False))
    random = np.random.default_rng(0)

    def draw(path, x):
        values = random.normal(size=x.shape) / 2
        return (1 + np.abs(values) if path[-1].key == "var" else values).astype(np.float32)

    return jax.tree.map_with_path(draw, shapes)


@pytest.mark.parametrize("head", ["tanh", "linear"])
def test_images_are_normalised_by_channel_and_layers_are_dense(head):
    """Images are normalised; then come a linear layer, relu, a linear layer, and tanh by the head that is called so."""
    model = build(Channels(), head=head)
    random = np.random.default_rng(1)
    params = {
        "semantic": {"kernel": random.normal(size=(3, 7)), "bias": random.normal(size=7)},
        "hash": {"kernel": random.normal(size=(7, 5)), "bias": random.normal(size=5)},
    }
    params = jax.tree.map(lambda x: x.astype(np.float32), params)
    semantic, relaxed_codes = model.apply({"params": params}, IMAGES, train=False)
    x = (IMAGES.astype(np.float64).mean(axis=(1, 2)) / 255 - np.array(MEAN)) / np.array(DEVIATION)
    expected_semantic = x @ params["semantic"]["kernel"] + params["semantic"]["bias"]
    outputs = np.maximum(expected_semantic, 0) @ params["hash"]["kernel"] + params["hash"]["bias"]
    expected_codes = np.tanh(outputs) if head == "tanh" else outputs
    np.testing.assert_allclose(semantic, expected_semantic, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(relaxed_codes, expected_codes, rtol=1e-4, atol=1e-5)
    assert (expected_semantic < 0).any()


def test_without_a_semantic_layer():
    """Codes come from the trunk's features by one linear layer, and these are the semantic features; no relu cuts them."""
    model = build(Channels(), features=0, head="linear")
    variables = model.init(jax.random.key(0), IMAGES, train=False)
    assert set(variables["params"]) == {"hash"}
    semantic, relaxed_codes = model.apply(variables, IMAGES, train=False)
    x = (IMAGES.astype(np.float64).mean(axis=(1, 2)) / 255 - np.array(MEAN)) / np.array(DEVIATION)
    assert (x < 0).any()
    np.testing.assert_allclose(semantic, x, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(relaxed_codes, x @ variables["params"]["hash"]["kernel"], rtol=1e-4, atol=1e-5)


def of_head(head):
    """Return heads without a backbone, random variables of theirs, 6 images' features, and the hash layer's float64 outputs."""
    model = build(Channels(), head=head).clone(backbone=None)
    random = np.random.default_rng(2)
    features = random.normal(size=(6, 3)).astype(np.float32)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), features, train=False))
    variables = jax.tree.map(lambda x: np.abs(random.normal(size=x.shape)).astype(np.float32), shapes)
    linear = {**variables["params"]}
    del linear["hash_norm"]
    linear["hash"] = {"bias": np.zeros(5, np.float32), **linear["hash"]}
    assert ("bias" in variables["params"]["hash"]) == (head == "layer_norm")
    _, outputs = build(Channels(), head="linear").clone(backbone=None).apply({"params": linear}, features, train=False)
    return model, variables, features, np.asarray(outputs, np.float64)


def test_batch_norm_of_the_hash_layer():
    """Bit by bit: in training by the batch's mean and variance, which move the averages by a tenth; else by the averages."""
    model, variables, features, outputs = of_head("batch_norm")
    norm, averages = variables["params"]["hash_norm"], variables["batch_stats"]["hash_norm"]
    (_, trained), changed = model.apply(variables, features, train=True, mutable=["batch_stats"])
    _, evaluated = model.apply(variables, features, train=False)
    for k in range(outputs.shape[1]):
        column = outputs[:, k]
        mean = sum(column) / len(column)
        variance = sum((x - mean) ** 2 for x in column) / len(column)
        wanted = (column - mean) / (variance + 1e-5) ** 0.5 * norm["scale"][k] + norm["bias"][k]
        np.testing.assert_allclose(trained[:, k], wanted, rtol=1e-4, atol=1e-5)
        wanted = (column - averages["mean"][k]) / (averages["var"][k] + 1e-5) ** 0.5 * norm["scale"][k] + norm["bias"][k]
        np.testing.assert_allclose(evaluated[:, k], wanted, rtol=1e-4, atol=1e-5)
        for name, of_batch in (("mean", mean), ("var", variance)):
            moved = 0.9 * averages[name][k] + 0.1 * of_batch
            np.testing.assert_allclose(changed["batch_stats"]["hash_norm"][name][k], moved, rtol=1e-4)
    assert np.abs(trained).max() > 1


def test_layer_norm_of_the_hash_layer():
    """Image by image, over its bits, then tanh; the same in training and evaluation."""
    model, variables, features, outputs = of_head("layer_norm")
    norm = variables["params"]["hash_norm"]
    _, trained = model.apply(variables, features, train=True)
    for row, u in zip(outputs, trained, strict=True):
        deviations = row - sum(row) / len(row)
        wanted = np.tanh(deviations / (sum(deviations**2) / len(row) + 1e-5) ** 0.5 * norm["scale"] + norm["bias"])
        np.testing.assert_allclose(u, wanted, rtol=1e-4, atol=1e-5)
    assert np.array_equal(trained, model.apply(variables, features, train=False)[1])
    assert variables.keys() == {"params"}


def test_batch_norm_averages_over_devices():
    """Two devices with three images each give the codes and averages of one device with six."""
    model, variables, features, _ = of_head("batch_norm")
    (_, wanted), averages = model.apply(variables, features, train=True, mutable=["batch_stats"])
    part = model.clone(axis_name=AXIS)
    run = jax.vmap(lambda x: part.apply(variables, x, train=True, mutable=["batch_stats"]), axis_name=AXIS)
    (_, found), averages_of_two = run(features.reshape(2, 3, 3))
    np.testing.assert_allclose(found.reshape(6, -1), wanted, rtol=1e-4, atol=1e-5)
    for a, b in zip(jax.tree.leaves(averages_of_two), jax.tree.leaves(averages), strict=True):
        np.testing.assert_allclose(a, np.stack([b, b]), rtol=1e-4)


@pytest.mark.parametrize("train", [False, True])
def test_shapes_dtypes_and_range(variables, train):
    """float32[batch, features] and float32[batch, bits] in [-1, 1], in both modes."""
    outputs, _ = build().apply(variables, IMAGES, train=train, mutable=["batch_stats"])
    assert [x.shape for x in outputs] == [(6, 7), (6, 5)]
    assert all(x.dtype == np.float32 for x in outputs)
    assert (np.abs(outputs[1]) <= 1).all()


def test_another_key_gives_another_network_of_the_same_shape():
    """Another key gives other kernels and codes."""
    model = build(Channels())
    init = jax.jit(lambda key: model.init(key, IMAGES, train=False))
    f, g = (init(key) for key in jax.random.split(jax.random.key(0)))
    assert jax.tree.map(jnp.shape, f) == jax.tree.map(jnp.shape, g)
    for layer in ("semantic", "hash"):
        assert not np.isclose(f["params"][layer]["kernel"], g["params"][layer]["kernel"]).all()
    codes_f, codes_g = (model.apply(variables, IMAGES, train=False)[1] for variables in (f, g))
    assert not np.allclose(codes_f, codes_g)


def test_evaluation_gives_an_image_the_same_code_in_any_company(variables):
    """In evaluation an image's code is the same alone and in a batch; in training it isn't, and averages change."""
    model = build()
    together = model.apply(variables, IMAGES, train=False)[1]
    alone = model.apply(variables, IMAGES[:1], train=False)[1]
    np.testing.assert_allclose(alone, together[:1], rtol=1e-4, atol=1e-5)
    (_, trained), changed = model.apply(variables, IMAGES, train=True, mutable=["batch_stats"])
    assert not np.allclose(trained, together, atol=1e-3)
    before, after = jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(changed["batch_stats"])
    assert len(before) > 0
    assert all(not np.allclose(a, b) for a, b in zip(before, after, strict=True))


def test_trunk_and_heads_one_after_the_other_are_the_network(variables):
    """The trunk's features, given to the network without its backbone, give the whole network's outputs."""
    model = build()
    trunk = {kind: {"backbone": tree["backbone"]} for kind, tree in variables.items()}
    features = model.apply(trunk, IMAGES, train=False, method=model.trunk)
    heads = {"params": {name: tree for name, tree in variables["params"].items() if name != "backbone"}}
    found = model.clone(backbone=None).apply(heads, features, train=False)
    for a, b in zip(found, model.apply(variables, IMAGES, train=False), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 8, 8, 1), (2, 8, 8, 4), (2, 8, 8), (8, 8, 3)])
def test_grey_images_and_other_shapes_are_refused(shape):
    """Other shapes are refused in one line."""
    with pytest.raises(ValueError, match=r"expected images \[batch, h, w, 3\], got") as caught:
        jax.eval_shape(lambda x: build().init(jax.random.key(0), x, train=False), jax.ShapeDtypeStruct(shape, np.uint8))
    assert "\n" not in str(caught.value)
