"""Layers of the published backbones: convolution, pooling and norm, for images [batch, h, w, channels].

On a CPU, XLA has a library's convolution for some cases only, and loops that are tens of times slower for the others: a kernel
for each channel, and images of a few pixels. There a convolution is written as a sum over the places of its kernel, or as one
product of matrices; elsewhere it is XLA's own. `benchmarks/speed/backbones.py --layers` measures both.
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
Padding = tuple[tuple[int, int], tuple[int, int]]  # before and after, of height and of width
_FEW_PLACES = 16  # outputs of an image and channel, up to which XLA's convolution on a CPU is the slower one


@dataclass(frozen=True)
class Layers:
    """How the layers of a backbone compute, all of them alike."""

    dtype: str = "float32"  # of activations; parameters and statistics are float32
    batch_norm: str = (
        "global"  # training: statistics of the batch over all devices; or "frozen": the running averages, unchanged
    )
    axis_name: str | None = None  # the mapped axis of devices; None: there is one
    dropout: float = 0.0  # training: share of a fully-connected layer's units that are dropped, in AlexNet and VGG

    def norm(self, *, train: bool, epsilon: float = 1e-5, name: str | None = None, **options: object) -> "BatchNorm":
        """Batch normalisation; the running averages move by a tenth of the way."""
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
        """A convolution with a square kernel."""
        return Conv(features, size, stride, dtype=self.dtype, name=name, **options)

    def dense(self, features: int, *, name: str) -> nn.Dense:
        """A fully-connected layer."""
        return nn.Dense(features, dtype=self.dtype, name=name)

    def classified(self, x: jax.Array, classes: int | None) -> jax.Array:
        """What a backbone gives: its features, or of so many classes the published classifier's logits; float32[batch, n]."""
        return (x if classes is None else self.dense(classes, name="classifier")(x)).astype(jnp.float32)


class BatchNorm(nn.BatchNorm):
    """Flax's, computed in float32 whatever it is given."""

    output_dtype: str = "float32"

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises the channels, float[batch, h, w, c]."""
        return super().__call__(x.astype(jnp.float32)).astype(self.output_dtype)


class LayerNorm(nn.LayerNorm):
    """The same of each token, float[batch, tokens, c] or float[batch, c]."""

    output_dtype: str = "float32"

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises the last axis."""
        return super().__call__(x.astype(jnp.float32)).astype(self.output_dtype)


class Conv(nn.Module):
    """A convolution, [batch, h, w, in] -> [batch, h', w', features]."""

    features: int
    size: int  # of the square kernel
    stride: int = 1
    padding: int | str = "half"  # zeros on each side; "half": of the kernel; "same": TensorFlow's, the odd one behind
    depthwise: bool = False  # each channel has a kernel of its own; `features` is then their number
    use_bias: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves in `dtype`."""
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
    """The cross-correlation that deep learning calls convolution, in the way that is fastest on the platform.

    Args:
      x: float[batch, h, w, in].
      kernel: float[size, size, in, out]; or [size, size, 1, in], a kernel for each channel.
      stride: of height and width.
      padding: zeros around.

    Returns:
      float[batch, h', w', out], of x's dtype.
    """
    size, places = kernel.shape[0], 1
    for side, (before, after) in zip(x.shape[1:3], padding, strict=True):
        places *= (side + before + after - size) // stride + 1
    plain = partial(_convolve_by_xla, stride=stride, padding=padding)
    if kernel.shape[2] == 1 and x.shape[3] > 1:
        on_cpu = partial(_convolve_by_channel, stride=stride, padding=padding)
    elif size == 1 or places <= _FEW_PLACES:
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
    weights = kernel.reshape(size * size, 1, 1, 1, -1)  # [places, 1, 1, 1, c]
    windows = _windows(x, size=size, stride=stride, padding=padding)
    return sum((window * weight for window, weight in zip(windows[1:], weights[1:], strict=True)), windows[0] * weights[0])


def _convolve_by_matrix(x: jax.Array, kernel: jax.Array, *, stride: int, padding: Padding) -> jax.Array:
    windows = _windows(x, size=kernel.shape[0], stride=stride, padding=padding)
    patches = jnp.concatenate(windows, axis=-1)  # [batch, h', w', places * in]
    return jnp.tensordot(patches, kernel.reshape(patches.shape[3], -1), axes=1)


def _windows(x: jax.Array, *, size: int, stride: int, padding: Padding) -> list[jax.Array]:
    """What each place of a kernel sees: size * size arrays [batch, h', w', c]."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    return [window for rows in _lines(x, 1, size=size, stride=stride) for window in _lines(rows, 2, size=size, stride=stride)]


def _lines(x: jax.Array, axis: int, *, size: int, stride: int) -> list[jax.Array]:
    """The same along one axis, which has room for the padding already: size arrays."""
    room = x.shape[axis] - size
    stop = room - room % stride + 1  # past the first pixel of the last window
    return [jax.lax.slice_in_dim(x, k, k + stop, stride, axis) for k in range(size)]


def max_pool(x: jax.Array, *, size: int, stride: int, padding: int = 0) -> jax.Array:
    """The maximum of square windows, [batch, h, w, c] -> [batch, h', w', c]; what doesn't fill a window is left out."""
    around = ((padding, padding), (padding, padding))
    plain = partial(nn.max_pool, window_shape=(size, size), strides=(stride, stride), padding=around)

    def on_cpu(x: jax.Array) -> jax.Array:
        # rows, then columns: all windows at once took five times as long in the gradient, a tenth of ResNet-18's step
        x = jnp.pad(x, ((0, 0), *around, (0, 0)), constant_values=-np.inf)
        for axis in (1, 2):
            x = reduce(jnp.maximum, _lines(x, axis, size=size, stride=stride))
        return x

    return jax.lax.platform_dependent(x, cpu=on_cpu, default=plain)


def adaptive_mean_pool(x: jax.Array, side: int) -> jax.Array:
    """Means of side x side windows that cover the image evenly, [batch, h, w, c] -> [batch, side, side, c].

    Window k of a height h goes from floor(k h / side) to ceil((k + 1) h / side), as in torch's AdaptiveAvgPool2d.
    """
    rows, columns = (jnp.asarray(_shares(length, side), x.dtype) for length in x.shape[1:3])
    return jnp.einsum("ih,bhwc,jw->bijc", rows, x, columns)


def _shares(length: int, windows: int) -> np.ndarray:
    shares = np.zeros((windows, length))
    for k in range(windows):
        start, stop = k * length // windows, -(-(k + 1) * length // windows)
        shares[k, start:stop] = 1 / (stop - start)
    return shares


def global_mean_pool(x: jax.Array) -> jax.Array:
    """The mean over the image in float32, [batch, h, w, c] -> float32[batch, c]."""
    return jnp.mean(x.astype(jnp.float32), axis=(1, 2))
