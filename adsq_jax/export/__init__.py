"""Encoders as files that need neither this package nor Flax, by `export`, and as ONNX, by `export_onnx`."""

from adsq_jax.export.artifact import export
from adsq_jax.export.onnx_model import export_onnx

__all__ = ["export", "export_onnx"]
