"""Find the pictures of an index that are nearest to a query, and show them as a table, a page or a contact sheet."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from adsq_jax import index, storage
from adsq_jax.data import contact_sheet, images
from adsq_jax.data.text import printable
from adsq_jax.errors import InputError
from adsq_jax.index import NOTHING, CodeIndex, Filter, Item, own_model
from adsq_jax.index.engine import check_search
from adsq_jax.inference import html_page, hub, loading, pictures
from adsq_jax.inference.model import Model
from adsq_jax.inference.pictures import Places
from adsq_jax.retrieval import features as compressed
from adsq_jax.run import tables

RERANK = 500  # of the nearest by codes are ranked again by features
MAX_RERANK = 10_000
MOST_TIED = 100
_QUERIES = 64  # whose features are held at a time
_MANY = 1_000  # hits: ties behind more aren't counted
SIDE = 160  # pixels of a thumbnail's shorter side


class Hit(NamedTuple):
    """A picture that a search returned."""

    rank: int  # from 1; equal where nothing tells hits apart
    distance: int  # in bits
    id: str  # the picture's path
    labels: tuple[str, ...]
    cosine: float | None = None  # of the trunk's features with the query's, -1 to 1; None: not ranked by it
    tied: int = 0  # other pictures of the same rank, also such as aren't among the hits; at most MOST_TIED are counted


def load_model(opened: CodeIndex, *, workdir: str | Path | None) -> Model:
    """Load the model that the codes of an index come from, from a run's folder; None: the one that the index keeps or names.

    Raises:
      InputError: the model isn't there, isn't the one that made the codes, or is in an object store that only the index names.
    """
    manifest = opened.manifest
    if workdir is None and own_model.is_in(opened):
        workdir = opened.location
    if workdir is None and not manifest.model:
        raise InputError(f"{opened.location} doesn't say where its model is; fix: give the run's folder with --workdir")
    # which would be opened with this user's credentials, or asked for in the network
    is_on_hub = hub.is_address(manifest.model)
    if workdir is None and (is_on_hub or storage.is_remote(manifest.model)):
        place = "on the Hugging Face Hub" if is_on_hub else "in an object store"
        raise InputError(f"{opened.location} says that its model is {place}; fix: if you trust it, --workdir={manifest.model}")
    try:
        model = loading.load(manifest.model if workdir is None else workdir)
    except InputError as error:
        if workdir is not None:
            raise
        raise InputError(
            f"the model of {opened.location} can't be loaded ({error}); fix: give the run's folder with --workdir"
        ) from error
    index.check_model(opened, index.Manifest(bits=model.bits, model_sha256=model.sha256))
    return model


def check_features(opened: CodeIndex) -> None:
    """Check that an index has features as a model computes them, or none.

    Raises:
      InputError: they have another length.
    """
    if opened.manifest.features not in (0, compressed.DIMS):
        raise InputError(
            f"{opened.location} has features of {opened.manifest.features} numbers, expected {compressed.DIMS}; fix: encode "
            "into a new index, or give --rerank=0"
        )


def search_codes(
    opened: CodeIndex,
    packed_codes: np.ndarray,
    features: np.ndarray | None,
    *,
    k: int,
    radius: int | None,
    where: Filter | None,
    rerank: int,
) -> list[list[Hit]]:
    """Find the k pictures of an index that are nearest to each query.

    Args:
      opened: the index.
      packed_codes: the queries' codes, uint8[n, ceil(bits / 8)].
      features: the queries' compressed features, int8[n, dims]; None: rank by codes alone.
      k: the largest number of hits per query.
      radius: the largest distance, in bits; None: any.
      where: which pictures to search; None: all.
      rerank: how many of the nearest by codes are ranked again by the cosine of their features; 0: none.

    Returns:
      The hits of each query, nearest first; those that were ranked again come before the others. Pictures at the same distance
      that weren't ranked again have the same rank, and which of them are among the k is arbitrary.

    Raises:
      InputError: k, radius or rerank is out of range.
    """
    packed_codes = check_search(packed_codes, opened.manifest, k=k, radius=radius)
    if isinstance(rerank, bool) or not isinstance(rerank, int | np.integer) or not 0 <= rerank <= MAX_RERANK:
        raise InputError(f"rerank={rerank}: expected a whole number from 0 to {MAX_RERANK:,}")
    if features is None or not opened.manifest.features:
        rerank = 0
    # a few more than k show which ties go on
    wanted = max(k + MOST_TIED if k <= _MANY else k, int(rerank))
    found = opened.search(packed_codes, k=wanted, radius=radius, where=where)
    rows = [
        _Row(distances[keys != NOTHING], keys[keys != NOTHING], np.full(int((keys != NOTHING).sum()), np.nan))
        for distances, keys in zip(*found, strict=True)
    ]
    if rerank and features is not None:
        rows = _ranked_again(opened, rows, features, count=rerank)
    items = iter(opened.items(np.concatenate([np.zeros(0, np.int64), *(row.keys[:k] for row in rows)])))
    return [_hits_of(row, items, k=k) for row in rows]


class _Row(NamedTuple):
    """What was found for a query, nearest first."""

    distances: np.ndarray  # int32[n]
    keys: np.ndarray  # int64[n]
    cosines: np.ndarray  # float[n]; NaN where the features weren't compared


def _hits_of(row: _Row, items: Iterator[Item], *, k: int) -> list[Hit]:
    """Return the first k hits of a query; `items` yields one for each."""
    ranked = int((~np.isnan(row.cosines)).sum())  # by cosines; the others are in the order of their distances
    others = row.distances[ranked:]
    first, end = (np.searchsorted(others, others, side=side) for side in ("left", "right"))
    ranks = np.concatenate([np.arange(ranked), ranked + first])[:k] + 1
    tied = np.concatenate([np.zeros(ranked, int), end - first - 1])[:k]
    hits = []
    for rank, distance, cosine, others_tied in zip(ranks.tolist(), row.distances, row.cosines, tied.tolist(), strict=False):
        item, shown = next(items), None if np.isnan(cosine) else round(float(cosine), 4)
        hits.append(Hit(rank, int(distance), item.id, item.labels, shown, min(others_tied, MOST_TIED)))
    return hits


def _ranked_again(opened: CodeIndex, rows: Sequence[_Row], features: np.ndarray, *, count: int) -> list[_Row]:
    """Return the rows with their first `count` by descending cosine; at equal ones the order stays."""
    again = []
    for start in range(0, len(rows), _QUERIES):
        some = rows[start : start + _QUERIES]
        keys = [row.keys[:count] for row in some]
        stored = np.split(opened.features(np.concatenate(keys)), np.cumsum(list(map(len, keys)))[:-1])
        for row, query, numbers in zip(some, features[start : start + _QUERIES], stored, strict=True):
            cosines = row.cosines.copy()
            cosines[: len(numbers)] = compressed.cosines(query, numbers)
            order = np.argsort(-cosines, kind="stable")  # NaN comes last
            again.append(_Row(row.distances[order], row.keys[order], cosines[order]))
    return again


def table(query: str, hits: Sequence[Hit]) -> str:
    """Return the hits of a query (a path) as lines of text: rank, distance in bits, cosine if there is one, labels and path."""
    head = printable(os.fsencode(query))
    if not hits:
        return f"{head}\nnothing found"
    has_cosines = any(hit.cosine is not None for hit in hits)
    rows = [("rank", "bits", *(["cosine"] if has_cosines else []), "labels", "path")]
    for hit in hits:
        labels, path = (printable(text.encode()) for text in (", ".join(hit.labels), hit.id))
        cosine = "-" if hit.cosine is None else f"{hit.cosine:.3f}"
        rank = f"{hit.rank}=" if hit.tied else str(hit.rank)
        rows.append((rank, str(hit.distance), *([cosine] if has_cosines else []), labels, path))
    aligned = tables.align(rows, right=(0, 1, 2) if has_cosines else (0, 1))
    return "\n".join([head, aligned, *more_tied(hits)])


def more_tied(hits: Sequence[Hit]) -> list[str]:
    """Return a line on pictures that are as near as the last hit of a query, and not among the hits; none if there are none."""
    if not hits:
        return []
    last = hits[-1]
    others = last.tied + 1 - sum(hit.rank == last.rank for hit in hits)
    if others <= 0:
        return []
    number = f"{others} more" if last.tied < MOST_TIED else f"at least {others} more"
    return [f"{number} at the same distance as the last, {html_page.bits(last.distance)}"]


def thumbnail(picture: str, places: Places, *, bit_depth: int = 0) -> np.ndarray | None:
    """Return an item's picture, small, uint8[h, w, 3]; None if it is at none of the places, was deleted or is not a picture."""
    return decode_small(lambda: pictures.read(picture, places), bit_depth=bit_depth)


def _query_thumbnail(query: str, *, bit_depth: int) -> np.ndarray | None:
    """Return a query's picture, small: its path is from the command line, not from data."""
    return decode_small(lambda: images.read(storage.path(query)), bit_depth=bit_depth)


def decode_small(read: Callable[[], bytes], *, bit_depth: int = 0) -> np.ndarray | None:
    """Return the picture that `read` gives, small, uint8[h, w, 3]; None if it raises an error, or gives no picture."""
    try:
        return images.decode(read(), shorter_side=SIDE, bit_depth=bit_depth)
    except (OSError, ValueError):  # among them BadImage and InputError; a record of TFDS has no file
        return None


def caption(hit: Hit) -> str:
    """Return a hit's rank, with = for ties, distance and cosine, as "1: 3 bits, cosine 0.87"."""
    cosine = "" if hit.cosine is None else f", cosine {hit.cosine:.2f}"
    return f"{hit.rank}{'=' if hit.tied else ''}: {html_page.bits(hit.distance)}{cosine}"


def nothing_found(*, radius: int | None, where: str | None) -> str:
    """Return a line on a search without hits, within a radius in bits and among what a filter's text selects, if given."""
    limits = [text for text, given in ((f"within radius {radius}", radius), (f"where {where}", where)) if given is not None]
    if not limits:
        return "nothing found: the index is empty; fix: put pictures into it with adsq encode"
    ways = [text for text, given in (("a larger --radius", radius), ("another --where", where)) if given is not None]
    return f"nothing found {' '.join(limits)}; fix: give {' or '.join(ways)}, or leave {'it' if len(ways) == 1 else 'both'} out"


def page(
    queries: Sequence[str],
    hits: Sequence[Sequence[Hit]],
    places: Places,
    *,
    head: Mapping[str, str],
    nothing: str,
    bit_depth: int = 0,
) -> bytes:
    """Make a page of HTML, which needs no other file, showing each query and its hits, if they may be opened.

    Args:
      queries: their paths.
      hits: those of each query.
      places: where pictures of hits may lie.
      head: what is said about the search, by name.
      nothing: the line for a query without hits.
      bit_depth: the model's, for pictures of 16 bits.

    Returns:
      The page, UTF-8.
    """
    parts = [html_page.table(list(head.items()))]
    for query, found in zip(queries, hits, strict=True):
        shown = [
            html_page.picture(
                thumbnail(hit.id, places, bit_depth=bit_depth),
                name=hit.id,
                lines=[caption(hit), ", ".join(hit.labels)],
                mark="",
            )
            for hit in found
        ]
        note = "".join(more_tied(found)) if found else nothing
        picture = html_page.picture(_query_thumbnail(query, bit_depth=bit_depth), name=query, lines=["query"], mark="")
        parts.append(html_page.row(picture, shown, heading=query, note=note, large=True))
    return html_page.document("Nearest pictures", parts)


def sheet(queries: Sequence[str], hits: Sequence[Sequence[Hit]], places: Places, *, bit_depth: int = 0) -> bytes:
    """Return a PNG file showing each query (a path) and its hits, if they may be opened; `bit_depth` is the model's."""
    sections = {}
    for number, (query, hits_of_query) in enumerate(zip(queries, hits, strict=True), start=1):
        cells = [(_query_thumbnail(query, bit_depth=bit_depth), "query")]
        for hit in hits_of_query:
            cells.append((thumbnail(hit.id, places, bit_depth=bit_depth), ", ".join((caption(hit), *hit.labels))))
        sections[f"{number}. {query}"] = cells
    return contact_sheet.draw_sections(sections)
