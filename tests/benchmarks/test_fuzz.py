"""Some hundred damaged and hostile contents for each reader: an answer or one line each time, never another exception."""

import pytest

from benchmarks.robustness import fuzz

pytestmark = pytest.mark.benchmark
FEWER = {"model": 20, "model_weights": 12, "filter_search": 20}  # those that take milliseconds each
CASES = 40


# Some readers trace a network, or open an index.
@pytest.mark.parametrize("name", fuzz.READERS)
def test_every_reader_answers_or_refuses(name):
    """By a seed, so that the cases are the same each time; some are answered, or the cases would show little."""
    cases = FEWER.get(name, CASES)
    counts, findings = fuzz.try_reader(name, cases=cases, seed=0)
    assert not findings
    assert counts.total() == cases
    assert counts["refusal"] or name == "metrics"  # lines that are damaged are left out


def test_what_is_neither_is_found(monkeypatch, tmp_path):
    """Another exception, several lines, too much time: each is a finding, with the case."""
    from adsq_jax.errors import InputError

    def fail(error):
        raise error

    monkeypatch.setattr(fuzz, "SECONDS", 0.2)
    uses = {
        "ValueError: no": lambda case, folder: fail(ValueError("no")),
        "several lines": lambda case, folder: fail(InputError("a\nb")),
        "characters": lambda case, folder: fail(InputError("")),
        "more than 0 s": lambda case, folder: [None for _ in iter(int, 1)],
    }
    for said, use in uses.items():
        outcome, text = fuzz.judge(use, b"", tmp_path)
        assert outcome == "finding"
        assert said in text
    assert fuzz.judge(lambda case, folder: fail(InputError("one line")), b"", tmp_path) == ("refusal", "one line")
    assert fuzz.judge(lambda case, folder: 1, b"", tmp_path) == ("answer", "")


def test_the_same_seed_makes_the_same_cases():
    """Another one makes others."""
    import random

    for name in ("filter", "list", "npy", "torch", "safetensors"):
        make = fuzz.READERS[name]().make
        assert make(random.Random(3)) == make(random.Random(3))
        assert len({make(random.Random(seed)) for seed in range(20)}) > 10
