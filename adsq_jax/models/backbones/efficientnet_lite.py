"""EfficientNet-Lite: EfficientNet without squeeze-and-excitation, with ReLU6, for phones and CPUs."""

from collections.abc import Sequence

import flax.linen as nn
import jax

from adsq_jax.models.layers import Layers, global_mean_pool

# Stages of Lite0: kernel size, stride of the first block, expansion, channels, number of blocks.
LITE0 = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
# Lite1 has 1.1 times the blocks, rounded up, but for the first and the last stage.
LITE1 = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 3),
    (5, 2, 6, 40, 3),
    (3, 2, 6, 80, 4),
    (5, 1, 6, 112, 4),
    (5, 2, 6, 192, 5),
    (3, 1, 6, 320, 1),
)
# Lite2 has 1.2 times the blocks, likewise, and 1.1 times the channels, in the nearest multiple of 8; stem and features stay.
LITE2 = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 3),
    (5, 2, 6, 48, 3),
    (3, 2, 6, 88, 4),
    (5, 1, 6, 120, 4),
    (5, 2, 6, 208, 5),
    (3, 1, 6, 352, 1),
)
_EPSILON = 1e-3  # of the published weights, which were trained in TensorFlow


class EfficientNetLite(nn.Module):
    """A stem, stages of inverted residual blocks, and the mean of a 1x1 convolution over the image.

    Padding is TensorFlow's, as the published weights expect: on an even side, stride 2 pads only behind.
    Source: Tan and Le, EfficientNet, ICML 2019 (section 3.3 scales it); Liu, Higher accuracy on vision models with
    EfficientNet-Lite, TensorFlow Blog 2020.
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
