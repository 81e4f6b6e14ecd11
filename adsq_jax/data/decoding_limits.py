"""What decoding a picture may cost: at most a GiB beside its file, for all threads together, and about 5 seconds of a core.

A file of a few bytes can ask for gigabytes or for hours. What it asks for stands in its header, which is read here before a
library decodes the picture; what stands nowhere is counted while the library reads. The bounds leave room for what cameras,
scanners and editors write: photographs of 80 megapixels, of 40 in a JPEG of twenty scans, metadata of megabytes. The slowest
that is allowed is a progressive JPEG of 100 MB made for the purpose: 10 seconds.
"""

import contextlib
import io
import mmap
import re
import struct
import threading
import traceback
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from adsq_jax.run import startup

MEMORY = 2**30  # bytes in which all threads of a process decode, beside the files: room for the largest picture
MOST_PIXELS = 89_478_485  # a quarter of a GiB in three channels: Pillow's own limit
MOST_SIDE = 200_000  # pixels: libraries hold a few bytes for each row, however short it is
MOST_ASPECT = 100  # a longer or wider strip isn't resized: its shorter side would grow to hundreds of pixels, and with it all
MOST_SCANNED = 12 * MOST_PIXELS  # pixels of a JPEG times its scans, each of which goes through all: editors write up to ten
MOST_PARTS = 10_000  # segments of a JPEG, tags of a TIFF: Pillow takes microseconds for each, and for many grows slower
MOST_HEADER = 2**25  # bytes of a JPEG before its pixels: maps of depth, profiles and descriptions take up to ten megabytes
MOST_EXIF = 2**22  # bytes
MOST_NUMBERS = 500_000  # in one tag of a TIFF, which Python holds as a tuple: the offsets of tiles of 16 x 16 pixels
MOST_TILE = 2**22  # pixels of a TIFF's tile that is larger than the picture
MOST_TEXT = 2**24  # bytes of pixels written as text (PPM), which Pillow reads in Python
MOST_READS_TO_OPEN = 10_000  # calls by which Pillow reads a header: a megabyte of a GIF's comments, 2,500 chunks of a PNG
MOST_READS = 3_000_000  # calls by which Pillow, in Python, reads all: chunks of PNG, runs of BMP
_READ_AGAIN = 4  # times its size, and a MiB, may be read of a file: tags of a TIFF, and of EXIF, may overlap
TIFF_COMPRESSIONS = (  # Pillow's names; the others are rare, slow, or known for defects
    *("raw", "tiff_ccitt", "group3", "group4", "tiff_lzw", "jpeg", "tiff_adobe_deflate", "packbits", "tiff_deflate"),
    *("zstd", "webp"),
)
_MARKER = re.compile(rb"\xff([\xc0-\xcf\xd8-\xfe])")  # JPEG's; the others have no length, and 0xFF00 is a pixel's byte
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive; the others are rare, and browsers show none of them
_OTHER_FRAMES = frozenset((0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF))
_APPLICATIONS = (0xE1, 0xE2)  # EXIF, and where the other pictures of the file are
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA
_READ = frozenset((_START_OF_SCAN, *_FRAMES, *_APPLICATIONS))
_BYTE_TYPES = (1, 2, 6, 7)  # types of TIFF's values that Pillow keeps as bytes
_TIFF_SIZES = {1: "B", 2: "B", 3: "H", 4: "I", 6: "B", 7: "B", 8: "H", 9: "I", 13: "I", 16: "Q", 17: "Q"}  # of whole numbers
_EXIF = b"Exif\0\0"  # begins it
_EXIF_SIZES = np.array([0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 0])  # bytes of a number of each type; 0: unknown


class TooCostly(Exception):
    """A picture asks for more than the bounds. The text continues after its name, and says how to fix it."""


class Extra(NamedTuple):
    """Bytes that a library holds beside the decoded pixels."""

    decoding: int = 0  # until they are decoded
    later: int = 0  # until they are converted


class Memory:
    """A number of bytes that threads share."""

    def __init__(self, size: int):
        """Set how many they are together."""
        self._size = self._free = size
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def take(self, size: int, *, alone: bool) -> Iterator[None]:
        """Wait until a number of bytes is free, or all are, and hold them in a `with` block.

        Raises:
          TooCostly: they are more than there are.
          MemoryError: the block raised another error, alone, and the process can't have that many bytes.
        """
        if size > self._size:
            raise TooCostly(f"takes more than {self._size >> 20:,} MiB to decode; fix: make it smaller, or convert it to JPEG")
        held = self._size if alone else size
        with self._changed:
            self._changed.wait_for(lambda: self._free >= held)
            self._free -= held
        try:
            yield
        except Exception as error:
            if alone:
                traceback.clear_frames(error.__traceback__)  # the half-decoded picture
                _check_free(size, error)
            raise
        finally:
            with self._changed:
                self._free += held
                self._changed.notify_all()


SHARED = Memory(MEMORY)


def _check_free(size: int, error: Exception) -> None:
    """Check that this process can have a number of bytes: else an error doesn't say that a picture is damaged."""
    try:
        mmap.mmap(-1, max(1, size)).close()
    except OSError:
        raise MemoryError(f"{size >> 20:,} MiB for a picture") from error


def memory_is_limited() -> bool:
    """Return whether this process's memory is limited (`ulimit`), so that libraries may report its lack as anything."""
    return any(startup.limit(kind) is not None for kind in ("RLIMIT_AS", "RLIMIT_DATA"))


class BoundedFile(io.BytesIO):
    """A file in memory that counts how often it is read: whatever a reader in Python does for each part is bounded by that."""

    def __init__(self, content: bytes):
        """Wrap a file's content, whose header is read first."""
        super().__init__(content)
        self._calls = MOST_READS_TO_OPEN
        self._bytes = _READ_AGAIN * len(content) + 2**20

    def opened(self) -> None:
        """Allow the calls that pixels take, after the header."""
        self._calls = MOST_READS

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as any file does.

        Raises:
          TooCostly: it was read too often.
        """
        content = super().read(size)
        self._calls -= 1
        self._bytes -= len(content)
        if self._calls < 0 or self._bytes < 0:
            raise TooCostly("has too many parts; fix: save it again with another program, or convert it to JPEG or PNG")
        return content


class Jpeg(NamedTuple):
    """The header of a JPEG."""

    size: tuple[int, int]  # width, height
    channels: int
    scanned_once: bool  # else a library holds all coefficients
    coefficients: int
    header: int  # its length in bytes, up to the pixels


def read_jpeg(content: bytes) -> Jpeg | None:
    """Read the header of a JPEG; None if it isn't a whole one, and for what is no JPEG.

    Raises:
      TooCostly: it is coded in a rare way, or in too many scans or segments.
    """
    if not content.startswith(b"\xff\xd8"):
        return None
    at, frame, exif = 2, b"", list[bytes]()
    for _ in range(MOST_PARTS):
        if content[at : at + 1] != b"\xff" or content[at + 1 : at + 2] in (b"\xff", b"\0"):  # padded, or junk
            found = _MARKER.search(content, at)
            at = len(content) if found is None else found.start()
        if at + 4 > len(content):
            return None
        if at > MOST_HEADER:
            raise TooCostly(f"has more than {MOST_HEADER >> 20} MiB before its pixels; fix: save it again without metadata")
        marker, length = content[at + 1], content[at + 2] << 8 | content[at + 3]
        at += 2
        if marker in _READ:
            body = content[at + 2 : at + length]
            if marker == _START_OF_SCAN:
                if exif:
                    check_exif(b"".join(exif))
                return _check_jpeg(content, frame, scan=body, at=at)
            if marker in _FRAMES:
                frame = frame or bytes([marker]) + body
            elif body.startswith(_EXIF):  # several make one
                exif.append(body[6:])
            elif body.startswith(b"MPF\0"):  # of the same form
                check_exif(body[4:])
        if marker == _END_OF_IMAGE:
            return None
        if marker in _OTHER_FRAMES:
            raise TooCostly("is JPEG of a kind that hardly any program writes; fix: save it as an ordinary JPEG")
        if marker not in _WITHOUT_LENGTH:
            at += max(2, length)
    raise _too_many_segments()


def _too_many_segments() -> TooCostly:
    return TooCostly(f"has more than {MOST_PARTS:,} segments; fix: save it again with another program")


def _check_jpeg(content: bytes, frame: bytes, *, scan: bytes, at: int) -> Jpeg | None:
    """Read a frame's header and count the scans, the first of which begins at a position of the file."""
    if len(frame) < 7 or len(frame) < 7 + 3 * frame[6] or not scan or not frame[6]:
        return None
    height, width = struct.unpack(">HH", frame[2:6])
    factors = frame[8 : 8 + 3 * frame[6] : 3]  # of each channel: blocks of 8 x 8 across and down
    across, down = max(1, *[factor >> 4 for factor in factors]), max(1, *[factor & 15 for factor in factors])
    columns, rows = -(-width // (8 * across)), -(-height // (8 * down))
    coefficients = 64 * columns * rows * sum([(factor >> 4) * (factor & 15) for factor in factors])
    once = frame[0] != 0xC2 and scan[0] == frame[6]
    if not once:
        each = 64 * columns * across * rows * down
        if _scans(content, at, most=MOST_SCANNED // max(1, each)) * each > MOST_SCANNED:
            raise TooCostly("has too many scans for its size; fix: save it again, with at most ten scans")
    return Jpeg((width, height), frame[6], once, coefficients, at)


def _scans(content: bytes, at: int, *, most: int) -> int:
    """Count the scans of a JPEG from a position on, up to one more than `most`."""
    marked = 1 + content.count(b"\xff\xda", at)  # among them those of other pictures in the same file
    if marked <= most:
        return marked
    scans = 1
    for _ in range(MOST_PARTS):
        found = _MARKER.search(content, at)
        if found is None or scans > most or found[1][0] == _END_OF_IMAGE:
            return scans
        at = found.end()
        scans += found[1][0] == _START_OF_SCAN
        if found[1][0] != _START_OF_IMAGE:
            at += max(2, int.from_bytes(content[at : at + 2], "big"))
    raise _too_many_segments()


def check_exif(exif: bytes) -> None:
    """Check that the tags of EXIF, each of which Pillow copies, don't overlap far beyond its size.

    Raises:
      TooCostly: they do, or it is too long.
    """
    if len(exif) > MOST_EXIF:
        raise TooCostly(f"has more than {MOST_EXIF >> 20} MiB of EXIF; fix: save it again without")
    exif = exif.removeprefix(_EXIF)
    if exif.startswith(3 * _EXIF):  # Pillow takes them off one by one
        raise TooCostly("has damaged EXIF; fix: save it again without")
    while exif.startswith(_EXIF):
        exif = exif.removeprefix(_EXIF)
    order = "<" if exif[:2] == b"II" else ">"
    with contextlib.suppress(struct.error, ValueError):  # too short: Pillow finds nothing either
        (at,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, at)
        count = min(count, (len(exif) - at - 2) // 12)
        entries = np.frombuffer(
            exif, [("_", f"{order}u2"), ("kind", f"{order}u2"), ("count", f"{order}u4"), ("__", "u4")], count, at + 2
        )
        sizes = entries["count"] * _EXIF_SIZES[np.minimum(entries["kind"], len(_EXIF_SIZES) - 1)]
        if sizes[sizes <= len(exif)].sum() > _READ_AGAIN * len(exif) + 2**20:
            raise TooCostly("has EXIF whose tags overlap; fix: save it again without")


def read_webp(content: bytes) -> tuple[int, int] | None:
    """Read width and height of a WebP; None for anything else."""
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP" or len(content) < 30:
        return None
    kind, body = content[12:16], content[20:30]
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L":
        sides = int.from_bytes(body[1:5], "little")
        return 1 + (sides & 0x3FFF), 1 + (sides >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    return None


def webp_extra(size: tuple[int, int]) -> Extra:
    """Return what a WebP takes: two frames of four channels; and until it is decoded, the picture once more in each form."""
    return Extra(decoding=16 * size[0] * size[1], later=8 * size[0] * size[1])


def avif_extra(size: tuple[int, int]) -> Extra:
    """Return what an AVIF or a HEIC takes: up to two bytes each for three planes and transparency, and four channels."""
    return Extra(decoding=12 * size[0] * size[1])


def read_tiff(content: bytes) -> Extra:
    """Return what a TIFF's strips or tiles take while it is decoded; nothing for anything else.

    Raises:
      TooCostly: its tiles are far larger than the picture, or it has too many tags or too long ones.
    """
    if content[:2] not in (b"II", b"MM") or len(content) < 16:
        return Extra()
    if content[:4] == b"MM\0+":  # Pillow and libtiff read it in different ways
        raise TooCostly("is a big-endian BigTIFF; fix: convert it to PNG, or to a little-endian TIFF")
    tags = _read_tags(content)
    width, height = tags.get(256, 1), tags.get(257, 1)
    pixel_bytes = min(6, tags.get(277, 1)) * (1 if tags.get(258, 1) <= 8 else 2)  # Pillow refuses more samples and bits
    if tags.get(259) == 7:  # JPEG, which libtiff converts to RGBA
        pixel_bytes = max(4, pixel_bytes)
    tile = tags.get(322, 1) * tags.get(323, 1)
    if tile > max(MOST_TILE, width * height):
        raise TooCostly(f"has tiles of {tags.get(322, 1):,} x {tags.get(323, 1):,} pixels; fix: save it without tiles")
    strip = width * min(height, tags.get(278, height))
    return Extra(decoding=max(tile, strip) * pixel_bytes)


def _read_tags(content: bytes) -> dict[int, int]:
    """Return the largest number of each tag of the first directory; of several values, the first counts."""
    order, big = "<" if content[:2] == b"II" else ">", content[2] == 43
    entry = struct.Struct(f"{order}HHQ" if big else f"{order}HHI")
    counter = struct.Struct(f"{order}Q" if big else f"{order}H")
    offset, field = ("Q", 8) if big else ("I", 4)
    (at,) = struct.unpack_from(f"{order}{offset}", content, 8 if big else 4)
    tags: dict[int, int] = {}
    with contextlib.suppress(struct.error, OverflowError):  # cut short: Pillow says so
        (count,) = counter.unpack_from(content, at)
        if count > MOST_PARTS:
            raise TooCostly(f"has {count:,} tags; fix: save it again with another program")
        for start in range(at + counter.size, at + counter.size + count * (entry.size + field), entry.size + field):
            tag, kind, numbers = entry.unpack_from(content, start)
            if numbers > MOST_NUMBERS and kind not in _BYTE_TYPES:
                raise TooCostly(f"has a tag of {numbers:,} numbers; fix: save it again with larger tiles or strips")
            value = struct.Struct(order + _TIFF_SIZES.get(kind, "B"))
            position = start + entry.size
            if numbers * value.size > field:
                (position,) = struct.unpack_from(f"{order}{offset}", content, position)
            if numbers and position + value.size <= len(content):
                tags[tag] = max(tags.get(tag, 0), *value.unpack_from(content, position))
    return tags
