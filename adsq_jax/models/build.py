"""The ImgNets of a config: built, and their trunk filled with pretrained weights."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from adsq_jax.models import backbones, pretrained, weight_files
from adsq_jax.models.img_net import ImgNet
from adsq_jax.models.layers import Layers


class Pretrained(NamedTuple):
    """A trunk's weights from a file."""

    variables: dict[str, Any]  # of the backbone: {"params": ..., "batch_stats": ...}, float32
    account: dict[str, Any]  # for result.json: where from, and what was loaded, skipped, and left at its initial value


def build(config: ConfigDict, *, bounded: bool, axis_name: str) -> tuple[ImgNet, Pretrained | None]:
    """Builds the ImgNet module, and reads its pretrained weights if there are any.

    Args:
      config: checked.
      bounded: whether relaxed codes go through tanh.
      axis_name: the mapped axis of devices.

    Returns:
      The module, and the weights of its backbone, or None where they start at random.

    Raises:
      InputError: the file of weights can't be read, or doesn't fit the backbone.
    """
    model = config.model
    layers = Layers(dtype=model.dtype, batch_norm=model.batch_norm, axis_name=axis_name, dropout=model.dropout)
    layout = pretrained.NONE
    if model.pretrained:
        file = weight_files.read(model.pretrained)
        layout = pretrained.layout_of(file.arrays, backbone=model.backbone, source=file.source)
    img_net = make_img_net(
        layers=layers,
        backbone=model.backbone,
        width=model.width,
        options=dict(layout.options),
        bits=config.bits,
        features=model.features,
        mean=tuple(model.mean) or layout.mean,
        deviation=tuple(model.deviation) or layout.deviation,
        bounded=bounded,
    )
    if not model.pretrained:
        return img_net, None
    backbone: Any = img_net.backbone
    images = jax.ShapeDtypeStruct((1, config.data.image_size, config.data.image_size, 3), jnp.float32)
    shapes = jax.eval_shape(lambda x: backbone.init(jax.random.key(0), x, train=False), images)
    placed = pretrained.place(file.arrays, layout=layout, shapes=shapes, source=file.source)
    account = {
        "source": file.source,
        "sha256": file.sha256,
        "layout": layout.name,
        "loaded": placed.loaded,
        "skipped": placed.skipped,
        "initial": ["semantic", "hash"],
        "n_loaded": sum(x.size for x in jax.tree.leaves(placed.variables)),
        "options": dict(layout.options),
        "mean": list(img_net.mean),
        "deviation": list(img_net.deviation),
    }
    return img_net, Pretrained(placed.variables, account)


def make_img_net(
    *,
    layers: Layers,
    backbone: str,
    width: int,
    options: dict[str, Any],
    bits: int,
    features: int,
    mean: Sequence[float],
    deviation: Sequence[float],
    bounded: bool,
) -> ImgNet:
    """Builds the ImgNet module of what a folder of a trained model says of it.

    Args:
      layers: how the backbone computes.
      backbone: its name.
      width: channels of its first stage; 0: as published.
      options: what the layout of its pretrained weights asks of it.
      bits: the code length.
      features: size of the semantic features.
      mean: of the images' three channels, in [0, 1].
      deviation: of the same.
      bounded: whether relaxed codes go through tanh.

    Returns:
      The module.
    """
    return ImgNet(
        backbone=backbones.build(backbone, width=width, layers=layers, **options),
        bits=bits,
        features=features,
        mean=tuple(mean),
        deviation=tuple(deviation),
        bounded=bounded,
    )


def format_account(account: dict[str, Any]) -> str:
    """A line for people on what became of a file of weights.

    Args:
      account: of `Pretrained`.

    Returns:
      For instance `weights.pth (torchvision): 20 arrays, 11,176,512 numbers loaded; skipped: fc.weight, fc.bias; at their ...`.
    """
    counters = [name for name in account["skipped"] if name.endswith("num_batches_tracked")]
    others = [name for name in account["skipped"] if name not in counters]
    skipped = ", ".join(others + ([f"{len(counters)} counters of batches"] if counters else [])) or "nothing"
    return (
        f"{account['source']} ({account['layout']}): {len(account['loaded'])} arrays, {account['n_loaded']:,} numbers loaded; "
        f"skipped: {skipped}; at their initial value: {', '.join(account['initial'])}"
    )
