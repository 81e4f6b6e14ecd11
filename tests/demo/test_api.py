"""The API's fields: what is left out has a default, and what is wrong is named."""

import pytest

from adsq_jax.demo import api
from adsq_jax.demo.api import Options
from adsq_jax.errors import InputError


def test_defaults():
    """An item needs its id alone, a picture nothing; numbers of an address are read as numbers."""
    assert api.about_item({"id": "/a.png"}) == ("/a.png", Options(k=20, radius=256, where="", rerank=500))
    assert api.about_picture({}) == Options()
    given = {"k": "1000", "radius": "0", "where": "label=7", "rerank": "0"}
    assert api.about_picture(given) == Options(1000, 0, "label=7", 0)
    assert api.about_item({"id": "x", "k": 3, "where": "label=cat"})[1] == Options(k=3, where="label=cat")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "an object of JSON with the id of an item"),
        ({"k": 3}, "an object of JSON with the id of an item"),
        ({"id": 3}, "id to be a text, got 3"),
        ({"id": "\ud800"}, "id to be a text"),
        ({"id": "x", "k": 0}, "k to be a whole number from 1 to 1,000, got 0"),
        ({"id": "x", "k": 1_001}, "k to be a whole number from 1 to 1,000, got 1001"),
        ({"id": "x", "k": True}, "got True"),
        ({"id": "x", "k": 2.0}, "got 2.0"),
        ({"id": "x", "k": "3"}, "got '3'"),
        ({"id": "x", "radius": 257}, "radius to be a whole number from 0 to 256"),
        ({"id": "x", "rerank": 10_001}, "rerank to be a whole number from 0 to 10,000"),
        ({"id": "x", "where": None}, "where to be a text, got None"),
        ({"id": "x", "limit": 3}, "'limit' isn't known; fix: give k, radius, where, rerank"),
    ],
)
def test_wrong_fields(given, message):
    """Each is refused in one line."""
    with pytest.raises(InputError) as caught:
        api.about_item(given)
    assert message in str(caught.value)


@pytest.mark.parametrize("value", ["", "-1", "1e2", "٣", "9" * 5_000, " 3"])
def test_wrong_numbers_of_an_address(value):
    """What isn't a whole number in digits is refused, however long it is."""
    with pytest.raises(InputError, match="k to be a whole number from 1 to 1,000, got "):
        api.about_picture({"k": value})
