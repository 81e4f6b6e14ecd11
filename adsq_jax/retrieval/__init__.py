"""Retrieval by Hamming distance: measures of any codes, and the nearest items; NumPy, JAX or lists in."""

from adsq_jax.retrieval.blocks import Limits, SingleDevice
from adsq_jax.retrieval.evaluator import POINTS, check_cutoffs, measure
from adsq_jax.retrieval.hamming import distance_histograms
from adsq_jax.retrieval.measures import CutoffMeasures, Measures, PrecisionRecall
from adsq_jax.retrieval.nearest import search

__all__ = [
    "POINTS",
    "CutoffMeasures",
    "Limits",
    "Measures",
    "PrecisionRecall",
    "SingleDevice",
    "check_cutoffs",
    "distance_histograms",
    "measure",
    "search",
]
