"""Settings of all tests: four fake devices, no implicit promotion of dtypes or ranks, reproducible properties; a store."""

import functools
import os
import signal
import subprocess
import sys
import urllib.request
import uuid

import hypothesis
import jax
import optax
import pytest
from support import compile_cache

# Many tests compile the same small networks, some of them in processes of their own: each compiles once, until JAX changes.
compile_cache.use()

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.devices()  # starts JAX: a command that a test calls in this process would choose another number of devices

# A shell that runs the tests in the background has them ignore Ctrl-C, and with them what they start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("tests", deadline=None, database=None, derandomize=True)
hypothesis.settings.load_profile("tests")


def _standard_promotion(function):
    """Lets an optax function mix step counts with floats, as optax's Adam and schedules do: strictness is for this package."""

    @functools.wraps(function)
    def build(*args, **kwargs):
        transformation = function(*args, **kwargs)

        def update(*args, **kwargs):
            with jax.numpy_dtype_promotion("standard"):
                return transformation.update(*args, **kwargs)

        return optax.GradientTransformationExtraArgs(transformation.init, update)

    return build


optax.adam, optax.chain = _standard_promotion(optax.adam), _standard_promotion(optax.chain)


_SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
_NOBODY = {
    "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "nothing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",  # no search for credentials in the network
}


@pytest.fixture(scope="session")
def s3_server():
    """The address of an object store on this machine that speaks S3; a process of its own, which ends with this one."""
    command = [sys.executable, "-c", _SERVER]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.stdin.close()


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory):
    """A Milvus server that lets nobody in without a token, as processes that end with this one."""
    from launch.milvus.server import Server

    with Server(tmp_path_factory.mktemp("milvus")) as server:
        yield server


@pytest.fixture
def milvus(milvus_server, monkeypatch):
    """Its address; the token stands in the environment, and what the test makes there is dropped, unless it is named stock_."""
    from launch.milvus import server

    monkeypatch.setenv("MILVUS_TOKEN", server.TOKEN)
    yield milvus_server.address
    server.drop_all(milvus_server.address, but="stock_")


@pytest.fixture(scope="session")
def colours(tmp_path_factory):
    """Pictures of three colours, and a run that has learned them: two folders, not to be written into."""
    from support import mock_data  # with NumPy and JAX, after what this file sets

    folder = tmp_path_factory.mktemp("colours")
    pictures = mock_data.pictures(folder / "pictures")
    return pictures, mock_data.run_on_pictures(pictures, folder / "run")


@pytest.fixture(scope="session")
def filled(colours, tmp_path_factory):
    """Paths of those pictures, the model of that run, and the place of an index of them, not to be written into."""
    import adsq_jax
    from adsq_jax import index
    from adsq_jax.index import roots

    folder, run = colours
    place = str(tmp_path_factory.mktemp("filled") / "index")
    model = adsq_jax.load(run)
    paths = sorted(str(path) for path in folder.rglob("*.png"))
    with index.create(place, index.Manifest(model.bits, model.sha256, str(run))) as opened:
        opened.add([index.Item(path, (path.split("/")[-2],)) for path in paths], model.encode(paths, packed=True))
        roots.record(opened, f"{folder}/")
    return paths, model, place


@pytest.fixture
def bucket(s3_server, monkeypatch):
    """s3://BUCKET, new and empty; address and credentials stand in the environment, which other processes inherit."""
    import fsspec  # with its client of S3 it takes a second: only where it is wanted

    from adsq_jax import storage

    for name, value in {**_NOBODY, "AWS_ENDPOINT_URL": s3_server}.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{uuid.uuid4().hex}"
    urllib.request.urlopen(urllib.request.Request(f"{s3_server}/{name}", method="PUT"), timeout=60).close()
    storage._client.cache_clear()  # it knows its credentials from when it was made
    fsspec.filesystem("s3").clear_instance_cache()
    yield f"s3://{name}"
    storage._client.cache_clear()
    fsspec.filesystem("s3").clear_instance_cache()


@pytest.fixture
def refused(bucket, monkeypatch):
    """s3://BUCKET for whose store this machine has no credentials."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    return bucket


def pytest_addoption(parser):
    parser.addoption("--no-skips", action="store_true", help="a skipped test is a failure")


def pytest_sessionfinish(session, exitstatus):
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")  # xdist's workers have none: who started them counts
    if session.config.getoption("--no-skips") and reporter and reporter.stats.get("skipped"):
        reporter.write_line("--no-skips: a skipped test is a failure", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_collection_modifyitems(items):
    """Begin with the tests that take longest, so that at the end no worker waits for another's; others keep their order."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
