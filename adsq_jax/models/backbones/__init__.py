"""Backbones by name; one file each. All map float32[batch, h, w, 3] to float32[batch, width]."""

import flax.linen as nn

from adsq_jax.models.backbones.resnet import ResNet
from adsq_jax.models.backbones.small_cnn import SmallCNN

NAMES = ("small_cnn", "resnet18", "resnet50")


def build(name: str, *, width: int, axis_name: str | None) -> nn.Module:
    """Builds a backbone.

    Args:
      name: one of NAMES.
      width: channels of the first stage; 64 is the published ResNet.
      axis_name: the mapped axis over which batch statistics are averaged, or None.

    Returns:
      The module.

    Raises:
      ValueError: no such backbone.
    """
    if name == "small_cnn":
        return SmallCNN(width=width, axis_name=axis_name)
    if name == "resnet18":
        return ResNet(stages=(2, 2, 2, 2), bottleneck=False, width=width, axis_name=axis_name)
    if name == "resnet50":
        return ResNet(stages=(3, 4, 6, 3), bottleneck=True, width=width, axis_name=axis_name)
    raise ValueError(f"no backbone named {name!r}: choose one of {', '.join(NAMES)}")
