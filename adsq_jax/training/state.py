"""The state of training: three networks, the banks, and the hash codes of the training set. All arrays, no functions."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.tree_util import register_dataclass

from adsq_jax.methods.objective import Guidance

Tree = Any  # a pytree of arrays


@register_dataclass
@dataclass(frozen=True)
class LabelNetState:
    """LabelNet."""

    params: Tree
    opt_state: Tree


@register_dataclass
@dataclass(frozen=True)
class ImgNetState:
    """One ImgNet with its bank."""

    params: Tree
    batch_stats: Tree
    opt_state: Tree
    key: jax.Array  # of the next update's dropout, uint32[2]
    bank: jax.Array  # relaxed codes of the training set, float32[n, bits] in [-1, 1]; rows of zeros may follow


@register_dataclass
@dataclass(frozen=True)
class TrainState:
    """All that a run needs to go on; the step says where in the alternation it is."""

    step: np.ndarray  # int64[], updates of the ImgNets so far, all of them together
    label_net: LabelNetState | None
    trunk: (
        Tree | None
    )  # of the frozen one that both ImgNets share, so that a run's folder has all of its networks; None: each trains its own
    img_nets: dict[str, ImgNetState]  # "f", and "g" with a twin
    codes: jax.Array  # B, int8[n, bits] in {-1, +1}; rows of zeros may follow


@register_dataclass
@dataclass(frozen=True)
class Targets:
    """What is fixed while one ImgNet trains for a half-round. A row is a training image; each device has some of them."""

    bank: jax.Array | None  # the other network's, float32[n, bits]; None without a twin: the network's own
    codes: jax.Array  # B, int8[n, bits]
    set_index: jax.Array  # each row's label set, int32[n]
    shares: jax.Array  # what each row counts among all: 1 / n, or 0 for a filling; float32[n]
    sets: jax.Array  # the distinct label vectors, here and in what follows the same on every device; uint8[m, c]
    similar_sets: jax.Array  # S between them, bool[m, m]
    progress: jax.Array  # share of the rounds that are done, float32[] in [0, 1)
    guidance: Guidance | None
