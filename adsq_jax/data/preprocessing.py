"""From a stored image to the network's input: resize, crop, augment.

A new augmentation needs a field here, in `datasets.Settings` and in `config._data`, and a rule in `config_check._RULES`.
"""

from typing import NamedTuple

import numpy as np

from adsq_jax.data.images import BIT_DEPTHS
from adsq_jax.data.sources import Source
from adsq_jax.errors import InputError

MAX_SIDE = 4_096  # pixels of `resize` and `image_size`: a picture so large takes 48 MiB, and a network's layers many times that


class Preprocessing(NamedTuple):
    """How images are resized, cropped and augmented.

    Args:
      resize: the shorter side after resizing, in pixels; 0: no resizing.
      image_size: the side of the square crop, in pixels: at the centre to encode, at random to train.
      crop_padding: training: the width of a black border, in pixels, that is added before the random crop.
      flip: training: whether to mirror half of the images, left to right.
      erase: training: the largest side of the black square on half of the images, as a fraction of `image_size`, 0 to 1.
      bit_depth: the bits that grey PNG and TIFF of 16 bits use, 9 to 16, of which the upper 8 are taken: 12 for values up to
        4,095, as from many cameras; 0: all 16.

    Source: crop and flip as in He et al., CVPR 2016; squares as in DeVries and Taylor, arXiv 1708.04552.
    """

    resize: int
    image_size: int
    crop_padding: int = 0
    flip: bool = False
    erase: float = 0.0
    bit_depth: int = 0

    def check(self) -> None:
        """Check the ranges.

        Raises:
          InputError: a value is outside its range.
        """
        for name, low in (("resize", 0), ("image_size", 1), ("crop_padding", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= MAX_SIDE:
                raise InputError(f"preprocessing.{name}={value!r}: expected a whole number from {low} to {MAX_SIDE:,}")
        if self.resize and self.resize < self.image_size:
            raise InputError(
                f"preprocessing.resize={self.resize} is less than image_size={self.image_size}; fix: resize=image_size or more"
            )
        if type(self.bit_depth) is not int or self.bit_depth not in BIT_DEPTHS:
            raise InputError(f"preprocessing.bit_depth={self.bit_depth!r}: expected 0, or a whole number from 9 to 16")
        if not 0 <= self.erase <= 1:
            raise InputError(f"preprocessing.erase={self.erase}: expected 0 to 1")


def resized(source: Source, row: int, preprocessing: Preprocessing) -> np.ndarray:
    """Return one image before it is cropped, uint8[h, w, 3].

    Raises:
      InputError: the image can't be read, or it isn't resized and has another size than the network expects.
    """
    side = preprocessing.image_size
    image = source.image(row, shorter_side=preprocessing.resize, bit_depth=preprocessing.bit_depth)
    if not preprocessing.resize and image.shape[:2] != (side, side):
        raise InputError(
            f"{source.location(row)} is {image.shape[0]}x{image.shape[1]}, the network expects {side}x{side}; fix: "
            f"set --config.data.image_size to it, or resize with --config.data.resize={side}"
        )
    return image


def augment(image: np.ndarray, random: np.random.Generator, preprocessing: Preprocessing, *, out: np.ndarray) -> None:
    """Pad, crop, mirror and erase an image at random, uint8[h, w, 3] -> uint8[image_size, image_size, 3], which is `out`."""
    padding, side = preprocessing.crop_padding, preprocessing.image_size
    height, width, channels = image.shape
    if padding:
        bordered = np.zeros((height + 2 * padding, width + 2 * padding, channels), np.uint8)
        bordered[padding : padding + height, padding : padding + width] = image
        image, height, width = bordered, height + 2 * padding, width + 2 * padding
    if (height, width) != (side, side):
        top, left = int(random.integers(0, height - side + 1)), int(random.integers(0, width - side + 1))
        image = image[top : top + side, left : left + side]
    if preprocessing.flip and random.random() < 0.5:
        for channel in range(channels):  # NumPy copies that six times as fast as whole pixels of three bytes
            out[..., channel] = image[:, ::-1, channel]
    else:
        out[:] = image
    if preprocessing.erase and random.random() < 0.5:
        square = int(random.integers(1, max(2, round(preprocessing.erase * side) + 1)))
        rows, columns = (
            slice(max(0, centre - square // 2), centre + -(-square // 2)) for centre in random.integers(0, (side, side))
        )
        out[rows, columns] = 0
