"""What XLA has compiled for tests, kept between runs in an ignored folder of the checkout."""

import os
from pathlib import Path

from adsq_jax.devices import compiled_programs

FOLDER = Path(__file__).parents[2] / ".cache" / "xla"
MOST_BYTES = 1 << 30  # about four times what the whole suite compiles


def use() -> None:
    """Have this process and those that it starts keep what they compile, in $JAX_COMPILATION_CACHE_DIR if it is set."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        compiled_programs.prune(FOLDER, most_bytes=MOST_BYTES)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(FOLDER / compiled_programs.key())
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"  # where each operation was called is a tenth of the time of tracing
    compiled_programs.use(Path(os.environ["JAX_COMPILATION_CACHE_DIR"]))
