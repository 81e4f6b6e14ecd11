"""Looks in an index for the pictures that are nearest to others.

`python -m adsq_jax.search --index=INDEX --query=cat.jpg --k=20 --out=hits.html`
"""

import json
import os
import stat
from pathlib import Path

from absl import flags

from adsq_jax import command_line, index
from adsq_jax.data import gallery
from adsq_jax.errors import InputError
from adsq_jax.inference import hits
from adsq_jax.run import workdir

_INDEX = flags.DEFINE_string("index", None, "The index of adsq_jax.encode: its folder, or its address on a Milvus server.")
_QUERY = flags.DEFINE_multi_string("query", [], "A picture, or a folder of pictures; may be given several times.")
_K = flags.DEFINE_integer("k", 20, "How many pictures to find for each query, at most.", lower_bound=1)
_RADIUS = flags.DEFINE_integer("radius", None, "The greatest distance, in bits; any if not given.", lower_bound=0)
_WHERE = flags.DEFINE_string("where", None, "Which pictures to look at: 'label=cat and not path=*/drafts/*'.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The run whose model the index is of, if it isn't where it was any more.")
_OUT = flags.DEFINE_string("out", None, "A page of pictures to write: hits.html or hits.png.")
_JSON = flags.DEFINE_bool("json", False, "Prints JSON, not a table.")


def main() -> None:
    """Reads the flags, searches and tells."""
    if not (_INDEX.value and _QUERY.value and all(_QUERY.value)):
        raise InputError("--index=INDEX and --query=PICTURE are both needed")
    out = _place_of_page()
    where = None if _WHERE.value is None else index.parse(_WHERE.value)
    with index.open_index(_INDEX.value) as opened:
        queries = [picture for place in _QUERY.value for picture in _pictures(place)]
        model = hits.model_of(opened, place=_INDEX.value, directory=_WORKDIR.value)
        found = hits.nearest(opened, model, queries, k=_K.value, radius=_RADIUS.value, where=where)
    if out is not None:
        draw = hits.sheet if out.suffix == ".png" else hits.page
        with workdir.writing(out):
            workdir.write_bytes(out, draw(queries, found))
    if _JSON.value:
        content = [
            {"query": query, "hits": [hit._asdict() for hit in some]} for query, some in zip(queries, found, strict=True)
        ]
        print(json.dumps(content, indent=2))
    else:
        print("\n\n".join(hits.table(query, some) for query, some in zip(queries, found, strict=True)))


def _place_of_page() -> Path | None:
    if _OUT.value is None:
        return None
    out = Path(_OUT.value)
    if out.suffix not in (".html", ".png"):
        raise InputError(f"--out={out}: expected a name that ends with .html or .png")
    if os.path.lexists(out):
        raise InputError(f"--out={out} is there already: give another file, or remove it; nothing was overwritten")
    with workdir.writing(out):
        if not stat.S_ISDIR(os.stat(out.parent).st_mode):
            raise InputError(f"--out={out}: expected a file in a folder that is there: make it first")
    return out


def _pictures(place: str) -> list[str]:
    if not os.path.isdir(place):
        return [place]
    found = gallery.read(place, directory="")
    return [found.id(row) for row in range(len(found))]


if __name__ == "__main__":
    command_line.run(main)
