"""README's first picture: what is drawn, and the picture in the repository."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adsq_jax.inference.hits import Hit
from benchmarks.methods import hits_picture

pytestmark = pytest.mark.benchmark
ROOT = Path(__file__).parents[2]


def test_a_row_has_the_query_its_code_and_its_hits(tmp_path):
    """Each in its own colour at its place: pictures as tiles, +1 as filled cells; transparent outside of the card's corners."""
    colours = {"query": (200, 0, 0), "first": (0, 200, 0), "second": (0, 0, 200)}
    for name, colour in colours.items():
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{name}.png")
    code = np.where(np.arange(64) % 8 < 4, 1, -1).astype(np.int8)  # the left half of the square
    hits = [Hit(rank, rank, str(tmp_path / f"{name}.png"), ()) for rank, name in ((1, "first"), (2, "second"))]
    drawn = hits_picture.draw([(str(tmp_path / "query.png"), code, hits)])
    assert drawn.width == hits_picture.WIDTH
    assert drawn.getpixel((0, 0))[3] == 0
    middle = hits_picture.HEAD + hits_picture.TILE // 2
    lefts = [hits_picture.MARGIN, hits_picture.HITS_LEFT, hits_picture.HITS_LEFT + hits_picture.TILE + hits_picture.GAP]
    for left, colour in zip(lefts, colours.values(), strict=True):
        assert drawn.getpixel((left + hits_picture.TILE // 2, middle)) == (*colour, 255)
    square = np.asarray(drawn.convert("L"))[hits_picture.HEAD : hits_picture.HEAD + hits_picture.TILE]
    square = square[:, hits_picture.CODE_LEFT : hits_picture.CODE_LEFT + hits_picture.TILE]
    assert square[:, :46].mean() + 100 < square[:, 50:].mean()


def test_the_picture_in_the_repository():
    """As wide as README shows it, and below 150 kB."""
    path = ROOT / "docs" / "images" / "hits.png"
    with Image.open(path) as picture:
        assert picture.width == hits_picture.WIDTH
    assert path.stat().st_size < 150_000
