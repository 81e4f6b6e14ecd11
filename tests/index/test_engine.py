"""The manifest of an index: it survives a round trip, and one of another version or a damaged one is refused."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from adsq_jax import codes
from adsq_jax.errors import InputError
from adsq_jax.index import Manifest


@given(st.integers(1, 256), st.text(), st.text())
def test_round_trip(bits, sha256, model):
    manifest = Manifest(bits, sha256, model)
    assert Manifest.from_dict(manifest.to_dict(), location="here") == manifest
    assert manifest.width == codes.pack(np.ones((1, bits), np.int8)).shape[1]


@pytest.mark.parametrize("other", [None, [], "x", {}, {"format": 2}, {"bit_order": "big"}])
def test_another_version(other):
    kept = {**Manifest(12, "m").to_dict(), **other} if isinstance(other, dict) and other else other
    with pytest.raises(InputError, match="here is not an index of format 1"):
        Manifest.from_dict(kept, location="here")


@pytest.mark.parametrize(
    "other", [{"bits": 0}, {"bits": 257}, {"bits": "12"}, {"bits": True}, {"model_sha256": 3}, {"model": None}]
)
def test_damaged(other):
    with pytest.raises(InputError, match="here has a damaged manifest"):
        Manifest.from_dict({**Manifest(12, "m").to_dict(), **other}, location="here")
