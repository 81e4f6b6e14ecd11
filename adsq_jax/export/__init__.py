"""Encoders as files that need neither this package nor Flax, by `export`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adsq_jax.export.artifact import export

__all__ = ["export"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from adsq_jax.export import artifact  # JAX takes seconds to import: only when it is needed

    return getattr(artifact, name)
