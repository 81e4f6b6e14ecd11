"""Pretrained weights by name: which array of a file becomes which parameter of a backbone.

Each file layout has a table of rules, which map a pattern of the file's names to a layer of the backbone. To read another
layout, add its table below.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adsq_jax.errors import InputError
from adsq_jax.models.backbones.efficientnet_lite import LITE0

Arrays = dict[str, np.ndarray]
Convert = Callable[[str, np.ndarray], Arrays]  # from an array's name within its layer, and the array, to those of the backbone
Rule = tuple[str, str, Convert]  # a pattern of the file's layer names, the backbone's layer, and the conversion of its arrays

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's, for channels in [0, 1]
_HALF = (0.5, 0.5, 0.5)


class Layout(NamedTuple):
    """The names of the arrays in a kind of published files, and the images that the weights expect."""

    name: str  # for messages
    rules: tuple[Rule, ...]
    separator: str = "."  # between the names of a layer and its array
    mean: tuple[float, ...] = IMAGENET_MEAN  # subtracted from the images in training
    deviation: tuple[float, ...] = IMAGENET_DEVIATION
    options: Mapping[str, Any] = {}  # further arguments of `backbones.build`


class Assigned(NamedTuple):
    """A backbone's variables from a file, and the names of the arrays that were and weren't used."""

    variables: dict[str, Any]  # {"params": ..., "batch_stats": ...}, float32
    loaded: list[str]
    skipped: list[str]  # arrays that the backbone doesn't need: the classifier, torch's counters of batches


def _layer(leaf: str, array: np.ndarray) -> Arrays:
    """Convert torch's convolution or fully-connected layer: outputs come first there and last here."""
    if leaf == "weight":
        return {"kernel": array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T}
    return {leaf: array}


def _norm(leaf: str, array: np.ndarray) -> Arrays:
    names = {"weight": "scale", "running_mean": "mean", "running_var": "var"}
    return {} if leaf == "num_batches_tracked" else {names.get(leaf, leaf): array}


def _flattened(side: int) -> Convert:
    """Convert torch's first fully-connected layer, whose input image is flattened channel by channel."""

    def convert(leaf: str, array: np.ndarray) -> Arrays:
        if leaf != "weight":
            return {leaf: array}
        image = array.reshape(len(array), -1, side, side)
        return {"kernel": image.transpose(2, 3, 1, 0).reshape(-1, len(array))}

    return convert


def _conv_1x1(leaf: str, array: np.ndarray) -> Arrays:
    """Convert a 1x1 convolution that stands for a fully-connected layer."""
    return {"kernel": array.reshape(len(array), -1).T} if leaf == "weight" else {leaf: array}


def _attention(leaf: str, array: np.ndarray) -> Arrays:
    """Convert torch's joint layer of query, key and value."""
    leaf = leaf.removeprefix("in_proj_")
    parts = zip(("query", "key", "value"), np.split(array, 3), strict=True)
    return {f"{name}/{key}": x for name, part in parts for key, x in _layer(leaf, part).items()}


def _unchanged(leaf: str, array: np.ndarray) -> Arrays:
    """Return an array that has the same name and shape in the file and in the backbone."""
    return {leaf: array}


def _single(leaf: str, array: np.ndarray) -> Arrays:
    """Return an array without a layer; the rule's pattern is its whole name."""
    return {"": array}


def _heads_in(leaf: str, array: np.ndarray) -> Arrays:
    """Join the heads of a projection into Flax's attention, [width, heads, d], or of its bias, [heads, d]."""
    return {leaf: array.reshape(len(array), -1) if leaf == "kernel" else array.reshape(-1)}


def _heads_out(leaf: str, array: np.ndarray) -> Arrays:
    """Join the heads of the projection out of Flax's attention, [heads, d, width]."""
    return {leaf: array.reshape(-1, array.shape[-1]) if leaf == "kernel" else array}


def _numbered(pattern: str, layers: Mapping[int, str], convert: Convert = _layer) -> tuple[Rule, ...]:
    return tuple((pattern.format(number), layer, convert) for number, layer in layers.items())


_RESNET = Layout(
    "torchvision or timm",
    (
        (r"conv1", "stem", _layer),
        (r"bn1", "stem_norm", _norm),
        (r"layer(\d)\.(\d+)\.conv(\d)", r"stage\1_block\2/conv\3", _layer),
        (r"layer(\d)\.(\d+)\.bn(\d)", r"stage\1_block\2/norm\3", _norm),
        (r"layer(\d)\.(\d+)\.downsample\.0", r"stage\1_block\2/shortcut", _layer),
        (r"layer(\d)\.(\d+)\.downsample\.1", r"stage\1_block\2/shortcut_norm", _norm),
        (r"fc", "classifier", _layer),
    ),
)
_ALEXNET = Layout(
    "torchvision",
    (
        *_numbered(r"features\.{}", {0: "conv1", 3: "conv2", 6: "conv3", 8: "conv4", 10: "conv5"}),
        (r"classifier\.1", "fc6", _flattened(6)),
        *_numbered(r"classifier\.{}", {4: "fc7", 6: "classifier"}),
    ),
)
_VGG16_FEATURES = _numbered(
    r"features\.{}",
    dict(
        zip(
            (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
            [f"conv{stage}_{k}" for stage, count in enumerate((2, 2, 3, 3, 3), start=1) for k in range(1, count + 1)],
            strict=True,
        )
    ),
)
_VGG16 = Layout(
    "torchvision",
    (*_VGG16_FEATURES, (r"classifier\.0", "fc6", _flattened(7)), *_numbered(r"classifier\.{}", {3: "fc7", 6: "classifier"})),
)
_VGG16_TIMM = Layout(
    "timm",
    (
        *_VGG16_FEATURES,
        (r"pre_logits\.fc1", "fc6", _flattened(7)),
        (r"pre_logits\.fc2", "fc7", _conv_1x1),
        (r"head\.fc", "classifier", _layer),
    ),
)
_EFFICIENTNET_LITE = Layout(
    "efficientnet_lite_pytorch",
    (
        (r"_conv_stem", "stem", _layer),
        (r"_bn0", "stem_norm", _norm),
        (r"_blocks\.(\d+)\._(expand|project|depthwise)_conv", r"block\1/\2", _layer),
        (r"_blocks\.(\d+)\._bn0", r"block\1/expand_norm", _norm),
        (r"_blocks\.(\d+)\._bn1", r"block\1/depthwise_norm", _norm),
        (r"_blocks\.(\d+)\._bn2", r"block\1/project_norm", _norm),
        (r"_conv_head", "head", _layer),
        (r"_bn1", "head_norm", _norm),
        (r"_fc", "classifier", _layer),
    ),
    mean=(127 / 255,) * 3,
    deviation=(128 / 255,) * 3,
)


def _timm_blocks() -> tuple[Rule, ...]:
    """Return the rules of EfficientNet's blocks, which timm counts within each stage; the first stage has no expansion."""
    rules: list[Rule] = []
    number = 0
    for stage, (_, _, expansion, _, blocks) in enumerate(LITE0):
        names = ("expand", "depthwise", "project") if expansion > 1 else ("depthwise", "project")
        convs = ("conv_pw", "conv_dw", "conv_pwl") if expansion > 1 else ("conv_dw", "conv_pw")
        for block in range(blocks):
            for k, (name, conv) in enumerate(zip(names, convs, strict=True), start=1):
                rules.append((rf"blocks\.{stage}\.{block}\.{conv}", f"block{number}/{name}", _layer))
                rules.append((rf"blocks\.{stage}\.{block}\.bn{k}", f"block{number}/{name}_norm", _norm))
            number += 1
    return tuple(rules)


_EFFICIENTNET_LITE_TIMM = Layout(
    "timm's tf_efficientnet_lite0",  # timm's efficientnet_lite0 has the same names but another padding and epsilon
    (
        (r"conv_stem", "stem", _layer),
        (r"bn1", "stem_norm", _norm),
        *_timm_blocks(),
        (r"conv_head", "head", _layer),
        (r"bn2", "head_norm", _norm),
        (r"classifier", "classifier", _layer),
    ),
    mean=_HALF,
    deviation=_HALF,
)
_VIT = Layout(
    "torchvision",
    (
        (r"conv_proj", "patches", _layer),
        (r"class_token", "class_token", _single),
        (r"encoder\.pos_embedding", "positions", _single),
        (r"encoder\.layers\.encoder_layer_(\d+)\.ln_(\d)", r"block\1/norm\2", _norm),
        (r"encoder\.layers\.encoder_layer_(\d+)\.self_attention", r"block\1", _attention),
        (r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.out_proj", r"block\1/out", _layer),
        (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:0|linear_1)", r"block\1/mlp1", _layer),
        (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:3|linear_2)", r"block\1/mlp2", _layer),
        (r"encoder\.ln", "norm", _norm),
        (r"heads\.head", "classifier", _layer),
    ),
)
_VIT_TIMM = Layout(
    "timm",
    (
        (r"patch_embed\.proj", "patches", _layer),
        (r"cls_token", "class_token", _single),
        (r"pos_embed", "positions", _single),
        (r"blocks\.(\d+)\.norm(\d)", r"block\1/norm\2", _norm),
        (r"blocks\.(\d+)\.attn\.qkv", r"block\1", _attention),
        (r"blocks\.(\d+)\.attn\.proj", r"block\1/out", _layer),
        (r"blocks\.(\d+)\.mlp\.fc(\d)", r"block\1/mlp\2", _layer),
        (r"norm", "norm", _norm),
        (r"head", "classifier", _layer),
    ),
    mean=_HALF,  # most of timm's ViTs were trained in JAX, with these
    deviation=_HALF,
)
_BLOCK = r"(?:params/)?Transformer/encoderblock_(\d+)/"
_VIT_NPZ = Layout(
    "vision_transformer or big_vision",
    (
        (r"(?:params/)?embedding", "patches", _unchanged),
        (r"(?:params/)?cls", "class_token", _single),
        (r"(?:params/)?(?:Transformer/posembed_input/)?pos_embedding", "positions", _single),
        (_BLOCK + "LayerNorm_0", r"block\1/norm1", _unchanged),
        (_BLOCK + "LayerNorm_[12]", r"block\1/norm2", _unchanged),
        (_BLOCK + r"MultiHeadDotProductAttention_\d/(query|key|value)", r"block\1/\2", _heads_in),
        (_BLOCK + r"MultiHeadDotProductAttention_\d/out", r"block\1/out", _heads_out),
        (_BLOCK + r"MlpBlock_\d/Dense_0", r"block\1/mlp1", _unchanged),
        (_BLOCK + r"MlpBlock_\d/Dense_1", r"block\1/mlp2", _unchanged),
        (r"(?:params/)?Transformer/encoder_norm", "norm", _unchanged),
        (r"(?:params/)?head", "classifier", _unchanged),
    ),
    separator="/",
    mean=_HALF,
    deviation=_HALF,
    options={"approximate_gelu": True},
)
NO_WEIGHTS = Layout("none", (), mean=_HALF, deviation=_HALF)  # for random weights
LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "alexnet": (_ALEXNET,),
    "vgg16": (_VGG16, _VGG16_TIMM),
    "resnet18": (_RESNET,),
    "resnet50": (_RESNET,),
    "efficientnet_lite0": (_EFFICIENTNET_LITE, _EFFICIENTNET_LITE_TIMM),
    "efficientnet_lite1": (_EFFICIENTNET_LITE,),
    "efficientnet_lite2": (_EFFICIENTNET_LITE,),
    "vit_b16": (_VIT, _VIT_TIMM, _VIT_NPZ),
}


def find_layout(arrays: Mapping[str, np.ndarray], *, backbone: str, source: str) -> Layout:
    """Return the backbone's layout that knows all names of a file's arrays; `source` names the file in messages.

    Raises:
      InputError: there are no published weights for the backbone, or the file is of another network.
    """
    if backbone not in LAYOUTS:
        raise InputError(f"{backbone} has no pretrained weights: choose one of {', '.join(LAYOUTS)}, or leave them out")
    unknown = {layout.name: [name for name in arrays if _match(name, layout) is None] for layout in LAYOUTS[backbone]}
    layout = min(LAYOUTS[backbone], key=lambda layout: len(unknown[layout.name]))
    if strange := unknown[layout.name]:
        raise InputError(
            f"{source} isn't of {backbone}, or its names aren't those of {' / '.join(unknown)}: {strange[0][:200]!r}"
            f"{list(arrays[strange[0]].shape)} is unknown, one of {len(strange)} among {len(arrays)}: give the weights of this "
            "backbone, or another --config.model.backbone"
        )
    return layout


def assign(arrays: Mapping[str, np.ndarray], *, layout: Layout, shapes: Mapping[str, Any], source: str) -> Assigned:
    """Convert a file's arrays to a backbone's variables.

    A ViT's position embeddings for another image size are resized: bicubic, half-pixel centres, antialiased, as in timm.

    Args:
      arrays: the file's arrays by name.
      layout: from `find_layout`.
      shapes: the backbone's variables, or their shapes: {"params": ..., "batch_stats": ...}.
      source: the file, for messages.

    Returns:
      Variables of the structure of `shapes`, and the names that were and weren't used.

    Raises:
      InputError: an array has another shape or none fits a parameter; the message names it, with both shapes.
    """
    expected = {_path(path): x.shape for path, x in jax.tree.leaves_with_path(shapes)}
    assigned: Arrays = {}
    loaded: list[str] = []
    skipped: list[str] = []
    for name, array in arrays.items():
        converted = _converted(name, array, layout)
        (loaded if converted.keys() & expected.keys() else skipped).append(name)
        for path, x in converted.items():
            if path in assigned or (path not in expected and not re.fullmatch(r"params/classifier/(kernel|bias)", path)):
                raise InputError(
                    f"{source}: {name!r}{list(array.shape)} fits no parameter of this backbone: give another "
                    "--config.model.backbone"
                )
            if path in expected:
                assigned[path] = _fitted(path, x, expected[path], name=f"{name!r}{list(array.shape)}", source=source)
    missing = sorted(expected.keys() - assigned.keys())
    if missing:
        raise InputError(
            f"{source} has nothing for {missing[0]!r}{list(expected[missing[0]])}, one of {len(missing)} parameters without a "
            "value: give complete weights of this backbone"
        )
    return Assigned(jax.tree.map_with_path(lambda path, _: assigned[_path(path)], shapes), loaded, skipped)


def _path(keys: Any) -> str:
    return jax.tree_util.keystr(keys, simple=True, separator="/")


def _match(name: str, layout: Layout) -> tuple[str, str, Convert] | None:
    """Return the backbone's layer for a name in a file, the array's name within it, and its conversion; None if unknown."""
    head, _, leaf = name.rpartition(layout.separator)
    for pattern, layer, convert in layout.rules:
        match = re.fullmatch(pattern, name if convert is _single else head)
        if match is not None:
            return match.expand(layer), leaf, convert
    return None


def _converted(name: str, array: np.ndarray, layout: Layout) -> Arrays:
    """Return the backbone's arrays that an array of a file becomes, by their path in the variables."""
    match = _match(name, layout)
    assert match is not None  # find_layout has checked it
    layer, leaf, convert = match
    try:
        converted = convert(leaf, array)
    except ValueError:  # its shape doesn't allow it: `_fitted` raises the error, where both shapes are known
        converted = {leaf: array}
    paths = {key: f"{layer}/{key}".removesuffix("/") for key in converted}
    return {f"{'batch_stats' if key in ('mean', 'var') else 'params'}/{path}": converted[key] for key, path in paths.items()}


def _fitted(path: str, array: np.ndarray, shape: tuple[int, ...], *, name: str, source: str) -> np.ndarray:
    if array.dtype.kind != "f":
        raise InputError(f"{source}: {name} has numbers of type {array.dtype}: give weights in floats, not quantised ones")
    if path == "params/positions" and array.ndim == 3 and array.shape[2] == shape[2] and array.shape != shape:
        array = _resized_positions(array, shape[1])
    if array.shape != shape:
        raise InputError(
            f"{source}: {name} becomes {list(array.shape)} for {path!r}, where the backbone has {list(shape)}: give weights "
            "of this backbone in its published size, and leave --config.model.width at 0"
        )
    return np.ascontiguousarray(array, np.float32)


def _resized_positions(array: np.ndarray, tokens: int) -> np.ndarray:
    """Resize position embeddings [1, 1 + side * side, width] to 1 + side * side = `tokens`; the class token's stays."""
    old, new = (round((count - 1) ** 0.5) for count in (array.shape[1], tokens))
    if 1 + old * old != array.shape[1]:
        return array
    grid = jnp.asarray(array[0, 1:].reshape(old, old, -1), jnp.float32)
    resized = np.asarray(jax.image.resize(grid, (new, new, grid.shape[2]), "bicubic", antialias=True))
    return np.concatenate([array[:, :1], resized.reshape(1, new * new, -1)], axis=1)
