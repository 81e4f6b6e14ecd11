"""Layers of the published backbones: convolution, pooling and normalisation of images [batch, h, w, channels].

On a CPU, XLA calls a fast library for some convolutions and is tens of times slower for others: depthwise ones, and images of a
few pixels. There a convolution is written as a sum over the kernel's pixels, or as one matrix product; everywhere else XLA's is
used. `benchmarks/speed/backbones.py --layers` measures both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

BATCH_NORMS = ("global", "frozen")
DTYPES = ("float32", "bfloat16")
Padding = tuple[tuple[int, int], tuple[int, int]]  # (top, bottom), (left, right)
_FEW_PIXELS = 16  # of the output; up to this many, XLA's convolution is slower on a CPU


@dataclass(frozen=True)
class Layers:
    """Settings that all layers of a backbone share, and the layers made with them."""

    dtype: str = "float32"  # of activations; parameters and statistics are float32
    batch_norm: str = "global"  # training: statistics of the batch over all devices; "frozen": the running averages, unchanged
    axis_name: str | None = None  # the mapped axis of devices; None: one device
    dropout: float = 0.0  # training: the fraction of a fully-connected layer's units that are dropped, in AlexNet and VGG

    def norm(self, *, train: bool, epsilon: float = 1e-5, name: str | None = None, **options: object) -> "BatchNorm":
        """Return batch normalisation; each training step moves the running averages by a tenth of the difference."""
        return BatchNorm(
            use_running_average=not train or self.batch_norm == "frozen",
            momentum=0.9,
            epsilon=epsilon,
            dtype="float32",
            output_dtype=self.dtype,
            axis_name=self.axis_name,
            name=name,
            **options,
        )

    def conv(self, features: int, size: int, stride: int = 1, *, name: str, **options: object) -> "Conv":
        """Return a convolution with a square kernel."""
        return Conv(features, size, stride, dtype=self.dtype, name=name, **options)

    def dense(self, features: int, *, name: str) -> nn.Dense:
        """Return a fully-connected layer."""
        return nn.Dense(features, dtype=self.dtype, name=name)

    def output(self, x: jax.Array, classes: int | None) -> jax.Array:
        """Return the features as float32[batch, n], or the logits of a classifier over them, float32[batch, classes]."""
        return (x if classes is None else self.dense(classes, name="classifier")(x)).astype(jnp.float32)


class BatchNorm(nn.BatchNorm):
    """Flax's batch normalisation, computed in float32 for any input dtype."""

    output_dtype: str = "float32"

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise the channels of float[batch, h, w, c]."""
        return super().__call__(x.astype(jnp.float32)).astype(self.output_dtype)


class LayerNorm(nn.LayerNorm):
    """Flax's layer normalisation, computed in float32 for any input dtype."""

    output_dtype: str = "float32"

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise the last axis."""
        return super().__call__(x.astype(jnp.float32)).astype(self.output_dtype)


class Conv(nn.Module):
    """A convolution, [batch, h, w, in] -> [batch, h', w', features]."""

    features: int
    size: int  # of the square kernel
    stride: int = 1
    padding: int | str = "half"  # zeros on each side; "half": size // 2; "same": TensorFlow's, which puts an odd one behind
    depthwise: bool = False  # one kernel for each channel; `features` is then the number of channels
    use_bias: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolve in `dtype`."""
        shape = (self.size, self.size, 1 if self.depthwise else x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
        y = convolve(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            stride=self.stride,
            padding=_padding(self.padding, x.shape[1:3], size=self.size, stride=self.stride),
        )
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return y + bias.astype(self.dtype)[None, None, None]


def _padding(padding: int | str, sides: Sequence[int], *, size: int, stride: int) -> Padding:
    if padding == "same":
        missing = [max(0, (-(-side // stride) - 1) * stride + size - side) for side in sides]
        return (missing[0] // 2, -(-missing[0] // 2)), (missing[1] // 2, -(-missing[1] // 2))
    width = size // 2 if padding == "half" else int(padding)
    return (width, width), (width, width)


def convolve(x: jax.Array, kernel: jax.Array, *, stride: int, padding: Padding) -> jax.Array:
    """Return the convolution (cross-correlation) in the way that is fastest on the platform.

    `x` is float[batch, h, w, in]; `kernel` float[size, size, in, out], or depthwise [size, size, 1, in]; the result
    float[batch, h', w', out] has x's dtype.
    """
    size, pixels = kernel.shape[0], 1  # pixels of the output
    for side, (before, after) in zip(x.shape[1:3], padding, strict=True):
        pixels *= (side + before + after - size) // stride + 1
    plain = partial(_convolve_by_xla, stride=stride, padding=padding)
    if kernel.shape[2] == 1 and x.shape[3] > 1:
        on_cpu = partial(_convolve_by_channel, stride=stride, padding=padding)
    elif size == 1 or pixels <= _FEW_PIXELS:
        on_cpu = partial(_convolve_by_matrix, stride=stride, padding=padding)
    else:
        return plain(x, kernel)
    return jax.lax.platform_dependent(x, kernel, cpu=on_cpu, default=plain)


def _convolve_by_xla(x: jax.Array, kernel: jax.Array, *, stride: int, padding: Padding) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[3] // kernel.shape[2],
    )


def _convolve_by_channel(x: jax.Array, kernel: jax.Array, *, stride: int, padding: Padding) -> jax.Array:
    size = kernel.shape[0]
    weights = kernel.reshape(size * size, 1, 1, 1, -1)  # [size * size, 1, 1, 1, c]
    windows = _windows(x, size=size, stride=stride, padding=padding)
    return sum((window * weight for window, weight in zip(windows[1:], weights[1:], strict=True)), windows[0] * weights[0])


def _convolve_by_matrix(x: jax.Array, kernel: jax.Array, *, stride: int, padding: Padding) -> jax.Array:
    windows = _windows(x, size=kernel.shape[0], stride=stride, padding=padding)
    patches = jnp.concatenate(windows, axis=-1)  # [batch, h', w', size * size * in]
    return jnp.tensordot(patches, kernel.reshape(patches.shape[3], -1), axes=1)


def _windows(x: jax.Array, *, size: int, stride: int, padding: Padding) -> list[jax.Array]:
    """Return the inputs of each pixel of a kernel: size * size arrays [batch, h', w', c]."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    return [window for rows in _slices(x, 1, size=size, stride=stride) for window in _slices(rows, 2, size=size, stride=stride)]


def _slices(x: jax.Array, axis: int, *, size: int, stride: int) -> list[jax.Array]:
    """Return the inputs of each of a kernel's `size` positions along one axis, which is padded already."""
    room = x.shape[axis] - size
    stop = room - room % stride + 1  # past the first pixel of the last window
    return [jax.lax.slice_in_dim(x, k, k + stop, stride, axis) for k in range(size)]


def max_pool(x: jax.Array, *, size: int, stride: int, padding: int = 0) -> jax.Array:
    """Return the maxima of square windows, [batch, h, w, c] -> [batch, h', w', c]; incomplete windows are left out."""
    around = ((padding, padding), (padding, padding))
    plain = partial(nn.max_pool, window_shape=(size, size), strides=(stride, stride), padding=around)

    def on_cpu(x: jax.Array) -> jax.Array:
        # rows, then columns: with all windows at once the gradient took five times as long, a tenth of ResNet-18's step
        x = jnp.pad(x, ((0, 0), *around, (0, 0)), constant_values=-np.inf)
        for axis in (1, 2):
            x = reduce(jnp.maximum, _slices(x, axis, size=size, stride=stride))
        return x

    return jax.lax.platform_dependent(x, cpu=on_cpu, default=plain)


def adaptive_mean_pool(x: jax.Array, side: int) -> jax.Array:
    """Return the means of side x side windows that cover the image evenly, [batch, h, w, c] -> [batch, side, side, c].

    Along a height h, window k goes from floor(k h / side) to ceil((k + 1) h / side), as in torch's AdaptiveAvgPool2d.
    """
    rows, columns = (jnp.asarray(_window_weights(length, side), x.dtype) for length in x.shape[1:3])
    return jnp.einsum("ih,bhwc,jw->bijc", rows, x, columns)


def _window_weights(length: int, windows: int) -> np.ndarray:
    weights = np.zeros((windows, length))
    for k in range(windows):
        start, stop = k * length // windows, -(-(k + 1) * length // windows)
        weights[k, start:stop] = 1 / (stop - start)
    return weights


def global_mean_pool(x: jax.Array) -> jax.Array:
    """Return the mean over the image, [batch, h, w, c] -> float32[batch, c]."""
    return jnp.mean(x.astype(jnp.float32), axis=(1, 2))
