"""The formats of pictures: which ones are read, by the beginning of a file, and what is said of a format that isn't."""

import functools

READ = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF")  # Pillow's formats that start no other program; MPO is JPEG
_HEIF = "HEIF"  # read with the extra `heic`
_HEIC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
_LONGEST_BRANDS = 256  # bytes
_UNREAD = (  # where in a file, what stands there, and the format's name
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"\0\0\1\0", "an icon of Windows"),
    (0, b"gimp xcf", "a GIMP document"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "XML, maybe SVG"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (4, b"ftypcrx ", "a camera's raw file"),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw file"),
)


def names(content: bytes) -> tuple[str, ...]:
    """Return Pillow's names of the formats that a file may have."""
    return (*READ, _HEIF) if _is_heic(content) and _can_read_heic() else READ


def why_unread(content: bytes) -> str | None:
    """Return why a file that is none of `names` isn't read, to follow its name; None: its format isn't known."""
    if _is_heic(content) and not _can_read_heic():
        return "is HEIC, which needs pillow-heif; fix: pip install 'adsq_jax[heic]', or convert it to JPEG"
    for start, mark, name in _UNREAD:
        if content.startswith(mark, start):
            return f"is {name}, which isn't read; fix: convert it to PNG, for instance by ImageMagick's `magick OLD NEW.png`"
    return None


def _is_heic(content: bytes) -> bool:
    """Return whether a file says that it is HEIC, and not AVIF, which has the same container."""
    if content[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(content[:4], "big"), _LONGEST_BRANDS)
    brands = {content[start : start + 4] for start in (8, *range(16, end, 4))}
    return bool(brands & _HEIC_BRANDS) and not brands & {b"avif", b"avis"}


@functools.cache
def _can_read_heic() -> bool:
    try:
        import pillow_heif
    except ModuleNotFoundError:
        return False
    pillow_heif.register_heif_opener()
    return True
