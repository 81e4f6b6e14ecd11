"""Pretrained weights by name: which array of a file becomes which parameter of a backbone.

One table a file's layout. To read another, add its rules below: each takes a pattern of the file's names to a layer of the
backbone.
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
Turn = Callable[[str, np.ndarray], Arrays]  # a leaf's name and its array in the file, to leaves of the layer
Rule = tuple[str, str, Turn]  # a pattern of layers in the file, the layer in the backbone, and what becomes of its arrays

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's, of channels in [0, 1]
_HALF = (0.5, 0.5, 0.5)


class Layout(NamedTuple):
    """How a published file names its arrays, and what its network expects."""

    name: str  # for people
    rules: tuple[Rule, ...]
    separator: str = "."  # between a layer and its arrays
    mean: tuple[float, ...] = IMAGENET_MEAN  # of the images that it was trained with
    deviation: tuple[float, ...] = IMAGENET_DEVIATION
    options: Mapping[str, Any] = {}  # for `backbones.build`


class Placed(NamedTuple):
    """A backbone's variables out of a file, and an account of them."""

    variables: dict[str, Any]  # {"params": ..., "batch_stats": ...}, float32
    loaded: list[str]  # names in the file
    skipped: list[str]  # names in the file that the backbone has no use for: the classifier, torch's counters


def _layer(leaf: str, array: np.ndarray) -> Arrays:
    """A convolution or a fully-connected layer of torch: outputs first there, last here."""
    if leaf == "weight":
        return {"kernel": array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T}
    return {leaf: array}


def _norm(leaf: str, array: np.ndarray) -> Arrays:
    names = {"weight": "scale", "running_mean": "mean", "running_var": "var"}
    return {} if leaf == "num_batches_tracked" else {names.get(leaf, leaf): array}


def _flat(side: int) -> Turn:
    """The first fully-connected layer of torch, over an image of channels that is flattened channel by channel."""

    def turn(leaf: str, array: np.ndarray) -> Arrays:
        if leaf != "weight":
            return {leaf: array}
        image = array.reshape(len(array), -1, side, side)
        return {"kernel": image.transpose(2, 3, 1, 0).reshape(-1, len(array))}

    return turn


def _point(leaf: str, array: np.ndarray) -> Arrays:
    """A 1x1 convolution that stands for a fully-connected layer."""
    return {"kernel": array.reshape(len(array), -1).T} if leaf == "weight" else {leaf: array}


def _attention(leaf: str, array: np.ndarray) -> Arrays:
    """Query, key and value in one layer of torch."""
    leaf = leaf.removeprefix("in_proj_")
    parts = zip(("query", "key", "value"), np.split(array, 3), strict=True)
    return {f"{name}/{key}": x for name, part in parts for key, x in _layer(leaf, part).items()}


def _same(leaf: str, array: np.ndarray) -> Arrays:
    """Arrays that are named and shaped here as there."""
    return {leaf: array}


def _itself(leaf: str, array: np.ndarray) -> Arrays:
    """An array without a layer: the rule's pattern is its whole name."""
    return {"": array}


def _heads_in(leaf: str, array: np.ndarray) -> Arrays:
    """Of each head its own output axis, in Flax's attention: [width, heads, d] or [heads, d]."""
    return {leaf: array.reshape(len(array), -1) if leaf == "kernel" else array.reshape(-1)}


def _heads_out(leaf: str, array: np.ndarray) -> Arrays:
    """The same on the way out: [heads, d, width]."""
    return {leaf: array.reshape(-1, array.shape[-1]) if leaf == "kernel" else array}


def _numbered(pattern: str, layers: Mapping[int, str], turn: Turn = _layer) -> tuple[Rule, ...]:
    return tuple((pattern.format(number), layer, turn) for number, layer in layers.items())


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
        (r"classifier\.1", "fc6", _flat(6)),
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
    (*_VGG16_FEATURES, (r"classifier\.0", "fc6", _flat(7)), *_numbered(r"classifier\.{}", {3: "fc7", 6: "classifier"})),
)
_VGG16_TIMM = Layout(
    "timm",
    (
        *_VGG16_FEATURES,
        (r"pre_logits\.fc1", "fc6", _flat(7)),
        (r"pre_logits\.fc2", "fc7", _point),
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
    """EfficientNet's blocks, which timm counts within each stage; the first stage's have no expansion."""
    rules: list[Rule] = []
    number = 0
    for stage, (_, _, expansion, _, blocks) in enumerate(LITE0):
        names = ("expand", "depthwise", "project") if expansion > 1 else ("depthwise", "project")
        convs = ("conv_pw", "conv_dw", "conv_pwl") if expansion > 1 else ("conv_dw", "conv_pw")
        for block in range(blocks):
            for place, (name, conv) in enumerate(zip(names, convs, strict=True), start=1):
                rules.append((rf"blocks\.{stage}\.{block}\.{conv}", f"block{number}/{name}", _layer))
                rules.append((rf"blocks\.{stage}\.{block}\.bn{place}", f"block{number}/{name}_norm", _norm))
            number += 1
    return tuple(rules)


_EFFICIENTNET_LITE_TIMM = Layout(
    "timm's tf_efficientnet_lite0",  # its efficientnet_lite0 has the same names, but another padding and epsilon
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
        (r"class_token", "class_token", _itself),
        (r"encoder\.pos_embedding", "positions", _itself),
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
        (r"cls_token", "class_token", _itself),
        (r"pos_embed", "positions", _itself),
        (r"blocks\.(\d+)\.norm(\d)", r"block\1/norm\2", _norm),
        (r"blocks\.(\d+)\.attn\.qkv", r"block\1", _attention),
        (r"blocks\.(\d+)\.attn\.proj", r"block\1/out", _layer),
        (r"blocks\.(\d+)\.mlp\.fc(\d)", r"block\1/mlp\2", _layer),
        (r"norm", "norm", _norm),
        (r"head", "classifier", _layer),
    ),
    mean=_HALF,  # of most of timm's ViTs, which were trained in JAX
    deviation=_HALF,
)
_BLOCK = r"(?:params/)?Transformer/encoderblock_(\d+)/"
_VIT_NPZ = Layout(
    "vision_transformer or big_vision",
    (
        (r"(?:params/)?embedding", "patches", _same),
        (r"(?:params/)?cls", "class_token", _itself),
        (r"(?:params/)?(?:Transformer/posembed_input/)?pos_embedding", "positions", _itself),
        (_BLOCK + "LayerNorm_0", r"block\1/norm1", _same),
        (_BLOCK + "LayerNorm_[12]", r"block\1/norm2", _same),
        (_BLOCK + r"MultiHeadDotProductAttention_\d/(query|key|value)", r"block\1/\2", _heads_in),
        (_BLOCK + r"MultiHeadDotProductAttention_\d/out", r"block\1/out", _heads_out),
        (_BLOCK + r"MlpBlock_\d/Dense_0", r"block\1/mlp1", _same),
        (_BLOCK + r"MlpBlock_\d/Dense_1", r"block\1/mlp2", _same),
        (r"(?:params/)?Transformer/encoder_norm", "norm", _same),
        (r"(?:params/)?head", "classifier", _same),
    ),
    separator="/",
    mean=_HALF,
    deviation=_HALF,
    options={"approximate_gelu": True},
)
NO_WEIGHTS = Layout("none", (), mean=_HALF, deviation=_HALF)  # of random weights, which expect nothing
LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "alexnet": (_ALEXNET,),
    "vgg16": (_VGG16, _VGG16_TIMM),
    "resnet18": (_RESNET,),
    "resnet50": (_RESNET,),
    "efficientnet_lite0": (_EFFICIENTNET_LITE, _EFFICIENTNET_LITE_TIMM),
    "vit_b16": (_VIT, _VIT_TIMM, _VIT_NPZ),
}


def find_layout(arrays: Mapping[str, np.ndarray], *, backbone: str, source: str) -> Layout:
    """The layout of a file.

    Args:
      arrays: the file's, by name.
      backbone: one of `backbones.NAMES`.
      source: the file, for messages.

    Returns:
      The layout of this backbone that knows all names.

    Raises:
      InputError: no weights are published for the backbone, or the file is of another network.
    """
    if backbone not in LAYOUTS:
        raise InputError(f"{backbone} has no pretrained weights: choose one of {', '.join(LAYOUTS)}, or leave them out")
    unknown = {layout.name: [name for name in arrays if _found(name, layout) is None] for layout in LAYOUTS[backbone]}
    layout = min(LAYOUTS[backbone], key=lambda layout: len(unknown[layout.name]))
    strange = unknown[layout.name]
    if strange:
        known = " / ".join(unknown)
        raise InputError(
            f"{source} isn't of {backbone}, or is named in another way than {known} name it: {strange[0][:200]!r}"
            f"{list(arrays[strange[0]].shape)} is unknown, one of {len(strange)} among {len(arrays)}: give the weights of this "
            "backbone, or another --config.model.backbone"
        )
    return layout


def place(arrays: Mapping[str, np.ndarray], *, layout: Layout, shapes: Mapping[str, Any], source: str) -> Placed:
    """Puts a file's arrays where a backbone has its parameters.

    A ViT's position embeddings of another image size are resized: bicubic, half-pixel centres, antialiased, as timm does it.

    Args:
      arrays: the file's, by name: floats.
      layout: from `find_layout`.
      shapes: the backbone's variables, or their shapes, {"params": ..., "batch_stats": ...}.
      source: the file, for messages.

    Returns:
      Variables of the same structure, and an account.

    Raises:
      InputError: a shape is another one, or a parameter is missing; the text names it, with both shapes.
    """
    wanted = {jax.tree_util.keystr(path, simple=True, separator="/"): x.shape for path, x in jax.tree.leaves_with_path(shapes)}
    found: dict[str, np.ndarray] = {}
    loaded: list[str] = []
    skipped: list[str] = []
    for name, array in arrays.items():
        places = _places(name, array, layout)
        (loaded if places.keys() & wanted.keys() else skipped).append(name)
        for where, x in places.items():
            if where in found or (where not in wanted and not re.fullmatch(r"params/classifier/(kernel|bias)", where)):
                raise InputError(
                    f"{source}: {name!r}{list(array.shape)} has no place in this backbone: give another --config.model.backbone"
                )
            if where in wanted:
                found[where] = _fitted(where, x, wanted[where], name=f"{name!r}{list(array.shape)}", source=source)
    missing = sorted(wanted.keys() - found.keys())
    if missing:
        raise InputError(
            f"{source} has nothing for {missing[0]!r}{list(wanted[missing[0]])}, one of {len(missing)} parameters without a "
            "value: give whole weights of this backbone"
        )
    paths, structure = jax.tree.flatten_with_path(shapes)
    leaves = [found[jax.tree_util.keystr(path, simple=True, separator="/")] for path, _ in paths]
    return Placed(jax.tree.unflatten(structure, leaves), loaded, skipped)


def _found(name: str, layout: Layout) -> tuple[str, str, Turn] | None:
    """The layer, the leaf and the turn of a name; None where no rule knows it."""
    head, _, leaf = name.rpartition(layout.separator)
    for pattern, layer, turn in layout.rules:
        match = re.fullmatch(pattern, name if turn is _itself else head)
        if match is not None:
            return match.expand(layer), leaf, turn
    return None


def _places(name: str, array: np.ndarray, layout: Layout) -> Arrays:
    """Paths in the backbone's variables, with the array for each."""
    known = _found(name, layout)
    assert known is not None  # find_layout has seen to it
    layer, leaf, turn = known
    try:
        turned = turn(leaf, array)
    except ValueError:  # its shape doesn't turn: it doesn't fit either, which is said where both shapes are known
        turned = {leaf: array}
    paths = {key: f"{layer}/{key}".removesuffix("/") for key in turned}
    return {f"{'batch_stats' if key in ('mean', 'var') else 'params'}/{path}": turned[key] for key, path in paths.items()}


def _fitted(where: str, array: np.ndarray, shape: tuple[int, ...], *, name: str, source: str) -> np.ndarray:
    if array.dtype.kind != "f":
        raise InputError(
            f"{source}: {name} has numbers of type {array.dtype}: give weights that are floats, not quantised ones"
        )
    if where == "params/positions" and array.ndim == 3 and array.shape[2] == shape[2] and array.shape != shape:
        array = _resized_positions(array, shape[1])
    if array.shape != shape:
        raise InputError(
            f"{source}: {name}, which makes {list(array.shape)} of {where!r}, and the backbone has {list(shape)} there: give "
            "the weights of this backbone in its published size, and leave --config.model.width at 0"
        )
    return np.ascontiguousarray(array, np.float32)


def _resized_positions(array: np.ndarray, tokens: int) -> np.ndarray:
    """Position embeddings [1, 1 + side * side, width] for another side; the class token's stays."""
    old, new = (round((count - 1) ** 0.5) for count in (array.shape[1], tokens))
    if 1 + old * old != array.shape[1]:
        return array
    grid = jnp.asarray(array[0, 1:].reshape(old, old, -1), jnp.float32)
    resized = np.asarray(jax.image.resize(grid, (new, new, grid.shape[2]), "bicubic", antialias=True))
    return np.concatenate([array[:, :1], resized.reshape(1, new * new, -1)], axis=1)
