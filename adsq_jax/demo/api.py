"""The HTTP API beside the page: what a program asks, checked field by field, and what it is answered, as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from adsq_jax import codes
from adsq_jax.errors import InputError
from adsq_jax.index import is_text
from adsq_jax.inference import hits
from adsq_jax.inference.hits import Hit

MAX_HITS = 1_000
_NUMBERS = {"k": (1, MAX_HITS), "radius": (0, codes.MAX_BITS), "rerank": (0, hits.MAX_RERANK)}


class Options(NamedTuple):
    """How to search."""

    k: int = 20  # the largest number of hits
    radius: int = codes.MAX_BITS  # the largest distance, in bits
    where: str = ""  # a filter; "": none
    rerank: int = hits.RERANK  # how many of the nearest by codes are ranked again; 0: none


def about_item(given: Any) -> tuple[str, Options]:
    """Return the id of an item, and how to search for what is like it, from an object of JSON.

    Raises:
      InputError: it is no object, lacks the id, has an unknown field, or one of another type or out of its range.
    """
    if not isinstance(given, dict) or "id" not in given:
        raise InputError(f"expected an object of JSON with the id of an item, got {given!r:.100}")
    others = {name: value for name, value in given.items() if name != "id"}
    return _text("id", given["id"]), _options(others)


def about_picture(parameters: Mapping[str, str]) -> Options:
    """Return how to search for what is like a picture, from the parameters of the address; raise as `about_item` does."""
    given: dict[str, Any] = dict(parameters)
    for name in _NUMBERS.keys() & given.keys():
        if given[name].isascii() and given[name].isdecimal() and len(given[name]) < 10:
            given[name] = int(given[name])
    return _options(given)


def _options(given: Mapping[str, Any]) -> Options:
    odd = sorted(given.keys() - set(Options._fields))
    if odd:
        raise InputError(f"{odd[0]!r:.100} isn't known; fix: give {', '.join(Options._fields)}")
    for name, (low, high) in _NUMBERS.items():
        value = given.get(name, low)
        if type(value) is not int or not low <= value <= high:
            raise InputError(f"expected {name} to be a whole number from {low} to {high:,}, got {value!r:.100}")
    _text("where", given.get("where", ""))
    return Options(**given)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not is_text(value):
        raise InputError(f"expected {name} to be a text, got {value!r:.100}")
    return value


def answer(found: Sequence[Hit], *, seconds: float, count: int) -> dict[str, Any]:
    """Return the hits of a search, its time in seconds, and the number of items in the index."""
    return {"hits": [hit._asdict() for hit in found], "seconds": round(seconds, 4), "items": count}
