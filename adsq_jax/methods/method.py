"""A hashing method: a loss on one batch, and for some methods a discrete step that updates hash codes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from adsq_jax.methods.b_step import CodesUpdate
from adsq_jax.methods.objective import Guidance, PairStatistics, Terms


class LossInputs(NamedTuple):
    """Everything that a loss may use: the whole batch, and this device's rows of the training set.

    Each device computes the loss, and training minimises the mean over devices. Fields of the batch are the same on all
    devices. Sums over rows are weighted by `row_weights`, so that their mean over devices is the mean over the training set.
    """

    relaxed_codes: jax.Array  # u of the batch, float32[batch, bits]
    labels: jax.Array  # of the batch, multi-hot float32[batch, c]
    similar: jax.Array  # S between batch and rows, bool[batch, n]
    bank: jax.Array  # relaxed codes of the rows, float32[n, bits]: the other network's with a twin, else the network's own
    bank_codes: jax.Array  # hash codes of the rows, float32[n, bits] in {-1, +1}
    row_weights: jax.Array  # weight of a pair of batch and row in a mean over all pairs, float32[1, n]
    errors: jax.Array  # u_i - b_i where row i is on this device, else 0: float32[batch, bits]
    n_devices: int  # each image's error is on one device: times this, a mean over `errors` is the mean over all
    sum_over_devices: Callable[[jax.Array], jax.Array]  # for terms of rows that aren't weighted sums
    semantic: jax.Array  # features of this device's part of the batch, float32[part, d]
    similar_sets: jax.Array  # S between that part and the label sets, bool[part, m]
    batch_similar_sets: jax.Array  # S between the whole batch and the label sets, bool[batch, m]
    label_set: jax.Array  # each batch image's label set, as a row of `guidance`, int32[batch]
    guidance: Guidance | None  # LabelNet's outputs by label set; None without LabelNet
    parameters: Any  # the method's own, learned with the network; None without any
    progress: jax.Array  # finished rounds / rounds, float32[] in [0, 1)
    statistics: PairStatistics  # of the training set's pairs
    seed: int  # the run's, for what a method draws once
    second_view: jax.Array | None = None  # u of the batch's second views, float32[batch, bits]; for `Method.second_view`


Loss = Callable[[LossInputs], Terms]  # pure; training minimises the sum of the terms


# A discrete step, in NumPy float64; with several processes, each updates its own rows of the training set. It is called with
# (codes, relaxed_codes, *, label_codes, label_sets, set_index, ratio, size, sum_over_processes): see `b_step.update_codes`.
UpdateCodes = Callable[..., CodesUpdate]


@dataclass(frozen=True)
class Method:
    """A hashing method with its settings filled in; networks, data, training loop and metric are the same for all methods."""

    loss: Loss  # given `LossInputs`, returns the terms of the sum to minimise; pure
    head: str = "tanh"  # how the hash layer's outputs become relaxed codes: one of `HEADS` in models/img_net.py
    twin: bool = False  # two ImgNets
    second_view: bool = False  # batches have two augmented views of each image; all but `second_view` is of the first
    label_net: bool = False  # LabelNet is trained first; hash codes and banks start as its codes
    separate: bool = False  # flip bits of LabelNet's hash codes until those of dissimilar label sets are far apart
    label_net_weights: Mapping[str, float] | None = None  # of LabelNet's loss terms that the method changes from the defaults
    update_codes: UpdateCodes | None = None  # the discrete step
    every_round: bool = True  # run `update_codes` after each round; without LabelNet it runs once before the first as well
    parameters: Callable[[jax.Array, int, int], Any] | None = None  # (key, bits, classes) -> what is learned with the network
