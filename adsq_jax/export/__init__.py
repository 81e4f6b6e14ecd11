"""Encoders as files that need neither this package nor Flax, by `export`."""

from adsq_jax.export.artifact import export

__all__ = ["export"]
