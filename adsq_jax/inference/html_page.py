"""Pages of HTML that need no other file: no script, no font, no style sheet. Every text that is put in is escaped."""

import base64
import html
import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

_SIDE = 240  # pixels of a small picture's longer side, at most: screens have several for each of the page's
_TINY = 48  # pictures up to this side are shown in whole pixels, not blurred
_MARKS = {"": "", "right": "✓", "wrong": "✗"}  # not by colour alone
_STYLE = """
:root { color-scheme: light dark; --page: #fff; --text: #1c2430; --pale: #5a6472; --line: #d0d4da; --link: #0059a8;
  --right: #0072b2; --wrong: #c44e00; }
@media (prefers-color-scheme: dark) {
  :root { --page: #15191f; --text: #e4e7eb; --pale: #a3adb9; --line: #454d58; --link: #7cbcf5; --right: #3d9fe0;
    --wrong: #f0803c; }
}
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 1240px; padding: 16px; overflow-wrap: anywhere;
  background: var(--page); color: var(--text); }
h1 { font-size: 1.5rem; margin: .4rem 0 .8rem; } h2 { font-size: 1.25rem; margin: 2.4rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.3rem 0 .4rem; } p { max-width: 80ch; margin: .5rem 0; } a { color: var(--link); }
p.lead { font-size: 1.1rem; margin-bottom: 1rem; }
nav { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 1rem 0; }
table { border-collapse: collapse; } td { padding: 2px 0; vertical-align: top; }
td:first-child { color: var(--pale); padding-right: 20px; overflow-wrap: normal; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(500px, 100%), 1fr)); gap: 0 32px; }
img.plot { width: 100%; max-width: 560px; box-sizing: border-box; padding: 6px; background: #fff; display: block;
  border: 1px solid var(--line); border-radius: 6px; }
.row { display: flex; gap: 14px; --side: 96px; } .row.large { --side: 176px; }
.query { flex: none; width: var(--side); padding-right: 14px; border-right: 3px solid var(--line); }
.hits { flex: 1; display: grid; grid-template-columns: repeat(auto-fill, minmax(min(var(--side), 100%), 1fr)); gap: 10px; }
.hits p { grid-column: 1 / -1; margin: 0; }
figure { margin: 0; font-size: 12px; min-width: 0; } .large figure { font-size: 13px; }
figure .frame { aspect-ratio: 1; border: 2px solid var(--line); display: grid; place-items: center; position: relative; }
figure img { width: 100%; height: 100%; object-fit: contain; position: absolute; } figure .gone { color: var(--pale); }
img.tiny { image-rendering: pixelated; }
figure.right .frame { border-color: var(--right); } figure.wrong .frame { border: 2px dashed var(--wrong); }
figure b { position: absolute; top: 0; right: 0; padding: 0 5px; color: #fff; }
figure.right b { background: #0072b2; } figure.wrong b { background: #c44e00; }
figcaption div:first-child { color: var(--pale); }
@media (max-width: 700px) {
  body { padding: 12px; } .row { display: block; } .row.large { --side: 150px; }
  .query { padding: 0 0 10px; border-right: 0; border-bottom: 3px solid var(--line); width: auto; margin-bottom: 10px; }
  .query figure { display: flex; gap: 10px; } .query .frame { flex: none; width: var(--side); }
  .large .query .frame { width: 220px; }
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
    sign = f'<b title="{mark}">{_MARKS[mark]}</b>' if _MARKS[mark] else ""
    short = name.rpartition("/")[2]
    if pixels is None:
        image = '<span class="gone">not there</span>'
    else:
        size = "tiny" if max(pixels.shape) <= _TINY else ""
        image = f'<img class="{size}" alt="{html.escape(short)}" src="{data_uri(pixels, longer_side=_SIDE)}">'
    caption = "".join(f"<div>{html.escape(line)}</div>" for line in (*lines, short) if line)
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
    return f"<section><h3>{html.escape(heading)}</h3>\n{paragraph(note)}\n{image}</section>"


def plots(parts: Sequence[str]) -> str:
    """Return plots from `plot`, two side by side where there is room."""
    return f'<div class="plots">{"".join(parts)}</div>'


def paragraph(text: str) -> str:
    """Return a paragraph; nothing for an empty text."""
    return f"<p>{html.escape(text)}</p>" if text else ""


def lead(text: str) -> str:
    """Return a paragraph that is to be read first."""
    return f'<p class="lead">{html.escape(text)}</p>'


def section(heading: str) -> str:
    """Return the heading of a section."""
    return f'<h2 id="{_anchor(heading)}">{html.escape(heading)}</h2>'


def contents(headings: Sequence[str]) -> str:
    """Return links to sections of the page."""
    links = (f'<a href="#{_anchor(heading)}">{html.escape(heading)}</a>' for heading in headings)
    return f'<nav aria-label="Contents">{"".join(links)}</nav>'


def _anchor(heading: str) -> str:
    return html.escape("-".join(heading.lower().split()))


def row(query: str, hits: Sequence[str], *, heading: str, note: str, large: bool = False) -> str:
    """Return a query and its hits, all from `picture`, below a heading; a note, if any, below the hits."""
    size = "row large" if large else "row"
    found = f'<div class="query">{query}</div><div class="hits">{"".join(hits)}{paragraph(note)}</div>'
    return f'<h3>{html.escape(heading)}</h3>\n<div class="{size}">{found}</div>'


def table(rows: Sequence[tuple[str, str]], *, links: Mapping[str, str] | None = None) -> str:
    """Return a table of names and values, both text; a value whose name is in `links` leads to that address."""
    cells = ""
    for name, value in rows:
        shown = html.escape(value)
        if links and name in links:
            shown = f'<a href="{html.escape(links[name])}">{shown}</a>'
        cells += f"<tr><td>{html.escape(name)}</td><td>{shown}</td></tr>"
    return f"<table>{cells}</table>"
