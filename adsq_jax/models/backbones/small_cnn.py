"""A small convolutional network for small images, chosen for speed on a CPU."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp


class SmallCNN(nn.Module):
    """Five convolutions, at half and at a quarter of the image's resolution, then the mean and maximum of each channel.

    Full resolution costs XLA on a CPU more than it gives: the stem has a stride of 2. Source: this project.
    """

    width: int
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """float32[batch, h, w, 3] -> float32[batch, 8 * width]."""
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, axis_name=self.axis_name)
        layers = (
            (self.width, 5, 2),
            (2 * self.width, 3, 1),
            (2 * self.width, 3, 1),
            (4 * self.width, 3, 2),
            (4 * self.width, 3, 1),
        )
        for channels, kernel, stride in layers:
            x = nn.Conv(channels, (kernel, kernel), (stride, stride), use_bias=False)(x)
            x = nn.relu(norm()(x))  # [batch, h / 2 or h / 4, w / 2 or w / 4, channels]
        return jnp.concatenate([jnp.mean(x, axis=(1, 2)), jnp.max(x, axis=(1, 2))], axis=-1)
