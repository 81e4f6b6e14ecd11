"""From a file's bytes to pixels: every picture that can be shown is, every other is refused by name."""

import io
import os
import warnings
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

from adsq_jax import storage
from adsq_jax.errors import InputError

MOST_PIXELS = 89_478_485  # a quarter of a GiB in three channels: Pillow's own limit
_MOST_BYTES = 2**30  # of a file: that many pixels of four channels of 16 bits, and some
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM")  # of Pillow's, those that start no other program
_ORIENTATION = 0x0112  # EXIF's tag
_MAY_BE_TURNED = (b"Exif\0\0", b"tiff:Orientation")  # what begins EXIF, and XMP's name of the same
_EIGHT_BITS = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")

# Pillow warns of a picture above its limit and opens it; it is refused here, in every thread.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # of damaged EXIF, which costs no pixel
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


class BadImage(InputError):
    """An image that isn't there, or that can't be shown; the text begins after the name: `is empty: restore it`."""


def decode(content: bytes, *, shorter_side: int) -> np.ndarray:
    """Decodes a picture, and resizes it.

    Grey, palette and CMYK pictures become RGB; of 16 bits the upper 8 count; what is transparent is laid on white; of an
    animation the first frame counts; EXIF's orientation is applied. JPEG is decoded by libjpeg-turbo with its exact methods,
    far above `shorter_side` at a half, a quarter or an eighth of its size.

    Args:
      content: of a file: JPEG, PNG, GIF, WebP, BMP, TIFF or PPM.
      shorter_side: what to resize to, in pixels, in proportion; 0: as it is.

    Returns:
      uint8[h, w, 3].

    Raises:
      BadImage: it is no whole picture, of more than MOST_PIXELS, or of pixels that have no agreed range.
    """
    if not content:
        raise BadImage("is empty: restore it")
    try:
        pixels = _plain_jpeg(content, shorter_side=shorter_side)
        if pixels is None:
            with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
                check_size(picture.size, shorter_side=shorter_side)
                pixels = _by_pillow(picture, shorter_side=shorter_side)
    except (BadImage, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(_too_large()) from error
    except Exception as error:  # Pillow's readers let through whatever a damaged file makes Python raise
        said = str(error).split(" <_io.BytesIO")[0].strip().splitlines() or [type(error).__name__]
        raise BadImage(f"is no whole picture ({said[0][:100]}): restore it, or convert it to JPEG or PNG") from error
    return resize(pixels, shorter_side=shorter_side)


def from_picture(picture: Image.Image, *, shorter_side: int) -> np.ndarray:
    """The same of a picture that Pillow has open already.

    A large JPEG's pixels differ a little from `decode`'s, which reads it at a half, a quarter or an eighth of its size.

    Args:
      picture: of any mode.
      shorter_side: as of `decode`.

    Returns:
      uint8[h, w, 3].

    Raises:
      BadImage: as `decode`.
    """
    try:
        check_size(picture.size, shorter_side=shorter_side)
        return resize(_by_pillow(picture, shorter_side=0), shorter_side=shorter_side)
    except (BadImage, MemoryError):
        raise
    except Exception as error:  # as above
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise BadImage(f"is no whole picture ({said[0][:100]}): give another") from error


def read(path: Path) -> bytes:
    """A picture's file, of this machine or of an object store.

    Raises:
      BadImage: it isn't there, can't be read, or is larger than any picture that may be.
    """
    try:
        if not storage.is_remote(path) and not path.is_file():  # to open a pipe would wait for ever
            raise BadImage("is no file: give a picture" if os.path.lexists(path) else "isn't there: give the path of a picture")
        check_bytes(storage.size(path))
        return storage.read(path)
    except FileNotFoundError as error:
        raise BadImage("isn't there: give the path of a picture") from error
    except OSError as error:
        raise BadImage(f"can't be read ({error.strerror}): give another picture") from error


def check_bytes(size: int) -> None:
    """Says whether a file may be read whole.

    Raises:
      BadImage: it is larger than a picture of MOST_PIXELS is in any format.
    """
    if size > _MOST_BYTES:
        raise BadImage(f"has more than {_MOST_BYTES >> 20:,} MiB: make it smaller")


def centre(image: np.ndarray, *, side: int) -> np.ndarray:
    """The square in the middle of an image, uint8[h, w, 3] -> uint8[side, side, 3]."""
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def check_size(size: tuple[int, int], *, shorter_side: int) -> None:
    """Says whether a picture has, and would have once it is resized, at most MOST_PIXELS.

    Args:
      size: width and height.
      shorter_side: what it is to be resized to; 0: it isn't.

    Raises:
      BadImage: it has more.
    """
    narrow = shorter_side / max(1, min(size))  # a line of pixels would become a broad band
    if size[0] * size[1] * max(1, narrow) ** 2 > MOST_PIXELS:
        raise BadImage(_too_large())


def _too_large() -> str:
    return f"has more than {MOST_PIXELS:,} pixels, or would have once it is resized: make it smaller"


def _plain_jpeg(content: bytes, *, shorter_side: int) -> np.ndarray | None:
    """Most pictures, in half of Pillow's time and with its pixels; None for what it should look at."""
    if not content.startswith(b"\xff\xd8") or any(mark in content for mark in _MAY_BE_TURNED):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        if colours not in ("YCbCr", "Gray", "RGB"):
            return None
        check_size((width, height), shorter_side=shorter_side)
        height, width = _least_size((width, height), shorter_side=shorter_side)
        return simplejpeg.decode_jpeg(content, min_height=height, min_width=width, min_factor=1)
    except BadImage:
        raise
    except ValueError:  # its warnings are errors: Pillow tells what is damaged from what is merely unusual
        return None


def _by_pillow(picture: Image.Image, *, shorter_side: int) -> np.ndarray:
    form, turned = picture.format, picture.getexif().get(_ORIENTATION, 1) != 1
    if shorter_side and not turned:
        picture.draft("RGB", (shorter_side, shorter_side))
    if turned:
        picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I;16") or (form == "PPM" and picture.mode == "I"):  # Pillow stretches PGM's to 16 bits
        return np.repeat((np.asarray(picture) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if picture.mode not in _EIGHT_BITS:
        raise BadImage(f"has pixels of kind {picture.mode}, which have no agreed range: convert it to 8 bits")
    if "transparency" in picture.info or picture.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return np.array(picture.convert("RGB"))


def _least_size(size: tuple[int, int], *, shorter_side: int) -> tuple[int, int]:
    """Height and width to ask libjpeg-turbo for: the whole, or the smallest of Pillow's fractions that is large enough."""
    fits = [k for k in (2, 4, 8) if shorter_side and min(size) // k >= shorter_side]
    return (-(-size[1] // fits[-1]), -(-size[0] // fits[-1])) if fits else (0, 0)


def resize(image: np.ndarray, *, shorter_side: int) -> np.ndarray:
    """Resizes an image in proportion, bilinearly, averaging over what becomes one pixel.

    Args:
      image: uint8[h, w, 3].
      shorter_side: in pixels; 0: as it is.

    Returns:
      uint8[h', w', 3].
    """
    height, width = image.shape[:2]
    shorter = min(height, width)
    if shorter_side in (0, shorter):
        return image
    size = [max(shorter_side, round(side * shorter_side / shorter)) for side in (width, height)]
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0))
