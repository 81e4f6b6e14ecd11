"""What XLA has compiled for a command, kept in the user's cache folder: the next one needn't compile it again."""

import contextlib
import hashlib
import os
import platform
from pathlib import Path

import jax
import jaxlib

_MOST_BYTES = 256 << 20
_LEAST_SECONDS = 0.1  # what compiles faster isn't kept


def keep() -> None:
    """Keep what this process compiles from now on, below $XDG_CACHE_HOME or ~/.cache; at most 256 MiB of the newest.

    Does nothing where JAX's own `JAX_COMPILATION_CACHE_DIR` is set, or where there is no home.

    Source: this project.
    """
    if jax.config.jax_compilation_cache_dir is not None:  # type: ignore[attr-defined]
        return
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return
    if not cache.is_absolute():  # as the standard of XDG has it
        return
    folder = cache / "adsq_jax" / "xla"
    with contextlib.suppress(OSError):
        prune(folder, most_bytes=_MOST_BYTES)
    use(folder / key())


def use(folder: Path) -> None:
    """Have this process keep what it compiles in a folder; one that can't be written is no error."""
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS)
    jax.config.update("jax_traceback_in_locations_limit", 0)  # where each operation was called: a tenth of the time of tracing


def forget() -> None:
    """Drop the programs that this process has compiled, which take memory; what is kept on the disk stays."""
    jax.clear_caches()


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
        with contextlib.suppress(FileNotFoundError):  # another process prunes too
            if path.is_file():
                files.append((path.stat().st_mtime, path.stat().st_size, path))
    total = 0
    for _, size, path in sorted(files, reverse=True):
        total += size
        if total > most_bytes:
            path.unlink(missing_ok=True)
