"""Distance histograms against a loop over all pairs, and what is refused."""

import numpy as np
import pytest

from adsq_jax.retrieval import hamming

# bits, queries, items, classes, chance of a label
SIZES = {
    "1 bit": (1, 3, 20, 2, 0.5),
    "1 query, 1 item": (12, 1, 1, 3, 0.5),
    "1 query": (16, 1, 30, 3, 0.5),
    "1 item": (24, 5, 1, 3, 0.5),
    "7 bits, 1 class": (7, 4, 25, 1, 0.5),
    "33 bits": (33, 4, 25, 5, 0.4),
    "48 bits, 32 classes": (48, 4, 40, 32, 0.05),
    "64 bits, 33 classes": (64, 4, 40, 33, 0.05),
    "100 bits, 81 classes": (100, 3, 40, 81, 0.02),
    "255 bits": (255, 3, 20, 10, 0.2),
    "256 bits": (256, 3, 20, 10, 0.2),
    "no relevant item": (20, 3, 20, 4, 0.0),
    "all relevant": (20, 3, 20, 4, 1.0),
}


def pack_little(signs):
    """uint8[n, ceil(bits / 8)] from {-1, +1}: bit k of a code is bit k % 8 of byte k // 8."""
    packed = np.zeros((len(signs), -(-signs.shape[1] // 8)), np.uint8)
    for i, k in np.argwhere(signs > 0):
        packed[i, k // 8] |= 1 << (k % 8)
    return packed


def brute_force(query, database, query_labels, database_labels):
    """Counts pair by pair, bit by bit."""
    counts = np.zeros((len(query), query.shape[1] + 1), np.int64)
    relevant = np.zeros_like(counts)
    for i, (code, labels) in enumerate(zip(query, query_labels, strict=True)):
        for other, other_labels in zip(database, database_labels, strict=True):
            distance = sum(a != b for a, b in zip(code, other, strict=True))
            counts[i, distance] += 1
            relevant[i, distance] += any(a and b for a, b in zip(labels, other_labels, strict=True))
    return counts, relevant


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_histograms_equal_a_loop_over_all_pairs(size):
    """Both histograms are exact, and each query's counts add up to the database; some codes are equal, some opposite."""
    bits, n_query, n_database, classes, chance = size
    random = np.random.default_rng(bits)
    query = random.choice(np.array([-1, 1], np.int8), (n_query, bits))
    database = random.choice(np.array([-1, 1], np.int8), (n_database, bits))
    database[0], database[-1] = query[0], -query[-1]  # distances 0 and `bits`
    query_labels = (random.random((n_query, classes)) < chance).astype(np.uint8)
    database_labels = (random.random((n_database, classes)) < chance).astype(np.uint8)
    counts, relevant = hamming.distance_histograms(
        pack_little(query), pack_little(database), query_labels=query_labels, database_labels=database_labels, bits=bits
    )
    expected_counts, expected_relevant = brute_force(query, database, query_labels, database_labels)
    np.testing.assert_array_equal(counts, expected_counts)
    np.testing.assert_array_equal(relevant, expected_relevant)
    assert counts.dtype == relevant.dtype == np.int32
    assert (counts.sum(axis=1) == n_database).all()
    if chance in (0, 1):
        assert (relevant.sum(axis=1) == chance * n_database).all()


def test_a_label_in_each_column_alone_makes_relevant():
    """Query and item that share only label k are relevant for each k of 70, and those of other labels are not."""
    classes = 70
    codes, labels = np.zeros((classes, 2), np.uint8), np.eye(classes, dtype=np.uint8)
    counts, relevant = hamming.distance_histograms(codes, codes, query_labels=labels, database_labels=labels, bits=16)
    assert (counts[:, 0] == classes).all()
    assert (relevant[:, 0] == 1).all()


GOOD = {
    "query_codes": np.zeros((2, 3), np.uint8),
    "database_codes": np.zeros((5, 3), np.uint8),
    "query_labels": np.ones((2, 4), np.uint8),
    "database_labels": np.ones((5, 4), np.uint8),
    "bits": 24,
}
BAD = {
    "codes of another width": ({"bits": 25}, r"query codes of 25 bits must be uint8\[n, 4\]"),
    "codes that are not bytes": ({"query_codes": np.zeros((2, 3), np.int8)}, "query codes of 24 bits"),
    "one code without its axis": ({"query_codes": np.zeros(3, np.uint8)}, "query codes of 24 bits"),
    "a narrow database": ({"database_codes": np.zeros((5, 2), np.uint8)}, "database codes of 24 bits"),
    "an empty database": (
        {"database_codes": np.zeros((0, 3), np.uint8), "database_labels": np.zeros((0, 4), np.uint8)},
        "database codes of 24 bits",
    ),
    "a label row missing": ({"database_labels": np.ones((4, 4), np.uint8)}, r"database labels must be \[5, c\]"),
    "other labels": ({"database_labels": np.ones((5, 3), np.uint8)}, r"database labels must be \[5, c\]"),
    "query labels as ids": ({"query_labels": np.ones(2, np.uint8)}, r"query labels must be \[2, c\]"),
    "database labels as ids": ({"database_labels": np.ones(5, np.uint8)}, r"database labels must be \[5, c\]"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD.keys())
def test_shapes_that_do_not_fit_are_refused(change, message):
    """The message says which array is wrong and what was expected; the same call without the change goes through."""
    hamming.distance_histograms(**GOOD)
    with pytest.raises(ValueError, match=message):
        hamming.distance_histograms(**{**GOOD, **change})
