"""Describe what made a result: the date, this package's source code, and the versions of Python and packages."""

import contextlib
import datetime
import functools
import hashlib
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from adsq_jax import __version__

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


@functools.cache  # read once, at the start: the source may be edited during a run
def code_sha256() -> str:
    """Return a hash of this package's source files, 64 hexadecimal digits."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        if path.parent == root / "configs":  # only an installed package has them, and `config_sha256` covers their content
            continue
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def environment() -> dict[str, Any]:
    """Return the hash of the source code, the date in UTC, and the versions of Python and packages."""
    return {
        "code_sha256": code_sha256(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": {"adsq_jax": __version__, "python": platform.python_version(), **_versions()},
    }


def _versions() -> dict[str, str]:
    """Return the version of each package that is installed: measuring codes needs no Flax."""
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions
