"""Layers: convolutions and pooling against XLA's, and means of windows against a double loop."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adsq_jax.models import layers


def arrays(side, channels, size, features, *, depthwise):
    random = np.random.default_rng(side + 10 * size)
    x = random.normal(size=(2, side, side + 1, channels)).astype(np.float32)
    shape = (size, size, 1, channels) if depthwise else (size, size, channels, features)
    return x, (random.normal(size=shape) / size).astype(np.float32)


def reference(x, kernel, *, stride, padding):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[3] // kernel.shape[2],
    )


@settings(max_examples=12)  # each compiles anew
@given(
    side=st.integers(1, 12),
    size=st.sampled_from([1, 2, 3, 5, 7, 11]),
    stride=st.integers(1, 4),
    pad=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    depthwise=st.booleans(),
)
def test_convolutions_and_their_gradients_are_xlas(side, size, stride, pad, depthwise):
    """Convolutions and gradients equal XLA's, depthwise or not, for any size, stride and padding with an output."""
    if side + sum(pad) < size:
        return
    x, kernel = arrays(side, 3, size, 4, depthwise=depthwise)
    padding = (pad, pad)

    @partial(jax.jit, static_argnums=0)  # compiled at once, not by operation
    def outcome(function, x, kernel):
        def total(x, kernel):
            y = function(x, kernel, stride=stride, padding=padding)
            return jnp.sum(jnp.sin(y)), y

        return jax.grad(total, argnums=(0, 1), has_aux=True)(x, kernel)

    (found_grads, found), (expected_grads, expected) = (outcome(f, x, kernel) for f in (layers.convolve, reference))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    for a, b in zip(found_grads, expected_grads, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("side", [4, 5, 6, 7, 9, 32])
@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (5, 2), (5, 1), (1, 2)])
@pytest.mark.parametrize("depthwise", [False, True])
def test_same_padding_is_tensorflows(side, size, stride, depthwise):
    """padding="same" equals XLA's SAME, which is TensorFlow's."""
    x, _ = arrays(side, 3, size, 3, depthwise=depthwise)
    conv = layers.Conv(3, size, stride, padding="same", depthwise=depthwise)
    variables = conv.init(jax.random.key(0), x)
    expected = reference(x, variables["params"]["kernel"], stride=stride, padding="SAME")
    np.testing.assert_allclose(conv.apply(variables, x), expected, rtol=1e-4, atol=1e-5)


def test_a_convolution_in_bfloat16_has_float32_parameters():
    """The output is bfloat16 and near float32's; kernel and bias are float32."""
    x, _ = arrays(6, 3, 3, 4, depthwise=False)
    conv = layers.Conv(4, 3, use_bias=True, dtype="bfloat16")
    variables = conv.init(jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    found, exact = conv.apply(variables, x), conv.clone(dtype="float32").apply(variables, x)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), exact, atol=0.05)


@pytest.mark.parametrize(("size", "stride", "padding"), [(3, 2, 1), (3, 2, 0), (2, 2, 0)])
@pytest.mark.parametrize("side", [5, 6, 13])
def test_max_pool_and_its_gradient_are_flaxs(size, stride, padding, side):
    """Pooling and gradients equal Flax's, with and without padding (without ties, where gradients may differ)."""
    x = np.random.default_rng(0).permutation(2 * side * side * 3).reshape(2, side, side, 3).astype(np.float32) - 1000
    plain = lambda x: nn.max_pool(x, (size, size), (stride, stride), ((padding, padding),) * 2)  # noqa: E731
    ours = lambda x: layers.max_pool(x, size=size, stride=stride, padding=padding)  # noqa: E731
    np.testing.assert_array_equal(ours(x), plain(x))
    for a, b in zip(*(jax.grad(lambda x, f=f: jnp.sum(jnp.sin(f(x))))(x)[None] for f in (ours, plain)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@settings(max_examples=12)
@given(height=st.integers(1, 20), width=st.integers(1, 20), side=st.integers(1, 8))
def test_adaptive_mean_pool_is_the_mean_of_each_window(height, width, side):
    """Means equal a double loop over windows with torch's bounds, also for images smaller than the result."""
    x = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)
    found = layers.adaptive_mean_pool(x, side)
    for i in range(side):
        for j in range(side):
            top, bottom = int(np.floor(i * height / side)), int(np.ceil((i + 1) * height / side))
            left, right = int(np.floor(j * width / side)), int(np.ceil((j + 1) * width / side))
            np.testing.assert_allclose(found[:, i, j], x[:, top:bottom, left:right].mean(axis=(1, 2)), rtol=1e-4, atol=1e-5)
