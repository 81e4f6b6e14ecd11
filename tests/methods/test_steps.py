"""The discrete steps of DSDH, ADSH and DADH: each bit against trial over the oracle's objective, which never rises."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adsq_jax.methods import METHODS, objective
from adsq_jax.methods.b_step import MAX_SWEEPS

KNOBS = {
    "dsdh": [
        {},
        {"mu": 0.3, "nu": 2.0, "eta": 0.02},
        {"eta": 0.0},  # the classifier rules alone
        {"nu": 0.0, "eta": 0.0},
        {"eta": 5.0},  # the network's codes rule
    ],
    "adsh": [{}, {"balanced": 0.0}, {"quantization": 0.0}, {"quantization": 3.0}],
    "dadh": [{}, {"balanced": 0.0, "quantization": 0.1}, {"quantization": 0.0}, {"quantization": 3.0}],
}
CASES = [(name, knobs) for name, choices in KNOBS.items() for knobs in choices]


class Problem:
    """A small training set, maybe with images of no label or of several, where the codes start, and one or two banks."""

    def __init__(self, name, seed, *, n=7, bits=5, classes=3, **knobs):
        random = np.random.default_rng(seed)
        self.name, self.n, self.bits = name, n, bits
        self.knobs = {**METHODS[name].SETTINGS, **knobs}
        self.method = METHODS[name].method(**self.knobs)
        self.labels = (random.random((n, classes)) < 0.4).astype(np.uint8)
        self.sets = objective.label_sets(self.labels)
        self.start = random.choice(np.array([-1, 1], np.int8), (n, bits))
        drawn = random.normal(size=(1 + self.method.twin, n, bits)).astype(np.float32)
        self.banks = list(np.tanh(drawn) if self.method.bounded else 2 * drawn)
        self.ratio = float(random.uniform(0.05, 1))
        self.label_codes = random.uniform(-1, 1, (len(self.sets.sets), bits))  # for ADSQ: must make no difference here

    def renewed(self, start=None, *, rows=slice(None), total=np.asarray):
        """What the package does, for all rows or for those of one process."""
        return self.method.update_codes(
            (self.start if start is None else start)[rows],
            [bank[rows] for bank in self.banks],
            label_codes=self.label_codes,
            label_sets=self.sets.sets,
            set_index=self.sets.set_index[rows],
            ratio=self.ratio,
            size=self.n,
            sum_over_processes=total,
        )

    @property
    def weights(self):
        """Settings as the oracles' sums have them: what divides the difference or the regression, times a mean's weight."""
        if self.name == "dsdh":  # K n mean_ik is a sum, and the regression is a sum already
            return {"mu": self.knobs["mu"], "nu": self.knobs["nu"], "eta": self.knobs["eta"] * self.n / self.bits}
        gamma = self.knobs["quantization"]
        ratio = self.ratio if self.knobs["balanced"] else 1.0
        return {"gamma": gamma * self.n * self.bits, "ratio": ratio}  # (n K)^2 of the difference by n K of the quantization

    def tried(self, start, *, sweeps):
        """The oracle's codes: so many sweeps, each bit by trying both of its values."""
        if self.name == "dsdh":
            return oracles.dsdh_step(start, self.banks[0], self.labels, **self.weights, sweeps=sweeps)[0]
        for _ in range(sweeps):
            start = oracles.adsh_step(start, self.banks, self.labels, **self.weights)
        return start

    def objective(self, codes):
        """The oracle's objective in the package's scale; DSDH's with the classifier that the starting codes ask for."""
        if self.name == "dsdh":
            w = oracles.dsdh_classifier(self.start, self.labels, mu=self.knobs["mu"], nu=self.knobs["nu"])
            return oracles.dsdh_objective(codes, self.banks[0], self.labels, w, **self.weights) / self.n
        return oracles.adsh_objective(codes, self.banks, self.labels, **self.weights) / (self.n * self.bits) ** 2


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("name", "knobs"), CASES)
def test_each_bit_takes_its_better_value(name, knobs, seed):
    """Sweep by sweep to its fixed point, the step goes where trying both values of each bit in turn goes."""
    problem = Problem(name, seed, **knobs)
    update = problem.renewed()
    assert update.codes.dtype == np.int8
    assert np.array_equal(update.codes, problem.tried(problem.start, sweeps=update.sweeps))
    if update.sweeps > 1:  # the last sweep changes nothing, the one before does
        assert not np.array_equal(update.codes, problem.tried(problem.start, sweeps=update.sweeps - 2))


@settings(max_examples=40)
@given(
    st.sampled_from(CASES), st.integers(0, 2**32 - 1), st.integers(2, 8), st.integers(1, 6), st.integers(1, 4)
)  # fmt: skip
def test_the_objective_never_rises(case, seed, n, bits, classes):
    """No sweep raises the reported objective, and from start to end it falls by as much as the oracle's own objective."""
    problem = Problem(case[0], seed, n=n, bits=bits, classes=classes, **case[1])
    update = problem.renewed()
    assert 1 <= update.sweeps < MAX_SWEEPS
    scale = max(1.0, *np.abs(update.objectives))
    assert (np.diff(update.objectives) <= 1e-12 * scale).all()
    fall = problem.objective(problem.start) - problem.objective(update.codes)
    np.testing.assert_allclose(update.objectives[0] - update.objectives[-1], fall, rtol=1e-9, atol=1e-10 * scale)


@pytest.mark.parametrize("seed", range(3))
def test_dsdhs_classifier_and_codes_by_turns_never_raise_the_objective(seed):
    """W, codes, W, codes, and so on: over both, DSDH's objective falls or stays, until the codes stay as they are."""
    problem = Problem("dsdh", seed, n=20, bits=6)
    codes, values = problem.start, []
    for _ in range(12):
        w = oracles.dsdh_classifier(codes, problem.labels, mu=problem.knobs["mu"], nu=problem.knobs["nu"])
        values.append(oracles.dsdh_objective(codes, problem.banks[0], problem.labels, w, **problem.weights))
        codes, before = problem.renewed(codes).codes, codes
    assert np.array_equal(codes, before)
    assert (np.diff(values) <= 1e-9).all()
    assert values[-1] < values[0]


@pytest.mark.parametrize("name", KNOBS)
def test_processes_that_see_to_some_rows_each(name):
    """Three processes with their own rows, and sums over all, find the codes and figures of one that has all rows."""
    problem = Problem(name, 5, n=20, bits=6)
    whole = problem.renewed()
    barrier, room = threading.Barrier(3), [None] * 3

    def total(array, *, process):
        room[process] = np.asarray(array)
        barrier.wait(timeout=60)
        found = np.sum(room, axis=0)
        barrier.wait(timeout=60)
        return found

    parts = np.array_split(np.arange(20), 3)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda k: problem.renewed(rows=parts[k], total=partial(total, process=k)), range(3)))
    assert np.array_equal(np.concatenate([update.codes for update in found]), whole.codes)
    for update in found:
        np.testing.assert_allclose(update.objectives, whole.objectives)


@pytest.mark.parametrize("name", METHODS)
def test_who_has_a_discrete_step(name):
    """DSDH, ADSH and DADH renew codes, and so are the ones tested here; no other method does."""
    assert (METHODS[name].method(**METHODS[name].SETTINGS).update_codes is not None) == (name in KNOBS)
