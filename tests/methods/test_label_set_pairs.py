"""Pairs of label sets by blocks of rows, against all of them at once in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsq_jax.methods import label_set_pairs

BLOCKS = [1, 3, 11, 100]  # of 11 rows: one at a time, a shorter last block, all, more than there are


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 12))
def test_similar_rows_are_those_of_a_loop(seed, m, rows):
    """Every row comes once, in order, with S to all label sets; some have no label."""
    sets = (np.random.default_rng(seed).random((m, 3)) < 0.4).astype(np.uint8)
    found = list(label_set_pairs.similar_rows(sets, rows=rows))
    assert [row for block, _ in found for row in range(m)[block]] == list(range(m))
    assert all(len(similar) <= rows and similar.dtype == bool for _, similar in found)
    expected = [[any(x and y for x, y in zip(a, b, strict=True)) for b in sets] for a in sets]
    np.testing.assert_array_equal(np.concatenate([similar for _, similar in found]), expected)


def test_blocks_of_similar_rows_are_bounded(monkeypatch):
    """A block has at most MOST_NUMBERS pairs, whatever number of rows is asked for, and at least one row."""
    monkeypatch.setattr(label_set_pairs, "MOST_NUMBERS", 35)
    sizes = {m: [len(rows) for _, rows in label_set_pairs.similar_rows(np.ones((m, 1), np.uint8))] for m in (11, 40)}
    assert sizes == {11: [3, 3, 3, 2], 40: [1] * 40}


def by_blocks(monkeypatch, rows, *, width):
    monkeypatch.setattr(label_set_pairs, "MOST_AT_ONCE", 10)
    monkeypatch.setattr(label_set_pairs, "MOST_NUMBERS", rows * width)


@pytest.mark.parametrize("rows", BLOCKS)
def test_sums_over_pairs(rows, monkeypatch):
    """Sum and gradient of (x_i . x_j)^2 w_i w_j are those of float64, for any length of the last block."""
    by_blocks(monkeypatch, rows, width=11)
    random = np.random.default_rng(0)
    x, w = (random.normal(size=shape).astype(np.float32) for shape in ((11, 4), (11,)))

    def pairs(some, others):
        return {"sum": jnp.sum(some[1][:, None] * others[1][None, :] * (some[0] @ others[0].T) ** 2)}

    value, (of_x, of_w) = jax.jit(jax.value_and_grad(lambda arrays: label_set_pairs.sum_pairs(pairs, arrays)["sum"]))((x, w))
    x, w = x.astype(np.float64), w.astype(np.float64)
    products = x @ x.T
    np.testing.assert_allclose(value, w @ products**2 @ w, rtol=1e-5)
    np.testing.assert_allclose(of_x, 4 * w[:, None] * (products * w) @ x, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(of_w, 2 * products**2 @ w, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", BLOCKS)
def test_functions_of_rows(rows, monkeypatch):
    """Outputs and the gradient of constants in the function are those of all rows at once, in the rows' order."""
    by_blocks(monkeypatch, rows, width=6)
    random = np.random.default_rng(1)
    x, kernel, outer = (random.normal(size=shape).astype(np.float32) for shape in ((11, 4), (4, 6), (11, 6)))

    def outputs(kernel):
        return label_set_pairs.map_rows(lambda x: {"tanh": jnp.tanh(x @ kernel), "sum": x.sum(axis=1)}, x, width=6)

    found, gradient = (
        jax.jit(outputs)(kernel),
        jax.jit(jax.grad(lambda kernel: jnp.sum(outer * outputs(kernel)["tanh"])))(kernel),
    )
    expected = np.tanh(x.astype(np.float64) @ kernel)
    np.testing.assert_allclose(found["tanh"], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["sum"], x.sum(axis=1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, x.T @ (outer * (1 - expected**2)), rtol=1e-4, atol=1e-5)


def test_few_rows_are_computed_at_once():
    """Up to MOST_AT_ONCE rows the function is called once, with all of them."""
    calls = []
    label_set_pairs.sum_pairs(lambda some, others: calls.append((len(some), len(others))), jnp.zeros((11, 2)))
    label_set_pairs.map_rows(lambda some: calls.append(len(some)), jnp.zeros((11, 2)), width=10**9)
    assert calls == [(11, 11), 11]
