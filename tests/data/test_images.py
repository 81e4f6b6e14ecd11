"""Decoding: the pixels that other readers give, for every kind of picture; of anything else, one line that says what it is."""

import functools
import io
import re
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pillow_heif
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image, PngImagePlugin

from adsq_jax.data import images, picture_formats
from adsq_jax.data.images import BadImage, decode

pillow_heif.register_heif_opener()  # to write it
RANDOM = np.random.default_rng(7)
COLOURS = RANDOM.integers(0, 256, (13, 18, 3), dtype=np.uint8)
OTHER = RANDOM.integers(0, 256, (13, 18, 3), dtype=np.uint8)
ALPHA = RANDOM.integers(0, 256, (13, 18), dtype=np.uint8)
RGB, GREY = Image.fromarray(COLOURS), Image.fromarray(COLOURS[..., 0])
ORIENTATION = 0x0112


@pytest.fixture
def as_in_use():
    """Warnings as they are outside of tests, where Pillow's are printed: here each would be an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
        yield


def file_of(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def smooth(height, width):
    """Something like a photograph: broad waves and a little noise."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 37 + k) + np.cos(y / (23 + 9 * k)) for k in range(3)], axis=-1)
    return Image.fromarray(
        np.clip(128 + 50 * waves + np.random.default_rng(0).normal(0, 8, waves.shape), 0, 255).astype(np.uint8)
    )


def pillows(content):
    """Decode a file with Pillow alone."""
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGB"))


def refused(content, *, shorter_side=0):
    """The text of a refusal."""
    with pytest.raises(BadImage) as caught:
        decode(content, shorter_side=shorter_side)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert text.isprintable()
    return text


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, depth, colour, content, *more):
    """A PNG by its own specification; colour 0: grey, 2: RGB, 3: palette."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")


def tiff(values, *, order):
    """A grey TIFF of one strip by its own specification, of the values' width; order: < or >."""
    bits, height, width = 8 * values.itemsize, *values.shape
    tags = [
        (256, width),
        (257, height),
        (258, bits),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, height),
        (279, values.nbytes),
    ]
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8 + len(data))
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags)
    return head + data + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


def with_orientation(kind, value, picture=RGB):
    exif = Image.Exif()
    exif[ORIENTATION] = value
    return file_of(picture, kind, exif=exif)


FILES = {
    "jpeg": file_of(RGB, "JPEG"),
    "jpeg-grey": file_of(GREY, "JPEG"),
    "jpeg-444": file_of(RGB, "JPEG", quality=95, subsampling=0),
    "jpeg-422": file_of(RGB, "JPEG", quality=60, subsampling=1),
    "jpeg-progressive": file_of(RGB, "JPEG", progressive=True),
    "jpeg-rgb": file_of(RGB, "JPEG", keep_rgb=True),
    "jpeg-cmyk": file_of(RGB.convert("CMYK"), "JPEG"),
    "jpeg-restarts": file_of(RGB, "JPEG", restart_marker_blocks=1),
    "mpo": file_of(RGB, "MPO", save_all=True, append_images=[Image.fromarray(OTHER)]),
    "png": file_of(RGB, "PNG"),
    "png-grey": file_of(GREY, "PNG"),
    "png-palette": file_of(RGB.quantize(31), "PNG"),
    "png-1-bit": file_of(GREY.convert("1"), "PNG"),
    "gif": file_of(RGB.quantize(31), "GIF"),
    "gif-grey": file_of(GREY, "GIF"),
    "webp": file_of(RGB, "WEBP"),
    "webp-lossless": file_of(RGB, "WEBP", lossless=True),
    "bmp": file_of(RGB, "BMP"),
    "bmp-grey": file_of(GREY, "BMP"),
    "tiff": file_of(RGB, "TIFF"),
    "tiff-lzw": file_of(RGB, "TIFF", compression="tiff_lzw"),
    "tiff-1-bit": file_of(GREY.convert("1"), "TIFF"),
    "tiff-cmyk": file_of(RGB.convert("CMYK"), "TIFF"),
    "tiff-ycbcr": file_of(RGB.convert("YCbCr"), "TIFF", compression="tiff_deflate"),  # Pillow 12 cannot read its own of another
    "avif": file_of(RGB, "AVIF"),
    "avif-of-two": file_of(RGB, "AVIF", save_all=True, append_images=[Image.fromarray(OTHER)]),
    "ppm": file_of(RGB, "PPM"),
    "pgm": file_of(GREY, "PPM"),
    "pbm": file_of(GREY.convert("1"), "PPM"),
    "ppm-text": b"P3\n# made by hand\n2 1 255\n1 2 3  40 50 60\n",
}


@pytest.mark.parametrize("name", FILES)
def test_as_pillow_decodes(name):
    """Each kind of opaque picture has the pixels that Pillow gives, in three channels that one may write to."""
    found = decode(FILES[name], shorter_side=0)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, pillows(FILES[name]))


@pytest.mark.parametrize(
    "name", [name for name in FILES if name.startswith(("png", "gif", "bmp", "tiff-lzw", "webp-lossless"))]
)
def test_lossless_files_give_back_what_was_saved(name):
    """Losslessly stored pictures are decoded unchanged."""
    picture = {"grey": GREY, "palette": RGB.quantize(31), "bit": GREY.convert("1")}.get(name.split("-")[-1], RGB)
    picture = RGB.quantize(31) if name == "gif" else picture
    np.testing.assert_array_equal(decode(FILES[name], shorter_side=0), np.asarray(picture.convert("RGB")))


@settings(max_examples=40)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 2),
    st.integers(20, 100),
    st.booleans(),
    st.booleans(),
    st.integers(0, 9),
)
def test_jpeg_of_any_size(height, width, subsampling, quality, progressive, grey, seed):
    """JPEG of any size, sampling and quality has Pillow's pixels, whichever library decodes it."""
    picture = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))
    picture = picture.convert("L") if grey else picture
    options = {} if grey else {"subsampling": subsampling}
    content = file_of(picture, "JPEG", quality=quality, progressive=progressive, **options)
    np.testing.assert_array_equal(decode(content, shorter_side=0), pillows(content))


def on_white(colours, alpha):
    """Return a picture laid on white, float64[h, w, 3]."""
    share = alpha[..., None].astype(np.float64) / 255
    return colours * share + 255 * (1 - share)


RGBA = Image.fromarray(np.dstack([COLOURS, ALPHA]))
LA = Image.fromarray(np.dstack([COLOURS[..., 0], ALPHA]))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_transparent_colours(kind):
    """Colours with transparency are laid on white, up to rounding; where nothing shows it is exactly white."""
    content = file_of(RGBA, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    found = decode(content, shorter_side=0)
    np.testing.assert_allclose(found, on_white(COLOURS, ALPHA), atol=1)
    np.testing.assert_array_equal(found[ALPHA == 255], COLOURS[ALPHA == 255])


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_transparent_grey(kind):
    """Grey with transparency is laid on white."""
    np.testing.assert_allclose(
        decode(file_of(LA, kind), shorter_side=0), on_white(np.dstack([COLOURS[..., 0]] * 3), ALPHA), atol=1
    )


PALETTE = np.array([[200, 10, 30], [0, 0, 0], [90, 250, 40], [17, 18, 19]], np.uint8)
INDICES = RANDOM.integers(0, 4, (5, 7), dtype=np.uint8)


def rows_of(values):
    """Return the bytes that PNG compresses: each row after a filter byte for `none`."""
    return b"".join(b"\0" + row.tobytes() for row in values)


@pytest.mark.parametrize("opacity", [b"\xff\0\x80\x40", b"\0", b"\xff\0"])
def test_transparent_palette(opacity):
    """Each entry of a palette may be transparent in its own measure, those without a say are opaque; white shows through."""
    content = png(7, 5, 8, 3, rows_of(INDICES), chunk(b"PLTE", PALETTE.tobytes()), chunk(b"tRNS", opacity))
    alpha = np.frombuffer(opacity.ljust(4, b"\xff"), np.uint8)[INDICES]
    np.testing.assert_allclose(decode(content, shorter_side=0), on_white(PALETTE[INDICES], alpha), atol=1)


def test_one_transparent_colour():
    """A colour, or a grey, that a PNG says is transparent is white."""
    colours = PALETTE[INDICES]
    content = png(7, 5, 8, 2, rows_of(colours), chunk(b"tRNS", struct.pack(">3H", 90, 250, 40)))
    expected = np.where((INDICES == 2)[..., None], 255, colours)
    np.testing.assert_array_equal(decode(content, shorter_side=0), expected)
    content = png(7, 5, 8, 0, rows_of(INDICES), chunk(b"tRNS", struct.pack(">H", 3)))
    np.testing.assert_array_equal(decode(content, shorter_side=0)[..., 1], np.where(INDICES == 3, 255, INDICES))


def test_transparent_gif():
    """A transparent entry of a GIF is white."""
    picture = Image.fromarray(INDICES, mode=None).convert("P")
    picture.putpalette(PALETTE.tobytes())
    found = decode(file_of(picture, "GIF", transparency=1), shorter_side=0)
    np.testing.assert_array_equal(found, np.where((INDICES == 1)[..., None], 255, PALETTE[INDICES]))


@pytest.mark.parametrize(("kind", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})])
def test_first_frame_of_an_animation(kind, options):
    """Only the first of several pictures in a file is read."""
    first, other = (Image.fromarray(x).quantize(200).convert("RGB") for x in (COLOURS, OTHER))
    content = file_of(first, kind, save_all=True, append_images=[other, first], **options)
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.n_frames == 3
    np.testing.assert_array_equal(decode(content, shorter_side=0), np.asarray(first))


DEEP = np.random.default_rng(3).integers(0, 2**16, (6, 9), dtype=np.uint16)


DEEP_FILES = {
    "png": png(9, 6, 16, 0, b"".join(b"\0" + row.astype(">u2").tobytes() for row in DEEP)),
    "big-endian tiff": tiff(DEEP, order=">"),
    "little-endian tiff": tiff(DEEP, order="<"),
}


@pytest.mark.parametrize("name", DEEP_FILES)
def test_sixteen_bits(name):
    """The upper 8 of 16 bits of grey are used, in either byte order."""
    upper = np.array([[value // 256 for value in row] for row in DEEP.tolist()])
    np.testing.assert_array_equal(decode(DEEP_FILES[name], shorter_side=0), np.dstack([upper] * 3))


def test_sixteen_bits_resized():
    """A grey picture of 16 bits is resized as the same picture of 8 is."""
    content = file_of(Image.fromarray((DEEP >> 8).astype(np.uint8)), "PNG")
    for deep in DEEP_FILES.values():
        np.testing.assert_array_equal(decode(deep, shorter_side=4), decode(content, shorter_side=4))


@pytest.mark.parametrize("depth", range(9, 17))
def test_fewer_bits(depth):
    """Of grey pictures that use fewer bits, the upper 8 of those are taken; a value of more bits is refused in one line."""
    largest = 2**depth - 1
    values = np.random.default_rng(depth).integers(0, largest + 1, (6, 9), dtype=np.uint16)
    values[0, :2] = 0, largest
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    expected = np.array([[value * 256 // 2**depth for value in row] for row in values.tolist()])
    kinds = (png(9, 6, 16, 0, rows), tiff(values, order=">"), tiff(values, order="<"))
    pictures = [images.from_picture(Image.fromarray(values), shorter_side=0, bit_depth=depth)]
    for found in (*pictures, *(decode(content, shorter_side=0, bit_depth=depth) for content in kinds)):
        np.testing.assert_array_equal(found, np.dstack([expected] * 3))
    if depth > 9:
        for content in kinds:
            with pytest.raises(BadImage) as caught:
                decode(content, shorter_side=0, bit_depth=depth - 1)
            said = f"has the value {largest:,}, and bit_depth={depth - 1} means at most {largest // 2:,}; fix: set bit_depth "
            assert str(caught.value).startswith(said)


def test_fewer_bits_in_strips(monkeypatch):
    """A value of more bits is found wherever it is in a large picture."""
    monkeypatch.setattr(images, "_STRIP", 20)
    values = np.full((30, 9), 4_095, np.uint16)
    assert (decode(tiff(values, order="<"), shorter_side=0, bit_depth=12) == 255).all()
    values[29, 8] = 4_096
    with pytest.raises(BadImage, match="has the value 4,096"):
        decode(tiff(values, order="<"), shorter_side=0, bit_depth=12)


def test_a_bit_depth_changes_no_other_picture():
    """Pictures of 8 bits, and those that state their range themselves, are as ever; 16 bits in colour are refused."""
    pgm = b"P5 2 1 4095\n" + struct.pack(">HH", 4_095, 2_048)
    for content in (file_of(RGB, "PNG"), file_of(RGB, "JPEG"), file_of(GREY, "TIFF"), pgm):
        np.testing.assert_array_equal(
            decode(content, shorter_side=0, bit_depth=12), decode(content, shorter_side=0, bit_depth=0)
        )
    content = png(1, 1, 16, 2, bytes([0, 1, 2, 3, 4, 5, 6]))
    with pytest.raises(BadImage, match="has 16 bits in each colour, and bit_depth=12 is for grey; fix: "):
        decode(content, shorter_side=0, bit_depth=12)
    assert decode(content, shorter_side=0, bit_depth=16).tolist() == [[[1, 3, 5]]]


def test_twelve_bits_a_value():
    """A TIFF that stores 12 bits a value says so itself: its upper 8 are used, whatever depth other pictures have."""
    values = np.array([[0xFFF, 0x123], [0x456, 0x000]])
    packed = b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in values.tolist())
    content = bytearray(tiff(np.zeros((2, 2), np.uint8), order="<"))
    at = content.index(struct.pack("<HHII", 258, 4, 1, 8))
    content = content[:8] + packed + content[12:at] + struct.pack("<HHII", 258, 4, 1, 12) + content[at + 12 :]
    content[4:8] = struct.pack("<I", 8 + len(packed))
    content = bytes(content).replace(struct.pack("<HHII", 279, 4, 1, 4), struct.pack("<HHII", 279, 4, 1, len(packed)))
    for depth in (0, 10, 12, 14):
        found = decode(content, shorter_side=0, bit_depth=depth)
        np.testing.assert_array_equal(found, np.dstack([values >> 4] * 3))


def test_sixteen_bits_of_colour():
    """The upper 8 of 16 bits per colour in a PNG are used."""
    values = np.random.default_rng(4).integers(0, 2**16, (6, 9, 3), dtype=np.uint16)
    content = png(9, 6, 16, 2, b"".join(b"\0" + row.astype(">u2").tobytes() for row in values))
    np.testing.assert_array_equal(decode(content, shorter_side=0), values // 256)


TURNS = {  # from EXIF's specification: which corner of what is shown the first row and column are
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x[::-1].swapaxes(0, 1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x[:, ::-1].swapaxes(0, 1),
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", TURNS)
def test_orientation(kind, orientation):
    """A picture is turned and mirrored as EXIF says."""
    content = with_orientation(kind, orientation)
    np.testing.assert_array_equal(decode(content, shorter_side=0), TURNS[orientation](pillows(content)))


@pytest.mark.parametrize("orientation", TURNS)
def test_orientation_of_tiff(orientation):
    """TIFF's own tag of the same meaning counts once."""
    content = file_of(RGB, "TIFF", tiffinfo={ORIENTATION: orientation})
    np.testing.assert_array_equal(decode(content, shorter_side=0), TURNS[orientation](COLOURS))


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_orientation_of_sixteen_bits(orientation, kind):
    """Grey pictures of 16 bits are turned as others are."""
    content = with_orientation(kind, orientation, Image.fromarray(DEEP))
    np.testing.assert_array_equal(decode(content, shorter_side=0)[..., 0], TURNS[orientation](DEEP // 256))


def test_orientation_of_transparent_pictures():
    """Transparency is turned with the picture."""
    content = with_orientation("PNG", 6, RGBA)
    np.testing.assert_allclose(decode(content, shorter_side=0), TURNS[6](on_white(COLOURS, ALPHA)), atol=1)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientation_without_meaning(orientation):
    """Numbers that EXIF doesn't know turn nothing."""
    content = with_orientation("JPEG", orientation)
    np.testing.assert_array_equal(decode(content, shorter_side=0), pillows(content))


def test_turned_and_resized():
    """The shorter side is that of the turned picture, and it is resized after it was turned."""
    content = with_orientation("JPEG", 6, smooth(90, 140))
    expected = Image.fromarray(np.ascontiguousarray(TURNS[6](pillows(content)))).resize((40, 62), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(decode(content, shorter_side=40), np.asarray(expected))


@settings(max_examples=150)
@given(st.binary(max_size=40), st.sampled_from(["II", "MM"]), st.sampled_from([None, 1, 6]))
def test_damaged_exif(content, order, orientation):
    """Damage to EXIF, as cameras and editors leave it, costs no picture that can be shown."""
    first = (
        b"" if orientation is None else struct.pack("<HHIHH" if order == "II" else ">HHIHH", ORIENTATION, 3, 1, orientation, 0)
    )
    sign = "<" if order == "II" else ">"
    head = {"II": b"II*\0", "MM": b"MM\0*"}[order] + struct.pack(f"{sign}I", 8)
    entries = struct.pack(f"{sign}H", len(content) // 12 + bool(first)) + first + content
    jpeg = file_of(RGB, "JPEG", exif=b"Exif\0\0" + head + entries)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = decode(jpeg, shorter_side=0)
    assert found.shape in ((13, 18, 3), (18, 13, 3))
    assert orientation is None or content or found.shape == TURNS[orientation](COLOURS).shape


@pytest.mark.parametrize("kind", ["eXIf", "tEXt"])
def test_damaged_exif_of_a_png(kind):
    """EXIF that is none, in its own chunk or as text, costs no picture either."""
    png = file_of(RGB, "PNG")
    content = kind.encode() + {"eXIf": b"xxxxyyyyzzzz", "tEXt": b"Raw profile type exif\0\nexif\n 3\nzz"}[kind]
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    np.testing.assert_array_equal(decode(png[:33] + chunk + png[33:], shorter_side=0), COLOURS)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_no_agreed_range(dtype):
    """Pixels of 32 bits could mean anything, and are refused by kind."""
    content = file_of(Image.fromarray(np.arange(12).reshape(3, 4).astype(dtype)), "TIFF")
    assert "convert it to 8 bits" in refused(content)


NO_PICTURES = {
    "text": b"not a picture\nof any kind",
    "html": b"<!DOCTYPE html><html><body>404</body></html>",
    "zeros": bytes(1000),
    "zero width": png(0, 5, 8, 2, b""),
    "zero height": png(5, 0, 8, 2, b""),
    "zero bits": png(5, 5, 0, 2, b"\0" * 80),
    "header alone": png(5, 5, 8, 2, b"")[:33],
    "no pixels": png(5, 5, 8, 2, b""),
    "too few pixels": png(5, 5, 8, 2, bytes(30)),
}


@pytest.mark.parametrize("name", NO_PICTURES)
def test_no_picture(name):
    """A file that isn't a picture of an allowed format is refused, with a fix."""
    assert "restore it" in refused(NO_PICTURES[name])


def test_heic(monkeypatch):
    """HEIC has the pixels that pillow-heif gives; turned as EXIF says; without pillow-heif, the extra is named."""
    picture = smooth(40, 50)
    content = file_of(picture, "HEIF", quality=-1, chroma=444)
    found = decode(content, shorter_side=0)
    np.testing.assert_array_equal(found, pillow_heif.open_heif(content).to_pillow())
    assert np.abs(found.astype(int) - np.asarray(picture)).max() <= 4  # of the colours' rounding
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    assert decode(file_of(picture, "HEIF", exif=exif.tobytes()), shorter_side=0).shape == (50, 40, 3)
    for end in (-200, 100):
        assert "is not a complete picture" in refused(content[:end])
    monkeypatch.setattr(picture_formats, "_can_read_heic", lambda: False)
    assert refused(content) == "is HEIC, which needs pillow-heif; fix: pip install 'adsq_jax[heic]', or convert it to JPEG"


def test_orientation_of_avif():
    """An AVIF is turned as EXIF says, which its writer keeps as the container's own turn."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    content = file_of(smooth(40, 50), "AVIF", exif=exif, quality=100, subsampling="4:4:4")
    expected = np.rot90(np.asarray(smooth(40, 50)), -1).astype(int)
    assert np.abs(decode(content, shorter_side=0) - expected).max() <= 8


UNREAD = {
    "JPEG XL": b"\xff\x0a" + bytes(50),
    "JPEG 2000": file_of(RGB, "JPEG2000"),
    "PDF": file_of(RGB, "PDF"),
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "XML": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>',
    "an icon of Windows": file_of(RGB, "ICO"),
    "a Photoshop document": b"8BPS\0\1" + bytes(50),
}


@pytest.mark.parametrize("name", UNREAD)
def test_a_format_that_is_not_read(name):
    """The message names the format, and a way to convert it."""
    assert re.fullmatch(f"is {name}(, .*)?, which isn't read; fix: convert it to PNG.*", refused(UNREAD[name]))


def test_empty():
    """A file without a byte is called empty."""
    assert refused(b"") == "is empty; fix: restore it"


def test_ghostscript_never_runs(monkeypatch):
    """EPS, which Pillow hands to another program, is refused before that, with a preview in front of it too."""
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was run"))
    monkeypatch.setattr(EpsImagePlugin.EpsImageFile, "load", lambda *_, **__: pytest.fail("EPS was loaded"))
    Image.init()
    content = UNREAD["PostScript"]
    Image.open(io.BytesIO(content)).close()  # Pillow alone would open it
    refused(content)
    refused(b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 32, len(content)) + bytes(20) + content)


@pytest.mark.parametrize("size", [(50_000, 50_000), (9_000, 10_000), (2**31 - 1, 2**31 - 1)])
def test_decompression_bomb(size, as_in_use):
    """A header that promises more pixels than the limit is refused as too large before anything is made of it."""
    content = png(*size, 8, 2, b"\0" * 100)
    assert "make it smaller" in refused(content) or size[0] > 2**30
    with ThreadPoolExecutor(2) as pool:
        assert "make it smaller" in pool.submit(refused, content).result() or size[0] > 2**30


def test_limit_is_exact(monkeypatch):
    """As many pixels as the limit are fine, one more is not."""
    monkeypatch.setattr(images, "MOST_PIXELS", 13 * 18)
    decode(FILES["png"], shorter_side=0)
    monkeypatch.setattr(images, "MOST_PIXELS", 13 * 18 - 1)
    assert "more than 233 pixels" in refused(FILES["png"])
    assert "more than 233 pixels" in refused(FILES["jpeg"])


def test_text_bomb():
    """A PNG whose comment unfolds to a gigabyte is refused, not unfolded."""
    comment = zlib.compressobj(9)
    packed = (
        b"".join(comment.compress(bytes(2**20)) for _ in range(PngImagePlugin.MAX_TEXT_CHUNK // 2**20 + 8)) + comment.flush()
    )
    content = png(2, 1, 8, 0, b"\0\1\2", chunk(b"zTXt", b"Comment\0\0" + packed))
    assert "not a complete picture" in refused(content)


@functools.cache
def picture_cut(name):
    """A file, and what Pillow makes of all of it."""
    content = {"jpeg": file_of(smooth(40, 50), "JPEG"), "progressive": file_of(smooth(40, 50), "JPEG", progressive=True)}
    content["png"] = file_of(smooth(40, 50), "PNG")
    return content[name], pillows(content[name])


@pytest.mark.parametrize(("name", "end"), [("jpeg", 4), ("progressive", 200), ("png", 24)])
@settings(max_examples=120)
@given(data=st.data())
def test_cut(name, end, data):
    """A picture cut off anywhere is refused; only where its end mark and checksums are gone, all of it may come."""
    content, whole = picture_cut(name)
    left = data.draw(st.one_of(st.integers(0, len(content) - 1), st.integers(len(content) - 20, len(content) - 1)))
    found = answer(content[:left])
    if isinstance(found, str):
        assert len(found.splitlines()) == 1
    else:
        assert left >= len(content) - end
        np.testing.assert_array_equal(found, pillows(content[:left]))
        assert name == "progressive" or np.array_equal(found, whole)


@pytest.mark.parametrize("name", ["jpeg", "png", "gif", "webp", "bmp", "tiff", "ppm"])
def test_half_a_picture(name):
    """Half of a file of any kind is refused, also where it would be decoded at a smaller size."""
    refused(FILES[name][: len(FILES[name]) // 2])
    refused(FILES[name][: len(FILES[name]) // 2], shorter_side=4)


def answer(content, *, shorter_side=0):
    """The picture, or the text of the refusal."""
    try:
        return decode(content, shorter_side=shorter_side)
    except BadImage as error:
        return str(error)


def picture_or_refusal(content, *, shorter_side):
    """Check that an input gives a picture or an error of one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
        found = answer(content, shorter_side=shorter_side)
    if isinstance(found, str):
        assert len(found.splitlines()) == 1
        return
    assert found.dtype == np.uint8
    assert found.ndim == 3
    assert found.shape[2] == 3
    assert shorter_side in (0, min(found.shape[:2]))


STARTS = [
    b"",
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"RIFF\x40\0\0\0WEBPVP8 ",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"P6 ",
    b"P1\n",
]


@settings(max_examples=200)
@given(st.sampled_from(STARTS), st.binary(max_size=200), st.sampled_from([0, 3]))
@example(b"P6 ", b"2 1 255\n123456", 0)
def test_random_bytes(start, content, shorter_side):
    """Any bytes are a picture or are refused; nothing else is raised."""
    picture_or_refusal(start + content, shorter_side=shorter_side)


@settings(max_examples=400)
@given(
    st.sampled_from(sorted(FILES)),
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(1, 255)), min_size=1, max_size=4),
    st.sampled_from([0, 8]),
)
def test_changed_bytes(name, changes, shorter_side):
    """Files of each kind with some bytes changed are a picture or are refused; nothing else is raised."""
    content = bytearray(FILES[name])
    for place, change in changes:
        content[place % len(content)] ^= change
    picture_or_refusal(bytes(content), shorter_side=shorter_side)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 80))
def test_sizes(height, width, shorter_side):
    """The shorter side is what was asked for, the longer one in proportion to half a pixel, larger or smaller than before."""
    found = images.resize(np.zeros((height, width, 3), np.uint8), shorter_side=shorter_side)
    assert min(found.shape[:2]) == shorter_side
    for side, before in zip(found.shape[:2], (height, width), strict=True):
        assert abs(side - before * shorter_side / min(height, width)) <= 0.5


@pytest.mark.parametrize("shorter_side", [0, 13])
def test_nothing_to_resize(shorter_side):
    """Without a size, or with the size that it has, a picture stays as it is."""
    for name in ("png", "jpeg"):
        np.testing.assert_array_equal(decode(FILES[name], shorter_side=shorter_side), pillows(FILES[name]))


@pytest.mark.parametrize("shorter_side", [17, 30, 59, 61, 150])
@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_resized_as_pillow_does(kind, shorter_side):
    """Down to a sixth, and upwards, it is Pillow's bilinear resizing of the whole picture, pixel for pixel."""
    picture = smooth(80, 60)
    expected = picture.resize((shorter_side, round(80 * shorter_side / 60)), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(decode(file_of(picture, kind), shorter_side=shorter_side), np.asarray(expected))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("options", [{}, {"mode": "L"}])
@pytest.mark.parametrize("shorter_side", [30, 64, 100, 255, 400])
def test_much_smaller(kind, options, shorter_side):
    """Far below its size a picture is close to Pillow's full decode and resize, also where JPEG is decoded at a fraction."""
    content = file_of(smooth(512, 768).convert(options.get("mode", "RGB")), kind)
    expected = Image.fromarray(pillows(content)).resize((shorter_side * 3 // 2, shorter_side), Image.Resampling.BILINEAR)
    found = decode(content, shorter_side=shorter_side)
    assert found.shape == (shorter_side, shorter_side * 3 // 2, 3)
    assert np.abs(found.astype(np.int64) - np.asarray(expected)).mean() < 3


@pytest.mark.parametrize("kind", ["JPEG", "CMYK", "turned"])
def test_jpeg_at_a_fraction(kind):
    """JPEG that Pillow decodes, at a fraction or not, is close to the full decode as well."""
    picture = smooth(512, 768)
    files = {"JPEG": picture, "CMYK": picture.convert("CMYK"), "turned": picture}
    content = with_orientation("JPEG", 3 if kind == "turned" else 1, files[kind])
    expected = Image.fromarray(pillows(content)).resize((96, 64), Image.Resampling.BILINEAR)
    expected = np.asarray(expected)[::-1, ::-1] if kind == "turned" else np.asarray(expected)
    assert np.abs(decode(content, shorter_side=64).astype(np.int64) - expected).mean() < 3


@pytest.mark.parametrize("shorter_side", [61, 100, 119, 120, 121, 300])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_of_less_than_twice_the_size(mode, shorter_side):
    """JPEG that isn't far above the size is decoded in full, and resized as any picture is, pixel for pixel."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    content = file_of(Image.fromarray(noise).resize((160, 120), Image.Resampling.BILINEAR).convert(mode), "JPEG")
    size = (round(160 * shorter_side / 120), shorter_side)
    expected = Image.fromarray(pillows(content)).resize(size, Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(decode(content, shorter_side=shorter_side), np.asarray(expected))


@pytest.mark.parametrize("shorter_side", [25, 63, 64, 65, 100, 128, 129, 200, 256])
def test_jpeg_at_a_half_a_quarter_or_an_eighth(shorter_side):
    """Far above the size JPEG is decoded at the smallest of these fractions that is large enough, as in Pillow's draft."""
    content = file_of(smooth(512, 640), "JPEG")
    with Image.open(io.BytesIO(content)) as picture:
        picture.draft("RGB", (shorter_side, shorter_side))
        assert picture.size[1] in (64, 128, 256)
        expected = picture.resize((round(640 * shorter_side / 512), shorter_side), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(decode(content, shorter_side=shorter_side), np.asarray(expected))


@settings(max_examples=40)
@given(st.integers(30, 400), st.integers(30, 400), st.integers(4, 60))
def test_size_at_a_fraction(height, width, shorter_side):
    """JPEG comes in the size that other pictures would, to a pixel in a hundred."""
    found = decode(file_of(Image.new("RGB", (width, height), "teal"), "JPEG"), shorter_side=shorter_side)
    assert min(found.shape[:2]) == shorter_side
    expected = max(height, width) * shorter_side / min(height, width)
    assert abs(max(found.shape[:2]) - expected) <= 1 + expected / 2 / shorter_side


@pytest.mark.parametrize("size", [(1, 5_000), (5_000, 1), (3, 60_000)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_very_narrow(size, kind, monkeypatch):
    """A line of pixels, resized in proportion, would take gigabytes: it is refused, and none are asked for."""

    def small(picture, asked, *args, _resize=Image.Image.resize, **kwargs):
        assert asked[0] * asked[1] <= images.MOST_PIXELS, f"asked for {asked[0]}x{asked[1]} pixels"
        return _resize(picture, asked, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", small)
    content = file_of(Image.new("RGB", size), kind)
    refused(content, shorter_side=256)
    assert decode(content, shorter_side=0).shape == (*size[::-1], 3)


def test_threads():
    """Eight threads that decode all kinds at once get what one does."""
    work = [(content, side) for content in FILES.values() for side in (0, 8)] * 6
    alone = [decode(content, shorter_side=side) for content, side in work]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda item: decode(item[0], shorter_side=item[1]), work))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_bad_images_in_threads(as_in_use):
    """Refusals in threads are the same as well, each time."""
    work = list(NO_PICTURES.values()) * 10
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(refused, work)) == [refused(content) for content in work]


def test_sixteen_bit_pgm():
    """The upper 8 of 16 bits in a grey map are used, as in a PNG; a smaller maximum is scaled to the full range."""
    values = np.random.default_rng(0).integers(0, 65536, (5, 7), dtype=np.uint16)
    content = b"P5 7 5 65535\n" + values.astype(">u2").tobytes()
    found = images.decode(content, shorter_side=0)
    np.testing.assert_array_equal(found, np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2))
    content = b"P5 7 5 1023\n" + (values >> 6).astype(">u2").tobytes()
    stretched = images.decode(content, shorter_side=0)[..., 0]
    np.testing.assert_allclose(stretched, (values >> 6) * (255 / 1023), atol=1)
