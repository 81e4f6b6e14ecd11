"""ResNet, version 1.5: the stride of a bottleneck sits in its 3x3 convolution."""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp


class ResNet(nn.Module):
    """ResNet without its classifier; padding is the same on all sides, as published weights expect it.

    Source: He et al., Deep Residual Learning for Image Recognition, CVPR 2016; the last norm of each block starts at 0 as in
    Goyal et al., arXiv 1706.02677.
    """

    stages: Sequence[int]  # blocks of each stage
    bottleneck: bool
    width: int
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """float32[batch, h, w, 3] -> float32[batch, features]."""
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, axis_name=self.axis_name)
        x = nn.Conv(self.width, (7, 7), (2, 2), padding=[(3, 3), (3, 3)], use_bias=False, name="stem")(x)
        x = nn.relu(norm(name="stem_norm")(x))
        x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        for stage, blocks in enumerate(self.stages):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                x = _Block(self.width * 2**stage, stride, self.bottleneck, norm, name=f"stage{stage}_block{block}")(x)
        return jnp.mean(x, axis=(1, 2))  # [batch, features]


class _Block(nn.Module):
    channels: int
    stride: int
    bottleneck: bool
    norm: partial

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = partial(nn.Conv, use_bias=False)
        stride = (self.stride, self.stride)
        out = self.channels * (4 if self.bottleneck else 1)
        if self.bottleneck:
            y = nn.relu(self.norm()(conv(self.channels, (1, 1))(x)))
            y = nn.relu(self.norm()(conv(self.channels, (3, 3), stride, padding=1)(y)))
            y = conv(out, (1, 1))(y)
        else:
            y = nn.relu(self.norm()(conv(self.channels, (3, 3), stride, padding=1)(x)))
            y = conv(out, (3, 3))(y)
        y = self.norm(scale_init=nn.initializers.zeros)(y)
        if x.shape != y.shape:
            x = self.norm()(conv(out, (1, 1), stride)(x))
        return nn.relu(x + y)
