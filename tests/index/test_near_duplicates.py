"""Groups of near-identical pictures, against every pair compared one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsq_jax import codes, index
from adsq_jax.index import Item, Manifest, near_duplicates


def distance(a, b):
    return sum(x != y for x, y in zip(a, b, strict=True))


def near_codes(seed, n, bits):
    """Random codes, many of them a bit or two from another one."""
    random = np.random.default_rng(seed)
    signs = random.choice((-1, 1), (max(1, n // 3), bits))[random.integers(0, max(1, n // 3), n)]
    flips = random.random((n, bits)) < 1.2 / bits
    return np.where(flips, -signs, signs).astype(np.int8)


@given(st.integers(0, 2**32 - 1), st.integers(1, 25), st.sampled_from([5, 12, 64, 77]), st.integers(0, 3))
def test_every_pair_within_the_radius(seed, n, bits, radius):
    """None is missed, none is too far, whatever the length and the radius; in blocks of any size."""
    signs = near_codes(seed, n, bits)
    expected = {(i, j) for i in range(n) for j in range(i + 1, n) if distance(signs[i], signs[j]) <= radius}
    found = set()
    for first, second in near_duplicates.near_pairs(codes.pack(signs), bits=bits, radius=radius):
        found |= set(zip(first.tolist(), second.tolist(), strict=True))
    assert found == expected


@pytest.mark.parametrize("cosine", [-1.0, 0.8, 0.9])
@pytest.mark.parametrize("with_features", [True, False])
def test_groups(tmp_path, with_features, cosine):
    """Whoever is joined by a chain of near pairs, in Python's own loops; without features only the codes count."""
    n, bits, radius = 60, 16, 2
    signs, random = near_codes(3, n, bits), np.random.default_rng(4)
    features = random.integers(-9, 10, (n, 6)) + 40 * random.integers(-1, 2, (5, 6))[random.integers(0, 5, n)]
    features = features.astype(np.int8)
    names = [f"/{row:02d}" for row in range(n)]
    manifest = Manifest(bits, "m" * 64, features=6 if with_features else 0)
    with index.create(tmp_path / "index", manifest) as opened:
        opened.add([Item(name) for name in names], codes.pack(signs), features if with_features else None)
    x = features.astype(float)
    groups = [{row} for row in range(n)]
    for i in range(n):
        for j in range(i):
            alike = not with_features or x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]) >= cosine
            if alike and distance(signs[i], signs[j]) <= radius:
                (a,), (b,) = ([group for group in groups if row in group] for row in (i, j))
                if a is not b:
                    groups = [group for group in groups if group not in (a, b)] + [a | b]
    expected = [sorted(names[row] for row in group) for group in groups if len(group) > 1]
    assert len(expected) > 1
    found = index.duplicates(tmp_path / "index", radius=radius, cosine=cosine)
    assert found == sorted(expected, key=lambda group: (-len(group), group))


def test_many_equal_codes(tmp_path, monkeypatch):
    """They are compared in parts, and are one group; of nothing there are no groups."""
    monkeypatch.setattr(near_duplicates, "_PAIRS", 1_000)
    monkeypatch.setattr(near_duplicates, "_COSINES", 70)
    with index.create(tmp_path / "short", Manifest(4, "m" * 64, features=3)) as opened:
        opened.add([Item(f"/{row:03d}") for row in range(90)], np.zeros((90, 1), np.uint8), np.ones((90, 3), np.int8))
        assert index.duplicates(opened) == [[f"/{row:03d}" for row in range(90)]]
    with index.create(tmp_path / "index", Manifest(16, "m" * 64)) as opened:
        assert index.duplicates(opened) == []
        opened.add([Item(f"/{row:03d}") for row in range(300)], np.zeros((300, 2), np.uint8))
        assert index.duplicates(opened) == [[f"/{row:03d}" for row in range(300)]]
