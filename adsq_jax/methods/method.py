"""What a hashing method is to the loop: a loss over what a step sees, and maybe a discrete step that renews the hash codes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from adsq_jax.methods.b_step import CodesUpdate
from adsq_jax.methods.objective import Guidance, PairStatistics, Terms


class LossInputs(NamedTuple):
    """What a loss may look at: the whole batch, and this device's rows of the training set.

    A loss is computed on every device; the mean over the devices is what is minimised. What is of the batch is the same on all
    of them. What is of rows is weighted by `shares`, so that the mean over the devices is that over the training set.
    """

    relaxed_codes: jax.Array  # u of the batch, float32[batch, bits]
    labels: jax.Array  # of the batch, multi-hot float32[batch, c]
    similar: jax.Array  # S between batch and rows, bool[batch, n]
    bank: jax.Array  # relaxed codes of the rows: the other network's with a twin, else the network's own; float32[n, bits]
    bank_codes: jax.Array  # hash codes of the rows, float32[n, bits] in {-1, +1}
    shares: jax.Array  # what a pair of batch and row counts in a mean over all pairs: float32[1, n]
    errors: jax.Array  # u_i - b_i of the batch where row i is on this device, elsewhere 0: float32[batch, bits]
    devices: int  # so many times a mean over `errors`, since an image's row is on one of them
    total: Callable[[jax.Array], jax.Array]  # the sum over the devices, for what of rows doesn't simply add up
    semantic: jax.Array  # features of this device's part of the batch, float32[part, d]
    similar_sets: jax.Array  # S between that part and the label sets, bool[part, m]
    label_set: jax.Array  # the batch's label sets, which are rows of what is by label set, int32[batch]
    guidance: Guidance | None  # LabelNet's, by label set; None without one
    parameters: Any  # the method's own, that are learned with the network
    progress: jax.Array  # share of the rounds that are done, float32[] in [0, 1)
    statistics: PairStatistics  # of the training set's pairs
    seed: int  # of the run, for what is drawn once


Loss = Callable[[LossInputs], Terms]  # pure; the terms add up to what is minimised


class UpdateCodes(Protocol):
    """A discrete step, in NumPy float64. Each of several processes sees to its own rows of the training set."""

    def __call__(
        self,
        codes: np.ndarray,
        relaxed_codes: Sequence[np.ndarray],
        *,
        label_codes: np.ndarray | None,
        label_sets: np.ndarray,
        set_index: np.ndarray,
        ratio: float,
        size: int,
        total: Callable[[Any], np.ndarray],
    ) -> CodesUpdate:
        """New codes of the training set; arguments as of `codes.update_codes`."""
        ...


@dataclass(frozen=True)
class Method:
    """A method over the ImgNets, its settings filled in; nets, data, loop and metric are the same for all."""

    loss: Loss
    bounded: bool = True  # relaxed codes are the hash layer's outputs through tanh; False: as they are
    twin: bool = False  # two ImgNets
    label_net: bool = False  # a LabelNet is trained first; hash codes and banks start as its codes
    update_codes: UpdateCodes | None = None  # the discrete step, after each round, and before the first without a LabelNet
    every_round: bool = True  # False: not after the rounds
    parameters: Callable[[jax.Array, int, int], Any] | None = None  # (key, bits, classes) -> its own, learned with the network
