"""Draw README's first picture: queries, their codes, and the pictures of an index that are nearest to them.

    python -m benchmarks.methods.emoji_lists --out=data/emoji
    adsq encode --images=data/emoji/google --index=runs/emoji_index
    python -m benchmarks.methods.hits_picture --index=runs/emoji_index --out=docs/images/hits.png \\
        --query=data/emoji/google/1f431.png --query=data/emoji/google/1f697.png --query=data/emoji/google/1f34e.png

The pictures are Noto Emoji (Google, Apache-2.0), the queries were chosen by hand. A row has a query, its code as a square of
bits (filled: +1), and the nearest other pictures with their distances in bits. They are ordered by distance alone, without
features, so that the picture shows what codes do. Needs npm and the extras `pretrained` and `index`.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import adsq_jax
from adsq_jax import search, storage
from adsq_jax.errors import InputError
from adsq_jax.inference.hits import Hit

WIDTH, MARGIN, HEAD = 900, 24, 56  # pixels
TILE, GAP = 96, 14  # of a picture, and between two
ROW = TILE + 54  # of a query, its hits and their distances
CODE_LEFT, HITS_LEFT = 180, 336
SCALE = 2  # drawn larger, then reduced, so that edges are smooth
CARD, INK, MUTED, BIT = "#ffffff", "#1f2328", "#59636e", "#3949ab"  # a white card is readable on light and on dark pages
NEAREST = 5


def tile(path: str) -> Image.Image:
    """Read a picture, laid on white, as large as a tile."""
    with Image.open(path) as picture:
        picture = picture.convert("RGBA").resize((TILE * SCALE, TILE * SCALE), Image.Resampling.LANCZOS)
    white = Image.new("RGBA", picture.size, CARD)
    return Image.alpha_composite(white, picture).convert("RGB")


def draw_code(pen: ImageDraw.ImageDraw, code: np.ndarray, left: int, top: int) -> None:
    """Draw a code of 64 bits as a square of 8 x 8 cells.

    Args:
      pen: of the picture.
      code: int8[64] in {-1, +1}.
      left: of the square, in pixels.
      top: of the square, in pixels.
    """
    side = TILE / 8
    for number, bit in enumerate(code):
        x, y = left + number % 8 * side, top + number // 8 * side
        box = [round(SCALE * value) for value in (x, y, x + side, y + side)]
        pen.rectangle(box, fill=BIT if bit > 0 else CARD, outline="#c9cfe8", width=SCALE)


def draw(rows: list[tuple[str, np.ndarray, list[Hit]]]) -> Image.Image:
    """Draw a row for each query.

    Args:
      rows: path and code of a query, int8[64] in {-1, +1}, and its hits.

    Returns:
      RGBA, WIDTH pixels wide; the corners outside of the card are transparent.
    """
    size = (WIDTH * SCALE, (HEAD + ROW * len(rows) + MARGIN // 2) * SCALE)
    picture = Image.new("RGBA", size, (0, 0, 0, 0))
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(25 * SCALE)
    pen.rounded_rectangle((0, 0, size[0] - 1, size[1] - 1), radius=20 * SCALE, fill=CARD)

    def write(text: str, x: float, y: float, colour: str, anchor: str = "mm") -> None:
        pen.text((x * SCALE, y * SCALE), text, fill=colour, font=font, anchor=anchor)

    for text, left, width in (("query", MARGIN, TILE), ("64 bits", CODE_LEFT, TILE)):
        write(text, left + width / 2, HEAD / 2 + 4, MUTED)
    write("nearest pictures, distance in bits", HITS_LEFT, HEAD / 2 + 4, MUTED, "lm")
    for number, (path, code, hits) in enumerate(rows):
        top = HEAD + number * ROW
        picture.paste(tile(path), (MARGIN * SCALE, top * SCALE))
        draw_code(pen, code, CODE_LEFT, top)
        for left in (MARGIN + TILE, CODE_LEFT + TILE):
            start, end, y = (left + 12) * SCALE, (left + 38) * SCALE, (top + TILE / 2) * SCALE
            pen.line((start, y, end, y), fill=MUTED, width=3 * SCALE)
            pen.polygon([(end + 8 * SCALE, y), (end - 6 * SCALE, y - 9 * SCALE), (end - 6 * SCALE, y + 9 * SCALE)], fill=MUTED)
        for place, hit in enumerate(hits):
            left = HITS_LEFT + place * (TILE + GAP)
            picture.paste(tile(hit.id), (left * SCALE, top * SCALE))
            write(str(hit.distance), left + TILE / 2, top + TILE + 22, INK)
    return picture.resize((WIDTH, size[1] // SCALE), Image.Resampling.LANCZOS)


def find(location: Path, queries: list[str]) -> list[tuple[str, np.ndarray, list[Hit]]]:
    """Search an index for pictures by their codes; a query itself isn't among its hits."""
    model = adsq_jax.load(location)
    rows = []
    found = search.search(location, queries, k=NEAREST + 1, rerank=0, model=model)
    for path, code, hits in zip(queries, model.encode(queries), found, strict=True):
        others = [hit for hit in hits if Path(hit.id).resolve() != Path(path).resolve()]
        rows.append((path, code, others[:NEAREST]))
    return rows


def main() -> None:
    """Search and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=storage.path, required=True, help="an index of pictures, with codes of 64 bits")
    parser.add_argument("--query", action="append", required=True, help="a picture; may be given several times")
    parser.add_argument("--out", type=storage.path, required=True, help="the picture to write")
    given = parser.parse_args()
    try:
        drawn = draw(find(given.index, given.query))
    except InputError as error:
        sys.exit(f"error: {error}")
    drawn.quantize(256, method=Image.Quantize.FASTOCTREE).save(given.out, optimize=True)


if __name__ == "__main__":
    main()
