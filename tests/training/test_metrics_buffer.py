"""The buffer of metrics: means since the last look, and the first step that is not finite."""

import jax.numpy as jnp
import pytest

from adsq_jax.training.metrics_buffer import MetricsBuffer, NotFinite


def values(loss):
    return {"loss": jnp.float32(loss), "term": jnp.array([0.0, 2 * loss], jnp.float32)}  # of two devices


def test_means_are_of_the_steps_since_the_last_look():
    """At multiples of `every`, and at the last step; a term of several devices is their mean."""
    buffer = MetricsBuffer(2)
    means = [buffer.add(step, values(step), last=step == 5, where="f") for step in (1, 2, 3, 4, 5)]
    assert means == [None, {"loss": 1.5, "term": 1.5}, None, {"loss": 3.5, "term": 3.5}, {"loss": 5.0, "term": 5.0}]


def test_the_first_step_that_is_not_finite_is_named():
    """With its term; `loss` alone is named only where no term is at fault."""
    buffer = MetricsBuffer(3)
    assert buffer.add(1, values(1), last=False, where="f") is None
    assert buffer.add(2, {**values(2), "term": jnp.float32("nan"), "loss": jnp.float32("nan")}, last=False, where="f") is None
    with pytest.raises(NotFinite, match=r"^f, step 2: term not finite$"):
        buffer.add(3, values(float("inf")), last=False, where="f")
    with pytest.raises(NotFinite, match=r"^f, step 4: loss not finite$"):
        buffer.add(4, {"loss": jnp.float32("inf")}, last=True, where="f")
