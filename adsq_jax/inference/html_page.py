"""Pages of HTML that need no other file: no script, no font, no link; every text that is put in is shown as text."""

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

_SIDE = 160  # pixels of a small picture's longer side, at most
_MARKS = {"": "", "right": "✓", "wrong": "✗"}  # not told by colour alone
_STYLE = """
:root { color-scheme: light; --line: #d0d4da; --right: #0072b2; --wrong: #d55e00; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 1240px; padding: 16px; color: #1c2430; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin: 1.8rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.1rem 0 .4rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; } td { padding: 2px 16px 2px 0; vertical-align: top; overflow-wrap: anywhere; }
td:first-child { color: #5a6472; white-space: nowrap; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(480px, 100%), 1fr)); gap: 0 24px; }
.row { display: flex; flex-wrap: wrap; gap: 10px; }
figure { margin: 0; width: 102px; font-size: 12px; overflow-wrap: anywhere; }
figure .frame { height: 102px; border: 2px solid var(--line); display: grid; place-items: center; position: relative; }
figure img { max-width: 100%; max-height: 98px; } figure .gone { color: #5a6472; }
figure.right .frame { border-color: var(--right); } figure.wrong .frame { border: 2px dashed var(--wrong); }
figure b { position: absolute; top: 0; right: 0; padding: 0 5px; color: #fff; }
figure.right b { background: var(--right); } figure.wrong b { background: var(--wrong); }
figcaption div:first-child { color: #5a6472; } img.plot { max-width: 100%; height: auto; display: block; }
"""


def document(title: str, parts: Sequence[str]) -> bytes:
    """A whole page.

    Args:
      title: its heading, as text.
      parts: pieces of HTML, from the other functions here.

    Returns:
      HTML, as the bytes of a file; names that aren't UTF-8 show their bytes.
    """
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
    body = "\n".join((f"<h1>{html.escape(title)}</h1>", *parts))
    whole = f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head>\n<body>{body}\n</body></html>\n'
    return whole.encode(errors="backslashreplace")


def picture(pixels: np.ndarray | None, *, name: str, lines: Sequence[str], mark: str) -> str:
    """A small picture with what is said of it.

    Args:
      pixels: uint8[h, w, 3]; None: a placeholder for one that is gone.
      name: its path, as text; what follows the last / is shown, and all of it where one points at.
      lines: to stand below, as texts.
      mark: "right", "wrong" or "".

    Returns:
      HTML.

    Raises:
      KeyError: another mark.
    """
    sign = f"<b>{_MARKS[mark]}</b>" if _MARKS[mark] else ""
    shown = (
        '<span class="gone">not there</span>' if pixels is None else f'<img alt="" src="{data_uri(pixels, longer_side=_SIDE)}">'
    )
    below = "".join(f"<div>{html.escape(line)}</div>" for line in (*lines, name.rpartition("/")[2]) if line)
    frame = f'<div class="frame">{shown}{sign}</div><figcaption>{below}</figcaption>'
    return f'<figure class="{mark}" title="{html.escape(name)}">{frame}</figure>'


def data_uri(pixels: np.ndarray, *, longer_side: int) -> str:
    """A picture as text that stands for its file.

    Args:
      pixels: uint8[h, w, 3].
      longer_side: in pixels, at most; larger ones are made smaller.

    Returns:
      For the `src` of an `<img>`.
    """
    small = Image.fromarray(np.ascontiguousarray(pixels))
    small.thumbnail((longer_side, longer_side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return _inline(buffer.getvalue(), "jpeg")


def _inline(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def bits(distance: int) -> str:
    """A distance in words."""
    return f"{distance} bit{'' if distance == 1 else 's'}"


def plot(png: bytes, *, heading: str, note: str) -> str:
    """A plot with what it shows.

    Args:
      png: the bytes of its file.
      heading: as text.
      note: below the heading, as text.

    Returns:
      HTML.
    """
    image = f'<img class="plot" alt="{html.escape(heading)}" src="{_inline(png, "png")}">'
    return f"<section><h2>{html.escape(heading)}</h2>\n{paragraph(note)}\n{image}</section>"


def plots(parts: Sequence[str]) -> str:
    """Plots, two beside one another where there is room.

    Args:
      parts: HTML, from `plot`.

    Returns:
      HTML.
    """
    return f'<div class="plots">{"".join(parts)}</div>'


def paragraph(text: str) -> str:
    """A paragraph of text, as HTML; nothing of an empty one."""
    return f"<p>{html.escape(text)}</p>" if text else ""


def section(heading: str) -> str:
    """The beginning of a section, with its heading as text."""
    return f"<h2>{html.escape(heading)}</h2>"


def row(parts: Sequence[str], *, heading: str) -> str:
    """Pieces side by side, below a heading.

    Args:
      parts: HTML, from `picture`.
      heading: as text.

    Returns:
      HTML.
    """
    return f'<h3>{html.escape(heading)}</h3>\n<div class="row">{"".join(parts)}</div>'


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Names and values.

    Args:
      rows: both as texts.

    Returns:
      HTML.
    """
    cells = "".join(f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>" for name, value in rows)
    return f"<table>{cells}</table>"
