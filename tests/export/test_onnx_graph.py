"""ONNX graphs compute what JAX computes: each backbone and head in ONNX Runtime; what isn't known is refused."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest

from adsq_jax.errors import InputError
from adsq_jax.export import onnx_graph
from adsq_jax.models.backbones.alexnet import AlexNet
from adsq_jax.models.backbones.efficientnet_lite import EfficientNetLite
from adsq_jax.models.backbones.resnet import ResNet
from adsq_jax.models.backbones.small_cnn import SmallCNN
from adsq_jax.models.backbones.vgg import VGG
from adsq_jax.models.backbones.vit import ViT
from adsq_jax.models.img_net import HEADS, ImgNet

BACKBONES = {  # every module, with fewer channels and blocks; and the pixels a side
    "small_cnn": (SmallCNN(width=4), 27),
    "alexnet": (AlexNet(units=12), 63),
    "vgg": (VGG(stages=((1, 4), (2, 8)), units=12), 32),
    "resnet": (ResNet(stages=(1, 2), bottleneck=False, width=4), 33),
    "resnet, bottleneck": (ResNet(stages=(1, 1), bottleneck=True, width=4), 32),
    "efficientnet_lite": (EfficientNetLite(stages=((3, 1, 1, 4, 1), (5, 2, 2, 8, 2)), stem=4, width=16), 32),
    "vit": (ViT(patch=8, width=12, depth=2, heads=3, hidden=16), 16),
    "vit, approximate": (ViT(patch=8, width=12, depth=1, heads=3, hidden=16, approximate_gelu=True), 16),
}
CASES = [(name, "tanh") for name in BACKBONES] + [("small_cnn", head) for head in HEADS if head != "tanh"]


def translated(function, variables, shape, *, dtype=np.uint8):
    """The session of a function of variables and images [n, *shape]."""
    (n,) = jax.export.symbolic_shape("n")
    made = onnx_graph.model(
        function,
        variables,
        jax.ShapeDtypeStruct((n, *shape), dtype),
        outputs=["result"],
        metadata={},
        producer="tests 1",
    )
    return onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])


def variables_of(net, side):
    """Random parameters and running statistics; initial values of 0 and 1 would hide mistakes."""
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, side, side, 3), jnp.uint8), train=False))
    random = np.random.default_rng(0)

    def draw(path, x):
        if path[-1].key in ("scale", "var"):
            return random.uniform(0.5, 1.5, x.shape).astype(np.float32)
        if path[-1].key in ("bias", "mean"):
            return random.uniform(-0.3, 0.3, x.shape).astype(np.float32)
        return (random.normal(size=x.shape) * np.sqrt(2 * x.shape[-1] / x.size)).astype(np.float32)

    return jax.tree.map_with_path(draw, shapes)


@pytest.mark.parametrize(("name", "head"), CASES)
def test_every_network(name, head):
    """Relaxed codes of 1 and 5 images equal JAX's but for rounding, and so do their signs where they aren't next to 0."""
    backbone, side = BACKBONES[name]
    net = ImgNet(backbone, bits=20, features=8, mean=(0.4, 0.5, 0.6), deviation=(0.2, 0.25, 0.3), head=head)
    variables = variables_of(net, side)

    def relaxed_codes(variables, images):
        return [net.apply(variables, images, train=False)[1]]

    session = translated(relaxed_codes, variables, (side, side, 3))
    for count in (1, 5):
        images = np.random.default_rng(count).integers(0, 256, (count, side, side, 3), np.uint8)
        [found] = session.run(["result"], {"images": images})
        wanted = np.asarray(jax.jit(relaxed_codes)(variables, images)[0])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, atol=5e-5 * max(1, np.abs(wanted).max()))
        clear = np.abs(wanted) > 1e-4
        assert clear.mean() > 0.9
        assert np.array_equal((found >= 0)[clear], (wanted >= 0)[clear])
    assert (found.std(axis=0) > 1e-3).any()  # the images have different codes


def repeated(weights, x):
    """A constant along axes of length 1, which a sum and a concatenation need in its whole length."""
    row = jnp.broadcast_to(weights[None], (x.shape[0], 4))
    column = jnp.broadcast_to(weights[:1, None], (4, 3)).sum(axis=1)
    return [jnp.concatenate([row, x * column[None]], axis=1) - row.sum(axis=1)[:, None]]


def matrices(weights, x):
    """Products over other axes than the last and the first, one of them with a batch, and slices with steps."""
    cube = x.reshape(x.shape[0], 2, 2)
    products = jnp.einsum("nab,nac->ncb", cube, cube).reshape(x.shape[0], 4)
    return [jax.lax.slice_in_dim(products, 1, 4, 2, axis=1) + jnp.einsum("ka,nk->na", weights[:, None], x)]


@pytest.mark.parametrize("function", [repeated, matrices])
def test_operations_by_themselves(function):
    """What the backbones have in one form only."""
    weights = np.float32([1, -2, 3, 0.5])
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    [found] = translated(function, weights, (4,), dtype=np.float32).run(["result"], {"images": x})
    np.testing.assert_allclose(found, function(weights, x)[0], rtol=1e-5, atol=1e-5)


UNKNOWN = {
    "sin": lambda _, x: [jnp.sin(x)],
    "an axis of length 4*n": lambda _, x: [x.reshape(-1) * 1.0],
    "rev": lambda _, x: [jax.lax.rev(x, (1,))],
    "slice": lambda _, x: [jax.lax.slice_in_dim(x, 0, 1)],
    "pad": lambda _, x: [jax.lax.pad(x, np.float32(0), ((0, 0, 0), (-1, 0, 0)))],
    "gather": lambda _, x: [x[:, np.array([0, 2])]],
    "reduce_window_max": lambda _, x: [jax.lax.reduce_window(x, -np.inf, jax.lax.max, (1, 2), (1, 1), "VALID")],
    "dot_general": lambda w, x: [
        jax.lax.dot(x.astype(jnp.bfloat16), w.astype(jnp.bfloat16), preferred_element_type=jnp.float32)
    ],
    "conv_general_dilated": lambda w, x: [
        jax.lax.conv_transpose(x[:, :, None], w[:, None, None], (2,), "SAME", dimension_numbers=("NHC", "HIO", "NHC"))
    ],
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_what_is_not_known(what):
    """An operation without a translation, or used in another way, is one line that names it."""
    with pytest.raises(InputError, match=r"^the network computes .*, which the export to ONNX doesn't know; fix: ") as raised:
        translated(UNKNOWN[what], np.ones(4, np.float32), (4,), dtype=np.float32)
    assert what in str(raised.value)
    assert "\n" not in str(raised.value)


def test_weights_that_are_too_large(monkeypatch):
    """ONNX files have at most 2 GiB."""
    monkeypatch.setattr(onnx_graph, "MAX_BYTES", 15)
    with pytest.raises(InputError, match="expected weights of at most 15 bytes for ONNX, got 16; fix: "):
        translated(lambda w, x: [x + w[None]], np.ones(4, np.float32), (4,), dtype=np.float32)
