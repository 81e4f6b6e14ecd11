"""Settings of all tests: four fake devices, no implicit promotion of dtypes or ranks, reproducible properties."""

import functools
import os
import tempfile

import hypothesis
import jax
import optax
import pytest

# Many tests compile the same small networks, some of them in processes of their own: compile once a session.
_CACHE = tempfile.TemporaryDirectory(prefix="adsq_jax_tests_")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _CACHE.name)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

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


def pytest_addoption(parser):
    parser.addoption("--no-skips", action="store_true", help="a skipped test is a failure")


def pytest_sessionfinish(session, exitstatus):
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--no-skips") and reporter.stats.get("skipped"):
        reporter.write_line("--no-skips: a skipped test is a failure", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
