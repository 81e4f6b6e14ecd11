"""Indexes of hash codes, searched by Hamming distance: in a folder, or on a Milvus server.

    with index.open_index("runs/pictures_index") as opened:
        result = opened.search(packed_codes, k=20, where=index.parse("label=cat"))
        nearest = opened.items(result.keys[0])

`create` makes an index, `copy` copies one, `CodeIndex` says what an open one can do and what a new engine must do.
"""

from adsq_jax.index.copying import Copied, copy
from adsq_jax.index.engine import NOTHING, CodeIndex, Hits, Item, Manifest, check_model
from adsq_jax.index.filters import Filter, is_text, parse
from adsq_jax.index.opening import create, exists, open_index

__all__ = [
    "NOTHING",
    "CodeIndex",
    "Copied",
    "Filter",
    "Hits",
    "Item",
    "Manifest",
    "check_model",
    "copy",
    "create",
    "exists",
    "is_text",
    "open_index",
    "parse",
]
