"""Small files that ask a decoder for much: each is made here, byte by byte, and is a picture of its format or nearly so."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def saved(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind, content):
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, *chunks, pixels=None):
    """A grey PNG, black if no pixels are given, with chunks before its pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(width + 1)) for _ in range(height)) if pixels is None else packer.compress(pixels)
    return b"".join((b"\x89PNG\r\n\x1a\n", header, *chunks, chunk(b"IDAT", rows + packer.flush()), chunk(b"IEND", b"")))


def png_of_many_chunks(count):
    return png(1, 1, chunk(b"prVt", b"") * count)


def png_of_many_pieces(count):
    """A PNG whose pixels come in pieces of no bytes, after which there are some."""
    whole = png(1, 1)
    at = whole.index(b"IDAT") - 4
    return whole[:at] + chunk(b"IDAT", b"") * count + whole[at:]


def jpeg_of_many_scans(side, scans):
    """A progressive JPEG whose last scan, of a dozen bytes for each row of blocks, comes again and again."""
    whole = saved(Image.new("L", (side, side), 90), "JPEG", progressive=True)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * scans + whole[-2:]


def jpeg_of_hidden_scans(side, scans):
    """The same, with what looks like the end of the picture in a comment before those scans."""
    whole = jpeg_of_many_scans(side, scans)
    at = whole.index(b"\xff\xda", whole.index(b"\xff\xda") + 2)
    return whole[:at] + b"\xff\xfe\0\x04\xff\xd9" + whole[at:]


def jpeg_of_many_comments(count):
    whole = saved(Image.new("L", (8, 8)), "JPEG")
    return whole[:2] + b"\xff\xfe\0\x02" * count + whole[2:]


def overlapping(count, size, kind):
    """EXIF whose tags all have the same numbers."""
    entries = b"".join(struct.pack("<HHII", 1000 + k, kind, size // (kind - 1 if kind == 3 else 1), 10) for k in range(count))
    return b"II*\0" + struct.pack("<IH", 8, count) + entries + bytes(size)


def jpeg_of_segments(*segments):
    whole = saved(Image.new("L", (8, 8)), "JPEG")
    return whole[:2] + b"".join(marker + struct.pack(">H", len(body) + 2) + body for marker, body in segments) + whole[2:]


def jpeg_of_exif():
    return jpeg_of_segments((b"\xff\xe1", b"Exif\0\0" + overlapping(2500, 30_000, 7)))


def jpeg_of_repeated_exif(segments):
    """A JPEG whose EXIF consists of beginnings of EXIF."""
    return jpeg_of_segments(*[(b"\xff\xe1", b"Exif\0\0" * 10_000)] * segments)


def jpeg_of_several_pictures():
    """A JPEG that says where its other pictures are, in numbers without end."""
    return jpeg_of_segments((b"\xff\xe1", b"Exif\0\0"), (b"\xff\xe2", b"MPF\0" + overlapping(2500, 30_000, 3)))


def png_of_exif():
    return png(1, 1, chunk(b"eXIf", overlapping(20_000, 200_000, 7)))


def gif_of_comments(count):
    whole = saved(Image.new("L", (8, 8)), "GIF")
    at = whole.rindex(b",")
    return whole[:at] + b"!\xfe\x01x\0" * count + whole[at:]


def ppm_of_bits(side):
    """A PPM of the maximum 1."""
    return b"P6 %d %d 1\n" % (side, side) + bytes(range(2)) * (3 * side * side // 2)


def pbm_of_text(side):
    return b"P1 %d %d\n" % (side, side) + b"0 " * side * side


def ppm_of_comment(length):
    return b"P6 #" + b"x" * length + b"\n1 1 255\n123"


def bmp_of_runs(side):
    """A BMP in which each pixel is a run of its own."""
    palette = bytes(k for colour in range(256) for k in (colour, 0, 0, 0))
    runs = (b"\x01\x07" * side + b"\0\0") * side + b"\0\1"
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(runs), 0, 0, 256, 0)
    begin = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", begin + len(runs), 0, 0, begin) + header + palette + runs


def webp_of_canvas(width, height):
    """A WebP whose canvas is larger than its one frame."""
    frame = saved(Image.new("RGB", (1, 1)), "WEBP", lossless=True)[12:]
    canvas = b"VP8X" + struct.pack("<IB3x", 10, 0) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", 4 + len(canvas) + len(frame)) + b"WEBP" + canvas + frame


def tiff(tags, *, more=b""):
    """A little-endian TIFF of tags (tag, type, count, value or offset); `more` follows them."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + more


_TIFF = [(256, 4, 1, 1), (257, 4, 1, 1), (258, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]


def tiff_of_tile(side):
    """A TIFF of one pixel, in a tile of many."""
    return tiff([*_TIFF, (259, 3, 1, 8), (322, 4, 1, side), (323, 4, 1, side), (324, 4, 1, 8), (325, 4, 1, 9)])


def tiff_of_offsets(count):
    """A TIFF that says where each of many strips is."""
    offset = 8 + 2 + 12 * 8 + 4
    offsets = struct.pack("<I", 8) * count
    return tiff([*_TIFF, (259, 3, 1, 1), (273, 4, count, offset), (278, 4, 1, 1)], more=offsets)


def tiff_of_overlapping_tags(count, size):
    """A TIFF of tags that all have the same bytes, far more together than the file."""
    offset = 8 + 2 + 12 * (count + 8) + 4
    known = [*_TIFF, (259, 3, 1, 1), (273, 4, 1, 8), (279, 4, 1, 1)]
    return tiff([*known, *((40_000 + k, 7, size, offset) for k in range(count))], more=bytes(size))


def noise(height, width, *, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))
