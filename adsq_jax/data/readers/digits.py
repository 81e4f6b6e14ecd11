"""Scikit-learn's handwritten digits, which its package holds."""

import importlib

import numpy as np

from adsq_jax.data.labels import Labels
from adsq_jax.data.sources import ArraySource
from adsq_jax.errors import InputError


def read() -> ArraySource:
    """Read 1,797 images of 8 x 8 pixels in ten classes.

    Source: UCI, Optical Recognition of Handwritten Digits (test part), from `sklearn.datasets.load_digits`.
    """
    try:
        datasets = importlib.import_module("sklearn.datasets")
    except ModuleNotFoundError as error:
        raise InputError("digits come with scikit-learn, which isn't installed; fix: pip install 'adsq_jax[digits]'") from error
    data = datasets.load_digits()
    pixels = np.round(data.images * (255 / 16)).astype(np.uint8)[..., None]  # 0..16 -> 0..255
    return ArraySource(pixels, Labels.from_ids(data.target, classes=10), classes=[str(k) for k in range(10)])
