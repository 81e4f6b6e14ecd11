"""VGG without batch normalisation."""

from collections.abc import Sequence

import flax.linen as nn
import jax

from adsq_jax.models.layers import Layers, adaptive_mean_pool, max_pool


class VGG(nn.Module):
    """Stages of 3x3 convolutions and two fully-connected layers.

    Source: Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015; the mean over
    7x7 windows, which allows image sizes other than 224, is torchvision's.
    """

    stages: Sequence[tuple[int, int]]  # number of convolutions, and their channels
    units: int = 4096  # of each fully-connected layer
    layers: Layers = Layers()
    classes: int | None = None  # of the published classifier; None: return the features

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Map float32[batch, h, w, 3] to features float32[batch, units], or logits float32[batch, classes]."""
        for stage, (convolutions, channels) in enumerate(self.stages, start=1):
            for number in range(1, convolutions + 1):
                x = nn.relu(self.layers.conv(channels, 3, use_bias=True, name=f"conv{stage}_{number}")(x))
            x = max_pool(x, size=2, stride=2)
        x = adaptive_mean_pool(x, 7)
        x = x.reshape(x.shape[0], -1)  # [batch, 7 * 7 * channels]
        for number in (6, 7):
            x = nn.relu(self.layers.dense(self.units, name=f"fc{number}")(x))
            x = nn.Dropout(self.layers.dropout, deterministic=not train, name=f"dropout{number}")(x)
        return self.layers.output(x, self.classes)
