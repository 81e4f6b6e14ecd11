"""Devices."""

import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adsq_jax import parallel, retrieval
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


WORKER = """
import sys
import jax
import numpy as np
address, process, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(address, 2, process, initialization_timeout=60)
from adsq_jax import retrieval
from adsq_jax.parallel import Spread
data = dict(np.load(f"{folder}/data.npz"))
spread = Spread()
counts, relevant = retrieval.distance_histograms(**data, spread=spread)
distances, indices = retrieval.search(data["query_codes"], data["database_codes"], 9, spread=spread)
one = retrieval.search(data["query_codes"], data["database_codes"][:1], 1, spread=spread)
np.savez(f"{folder}/{process}.npz", counts=counts, relevant=relevant, distances=distances, indices=indices, one=one[1])
"""


def test_two_processes_share_a_database(tmp_path):
    """Each process sees to its part; both get the histograms and neighbours of one device, exactly."""
    random = np.random.default_rng(0)
    data = {
        "query_codes": random.choice([-1, 1], (5, 24)),
        "database_codes": random.choice([-1, 1], (1_003, 24)),
        "query_labels": (random.random((5, 6)) < 0.4).astype(np.uint8),
        "database_labels": (random.random((1_003, 6)) < 0.4).astype(np.uint8),
    }
    np.savez(tmp_path / "data.npz", **data)
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, address, str(process), str(tmp_path)], stderr=subprocess.PIPE)
        for process in range(2)
    ]
    try:
        for worker in workers:
            _, said = worker.communicate(timeout=120)
            assert worker.returncode == 0, said.decode()
    finally:
        for worker in workers:
            worker.kill()
    counts, relevant = retrieval.distance_histograms(**data)
    distances, indices = retrieval.search(data["query_codes"], data["database_codes"], 9)
    for process in range(2):
        found = np.load(tmp_path / f"{process}.npz")
        np.testing.assert_array_equal(found["counts"], counts)
        np.testing.assert_array_equal(found["relevant"], relevant)
        np.testing.assert_array_equal(found["distances"], distances)
        np.testing.assert_array_equal(found["indices"], indices)
        assert (found["one"] == 0).all()  # the second process has no item at all


def test_a_spread_names_its_platform_and_devices():
    """The default of distances follows the platform; a result names the machine."""
    assert parallel.Spread().platform == "cpu"
    assert parallel.Spread(jax.devices()[:2]).describe().startswith("2 x cpu")


EIGHT = """
import jax
import numpy as np
jax.config.update("jax_num_cpu_devices", 8)
from adsq_jax import retrieval
from adsq_jax.parallel import Spread
random = np.random.default_rng(0)
codes, labels = random.integers(0, 256, (1_003, 8), dtype=np.uint8), random.integers(0, 9, 1_003)
one, *more = (
    retrieval.distance_histograms(codes[:7], codes, query_labels=labels[:7], database_labels=labels, bits=64, spread=spread)
    for spread in (Spread(jax.devices()[:1]), Spread(jax.devices()[:2]), Spread())
)
assert len(jax.devices()) == 8 and len(more) == 2
assert all((np.array(one) == np.array(other)).all() for other in more)
"""


def test_one_two_and_eight_devices_count_the_same():
    """The same histograms, exactly, with the database on 1, 2 and 8 devices."""
    done = subprocess.run([sys.executable, "-c", EIGHT], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
