"""A small convolutional network for small images, chosen for speed on a CPU."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp


class SmallCNN(nn.Module):
    """Two convolutions of stride 2, a residual block at a quarter of the resolution, then each channel's mean and maximum.

    On a CPU, more passes over the data with few operations an image beat fewer passes at a higher resolution.
    Source: this project; the block is He et al.'s, CVPR 2016.
    """

    width: int
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """float32[batch, h, w, 3] -> float32[batch, 8 * width]."""
        conv = partial(nn.Conv, use_bias=False)
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, axis_name=self.axis_name)
        x = nn.relu(norm()(conv(self.width, (5, 5), (2, 2))(x)))  # [batch, h / 2, w / 2, width]
        x = nn.relu(norm()(conv(2 * self.width, (3, 3), (2, 2))(x)))  # [batch, h / 4, w / 4, 2 width]
        y = nn.relu(norm()(conv(4 * self.width, (3, 3))(x)))
        y = norm()(conv(4 * self.width, (3, 3))(y))
        x = nn.relu(y + norm()(conv(4 * self.width, (1, 1))(x)))  # [batch, h / 4, w / 4, 4 width]
        return jnp.concatenate([jnp.mean(x, axis=(1, 2)), jnp.max(x, axis=(1, 2))], axis=-1)
