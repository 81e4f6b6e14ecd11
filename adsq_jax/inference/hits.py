"""What a search finds in an index: the nearest pictures of a query, as a list, a table, a page and a sheet."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from adsq_jax import index, storage
from adsq_jax.data import contact_sheet, images
from adsq_jax.data.readers import folder
from adsq_jax.errors import InputError
from adsq_jax.index import NOTHING, CodeIndex, Filter
from adsq_jax.inference import html_page
from adsq_jax.inference import model as model_module
from adsq_jax.inference.model import ImageLike, Model

_SIDE = 160  # pixels of a picture on a page


class Hit(NamedTuple):
    """A picture that was found."""

    rank: int  # from 1
    distance: int  # in bits
    id: str  # its path
    labels: tuple[str, ...]


def model_of(opened: CodeIndex, *, place: str, directory: str | None) -> Model:
    """Loads the model that an index's codes are of.

    Args:
      opened: the index.
      place: where it is, for messages.
      directory: the run's folder; None: where it was when the index was made.

    Returns:
      The model.

    Raises:
      InputError: it isn't there, or is another one.
    """
    manifest = opened.manifest
    if directory is None and not manifest.model:
        raise InputError(f"{place} doesn't say where its model is: give the run's folder with --workdir")
    try:
        model = model_module.load(manifest.model if directory is None else directory)
    except InputError as error:
        if directory is not None:
            raise
        raise InputError(f"the model of {place} can't be loaded ({error}): give the run's folder with --workdir") from error
    index.check_same(opened, index.Manifest(bits=model.bits, model_sha256=model.sha256), place=place)
    return model


def nearest(
    opened: CodeIndex, model: Model, queries: Sequence[ImageLike], *, k: int, radius: int | None, where: Filter | None
) -> list[list[Hit]]:
    """The pictures of an index that are nearest to others.

    Args:
      opened: the index.
      model: of its codes.
      queries: images, as `Model.encode` takes them.
      k: how many of each, at most.
      radius: the greatest distance, in bits; None for any.
      where: which pictures to look at; None for all.

    Returns:
      The hits of each query, nearest first.

    Raises:
      InputError: a query can't be read; k or radius is out of range.
    """
    return search_codes(opened, model.encode(list(queries), part="query"), k=k, radius=radius, where=where)


def search_codes(
    opened: CodeIndex, packed_codes: np.ndarray, *, k: int, radius: int | None, where: Filter | None
) -> list[list[Hit]]:
    """The same of queries that are encoded.

    Args:
      opened: the index.
      packed_codes: of the queries, uint8[n, ceil(bits / 8)].
      k: as of `nearest`.
      radius: as of `nearest`.
      where: as of `nearest`.

    Returns:
      The hits of each query, nearest first.

    Raises:
      InputError: k or radius is out of range.
    """
    found = opened.search(packed_codes, k=k, radius=radius, where=where)
    there = found.keys != NOTHING
    items = iter(opened.items(found.keys[there]))
    return [
        [
            Hit(rank, int(distance), item.id, item.labels)
            for rank, distance in enumerate(distances[known].tolist(), start=1)
            for item in [next(items)]
        ]
        for distances, known in zip(found.distances, there, strict=True)
    ]


def table(query: str, hits: Sequence[Hit]) -> str:
    """Hits for people: rank, distance in bits, path and labels.

    Args:
      query: its path.
      hits: what was found.

    Returns:
      A few lines of text.
    """
    head = folder.printable(os.fsencode(query))
    if not hits:
        return f"{head}\nnothing found"
    rows = [("rank", "bits", "labels", "path")]
    for hit in hits:
        labels, path = (folder.printable(text.encode()) for text in (", ".join(hit.labels), hit.id))
        rows.append((str(hit.rank), str(hit.distance), labels, path))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{rank:>{widths[0]}}  {bits:>{widths[1]}}  {labels:<{widths[2]}}  {path}" for rank, bits, labels, path in rows]
    return "\n".join([head, *lines])


def pixels_of(picture: str) -> np.ndarray | None:
    """A picture that an index names, small; None where there is none any more.

    Args:
      picture: the id of an item.

    Returns:
      uint8[h, w, 3], or None.
    """
    try:
        return images.decode(images.read(storage.path(picture)), shorter_side=_SIDE)
    except (OSError, ValueError):  # BadImage and InputError are such: a path that has vanished; a record of TFDS has none
        return None


def _caption(hit: Hit) -> str:
    return f"{hit.rank}: {html_page.bits(hit.distance)}"


def page(queries: Sequence[str], found: Sequence[Sequence[Hit]]) -> bytes:
    """A page of HTML with the queries and their hits; it needs no other file.

    Args:
      queries: paths.
      found: the hits of each.

    Returns:
      The file's bytes.
    """
    parts = []
    for query, hits in zip(queries, found, strict=True):
        shown: list[Any] = [html_page.picture(pixels_of(query), name=query, lines=["query"], mark="")]
        for hit in hits:
            shown.append(
                html_page.picture(pixels_of(hit.id), name=hit.id, lines=[_caption(hit), ", ".join(hit.labels)], mark="")
            )
        parts.append(html_page.row(shown, heading=query))
    return html_page.document("Nearest pictures", parts)


def sheet(queries: Sequence[str], found: Sequence[Sequence[Hit]]) -> bytes:
    """A picture of the queries, each at the head of its hits.

    Args:
      queries: paths.
      found: the hits of each.

    Returns:
      The bytes of a PNG file.
    """
    sections = {}
    for number, (query, hits) in enumerate(zip(queries, found, strict=True), start=1):
        cells = [(pixels_of(query), "query")]
        cells += [(pixels_of(hit.id), ", ".join((_caption(hit), *hit.labels))) for hit in hits]
        sections[f"{number}. {query}"] = cells
    return contact_sheet.draw_sections(sections)
