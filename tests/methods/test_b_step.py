"""The B-step against brute force over its objective."""

import itertools
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsq_jax.methods import b_step


def dense_signed_similarity(labels, ratio):
    return np.array([[1.0 if (a & b).any() else -ratio for b in labels] for a in labels])


@pytest.mark.parametrize("block", [1, 3, 1024])
def test_signed_similarity_product_equals_the_dense_matrix(block):
    """The product by label sets is that with the n x n matrix, for any block of sets; some images have no label."""
    random = np.random.default_rng(0)
    labels = (random.random((60, 4)) < 0.3).astype(np.uint8)
    sets, index = np.unique(labels, axis=0, return_inverse=True)
    matrix = random.normal(size=(60, 5))
    product = b_step.signed_similarity_product(
        matrix, label_sets=sets, set_index=index.ravel(), ratio=0.4, sum_over_processes=np.asarray, block=block
    )
    np.testing.assert_allclose(product, dense_signed_similarity(labels, 0.4) @ matrix, rtol=1e-12, atol=1e-12)


class Problem:
    """Inputs of a B-step, and its objective by a loop over all images i, j."""

    def __init__(self, seed, *, n=8, bits=4, classes=3, banks=2, labelled=True, mu=1.0, lam=0.1, kappa=0.05, rho=0.1):
        random = np.random.default_rng(seed)
        self.labels = (random.random((n, classes)) < 0.4).astype(np.uint8)
        self.sets, index = np.unique(self.labels, axis=0, return_inverse=True)
        self.index = index.ravel()
        self.start = random.choice(np.array([-1, 1], np.int8), (n, bits))
        self.banks = [np.tanh(random.normal(size=(n, bits))).astype(np.float32) for _ in range(banks)]
        self.label_codes = np.tanh(random.normal(size=(len(self.sets), bits))) if labelled else None
        self.ratio, self.mu, self.lam, self.kappa, self.rho = float(random.uniform(0.05, 1)), mu, lam, kappa, rho

    def update(self, start=None, *, rows=slice(None), total=np.asarray):
        """Run the package's B-step, for all rows or for those of one process."""
        return b_step.update_codes(
            (self.start if start is None else start)[rows],
            [bank[rows] for bank in self.banks],
            label_codes=self.label_codes,
            label_sets=self.sets,
            set_index=self.index[rows],
            ratio=self.ratio,
            difference_weight=self.mu,
            quantization_weight=self.lam,
            bit_likelihood_weight=self.kappa,
            label_code_weight=self.rho,
            size=len(self.start),
            sum_over_processes=total,
        )

    def objective(self, candidates):
        """Return the objective, float64[...], of codes [..., n, bits]: for many candidates at once, image by image."""
        candidates = np.asarray(candidates, np.float64)
        n, bits = candidates.shape[-2:]
        target = dense_signed_similarity(self.labels, self.ratio)
        total = np.zeros(candidates.shape[:-2])
        for bank in np.asarray(self.banks, np.float64):
            for i, j in itertools.product(range(n), repeat=2):
                total += self.mu * (candidates[..., j, :] @ bank[i] / bits - target[i, j]) ** 2 / n**2
            for i in range(n):
                total += self.lam * np.sum((bank[i] - candidates[..., i, :]) ** 2, axis=-1) / bits / n
                total -= self.kappa * np.sum(np.log((1 + bank[i] * candidates[..., i, :]) / 2), axis=-1) / bits / n
        if self.label_codes is not None:
            for i in range(n):
                total += self.rho * np.sum((candidates[..., i, :] - self.label_codes[self.index[i]]) ** 2, axis=-1) / bits / n
        return total

    def brute_force(self):
        """Return the codes and the objective after each sweep, each column by trying all 2^n values."""
        best, values = self.start.copy(), [float(self.objective(self.start))]
        columns = np.array(list(itertools.product([-1, 1], repeat=len(best))), np.int8)  # [2^n, n]
        while True:
            for k in range(best.shape[1]):
                candidates = np.repeat(best[None], len(columns), axis=0)
                candidates[:, :, k] = columns
                best = candidates[np.argmin(self.objective(candidates))]
            values.append(float(self.objective(best)))
            if values[-1] > values[-2] - 1e-12:
                return best, values


VARIANTS = {
    "two banks": {},
    "one bank": {"banks": 1},
    "no label codes": {"labelled": False},
    "one bank, no label codes": {"banks": 1, "labelled": False},
    "label codes rule": {"rho": 5.0},
    "no difference term": {"mu": 0.0},
    "difference term alone": {"lam": 0.0, "rho": 0.0},
}
variants = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())


@variants
@pytest.mark.parametrize("seed", range(3))
def test_each_column_update_is_the_optimum_over_all_sign_vectors(variant, seed):
    """The descent gives what trying all 2^8 values of each column in turn gives, with as many sweeps."""
    problem = Problem(seed, **variant)
    update = problem.update()
    expected, values = problem.brute_force()
    np.testing.assert_array_equal(update.codes, expected)
    assert update.codes.dtype == np.int8
    assert update.sweeps == len(values) - 1
    np.testing.assert_allclose(np.diff(update.objectives), np.diff(values), atol=1e-12)


PROBLEMS = st.builds(
    Problem,
    st.integers(0, 2**32 - 1),
    n=st.integers(2, 10),
    bits=st.integers(1, 9),
    classes=st.integers(1, 4),
    banks=st.integers(1, 2),
    labelled=st.booleans(),
    mu=st.sampled_from([0.0, 0.3, 1.0]),
    lam=st.sampled_from([0.0, 0.1, 2.0]),
    kappa=st.sampled_from([0.0, 0.1, 2.0]),
    rho=st.sampled_from([0.0, 0.1, 2.0]),
)


@given(PROBLEMS)
def test_the_objective_never_rises(problem):
    """The reported values never rise over the sweeps, and they fall by as much as the objective itself."""
    update = problem.update()
    assert 1 <= update.sweeps <= b_step.MAX_SWEEPS
    assert len(update.objectives) == update.sweeps + 1
    assert (np.diff(update.objectives) <= 1e-12).all()
    fall = problem.objective(problem.start) - problem.objective(update.codes)
    assert fall >= -1e-12
    np.testing.assert_allclose(update.objectives[0] - update.objectives[-1], fall, atol=1e-11)


@given(PROBLEMS)
def test_no_flip_of_a_bit_improves_a_fixed_point(problem):
    """No change of one bit lowers the objective after the descent, and a second descent changes nothing."""
    update = problem.update()
    assert update.sweeps < b_step.MAX_SWEEPS  # so it reached a fixed point
    flips = update.codes * (1 - 2 * np.eye(update.codes.size, dtype=np.int8).reshape(-1, *update.codes.shape))
    assert (problem.objective(flips) >= problem.objective(update.codes) - 1e-12).all()
    again = problem.update(start=update.codes)
    assert again.sweeps == 1
    np.testing.assert_array_equal(again.codes, update.codes)


@pytest.mark.parametrize("block", [1, 3, 10, 2048])
def test_rows_are_swept_in_blocks_as_one_by_one(block):
    """Ten rows, in blocks that divide ten or don't: the bits, and whether one changed; each sweep goes on from the last."""
    random = np.random.default_rng(0)
    quadratic = random.normal(size=(6, 6))
    quadratic += quadratic.T
    linear, codes = 2 * random.normal(size=(10, 6)), random.choice([-1.0, 1.0], size=(10, 6))
    for _ in range(3):
        before, expected = codes.copy(), codes.copy()
        for row, k in np.ndindex(codes.shape):
            others = sum(expected[row, j] * quadratic[j, k] for j in range(6) if j != k)
            expected[row, k] = 1 if linear[row, k] > others else -1
        assert b_step._sweep(codes, linear, quadratic, block=block) == (before != expected).any()
        np.testing.assert_array_equal(codes, expected)


def test_the_descent_ends_after_the_allowed_sweeps(monkeypatch):
    """A problem that needs more sweeps than allowed ends with the codes of the last one."""
    problem = Problem(0, n=40, bits=16)
    assert problem.update().sweeps > 2
    monkeypatch.setattr(b_step, "MAX_SWEEPS", 2)
    update = problem.update()
    assert update.sweeps == 2
    fall = problem.objective(problem.start) - problem.objective(update.codes)
    np.testing.assert_allclose(update.objectives[0] - update.objectives[-1], fall, atol=1e-11)


def test_an_argument_of_zero_keeps_the_old_bit():
    """With banks of zeros all bits stay, -1 as well as +1, with or without the difference term."""
    for mu in (0.0, 1.0):
        problem = Problem(0, mu=mu, labelled=False)
        problem.banks = [np.zeros_like(bank) for bank in problem.banks]
        update = problem.update()
        np.testing.assert_array_equal(update.codes, problem.start)
        assert update.sweeps == 1
        assert update.difference_share == 0
        assert (problem.start == -1).any()


def plain_difference_share(problem, update):
    """Return the share of bits that are not sgn(lam (u + v) + kappa / 2 (atanh u + atanh v) + rho h), at 0 the old bit."""
    differ = 0
    for i, k in np.ndindex(update.codes.shape):
        pull = sum(problem.lam * float(bank[i, k]) + problem.kappa / 2 * math.atanh(bank[i, k]) for bank in problem.banks)
        if problem.label_codes is not None:
            pull += problem.rho * problem.label_codes[problem.index[i], k]
        differ += update.codes[i, k] != (problem.start[i, k] if pull == 0 else np.sign(pull))
    return differ / update.codes.size


@variants
def test_difference_share_is_what_the_difference_term_changes(variant):
    """Counted bit by bit; it is 0 without the difference term, and above 0 with it."""
    problem = Problem(1, n=40, bits=8, **variant)
    update = problem.update()
    assert update.difference_share == plain_difference_share(problem, update)
    assert (update.difference_share > 0) == (problem.mu > 0)


def update_by_processes(problem, *, n, processes):
    """The updates of a problem by threads that stand for processes, each with some of the n rows, and sums over all."""
    parts = np.array_split(np.arange(n), processes)
    barrier, room = threading.Barrier(processes), [None] * processes

    def total(array, *, process):
        room[process] = np.asarray(array)
        barrier.wait(timeout=60)
        summed = np.sum(room, axis=0)
        barrier.wait(timeout=60)
        return summed

    with ThreadPoolExecutor(processes) as pool:
        return list(pool.map(lambda k: problem.update(rows=parts[k], total=partial(total, process=k)), range(processes)))


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_with_some_rows_each(processes):
    """With sums over all processes, they get the codes, sweeps and figures of one process with all rows."""
    problem = Problem(3, n=24)
    whole = problem.update()
    updates = update_by_processes(problem, n=24, processes=processes)
    assert np.array_equal(np.concatenate([update.codes for update in updates]), whole.codes)
    for update in updates:
        assert update.sweeps == whole.sweeps
        np.testing.assert_allclose(update.objectives, whole.objectives)
        assert update.difference_share == pytest.approx(whole.difference_share)
