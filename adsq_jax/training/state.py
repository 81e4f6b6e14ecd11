"""What changes while a run trains: three networks, the banks, and the hash codes of the training set. Arrays, no functions."""

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
    """LabelNet's parameters and optimiser state, and the separated hash codes that it ends with."""

    params: Tree  # Flax parameters
    opt_state: Tree  # Adam's
    separated: jax.Array | None = None  # int8[m, bits] in {-1, +1}, 0 until LabelNet is trained; None without `Method.separate`


@register_dataclass
@dataclass(frozen=True)
class ImgNetState:
    """One ImgNet with its bank."""

    params: Tree  # Flax parameters
    batch_stats: Tree  # running averages of BatchNorm
    opt_state: Tree  # of `TrainSetup.optimizer`
    key: jax.Array  # for the next update's dropout, uint32[2]
    bank: jax.Array  # relaxed codes of the training set, float32[n, bits], zero-padded

    @property
    def variables(self) -> dict[str, Tree]:
        """The variables of the Flax module, for encoding."""
        return {"params": self.params, "batch_stats": self.batch_stats}


@register_dataclass
@dataclass(frozen=True, repr=False)
class TrainState:
    """Everything that a run needs to continue; `step` determines the round and the network to train next."""

    step: np.ndarray  # int64[], updates of all ImgNets so far
    label_net: LabelNetState | None  # None without LabelNet
    trunk: Tree | None  # variables of a frozen trunk, which both ImgNets share; None: each trains its own
    img_nets: dict[str, ImgNetState]  # "f", and "g" with a twin
    codes: jax.Array  # B, int8[n, bits] in {-1, +1}; zero-padded

    def __repr__(self) -> str:
        return f"TrainState(step {self.step}, networks {', '.join(self.img_nets)}, codes {list(self.codes.shape)})"

    @property
    def variables(self) -> dict[str, Tree]:
        """The variables of each network, and of a frozen trunk under "trunk"."""
        networks = {name: net.variables for name, net in self.img_nets.items()}
        return networks if self.trunk is None else {**networks, "trunk": self.trunk}


@register_dataclass
@dataclass(frozen=True)
class Targets:
    """What an ImgNet is trained against, fixed for a half-round. A row is a training image; each device has some rows."""

    bank: jax.Array | None  # the other network's, float32[n, bits]; None without a twin: the network's own
    codes: jax.Array  # B, int8[n, bits]
    set_index: jax.Array  # each row's label set, int32[n]
    row_weights: jax.Array  # weight of each row in a mean over all: 1 / n, or 0 for padding; float32[n]
    sets: jax.Array  # the distinct label vectors; from here on the same on every device; uint8[m, c]
    progress: jax.Array  # share of the rounds that are done, float32[] in [0, 1)
    guidance: Guidance | None  # LabelNet's outputs by label set; None without LabelNet
