"""Pages of HTML that need no other file: no script, no font, no link. Every text that is put in is escaped."""

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

_SIDE = 160  # pixels of a small picture's longer side, at most
_TINY = 48  # pictures up to this side are shown in whole pixels, not blurred
_MARKS = {"": "", "right": "✓", "wrong": "✗"}  # not by colour alone
_STYLE = """
:root { color-scheme: light; --line: #d0d4da; --right: #0072b2; --wrong: #d55e00; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 1240px; padding: 16px; color: #1c2430; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.2rem; margin: 1.8rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.1rem 0 .4rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; } td { padding: 2px 16px 2px 0; vertical-align: top; overflow-wrap: break-word; }
td:first-child { color: #5a6472; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(480px, 100%), 1fr)); gap: 0 24px; }
.row { display: flex; flex-wrap: wrap; gap: 10px; }
figure { margin: 0; width: 102px; font-size: 12px; overflow-wrap: anywhere; }
figure .frame { height: 102px; border: 2px solid var(--line); display: grid; place-items: center; position: relative; }
figure img { width: 98px; height: 98px; object-fit: contain; } figure .gone { color: #5a6472; }
img.tiny { image-rendering: pixelated; }
figure.right .frame { border-color: var(--right); } figure.wrong .frame { border: 2px dashed var(--wrong); }
figure b { position: absolute; top: 0; right: 0; padding: 0 5px; color: #fff; }
figure.right b { background: var(--right); } figure.wrong b { background: var(--wrong); }
figcaption div:first-child { color: #5a6472; } img.plot { max-width: 100%; height: auto; display: block; }
@media (max-width: 700px) {
  body > section div { overflow-x: auto; } body > section img.plot { max-width: none; width: 1100px; }
}
"""


def document(title: str, parts: Sequence[str]) -> bytes:
    """Return a complete page, UTF-8, from its title as text and pieces of HTML; names that aren't UTF-8 show their bytes."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
    body = "\n".join((f"<h1>{html.escape(title)}</h1>", *parts))
    whole = f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head>\n<body>{body}\n</body></html>\n'
    return whole.encode(errors="backslashreplace")


def picture(pixels: np.ndarray | None, *, name: str, lines: Sequence[str], mark: str) -> str:
    """Return a small picture (uint8[h, w, 3]; None: a placeholder) with a caption and a mark ("right", "wrong" or "").

    The caption has the lines that aren't empty and, of the path `name`, what follows the last /; the tooltip has all of it.
    """
    sign = f"<b>{_MARKS[mark]}</b>" if _MARKS[mark] else ""
    if pixels is None:
        image = '<span class="gone">not there</span>'
    else:
        size = "tiny" if max(pixels.shape) <= _TINY else ""
        image = f'<img class="{size}" alt="" src="{data_uri(pixels, longer_side=_SIDE)}">'
    caption = "".join(f"<div>{html.escape(line)}</div>" for line in (*lines, name.rpartition("/")[2]) if line)
    frame = f'<div class="frame">{image}{sign}</div><figcaption>{caption}</figcaption>'
    return f'<figure class="{mark}" title="{html.escape(name)}">{frame}</figure>'


def data_uri(pixels: np.ndarray, *, longer_side: int) -> str:
    """Return an image uint8[h, w, 3], at most `longer_side` pixels large, as the text for the `src` of an `<img>`."""
    small = Image.fromarray(np.ascontiguousarray(pixels))
    small.thumbnail((longer_side, longer_side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return _inline(buffer.getvalue(), "jpeg")


def _inline(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def bits(distance: int) -> str:
    """Return a distance in words."""
    return f"{distance} bit{'' if distance == 1 else 's'}"


def plot(png: bytes, *, heading: str, note: str) -> str:
    """Return a plot below its heading and a note, both text."""
    image = f'<img class="plot" alt="{html.escape(heading)}" src="{_inline(png, "png")}">'
    return f"<section>{section(heading)}\n{paragraph(note)}\n<div>{image}</div></section>"


def plots(parts: Sequence[str]) -> str:
    """Return plots from `plot`, two side by side where there is room."""
    return f'<div class="plots">{"".join(parts)}</div>'


def paragraph(text: str) -> str:
    """Return a paragraph; nothing for an empty text."""
    return f"<p>{html.escape(text)}</p>" if text else ""


def section(heading: str) -> str:
    """Return the heading of a section."""
    return f"<h2>{html.escape(heading)}</h2>"


def row(parts: Sequence[str], *, heading: str) -> str:
    """Return pictures from `picture` side by side, below a heading."""
    return f'<h3>{html.escape(heading)}</h3>\n<div class="row">{"".join(parts)}</div>'


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Return a table of names and values, both text."""
    cells = "".join(f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>" for name, value in rows)
    return f"<table>{cells}</table>"
