"""The page: where to give a picture, some to pick from, limits of the search, and the hits. Pictures are inside the page."""

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

MAX_BYTES = 20 * 2**20  # of a picture that is given
_MAX_HITS = 100
_SAMPLES = 8  # pictures to pick from
_LONGER = 320  # pixels of a picture's longer side


def build(finder: Finder) -> tuple[Any, dict[str, Any]]:
    """Return the page as Gradio's blocks, and its theme and styles."""
    import gradio as gr

    def search(query: Query | None, k: int, radius: int, where: str) -> tuple[str, str]:
        if query is None:
            return _line("Give a picture to see the nearest of the index."), ""
        try:
            found, seconds, count = finder.hits(query, k=int(k), radius=int(radius), where=where or "")
        except InputError as error:
            return _line(str(error), kind="bad"), ""
        return _line(_summary(found, seconds, count)), _grid(found)

    def on_upload(k: int, radius: int, where: str, event: gr.EventData) -> Any:
        return answer(lambda: finder.query(*_uploaded(event)), k, radius, where)

    def on_select(k: int, radius: int, where: str, event: gr.EventData) -> Any:
        return answer(lambda: finder.indexed(_sent(event, "id", str)), k, radius, where)

    def answer(make_query: Callable[[], Query], *limits: Any) -> Any:
        try:
            query = make_query()
        except InputError as error:
            return None, "", _line(str(error), kind="bad"), ""
        return query, _panel(query, finder.bits), *search(query, *limits)

    with gr.Blocks(title="Nearest pictures", analytics_enabled=False, fill_width=True) as blocks:
        query, plain = gr.State(None), {"apply_default_css": False}
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                drop = gr.HTML(_DROP, js_on_load=_ON_DROP, **plain)
                samples = gr.HTML(_strip(finder.samples(_SAMPLES)), js_on_load=_ON_CLICK, **plain)
                panel = gr.HTML(**plain)
                k = gr.Slider(1, _MAX_HITS, value=20, step=1, label="Pictures", elem_id="k")
                text = f"Radius in bits ({finder.bits}: any)"
                radius = gr.Slider(0, finder.bits, value=finder.bits, step=1, label=text, elem_id="radius")
                text = "label=cat and not path=*/drafts/*"
                where = gr.Textbox(label="Filter (Enter applies it)", placeholder=text, max_lines=1, elem_id="where")
            with gr.Column(scale=3, min_width=300):
                line = gr.HTML(search(None, 1, 0, "")[0], **plain)
                grid = gr.HTML(js_on_load=_ON_CLICK, elem_id="hits", **plain)
        limits, outputs = [k, radius, where], [query, panel, line, grid]
        private = {"api_visibility": "private", "trigger_mode": "always_last", "js": _BOUNDED % (_MAX_HITS, finder.bits)}
        drop.upload(on_upload, limits, outputs, show_progress_on=[line], **private)
        gr.on([samples.select, grid.select], on_select, limits, outputs, show_progress_on=[line], **private)
        changes = [k.change, radius.change, where.submit]
        gr.on(changes, search, [query, *limits], [line, grid], show_progress="hidden", **private)
    system = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # none from elsewhere
    return blocks, {"theme": gr.themes.Default(**system), "css": _STYLE}


def _uploaded(event: Any) -> tuple[str, bytes]:
    name, size, content = (_sent(event, key, kind) for key, kind in (("name", str), ("size", int), ("content", str)))
    if size > MAX_BYTES:  # its content wasn't sent
        raise InputError(f"{name} has more than {MAX_BYTES >> 20} MiB; fix: make it smaller")
    try:
        return name, base64.b64decode(content)
    except ValueError as error:
        raise InputError(f"{name} came in part; fix: give it again") from error


def _sent(event: Any, key: str, kind: type) -> Any:
    """Return a value that the page sent with an event; check it, since anybody can send anything."""
    data = event._data if isinstance(event._data, dict) else {}
    if type(data.get(key)) is not kind or (kind is str and not index.is_text(data[key])):
        raise InputError(f"the page has sent no {key}; fix: reload it")
    return data[key]


def _sources(ids: Sequence[str]) -> list[str | None]:
    """Return pictures of the index for `src`; None for those that can't be shown."""
    with ThreadPoolExecutor(4) as pool:
        return [None if pixels is None else _source(pixels) for pixels in pool.map(hits.thumbnail, ids)]


def _source(pixels: np.ndarray) -> str:
    return html_page.data_uri(pixels, longer_side=_LONGER)


def _summary(found: Sequence[Hit], seconds: float, count: int) -> str:
    if not found:
        return f"None of {count:,} pictures is within the radius and passes the filter."
    return f"The nearest {len(found):,} of {count:,} pictures, found in {1_000 * seconds:.1f} ms."


def _line(text: str, *, kind: str = "") -> str:
    return f'<p role="status" class="status-line {kind}">{html.escape(text)}</p>'


def _button(name: str, source: str | None, lines: Sequence[str]) -> str:
    """Return a picture of the index as a button that picks it."""
    escaped = html.escape(name)
    image = f'<img alt="" src="{source}">' if source else f'<span class="gone">can\'t be shown:<br>{escaped}</span>'
    text = "".join(f"<span>{html.escape(line)}</span>" for line in lines if line)
    return f'<button type="button" class="picture" title="{escaped}" data-id="{escaped}">{image}{text}</button>'


def _grid(found: Sequence[Hit]) -> str:
    buttons = []
    for hit, source in zip(found, _sources([hit.id for hit in found]), strict=True):
        lines = [f"{hit.rank} · {html_page.bits(hit.distance)}", ", ".join(hit.labels), os.path.basename(hit.id)]
        buttons.append(_button(hit.id, source, lines))
    return f'<div class="grid">{"".join(buttons)}</div>'


def _strip(samples: Sequence[str]) -> str:
    if not samples:
        return _line("The index has no picture that can be shown.")
    buttons = "".join(_button(name, source, []) for name, source in zip(samples, _sources(samples), strict=True))
    return f'<p>Or try one of these:</p><div class="strip">{buttons}</div>'


def _panel(query: Query, bits: int) -> str:
    """Return the query with its code: a square for each bit, full for +1."""
    squares = "".join(f'<i class="{"on" if bit > 0 else ""}"></i>' for bit in codes.unpack(query.code, bits=bits)[0].tolist())
    name = f'<span title="{html.escape(query.name)}">{html.escape(os.path.basename(query.name))}</span>'
    return f'<div class="query"><img alt="" src="{_source(query.pixels)}">{name}<div class="bits">{squares}</div></div>'


_DROP = """<label class="drop">Drop a picture here, or click to choose one
<input type="file" accept="image/*" aria-label="A picture"></label>"""
_ON_DROP = (
    f"const most = {MAX_BYTES};"
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
_ON_CLICK = """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-id]');
  if (button) trigger('select', {id: button.dataset.id});
});
"""
# A number that is empty, half typed or out of range becomes the nearest allowed one.
_BOUNDED = """(...all) => {
  const [k, radius, where] = all.splice(-3);
  return [...all, Math.min(Math.max(k, 1), %d), Math.min(Math.max(radius, 0), %d), where];
}"""
_STYLE = """
.drop { display: block; padding: 1.5rem 1rem; text-align: center; cursor: pointer; color: var(--body-text-color);
  border: 2px dashed var(--border-color-primary); border-radius: 8px; }
.drop:focus-within, .drop:hover { border-color: var(--color-accent); }
.drop input { position: absolute; opacity: 0; width: 1px; height: 1px; }
.status-line { margin: 0; overflow-wrap: anywhere; } .status-line.bad { color: var(--error-text-color); font-weight: 600; }
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
