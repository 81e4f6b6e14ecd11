"""Weights and images by a seeded rule, for the comparison with the models that `make.py` runs.

Each weight follows from its name and shape alone, so that the test makes the same set as `make.py` without PyTorch:
`weights(layout(golden))` for an open golden file, and `images(side)`.
"""

import hashlib
import json
import math
from collections.abc import Mapping

import numpy as np

UNNORMALISED = ("features.", "classifier.", "pre_logits.")  # AlexNet and VGG: ReLU halves what nothing scales again
TOKENS = ("class_token", "cls_token", "cls", "pos_embedding", "pos_embed")
HEADS = ("query", "key", "value")
GRID = 3  # points to a side of the smooth fields
NOISE = (0.35, 1.05)  # so that no backbone gives both images nearly the same logits


def layout(golden: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the weights of a golden file, in their order."""
    pairs = zip(golden["names"], golden["shapes"], strict=True)
    return {str(name): tuple(json.loads(str(shape))) for name, shape in pairs}


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """A whole set of weights, by PyTorch's names or flax's."""
    return {name: weight(name, tuple(shape)) for name, shape in shapes.items()}


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The weight of this name and shape, float32 unless it counts batches."""
    rng = generator(name)
    last = name.replace("/", ".").split(".")[-1]
    if last == "num_batches_tracked":
        return np.array(1, np.int64)
    if last in ("running_var", "scale") or (last == "weight" and len(shape) == 1):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return normal(rng, shape, deviation(name, last, shape))


def deviation(name: str, last: str, shape: tuple[int, ...]) -> float:
    """The standard deviation of a weight that is normal about 0."""
    if last in TOKENS:
        return 0.3
    if last in ("bias", "in_proj_bias", "running_mean"):
        return 0.1
    gain = 2.0 if name.startswith(UNNORMALISED) else 1.2
    return math.sqrt(gain / fan_in(name, last, shape))


def fan_in(name: str, last: str, shape: tuple[int, ...]) -> int:
    """How many inputs each output of a kernel sums: PyTorch's axes are O, I, H, W; flax's are H, W, I, O."""
    if last != "kernel":
        return math.prod(shape[1:])
    if name.split("/")[-2] in HEADS:  # [inputs, heads, features of a head]
        return shape[0]
    return math.prod(shape[:-1])


def images(side: int) -> np.ndarray:
    """Two images as a backbone takes them, float32[2, side, side, 3], about N(0, 1): smooth, with little and much noise."""
    rng = generator(f"images {side}")
    coarse = rng.standard_normal((2, GRID, GRID, 3))
    places = np.linspace(0, GRID - 1, side)
    linear = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(GRID)))
    smooth = np.einsum("hi,wj,nijc->nhwc", linear, linear, coarse)
    return (smooth + np.reshape(NOISE, (2, 1, 1, 1)) * rng.standard_normal(smooth.shape)).astype(np.float32)


def generator(name: str) -> np.random.Generator:
    """A generator seeded by a name."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))


def normal(rng: np.random.Generator, shape: tuple[int, ...], std: float) -> np.ndarray:
    """float32 normal values about 0."""
    values = rng.standard_normal(shape, dtype=np.float32)
    values *= np.float32(std)
    return values
