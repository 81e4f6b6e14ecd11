"""Indexes of hash codes: made, opened, searched. Engines stand behind `protocol.CodeIndex`, each in a file of its own."""

from adsq_jax.index.filters import Filter, is_text, parse
from adsq_jax.index.places import check_same, create, open_index
from adsq_jax.index.protocol import NOTHING, CodeIndex, Found, Item, Manifest

__all__ = [
    "NOTHING",
    "CodeIndex",
    "Filter",
    "Found",
    "Item",
    "Manifest",
    "check_same",
    "create",
    "is_text",
    "open_index",
    "parse",
]
