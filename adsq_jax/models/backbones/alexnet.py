"""AlexNet, the version with one column."""

import flax.linen as nn
import jax

from adsq_jax.models.layers import Layers, adaptive_mean_pool, max_pool


class AlexNet(nn.Module):
    """Five convolutions and two fully-connected layers.

    Source: Krizhevsky, One weird trick for parallelizing convolutional neural networks, arXiv 1404.5997; the mean over 6x6
    windows, which allows image sizes other than 224, is torchvision's.
    """

    units: int = 4096  # of each fully-connected layer
    layers: Layers = Layers()
    classes: int | None = None  # of the published classifier; None: return the features

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Map float32[batch, h, w, 3] to features float32[batch, units], or logits float32[batch, classes]."""
        conv = self.layers.conv
        x = nn.relu(conv(64, 11, 4, padding=2, use_bias=True, name="conv1")(x))
        x = max_pool(x, size=3, stride=2)
        x = nn.relu(conv(192, 5, use_bias=True, name="conv2")(x))
        x = max_pool(x, size=3, stride=2)
        for number, channels in ((3, 384), (4, 256), (5, 256)):
            x = nn.relu(conv(channels, 3, use_bias=True, name=f"conv{number}")(x))
        x = adaptive_mean_pool(max_pool(x, size=3, stride=2), 6)
        x = x.reshape(x.shape[0], -1)  # [batch, 6 * 6 * 256]
        for number in (6, 7):
            x = nn.Dropout(self.layers.dropout, deterministic=not train, name=f"dropout{number}")(x)
            x = nn.relu(self.layers.dense(self.units, name=f"fc{number}")(x))
        return self.layers.output(x, self.classes)
