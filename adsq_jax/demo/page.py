"""What the demo answers: the page, which is the same for all, and what it asks for, as JSON."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

from adsq_jax import codes
from adsq_jax.demo.finder import Query
from adsq_jax.index import CodeIndex
from adsq_jax.index.filters import of_label
from adsq_jax.inference import html_page
from adsq_jax.inference.hits import Hit, more_tied
from adsq_jax.inference.model import Model

MAX_BYTES = 20 * 2**20  # of a picture that is given
MAX_HITS = 100
SAMPLES = 8  # pictures to pick from
LABELS = 20  # to filter by
_MAX_NAME = 60  # characters of a name in the heading
_FILES = {"/": ("page.html", "text/html"), "/page.css": ("page.css", "text/css"), "/page.js": ("page.js", "text/javascript")}


def files() -> dict[str, tuple[str, bytes]]:
    """Return type and content of the page's files, by their paths on the server."""
    folder = resources.files(__package__)
    return {path: (f"{kind}; charset=utf-8", (folder / name).read_bytes()) for path, (name, kind) in _FILES.items()}


def heading(opened: CodeIndex, model: Model, *, run: str) -> str:
    """Return a line that says what is searched: name, pictures and bits of the index; the model, with its run if it has one."""
    network, method = model.description["network"]["backbone"], model.description["method"]
    trained = f"{network} trained by {_name(method)}" + (f" in {_name(run)}" if run else "")
    name = _name(opened.location.partition("?")[0])  # what follows is for a server
    made = f"untrained {network}" if method == "itq" else trained
    return " · ".join((name, f"{opened.count():,} pictures", f"{model.bits}-bit codes", made))


def _name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2][:_MAX_NAME]


def start(samples: dict[str, str], labels: Sequence[str], *, bits: int, heading: str) -> dict[str, Any]:
    """Return what the page asks for first: heading, limits, thumbnails by id of pictures to pick from, labels to filter by."""
    pictures = [{"id": name, "image": source, "lines": []} for name, source in samples.items()]
    filters = [{"label": label, "where": of_label(label)} for label in labels]
    limits = {"bits": bits, "mostHits": MAX_HITS, "mostBytes": MAX_BYTES}
    return {"heading": heading, **limits, "samples": pictures, "labels": filters}


def query(given: Query, *, bits: int) -> dict[str, Any]:
    """Return a query with its code, which the page sends with each search, and "0" or "1" for each bit, "1" for +1."""
    signs = codes.unpack(given.code[:, : -(-bits // 8)], bits=bits)[0].tolist()
    return {
        "id": given.name,
        "name": os.path.basename(given.name),
        "image": given.source,
        "code": given.code.tobytes().hex(),
        "bits": "".join("1" if sign > 0 else "0" for sign in signs),
    }


def hits(found: Sequence[Hit], *, seconds: float, count: int, thumbnail: Callable[[str], str | None]) -> dict[str, Any]:
    """Return a line about the hits, and each with its thumbnail, None where it can't be shown, and a line about ties."""
    pictures, sizes = [], Counter(hit.rank for hit in found)
    for hit in found:
        lines = [
            f"{hit.rank}{'=' if hit.tied else ''} · {html_page.bits(hit.distance)}",
            "" if hit.cosine is None else f"cosine {hit.cosine:.2f}",
            ", ".join(hit.labels),
            os.path.basename(hit.id),
        ]
        tie = f"{sizes[hit.rank]} at the same distance, in no order" if sizes[hit.rank] > 1 else ""
        shown = {"id": hit.id, "image": thumbnail(hit.id), "lines": [line for line in lines if line]}
        pictures.append({**shown, "rank": hit.rank, "tie": tie})
    return {"line": _summary(found, seconds, count), "hits": pictures}


def _summary(found: Sequence[Hit], seconds: float, count: int) -> str:
    if not found:
        return f"None of {count:,} pictures is within the radius and passes the filter."
    more = "".join(f" {line}." for line in more_tied(found))
    return f"The nearest {len(found):,} of {count:,} pictures, found in {1_000 * seconds:.1f} ms.{more}"
