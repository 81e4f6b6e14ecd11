"""Devices."""

import json
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adsq_jax import retrieval
from adsq_jax.devices import ShardedDatabase, data_parallel
from adsq_jax.devices.data_parallel import ROWS, WHOLE, DataParallel, TrainDevices
from adsq_jax.devices.mesh import AXIS
from adsq_jax.errors import InputError


@pytest.mark.parametrize("kind", data_parallel.KINDS)
def test_a_step_sees_its_share_and_returns_what_all_agree_on(kind):
    """Each of 4 devices gets a quarter of batch and rows, and all of the rest; a psum sees all; it comes back as it went."""
    run = DataParallel(kind, devices=jax.devices()[:4])

    def gradients(state, targets, batch):
        summed = jax.lax.psum(jnp.sum(batch["x"]), AXIS)
        sizes = jnp.array([batch["x"].shape[0], state["rows"].shape[0], targets.shape[0]], jnp.float32)
        return summed, state["rows"] + jnp.float32(jax.lax.axis_index(AXIS)), {"sizes": jax.lax.pmean(sizes, AXIS)}

    def update(state, summed, rows):
        return {"same": state["same"] + summed, "rows": rows}

    specs = {"same": WHOLE, "rows": ROWS}
    step = run.compile_step(gradients, update, state=specs, targets=ROWS, donate=True)
    state = run.to_devices({"same": np.ones(3, np.float32), "rows": np.zeros((8, 2), np.float32)}, specs)
    targets = run.to_devices(np.zeros((12, 1), np.float32), ROWS)
    state, metrics = step(state, targets, run.split_batch({"x": np.arange(8, dtype=np.float32)}))
    state = run.from_devices(state, specs)
    assert np.array_equal(state["same"], np.full(3, 29.0))
    assert np.array_equal(state["rows"], np.repeat(np.arange(4), 2)[:, None] * np.ones(2))
    assert np.array_equal(np.asarray(metrics["sizes"]).reshape(-1, 3)[0], [2, 2, 3])


def test_specs():
    """WHOLE is whole everywhere; ROWS has a quarter on each device, zero-padded; parameters are sharded along a long axis."""
    run = DataParallel("shard_map", devices=jax.devices()[:4])

    def shapes(spec, *shape):
        return {shard.data.shape for shard in run.to_devices(np.ones(shape, np.float32), spec).addressable_shards}

    def sharded(*shape):
        return shapes(run.parameter_specs(jax.ShapeDtypeStruct(shape, np.float32)), *shape)

    assert shapes(WHOLE, 10, 3) == {(10, 3)}
    assert shapes(ROWS, 10, 3) == {(3, 3)}
    assert sharded(200, 100) == {(50, 100)}
    assert sharded(201, 100) == {(201, 25)}
    assert sharded(201, 101) == {(201, 101)}  # no axis divides evenly
    assert sharded(8, 4) == {(8, 4)}  # too small
    rows = run.to_devices(np.arange(20).reshape(10, 2), ROWS)
    assert np.array_equal(rows, [*np.arange(20).reshape(10, 2), [0, 0], [0, 0]])
    assert np.array_equal(run.to_local_rows(rows, size=10), np.arange(20).reshape(10, 2))


def test_one_device_keeps_rows_without_padding():
    """Without a mesh, rows come back as they went in, and a batch goes to the device as it is."""
    run = TrainDevices()
    rows = np.arange(20).reshape(10, 2)
    assert np.array_equal(run.from_local_rows(rows, size=10), rows)
    assert np.array_equal(run.to_local_rows(run.from_local_rows(rows, size=10), size=10), rows)
    assert run.local_rows(10) == slice(0, 10)
    assert np.array_equal(run.split_batch({"x": rows})["x"], rows)


def test_local_devices():
    """A replicated array is whole on each; a sharded one has a quarter on each."""
    local = DataParallel("shard_map", devices=jax.devices()[:4]).local
    x = np.arange(8)
    assert {shard.data.shape for shard in local.replicate(x).addressable_shards} == {(8,)}
    assert {shard.data.shape for shard in local.shard(x).addressable_shards} == {(2,)}


def test_what_a_checkpoint_takes_is_a_copy():
    """It stays what it was when the run's next step takes over the state's buffers, or NumPy's are written to."""
    run = DataParallel("shard_map", devices=jax.devices()[:1])
    state = {"bank": run.to_devices(np.arange(1000, dtype=np.float32), WHOLE), "step": np.array(7)}
    kept = run.to_host(state, WHOLE)
    jax.block_until_ready(jax.jit(lambda x: x * 0 - 1, donate_argnums=0)(state["bank"]))
    assert state["bank"].is_deleted()
    state["step"][...] = 8
    np.testing.assert_array_equal(kept["bank"], np.arange(1000))
    assert kept["step"] == 7


def test_bad_input():
    """An unknown kind and an uneven batch are refused."""
    with pytest.raises(ValueError, match="shard_map, pmap"):
        DataParallel("pjit")
    with pytest.raises(InputError, match="a multiple of 4"):
        DataParallel("shard_map", devices=jax.devices()[:4]).check_batch(10)


@pytest.mark.parametrize(("batch_size", "devices"), [(8, 4), (9, 3), (10, 2), (7, 1)])
def test_as_many_devices_as_can_share_a_batch(batch_size, devices):
    """Of four devices, the largest number that divides the batch."""
    assert len(data_parallel.devices_for_batch(batch_size)) == devices


SPLIT = """
import json, os, sys
import jax
from adsq_jax.devices import host
for batch_size, cores, host_devices in json.loads(sys.argv[1]):
    pid = os.fork()  # before JAX starts, which happens once in a process
    if not pid:
        host.cores = lambda: cores
        host.split_into_devices(batch_size=batch_size, host_devices=host_devices)
        print(len(jax.devices("cpu")), flush=True)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


def test_the_host_is_split():
    """One device a core as far as the batch can be shared out evenly, or as many as asked for."""
    expected = {(100, 4, 0): 4, (100, 3, 0): 2, (7, 4, 0): 1, (128, 2, 8): 8, (128, 96, 0): 8}
    command = [sys.executable, "-W", "ignore", "-c", SPLIT, json.dumps(list(expected))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [int(line) for line in done.stdout.split()] == list(expected.values())


WORKER = """
import sys
import jax
import numpy as np
address, process, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(address, 2, process, initialization_timeout=60)
from adsq_jax import retrieval
from adsq_jax.devices import ShardedDatabase
data = dict(np.load(f"{folder}/data.npz"))
devices = ShardedDatabase()
counts, relevant = retrieval.distance_histograms(**data, devices=devices)
distances, indices = retrieval.search(data["query_codes"], data["database_codes"], 9, devices=devices)
one = retrieval.search(data["query_codes"], data["database_codes"][:1], 1, devices=devices)
class Watched(np.memmap):
    rows = set()
    def __getitem__(self, key):
        if isinstance(key, slice):
            Watched.rows |= set(range(*key.indices(len(self))))
        return super().__getitem__(key)
mapped = np.load(f"{folder}/database.npy", mmap_mode="r").view(Watched)
packed = retrieval.search(np.load(f"{folder}/query.npy"), mapped, 9, bits=24, devices=devices)
np.savez(
    f"{folder}/{process}.npz", counts=counts, relevant=relevant, distances=distances, indices=indices, one=one[1],
    packed_distances=packed[0], packed_indices=packed[1], read=sorted(Watched.rows),
)
"""


def test_two_processes_share_a_database(tmp_path):
    """Each process sees to its part; both get the histograms and neighbours of one device, exactly.

    Of a mapped file of packed codes, each reads its own half and nothing else.
    """
    random = np.random.default_rng(0)
    data = {
        "query_codes": random.choice([-1, 1], (5, 24)),
        "database_codes": random.choice([-1, 1], (1_003, 24)),
        "query_labels": (random.random((5, 6)) < 0.4).astype(np.uint8),
        "database_labels": (random.random((1_003, 6)) < 0.4).astype(np.uint8),
    }
    np.savez(tmp_path / "data.npz", **data)
    for part in ("query", "database"):
        np.save(tmp_path / f"{part}.npy", np.packbits(data[f"{part}_codes"] > 0, axis=1, bitorder="little"))
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
        np.testing.assert_array_equal(found["packed_distances"], distances)
        np.testing.assert_array_equal(found["packed_indices"], indices)
        assert found["read"].tolist() == list(range(502) if process == 0 else range(502, 1_003))


def test_a_sharded_database_names_its_platform_and_devices():
    """The default of distances follows the platform; a result names the machine."""
    assert ShardedDatabase().platform == "cpu"
    assert ShardedDatabase(jax.devices()[:2]).describe().startswith("2 x cpu")


EIGHT = """
import jax
import numpy as np
jax.config.update("jax_num_cpu_devices", 8)
from adsq_jax import retrieval
from adsq_jax.devices import ShardedDatabase
random = np.random.default_rng(0)
codes, labels = random.integers(0, 256, (1_003, 8), dtype=np.uint8), random.integers(0, 9, 1_003)
one, *more = (
    retrieval.distance_histograms(codes[:7], codes, query_labels=labels[:7], database_labels=labels, bits=64, devices=devices)
    for devices in (ShardedDatabase(jax.devices()[:1]), ShardedDatabase(jax.devices()[:2]), ShardedDatabase())
)
assert len(jax.devices()) == 8 and len(more) == 2
assert all((np.array(one) == np.array(other)).all() for other in more)
"""


def test_one_two_and_eight_devices_count_the_same():
    """The same histograms, exactly, with the database on 1, 2 and 8 devices."""
    done = subprocess.run([sys.executable, "-c", EIGHT], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
