"""What the demo answers: the page, which is the same for all, and what it asks for, as JSON."""

import os
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

from adsq_jax import codes
from adsq_jax.demo.finder import Query
from adsq_jax.inference import html_page
from adsq_jax.inference.hits import Hit, more_tied

MAX_BYTES = 20 * 2**20  # of a picture that is given
MAX_HITS = 100
SAMPLES = 8  # pictures to pick from
_FILES = {"/": ("page.html", "text/html"), "/page.css": ("page.css", "text/css"), "/page.js": ("page.js", "text/javascript")}


def files() -> dict[str, tuple[str, bytes]]:
    """Return type and content of the page's files, by their paths on the server."""
    folder = resources.files(__package__)
    return {path: (f"{kind}; charset=utf-8", (folder / name).read_bytes()) for path, (name, kind) in _FILES.items()}


def start(samples: dict[str, str], *, bits: int) -> dict[str, Any]:
    """Return what the page asks for first: its limits, and thumbnails by id of pictures to pick from."""
    pictures = [{"id": name, "image": source, "lines": []} for name, source in samples.items()]
    return {"bits": bits, "mostHits": MAX_HITS, "mostBytes": MAX_BYTES, "samples": pictures}


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
    """Return a line about the hits, and each with its thumbnail, None where it can't be shown."""
    pictures = []
    for hit in found:
        cosine = "" if hit.cosine is None else f" · cosine {hit.cosine:.2f}"
        lines = [
            f"{hit.rank}{'=' if hit.tied else ''} · {html_page.bits(hit.distance)}{cosine}",
            ", ".join(hit.labels),
            os.path.basename(hit.id),
        ]
        pictures.append({"id": hit.id, "image": thumbnail(hit.id), "lines": [line for line in lines if line]})
    return {"line": _summary(found, seconds, count), "hits": pictures}


def _summary(found: Sequence[Hit], seconds: float, count: int) -> str:
    if not found:
        return f"None of {count:,} pictures is within the radius and passes the filter."
    more = "".join(f" {line}." for line in more_tied(found))
    return f"The nearest {len(found):,} of {count:,} pictures, found in {1_000 * seconds:.1f} ms.{more}"
