"""ResNet, version 1.5: a bottleneck has its stride in the 3x3 convolution."""

from collections.abc import Sequence

import flax.linen as nn
import jax

from adsq_jax.models.layers import Layers, global_mean_pool, max_pool


class ResNet(nn.Module):
    """A stem, stages of residual blocks, and the mean over the image; padding is the same on all sides, as in torchvision.

    Source: He et al., Deep Residual Learning for Image Recognition, CVPR 2016; the last norm of each block starts at 0 as in
    Goyal et al., arXiv 1706.02677.
    """

    stages: Sequence[int]  # number of blocks of each stage
    bottleneck: bool
    width: int  # channels of the first stage
    layers: Layers = Layers()
    classes: int | None = None  # of the published classifier; None: return the features

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Map float32[batch, h, w, 3] to features float32[batch, width], or logits float32[batch, classes]."""
        x = self.layers.conv(self.width, 7, 2, name="stem")(x)
        x = nn.relu(self.layers.norm(train=train, name="stem_norm")(x))
        x = max_pool(x, size=3, stride=2, padding=1)
        for stage, blocks in enumerate(self.stages):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                channels = self.width * 2**stage
                x = _Block(channels, stride, self.bottleneck, self.layers, name=f"stage{stage + 1}_block{block}")(
                    x, train=train
                )
        return self.layers.output(global_mean_pool(x), self.classes)


class _Block(nn.Module):
    channels: int
    stride: int
    bottleneck: bool
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        conv, out = self.layers.conv, self.channels * (4 if self.bottleneck else 1)
        steps: tuple[tuple[int, int, int], ...]  # channels, kernel, stride
        if self.bottleneck:
            steps = ((self.channels, 1, 1), (self.channels, 3, self.stride), (out, 1, 1))
        else:
            steps = ((self.channels, 3, self.stride), (out, 3, 1))
        y = x
        for number, (features, size, stride) in enumerate(steps, start=1):
            last = number == len(steps)
            y = conv(features, size, stride, name=f"conv{number}")(y)
            start = nn.initializers.zeros if last else nn.initializers.ones
            y = self.layers.norm(train=train, name=f"norm{number}", scale_init=start)(y)
            y = y if last else nn.relu(y)
        if x.shape != y.shape:
            x = self.layers.norm(train=train, name="shortcut_norm")(conv(out, 1, self.stride, name="shortcut")(x))
        return nn.relu(x + y)
