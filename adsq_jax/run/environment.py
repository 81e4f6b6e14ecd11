"""Versions, date and source code of a result."""

import datetime
import functools
import hashlib
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from adsq_jax import __version__

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


@functools.cache  # read once, at the start: the source may be edited while a run lasts
def code_sha256() -> str:
    """A hash of this package's source, 64 hexadecimal digits."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def environment() -> dict[str, Any]:
    """Day, Python and package versions of a result."""
    versions = {package: importlib.metadata.version(package) for package in _PACKAGES}
    return {
        "code_sha256": code_sha256(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": {"adsq_jax": __version__, "python": platform.python_version(), **versions},
    }
