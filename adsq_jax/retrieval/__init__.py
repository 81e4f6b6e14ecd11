"""Retrieval by Hamming distance: measures of anyone's codes, and the nearest items; NumPy or JAX arrays in."""

from adsq_jax.retrieval.hamming import distance_histograms
from adsq_jax.retrieval.measures import POINTS, check_cutoffs, measure
from adsq_jax.retrieval.nearest import search

__all__ = ["POINTS", "check_cutoffs", "distance_histograms", "measure", "search"]
