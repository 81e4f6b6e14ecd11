"""Backbones by name, one file each: modules that map images float32[batch, h, w, 3] to features float32[batch, n].

To add one, write its module beside the others and give it a line in `_PUBLISHED`.
"""

from typing import Any, NamedTuple

import flax.linen as nn

from adsq_jax.errors import InputError, nearest_name
from adsq_jax.models.backbones.alexnet import AlexNet
from adsq_jax.models.backbones.efficientnet_lite import LITE0, LITE1, LITE2, EfficientNetLite
from adsq_jax.models.backbones.resnet import ResNet
from adsq_jax.models.backbones.small_cnn import SmallCNN
from adsq_jax.models.backbones.vgg import VGG
from adsq_jax.models.backbones.vit import ViT
from adsq_jax.models.layers import Layers


class _Published(NamedTuple):
    """A backbone in its published size."""

    module: type[nn.Module]
    sizes: dict[str, Any]  # the module's fields
    min_side: int = 1  # pixels of the smallest image
    side_multiple: int = 1
    any_width: bool = False  # whether `width` may differ from the published one
    has_dropout: bool = False  # whether `Layers.dropout` has an effect
    options: tuple[str, ...] = ()  # the module's switches that the layout of pretrained weights sets


_PUBLISHED = {
    "small_cnn": _Published(SmallCNN, {"width": 32}, any_width=True),
    "alexnet": _Published(AlexNet, {}, min_side=63, has_dropout=True),
    "vgg16": _Published(VGG, {"stages": ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))}, min_side=32, has_dropout=True),
    "resnet18": _Published(ResNet, {"stages": (2, 2, 2, 2), "bottleneck": False, "width": 64}, any_width=True),
    "resnet50": _Published(ResNet, {"stages": (3, 4, 6, 3), "bottleneck": True, "width": 64}, any_width=True),
    "efficientnet_lite0": _Published(EfficientNetLite, {"stages": LITE0}),
    "efficientnet_lite1": _Published(EfficientNetLite, {"stages": LITE1}),
    "efficientnet_lite2": _Published(EfficientNetLite, {"stages": LITE2}),
    "vit_b16": _Published(
        ViT,
        {"patch": 16, "width": 768, "depth": 12, "heads": 12, "hidden": 3072},
        min_side=16,
        side_multiple=16,
        options=("approximate_gelu",),
    ),
}
NAMES = tuple(_PUBLISHED)  # names of the backbones that `models.build` knows
WITH_DROPOUT = tuple(name for name, published in _PUBLISHED.items() if published.has_dropout)


def build(name: str, *, width: int, layers: Layers, **options: Any) -> nn.Module:
    """Build a backbone.

    Args:
      name: one of NAMES.
      width: channels of the first stage, for small_cnn and ResNets; 0: as published, the only choice for the others.
      layers: settings of its layers.
      **options: `classes`, for logits of the published classifier instead of features; for vit_b16 `approximate_gelu`.

    Returns:
      The module.

    Raises:
      InputError: the backbone doesn't exist, or has no such width.
    """
    published = _find(name)
    sizes = {**published.sizes, **options}
    if width:
        if not published.any_width:
            raise InputError(f"{name} has one width: give 0, not {width}")
        sizes["width"] = width
    return published.module(**sizes, layers=layers)


def check_side(name: str, side: int) -> None:
    """Raise InputError if a backbone can't take images of side x side pixels, or doesn't exist."""
    published = _find(name)
    if side < published.min_side:
        raise InputError(f"{name} takes images of {published.min_side}x{published.min_side} pixels and more, not {side}x{side}")
    if side % published.side_multiple:
        raise InputError(f"{name} takes images whose side is a multiple of {published.side_multiple} pixels, not {side}x{side}")


def check_options(name: str, options: Any) -> None:
    """Raise InputError unless `options` are switches of a backbone, as a trained model keeps them; others may cost anything."""
    known = _find(name).options
    if not isinstance(options, dict) or not all(key in known and isinstance(value, bool) for key, value in options.items()):
        expected = f"{' and '.join(known)}, true or false" if known else "none"
        raise InputError(f"expected options of {name}: {expected}; got {options!r:.100}")


def _find(name: str) -> _Published:
    if not isinstance(name, str) or name not in _PUBLISHED:
        near = nearest_name(name, NAMES)
        hint = "" if near is None else f" (did you mean {near}?)"
        raise InputError(f"no backbone named {name!r}{hint}: choose one of {', '.join(NAMES)}")
    return _PUBLISHED[name]
