"""An index's manifest: what is kept is what is read, and another version's is refused."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from adsq_jax import codes
from adsq_jax.errors import InputError
from adsq_jax.index import Manifest


@given(st.integers(1, 256), st.text(), st.text())
def test_kept_and_read(bits, sha256, model):
    manifest = Manifest(bits, sha256, model)
    assert Manifest.of_dict(manifest.as_dict(), place="here") == manifest
    assert manifest.width == codes.pack(np.ones((1, bits), np.int8)).shape[1]


@pytest.mark.parametrize("other", [None, [], "x", {}, {"format": 2}, {"bit_order": "big"}])
def test_another_versions(other):
    kept = {**Manifest(12, "m").as_dict(), **other} if isinstance(other, dict) and other else other
    with pytest.raises(InputError, match="here is no index of format 1"):
        Manifest.of_dict(kept, place="here")


@pytest.mark.parametrize(
    "other", [{"bits": 0}, {"bits": 257}, {"bits": "12"}, {"bits": True}, {"model_sha256": 3}, {"model": None}]
)
def test_damaged(other):
    with pytest.raises(InputError, match="here has a damaged manifest"):
        Manifest.of_dict({**Manifest(12, "m").as_dict(), **other}, place="here")
