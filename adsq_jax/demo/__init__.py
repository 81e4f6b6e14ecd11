"""A web page on which to search an index of pictures, by `serve`."""

from adsq_jax.demo.server import serve

__all__ = ["serve"]
