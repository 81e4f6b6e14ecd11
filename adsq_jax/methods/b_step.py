"""The B-step: discrete cyclic coordinate descent on the hash codes of the training set.

It is NumPy in float64 on purpose: it runs once per round, sums over the whole training set, and decides by the signs
of differences of large numbers: float32 sums, as on accelerators, would flip bits.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from adsq_jax import codes as hash_codes
from adsq_jax.methods.label_set_pairs import similar_rows

MAX_SWEEPS = 20


class CodesUpdate(NamedTuple):
    """The result of a discrete step."""

    codes: np.ndarray  # int8[n, bits] in {-1, +1}
    sweeps: int  # passes over all bits; the last one changed nothing, unless MAX_SWEEPS was reached
    objectives: tuple[float, ...]  # the objective, up to a constant, before the first and after each sweep; never rises
    difference_share: float  # share of bits that differ from the signs of `pull`: flipped by terms that couple bits


def update_codes(
    codes: np.ndarray,
    relaxed_codes: Sequence[np.ndarray],
    *,
    label_codes: np.ndarray | None,
    label_sets: np.ndarray,
    set_index: np.ndarray,
    ratio: float,
    difference_weight: float,
    quantization_weight: float,
    bit_likelihood_weight: float,
    label_code_weight: float,
    size: int,
    sum_over_processes: Callable[[Any], np.ndarray],
) -> CodesUpdate:
    """Run the B-step: update the hash codes of the training set by discrete cyclic coordinate descent.

    Minimise over B in {-1, +1}^(n x K), for the banks X of all ImgNets,

        sum_X [ mu mean_ij (x_i . b_j / K - S~_ij)^2 + lam mean_i |x_i - b_i|^2 / K - kappa mean_i log((1 + x_i b_i) / 2) / K ]
        + rho mean_i |b_i - h_i|^2 / K.

    With several processes, each updates its own rows. A bit depends on the other bits of its row, on K x K sums over all rows,
    and on m x K sums by label set; nothing else of other processes' rows is needed.

    Args:
      codes: int8[n, bits] in {-1, +1}, where the descent starts: this process's rows.
      relaxed_codes: this process's rows of the banks, each float[n, bits].
      label_codes: LabelNet's relaxed codes h by label set, float[m, bits], or None without LabelNet.
      label_sets: the distinct label vectors, uint8[m, c].
      set_index: each image's row of `label_sets`, int[n].
      ratio: r of S~ = S - r (1 - S).
      difference_weight: mu.
      quantization_weight: lam.
      bit_likelihood_weight: kappa.
      label_code_weight: rho; unused without LabelNet.
      size: the number of rows of all processes together.
      sum_over_processes: sums an array, float64 or int64, over all processes; `np.asarray` if there is one.

    Returns:
      The new codes of these rows, and the descent's figures over all rows.

    Source: discrete cyclic coordinate descent as in Shen et al., Supervised Discrete Hashing, CVPR 2015; the objective is
    this project's reconstruction.
    """
    bits = codes.shape[1]
    banks = [np.asarray(x, np.float64) for x in relaxed_codes]
    both = np.sum(banks, axis=0)  # [n, bits]
    # In b, -log((1 + x b) / 2) is -b atanh(x) plus a constant, and |x - b|^2 is -2 b x plus one. The loss clips x alike.
    log_odds = np.sum([np.arctanh(np.clip(x, -1 + 1e-6, 1 - 1e-6)) for x in banks], axis=0)
    pull = quantization_weight * both + bit_likelihood_weight / 2 * log_odds
    if label_codes is not None:
        pull += label_code_weight * np.asarray(label_codes, np.float64)[set_index]
    linear = size * bits * pull  # [n, bits]
    if difference_weight:
        target = signed_similarity_product(
            both, label_sets=label_sets, set_index=set_index, ratio=ratio, sum_over_processes=sum_over_processes
        )
        linear += difference_weight * bits * target
    quadratic = difference_weight * sum_over_processes(np.sum([x.T @ x for x in banks], axis=0))  # [bits, bits]
    return descend(
        codes,
        linear,
        quadratic=quadratic,
        pull=pull,
        scale=(size * bits) ** 2,
        size=size,
        sum_over_processes=sum_over_processes,
    )


def descend(
    codes: np.ndarray,
    linear: np.ndarray,
    *,
    quadratic: np.ndarray,
    pull: np.ndarray,
    scale: float,
    size: int,
    sum_over_processes: Callable[[Any], np.ndarray],
) -> CodesUpdate:
    """Minimise tr(B A B') - 2 tr(B'Q) over B in {-1, +1}^(n x K), bit by bit, until nothing changes, or for MAX_SWEEPS passes.

    Args:
      codes: int8[n, bits] in {-1, +1}, where the descent starts: this process's rows.
      linear: Q, float64[n, bits].
      quadratic: A, symmetric, float64[bits, bits], the same in all processes.
      pull: the linear term without the terms that couple a row's bits, float64[n, bits]: only for `difference_share`.
      scale: the divisor of the reported objective.
      size: the number of rows of all processes together.
      sum_over_processes: as in `update_codes`.

    Returns:
      The new codes of these rows, and the descent's figures over all rows.

    Source: discrete cyclic coordinate descent, Shen et al., Supervised Discrete Hashing, CVPR 2015.
    """
    new = codes.astype(np.float64)

    def objective() -> float:
        return float(sum_over_processes(_objective(new, linear, quadratic)) / scale)

    objectives = [objective()]
    changed = True
    while changed and len(objectives) <= MAX_SWEEPS:
        changed = bool(sum_over_processes(_sweep(new, linear, quadratic)))
        objectives.append(objective())
    return CodesUpdate(
        codes=new.astype(np.int8),
        sweeps=len(objectives) - 1,
        objectives=tuple(objectives),
        difference_share=float(
            sum_over_processes(np.sum(new != np.where(pull == 0, codes, hash_codes.binarize(pull)))) / (size * codes.shape[1])
        ),
    )


def signed_similarity_product(
    matrix: np.ndarray,
    *,
    label_sets: np.ndarray,
    set_index: np.ndarray,
    ratio: float,
    sum_over_processes: Callable[[Any], np.ndarray],
    block: int = 1024,
) -> np.ndarray:
    """Return this process's rows of S~ X, without the n x n matrix: S X = T (S_m (T'X)) by label sets.

    Args:
      matrix: this process's rows of X, float64[n, k].
      label_sets: the distinct label vectors, uint8[m, c].
      set_index: each row's label set, int[n]; T is its one-hot matrix.
      ratio: r.
      sum_over_processes: as in `update_codes`.
      block: for tests and small memory: label sets compared at a time, which bounds the similarity matrix to block x m.

    Returns:
      float64[n, k].

    Source: this project.
    """
    by_set = np.zeros((len(label_sets), matrix.shape[1]))  # [m, k]
    np.add.at(by_set, set_index, matrix)
    by_set = sum_over_processes(by_set)
    rows = similar_rows(label_sets, rows=block)
    similar = np.concatenate([similar_sets.astype(np.float64) @ by_set for _, similar_sets in rows])  # [m, k]
    return ((1 + ratio) * similar - ratio * by_set.sum(axis=0))[set_index]


def _sweep(codes: np.ndarray, linear: np.ndarray, quadratic: np.ndarray, *, block: int = 2048) -> bool:
    """Set each column in turn to its optimum, in place, and return whether a bit changed; an argument of 0 keeps the bit.

    Only the bits of one row depend on each other: `block` rows are done at a time, column by column in the processor's cache.
    """
    changed = False
    for start in range(0, len(codes), block):
        before, part = (np.ascontiguousarray(x[start : start + block].T) for x in (codes, linear))  # [bits, block]
        new = before.copy()
        for k in range(len(new)):
            argument = part[k] - (quadratic[k] @ new - new[k] * quadratic[k, k])  # [block]
            new[k] = np.where(argument == 0, new[k], hash_codes.signs(argument))
        if (new != before).any():
            codes[start : start + block] = new.T
            changed = True
    return changed


def _objective(codes: np.ndarray, linear: np.ndarray, quadratic: np.ndarray) -> np.ndarray:
    """Return tr(B A B') - 2 tr(B'Q) of some rows."""
    return np.sum((codes @ quadratic) * codes) - 2 * np.sum(codes * linear)
