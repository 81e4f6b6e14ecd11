"""loss_inputs: the loss of one batch on its own is that of a training step, under grad, jit and vmap, and bad input."""

import re
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adsq_jax import methods
from adsq_jax.errors import InputError
from adsq_jax.methods import METHODS, loss_inputs, objective
from adsq_jax.training.state import ImgNetState, Targets
from adsq_jax.training.step import img_net_gradients

N, BITS, CLASSES, FEATURES, SEED = 7, 8, 4, 3, 5
IDS = np.array([0, 2, 1, 3, 2, 0, 1])
LABELS = {
    "single": np.eye(CLASSES, dtype=np.uint8)[IDS],
    "multi": np.eye(CLASSES, dtype=np.uint8)[IDS] | (np.arange(28) % 5 == 0).reshape(7, 4),
}


class Batch:
    """A batch that is its own training set: relaxed codes, features, and what else a loss may use."""

    def __init__(self, kind):
        random = np.random.default_rng(len(kind))
        self.labels = LABELS[kind].astype(np.uint8)
        self.u = np.tanh(random.normal(size=(N, BITS))).astype(np.float32)
        self.semantic = random.normal(size=(N, FEATURES)).astype(np.float32)
        self.bank = np.tanh(random.normal(size=(N, BITS))).astype(np.float32)
        self.codes = random.choice(np.array([-1, 1], np.int8), (N, BITS))
        self.sets = objective.label_sets(self.labels)
        m = len(self.sets.sets)
        self.label_features = random.normal(size=(m, FEATURES)).astype(np.float32)
        self.label_codes = np.tanh(random.normal(size=(m, BITS))).astype(np.float32)
        self.second_view = np.tanh(random.normal(size=(N, BITS))).astype(np.float32)
        self.parameters = {
            "kernel": random.normal(size=(BITS, CLASSES)).astype(np.float32),
            "bias": random.normal(size=CLASSES).astype(np.float32),
            "proxies": random.normal(size=(CLASSES, BITS)).astype(np.float32),
        }

    def inputs(self, u, **changes):
        """Return what `loss_inputs` makes of the batch."""
        by_image = self.sets.set_index
        known = {
            "bank": self.bank,
            "bank_codes": self.codes,
            "semantic": self.semantic,
            "seed": SEED,
            "progress": 0.5,
            "parameters": self.parameters,
            "second_view": self.second_view,
            "guidance": objective.Guidance(
                self.label_features[by_image], self.label_codes[by_image], np.full(N, 1 / N, np.float32)
            ),
        }
        return loss_inputs(u, self.labels, **{**known, **changes})

    def step(self, loss, *, second_view):
        """Return the terms and the gradient by u of a training step on the batch, whose network has u as its parameter."""
        others = (self.second_view,) if second_view else ()

        class Network(nn.Module):
            @nn.compact
            def __call__(self, inputs, *, train):
                return inputs, jnp.concatenate([self.param("u", nn.initializers.zeros, (N, BITS)), *others])

        sets = self.sets.sets
        state = ImgNetState(
            params={"u": self.u, "method": self.parameters},
            batch_stats={},
            opt_state=(),
            key=np.array([0, 1], np.uint32),
            bank=np.zeros_like(self.bank),
        )
        targets = Targets(
            bank=self.bank,
            codes=self.codes,
            set_index=self.sets.set_index,
            row_weights=np.full(N, 1 / N, np.float32),
            sets=sets,
            progress=np.float32(0.5),
            guidance=objective.Guidance(self.label_features, self.label_codes, (self.sets.counts / N).astype(np.float32)),
        )
        batch = {"inputs": self.semantic, "index": np.arange(N, dtype=np.int32), "label_set": self.sets.set_index}
        batch |= {"second_inputs": self.semantic} if second_view else {}
        gradients, _, metrics = img_net_gradients(
            *jax.tree.map(jnp.asarray, (state, targets, batch)),
            model=Network(),
            loss=loss,
            statistics=objective.pair_statistics(self.sets),
            seed=SEED,
            axis_name=None,
        )
        return {name: value for name, value in metrics.items() if name not in ("loss", "grad_norm")}, gradients.params["u"]


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("name", METHODS)
def test_loss_and_gradient_are_those_of_a_training_step(name, kind):
    """Every term and the gradient by the relaxed codes equal those of the step, under jit."""
    batch, method = Batch(kind), METHODS[name]()
    loss = method.loss
    expected, expected_gradient = jax.jit(partial(batch.step, loss, second_view=method.second_view))()

    def total(u):
        terms = loss(batch.inputs(u))
        return objective.total(terms), terms

    gradient, terms = jax.jit(jax.grad(total, has_aux=True))(batch.u)
    assert terms.keys() == expected.keys()
    for term, value in terms.items():
        np.testing.assert_allclose(value, expected[term], rtol=1e-5, err_msg=term)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_losses_under_vmap(name):
    """Over batches with traced codes and multi-hot labels, vmap gives each batch's loss."""
    batches, loss = [Batch(kind) for kind in LABELS], METHODS[name]().loss
    same = {name: getattr(batches[0], name) for name in ("semantic", "parameters", "second_view")}
    guidance = objective.Guidance(batches[0].semantic, batches[0].bank, np.full(N, 1 / N, np.float32))

    def total(u, labels):
        return objective.total(loss(loss_inputs(u, labels, guidance=guidance, **same)))

    stacked = [np.stack([getattr(batch, field) for batch in batches]) for field in ("u", "labels")]
    one = jax.jit(total)
    values = jax.jit(jax.vmap(total))(*stacked)
    np.testing.assert_allclose(values, [one(batch.u, batch.labels) for batch in batches], rtol=1e-5)


@pytest.mark.parametrize("kind", LABELS)
def test_traced_and_concrete_labels_agree(kind):
    """Plain calls, jit, grad and vmap over codes alone give the same loss, whose statistics differ by rounding at most."""
    batch = Batch(kind)

    def total(u, labels=batch.labels):
        return objective.total(methods.dpsh.loss(loss_inputs(u, labels)))

    value = total(batch.u)
    np.testing.assert_allclose(jax.jit(total)(batch.u, batch.labels), value, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(total, in_axes=(0, None))(batch.u[None], batch.labels), [value], rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(total)(batch.u[None]), [value], rtol=1e-6)
    gradient = jax.grad(total)(batch.u)
    np.testing.assert_allclose(jax.jit(jax.grad(total))(batch.u, batch.labels), gradient, rtol=1e-5, atol=1e-7)


def test_defaults():
    """The bank and the targets are the batch's own, as constants; weights add up to 1 over all pairs."""
    batch = Batch("single")
    u = batch.u.copy()
    u[0, :2] = 0.0, -0.0
    inputs = loss_inputs(u, batch.labels)
    np.testing.assert_array_equal(inputs.bank, u)
    np.testing.assert_array_equal(inputs.semantic, u)
    np.testing.assert_array_equal(inputs.bank_codes, np.where(u < 0, -1, 1))
    np.testing.assert_array_equal(inputs.errors, u - np.where(u < 0, -1, 1).astype(np.float32))
    np.testing.assert_array_equal(inputs.similar, IDS[:, None] == IDS[None, :])
    np.testing.assert_array_equal(inputs.similar_sets, inputs.similar)
    np.testing.assert_array_equal(inputs.batch_similar_sets, inputs.similar)
    np.testing.assert_array_equal(inputs.label_set, np.arange(N))
    np.testing.assert_allclose(inputs.row_weights, np.full((1, N), 1 / N**2), rtol=1e-6)
    assert inputs.statistics == objective.pair_statistics(objective.label_sets(batch.labels))
    assert inputs.n_devices == 1
    assert inputs.sum_over_devices(3) == 3
    gradient = jax.grad(lambda u: loss_inputs(u, batch.labels).bank.sum() + loss_inputs(u, batch.labels).bank_codes.sum())(u)
    assert not gradient.any()


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (IDS, None),
        (jnp.asarray(IDS), CLASSES),
        (IDS.tolist(), ["a", "b", "c", "d"]),
        ([f"class {i}" for i in IDS], None),
        (np.array(list("wxyz"))[IDS], ["w", "x", "y", "z"]),
        (LABELS["single"].astype(bool), None),
        (LABELS["single"].astype(np.float64).tolist(), CLASSES),
    ],
)
def test_forms_of_labels(labels, classes):
    """Ids, names and multi-hot labels of any dtype give the same multi-hot labels."""
    inputs = loss_inputs(Batch("single").u, labels, classes=classes)
    assert inputs.labels.dtype == jnp.float32
    np.testing.assert_array_equal(inputs.labels, LABELS["single"])


def test_classes_beyond_those_of_the_batch():
    """Columns without an image are 0: for ids, for names, and for traced ids."""
    u = Batch("single").u
    wide = np.pad(LABELS["single"], ((0, 0), (0, 2)))
    for labels, classes in ((IDS, 6), (np.array(list("wxyz"))[IDS], list("wxyzab"))):
        np.testing.assert_array_equal(loss_inputs(u, labels, classes=classes).labels, wide)
    np.testing.assert_array_equal(jax.jit(lambda ids: loss_inputs(u, ids, classes=6).labels)(IDS), wide)


def test_traced_labels_of_one_kind_of_pairs():
    """They can't raise an error, but no number becomes NaN; concrete ones raise it."""
    u, same = Batch("single").u, np.ones((N, 1), bool)
    found = jax.jit(lambda labels: methods.dpsh.loss(loss_inputs(u, labels)))(same)
    assert all(np.isfinite(value) for value in found.values())
    with pytest.raises(InputError, match="got no dissimilar pairs"):
        loss_inputs(u, same)


def test_labels_of_one_column():
    """A column with a value above 1 is ids, in any integer dtype; a column of bool is one class; a traced one is refused."""
    u = Batch("single").u
    for dtype in (int, np.uint8, np.int32):
        np.testing.assert_array_equal(loss_inputs(u, IDS[:, None].astype(dtype)).labels, LABELS["single"])
    for one in (IDS[:, None] > 1, jnp.asarray(IDS[:, None] > 1)):
        np.testing.assert_array_equal(loss_inputs(u, one).labels, IDS[:, None] > 1)
    np.testing.assert_array_equal(jax.jit(lambda hot: loss_inputs(u, hot).labels)(IDS[:, None] > 1), IDS[:, None] > 1)
    with pytest.raises(InputError, match=r"traced labels have shape \[n, 1\]"):
        jax.jit(lambda ids: loss_inputs(u, ids).labels)(IDS[:, None])


@pytest.mark.parametrize("dtype", [np.float64, np.float16, jnp.bfloat16])
def test_codes_become_float32(dtype):
    """Any floating-point dtype is accepted."""
    inputs = loss_inputs(Batch("single").u.astype(dtype), IDS)
    assert inputs.relaxed_codes.dtype == inputs.bank.dtype == inputs.bank_codes.dtype == jnp.float32


U = np.zeros((N, BITS), np.float32)
BAD = {
    "one row": (U[0], IDS, {}, r"expected relaxed_codes \[batch, bits\], got shape \[8\]"),
    "no rows": (U[:0], IDS[:0], {}, r"expected relaxed_codes \[batch, bits\], got shape \[0, 8\]"),
    "integers": (U.astype(int), IDS, {}, "expected relaxed_codes as floating-point numbers, got int64"),
    "other lengths": (U, IDS[:3], {}, r"expected labels of 7 images, got shape \[3\]"),
    "three axes": (U, np.zeros((N, 2, 2), int), {}, r"expected labels of 7 images, got shape \[7, 2, 2\]"),
    "ragged labels": (U, [[0], [1, 2]] + [[0]] * 5, {}, "expected labels of one shape"),
    "float ids": (U, IDS / 2, {}, "expected class ids as integers, got float64"),
    "negative ids": (U, IDS - 1, {}, "expected class ids from 0, got -1 to 2"),
    "ids beyond classes": (U, IDS, {"classes": 3}, "expected class ids from 0 to 2, got 0 to 3"),
    "not multi-hot": (U, LABELS["single"] * 2, {}, "expected multi-hot labels of 0 and 1"),
    "a column of 0 and 1": (U, IDS[:, None] % 2, {}, r"labels have shape \[n, 1\] and values 0 and 1, which may be class ids"),
    "a column with a negative id": (U, IDS[:, None] - 1, {}, "expected class ids from 0, got -1 to 2"),
    "a column of fractions": (U, IDS[:, None] * 0.75, {}, "expected class ids as integers, got float64"),
    "columns": (U, LABELS["single"], {"classes": 3}, "expected multi-hot labels of 3 classes, got 4 columns"),
    "mixed names": (U, ["a", 1] + ["b"] * 5, {}, "expected a class name for each image"),
    "name": (U, ["cat", "dgo"] + ["dog"] * 5, {"classes": ["cat", "dog"]}, "got 'dgo'; fix: write 'dog'"),
    "number of names": (U, list("abcabca"), {"classes": 3}, "expected classes as the names in order, got 3"),
    "bank": (U, IDS, {"bank": U[:3]}, r"expected bank \[7, 8\], got shape \[3, 8\]"),
    "second_view": (U, IDS, {"second_view": U[:3]}, r"expected second_view \[7, 8\], got shape \[3, 8\]"),
    "bank_codes": (U, IDS, {"bank_codes": U[:, :3]}, r"expected bank_codes \[7, 8\], got shape \[7, 3\]"),
    "semantic": (U, IDS, {"semantic": U[:3]}, r"expected semantic \[7, any\], got shape \[3, 8\]"),
    "guidance": (U, IDS, {"guidance": objective.Guidance(U[:2], U[:2], U[:2, 0])}, r"expected guidance.features \[7, any\]"),
    "all similar": (U, IDS * 0, {}, "expected similar and dissimilar pairs of images, got no dissimilar pairs"),
}


@pytest.mark.parametrize(("relaxed_codes", "labels", "others", "text"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line(relaxed_codes, labels, others, text):
    """Each is one line, by a plain call and under jit with traced relaxed codes."""
    call = partial(loss_inputs, labels=labels, **others)
    for attempt in (call, jax.jit(lambda u: call(u).errors)):
        with pytest.raises(InputError) as error:
            attempt(relaxed_codes)
        assert re.search(text.replace("int64", "int(32|64)"), str(error.value))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "text"), [("greedyhash", "expected parameters of a classifier"), ("dseh", "expected LabelNet's outputs")]
)
def test_losses_that_need_more(name, text):
    """A method with parameters or LabelNet says so where they are missing."""
    with pytest.raises(InputError, match=text):
        METHODS[name].loss(loss_inputs(Batch("single").u, IDS))
