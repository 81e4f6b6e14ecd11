"""From the bytes of a file to pixels: decode every picture that can be shown, raise `BadImage` for all others."""

import io
import os
import warnings
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

from adsq_jax import storage
from adsq_jax.errors import InputError, first_line

MOST_PIXELS = 89_478_485  # a quarter of a GiB in three channels: Pillow's own limit
_MOST_BYTES = 2**30  # of a file: enough for MOST_PIXELS in four channels of 16 bits
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM")  # Pillow's formats that start no other program
_ORIENTATION = 0x0112  # EXIF's tag
_ORIENTATION_MARKS = (b"Exif\0\0", b"tiff:Orientation")  # the beginning of EXIF, and XMP's name of the same tag
_EIGHT_BITS = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")

warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # damaged EXIF doesn't change a pixel
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)  # Pillow only warns about too many pixels


class BadImage(InputError):
    """An image that is missing or can't be shown. The text continues after the image's name: `is empty; fix: restore it`."""


def decode(content: bytes, *, shorter_side: int) -> np.ndarray:
    """Decode a picture, and resize it.

    Grey, palette and CMYK pictures become RGB; the upper 8 of 16 bits are used; transparent pixels are laid on white; only the
    first frame of an animation is read; EXIF's orientation is applied. JPEG is decoded by libjpeg-turbo with its exact methods;
    if the picture is much larger than `shorter_side`, at a half, a quarter or an eighth of its size.

    Args:
      content: the bytes of a JPEG, PNG, GIF, WebP, BMP, TIFF or PPM file.
      shorter_side: the size to resize it to, in pixels, keeping proportions; 0: none.

    Returns:
      uint8[h, w, 3].

    Raises:
      BadImage: the picture is damaged, has more than MOST_PIXELS, or has pixels without a defined range.
    """
    if not content:
        raise BadImage("is empty; fix: restore it")
    try:
        pixels = _decode_plain_jpeg(content, shorter_side=shorter_side)
        if pixels is None:
            with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
                check_size(picture.size, shorter_side=shorter_side)
                pixels = _decode_by_pillow(picture, shorter_side=shorter_side)
    except (BadImage, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(_too_large()) from error
    except Exception as error:  # Pillow's readers raise anything for a damaged file
        reason = first_line(error).split(" <_io.BytesIO")[0][:100]
        raise BadImage(f"is not a complete picture ({reason}); fix: restore it, or convert it to JPEG or PNG") from error
    return resize(pixels, shorter_side=shorter_side)


def from_picture(picture: Image.Image, *, shorter_side: int) -> np.ndarray:
    """Convert a PIL image as `decode` does; a large JPEG's pixels differ slightly, since it isn't read at a reduced size.

    Raises:
      BadImage: as in `decode`.
    """
    try:
        check_size(picture.size, shorter_side=shorter_side)
        return resize(_decode_by_pillow(picture, shorter_side=0), shorter_side=shorter_side)
    except (BadImage, MemoryError):
        raise
    except Exception as error:  # as above
        raise BadImage(f"is not a complete picture ({first_line(error)[:100]}); fix: give another") from error


def read(path: Path) -> bytes:
    """Read a picture's file, from this machine or an object store.

    Raises:
      BadImage: the file is missing, can't be read, or is larger than any allowed picture.
    """
    try:
        if not storage.is_remote(path) and not path.is_file():  # opening a pipe would block
            raise BadImage(
                "is not a file; fix: give a picture"
                if os.path.lexists(path)
                else "isn't there; fix: give the path of a picture"
            )
        check_bytes(storage.size(path))
        return storage.read(path)
    except FileNotFoundError as error:
        raise BadImage("isn't there; fix: give the path of a picture") from error
    except OSError as error:
        raise BadImage(f"can't be read ({error.strerror}); fix: give another picture") from error


def check_bytes(size: int) -> None:
    """Check the size of a file before it is read."""
    if size > _MOST_BYTES:
        raise BadImage(f"has more than {_MOST_BYTES >> 20:,} MiB; fix: make it smaller")


def centre(image: np.ndarray, *, side: int) -> np.ndarray:
    """Crop an image to the square at its centre, uint8[h, w, 3] -> uint8[side, side, 3]."""
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def check_size(size: tuple[int, int], *, shorter_side: int) -> None:
    """Check that a picture of some width and height has at most MOST_PIXELS, before and after resizing."""
    scale = shorter_side / max(1, min(size))  # one line of pixels would become a broad band
    if size[0] * size[1] * max(1, scale) ** 2 > MOST_PIXELS:
        raise BadImage(_too_large())


def _too_large() -> str:
    return f"has more than {MOST_PIXELS:,} pixels, or would have once it is resized; fix: make it smaller"


def _decode_plain_jpeg(content: bytes, *, shorter_side: int) -> np.ndarray | None:
    """Decode a JPEG to Pillow's pixels in half its time; return None if Pillow must do it."""
    if not content.startswith(b"\xff\xd8") or any(mark in content for mark in _ORIENTATION_MARKS):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        if colours not in ("YCbCr", "Gray", "RGB"):
            return None
        check_size((width, height), shorter_side=shorter_side)
        height, width = _reduced_size((width, height), shorter_side=shorter_side)
        return simplejpeg.decode_jpeg(content, min_height=height, min_width=width, min_factor=1)
    except BadImage:
        raise
    except ValueError:  # raised for warnings too: Pillow distinguishes damaged from merely unusual files
        return None


def _decode_by_pillow(picture: Image.Image, *, shorter_side: int) -> np.ndarray:
    file_format, turned = picture.format, picture.getexif().get(_ORIENTATION, 1) != 1
    if shorter_side and not turned:
        picture.draft("RGB", (shorter_side, shorter_side))
    if turned:
        picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I;16") or (file_format == "PPM" and picture.mode == "I"):  # Pillow scales PGM to 16 bits
        return np.repeat((np.asarray(picture) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if picture.mode not in _EIGHT_BITS:
        raise BadImage(f"has pixels of kind {picture.mode}, which have no defined range; fix: convert it to 8 bits")
    if "transparency" in picture.info or picture.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return np.array(picture.convert("RGB"))


def _reduced_size(size: tuple[int, int], *, shorter_side: int) -> tuple[int, int]:
    """Return height and width to ask libjpeg-turbo for: Pillow's smallest fraction that is large enough, or 0, 0 for all."""
    divisors = [k for k in (2, 4, 8) if shorter_side and min(size) // k >= shorter_side]
    return (-(-size[1] // divisors[-1]), -(-size[0] // divisors[-1])) if divisors else (0, 0)


def resize(image: np.ndarray, *, shorter_side: int) -> np.ndarray:
    """Resize an image bilinearly, keeping proportions and averaging the pixels that become one.

    Args:
      image: uint8[h, w, 3].
      shorter_side: in pixels; 0: unchanged.

    Returns:
      uint8[h', w', 3].
    """
    height, width = image.shape[:2]
    shorter = min(height, width)
    if shorter_side in (0, shorter):
        return image
    size = [max(shorter_side, round(side * shorter_side / shorter)) for side in (width, height)]
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0))
