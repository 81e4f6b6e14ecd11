"""Visitors of all kinds leave the demo as it was; benchmarks/robustness/demo_visitors.py has many of them."""

import pytest

from benchmarks.robustness import demo_visitors as benchmark

pytestmark = pytest.mark.benchmark


# A demo is started, some seconds.
def test_few_visitors(filled):
    """Some visitors of each kind are answered in time, and leave little in memory."""
    figures = benchmark.measure(filled[2], visitors=12, pictures=20, sessions=10, half_sent=40)
    assert figures["missed"] == []
    assert figures["at_once"]["not_answered"] == []


def test_a_missed_aim_is_named(filled, monkeypatch):
    """What isn't reached is in the list that decides the exit status."""
    monkeypatch.setattr(benchmark, "AIMS", dict.fromkeys(benchmark.AIMS, -1000000000.0))
    missed = benchmark.measure(filled[2], visitors=1, pictures=1, sessions=1, half_sent=1)["missed"]
    assert [line.split(":")[0] for line in missed] == list(benchmark.AIMS)
