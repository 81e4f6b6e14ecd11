"""Each loss against its oracle, a float64 double loop, at the edges, in any order of the batch, and over devices."""

import math
from collections import Counter
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import oracles

from adsq_jax.devices.mesh import AXIS
from adsq_jax.errors import InputError
from adsq_jax.methods import METHODS, hash_centers, loss_inputs, objective
from adsq_jax.methods.bihalf import half_signs
from adsq_jax.methods.method import LossInputs
from adsq_jax.methods.psldh import ALPHA, BETA, class_codes, class_gradient
from adsq_jax.models.img_net import ImgNet
from adsq_jax.training.state import ImgNetState, Targets
from adsq_jax.training.step import img_net_gradients

CLASSES, FEATURES, SEED = 4, 3, 5
SINGLE = np.eye(CLASSES, dtype=np.uint8)[[0, 1, 2, 0, 3, 1, 2, 2, 0, 1, 3]]
MULTI = np.array(
    [
        [1, 0, 1, 0], [0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1], [1, 1, 0, 1], [0, 1, 1, 0],
        [0, 0, 1, 0], [1, 0, 1, 1], [0, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1],
    ],
    np.uint8,
)  # fmt: skip
NONE = np.zeros((1, CLASSES), np.uint8)  # an image without a label
LABELS = {"single": np.concatenate([SINGLE, NONE]), "multi": np.concatenate([MULTI, NONE])}
BATCH = np.array([7, 0, 11, 4, 2, 9])  # rows of the training set; the third one has no label
CASES = [("single", 8), ("multi", 5), ("multi", 16)]
BASELINES = [name for name in METHODS if name != "adsq"]  # test_adsq.py has ADSQ's oracle


class Problem:
    """A training set of 12 images with what a training step knows of it, and a batch of 6."""

    def __init__(self, kind, bits, *, progress=0.5):
        random = np.random.default_rng([bits, len(kind)])
        self.all_labels, self.labels = LABELS[kind], LABELS[kind][BATCH]
        self.n, self.bits, self.progress = len(self.all_labels), bits, progress
        self.sets = objective.label_sets(self.all_labels)
        self.statistics = objective.pair_statistics(self.sets)
        self.u = self.drawn(random, len(BATCH), bits)
        self.bank = self.drawn(random, self.n, bits)
        self.codes = random.choice(np.array([-1, 1], np.float32), (self.n, bits))
        self.semantic = random.normal(size=(len(BATCH), FEATURES)).astype(np.float32)
        self.label_semantic = random.normal(size=(len(self.sets.sets), FEATURES)).astype(np.float32)
        self.label_codes = self.drawn(random, len(self.sets.sets), bits)
        self.classifier = random.normal(size=(bits, CLASSES)).astype(np.float32)
        self.bias = random.normal(size=CLASSES).astype(np.float32)
        self.proxies = random.normal(size=(CLASSES, bits)).astype(np.float32)
        self.second_view = self.drawn(random, len(BATCH), bits)

    @staticmethod
    def drawn(random, rows, bits):
        return (0.95 * np.tanh(1.5 * random.normal(size=(rows, bits)))).astype(np.float32)

    @property
    def known(self):
        """Return the arguments of oracles of the whole training set."""
        return {"bank": self.bank, "codes": self.codes, "all_labels": self.all_labels, "index": BATCH}

    @property
    def parameters(self):
        """Return the parameters of all methods that have some."""
        return {"kernel": self.classifier, "bias": self.bias, "proxies": self.proxies}

    def pair_weights(self):
        """Return w of similar and of dissimilar pairs, counted pair by pair over the training set."""
        similar = [oracles.share_a_label(a, b) for a in self.all_labels for b in self.all_labels]
        return tuple(w / 2 for w in oracles.pair_weights(similar))

    def ratio(self):
        """Return the number of similar pairs over that of dissimilar ones, at most 1."""
        of_similar, of_dissimilar = self.pair_weights()
        return min(1.0, of_dissimilar / of_similar)

    def inputs(self, **changes):
        """Return the inputs of a training step; changed relaxed codes change their errors too."""
        u = changes.get("relaxed_codes", self.u)
        arrays = {
            "relaxed_codes": jnp.asarray(u),
            "labels": self.labels.astype(np.float32),
            "similar": objective.similarity(self.labels, self.all_labels),
            "bank": self.bank,
            "bank_codes": self.codes,
            "row_weights": np.full((1, self.n), 1 / (self.n * len(BATCH)), np.float32),
            "errors": u - self.codes[BATCH],
            "n_devices": 1,
            "sum_over_devices": lambda x: x,
            "semantic": self.semantic,
            "similar_sets": objective.similarity(self.labels, self.sets.sets),
            "batch_similar_sets": objective.similarity(self.labels, self.sets.sets),
            "label_set": self.sets.set_index[BATCH],
            "guidance": objective.Guidance(
                self.label_semantic, self.label_codes, (self.sets.counts / self.n).astype(np.float32)
            ),
            "parameters": self.parameters,
            "progress": jnp.float32(self.progress),
            "statistics": self.statistics,
            "seed": SEED,
            "second_view": self.second_view,
        }
        return LossInputs(**{**arrays, **changes})


def of_dsh(problem, *, margin, alpha):
    terms = oracles.dsh(problem.u, problem.labels, margin=margin)
    return {"similar + dissimilar": terms["contrastive"], "quantization": alpha * terms["quantization"]}


def of_dpsh(problem, *, eta, weighted):
    known = {**problem.known, "bank": problem.u, "all_labels": problem.labels}  # pairs of the batch
    known["weights"] = problem.pair_weights() if weighted else (1.0, 1.0)
    terms = oracles.dpsh(problem.u, problem.labels, **known)
    return {"likelihood": terms["likelihood"], "quantization": eta * terms["quantization"]}


def of_dhn(problem, *, quantization, weighted):
    weights = problem.pair_weights() if weighted else (1.0, 1.0)
    terms = oracles.dhn(problem.u, problem.labels, weights=weights)
    return {"likelihood": terms["likelihood"], "quantization": quantization * terms["quantization"]}


def of_hashnet(problem, *, scale, last_beta):
    beta = math.sqrt(1 + (last_beta**2 - 1) * problem.progress)
    weights = problem.pair_weights()
    return oracles.hashnet(problem.u, problem.labels, alpha=scale / problem.bits, beta=beta, weights=weights, multi_label=True)


def of_dsdh(problem, *, mu, nu, eta, weighted):
    known = {**problem.known, "bank": problem.u, "all_labels": problem.labels}  # pairs of the batch
    known["weights"] = problem.pair_weights() if weighted else (1.0, 1.0)
    terms = oracles.dsdh(problem.u, problem.labels, **known)
    return {"likelihood": terms["likelihood"], "quantization": eta * terms["quantization"]}


def of_adsh(problem, *, quantization, balanced):
    terms = oracles.adsh(problem.u, problem.labels, **problem.known, ratio=problem.ratio() if balanced else 1.0)
    return {"difference": terms["difference"], "quantization": quantization * terms["quantization"]}


def of_dadh(problem, *, likelihood, quantization, balance, balanced):
    terms = oracles.dadh(problem.u, problem.labels, **problem.known, ratio=problem.ratio() if balanced else 1.0)
    weights = {"likelihood": likelihood, "difference": 1.0, "quantization": quantization, "balance": balance}
    return {name: weights[name] * value for name, value in terms.items()}


def of_dseh(problem, *, semantic, codes, cosine_scale):
    by_image = problem.label_semantic[problem.sets.set_index]
    of_similar, of_dissimilar = problem.pair_weights()
    values = []
    for feature, own in zip(problem.semantic, problem.labels, strict=True):
        for other, theirs in zip(by_image, problem.all_labels, strict=True):
            t, similar = cosine_scale * oracles.cosine(feature, other), oracles.share_a_label(own, theirs)
            values.append((of_similar if similar else of_dissimilar) * (oracles.softplus(t) - similar * t))
    return {"semantic": semantic * oracles.mean(values), "codes": codes * dseh_oracle(problem)["code"]}


def dseh_oracle(problem, *, scale=1.0, unit=lambda rows: rows):
    signs = [[oracles.sign(x) for x in row] for row in problem.label_codes[problem.sets.set_index]]
    return oracles.dseh(
        problem.u,
        problem.labels,
        **{**problem.known, "codes": signs},
        semantic=unit(problem.semantic),
        label_semantic=unit(problem.label_semantic)[problem.sets.set_index],
        scale=scale,
        bounded=True,
    )


def of_dch(problem, *, gamma, quantization):
    others = (len(BATCH) - 1) / len(BATCH)  # the mean is over all pairs, with 0 for an image and itself
    weights, floor = problem.pair_weights(), 0.01 * problem.bits / 2
    terms = oracles.dch(problem.u, problem.labels, gamma=gamma, weights=weights, floor=floor)
    return {"pairs": others * terms["cross_entropy"], "quantization": quantization * terms["quantization"]}


def of_greedyhash(problem, *, alpha):
    terms = oracles.greedyhash(problem.u, problem.labels, classifier=problem.classifier, bias=problem.bias)
    return {"classification": terms["classification"], "penalty": alpha * terms["quantization"]}


def centers_and_ties(problem):
    """Return the arguments of oracles with hash centers, whose own tests are in test_hash_centers.py."""
    centers = np.asarray(hash_centers.hash_centers(CLASSES, problem.bits, seed=SEED))
    ties = np.asarray(hash_centers.random_signs(1, problem.bits, seed=SEED + 1))[0]
    return {"centres": centers, "ties": ties}


def of_csq(problem, *, central, quantization):
    terms = oracles.csq(problem.u, problem.labels, **centers_and_ties(problem))
    return {"central": central * terms["centre"], "quantization": quantization * terms["quantization"]}


def of_orthohash(problem, *, scale, margin):
    targets = np.asarray(hash_centers.hash_centers(CLASSES, problem.bits, seed=SEED))
    return oracles.orthohash(problem.u, problem.labels, targets=targets, scale=scale, margin=margin)


def of_dpn(problem, *, polarization_margin, decay):
    terms = oracles.dpn(problem.u, problem.labels, margin=polarization_margin, **centers_and_ties(problem))
    return {"polarization": terms["polarization"], "decay": decay / problem.bits * terms["square"]}


def of_hyp2(problem, *, beta, proxy_rate):
    distance = 2 * problem.bits // 3  # of the best code of four words, by Plotkin's bound
    terms = oracles.hyp2(problem.u, problem.labels, proxies=problem.proxies, distance=distance)
    return {**terms, "pairs": beta * terms["pairs"]}


def of_bihalf(problem, *, gamma):
    terms = oracles.bihalf(problem.u, problem.labels, classifier=problem.classifier, bias=problem.bias)
    return {"classification": terms["classification"], "quantization": gamma * terms["quantization"]}


def of_psldh(problem, *, scale, margin, quantization):
    targets = class_codes(CLASSES, problem.bits, seed=SEED)
    terms = oracles.psldh(problem.u, problem.labels, targets=targets, gamma=scale, sigma=margin)
    return {"partial_softmax": terms["partial_softmax"], "quantization": quantization * terms["quantization"]}


def of_dhd(problem, *, temperature, distillation, quantization, deviation):
    views = {"second": problem.second_view, "proxies": problem.proxies}
    terms = oracles.dhd(problem.u, problem.labels, temperature=temperature, deviation=deviation, **views)
    weights = {"classification": 1.0, "distillation": distillation, "quantization": quantization}
    return {name: weights[name] * value for name, value in terms.items()}


def of_classify(problem, *, smoothing):
    """Softmax cross-entropy; the target is (1 - smoothing) of the labels' shares, and smoothing spread over all classes."""
    values = []
    for row, own in zip(problem.u, problem.labels, strict=True):
        logits = [oracles.dot(row, problem.classifier[:, c]) + float(problem.bias[c]) for c in range(CLASSES)]
        log_total = math.log(math.fsum(math.exp(x) for x in logits))
        for x, y in zip(logits, own, strict=True):
            share = (1 - smoothing) * (y / sum(own) if y else 0.0) + smoothing / CLASSES
            values.append(share * (log_total - x))
    return {"classification": math.fsum(values) / len(problem.u)}


ORACLES = {name.removeprefix("of_"): function for name, function in list(globals().items()) if name.startswith("of_")}


@pytest.mark.parametrize(("kind", "bits"), CASES)
@pytest.mark.parametrize("name", BASELINES)
def test_loss_equals_its_oracle(name, kind, bits):
    """Every term equals the double loop's, with default settings, unweighted pairs, and those of the tuning grid."""
    problem, recipe = Problem(kind, bits), METHODS[name]
    unweighted = {name: 0.0 for name in ("balanced", "weighted") if name in recipe.settings}
    for changes in ({}, unweighted, *recipe.tuning_grid):
        given = {**recipe.settings, **changes}
        terms = recipe(**changes).loss(problem.inputs())
        assert all(value.shape == () and value.dtype == jnp.float32 for value in terms.values())
        for term, wanted in ORACLES[name](problem, **given).items():
            found = sum(float(terms.pop(part)) for part in term.split(" + "))
            np.testing.assert_allclose(found, wanted, rtol=2e-5, err_msg=f"{term} of {given}")
        assert not terms


def test_every_method_has_an_oracle():
    """The test above covers every method but ADSQ."""
    assert sorted(ORACLES) == sorted(BASELINES)


def test_dsh_has_a_margin():
    """By hand, K = 2: the loss of dissimilar codes within the margin is half of the distance to it, and 0 beyond."""
    problem = Problem("single", 2)
    problem.labels = np.eye(CLASSES, dtype=np.uint8)[[0, 1]]
    for far, wanted in ((1.0, 0.5 * (2 - 0.5) * 2 / 4), (3.0, 0.0)):
        inputs = problem.inputs()._replace(
            relaxed_codes=jnp.array([[0.0, 0], [far, 0]], jnp.float32), labels=jnp.asarray(problem.labels, jnp.float32)
        )
        terms = METHODS["dsh"].loss(inputs, margin=2.0, alpha=0.0)
        np.testing.assert_allclose((terms["dissimilar"], terms["similar"]), (wanted, 0.0), atol=1e-7)


def test_dseh_with_unweighted_pairs_equals_the_paper_for_unit_features():
    """With pair weights of 1 and features of length 1, the semantic term is the paper's, by inner products."""
    problem = Problem("multi", 8)
    problem.statistics = objective.PairStatistics(ratio=0.5, similar_weight=1.0, dissimilar_weight=1.0)
    found = METHODS["dseh"].loss(problem.inputs(), semantic=1.0, codes=1.0, cosine_scale=10.0)["semantic"]
    wanted = dseh_oracle(problem, scale=10.0, unit=lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True))
    np.testing.assert_allclose(found, wanted["semantic_likelihood"], rtol=2e-5)


def test_dseh_needs_label_net():
    """Without LabelNet's outputs the loss raises an error that says so."""
    with pytest.raises(InputError, match="expected LabelNet's outputs, got guidance=None"):
        METHODS["dseh"].loss(Problem("single", 8).inputs(guidance=None), **METHODS["dseh"].settings)


@pytest.mark.parametrize(("progress", "beta"), [(0.0, 1.0), (0.5, 5.0), (0.75, math.sqrt(37)), (1.0, 7.0)])
def test_hashnets_beta_grows_with_progress(progress, beta):
    """beta^2 grows linearly from 1 to last_beta^2: in the middle of 1 and 7, beta is 5."""
    problem = Problem("multi", 8, progress=progress)
    found = METHODS["hashnet"].loss(problem.inputs(), scale=8.0, last_beta=7.0)["likelihood"]
    wanted = oracles.hashnet(problem.u, problem.labels, alpha=1.0, beta=beta, weights=problem.pair_weights(), multi_label=True)
    np.testing.assert_allclose(found, wanted["likelihood"], rtol=2e-5)


def test_greedyhash_passes_the_gradient_through_the_sign():
    """The classification's gradient at z is that at sgn(z): (softmax - target) W' / batch."""
    problem = Problem("multi", 8)
    z = np.where(np.arange(6 * 8).reshape(6, 8) % 7 == 0, 0.0, 3 * problem.u).astype(np.float32)
    loss = METHODS["greedyhash"].loss
    gradient = jax.grad(lambda z: loss(problem.inputs(relaxed_codes=z), alpha=1.0)["classification"])(jnp.asarray(z))
    logits = np.where(z < 0, -1.0, 1.0) @ problem.classifier.astype(np.float64) + problem.bias
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    count = problem.labels.sum(axis=1, keepdims=True)
    residue = np.where(count > 0, softmax, 0.0) - problem.labels / np.maximum(count, 1)
    np.testing.assert_allclose(gradient, residue @ problem.classifier.T / len(z), rtol=1e-4, atol=1e-6)


def test_hyp2_takes_pairs_of_images_with_several_labels_alone():
    """By hand, K = 2, four classes, so d = 1 and z = 0: images 0 and 1 are unlike, 2 has one label, 3 shares one with both."""
    labels = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1], [1, 0, 1, 0]], np.uint8)
    u = np.array([[1.0, 0.0], [0.6, 0.8], [1.0, 0.0], [1.0, 0.0]], np.float32)
    problem = Problem("multi", 2)
    inputs = problem.inputs()._replace(relaxed_codes=jnp.asarray(u), labels=jnp.asarray(labels, jnp.float32))
    found = METHODS["hyp2"].loss(inputs, beta=1.0)["pairs"]
    np.testing.assert_allclose(found, 0.6, rtol=1e-6)


@pytest.mark.parametrize("n", [6, 5])
def test_bihalfs_gradient_is_the_papers(n):
    """It is that of the classification at b, (softmax - target) W' / N, plus gamma (u - b) / (N K); also for odd N."""
    problem = Problem("multi", 8)
    problem.u, problem.labels = 2 * problem.u[-n:], problem.labels[-n:]
    parameters = problem.parameters

    def total(u):
        return objective.total(METHODS["bihalf"].loss(loss_inputs(u, problem.labels, parameters=parameters)))

    b = np.array(oracles.halves(problem.u))
    assert (b.sum(axis=0) == 2 * (n // 2) - n).all()
    softmax = np.exp(b @ problem.classifier.astype(np.float64) + problem.bias)
    count = problem.labels.sum(axis=1, keepdims=True)
    softmax = np.where(count > 0, softmax / softmax.sum(axis=1, keepdims=True), 0.0)
    of_classification = (softmax - problem.labels / np.maximum(count, 1)) @ problem.classifier.T / n
    wanted = of_classification + 6 * (problem.u - b) / (n * 8)
    np.testing.assert_allclose(jax.grad(total)(jnp.asarray(problem.u)), wanted, rtol=1e-4, atol=1e-6)


def test_bihalf_halves_equal_numbers():
    """Also where numbers are equal, exactly half of the batch gets +1, and no smaller number before a greater one."""
    u = np.array([[0, 1], [0, 2], [0, 2], [0, 2], [0, 3]], np.float32)
    b = np.asarray(half_signs(jnp.asarray(u)))
    np.testing.assert_array_equal(b, [[1, -1], [1, 1], [-1, -1], [-1, -1], [-1, 1]])


def test_psldhs_class_gradient():
    """It is the slope of the double loop's loss, by central differences, on both sides of 0."""
    h = np.tanh(np.random.default_rng(0).normal(size=(5, 6)))
    weights = {"alpha": ALPHA, "beta": BETA}
    found = class_gradient(h)
    for place in np.ndindex(*h.shape):
        step = np.zeros(h.shape)
        step[place] = 1e-5
        slope = (oracles.psldh_classes(h + step, **weights) - oracles.psldh_classes(h - step, **weights)) / 2e-5
        np.testing.assert_allclose(found[place], slope, rtol=1e-5, atol=1e-7)


def test_psldhs_class_codes():
    """They are signs that depend on the seed alone, and further apart than random ones."""
    codes = class_codes(10, 48, seed=0)
    assert codes.dtype == np.float32
    assert set(np.unique(codes)) == {-1, 1}
    class_codes.cache_clear()
    assert np.array_equal(class_codes(10, 48, seed=0), codes)
    assert not np.array_equal(class_codes(10, 48, seed=1), codes)
    apart = ~np.eye(10, dtype=bool)
    random = np.asarray(hash_centers.random_signs(10, 48, seed=0))
    least, least_of_random = (((48 - signs @ signs.T) / 2)[apart].min() for signs in (codes, random))
    assert least >= 18 > least_of_random


def test_dhds_second_view_learns_from_the_first():
    """Distillation has a gradient by the second view's codes and none by the first's; the other terms the opposite."""
    problem, loss = Problem("single", 8), METHODS["dhd"].loss

    def term(codes, name):
        return loss(problem.inputs(relaxed_codes=codes[0], second_view=codes[1]))[name]

    for name, learns in (("classification", 0), ("distillation", 1), ("quantization", 0)):
        gradients = jax.grad(term)((jnp.asarray(problem.u), jnp.asarray(problem.second_view)), name)
        assert np.abs(gradients[learns]).max() > 1e-4
        assert not gradients[1 - learns].any()


@pytest.mark.parametrize("lacking", ["second_view", "parameters"])
def test_dhd_needs_a_second_view_and_proxies(lacking):
    """Without one of them the loss raises an error that names it."""
    with pytest.raises(InputError, match=f"got {lacking}=None; fix: pass {lacking}"):
        METHODS["dhd"].loss(Problem("single", 8).inputs(**{lacking: None}))


BEST_LINEAR = {  # classes and bits: d of the best linear code with so many words, from the tables of Brouwer and Grassl
    (10, 12): 6, (10, 24): 12, (10, 48): 24, (10, 64): 33, (21, 12): 4, (21, 36): 17, (38, 16): 6, (80, 24): 10, (100, 32): 14,
    (100, 48): 22, (100, 64): 32,
}  # fmt: skip


def test_hyp2_has_the_threshold_of_its_authors():
    """z = 1 - 2 d / K."""
    for (classes, bits), distance in BEST_LINEAR.items():
        np.testing.assert_allclose(METHODS["hyp2"].module._threshold(bits, classes), 1 - 2 * distance / bits, atol=1e-12)


def test_hyp2s_proxies():
    """He's rule: a variance of 2 / classes; a rate of 10 makes the same directions ten times shorter."""
    (at_1, at_10) = (METHODS["hyp2"](proxy_rate=rate).parameters(jax.random.key(0), 64, 100)["proxies"] for rate in (1.0, 10.0))
    assert at_1.shape == (100, 64)
    np.testing.assert_allclose(np.var(at_1), 2 / 100, rtol=0.05)
    np.testing.assert_allclose(at_1, 10 * at_10, rtol=1e-5)


def test_csq_decides_ties_by_coins():
    """Bits where an image's centers disagree, or without labels all bits, are random signs, for any K."""
    for bits in (12, 16):
        for seed in range(3):
            ties = np.asarray(hash_centers.random_signs(1, bits, seed=seed))[0]
            assert Counter(ties.tolist()).keys() == {-1.0, 1.0}
        assert not np.array_equal(ties, hash_centers.hash_centers(1, bits, seed=3)[0])
    problem = Problem("multi", 16)
    ties = np.asarray(hash_centers.random_signs(1, 16, seed=SEED + 1))[0]
    loss = METHODS["csq"].loss

    def of_codes(u):
        return loss(problem.inputs(relaxed_codes=u), central=1.0, quantization=0.0)["central"]

    gradient = jax.grad(of_codes)(jnp.zeros((6, 16)))
    assert not problem.labels[2].any()
    np.testing.assert_array_equal(np.sign(gradient[2]), -ties)


# In the order of the batch.
CHANGED = (
    "relaxed_codes",
    "labels",
    "similar",
    "errors",
    "semantic",
    "similar_sets",
    "batch_similar_sets",
    "label_set",
    "second_view",
)


@cache
def jitted(name):
    """Return the objective as a function of a batch's arrays, and its gradient by codes, features and parameters."""
    problem = Problem("multi", 8)
    loss = METHODS[name]().loss
    objective_of = jax.jit(lambda arrays: objective.total(loss(problem.inputs()._replace(**arrays))))

    def of_outputs(outputs):
        return objective.total(loss(problem.inputs(**outputs)))

    return problem, objective_of, jax.jit(jax.value_and_grad(of_outputs))


@pytest.mark.parametrize("name", METHODS)
def test_the_order_of_a_batch_changes_no_loss(name):
    """Images in any order give the same loss, up to the rounding of sums."""
    problem, objective_of, _ = jitted(name)
    arrays = {key: np.asarray(getattr(problem.inputs(), key)) for key in CHANGED}
    wanted = objective_of(arrays)

    @settings(max_examples=20)
    @given(st.permutations(range(len(BATCH))))
    def check(order):
        found = objective_of({key: array[np.array(order)] for key, array in arrays.items()})
        np.testing.assert_allclose(found, wanted, rtol=1e-5)

    check()


@pytest.mark.parametrize("name", METHODS)
def test_gradients_are_finite_at_the_edges(name):
    """No gradient is NaN at u = 0, at saturated and huge codes, at a code's target, and for identical images."""
    problem, _, gradient = jitted(name)
    signs = np.where(problem.u < 0, -1, 1).astype(np.float32)
    same = np.repeat(problem.u[:1], len(BATCH), axis=0)
    semantic = problem.semantic
    edges = {
        "zero": (0 * problem.u, 0 * semantic),
        "saturated": (signs, semantic),
        "its hash codes": (problem.codes[BATCH], semantic),
        "all ones": (np.ones_like(signs), semantic),
        "all alike": (same, np.repeat(semantic[:1], len(BATCH), axis=0)),
        "saturated and alike": (np.repeat(signs[:1], len(BATCH), axis=0), 1e-8 * semantic),
    }
    if METHODS[name]().head in ("linear", "batch_norm"):
        edges["huge"] = (1e3 * signs, 1e3 * semantic)
    for edge, (u, features) in edges.items():
        outputs = {"relaxed_codes": u, "semantic": features, "parameters": problem.parameters}
        value, found = gradient(outputs)
        assert np.isfinite(value), edge
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(found)), edge


@pytest.mark.parametrize("name", METHODS)
def test_every_image_has_a_gradient(name):
    """The gradient by the codes of each image with a label isn't 0."""
    problem, _, gradient = jitted(name)
    inputs = problem.inputs()
    outputs = {"relaxed_codes": problem.u, "semantic": inputs.semantic, "parameters": problem.parameters}
    found = gradient(outputs)[1]["relaxed_codes"]
    assert (np.abs(found).max(axis=1) > 1e-4)[problem.labels.any(axis=1)].all()


@cache
def over_devices(name, devices):
    """Return gradients and metrics by device, of a training step on a batch of 8 of 12 images over devices."""
    random, method = np.random.default_rng(1), METHODS[name]()
    model = ImgNet(backbone=None, bits=6, features=8, mean=(0.5,) * 3, deviation=(0.5,) * 3, head=method.head, axis_name=AXIS)
    index, sets = np.array([9, 2, 4, 11, 0, 5, 7, 1], np.int32), np.array([[1, 0, 0], [0, 1, 1], [0, 0, 1]], np.uint8)
    batch = {"inputs": random.normal(size=(8, 10)).astype(np.float32), "index": index, "label_set": index % 3}
    if method.second_view:
        batch["second_inputs"] = random.normal(size=(8, 10)).astype(np.float32)
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(0), batch["inputs"])
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    if method.parameters is not None:
        params = {**params, "method": method.parameters(jax.random.key(1), 6, 3)}
    drawn = partial(random.uniform, -1, 1)
    by_device = partial(jax.tree.map, lambda x: x.reshape(devices, -1, *x.shape[1:]))
    bank = drawn((12, 6)).astype(np.float32)
    key = np.array([0, 1], np.uint32)
    state = ImgNetState(params=params, batch_stats=batch_stats, opt_state=(), key=key, bank=by_device(bank))
    targets = Targets(
        bank=by_device(drawn((12, 6)).astype(np.float32)) if method.twin else None,
        codes=by_device(random.choice(np.array([-1, 1], np.int8), (12, 6))),
        set_index=by_device(np.arange(12, dtype=np.int32) % 3),
        row_weights=by_device(np.full(12, 1 / 12, np.float32)),
        sets=sets,
        progress=np.float32(0.5),
        guidance=objective.Guidance(
            drawn((3, 8)).astype(np.float32), drawn((3, 6)).astype(np.float32), np.full(3, 1 / 3, np.float32)
        ),
    )
    step = partial(
        img_net_gradients,
        model=model,
        loss=method.loss,
        statistics=objective.PairStatistics(ratio=0.5, similar_weight=1.5, dissimilar_weight=0.75),
        seed=SEED,
        axis_name=AXIS,
    )
    axes = (
        ImgNetState(params=None, batch_stats=None, opt_state=None, key=None, bank=0),
        Targets(bank=0, codes=0, set_index=0, row_weights=0, sets=None, progress=None, guidance=None),
        0,
    )
    gradients, _, metrics = jax.jit(jax.vmap(step, in_axes=axes, axis_name=AXIS))(state, targets, by_device(batch))
    return jax.tree.map(np.asarray, gradients.params), jax.tree.map(np.asarray, metrics)


@pytest.mark.parametrize("devices", [2, 4])
@pytest.mark.parametrize("name", ["adsh", "dadh", "dhn", "greedyhash", "dseh", "orthohash", "bihalf", "dhd"])
def test_any_number_of_devices_gives_the_same_loss_and_gradients(name, devices):
    """Of rows, pairs and halves of the batch, a classifier, LabelNet, BatchNorm or two views, both are one device's to 1e-5."""
    (gradients, terms), (of_many, terms_of_many) = over_devices(name, 1), over_devices(name, devices)
    for wanted, found in zip(jax.tree.leaves(gradients), jax.tree.leaves(of_many), strict=True):
        assert np.abs(wanted).max() > 1e-4
        for of_one_device in found:
            np.testing.assert_allclose(of_one_device, wanted[0], rtol=1e-5, atol=1e-6)
    assert terms.keys() == terms_of_many.keys()
    for term in terms:
        np.testing.assert_allclose(terms_of_many[term], np.full(devices, terms[term][0]), rtol=1e-5, atol=1e-8)
