"""EfficientNet-Lite: EfficientNet without squeeze-and-excitation, with ReLU6, for phones and CPUs."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax

from adsq_jax.models.layers import Layers, global_mean_pool

Stages = tuple[tuple[int, int, int, int, int], ...]  # kernel size, stride of the first block, expansion, channels, blocks


def scaled(stages: Stages, *, width: float, depth: float) -> Stages:
    """Scale a network's stages as EfficientNet-Lite is scaled.

    Channels become the nearest multiple of 8, the next one if that is more than a tenth below; numbers of blocks are rounded
    up. The number of blocks of the first and last stage stays, as do the stem and the features (fields of the module).

    Args:
      stages: of the smallest network.
      width: the factor on channels.
      depth: the factor on the number of blocks.

    Returns:
      The stages of the larger network.

    Source: Tan and Le, EfficientNet, ICML 2019, section 3.3; the rounding is that of the authors' code, and what isn't scaled
    that of EfficientNet-Lite's (tensorflow/tpu, models/official/efficientnet/lite).
    """
    last = len(stages) - 1
    return tuple(
        (size, stride, expansion, _multiple_of_8(width * channels), blocks if k in (0, last) else math.ceil(depth * blocks))
        for k, (size, stride, expansion, channels, blocks) in enumerate(stages)
    )


def _multiple_of_8(channels: float) -> int:
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


LITE0: Stages = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
# Widths and depths of the authors' lite1 and lite2, multiples of Lite0's.
LITE1 = scaled(LITE0, width=1.0, depth=1.1)
LITE2 = scaled(LITE0, width=1.1, depth=1.2)
_EPSILON = 1e-3  # of the published weights, which were trained in TensorFlow


class EfficientNetLite(nn.Module):
    """A stem, stages of inverted residual blocks, and the mean of a 1x1 convolution over the image.

    Padding is TensorFlow's, as the published weights expect: on an even side, stride 2 pads only behind.
    Source: Tan and Le, EfficientNet, ICML 2019; Liu, Higher accuracy on vision models with EfficientNet-Lite, TensorFlow Blog
    2020.
    """

    stages: Sequence[tuple[int, int, int, int, int]]  # like LITE0
    stem: int = 32  # channels of the first convolution
    width: int = 1280  # features
    layers: Layers = Layers()
    classes: int | None = None  # of the published classifier; None: return the features

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Map float32[batch, h, w, 3] to features float32[batch, width], or logits float32[batch, classes]."""
        x = self.layers.conv(self.stem, 3, 2, padding="same", name="stem")(x)
        x = nn.relu6(self.layers.norm(train=train, epsilon=_EPSILON, name="stem_norm")(x))
        number = 0
        for size, first_stride, expansion, channels, blocks in self.stages:
            for block in range(blocks):
                stride = first_stride if block == 0 else 1
                x = _Block(size, stride, expansion, channels, self.layers, name=f"block{number}")(x, train=train)
                number += 1
        x = self.layers.conv(self.width, 1, name="head")(x)
        x = nn.relu6(self.layers.norm(train=train, epsilon=_EPSILON, name="head_norm")(x))
        return self.layers.output(global_mean_pool(x), self.classes)


class _Block(nn.Module):
    size: int
    stride: int
    expansion: int
    channels: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        conv, inner, y = self.layers.conv, self.expansion * x.shape[-1], x
        if self.expansion > 1:
            y = conv(inner, 1, name="expand")(y)
            y = nn.relu6(self.layers.norm(train=train, epsilon=_EPSILON, name="expand_norm")(y))
        y = conv(inner, self.size, self.stride, padding="same", depthwise=True, name="depthwise")(y)
        y = nn.relu6(self.layers.norm(train=train, epsilon=_EPSILON, name="depthwise_norm")(y))
        y = conv(self.channels, 1, name="project")(y)
        y = self.layers.norm(train=train, epsilon=_EPSILON, name="project_norm")(y)
        return x + y if x.shape == y.shape else y
