"""A contact sheet: some images of each part with their labels, to see at a glance what a data set is."""

import io
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from adsq_jax.data.datasets import Dataset
from adsq_jax.data.images import BadImage

_SIDE, _COLUMNS, _LINES, _GAP = 112, 10, 2, 8  # pixels of an image; images per line; lines per part; pixels between images
_LONGEST_TITLE = 140  # characters
_TITLE, _TEXT = 28, 26  # pixels of a title's line, and of the two lines of text below an image


def draw(dataset: Dataset) -> bytes:
    """Draw up to 20 images of each part, evenly spaced, with the names of their classes; return a PNG file."""
    sections = {}
    for part, rows in dataset.split._asdict().items():
        count = min(len(rows), _COLUMNS * _LINES)
        shown = rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)] if count else rows
        sections[f"{part}: {len(rows):,} images"] = [_cell(dataset, row) for row in shown.tolist()]
    return draw_sections(sections)


def _cell(dataset: Dataset, row: int) -> tuple[np.ndarray | None, str]:
    source = dataset.source
    names = ", ".join(source.classes[k] for k in np.flatnonzero(source.labels[row])) or "(no label)"
    try:
        return source.image(row, shorter_side=0, bit_depth=dataset.preprocessing.bit_depth), names
    except BadImage:
        return None, names


def draw_sections(sections: Mapping[str, Sequence[tuple[np.ndarray | None, str]]]) -> bytes:
    """Draw pictures, ten per line, below the titles of their sections.

    Args:
      sections: the pictures, uint8[h, w, 3], and their texts by title; None is drawn as a crossed frame.

    Returns:
      The bytes of a PNG file.
    """
    lines = {title: -(-len(cells) // _COLUMNS) for title, cells in sections.items()}
    width, height = _SIDE + _GAP, _SIDE + _TEXT + _GAP  # of a cell
    total = sum(_TITLE + count * height for count in lines.values())
    sheet = Image.new("RGB", (_GAP + _COLUMNS * width, total + _GAP), "white")
    canvas = ImageDraw.Draw(sheet)
    top = _GAP
    for title, cells in sections.items():
        canvas.text((_GAP, top), _to_ascii(title)[:_LONGEST_TITLE], fill="black", font=ImageFont.load_default(16))
        top += _TITLE
        for number, (pixels, text) in enumerate(cells):
            line, column = divmod(number, _COLUMNS)
            _paste(sheet, canvas, pixels, text, left=_GAP + column * width, top=top + line * height)
        top += lines[title] * height
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _paste(
    sheet: Image.Image, canvas: ImageDraw.ImageDraw, pixels: np.ndarray | None, text: str, *, left: int, top: int
) -> None:
    corner, frame = (left + _SIDE - 1, top + _SIDE - 1), "#cccccc"
    if pixels is None:
        frame = "red"
        canvas.line([(left, top), corner], fill=frame)
        canvas.line([(left, corner[1]), (corner[0], top)], fill=frame)
    else:
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        small = max(picture.size) <= _SIDE // 2  # show the pixels of a tiny image, not a blur
        scale = _SIDE / max(picture.size)
        size = [max(1, round(side * scale)) for side in picture.size]
        picture = picture.resize(size, Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS)
        sheet.paste(picture, (left + (_SIDE - size[0]) // 2, top + (_SIDE - size[1]) // 2))
    canvas.rectangle([(left, top), corner], outline=frame)
    rest, font = _to_ascii(text), ImageFont.load_default(10)
    for line in (0, 1):
        fits = next(n for n in range(len(rest), -1, -1) if canvas.textlength(rest[:n], font=font) <= _SIDE)
        canvas.text((left, top + _SIDE + 1 + 12 * line), rest[:fits], fill="black", font=font)
        rest = rest[fits:]


def _to_ascii(text: str) -> str:
    """Drop accents and whatever else Pillow's built-in font lacks."""
    return " ".join(unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().split())
