"""Indexes of hash codes, searched by Hamming distance: in a folder, or on a Milvus server.

    with index.open_index("runs/pictures_index") as opened:
        result = opened.search(packed_codes, k=20, where=index.parse("label=cat"))
        nearest = opened.items(result.keys[0])

`create` makes an index, `copy` copies one, `info`, `remove`, `move` and `duplicates` look after one; `CodeIndex` says what an
open one can do and what a new engine must do.
"""

from adsq_jax.index.copying import Copied, copy
from adsq_jax.index.engine import NOTHING, CodeIndex, Hits, Item, Manifest, check_model
from adsq_jax.index.filters import Filter, is_text, parse
from adsq_jax.index.near_duplicates import duplicates
from adsq_jax.index.opening import create, exists, open_index
from adsq_jax.index.upkeep import Info, info, move, remove

__all__ = [
    "NOTHING",
    "CodeIndex",
    "Copied",
    "Filter",
    "Hits",
    "Info",
    "Item",
    "Manifest",
    "check_model",
    "copy",
    "create",
    "duplicates",
    "exists",
    "info",
    "is_text",
    "move",
    "open_index",
    "parse",
    "remove",
]
