"""The discrete steps of DSDH, ADSH and DADH against the oracle's objective, by trying both values of each bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import oracles
from test_b_step import update_by_processes

from adsq_jax.methods import METHODS, objective
from adsq_jax.methods.b_step import MAX_SWEEPS

CHOICES = {
    "dsdh": [
        {},
        {"mu": 0.3, "nu": 2.0, "eta": 0.02},
        {"eta": 0.0},  # the classifier alone
        {"nu": 0.0, "eta": 0.0},
        {"eta": 5.0},  # mostly the network's codes
    ],
    "adsh": [{}, {"balanced": 0.0}, {"quantization": 0.0}, {"quantization": 3.0}],
    "dadh": [{}, {"balanced": 0.0, "quantization": 0.1}, {"quantization": 0.0}, {"quantization": 3.0}],
}
CASES = [(name, changes) for name, choices in CHOICES.items() for changes in choices]


class Problem:
    """A small training set, with any number of labels an image; codes to start from; and one or two banks."""

    def __init__(self, name, seed, *, n=7, bits=5, classes=3, **changes):
        random = np.random.default_rng(seed)
        self.name, self.n, self.bits = name, n, bits
        self.settings = {**METHODS[name].settings, **changes}
        self.method = METHODS[name](**changes)
        self.labels = (random.random((n, classes)) < 0.4).astype(np.uint8)
        self.sets = objective.label_sets(self.labels)
        self.start = random.choice(np.array([-1, 1], np.int8), (n, bits))
        drawn = random.normal(size=(1 + self.method.twin, n, bits)).astype(np.float32)
        self.banks = list(np.tanh(drawn) if self.method.head == "tanh" else 2 * drawn)
        self.ratio = float(random.uniform(0.05, 1))
        self.label_codes = random.uniform(-1, 1, (len(self.sets.sets), bits))  # only ADSQ uses these

    def update(self, start=None, *, rows=slice(None), total=np.asarray):
        """Run the package's step, for all rows or for those of one process."""
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
        """Return the settings for the oracles, which have sums where the package has means."""
        if self.name == "dsdh":  # K n mean_ik is a sum; the regression is a sum in both
            return {"mu": self.settings["mu"], "nu": self.settings["nu"], "eta": self.settings["eta"] * self.n / self.bits}
        gamma = self.settings["quantization"]
        ratio = self.ratio if self.settings["balanced"] else 1.0
        return {"gamma": gamma * self.n * self.bits, "ratio": ratio}  # (n K)^2 for the difference over n K for the quantization

    def by_trial(self, start, *, sweeps):
        """Return the oracle's codes after some sweeps, each bit by trying both values."""
        if self.name == "dsdh":
            return oracles.dsdh_step(start, self.banks[0], self.labels, **self.weights, sweeps=sweeps)[0]
        for _ in range(sweeps):
            start = oracles.adsh_step(start, self.banks, self.labels, **self.weights)
        return start

    def objective(self, codes):
        """Return the oracle's objective in the package's scale; for DSDH with the classifier of the starting codes."""
        if self.name == "dsdh":
            w = oracles.dsdh_classifier(self.start, self.labels, mu=self.settings["mu"], nu=self.settings["nu"])
            return oracles.dsdh_objective(codes, self.banks[0], self.labels, w, **self.weights) / self.n
        return oracles.adsh_objective(codes, self.banks, self.labels, **self.weights) / (self.n * self.bits) ** 2


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("name", "changes"), CASES)
def test_each_bit_takes_its_better_value(name, changes, seed):
    """The step gives what trying both values of each bit in turn gives, with as many sweeps."""
    problem = Problem(name, seed, **changes)
    update = problem.update()
    assert update.codes.dtype == np.int8
    assert np.array_equal(update.codes, problem.by_trial(problem.start, sweeps=update.sweeps))
    if update.sweeps > 1:  # the last sweep changes nothing, the one before does
        assert not np.array_equal(update.codes, problem.by_trial(problem.start, sweeps=update.sweeps - 2))


@settings(max_examples=40)
@given(
    st.sampled_from(CASES), st.integers(0, 2**32 - 1), st.integers(2, 8), st.integers(1, 6), st.integers(1, 4)
)  # fmt: skip
def test_the_objective_never_rises(case, seed, n, bits, classes):
    """No sweep raises the reported objective, and it falls by as much as the oracle's objective."""
    problem = Problem(case[0], seed, n=n, bits=bits, classes=classes, **case[1])
    update = problem.update()
    assert 1 <= update.sweeps < MAX_SWEEPS
    scale = max(1.0, *np.abs(update.objectives))
    assert (np.diff(update.objectives) <= 1e-12 * scale).all()
    fall = problem.objective(problem.start) - problem.objective(update.codes)
    np.testing.assert_allclose(update.objectives[0] - update.objectives[-1], fall, rtol=1e-9, atol=1e-10 * scale)


@pytest.mark.parametrize("seed", range(3))
def test_dsdh_never_raises_its_objective(seed):
    """Over updates of W and codes in turn, the objective never rises, until the codes stay the same."""
    problem = Problem("dsdh", seed, n=20, bits=6)
    codes, values = problem.start, []
    for _ in range(12):
        w = oracles.dsdh_classifier(codes, problem.labels, mu=problem.settings["mu"], nu=problem.settings["nu"])
        values.append(oracles.dsdh_objective(codes, problem.banks[0], problem.labels, w, **problem.weights))
        codes, before = problem.update(codes).codes, codes
    assert np.array_equal(codes, before)
    assert (np.diff(values) <= 1e-9).all()
    assert values[-1] < values[0]


@pytest.mark.parametrize("name", CHOICES)
def test_several_processes_with_some_rows_each(name):
    """Three processes with sums over all get the codes and figures of one process with all rows."""
    problem = Problem(name, 5, n=20, bits=6)
    whole = problem.update()
    updates = update_by_processes(problem, n=20, processes=3)
    assert np.array_equal(np.concatenate([update.codes for update in updates]), whole.codes)
    for update in updates:
        np.testing.assert_allclose(update.objectives, whole.objectives)


@pytest.mark.parametrize("name", METHODS)
def test_the_methods_with_a_discrete_step(name):
    """The tests here cover every method with a discrete step but ADSQ."""
    assert (METHODS[name]().update_codes is not None) == (name in {*CHOICES, "adsq"})
