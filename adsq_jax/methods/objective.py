"""Similarity of images, its statistics over the training set, and the loss terms, each a pure function of arrays.

The equations of the ADSQ paper are not available to this project: its terms are reconstructions, and each docstring names the
published method that the term comes from. Symbols: S_ij = 1 if images i and j share a label, else 0; r = #(S = 1) / #(S = 0),
at most 1; S~ = S - r (1 - S); the pair weights w_ij of all similar pairs add up to those of all dissimilar pairs.

Many sums over the training set run over its m distinct label sets with their counts: the same result, at m / n of the cost.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adsq_jax import codes
from adsq_jax.errors import InputError
from adsq_jax.methods.label_set_pairs import similar_rows, sum_pairs

Terms = dict[str, jax.Array]  # the terms of a loss by name, float32[] each; training minimises their sum


class LabelSets(NamedTuple):
    """The distinct label vectors of a training set."""

    sets: np.ndarray  # uint8[m, c] in {0, 1}
    set_index: np.ndarray  # int32[n], each image's row of `sets`
    counts: np.ndarray  # int64[m], images with that label set


class PairStatistics(NamedTuple):
    """Statistics of all n x n pairs of the training set."""

    ratio: float  # r, in (0, 1]
    similar_weight: float  # w of a similar pair: n^2 / 2 / number of similar pairs
    dissimilar_weight: float  # w of a dissimilar pair: n^2 / 2 / number of dissimilar pairs


def label_sets(labels: np.ndarray) -> LabelSets:
    """Return the distinct label vectors of a training set.

    Args:
      labels: uint8[n, c] in {0, 1}.

    Returns:
      The sets in lexicographic order, each image's set, and the number of images with each set.

    Source: this project.
    """
    sets, index, counts = np.unique(labels, axis=0, return_inverse=True, return_counts=True)
    return LabelSets(sets, index.reshape(-1).astype(np.int32), counts)


def pair_statistics(sets: LabelSets) -> PairStatistics:
    """Count similar and dissimilar pairs of a training set.

    Args:
      sets: the training set's label sets.

    Returns:
      r and the two pair weights.

    Raises:
      InputError: all pairs are similar, or none is.

    Source: this project; HashNet, Cao et al., ICCV 2017, weights pairs by their counts too.
    """
    similar = 0
    for rows, similar_sets in similar_rows(sets.sets):
        similar += int(sets.counts[rows] @ (similar_sets @ sets.counts))
    pairs = int(sets.counts.sum()) ** 2
    if similar in (0, pairs):
        kind = "similar" if similar == 0 else "dissimilar"
        raise InputError(f"expected similar and dissimilar pairs of images, got no {kind} pairs; fix: check the labels")
    return PairStatistics(
        ratio=min(1.0, similar / (pairs - similar)),
        similar_weight=0.5 * pairs / similar,
        dissimilar_weight=0.5 * pairs / (pairs - similar),
    )


def similarity(labels_a: jax.Array, labels_b: jax.Array) -> jax.Array:
    """Return S: whether two images share a label.

    Args:
      labels_a: multi-hot labels in {0, 1}, number[a, c].
      labels_b: number[b, c].

    Returns:
      bool[a, b].

    Source: the field's definition of relevance.
    """
    return labels_a.astype(jnp.float32) @ labels_b.astype(jnp.float32).T > 0


def signed_similarity(similar: jax.Array, *, ratio: float) -> jax.Array:
    """Return S~ = S - r (1 - S): 1 for similar pairs, -r for the others, float32 of the shape of `similar`.

    Source: this project. For c balanced classes r is 1 / (c - 1), and no c codes have all their cosines below -1 / (c - 1).
    """
    return jnp.where(similar, jnp.float32(1), jnp.float32(-ratio))


def pair_weights(similar: jax.Array, *, statistics: PairStatistics) -> jax.Array:
    """Return w, float32 of the shape of `similar`; its mean over all pairs of the training set is 1."""
    return jnp.where(similar, jnp.float32(statistics.similar_weight), jnp.float32(statistics.dissimilar_weight))


def likelihood_loss(logits: jax.Array, similar: jax.Array, *, weights: jax.Array) -> jax.Array:
    """Return the negative log-likelihood of S, sum_ij weights_ij (softplus(t_ij) - S_ij t_ij).

    Args:
      logits: t, float32[a, b].
      similar: S, bool[a, b].
      weights: float32[a, b], already divided by the number of pairs.

    Returns:
      float32[].

    Source: DPSH, Li et al., IJCAI 2016; with one network's codes against another's in DADH, arXiv 1801.08360.
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
    """Return -mean_i log(sum_j w_j S_ij e^t_ij / sum_j w_j e^t_ij): an image's neighbour, drawn by a softmax, is similar.

    `likelihood_loss` judges each pair alone; this term compares all pairs of an image with each other. An image may be its own
    neighbour. An image without any similar one has a loss of 0.

    Args:
      logits: t, float32[a, b].
      similar: S, bool[a, b].
      row_weights: the weight of each image of the training set, on any scale, float32[1, b].
      bound: an upper bound of the logits, at most 30, so that float32 doesn't overflow or underflow.
      sum_over_devices: the sum over devices, each of which has its own columns; the identity on one device.

    Returns:
      float32[], the same on all devices.

    Source: neighbourhood components analysis, Goldberger et al., NIPS 2004; against another network's bank: this project.
    """
    weights = row_weights * jnp.exp(logits - bound)  # [a, b]
    sums = jnp.stack([jnp.where(similar, weights, 0.0).sum(axis=1), weights.sum(axis=1)])
    similar_sum, whole_sum = sum_over_devices(sums)  # [a], [a]
    alone = similar_sum == 0
    return jnp.mean(jnp.where(alone, 0.0, jnp.log(whole_sum) - jnp.log(jnp.where(alone, 1.0, similar_sum))))


def difference_loss(products: jax.Array, target: jax.Array, *, weights: jax.Array) -> jax.Array:
    """Return the squared difference of code products and signed similarity, sum_ij weights_ij (p_ij - S~_ij)^2.

    Args:
      products: x_i . b_j / K, float32[a, b], in [-1, 1].
      target: S~, float32[a, b].
      weights: float32[a, b] or float32[], already divided by the number of pairs.

    Returns:
      float32[].

    Source: ADSH, Jiang and Li, AAAI 2018, with S~ in place of its {-1, +1}, and divided by K^2.
    """
    return jnp.sum(weights * (products - target) ** 2)


def quantization_loss(errors: jax.Array) -> jax.Array:
    """Return mean_i |u_i - b_i|^2 / K, float32[], of errors u - b, float32[batch, bits]. Source: DPSH; ADSH."""
    return jnp.mean(errors**2)


def bit_likelihood_loss(errors: jax.Array) -> jax.Array:
    """Return mean_ik -log((1 + u_ik b_ik) / 2), float32[], of errors u - b, float32[batch, bits], for u in [-1, 1].

    It is the negative log-likelihood of the hash codes, and grows to 13.8 for a wrong bit, where |u - b|^2 is at most 4.

    Source: DSEH's cross-entropy with LabNet's codes as targets, Li et al., IJCAI 2018.
    """
    return -jnp.mean(jnp.log(jnp.maximum(1 - jnp.abs(errors) / 2, 1e-6)))


def consistency_loss(second_view: jax.Array, relaxed_codes: jax.Array) -> jax.Array:
    """Return mean_i (1 - cos(u'_i, u_i)): the second view's relaxed codes follow the first view's, which are constant.

    Args:
      second_view: u', of other views of the batch's images, float32[batch, bits].
      relaxed_codes: u, float32[batch, bits].

    Returns:
      float32[], in [0, 2].

    Source: the self-distillation of DHD, Jang et al., ECCV 2022.
    """
    cosines = jnp.sum(_unit(second_view) * _unit(jax.lax.stop_gradient(relaxed_codes)), axis=1)  # [batch]
    return jnp.mean(1 - cosines)


def straight_through(relaxed_codes: jax.Array, hash_codes: jax.Array) -> jax.Array:
    """Return the hash codes, float32[batch, bits], with gradients as if they were the relaxed codes.

    Source: GreedyHash, Su et al., NeurIPS 2018; Bengio et al., arXiv 1308.3432.
    """
    return relaxed_codes + jax.lax.stop_gradient(hash_codes - relaxed_codes)


def balance_loss(bit_means: jax.Array) -> jax.Array:
    """Return mean_k m_k^2, float32[], of each bit's mean over images, float32[bits]. Source: Spectral Hashing, NIPS 2008."""
    return jnp.mean(bit_means**2)


def scaled_cosines(features_a: jax.Array, features_b: jax.Array, *, scale: float) -> jax.Array:
    """Return scale * cos(a_i, b_j), float32[a, b], of features float32[a, d] and float32[b, d].

    Source: this project; DSEH, Li et al., IJCAI 2018, uses inner products, which grow with the features' length.
    """
    return scale * _unit(features_a) @ _unit(features_b).T


def _unit(features: jax.Array) -> jax.Array:
    """Scale each row to length 1; rows of zeros, as for an image without labels, stay 0."""
    square = jnp.sum(features**2, axis=-1, keepdims=True)
    return features * jax.lax.rsqrt(jnp.where(square > 1e-12, square, 1.0))


class _LabelNetRows(NamedTuple):
    """LabelNet's outputs for some label sets, with what its terms compare them by."""

    semantic: jax.Array  # features a, float32[rows, d]
    relaxed_codes: jax.Array  # h, float32[rows, bits]
    sets: jax.Array  # uint8[rows, c]
    frequencies: jax.Array  # float32[rows]


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
    """Return LabelNet's loss terms, over all pairs of label sets.

    Many label sets are compared by blocks (`label_set_pairs.MOST_AT_ONCE`): memory is in proportion to m, time to m^2.

    Args:
      semantic: features a, float32[m, d].
      relaxed_codes: h, float32[m, bits] in [-1, 1].
      label_logits: the linear head's prediction of the labels, float32[m, c].
      sets: the label sets, uint8[m, c].
      frequencies: the share of the training set with each label set, float32[m].
      statistics: the training set's pair statistics.
      cosine_scale: s.

    Returns:
      semantic_likelihood, likelihood, difference, quantization, regression, balance: each float32[].

    Source: DSEH's LabNet (Li et al., IJCAI 2018) with the difference term added by this project.
    """
    bits = relaxed_codes.shape[1]
    terms = partial(_label_net_pair_terms, statistics=statistics, cosine_scale=cosine_scale)
    of_pairs = sum_pairs(terms, _LabelNetRows(semantic, relaxed_codes, sets, frequencies))
    per_set = frequencies[:, None]
    return {
        **of_pairs,
        "quantization": jnp.sum(per_set * jnp.abs(jnp.abs(relaxed_codes) - 1)) / bits,
        "regression": jnp.sum(per_set * (label_logits - sets.astype(jnp.float32)) ** 2) / sets.shape[1],
        "balance": balance_loss(jnp.sum(per_set * relaxed_codes, axis=0)),
    }


def _label_net_pair_terms(
    rows: _LabelNetRows, columns: _LabelNetRows, *, statistics: PairStatistics, cosine_scale: float
) -> Terms:
    """Return the parts of LabelNet's terms that are sums over pairs of rows and columns."""
    bits = rows.relaxed_codes.shape[1]
    similar = similarity(rows.sets, columns.sets)  # [rows, m]
    pair_shares = rows.frequencies[:, None] * columns.frequencies[None, :]  # [rows, m]
    weights = pair_shares * pair_weights(similar, statistics=statistics)
    products = rows.relaxed_codes @ columns.relaxed_codes.T  # [rows, m]
    cosines = scaled_cosines(rows.semantic, columns.semantic, scale=cosine_scale)  # [rows, m]
    target = signed_similarity(similar, ratio=statistics.ratio)
    return {
        "semantic_likelihood": likelihood_loss(cosines, similar, weights=weights),
        "likelihood": likelihood_loss(products / 2, similar, weights=weights),
        "difference": difference_loss(products / bits, target, weights=pair_shares),
    }


class Guidance(NamedTuple):
    """LabelNet's outputs for each label set, fixed while the ImgNets train."""

    features: jax.Array  # a, float32[m, d]
    codes: jax.Array  # relaxed codes h in [-1, 1], or the hash codes that `Method.separate` makes of them; float32[m, bits]
    frequencies: jax.Array  # the share of the training set with each label set, float32[m]


def guidance_loss(
    semantic: jax.Array,
    guidance: Guidance,
    *,
    similar: jax.Array,
    statistics: PairStatistics,
    cosine_scale: float,
) -> jax.Array:
    """Return the negative log-likelihood of S by semantic features and LabelNet's, a mean over batch and training set.

    Args:
      semantic: features of the batch, float32[batch, d].
      guidance: LabelNet's outputs.
      similar: S between batch and label sets, bool[batch, m].
      statistics: the training set's pair statistics.
      cosine_scale: s: the logits are s cos(a, a').

    Returns:
      float32[].

    Source: DSEH, Li et al., IJCAI 2018, with scaled cosines in place of inner products.
    """
    return likelihood_loss(
        scaled_cosines(semantic, guidance.features, scale=cosine_scale),
        similar,
        weights=pair_weights(similar, statistics=statistics) * guidance.frequencies[None, :] / len(semantic),
    )


def code_guidance_loss(relaxed_codes: jax.Array, guidance: Guidance, *, similar: jax.Array, scale: float) -> jax.Array:
    """Return -mean_i log(sum_a p_a S_ia e^t_ia / sum_a p_a e^t_ia): a label set, drawn by an image's hash code, is similar.

    The logits t_ia = (scale / K) b_i . sgn(h_a) compare hash codes, those of the batch with LabelNet's; p_a is the share of the
    training set with label set a. The gradient goes to the relaxed codes as if they were their signs. An image without any
    similar label set has a loss of 0.

    Args:
      relaxed_codes: u of the batch, float32[batch, bits].
      guidance: LabelNet's outputs.
      similar: S between batch and label sets, bool[batch, m].
      scale: the logit of two equal codes.

    Returns:
      float32[].

    Source: this project; the softmax is that of neighbourhood components analysis, Goldberger et al., NIPS 2004, and the
    straight-through sign GreedyHash's, Su et al., NeurIPS 2018.
    """
    hash_codes = straight_through(relaxed_codes, codes.signs(relaxed_codes))
    products = hash_codes @ codes.signs(guidance.codes).T / relaxed_codes.shape[1]  # [batch, m]
    logits = scale * products + jnp.log(guidance.frequencies)[None, :]
    alone = ~similar.any(axis=1, keepdims=True)  # [batch, 1]
    of_similar = jnp.where(similar | alone, logits, -jnp.inf)
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - jax.nn.logsumexp(of_similar, axis=1))


def weighted(terms: Terms, weights: Mapping[str, float], *, section: str = "objective") -> Terms:
    """Multiply each term by its weight, from a section of the config, and leave out terms of weight 0.

    Raises:
      InputError: a term has no weight.
    """
    for name in terms:
        if name not in weights:
            raise InputError(
                f"the loss term {name!r} has no weight: expected config.{section}.weights.{name}; fix: add it to the "
                f"config, or pass weights={{{name!r}: ...}}"
            )
    return {name: weights[name] * term for name, term in terms.items() if weights[name]}


def total(terms: Terms) -> jax.Array:
    """Return the objective, float32[]: the sum of its terms, in alphabetical order."""
    return jnp.sum(jnp.stack([terms[name] for name in sorted(terms)]))
