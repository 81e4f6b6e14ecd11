"""What XLA has compiled for tests, kept between runs in an ignored folder of the checkout."""

import contextlib
import hashlib
import os
import platform
from pathlib import Path

import jax
import jaxlib

FOLDER = Path(__file__).parents[2] / ".cache" / "xla"
MOST_BYTES = 1 << 30  # about four times what the whole suite compiles
LEAST_SECONDS = 0.1  # what compiles faster isn't kept


def key() -> str:
    """Return the name of the folder for this JAX, and for this processor: compiled code is for its instructions alone."""
    features = Path("/proc/cpuinfo")
    lines = [line for line in features.read_text().splitlines() if line.startswith("flags")] if features.exists() else []
    processor = hashlib.sha256("".join([platform.machine(), *lines[:1]]).encode()).hexdigest()[:8]
    return f"jax-{jax.__version__}-jaxlib-{jaxlib.__version__}-{processor}"


def prune(folder: Path, *, most_bytes: int) -> None:
    """Remove the oldest files below a folder, until the others have at most so many bytes."""
    files = []
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # another process of the tests prunes too
            if path.is_file():
                files.append((path.stat().st_mtime, path.stat().st_size, path))
    total = 0
    for _, size, path in sorted(files, reverse=True):
        total += size
        if total > most_bytes:
            path.unlink(missing_ok=True)


def use() -> None:
    """Have this process and those that it starts keep what they compile, in $JAX_COMPILATION_CACHE_DIR if it is set."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        prune(FOLDER, most_bytes=MOST_BYTES)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(FOLDER / key())
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = str(LEAST_SECONDS)
    os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"  # where each operation was called is a tenth of the time of tracing
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
    jax.config.update("jax_traceback_in_locations_limit", 0)
