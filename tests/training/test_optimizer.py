"""The optimiser against optax's own and against arithmetic: decay, momentum, clipping, schedules, new layers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adsq_jax.errors import InputError
from adsq_jax.training import optimizer

PLAIN = {
    "arguments": {},
    "learning_rate": 0.1,
    "schedule": "constant",
    "warmup": 0.0,
    "total_steps": 10,
    "weight_decay": 0.0,
    "clip_norm": 0.0,
    "trunk_lr_scale": 1.0,
}


def trees(count=6):
    """Parameters with and without `backbone`, kernels, biases and norms, and one tree of gradients a step."""
    shapes = {
        "backbone": {"conv": {"kernel": (3, 3, 2, 4), "bias": (4,)}, "norm": {"scale": (4,), "bias": (4,)}},
        "hash": {"kernel": (4, 2), "bias": (2,)},
        "semantic": {"backbone": {"kernel": (2, 4)}},  # a name within a new layer means nothing
    }
    random = np.random.default_rng(0)

    def draw(shape):
        return jnp.asarray(random.normal(size=shape), jnp.float32)

    params, *gradients = (jax.tree.map(draw, shapes, is_leaf=lambda x: isinstance(x, tuple)) for _ in range(count + 1))
    return params, gradients


def updates_of(transformation, params, gradients):
    """The updates of several steps, each from where the one before led."""
    state, found = transformation.init(params), []
    for gradient in gradients:
        with jax.numpy_dtype_promotion("standard"):  # optax mixes step counts with floats
            updates, state = transformation.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        found.append(updates)
    return found


def build(name, **changes):
    return optimizer.build(name, **{**PLAIN, **changes})


def check_same(found, expected, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **({"rtol": 1e-5, "atol": 1e-7} | tolerance)), found, expected)


def kernels(params):
    """True for what weight decay is for."""
    return jax.tree.map(lambda x: x.ndim > 1, params)


def learning_rates(steps, **changes):
    """What plain descent subtracts for a gradient of 1, step by step."""
    params = {"backbone": jnp.zeros(1)}
    updates = updates_of(build("sgd", **changes), params, [{"backbone": jnp.ones(1)}] * steps)
    return [-float(update["backbone"][0]) for update in updates]


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_adam_with_weight_decay_is_adamw(schedule):
    """Six steps of adam with decay 0.3 are optax's AdamW with decay on kernels only, under the same schedule."""
    params, gradients = trees()
    rate = 0.1 if schedule == "constant" else optax.warmup_cosine_decay_schedule(0.0, 0.1, 2, 10)
    found = build(
        "adam", arguments={"b1": 0.8}, weight_decay=0.3, schedule=schedule, warmup=0.0 if schedule == "constant" else 0.2
    )
    expected = optax.adamw(rate, b1=0.8, weight_decay=0.3, mask=kernels)
    check_same(updates_of(found, params, gradients), updates_of(expected, params, gradients))


@pytest.mark.parametrize("name", ["adam", "sgd", "adamw", "lion", "lamb"])
def test_weight_decay_takes_its_share_of_kernels_once(name):
    """What decay adds to a step is -rate x decay x kernel, nothing for biases and norms, whatever the optimiser's own."""
    params, gradients = trees(1)
    (without,) = updates_of(build(name), params, gradients)
    (decayed,) = updates_of(build(name, weight_decay=0.3), params, gradients)
    expected = jax.tree.map(lambda x: -0.1 * 0.3 * x if x.ndim > 1 else jnp.zeros_like(x), params)
    check_same(jax.tree.map(lambda a, b: a - b, decayed, without), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "lion", "lamb"])
def test_without_weight_decay_an_optimiser_has_none_of_its_own(name):
    """adamw and lion decay by default in optax; here decay 0 is none."""
    params, gradients = trees()
    expected = getattr(optax, name)(0.1, weight_decay=0.0)
    check_same(updates_of(build(name), params, gradients), updates_of(expected, params, gradients))


def test_lion_with_weight_decay_is_optax_lion():
    """Lion's own decay is decoupled as well, so it and ours agree over several steps."""
    params, gradients = trees()
    expected = optax.lion(0.1, weight_decay=0.3, mask=kernels)
    check_same(updates_of(build("lion", weight_decay=0.3), params, gradients), updates_of(expected, params, gradients))


def test_arguments_reach_the_optimiser():
    """sgd with momentum 0.9: m <- g + 0.9 m, step -0.1 m."""
    params, gradients = trees()
    found = updates_of(build("sgd", arguments={"momentum": 0.9}), params, gradients)
    momentum = jax.tree.map(np.zeros_like, params)
    for gradient, update in zip(gradients, found, strict=True):
        momentum = jax.tree.map(lambda g, m: np.asarray(g) + np.float32(0.9) * m, gradient, momentum)
        check_same(update, jax.tree.map(lambda m: np.float32(-0.1) * m, momentum))


def test_gradients_are_clipped_by_their_norm_over_all_layers():
    """A gradient of norm 5 becomes one of norm 2 in the same direction; one of norm 1 stays; 0 is no limit."""
    params = {"backbone": jnp.zeros(2), "hash": jnp.zeros(1)}
    large = {"backbone": jnp.array([3.0, 0.0]), "hash": jnp.array([4.0])}
    small = jax.tree.map(lambda x: x / 5, large)
    clipped = updates_of(build("sgd", clip_norm=2.0), params, [large, small])
    check_same(clipped, [jax.tree.map(lambda x: -0.1 * 0.4 * x, large), jax.tree.map(lambda x: -0.1 * x, small)])
    check_same(updates_of(build("sgd"), params, [large]), [jax.tree.map(lambda x: -0.1 * x, large)])


def test_constant_schedule_stays_at_the_peak_after_its_warm_up():
    """0, a quarter, a half, three quarters of the peak, then the peak for good."""
    found = learning_rates(12, warmup=0.4)
    np.testing.assert_allclose(found, [0, 0.025, 0.05, 0.075] + [0.1] * 8, rtol=1e-6)


def test_constant_schedule_without_warm_up_starts_at_the_peak():
    """No warm-up is the peak from the first update on."""
    np.testing.assert_allclose(learning_rates(3, warmup=0.0), [0.1] * 3, rtol=1e-6)


@pytest.mark.parametrize("warmup_steps", [0, 3])
def test_cosine_schedule_falls_to_zero_at_the_last_step(warmup_steps):
    """After the warm-up half a cosine, from the peak down to 0 at total_steps, and 0 from there on."""
    found = learning_rates(13, schedule="cosine", warmup=warmup_steps / 10)
    rises = [0.1 * step / 3 for step in range(warmup_steps)]
    length = 10 - warmup_steps
    falls = [0.05 * (1 + math.cos(math.pi * min(step, length) / length)) for step in range(13 - warmup_steps)]
    np.testing.assert_allclose(found, rises + falls, atol=1e-8)


def test_an_extension_begins_the_schedule_again():
    """Two extensions of a run: the first stretch as without them, then warm-up and cosine anew, each with its scale."""
    extensions = [("restart", 0.5), ("restart", 0.1)]
    found = learning_rates(
        18,
        schedule="cosine",
        warmup=0.25,
        total_steps=17,
        finished_steps=(8, 12),
        extensions=extensions,
    )
    first = learning_rates(8, schedule="cosine", warmup=0.25, total_steps=8)
    second, third = (
        [x * scale for x in learning_rates(n, schedule="cosine", warmup=0.25, total_steps=n)]
        for n, scale in ((4, 0.5), (5, 0.1))
    )
    np.testing.assert_allclose(found, [*first, *second, *third, 0.0], atol=1e-8)


def test_a_constant_extension_stays_at_its_peak():
    """No warm-up and no fall: the peak times its scale, from the first added update on."""
    found = learning_rates(9, schedule="cosine", total_steps=9, finished_steps=(5,), extensions=[("constant", 0.1)])
    np.testing.assert_allclose(found, [*learning_rates(5, schedule="cosine", total_steps=5), *[0.01] * 4], atol=1e-8)


def test_a_run_of_warm_up_alone_has_a_cosine_schedule_too():
    """A warm-up over all updates rises to the end."""
    found = learning_rates(3, schedule="cosine", warmup=1.0, total_steps=3)
    np.testing.assert_allclose(found, [0, 0.1 / 3, 0.2 / 3], rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_the_trunks_scale_is_for_the_backbone_alone(name):
    """With scale 3 each step of `backbone` is three times as long, decay included; all others are the same."""
    params, gradients = trees(1)
    (plain,) = updates_of(build(name, weight_decay=0.3), params, gradients)
    (found,) = updates_of(build(name, weight_decay=0.3, trunk_lr_scale=3.0), params, gradients)
    expected = {layer: jax.tree.map(lambda x, f=3 if layer == "backbone" else 1: f * x, plain[layer]) for layer in plain}
    check_same(found, expected)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("adamm", {}, "no optimiser named 'adamm'"),
        ("chain", {}, "no optimiser named 'chain'"),  # a function of optax, but no optimiser
        ("__doc__", {}, "no optimiser named '__doc__'"),
        ("sgd", {"arguments": {"b1": 0.9}}, "optax.sgd takes no b1 as arguments: it takes momentum"),
        ("lion", {"arguments": {"weight_decay": 0.1}}, "takes no weight_decay"),
        ("adam", {"arguments": {"learning_rate": 0.1}}, "takes no learning_rate"),
        ("adam", {"schedule": "linear"}, "no schedule named 'linear': choose one of constant, cosine"),
        (
            "adam",
            {"finished_steps": (5,), "extensions": [("cosine", 1.0)]},
            "no extension named 'cosine': choose one of restart, constant",
        ),
    ],
)
def test_unknown_names_are_refused(name, changes, message):
    """Optimisers, arguments and schedules that don't exist, and arguments that have a knob of their own."""
    with pytest.raises(ValueError, match=message):
        build(name, **changes)


@pytest.mark.parametrize("name", optimizer.NAMES)
def test_every_optimiser_steps_by_the_learning_rate_times_its_direction(name):
    """Half the learning rate gives half of the first step, whose size is what optax's own function gives at that rate."""
    params, gradients = trees(1)
    whole, half = (updates_of(build(name, learning_rate=rate), params, gradients)[0] for rate in (0.1, 0.05))
    check_same(half, jax.tree.map(lambda x: x / 2, whole))
    own = getattr(optax, name)(0.1, **({"weight_decay": 0.0} if name in ("adamw", "lamb", "lion") else {}))
    check_same(whole, updates_of(own, params, gradients)[0])


def test_names_that_optax_has_and_this_project_cannot_run_are_refused():
    """Line searches and optimisers whose step isn't proportional to the learning rate."""
    for name in ("lbfgs", "rprop", "fromage", "scale_by_learning_rate"):
        assert hasattr(optax, name)
        with pytest.raises(ValueError, match=f"no optimiser named '{name}'"):
            build(name)


def test_too_many_steps():
    """More than JAX can count are one line, before anything is written."""
    with pytest.raises(InputError, match="expected at most 2,147,483,647"):
        optimizer.build(total_steps=2**31)
