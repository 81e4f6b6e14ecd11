"""What a report reads of a run."""

import numpy as np

from adsq_jax.report import inputs
from adsq_jax.run import codes_folder


def test_each_side_has_the_codes_of_its_network(tmp_path):
    """With `fg` queries are f's codes and the database g's."""
    random = np.random.default_rng(0)
    packed = {part: {net: random.integers(0, 256, (6, 1), np.uint8) for net in "fg"} for part in ("query", "database")}
    labels = {part: np.arange(6) % 2 for part in packed}
    codes_folder.write(tmp_path / "codes", packed, labels, labels, bits=8, split_sha256="0" * 64)
    codes = inputs.read_codes(tmp_path, query_net="fg")
    assert np.array_equal(codes.packed["query"], packed["query"]["f"])
    assert np.array_equal(codes.packed["database"], packed["database"]["g"])
