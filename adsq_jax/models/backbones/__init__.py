"""Backbones by name; one file each. All map float32[batch, h, w, 3] to float32[batch, width]."""

import difflib
from typing import Any, NamedTuple

import flax.linen as nn

from adsq_jax.errors import InputError
from adsq_jax.models.backbones.alexnet import AlexNet
from adsq_jax.models.backbones.efficientnet_lite import LITE0, EfficientNetLite
from adsq_jax.models.backbones.resnet import ResNet
from adsq_jax.models.backbones.small_cnn import SmallCNN
from adsq_jax.models.backbones.vgg import VGG
from adsq_jax.models.backbones.vit import ViT
from adsq_jax.models.layers import Layers


class _Published(NamedTuple):
    """A backbone in its published size."""

    module: type[nn.Module]
    sizes: dict[str, Any]  # the module's fields
    least: int = 1  # pixels a side of the smallest image
    multiple: int = 1  # of which a side must be
    any_width: bool = False  # whether `width` may be another than the published one
    drops: bool = False  # whether `Layers.dropout` does anything


_PUBLISHED = {
    "small_cnn": _Published(SmallCNN, {"width": 32}, any_width=True),
    "alexnet": _Published(AlexNet, {}, least=63, drops=True),
    "vgg16": _Published(VGG, {"stages": ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))}, least=32, drops=True),
    "resnet18": _Published(ResNet, {"stages": (2, 2, 2, 2), "bottleneck": False, "width": 64}, any_width=True),
    "resnet50": _Published(ResNet, {"stages": (3, 4, 6, 3), "bottleneck": True, "width": 64}, any_width=True),
    "efficientnet_lite0": _Published(EfficientNetLite, {"stages": LITE0}),
    "vit_b16": _Published(ViT, {"patch": 16, "width": 768, "depth": 12, "heads": 12, "hidden": 3072}, least=16, multiple=16),
}
NAMES = tuple(_PUBLISHED)
WITH_DROPOUT = tuple(name for name, published in _PUBLISHED.items() if published.drops)


def build(name: str, *, width: int, layers: Layers, **options: Any) -> nn.Module:
    """Builds a backbone.

    Args:
      name: one of NAMES.
      width: channels of the first stage, of small_cnn and ResNets; 0 for the published number, which the others always have.
      layers: how its layers compute.
      **options: `classes`, to have the published classifier's logits; of vit_b16 `approximate_gelu`.

    Returns:
      The module.

    Raises:
      InputError: no such backbone, or one that has no other width.
    """
    published = _found(name)
    sizes = {**published.sizes, **options}
    if width:
        if not published.any_width:
            raise InputError(f"{name} has one width: give 0, not {width}")
        sizes["width"] = width
    return published.module(**sizes, layers=layers)


def check_side(name: str, side: int) -> None:
    """Says whether a backbone takes images of a size.

    Args:
      name: one of NAMES.
      side: pixels.

    Raises:
      InputError: it doesn't, or there is no such backbone.
    """
    published = _found(name)
    if side < published.least:
        raise InputError(f"{name} takes images of {published.least}x{published.least} pixels and more, not {side}x{side}")
    if side % published.multiple:
        raise InputError(f"{name} takes images whose side is a multiple of {published.multiple} pixels, not {side}x{side}")


def _found(name: str) -> _Published:
    if not isinstance(name, str) or name not in _PUBLISHED:
        near = difflib.get_close_matches(str(name), NAMES, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise InputError(f"no backbone named {name!r}{hint}: choose one of {', '.join(NAMES)}")
    return _PUBLISHED[name]
