"""Encoders as files that need neither this package nor Flax, by `export`, and as ONNX, by `export_onnx`."""

from typing import TYPE_CHECKING

from adsq_jax.run import lazy_names as _lazy_names

if TYPE_CHECKING:
    from adsq_jax.export.artifact import export
    from adsq_jax.export.onnx_model import export_onnx

__all__ = ["export", "export_onnx"]
__getattr__ = _lazy_names.loader(__name__, {"export": "artifact", "export_onnx": "onnx_model"})  # `codes` needs no model
