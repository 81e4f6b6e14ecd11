"""ADSQ, asymmetric deep semantic quantization for image retrieval, in JAX and Flax."""

__version__ = "0.1.0"
