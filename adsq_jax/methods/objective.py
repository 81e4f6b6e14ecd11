"""The objective: similarity, its statistics over the training set, and every loss term as a pure function of arrays.

The paper's own equations are not available to this project: each term is a reconstruction, and its docstring names the
published relative that it comes from. Symbols: S_ij = 1 if images i and j share a label, else 0; r = #(S = 1) / #(S = 0), at
most 1; S~ = S - r (1 - S); w_ij gives similar and dissimilar pairs half of the weight each.

Most sums over the training set run over its m distinct label sets with their counts: the same number, at m / n of the cost.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adsq_jax.errors import InputError

Terms = dict[str, jax.Array]


class LabelSets(NamedTuple):
    """The distinct label vectors of a training set."""

    sets: np.ndarray  # uint8[m, c] in {0, 1}
    set_index: np.ndarray  # int32[n], each image's row of `sets`
    counts: np.ndarray  # int64[m], images with that label set


class PairStatistics(NamedTuple):
    """What the objective needs to know of all n x n pairs of the training set."""

    ratio: float  # r, in (0, 1]
    similar_weight: float  # w of a similar pair: .5 / (share of similar pairs)
    dissimilar_weight: float  # w of a dissimilar pair


def label_sets(labels: np.ndarray) -> LabelSets:
    """Finds the distinct label vectors.

    Args:
      labels: uint8[n, c] in {0, 1}.

    Returns:
      The sets in lexicographic order.

    Source: this project.
    """
    sets, index, counts = np.unique(labels, axis=0, return_inverse=True, return_counts=True)
    return LabelSets(sets, index.reshape(-1).astype(np.int32), counts)


def pair_statistics(sets: LabelSets) -> PairStatistics:
    """Counts similar and dissimilar pairs over the training set, never over a batch.

    Args:
      sets: the training set's label sets.

    Returns:
      r and the two pair weights.

    Raises:
      InputError: all pairs are similar, or none is.

    Source: this project (HashNet, Cao et al., ICCV 2017, weights pairs by their counts too).
    """
    table = sets.sets.astype(np.float32)
    similar_sets = table @ table.T > 0  # [m, m]
    similar = int(sets.counts @ (similar_sets @ sets.counts))
    pairs = int(sets.counts.sum()) ** 2
    if similar in (0, pairs):
        kind = "similar" if similar == 0 else "dissimilar"
        raise InputError(f"the training set has no {kind} pairs, so nothing can be learned: check its labels")
    return PairStatistics(
        ratio=min(1.0, similar / (pairs - similar)),
        similar_weight=0.5 * pairs / similar,
        dissimilar_weight=0.5 * pairs / (pairs - similar),
    )


def similarity(labels_a: jax.Array, labels_b: jax.Array) -> jax.Array:
    """S: whether two images share a label.

    Args:
      labels_a: uint8[a, c].
      labels_b: uint8[b, c].

    Returns:
      bool[a, b].

    Source: the field's definition of relevance.
    """
    return labels_a.astype(jnp.float32) @ labels_b.astype(jnp.float32).T > 0


def signed_similarity(similar: jax.Array, *, ratio: float) -> jax.Array:
    """S~ = S - r (1 - S): 1 for similar pairs, -r for the others, float32 of the shape of `similar`.

    Source: this project; for c balanced classes -1 / (c - 1) is the best that c codes can do.
    """
    return jnp.where(similar, jnp.float32(1), jnp.float32(-ratio))


def pair_weights(similar: jax.Array, *, statistics: PairStatistics) -> jax.Array:
    """w: float32 of the shape of `similar`, with mean 1 over all pairs of the training set."""
    return jnp.where(similar, jnp.float32(statistics.similar_weight), jnp.float32(statistics.dissimilar_weight))


def likelihood_loss(logits: jax.Array, similar: jax.Array, *, weights: jax.Array) -> jax.Array:
    """Negative log-likelihood of the pairs' similarity: sum_ij weights_ij (softplus(t_ij) - S_ij t_ij).

    Args:
      logits: t, float32[a, b].
      similar: S, bool[a, b].
      weights: float32[a, b], with the division by the number of pairs in it.

    Returns:
      float32[].

    Source: DPSH, Li et al., IJCAI 2016; asymmetric (one network against another's bank) in DADH, arXiv 1801.08360.
    """
    return jnp.sum(weights * (jax.nn.softplus(logits) - jnp.where(similar, logits, 0.0)))


def neighbour_loss(
    logits: jax.Array,
    similar: jax.Array,
    *,
    row_weights: jax.Array,
    bound: float,
    sum_over_devices: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    """Negative log-likelihood that a neighbour is similar: -mean_i log(sum_j w_j S_ij e^t_ij / sum_j w_j e^t_ij).

    Where the pairs' likelihood asks of each pair alone whether it is near enough, this asks who is nearer than whom: an image
    draws its neighbour from the training set by a softmax. An image counts among its own; one without a similar image counts 0.

    Args:
      logits: t, float32[a, b].
      similar: S, bool[a, b].
      row_weights: what an image of the training set counts, to any scale, float32[1, b].
      bound: no logit is larger; at most 30, for float32's sake.
      sum_over_devices: the sum over all devices, each of which has other columns.

    Returns:
      float32[], the same on all devices.

    Source: neighbourhood components analysis, Goldberger et al., NIPS 2004; against another network's bank: this project.
    """
    weights = row_weights * jnp.exp(logits - bound)  # [a, b]
    sums = jnp.stack([jnp.where(similar, weights, 0.0).sum(axis=1), weights.sum(axis=1)])
    of_similar, of_all = sum_over_devices(sums)  # [a], [a]
    alone = of_similar == 0
    return jnp.mean(jnp.where(alone, 0.0, jnp.log(of_all) - jnp.log(jnp.where(alone, 1.0, of_similar))))


def difference_loss(products: jax.Array, target: jax.Array, *, weights: jax.Array) -> jax.Array:
    """Squared difference of code products and signed similarity: sum_ij weights_ij (p_ij - S~_ij)^2.

    Args:
      products: x_i . b_j / K, float32[a, b], in [-1, 1].
      target: S~, float32[a, b].
      weights: float32[a, b] or float32[], with the division by the number of pairs in it.

    Returns:
      float32[].

    Source: ADSH, Jiang and Li, AAAI 2018, with S~ for its {-1, +1} and divided by K^2.
    """
    return jnp.sum(weights * (products - target) ** 2)


def quantization_loss(errors: jax.Array) -> jax.Array:
    """mean_i |u_i - b_i|^2 / K for u - b, float32[batch, bits]. Source: DPSH; ADSH."""
    return jnp.mean(errors**2)


def bit_likelihood_loss(errors: jax.Array) -> jax.Array:
    """Negative log-likelihood of the hash codes, mean_ik -log((1 + u_ik b_ik) / 2), for u - b, float32[batch, bits].

    A bit that is surely wrong costs without a limit, where |u - b|^2 ends at 4.
    Source: DSEH's cross-entropy towards LabNet's codes, Li et al., IJCAI 2018, for u in [-1, 1].
    """
    return -jnp.mean(jnp.log(jnp.maximum(1 - jnp.abs(errors) / 2, 1e-6)))


def balance_loss(bit_means: jax.Array) -> jax.Array:
    """mean_k m_k^2 for the bits' means over images, float32[bits]. Source: Spectral Hashing, NIPS 2008."""
    return jnp.mean(bit_means**2)


def scaled_cosines(features_a: jax.Array, features_b: jax.Array, *, scale: float) -> jax.Array:
    """scale * cos(a_i, b_j), float32[a, b], for float32[a, d] and float32[b, d].

    Source: this project; DSEH, Li et al., IJCAI 2018, takes inner products, which grow with the features' length.
    """
    return scale * _unit(features_a) @ _unit(features_b).T


def _unit(features: jax.Array) -> jax.Array:
    square = jnp.sum(features**2, axis=-1, keepdims=True)
    return features * jax.lax.rsqrt(jnp.where(square > 1e-12, square, 1.0))  # features of 0, as of no label, stay 0


def label_net_terms(
    semantic: jax.Array,
    relaxed_codes: jax.Array,
    label_logits: jax.Array,
    *,
    sets: jax.Array,
    frequencies: jax.Array,
    statistics: PairStatistics,
    cosine_scale: float,
) -> Terms:
    """LabelNet's loss terms, over all pairs of label sets.

    Args:
      semantic: features a, float32[m, d].
      relaxed_codes: h, float32[m, bits] in [-1, 1].
      label_logits: the labels given back by the linear head, float32[m, c].
      sets: uint8[m, c].
      frequencies: share of the training set with each label set, float32[m].
      statistics: of the training set's pairs.
      cosine_scale: s.

    Returns:
      semantic_likelihood, likelihood, difference, quantization, regression, balance: each float32[].

    Source: DSEH's LabNet (Li et al., IJCAI 2018) with the difference term added by this project.
    """
    bits = relaxed_codes.shape[1]
    similar = similarity(sets, sets)  # [m, m]
    share = frequencies[:, None] * frequencies[None, :]  # [m, m]
    weights = share * pair_weights(similar, statistics=statistics)
    products = relaxed_codes @ relaxed_codes.T  # [m, m]
    cosines = scaled_cosines(semantic, semantic, scale=cosine_scale)  # [m, m]
    target = signed_similarity(similar, ratio=statistics.ratio)
    per_set = frequencies[:, None]
    return {
        "semantic_likelihood": likelihood_loss(cosines, similar, weights=weights),
        "likelihood": likelihood_loss(products / 2, similar, weights=weights),
        "difference": difference_loss(products / bits, target, weights=share),
        "quantization": jnp.sum(per_set * jnp.abs(jnp.abs(relaxed_codes) - 1)) / bits,
        "regression": jnp.sum(per_set * (label_logits - sets.astype(jnp.float32)) ** 2) / sets.shape[1],
        "balance": balance_loss(jnp.sum(per_set * relaxed_codes, axis=0)),
    }


class Guidance(NamedTuple):
    """What LabelNet says of each label set; fixed while the ImgNets train."""

    features: jax.Array  # a, float32[m, d]
    relaxed_codes: jax.Array  # h, float32[m, bits]
    frequencies: jax.Array  # share of the training set with each label set, float32[m]


def guidance_loss(
    semantic: jax.Array,
    guidance: Guidance,
    *,
    similar: jax.Array,
    statistics: PairStatistics,
    cosine_scale: float,
) -> jax.Array:
    """Likelihood of a batch's semantic features against LabelNet's, a mean over batch and training set.

    Args:
      semantic: features of the batch, float32[batch, d].
      guidance: LabelNet's.
      similar: S between batch and label sets, bool[batch, m].
      statistics: of the training set's pairs.
      cosine_scale: s.

    Returns:
      float32[].

    Source: DSEH, Li et al., IJCAI 2018, on cosines.
    """
    return likelihood_loss(
        scaled_cosines(semantic, guidance.features, scale=cosine_scale),
        similar,
        weights=pair_weights(similar, statistics=statistics) * guidance.frequencies[None, :] / len(semantic),
    )


def weighted(terms: Terms, weights: Mapping[str, float]) -> Terms:
    """Each term times its weight, so that they add up to the objective, without those of weight 0.

    Raises:
      InputError: a term has no weight.
    """
    for name in terms:
        if name not in weights:
            raise InputError(
                f"the loss term {name!r} has no weight: expected config.objective.weights.{name}; fix: add it to the "
                f"config, or pass weights={{{name!r}: ...}}"
            )
    return {name: weights[name] * term for name, term in terms.items() if weights[name]}


def total(terms: Terms) -> jax.Array:
    """The objective: the sum of its terms, always in the same order; float32[]."""
    return jnp.sum(jnp.stack([terms[name] for name in sorted(terms)]))
