"""A small convolutional network for small images, chosen for speed on a CPU."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from adsq_jax.models.layers import Layers


class SmallCNN(nn.Module):
    """Two convolutions of stride 2, a residual block at a quarter of the resolution, then each channel's mean and maximum.

    On a CPU, more epochs of a cheap network beat fewer epochs at a higher resolution.
    Source: this project; the block is He et al.'s, CVPR 2016.
    """

    width: int  # channels of the first convolution
    layers: Layers = Layers()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Map float32[batch, h, w, 3] to features float32[batch, 8 * width]."""
        conv = partial(nn.Conv, use_bias=False, dtype=self.layers.dtype)
        norm = partial(self.layers.norm, train=train)
        x = nn.relu(norm()(conv(self.width, (5, 5), (2, 2))(x)))  # [batch, h / 2, w / 2, width]
        x = nn.relu(norm()(conv(2 * self.width, (3, 3), (2, 2))(x)))  # [batch, h / 4, w / 4, 2 width]
        y = nn.relu(norm()(conv(4 * self.width, (3, 3))(x)))
        y = norm()(conv(4 * self.width, (3, 3))(y))
        x = nn.relu(y + norm()(conv(4 * self.width, (1, 1))(x)))  # [batch, h / 4, w / 4, 4 width]
        return jnp.concatenate([jnp.mean(x, axis=(1, 2)), jnp.max(x, axis=(1, 2))], axis=-1).astype(jnp.float32)
