"""From the bytes of a file to pixels: decode every picture that can be shown, raise `BadImage` for all others."""

import contextlib
import io
import os
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import simplejpeg
from absl import logging
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from adsq_jax import storage
from adsq_jax.data import decoding_limits as limits
from adsq_jax.data import picture_formats
from adsq_jax.data.decoding_limits import MOST_PIXELS, TooCostly
from adsq_jax.errors import InputError, first_line

_MOST_BYTES = 2**30  # of a file: enough for MOST_PIXELS in four channels of 16 bits
_ORIENTATION = 0x0112  # EXIF's tag
_EXIF_MARK, _XMP_ORIENTATION = b"Exif\0\0", b"tiff:Orientation"  # the beginning of EXIF, and XMP's name of the same tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_STRIP = 2**22  # pixels converted at a time
_DARK = 4_096 >> 8  # of 16 bits the upper 8 are read
_MAY_HAVE_16_BITS = (b"\x89PNG", b"II", b"MM")  # begin PNG and TIFF
BIT_DEPTHS = (0, *range(9, 17))  # bits that pictures of 16 bits may use; 0: all
_EIGHT_BITS = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")

# The C library gives back at once what is larger than 32 MiB; of Pillow's usual 16, each thread would keep a picture's worth.
Image.core.set_block_size(2**26)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # damaged EXIF doesn't change a pixel
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)  # Pillow only warns about too many pixels


class BadImage(InputError):
    """An image that is missing or can't be shown. The text continues after the image's name: `is empty; fix: restore it`."""


def decode(content: bytes, *, shorter_side: int, bit_depth: int = 0) -> np.ndarray:
    """Decode a picture, and resize it.

    Grey, palette and CMYK pictures become RGB; the upper 8 of 16 bits are used, or of `bit_depth`; transparent pixels are laid
    on white; only the first frame of an animation is read; EXIF's orientation is applied. JPEG is decoded by libjpeg-turbo with
    its exact methods; if the picture is much larger than `shorter_side`, at a half, a quarter or an eighth of its size.

    Args:
      content: the bytes of a JPEG, PNG, GIF, WebP, AVIF, BMP, TIFF or PPM file, or of HEIC with the extra `heic`.
      shorter_side: the size to resize it to, in pixels, keeping proportions; 0: none.
      bit_depth: one of BIT_DEPTHS: the bits that grey PNG and TIFF of 16 bits use, of which the upper 8 are taken: 12 means
        values up to 4,095; 0: all 16. TIFF of 12 bits a value and PGM say it themselves.

    Returns:
      uint8[h, w, 3].

    Raises:
      BadImage: the picture is damaged or of another format, has a value of more than `bit_depth` bits, has more than
        MOST_PIXELS, costs more than `decoding_limits` allows, or has pixels without a defined range.
      MemoryError: this process's memory is limited, and is too little.
    """
    if not content:
        raise BadImage("is empty; fix: restore it")
    alone = False  # whether no other thread decodes meanwhile
    while True:
        try:
            return _decode(content, shorter_side=shorter_side, bit_depth=bit_depth, alone=alone)
        except BadImage:
            raise
        except TooCostly as error:
            raise BadImage(str(error)) from error
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise BadImage(_too_large()) from error
        except Exception as error:  # Pillow's readers raise anything for a damaged file, or where memory is short
            if alone or not limits.memory_is_limited():
                if isinstance(error, MemoryError):
                    raise
                reason = first_line(error).split(" <")[0][:100]  # without the file that Pillow shows
                raise BadImage(
                    f"is not a complete picture ({reason}); fix: restore it, or convert it to JPEG or PNG"
                ) from error
        alone = True


def from_picture(picture: Image.Image, *, shorter_side: int, bit_depth: int = 0) -> np.ndarray:
    """Convert a PIL image as `decode` does; a large JPEG's pixels differ slightly, since it isn't read at a reduced size.

    Raises:
      BadImage: as in `decode`.
    """
    try:
        check_size(picture.size, shorter_side=shorter_side)
        _check_kind(picture, size=0)
        with limits.SHARED.take(_memory(picture.size, picture.mode, limits.Extra()), alone=False):
            depth = _depth(picture, bit_depth)
            picture.load()
            return resize(_to_rgb(_turn(picture), depth=depth), shorter_side=shorter_side)
    except (BadImage, MemoryError):
        raise
    except TooCostly as error:
        raise BadImage(str(error)) from error
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
    """Check width and height of a picture: at most MOST_PIXELS, before and after resizing, and more than a mere line."""
    scale = shorter_side / max(1, min(size))  # one line of pixels would become a broad band
    if size[0] * size[1] * max(1, scale) ** 2 > MOST_PIXELS:
        raise BadImage(_too_large())
    if max(size) > limits.MOST_SIDE:
        raise BadImage(f"is longer than {limits.MOST_SIDE:,} pixels; fix: make it smaller")
    if shorter_side and max(size) > limits.MOST_ASPECT * min(size):
        raise BadImage(f"is {size[0]:,} x {size[1]:,} pixels, a mere line, which can't be resized; fix: crop it")


def _too_large() -> str:
    return f"has more than {MOST_PIXELS:,} pixels, or would have once it is resized; fix: make it smaller"


def _decode(content: bytes, *, shorter_side: int, bit_depth: int, alone: bool) -> np.ndarray:
    """Decode and resize a picture; raise anything if it is damaged. Alone, it has the memory of all threads."""
    jpeg = limits.read_jpeg(content)
    if jpeg is not None:
        check_size(jpeg.size, shorter_side=shorter_side)
        image = _decode_plain_jpeg(content, jpeg, shorter_side=shorter_side, alone=alone)
        if image is not None:
            return image
    with contextlib.ExitStack() as held:
        pixels = _decode_by_pillow(
            content,
            jpeg,
            shorter_side=shorter_side,
            bit_depth=bit_depth,
            take=lambda size: held.enter_context(limits.SHARED.take(size, alone=alone)),
        )
        return resize(pixels, shorter_side=shorter_side)


def _decode_plain_jpeg(content: bytes, jpeg: limits.Jpeg, *, shorter_side: int, alone: bool) -> np.ndarray | None:
    """Decode a JPEG to Pillow's pixels in half its time, and resize it; return None if Pillow must do it."""
    header = content[: jpeg.header]
    if _EXIF_MARK in header or _XMP_ORIENTATION in header or jpeg.channels not in (1, 3):  # of four are CMYK
        return None
    try:
        least = _reduced_size(jpeg.size, shorter_side=shorter_side)
        height, width = least if any(least) else (jpeg.size[1], jpeg.size[0])
        pixels = 3 * height * width
        coefficients = 0 if jpeg.scanned_once else 2 * jpeg.coefficients
        with limits.SHARED.take(pixels + max(coefficients, 4 * pixels // 3), alone=alone):  # Pillow resizes a copy
            room = np.empty(pixels, np.uint8)  # too little if libjpeg-turbo reads another size in the header
            image = simplejpeg.decode_jpeg(content, min_height=least[0], min_width=least[1], min_factor=1, buffer=room)
            return resize(image, shorter_side=shorter_side) if image.shape == (height, width, 3) else None
    except ValueError:  # raised for warnings too: Pillow distinguishes damaged from merely unusual files
        return None


def _decode_by_pillow(
    content: bytes, jpeg: limits.Jpeg | None, *, shorter_side: int, bit_depth: int, take: Callable[[int], None]
) -> np.ndarray:
    """Decode a picture, uint8[h, w, 3]; `take` waits for a number of bytes."""
    extra = limits.read_tiff(content)
    if jpeg is not None and not jpeg.scanned_once:
        extra = limits.Extra(decoding=2 * jpeg.coefficients)
    webp = limits.read_webp(content)
    if webp is not None:  # Pillow makes room for two frames when it opens it
        check_size(webp, shorter_side=shorter_side)
        extra = limits.webp_extra(webp)
        take(_memory(webp, "RGBA", extra))
    file = limits.BoundedFile(content)
    with _open(file, content) as picture:
        check_size(picture.size, shorter_side=shorter_side)
        _check_kind(picture, size=len(content))
        file.opened()
        if shorter_side and jpeg is not None and _orientation(picture) == 1:
            picture.draft("RGB", (shorter_side, shorter_side))
        if picture.format in ("AVIF", "HEIF"):
            extra = limits.avif_extra(picture.size)
        if webp is None:
            take(_memory(picture.size, picture.mode, extra))
        if _codec(picture) == "ppm":
            return _decode_ppm(picture, content)
        depth = _depth(picture, bit_depth)
        picture.load()
        turned = _turn(picture)
        if turned is not picture:
            picture.close()  # else memory holds both
        return _to_rgb(turned, depth=depth)


def _open(file: io.BytesIO, content: bytes) -> ImageFile:
    try:
        return Image.open(file, formats=picture_formats.names(content))
    except UnidentifiedImageError as error:
        reason = picture_formats.why_unread(content)
        if reason is None:
            raise
        raise BadImage(reason) from error


def _check_kind(picture: Image.Image, *, size: int) -> None:
    """Check, before it is decoded, that the pixels have a defined range and a decoder that takes bounded time."""
    if not (picture.mode in _EIGHT_BITS or _is_deep(picture)):
        raise BadImage(f"has pixels of kind {picture.mode}, which have no defined range; fix: convert it to 8 bits")
    if picture.format == "TIFF" and picture.info.get("compression") not in limits.TIFF_COMPRESSIONS:
        raise BadImage(f"is compressed as {picture.info.get('compression')}, a rare kind of TIFF; fix: convert it to PNG")
    if _codec(picture) == "ppm_plain" and size > limits.MOST_TEXT:
        raise BadImage(f"has more than {limits.MOST_TEXT >> 20} MiB of pixels as text; fix: convert it to PNG")


def _codec(picture: Image.Image) -> str:
    """Return the name of Pillow's decoder for a picture that isn't decoded yet."""
    return picture.tile[0][0] if isinstance(picture, ImageFile) and picture.tile else ""


def has_16_bits(content: bytes) -> bool:
    """Return whether the bytes of a picture that can be decoded are a PNG or TIFF of 16 bits, in grey or in each colour."""
    try:
        with Image.open(limits.BoundedFile(content), formats=("PNG", "TIFF")) as picture:
            return _is_stored_as(";16", picture)
    except UnidentifiedImageError:  # another format
        return False


def is_dark(content: bytes, pixels: np.ndarray) -> bool:
    """Return whether a PNG or TIFF of 16 bits uses at most 12 of them, and so was decoded to nearly black, uint8[h, w, 3]."""
    return content.startswith(_MAY_HAVE_16_BITS) and int(pixels.max()) < _DARK and has_16_bits(content)


def warn_if_dark(content: bytes, pixels: np.ndarray, *, name: Callable[[], str]) -> None:
    """Name the first picture for which `is_dark` is true on standard error; further ones are as quiet as others."""
    if is_dark(content, pixels):
        logging.log_first_n(
            logging.WARNING,
            "%s has 16 bits and values below 4,096 alone, and is read as nearly black; fix: if that is so of all pictures, "
            "train with the bits that they use, --config.data.bit_depth=12",
            1,
            name(),
        )


def _is_stored_as(kind: str, picture: Image.Image) -> bool:
    """Return whether Pillow's name for how pixels are stored, of a picture that isn't decoded yet, contains a text."""
    return isinstance(picture, ImageFile) and any(kind in str(tile[3]) for tile in picture.tile)


def _depth(picture: Image.Image, bit_depth: int) -> int:
    """Return the bits that the grey values of a picture that isn't decoded yet use; 0 if it is one of 8 bits, or Pillow's."""
    if not _is_deep(picture):
        if bit_depth not in (0, 16) and _is_stored_as(";16", picture):  # of which Pillow reads the upper 8
            raise BadImage(f"has 16 bits in each colour, and bit_depth={bit_depth} is for grey; fix: convert it to 8 bits")
        return 0
    if _is_stored_as("I;12", picture):
        return 12
    return 16 if picture.mode == "I" else bit_depth or 16


def _is_deep(picture: Image.Image) -> bool:
    """Return whether pixels are grey of 16 bits."""
    return picture.mode.startswith("I;16") or (picture.format == "PPM" and picture.mode == "I")  # Pillow scales PGM so


def _orientation(picture: Image.Image) -> int:
    exif, text = picture.info.get("exif"), picture.info.get("Raw profile type exif")
    if isinstance(exif, bytes):
        limits.check_exif(exif)
    elif isinstance(text, str):  # hexadecimal, in a PNG
        with contextlib.suppress(ValueError):
            limits.check_exif(bytes.fromhex("".join(text.split("\n")[3:])))
    try:
        return picture.getexif().get(_ORIENTATION, 1)
    except (LookupError, SyntaxError, TypeError, ValueError, struct.error):  # damaged EXIF doesn't change a pixel
        return 1


def _memory(size: tuple[int, int], mode: str, extra: limits.Extra) -> int:
    """Return the bytes that a picture takes while Pillow decodes it, and later."""
    pixels, channels = size[0] * size[1], 1 if mode in ("1", "L", "P") else 2 if mode.startswith("I;16") else 4
    turned, resized = 2 * channels, 3 + 4  # the picture twice; the array, and Pillow's copy of it
    return max(extra.decoding + pixels * channels, extra.later + pixels * max(turned, channels + 3, resized))


def _decode_ppm(picture: ImageFile, content: bytes) -> np.ndarray:
    """Decode a PPM or PGM of an unusual maximum, which Pillow reads in Python, to Pillow's pixels."""
    _, _, begin, args = picture.tile[0]
    assert isinstance(args, tuple)
    (width, height), bands, maximum = picture.size, len(picture.getbands()), int(args[-1])
    dtype = np.dtype(np.uint8 if maximum < 256 else ">u2")
    values = np.frombuffer(content, dtype, width * height * bands, begin).reshape(height, width, bands)
    most = 65535 if picture.mode == "I" else 255
    table = np.minimum(most, np.rint(np.arange(1 << 8 * dtype.itemsize) / maximum * most)).astype(np.uint16)
    table = (table >> 8 if picture.mode == "I" else table).astype(np.uint8)
    pixels = np.empty((height, width, 3), np.uint8)
    for row, output in zip(values, pixels, strict=True):
        output[:] = table[row]
    return pixels


def _turn(picture: Image.Image) -> Image.Image:
    """Turn and mirror a decoded picture as EXIF says; return the same one if there is nothing to turn."""
    turn = _TURNS.get(_orientation(picture))
    return picture if turn is None else picture.transpose(turn)


def _to_rgb(picture: Image.Image, *, depth: int) -> np.ndarray:
    """Convert a decoded picture, uint8[h, w, 3]: in strips, since some conversions take several copies; `depth` by `_depth`."""
    width, height = picture.size
    rows = max(1, _STRIP // width)
    if rows >= height:
        return _strip_to_rgb(picture, depth=depth)
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        pixels[top:bottom] = _strip_to_rgb(picture.crop((0, top, width, bottom)), depth=depth)
    return pixels


def _strip_to_rgb(picture: Image.Image, *, depth: int) -> np.ndarray:
    if depth:
        values = np.asarray(picture)
        if depth < 16 and values.max() >= 1 << depth:
            raise BadImage(
                f"has the value {values.max():,}, and bit_depth={depth} means at most {(1 << depth) - 1:,}; fix: set bit_depth "
                "to the bits that the pictures use"
            )
        return np.repeat((values >> (depth - 8)).astype(np.uint8)[..., None], 3, axis=2)
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
