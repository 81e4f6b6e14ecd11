"""Search an index for the pictures that are nearest to given ones, once, or as a server for other programs.

`adsq search --index=INDEX --query=cat.jpg --k=20 --out=hits.html`
`adsq search --index=INDEX --serve`
"""

import contextlib
import datetime
import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from adsq_jax import command_line, demo, storage
from adsq_jax.data import gallery
from adsq_jax.devices import compiled_programs
from adsq_jax.errors import InputError
from adsq_jax.index import CodeIndex, Filter, Manifest, check_model, open_index, own_model, parse
from adsq_jax.inference import hits, html_page, pictures
from adsq_jax.inference.hits import Hit
from adsq_jax.inference.model import ImageLike, Model
from adsq_jax.run import output, workdir

_HITS = 20  # of a query


def main(arguments: Sequence[str]) -> None:
    """Read the flags, search, and print the hits."""
    flags = command_line.Flags(arguments, description=__doc__)
    flags.text("index", "The index that `adsq encode` made: its folder, or its address on a Milvus server.")
    flags.texts("query", "A picture or a folder of pictures; may be given several times.")
    flags.integer("k", "The largest number of hits per query.", default=_HITS, low=1)
    flags.integer("radius", "The largest distance, in bits; any by default.", low=0)
    flags.integer(
        "rerank",
        "How many of the nearest by codes are ranked again by the trunk's features, if the index has them; 0: none.",
        default=hits.RERANK,
        low=0,
        high=hits.MAX_RERANK,
    )
    flags.text("where", "Which pictures to search: 'label=cat and not path=*/drafts/*'.")
    flags.text("workdir", "The folder of the run whose model encoded the index, if it was moved.")
    flags.text("out", "A page of pictures to write: hits.html or hits.png.")
    flags.texts("pictures", "Show pictures below this folder, not below those that the index was filled from; may be repeated.")
    flags.boolean("remote_pictures", "Show pictures of object stores that the index names, with your credentials.")
    flags.boolean("json", "Print JSON instead of a table.")
    flags.boolean("serve", "Answer searches of other programs over HTTP (POST /api/search, GET /api/info) until a signal.")
    flags.text("host", "With --serve: the address to listen on, 127.0.0.1 by default; 0.0.0.0 lets other machines in.")
    flags.integer("port", "With --serve: the port to listen on, 7860 by default; 0: any free one.", low=0, high=65_535)
    given = flags.parse()
    if given.serve:
        _serve(given)
        return
    if given.host is not None or given.port is not None:
        raise InputError("--host and --port go with --serve; fix: add it, or leave them out")
    if not (given.index and given.query and all(given.query)):
        raise InputError("--index=INDEX and --query=PICTURE are both needed")
    if given.out is None and (given.pictures or given.remote_pictures):
        raise InputError("--pictures and --remote_pictures go with --out=FILE, which shows pictures; fix: leave them out")
    out = None if given.out is None else output.check_new_file(storage.path(given.out), suffixes=(".html", ".png"))
    where = None if given.where is None else parse(given.where)
    compiled_programs.keep()
    with open_index(given.index) as opened:
        queries = [picture for query in given.query for picture in _pictures(query)]
        places = pictures.places(opened, folders=given.pictures, remote=given.remote_pictures) if out is not None else None
        model = hits.load_model(opened, workdir=given.workdir)
        results = search(opened, queries, k=given.k, radius=given.radius, rerank=given.rerank, where=where, model=model)
        head = _head(opened, given)
    if out is not None and places is not None:
        nothing = hits.nothing_found(radius=given.radius, where=given.where)
        draw = hits.sheet if out.suffix == ".png" else partial(hits.page, head=head, nothing=nothing)
        with output.writing(out):
            workdir.write_bytes(out, draw(queries, results, places, bit_depth=model.bit_depth))
        hidden = pictures.outside({hit.id for found in results for hit in found}, places)
        if hidden:
            print(f"{hidden:,} pictures aren't shown: {places.hint}", file=sys.stderr)
    if given.json:
        content = [
            {"query": query, "hits": [hit._asdict() for hit in found]} for query, found in zip(queries, results, strict=True)
        ]
        print(json.dumps(content, indent=2))
    else:
        print("\n\n".join(hits.table(query, found) for query, found in zip(queries, results, strict=True)))


def _serve(given: SimpleNamespace) -> None:
    if not given.index:
        raise InputError("expected --index=INDEX, made by adsq encode")
    usual = {"k": _HITS, "rerank": hits.RERANK}
    others = {name: value for name, value in vars(given).items() if name not in ("index", "workdir", "serve", "host", "port")}
    odd = sorted(
        name for name, value in others.items() if not (value is None or value is False or value in (usual.get(name), []))
    )
    if odd:
        raise InputError(f"--serve answers what it is asked later, and --{odd[0]} is for a search now; fix: leave one out")
    place = {name: value for name, value in (("host", given.host), ("port", given.port)) if value is not None}
    demo.serve_until_stopped(given.index, workdir=given.workdir, has_page=False, **place)


def search(
    index: str | Path | CodeIndex,
    queries: ImageLike | Sequence[ImageLike] | np.ndarray,
    *,
    k: int = _HITS,
    radius: int | None = None,
    rerank: int = hits.RERANK,
    where: str | Filter | None = None,
    model: Model | str | Path | None = None,
) -> list[list[Hit]]:
    """Find the pictures of an index that are nearest to given ones.

    Args:
      index: the location of an index, or an open one.
      queries: one or several images, as `Model.encode` takes them.
      k: the largest number of hits per query, at least 1.
      radius: the largest distance, in bits, at least 0; None for any.
      rerank: how many of the nearest by codes are ranked again by the cosine of the trunk's features, 0 to 10,000; an index
        without features has only codes to rank by.
      where: which pictures to search, as `index.parse` reads it; None for all.
      model: the model that encoded the index, or the folder of its run; None loads it from the folder that the index names.
        Give a loaded model to search many times.

    Returns:
      The hits of each query, nearest first.

    Raises:
      InputError: there is no such index or model, a query can't be read, or k, radius, rerank or the filter is invalid.

    Source: this project.
    """
    selected = parse(where) if isinstance(where, str) else where
    with contextlib.ExitStack() as stack:
        opened = index if isinstance(index, CodeIndex) else stack.enter_context(open_index(index))
        if isinstance(model, Model):
            check_model(opened, Manifest(model.bits, model.sha256))
        else:
            model = hits.load_model(opened, workdir=model)
        if rerank and opened.manifest.features:
            hits.check_features(opened)
            packed_codes, features = model.encode_with_features(queries, part="query")
        else:
            packed_codes, features = model.encode(queries, part="query", packed=True), None
        return hits.search_codes(opened, packed_codes, features, k=k, radius=radius, where=selected, rerank=rerank)


def _head(opened: CodeIndex, given: SimpleNamespace) -> dict[str, str]:
    """Return what a page says about a search, by name."""
    manifest = opened.manifest
    place = "kept in the index" if own_model.is_in(opened) else manifest.model
    again = f"the nearest {given.rerank:,} by codes are ranked again by the cosine of their features"
    return {
        "index": f"{opened.location}, {opened.count():,} pictures, {manifest.bits} bits",
        "model": f"{given.workdir or place}, sha256 {manifest.model_sha256[:12]}",
        "k": f"at most {given.k:,} hits for each query",
        "radius": "any" if given.radius is None else html_page.bits(given.radius),
        "filter": given.where or "none: all pictures",
        "order": again if given.rerank and manifest.features else "by codes alone",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _pictures(query: str) -> list[str]:
    query = storage.expand_home(query)
    if not os.path.isdir(query):
        return [query]
    pictures = gallery.read(query, directory="")
    return [pictures.id(row) for row in range(len(pictures))]


if __name__ == "__main__":
    command_line.run(main)
