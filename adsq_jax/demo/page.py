"""The page: where to give a picture, some to pick from, how far to look, and the hits. It holds the pictures that it shows."""

import base64
import html
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from adsq_jax import codes, index
from adsq_jax.demo.finder import Finder, Query
from adsq_jax.errors import InputError
from adsq_jax.inference import hits, html_page
from adsq_jax.inference.hits import Hit

MOST_BYTES = 20 * 2**20  # of a picture that is given
_MOST_SHOWN = 100  # pictures
_SAMPLES = 8  # pictures to pick from
_LONGER = 320  # pixels of a picture's longer side


def build(finder: Finder) -> tuple[Any, dict[str, Any]]:
    """Builds the page.

    Args:
      finder: what it shows.

    Returns:
      Gradio's blocks, and how they look: theme and styles.
    """
    import gradio as gr

    def shown(query: Query | None, k: int, radius: int, where: str) -> tuple[str, str]:
        if query is None:
            return _line("Give a picture, and see the nearest of the index here."), ""
        try:
            found, seconds, count = finder.hits(query, k=int(k), radius=int(radius), where=where or "")
        except InputError as error:
            return _line(str(error), kind="bad"), ""
        return _line(_told(found, seconds, count)), _grid(found)

    def given(k: int, radius: int, where: str, event: gr.EventData) -> Any:
        return answered(lambda: finder.query(*_uploaded(event)), k, radius, where)

    def picked(k: int, radius: int, where: str, event: gr.EventData) -> Any:
        return answered(lambda: finder.indexed(_of(event, "id", str)), k, radius, where)

    def answered(query_of: Callable[[], Query], *limits: Any) -> Any:
        try:
            query = query_of()
        except InputError as error:
            return None, "", _line(str(error), kind="bad"), ""
        return query, _panel(query, finder.bits), *shown(query, *limits)

    with gr.Blocks(title="Nearest pictures", analytics_enabled=False, fill_width=True) as blocks:
        query, plain = gr.State(None), {"apply_default_css": False}
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                drop = gr.HTML(_DROP, js_on_load=_DROPPED, **plain)
                samples = gr.HTML(_strip(finder.samples(_SAMPLES)), js_on_load=_PICKED, **plain)
                panel = gr.HTML(**plain)
                k = gr.Slider(1, _MOST_SHOWN, value=20, step=1, label="Pictures", elem_id="k")
                text = f"Radius in bits ({finder.bits}: any)"
                radius = gr.Slider(0, finder.bits, value=finder.bits, step=1, label=text, elem_id="radius")
                text = "label=cat and not path=*/drafts/*"
                where = gr.Textbox(label="Filter (Enter applies it)", placeholder=text, max_lines=1, elem_id="where")
            with gr.Column(scale=3, min_width=300):
                line = gr.HTML(shown(None, 1, 0, "")[0], **plain)
                found = gr.HTML(js_on_load=_PICKED, elem_id="hits", **plain)
        limits = [k, radius, where]
        private = {"api_visibility": "private", "trigger_mode": "always_last", "js": _BOUNDED % (_MOST_SHOWN, finder.bits)}
        drop.upload(given, limits, [query, panel, line, found], show_progress_on=[line], **private)
        gr.on([samples.select, found.select], picked, limits, [query, panel, line, found], show_progress_on=[line], **private)
        again = [k.change, radius.change, where.submit]
        gr.on(again, shown, [query, *limits], [line, found], show_progress="hidden", **private)
    system = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # none from elsewhere
    return blocks, {"theme": gr.themes.Default(**system), "css": _STYLE}


def _uploaded(event: Any) -> tuple[str, bytes]:
    name, size, content = (_of(event, key, kind) for key, kind in (("name", str), ("size", int), ("content", str)))
    if size > MOST_BYTES:  # its content wasn't sent
        raise InputError(f"{name} has more than {MOST_BYTES >> 20} MiB: make it smaller")
    try:
        return name, base64.b64decode(content)
    except ValueError as error:
        raise InputError(f"{name} came in part: give it again") from error


def _of(event: Any, key: str, kind: type) -> Any:
    """What the page sends with an event; whoever sends something else isn't the page."""
    data = event._data if isinstance(event._data, dict) else {}
    if type(data.get(key)) is not kind or (kind is str and not index.is_text(data[key])):
        raise InputError(f"the page has sent no {key}: load it anew")
    return data[key]


def _pictures(ids: Sequence[str]) -> list[str | None]:
    """Data URIs of pictures of the index; None for those that can't be shown any more."""
    with ThreadPoolExecutor(4) as pool:
        return [None if pixels is None else _src(pixels) for pixels in pool.map(hits.pixels_of, ids)]


def _src(pixels: np.ndarray) -> str:
    return html_page.data_uri(pixels, longer_side=_LONGER)


def _told(found: Sequence[Hit], seconds: float, count: int) -> str:
    if not found:
        return f"None of {count:,} pictures is within the radius and passes the filter."
    return f"The nearest {len(found):,} of {count:,} pictures, found in {1_000 * seconds:.1f} ms."


def _line(text: str, *, kind: str = "") -> str:
    return f'<p role="status" class="told {kind}">{html.escape(text)}</p>'


def _button(name: str, picture: str | None, lines: Sequence[str]) -> str:
    """A picture of the index that can be picked."""
    escaped = html.escape(name)
    shown = f'<img alt="" src="{picture}">' if picture else f'<span class="gone">can\'t be shown:<br>{escaped}</span>'
    text = "".join(f"<span>{html.escape(line)}</span>" for line in lines if line)
    return f'<button type="button" class="picture" title="{escaped}" data-id="{escaped}">{shown}{text}</button>'


def _grid(found: Sequence[Hit]) -> str:
    pictures = _pictures([hit.id for hit in found])
    parts = []
    for hit, picture in zip(found, pictures, strict=True):
        far = f"{hit.rank} · {html_page.bits(hit.distance)}"
        parts.append(_button(hit.id, picture, [far, ", ".join(hit.labels), os.path.basename(hit.id)]))
    return f'<div class="grid">{"".join(parts)}</div>'


def _strip(samples: Sequence[str]) -> str:
    if not samples:
        return _line("The index has no picture that can be shown.")
    buttons = "".join(_button(name, picture, []) for name, picture in zip(samples, _pictures(samples), strict=True))
    return f'<p>Or try one of these:</p><div class="strip">{buttons}</div>'


def _panel(query: Query, bits: int) -> str:
    """The query with its code: a square for each bit, full for +1."""
    squares = "".join(f'<i class="{"on" if bit > 0 else ""}"></i>' for bit in codes.unpack(query.code, bits=bits)[0].tolist())
    name = f'<span title="{html.escape(query.name)}">{html.escape(os.path.basename(query.name))}</span>'
    return f'<div class="query"><img alt="" src="{_src(query.pixels)}">{name}<div class="bits">{squares}</div></div>'


_DROP = """<label class="drop">Drop a picture here, or click to choose one
<input type="file" accept="image/*" aria-label="A picture"></label>"""
_DROPPED = (
    f"const most = {MOST_BYTES};"
    + """
const send = file => {
  if (!file) return;
  const sent = content => trigger('upload', {name: file.name, size: file.size, content});
  if (file.size > most) return sent('');
  const reader = new FileReader();
  reader.onload = () => sent(reader.result.slice(reader.result.indexOf(',') + 1));
  reader.readAsDataURL(file);
};
element.addEventListener('change', event => { send(event.target.files[0]); event.target.value = ''; });
element.addEventListener('dragover', event => event.preventDefault());
element.addEventListener('drop', event => { event.preventDefault(); send(event.dataTransfer.files[0]); });
"""
)
_PICKED = """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-id]');
  if (button) trigger('select', {id: button.dataset.id});
});
"""
# A number that is half typed, nothing or too much, counts as the nearest that can be.
_BOUNDED = """(...all) => {
  const [k, radius, where] = all.splice(-3);
  return [...all, Math.min(Math.max(k, 1), %d), Math.min(Math.max(radius, 0), %d), where];
}"""
_STYLE = """
.drop { display: block; padding: 1.5rem 1rem; text-align: center; cursor: pointer; color: var(--body-text-color);
  border: 2px dashed var(--border-color-primary); border-radius: 8px; }
.drop:focus-within, .drop:hover { border-color: var(--color-accent); }
.drop input { position: absolute; opacity: 0; width: 1px; height: 1px; }
.told { margin: 0; overflow-wrap: anywhere; } .told.bad { color: var(--error-text-color); font-weight: 600; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(128px, 1fr)); gap: 12px; }
.strip { display: grid; grid-template-columns: repeat(4, 1fr); gap: 6px; padding-top: 6px; }
.picture { display: flex; flex-direction: column; min-width: 0; padding: 0; text-align: left; cursor: pointer;
  font-size: 0.8rem; color: var(--body-text-color); background: none; border: 0; }
.picture span { max-width: 100%; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.picture img, .picture .gone { width: 100%; aspect-ratio: 1; object-fit: contain; background: #fff; border-radius: 4px;
  border: 1px solid var(--border-color-primary); }
.picture .gone { padding: 6px; color: #666; white-space: normal; overflow-wrap: anywhere; }
.picture:hover img, .picture:focus img { border-color: var(--color-accent); }
.query img { max-width: 100%; max-height: 200px; background: #fff; border-radius: 4px; }
.query span { display: block; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.bits { display: flex; flex-wrap: wrap; gap: 2px; }
.bits i { width: 9px; height: 9px; border: 1px solid var(--color-accent); } .bits i.on { background: var(--color-accent); }
"""
