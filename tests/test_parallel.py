"""Devices."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adsq_jax import parallel
from adsq_jax.errors import InputError
from adsq_jax.parallel import AXIS, DataParallel


@pytest.mark.parametrize("kind", parallel.KINDS)
def test_a_step_sees_its_share_and_returns_what_all_agree_on(kind):
    """Each of 4 devices gets a quarter of the batch and the whole state; a psum sees all; leave undoes enter."""
    run = DataParallel(kind, devices=jax.devices()[:4])

    def step(state, targets, batch):
        share = batch["x"]
        total = jax.lax.psum(jnp.sum(share), AXIS)
        return state + total, {"share": jax.lax.pmean(jnp.float32(share.shape[0]), AXIS), "targets": targets}

    compiled = run.step(step)
    x = np.arange(8, dtype=np.float32)
    state, metrics = compiled(run.enter(np.ones(3, np.float32)), run.enter(np.float32(7)), run.split({"x": x}))
    assert np.array_equal(run.leave(state), np.full(3, 29.0))
    assert np.mean(metrics["share"]) == 2
    assert np.mean(metrics["targets"]) == 7


def test_replicate_and_shard():
    """A replicated array is whole everywhere; a sharded one has a quarter on each device."""
    run = DataParallel("shard_map", devices=jax.devices()[:4])
    x = np.arange(8)
    assert {shard.data.shape for shard in run.replicate(x).addressable_shards} == {(8,)}
    assert {shard.data.shape for shard in run.shard(x).addressable_shards} == {(2,)}


def test_bad_input():
    """An unknown kind and an uneven batch are refused."""
    with pytest.raises(ValueError, match="shard_map, pmap"):
        DataParallel("pjit")
    with pytest.raises(InputError, match="a multiple of 4"):
        DataParallel("shard_map", devices=jax.devices()[:4]).check_batch(10)


@pytest.mark.parametrize(("batch_size", "devices"), [(8, 4), (9, 3), (10, 2), (7, 1)])
def test_as_many_devices_as_can_share_a_batch(batch_size, devices):
    """Of four devices, the largest number that divides the batch."""
    assert len(parallel.sharing(batch_size)) == devices


@pytest.mark.parametrize(
    ("batch_size", "cores", "host_devices", "devices"),
    [(100, 4, 0, 4), (100, 3, 0, 2), (7, 4, 0, 1), (128, 2, 8, 8), (128, 96, 0, 8)],
)
def test_the_host_is_split(batch_size, cores, host_devices, devices):
    """One device a core as far as the batch can be shared out evenly, or as many as asked for."""
    code = (
        "import jax\nfrom adsq_jax import parallel\n"
        f"parallel.cores = lambda: {cores}\n"
        f"parallel.split_host(batch_size={batch_size}, host_devices={host_devices})\nprint(len(jax.devices('cpu')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == [str(devices)]
