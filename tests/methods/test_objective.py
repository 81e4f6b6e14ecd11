"""LabelNet's loss terms against a float64 double loop over all images, what losses share, and the statistics of pairs."""

import math
from functools import partial

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from adsq_jax.errors import InputError
from adsq_jax.methods import label_set_pairs, objective

# Several labels an image, repeated label sets, one image without a label.
LABELS = np.array(
    [[1, 0, 0], [0, 1, 1], [1, 0, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 0], [0, 0, 0], [0, 1, 0]], np.uint8
)
BITS, FEATURES, COSINE_SCALE = 4, 3, 6.0
LABEL_NET_TERMS = ("semantic_likelihood", "likelihood", "difference", "quantization", "regression", "balance")
MULTI_HOT = hnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 5)), elements=st.integers(0, 1))


def share_a_label(a, b):
    return any(x and y for x, y in zip(a, b, strict=True))


def plain_statistics(labels):
    """r and w of similar and dissimilar pairs, pair by pair."""
    similar = sum(share_a_label(a, b) for a in labels for b in labels)
    pairs = len(labels) ** 2
    return min(1.0, similar / (pairs - similar)), pairs / (2 * similar), pairs / (2 * (pairs - similar))


STATISTICS = plain_statistics(LABELS)


def plain_likelihood(logit, similar):
    return math.log1p(math.exp(-abs(logit))) + max(logit, 0.0) - similar * logit


def plain_cosine(a, b):
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


def pair_targets(a, b):
    """S, S~ and w of a pair of images of the training set."""
    ratio, similar_weight, dissimilar_weight = STATISTICS
    return (1.0, 1.0, similar_weight) if share_a_label(a, b) else (0.0, -ratio, dissimilar_weight)


def plain_label_net(semantic, relaxed_codes, label_logits):
    """LabelNet's terms in float64 over all images; the arguments are by image."""
    n = len(LABELS)
    terms = dict.fromkeys(LABEL_NET_TERMS, 0.0)
    for i in range(n):
        for j in range(n):
            similar, target, weight = pair_targets(LABELS[i], LABELS[j])
            product = float(relaxed_codes[i] @ relaxed_codes[j])
            cosine = COSINE_SCALE * plain_cosine(semantic[i], semantic[j])
            terms["semantic_likelihood"] += weight * plain_likelihood(cosine, similar) / n**2
            terms["likelihood"] += weight * plain_likelihood(product / 2, similar) / n**2
            terms["difference"] += (product / BITS - target) ** 2 / n**2
        terms["quantization"] += sum(abs(abs(h) - 1) for h in relaxed_codes[i]) / BITS / n
        terms["regression"] += sum((label_logits[i] - LABELS[i]) ** 2) / LABELS.shape[1] / n
    terms["balance"] = sum((sum(relaxed_codes[:, k]) / n) ** 2 for k in range(BITS)) / BITS
    return terms


def central_differences(function, x):
    """The gradient of every term with respect to float64 x: {term: array of x's shape}."""
    step = 1e-6
    gradients = {}
    for place in np.ndindex(x.shape):
        above, below = x.copy(), x.copy()
        above[place] += step
        below[place] -= step
        high, low = function(above), function(below)
        for name in high:
            gradients.setdefault(name, np.zeros_like(x))[place] = (high[name] - low[name]) / (2 * step)
    return gradients


@pytest.fixture(scope="module")
def label_net():
    """The package's and the plain terms of LabelNet as functions of its outputs by label set, and such outputs."""
    sets = objective.label_sets(LABELS)
    random = np.random.default_rng(0)
    m = len(sets.sets)
    outputs = [random.normal(size=(m, FEATURES)), np.tanh(random.normal(size=(m, BITS))), random.normal(size=(m, 3))]
    outputs = [output.astype(np.float32) for output in outputs]

    def terms(*outputs):
        return objective.label_net_terms(
            *outputs,
            sets=sets.sets,
            frequencies=jnp.asarray(sets.counts / len(LABELS), jnp.float32),
            statistics=objective.pair_statistics(sets),
            cosine_scale=COSINE_SCALE,
        )

    return terms, lambda *outputs: plain_label_net(*(output[sets.set_index] for output in outputs)), outputs


def check_gradient(terms, plain, outputs, name):
    """Compares the gradient of one term, with respect to every output, with central differences of the double loop."""
    gradients = jax.grad(lambda outputs: terms(*outputs)[name])([jnp.asarray(x) for x in outputs])
    exact = [x.astype(np.float64) for x in outputs]
    for position, gradient in enumerate(gradients):
        expected = central_differences(
            lambda x, at=position: {name: plain(*exact[:at], x, *exact[at + 1 :])[name]}, exact[position]
        )
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-4, atol=1e-6)
    assert any(np.abs(gradient).max() > 1e-3 for gradient in gradients)


def check_term(terms, plain, outputs, name):
    """A term is a float32 scalar, equal to that of the double loop."""
    value = terms(*outputs)[name]
    assert value.shape == ()
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, plain(*(x.astype(np.float64) for x in outputs))[name], rtol=1e-5)


def by_blocks(monkeypatch, *, rows, m):
    """Compares label sets a number of rows at a time; 0: all at once."""
    if rows:
        monkeypatch.setattr(label_set_pairs, "MOST_AT_ONCE", m - 1)
        monkeypatch.setattr(label_set_pairs, "MOST_NUMBERS", rows * m)


# All terms at once, and those of pairs by 4 rows of 6 label sets.
TERMS_AND_ROWS = [*((name, 0) for name in LABEL_NET_TERMS), *((name, 4) for name in LABEL_NET_TERMS[:3])]


@pytest.mark.parametrize(("name", "rows"), TERMS_AND_ROWS)
def test_label_net_term_equals_double_loop_over_images(name, rows, label_net, monkeypatch):
    """Sums over label sets with their frequencies give the mean over all n x n images, at once or by blocks."""
    by_blocks(monkeypatch, rows=rows, m=6)
    check_term(*label_net, name)


@pytest.mark.parametrize(("name", "rows"), TERMS_AND_ROWS)
def test_label_net_gradient_equals_finite_differences(name, rows, label_net, monkeypatch):
    """The gradient of each of LabelNet's terms is that of the double loop, at once or by blocks."""
    by_blocks(monkeypatch, rows=rows, m=6)
    check_gradient(*label_net, name)


@pytest.mark.parametrize("rows", [1, 16, 100])
def test_blocks_of_label_sets_give_the_same_terms(rows, monkeypatch):
    """Of 60 label sets, terms and gradients by blocks are those at once, to float32's rounding; so are pair statistics."""
    random = np.random.default_rng(0)
    sets = objective.label_sets((random.random((90, 9)) < 0.2).astype(np.uint8))
    m = len(sets.sets)
    assert m > 50
    outputs = [random.normal(size=(m, k)).astype(np.float32) for k in (FEATURES, BITS, 9)]
    weights = dict(zip(LABEL_NET_TERMS, (1.0, 2.0, 3.0, 4.0, 5.0, 6.0), strict=True))

    def loss(outputs, statistics):
        terms = objective.label_net_terms(
            outputs[0],
            jnp.tanh(outputs[1]),
            outputs[2],
            sets=sets.sets,
            frequencies=jnp.asarray(sets.counts / sets.counts.sum(), jnp.float32),
            statistics=statistics,
            cosine_scale=COSINE_SCALE,
        )
        return objective.total(objective.weighted(terms, weights)), terms

    def run():
        statistics = objective.pair_statistics(sets)
        return statistics, *jax.jit(jax.value_and_grad(partial(loss, statistics=statistics), has_aux=True))(outputs)

    at_once = run()
    by_blocks(monkeypatch, rows=rows, m=m)
    found = run()
    assert found[0] == at_once[0]
    for a, b in zip(jax.tree.leaves(found[1:]), jax.tree.leaves(at_once[1:]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_label_net_has_no_other_terms(label_net):
    """The tests above cover every term."""
    terms, _, outputs = label_net
    assert sorted(terms(*outputs)) == sorted(LABEL_NET_TERMS)


def test_the_objective_is_each_term_times_its_weight():
    """2 * 3 and 0.5 * 4 add up to 8, whatever other weights there are; weight 0 leaves a term out, none is an error."""
    terms = {"a": jnp.float32(3), "b": jnp.float32(4), "left out": jnp.float32(jnp.inf)}
    weighted = objective.weighted(terms, {"b": 0.5, "a": 2.0, "left out": 0.0, "unused": 7.0})
    assert weighted == {"a": 6, "b": 2}
    assert objective.total(weighted) == 8
    assert objective.total(weighted).dtype == jnp.float32
    with pytest.raises(
        InputError, match=r"the loss term 'b' has no weight: expected config\.objective\.weights\.b; fix: .*pass weights="
    ):
        objective.weighted(terms, {"a": 1.0})
    with pytest.raises(InputError, match=r"expected config\.label_net\.weights\.b; fix: "):
        objective.weighted(terms, {"a": 1.0}, section="label_net")


def neighbours(logits, similar, *, row_weights=None, bound=5.0):
    row_weights = jnp.ones((1, logits.shape[1]), jnp.float32) if row_weights is None else row_weights
    arguments = {"row_weights": row_weights, "bound": bound, "sum_over_devices": lambda x: x}
    return objective.neighbour_loss(jnp.asarray(logits), jnp.asarray(similar), **arguments)


@given(st.integers(0, 2**32 - 1))
def test_neighbours_are_a_share_of_a_softmax(seed):
    """It is the mean of -log of the similar ones' share; neither the bound nor the weights' scale changes it."""
    random = np.random.default_rng(seed)
    logits = random.uniform(-5, 5, (3, 6)).astype(np.float32)
    similar = random.random((3, 6)) < 0.4
    similar[:, 0] = True
    row_weights = random.uniform(0.1, 1, (1, 6)).astype(np.float32)
    drawn = row_weights * np.exp(logits.astype(np.float64))
    expected = -np.mean(np.log((drawn * similar).sum(axis=1) / drawn.sum(axis=1)))
    for weights, bound in ((row_weights, 5.0), (3 * row_weights, 5.0), (row_weights, 30.0)):
        found = neighbours(logits, similar, row_weights=weights, bound=bound)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_neighbours_at_the_edges():
    """All similar: 0. None similar: 0, and no gradient. The farthest at the largest bound: 60, and a finite gradient."""
    logits = jnp.array([[30.0, -30.0]])
    assert neighbours(logits, [[True, True]], bound=30.0) == 0
    for similar, value, gradient in (([[False, False]], 0, 0), ([[False, True]], 60, 1)):
        found, slope = jax.value_and_grad(neighbours)(logits, np.array(similar), bound=30.0)
        assert found == pytest.approx(value, rel=1e-5)
        np.testing.assert_allclose(slope, [[gradient, -gradient]], atol=1e-5)


CODE_SCALE = 7.0


def plain_code_guidance(u, *, label_codes, label_sets):
    """The guidance by codes in float64: the images of the training set by their label sets, for the images BATCH."""
    total = 0.0
    for i, labels in enumerate(label_sets["batch"]):
        shares = {True: 0.0, False: 0.0}
        for j, other in enumerate(label_sets["all"]):
            logit = CODE_SCALE / BITS * float(u[i] @ np.where(label_codes[j] < 0, -1.0, 1.0))
            shares[share_a_label(labels, other)] += math.exp(logit)
        if shares[True]:
            total -= math.log(shares[True] / (shares[True] + shares[False]))
    return {"": total / len(u)}


def test_code_guidance():
    """It is that of a loop over all images with the signs of u; its gradient is the loop's at those signs."""
    sets = objective.label_sets(LABELS)
    random = np.random.default_rng(3)
    batch = np.array([4, 0, 8, 5])  # one without a label
    u = random.uniform(-1, 1, (4, BITS)).astype(np.float32)
    label_codes = random.uniform(-1, 1, (len(sets.sets), BITS)).astype(np.float32)
    guidance = objective.Guidance(label_codes, label_codes, (sets.counts / len(LABELS)).astype(np.float32))
    similar = objective.similarity(LABELS[batch], sets.sets)

    def loss(u):
        return objective.code_guidance_loss(u, guidance, similar=similar, scale=CODE_SCALE)

    def plain(x):
        by_image = label_codes[sets.set_index]
        return plain_code_guidance(x, label_codes=by_image, label_sets={"batch": LABELS[batch], "all": LABELS})

    signs = np.where(u < 0, -1.0, 1.0)
    value, gradient = jax.value_and_grad(loss)(u)
    np.testing.assert_allclose(value, plain(signs)[""], rtol=1e-5)
    np.testing.assert_allclose(gradient, central_differences(plain, signs)[""], rtol=1e-4, atol=1e-6)
    assert not gradient[2].any()  # the image without a label


@given(MULTI_HOT)
def test_label_sets_give_every_image_back(labels):
    """The sets are distinct, each image finds its own, and the counts are right."""
    sets = objective.label_sets(labels)
    assert len({row.tobytes() for row in sets.sets}) == len(sets.sets)
    np.testing.assert_array_equal(sets.sets[sets.set_index], labels)
    np.testing.assert_array_equal(sets.counts, [sum((row == labels).all(axis=1)) for row in sets.sets])


@given(MULTI_HOT)
def test_pair_statistics_equal_a_count_of_pairs(labels):
    """r and the weights are those of a count over all pairs; w has mean 1, and each kind of pair has half of it."""
    similar = np.array([[share_a_label(a, b) for b in labels] for a in labels])
    assume(similar.any() and not similar.all())
    statistics = objective.pair_statistics(objective.label_sets(labels))
    np.testing.assert_allclose(statistics, plain_statistics(labels), rtol=1e-12)
    assert 0 < statistics.ratio <= 1
    weights = np.asarray(objective.pair_weights(similar, statistics=statistics), np.float64)
    np.testing.assert_allclose(weights.mean(), 1, rtol=1e-6)
    np.testing.assert_allclose(weights[similar].sum(), weights[~similar].sum(), rtol=1e-6)


def test_pair_statistics_count_beyond_float32():
    """A training set of 30,001 images has its 900 million pairs counted to the last one."""
    labels = np.repeat(np.eye(3, dtype=np.uint8), [20000, 10000, 1], axis=0)
    statistics = objective.pair_statistics(objective.label_sets(labels))
    similar = 20000**2 + 10000**2 + 1
    assert statistics.similar_weight == 0.5 * 30001**2 / similar
    assert statistics.dissimilar_weight == 0.5 * 30001**2 / (30001**2 - similar)


def test_ratio_is_held_to_one():
    """With five similar pairs to each dissimilar one r is 1, so that S~ stays within [-1, 1]."""
    labels = np.array([[1, 1]] * 10 + [[1, 0], [0, 1]], np.uint8)
    assert objective.pair_statistics(objective.label_sets(labels)).ratio == 1.0


@pytest.mark.parametrize(
    ("labels", "kind"), [([[1, 0], [1, 1], [1, 0]], "dissimilar"), ([[1], [1]], "dissimilar"), ([[0, 0], [0, 0]], "similar")]
)
def test_a_training_set_of_one_kind_of_pairs_is_an_error(labels, kind):
    """All pairs similar, or none: the message says which kind is missing."""
    with pytest.raises(InputError, match=f"no {kind} pairs"):
        objective.pair_statistics(objective.label_sets(np.array(labels, np.uint8)))


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_signed_similarity_of_balanced_classes_is_that_of_a_simplex(classes):
    """For c balanced classes S~ is 1 and -1 / (c - 1)."""
    labels = np.repeat(np.eye(classes, dtype=np.uint8), 3, axis=0)
    ratio = objective.pair_statistics(objective.label_sets(labels)).ratio
    target = objective.signed_similarity(objective.similarity(labels, labels), ratio=ratio)
    same = np.arange(3 * classes)[:, None] // 3 == np.arange(3 * classes)[None, :] // 3
    np.testing.assert_allclose(target, np.where(same, 1.0, -1 / (classes - 1)), rtol=1e-6)


@given(MULTI_HOT)
def test_similarity_is_a_shared_label(labels):
    """S of two different sets of images, pair by pair; an image without a label is similar to none."""
    found = objective.similarity(labels[:3], labels)
    assert found.dtype == bool
    np.testing.assert_array_equal(found, [[share_a_label(a, b) for b in labels] for a in labels[:3]])


@pytest.mark.parametrize("size", [50.0, 1e4, 1e30])
@pytest.mark.parametrize("similar", [True, False])
def test_large_logits_do_not_overflow(size, similar):
    """softplus(t) - s t of huge logits is max(t, 0) - s t, and its gradient sigmoid(t) - s."""
    logits = jnp.array([[size, -size]], jnp.float32)
    kind = jnp.array([[similar, similar]])
    value, gradient = jax.value_and_grad(objective.likelihood_loss)(logits, kind, weights=jnp.ones((1, 2)))
    np.testing.assert_allclose(value, np.float32(size), rtol=1e-6)
    np.testing.assert_allclose(gradient, [[0, -1]] if similar else [[1, 0]], atol=1e-6)


def test_cosines_of_zero_features_are_zero_with_a_small_gradient():
    """An image without a label has features of exactly 0 in a new LabelNet: neither NaN nor a gradient that drowns the rest."""
    features = jnp.array([[0.0, 0.0], [3.0, 4.0]])
    cosines = objective.scaled_cosines(features, features, scale=10.0)
    np.testing.assert_allclose(cosines, [[0, 0], [0, 10]], atol=1e-5)
    gradient = jax.grad(lambda x: jnp.sum(objective.scaled_cosines(x, features, scale=10.0)))(features)
    assert np.abs(gradient).max() <= 20
