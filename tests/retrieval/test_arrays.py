"""Codes and labels in every form that is accepted give the same words; anything else is refused with one line."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adsq_jax.errors import InputError
from adsq_jax.retrieval import arrays


def words_bit_by_bit(ones):
    """uint32[ceil(bits / 32), n]: bit k of a code is bit k % 32 of word k // 32."""
    words = np.zeros((-(-ones.shape[1] // 32), len(ones)), np.uint32)
    for i, k in np.argwhere(ones):
        words[k // 32, i] |= np.uint32(1 << (k % 32))
    return words


def packed(ones):
    """uint8[n, ceil(bits / 8)]: bit k of a code is bit k % 8 of byte k // 8."""
    found = np.zeros((len(ones), -(-ones.shape[1] // 8)), np.uint8)
    for i, k in np.argwhere(ones):
        found[i, k // 8] |= 1 << (k % 8)
    return found


def random_ones(*, n, bits, seed):
    return np.random.default_rng(seed).random((n, bits)) < 0.5


def relaxed(ones):
    """Floats of both signs; the first +1 of each code is 0.0."""
    found = np.where(ones, 1, -1) * np.random.default_rng(1).uniform(0.01, 3, ones.shape)
    for i, row in enumerate(ones):
        if row.any():
            found[i, np.argmax(row)] = 0.0
    return found


SIGNED = {
    "relaxed float64": relaxed,
    "relaxed float32": lambda ones: relaxed(ones).astype(np.float32),
    "relaxed float16": lambda ones: relaxed(ones).astype(np.float16),
    "relaxed bfloat16 of JAX": lambda ones: jnp.asarray(relaxed(ones), jnp.bfloat16),
    "relaxed float32 of JAX": lambda ones: jnp.asarray(relaxed(ones), jnp.float32),
    "relaxed big-endian": lambda ones: relaxed(ones).astype(">f4"),
    "relaxed in Fortran order": lambda ones: np.asfortranarray(relaxed(ones)),
    "huge floats": lambda ones: relaxed(ones) * 1e300,
    "signs int8": lambda ones: np.where(ones, 1, -1).astype(np.int8),
    "signs int64": lambda ones: np.where(ones, 1, -1),
    "signs big-endian": lambda ones: np.where(ones, 1, -1).astype(">i2"),
    "signs float32": lambda ones: np.where(ones, 1, -1).astype(np.float32),
    "signs int32 of JAX": lambda ones: jnp.asarray(np.where(ones, 1, -1), jnp.int32),
    "every second row": lambda ones: np.repeat(np.where(ones, 1, -1), 2, axis=0)[::2],
    "lists": lambda ones: np.where(ones, 1, -1).tolist(),
}
BINARY = {
    "bool": lambda ones: ones,
    "bool of JAX": jnp.asarray,
    "zeros and ones uint8": lambda ones: ones.astype(np.uint8),
    "zeros and ones int64": lambda ones: ones.astype(np.int64),
    "zeros and ones float32": lambda ones: ones.astype(np.float32),
    "zeros and ones bfloat16 of JAX": lambda ones: jnp.asarray(ones, jnp.bfloat16),
    "zeros and ones big-endian": lambda ones: ones.astype(">u4"),
    "zeros and ones in Fortran order": lambda ones: np.asfortranarray(ones.astype(np.int16)),
}
PACKED = {
    "packed": packed,
    "packed of JAX": lambda ones: jnp.asarray(packed(ones)),
    "packed in Fortran order": lambda ones: np.asfortranarray(packed(ones)),
    "packed, every second row": lambda ones: np.repeat(packed(ones), 2, axis=0)[::2],
}
WAYS = {**SIGNED, **BINARY, **PACKED}


@pytest.mark.parametrize("way", WAYS)
def test_codes_of_every_form_give_the_same_words(way):
    """Words of both sides equal a loop over bits, for lengths around those of bytes and words; 0.0 counts as +1."""
    for bits in (1, 7, 8, 31, 32, 33, 64, 100, 255, 256, 257, 1024):
        ones = random_ones(n=6, bits=bits, seed=bits)
        ones[0], ones[1] = False, True  # of both signs whatever the length
        others = random_ones(n=4, bits=bits, seed=bits + 1)
        others[0], others[1] = True, False
        length = bits if way in PACKED else None
        query, database = arrays.prepare_codes(WAYS[way](ones), WAYS[way](others), bits=length)
        assert (len(query), len(database), query.bits, database.bits) == (6, 4, bits, bits)
        for side, expected in ((query, words_bit_by_bit(ones)), (database, words_bit_by_bit(others))):
            words = side.words(0, len(side))
            assert words.dtype == np.uint32
            np.testing.assert_array_equal(words, expected)
            np.testing.assert_array_equal(side.words(1, 3), expected[:, 1:3])


@pytest.mark.parametrize(
    ("one", "other"),
    [("relaxed float32", "signs int8"), ("signs float32", "relaxed bfloat16 of JAX"), ("bool", "zeros and ones float32")],
)
def test_the_two_sides_may_differ_in_dtype(one, other):
    """Relaxed codes against signs, and booleans against zeros and ones, are the same codes."""
    ones = random_ones(n=5, bits=40, seed=0)
    for query, database in ((one, other), (other, one)):
        for side in arrays.prepare_codes(WAYS[query](ones), WAYS[database](ones), bits=None):
            np.testing.assert_array_equal(side.words(0, 5), words_bit_by_bit(ones))


def test_codes_of_one_sign_go_with_signs_of_the_other_side():
    """Codes that are all +1, or relaxed and positive, are +1 beside codes of both signs, and beside other ones."""
    signs = np.array([[-1, 1, 1], [1, -1, -1]])
    for positive in (np.ones((2, 3), np.int8), np.full((2, 3), 0.25), np.array([[0.0, 0.5, 1.0], [1.0, 1.0, 2.0]])):
        for pair in ((signs, positive), (positive, signs)):
            sides = arrays.prepare_codes(*pair, bits=None)
            found = sides[0 if pair[0] is positive else 1].words(0, 2)
            np.testing.assert_array_equal(found, [[7, 7]])
    for side in arrays.prepare_codes(np.ones((2, 3)), np.ones((2, 3), np.int8), bits=None):
        np.testing.assert_array_equal(side.words(0, 2), [[7, 7]])


@pytest.mark.parametrize("form", ["signs", "zeros and ones"])
def test_wide_codes_are_converted_some_rows_at_a_time(form, monkeypatch):
    """Two rows at a time, the last block of one: the same words."""
    monkeypatch.setattr(arrays, "_NUMBERS", 2_500)
    ones = random_ones(n=7, bits=1024, seed=0)
    given_codes = np.where(ones, 1, -1) if form == "signs" else ones
    query, _ = arrays.prepare_codes(given_codes, given_codes, bits=None)
    assert [len(rows) for rows in arrays._blocks(ones)] == [2, 2, 2, 1]
    np.testing.assert_array_equal(query.words(0, 7), words_bit_by_bit(ones))


@settings(max_examples=25)
@given(st.integers(1, 1024), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_words_hold_every_bit_of_any_length(bits, n, seed):
    """Reading the words bit by bit returns the codes, from signs and from bytes; padding is zero."""
    ones = random_ones(n=n, bits=bits, seed=seed)
    for array, length in ((np.where(ones, 1.0, -1.0) * 0.5, None), (packed(ones), bits)):
        anchor = np.full((1, bits), -1.0) if length is None else packed(np.zeros((1, bits), bool))
        query, _ = arrays.prepare_codes(array, anchor, bits=length)
        words = query.words(0, n)
        back = np.array([[(int(words[k // 32, i]) >> (k % 32)) & 1 for k in range(32 * len(words))] for i in range(n)])
        np.testing.assert_array_equal(back[:, :bits], ones)
        assert not back[:, bits:].any()


LABELS = {
    "uint8": np.uint8,
    "int8": np.int8,
    "int64": np.int64,
    "uint64": np.uint64,
    "bool": bool,
    "float16": np.float16,
    "float32": np.float32,
    "float64": np.float64,
    "big-endian": ">i4",
    "big-endian floats": ">f8",
}


@pytest.mark.parametrize("dtype", LABELS.values(), ids=LABELS.keys())
def test_labels_give_the_same_words_in_every_dtype(dtype):
    """Multi-hot labels become bits, ids stay numbers; NumPy, JAX, and Fortran order alike."""
    ones = random_ones(n=7, bits=70, seed=0)
    ids = np.array([0, 1, 5, 100, 3, 0, 1]) if dtype is not bool else np.array([0, 1, 1, 0, 1, 0, 1])
    for multi_hot in (ones.astype(dtype), np.asfortranarray(ones.astype(dtype))):
        query, database = arrays.prepare_labels(multi_hot, multi_hot[:3], n_query=7, n_database=3)
        np.testing.assert_array_equal(query.words(0, 7), words_bit_by_bit(ones))
        np.testing.assert_array_equal(database.words(1, 3), words_bit_by_bit(ones)[:, 1:3])
        assert query.max_per_row() == ones.sum(axis=1).max()
        assert not query.ids
        np.testing.assert_array_equal(query.padding, np.zeros((3, 1)))
    query, database = arrays.prepare_labels(ids.astype(dtype), ids[:3].astype(dtype), n_query=7, n_database=3)
    np.testing.assert_array_equal(query.words(2, 7), ids[None, 2:])
    assert query.words(0, 7).dtype == query.padding.dtype == np.int32
    assert (query.ids, query.max_per_row(), len(database)) == (True, 1, 3)
    assert query.padding.item() not in ids


@pytest.mark.parametrize("form", [list, tuple, np.array, lambda names: np.array(names, object)])
def test_strings_become_ids_of_both_sides(form):
    """Equal strings become equal ids on both sides; one that only one side has matches no other."""
    query, database = ["cat", "dog", "emu", "cat"], ["fox", "cat", "cats", "dog"]
    sides = arrays.prepare_labels(form(query), form(database), n_query=4, n_database=4)
    ids = [side.words(0, 4)[0] for side in sides]
    assert sides[0].ids
    expected = [[one == other for other in database] for one in query]
    np.testing.assert_array_equal(ids[0][:, None] == ids[1], expected)
    np.testing.assert_array_equal(ids[0][:, None] == ids[0], [[one == other for other in query] for one in query])


def test_labels_of_jax_and_the_largest_id():
    """JAX arrays, bfloat16 too, and ids up to 2**31 - 1."""
    ones = random_ones(n=4, bits=33, seed=0)
    query, _ = arrays.prepare_labels(jnp.asarray(ones, jnp.bfloat16), jnp.asarray(ones), n_query=4, n_database=4)
    np.testing.assert_array_equal(query.words(0, 4), words_bit_by_bit(ones))
    query, _ = arrays.prepare_labels(jnp.asarray([3, 4], jnp.bfloat16), np.array([2**31 - 1]), n_query=2, n_database=1)
    np.testing.assert_array_equal(query.words(0, 2), [[3, 4]])
    for dtype in (np.int64, np.uint32, np.uint64, np.float64):
        _, database = arrays.prepare_labels(np.array([0]), np.array([2**31 - 1], dtype), n_query=1, n_database=1)
        assert database.words(0, 1).item() == 2**31 - 1


def test_the_largest_number_of_labels_is_at_least_1():
    """Even if no query has a label, there is a grade for relevant items."""
    query, _ = arrays.prepare_labels(np.zeros((2, 5)), np.zeros((3, 5)), n_query=2, n_database=3)
    assert query.max_per_row() == 1


SIGNS = np.array([[1, -1, 1, -1, 1, -1, 1, -1], [-1, -1, -1, -1, 1, 1, 1, 1]], np.int8)
WITH_NAN, WITH_INF, WITH_MINUS_INF = (
    np.where(np.arange(16).reshape(2, 8) == 11, bad, SIGNS) for bad in (np.nan, np.inf, -np.inf)
)
BAD_CODES = {
    "another length": ((SIGNS, SIGNS[:, :7], None), "got query codes of 8 bits and database codes of 7"),
    "one code without its axis": ((SIGNS[0], SIGNS, None), r"expected query codes as a matrix \[n, K\], .*got shape \(8,\)"),
    "three axes": ((SIGNS, SIGNS[None], None), "expected database codes as a matrix"),
    "a number": ((SIGNS, np.array(1), None), "expected database codes as a matrix"),
    "no query": ((SIGNS[:0], SIGNS, None), "expected query codes as a matrix"),
    "no item": ((SIGNS, SIGNS[:0], None), "expected database codes as a matrix"),
    "no bit": ((SIGNS[:, :0], SIGNS[:, :0], None), "expected query codes as a matrix"),
    "no packed item": ((np.zeros((1, 1), np.uint8), np.zeros((0, 1), np.uint8), 8), "expected database codes as a matrix"),
    "NaN": ((WITH_NAN, SIGNS, None), "query codes hold NaN or infinity"),
    "NaN in the database": ((SIGNS, WITH_NAN.astype(np.float32), None), "database codes hold NaN or infinity"),
    "NaN in bfloat16": ((jnp.asarray(WITH_NAN, jnp.bfloat16), SIGNS, None), "query codes hold NaN or infinity"),
    "NaN in zeros and ones": ((np.array([[0, 1, np.nan]]), np.array([[0, 1, 1]]), None), "query codes hold NaN or infinity"),
    "infinity": ((SIGNS, WITH_INF, None), "database codes hold NaN or infinity"),
    "minus infinity": ((SIGNS, WITH_MINUS_INF, None), "database codes hold NaN or infinity"),
    "whole numbers -1, 0 and 1": ((SIGNS * (np.arange(8) > 0), SIGNS, None), "query codes are int8 with values from -1 to 1"),
    "whole numbers -1 and 0": ((SIGNS, np.minimum(SIGNS, 0), None), "database codes are int8 with values from -1 to 0"),
    "whole numbers up to 3": ((3 * SIGNS, SIGNS, None), "query codes are int8 with values from -3 to 3"),
    "bytes that are packed": (
        (np.array([[7, 200]], np.uint8), np.array([[1, 2]], np.uint8), None),
        "need their number of bits",
    ),
    "floats of no sign": ((np.array([[0.5, 0.2]]), np.array([[0.1, 0.9]]), None), "query codes hold no negative number"),
    "floats of no sign on one side": (
        (np.array([[0.0, 1.0]]), np.array([[0.1, 0.9]]), None),
        "database codes hold no negative",
    ),
    "zeros and ones against signs": ((SIGNS > 0, SIGNS, None), r"query codes are in \{0, 1\}"),
    "signs against zeros and ones": ((SIGNS, (SIGNS > 0).astype(np.float32), None), r"database codes are in \{0, 1\}"),
    "relaxed against zeros and ones": ((0.3 * SIGNS, (SIGNS > 0).astype(int), None), r"database codes are in \{0, 1\}"),
    "1,025 bits": ((np.full((1, 1025), -1), np.full((1, 1025), -1), None), "at most 1,024 bits, got 1,025"),
    "0 packed bits": ((np.zeros((1, 1), np.uint8),) * 2 + (0,), "bits=0"),
    "fewer than 0 packed bits": ((np.zeros((1, 1), np.uint8),) * 2 + (-8,), "bits=-8"),
    "1,025 packed bits": ((np.zeros((1, 129), np.uint8), np.zeros((1, 129), np.uint8), 1025), "bits=1025"),
    "packed too narrow": (
        (np.zeros((1, 2), np.uint8),) * 2 + (17,),
        r"query codes packed, uint8\[n, 3\] for 17 bits, got uint8\[1, 2\]",
    ),
    "packed too wide": (
        (np.zeros((1, 2), np.uint8), np.zeros((1, 3), np.uint8), 16),
        r"database codes packed, .*got uint8\[1, 3\]",
    ),
    "packed as int8": ((np.zeros((1, 2), np.int8), np.zeros((1, 2), np.uint8), 16), r"query codes packed, .*got int8\[1, 2\]"),
    "packed as bool": ((np.zeros((1, 2), bool),) * 2 + (16,), r"query codes packed, .*got bool\[1, 2\]"),
    "signs with their number of bits": ((SIGNS, SIGNS, 8), "leave bits out if they are not packed"),
    "padding set": (
        (np.array([[0], [32]], np.uint8), np.array([[31]], np.uint8), 5),
        "query codes have bits set beyond bit 5",
    ),
    "padding set in the last byte": (
        (np.array([[255, 1]], np.uint8), np.array([[255, 128]], np.uint8), 15),
        "database codes have bits set beyond bit 15",
    ),
    "lists of several lengths": (([[1, -1], [1]], SIGNS, None), "query codes have rows of different lengths"),
    "objects": ((SIGNS.astype(object), SIGNS, None), "expected query codes as numbers, got dtype object"),
    "text": ((SIGNS, SIGNS.astype(str), None), "expected database codes as numbers, got dtype <U"),
    "bytes of text": ((SIGNS, SIGNS.astype("S2"), None), "expected database codes as numbers, got dtype |S2"),
    "complex numbers": ((SIGNS.astype(complex), SIGNS, None), "expected query codes as numbers, got dtype complex128"),
    "dates": ((SIGNS.astype("datetime64[s]"), SIGNS, None), "expected query codes as numbers, got dtype datetime64"),
    "records": ((np.zeros((2, 8), [("a", "f4")]), SIGNS, None), "expected query codes as numbers, got dtype"),
}


@pytest.mark.parametrize(("given_codes", "message"), BAD_CODES.values(), ids=BAD_CODES.keys())
def test_bad_codes_are_refused(given_codes, message):
    """One line names the side that is wrong and what was expected."""
    query, database, bits = given_codes
    with pytest.raises(InputError, match=message) as raised:
        arrays.prepare_codes(query, database, bits=bits)
    assert "\n" not in str(raised.value)


IDS, MULTI_HOT = np.array([3, 0, 1]), np.eye(3, dtype=np.uint8)
BAD_LABELS = {
    "a row missing": ((IDS, IDS[:2]), "database labels have 2 rows for 3 codes"),
    "a row too many": ((np.ones((4, 3)), MULTI_HOT), "query labels have 4 rows for 3 codes"),
    "none": ((IDS[:0], IDS), "query labels have 0 rows for 3 codes"),
    "no column": ((MULTI_HOT[:, :0], MULTI_HOT[:, :0]), "expected query labels as class ids"),
    "a number": ((np.array(3), IDS), "expected query labels as class ids"),
    "three axes": ((MULTI_HOT, MULTI_HOT[:, :, None]), "expected database labels as class ids"),
    "ids against multi-hot": ((IDS, MULTI_HOT), "both must be class ids"),
    "multi-hot against ids": ((MULTI_HOT, IDS), "both must be class ids"),
    "other columns": ((MULTI_HOT, MULTI_HOT[:, :2]), "both must be class ids"),
    "ids as a column against multi-hot": ((IDS[:, None], MULTI_HOT), "both must be class ids"),
    "columns of 0 and 1": ((IDS[:, None] % 2, IDS[:, None] % 2), r"query labels have shape \[n, 1\] and values 0 and 1, which"),
    "a column of 0 and 1 against bool": ((IDS[:, None] > 0, 1.0 * (IDS[:, None] > 0)), r"database labels have shape \[n, 1\]"),
    "bool columns against ids": ((IDS[:, None] > 0, IDS), "both must be class ids"),
    "a column of -1 and 1": ((2 * (IDS[:, None] % 2) - 1, IDS[:, None] % 2), "hold values other than 0 and 1"),
    "a column with a negative id": ((IDS[:, None] - 1, IDS[:, None]), r"query labels \[n\] hold values that are not class ids"),
    "a negative id": ((IDS, np.array([0, -1, 2])), r"database labels \[n\] hold values that are not class ids"),
    "a negative small id": ((np.array([0, -1, 2], np.int8), IDS), r"query labels \[n\] hold values that are not class ids"),
    "a fractional id": ((np.array([0, 1.5, 2]), IDS), r"query labels \[n\] hold"),
    "a fractional id in bfloat16": ((jnp.asarray([0, 1.5, 2], jnp.bfloat16), IDS), r"query labels \[n\] hold"),
    "NaN for an id": ((IDS, np.array([0, np.nan, 2])), r"database labels \[n\] hold"),
    "infinity for an id": ((IDS, np.array([0, np.inf, 2])), r"database labels \[n\] hold"),
    "infinity for a float16 id": ((IDS, np.array([0, np.inf, 2], np.float16)), r"database labels \[n\] hold"),
    "an id of 2**31": ((IDS, np.array([0, 1, 2**31])), r"whole numbers from 0 to 2147483647"),
    "an id of 2**31 in uint32": ((IDS, np.array([0, 1, 2**31], np.uint32)), r"whole numbers from 0 to 2147483647"),
    "an id of 2**64 - 1": ((IDS, np.array([0, 1, 2**64 - 1], np.uint64)), r"whole numbers from 0 to 2147483647"),
    "an id of 2**31 as a float": ((np.array([0, 1, 2.0**31]), IDS), r"whole numbers from 0 to 2147483647"),
    "multi-hot with 2": ((MULTI_HOT, 2 * MULTI_HOT), r"database labels \[n, c\] hold values other than 0 and 1"),
    "multi-hot with -1": ((-MULTI_HOT.astype(np.int8), MULTI_HOT), r"query labels \[n, c\] hold values other"),
    "multi-hot with a half": ((0.5 * MULTI_HOT, MULTI_HOT), r"query labels \[n, c\] hold values other"),
    "multi-hot with NaN": ((np.where(MULTI_HOT, np.nan, 0), MULTI_HOT), r"query labels \[n, c\] hold values other"),
    "objects": ((IDS.astype(object), IDS), "expected query labels as numbers, got dtype object"),
    "text against ids": ((IDS, np.array(["cat", "dog", "cat"])), "database labels are strings and query labels are not"),
    "a list of text against ids": ((["cat", "dog", "cat"], IDS), "query labels are strings and database labels are not"),
    "text against multi-hot": ((MULTI_HOT, ["cat", "dog", "cat"]), "database labels are strings and query labels are not"),
    "a list of text and a number": ((["cat", 3, "cat"], ["cat"] * 3), "query labels mix strings with other values"),
    "text and nothing": ((["cat"] * 3, np.array(["cat", None, "cat"], object)), "database labels mix strings with other"),
    "a row of text missing": ((["cat"] * 3, ["cat"] * 2), "database labels have 2 rows for 3 codes"),
    "several texts a row": (([["cat", "dog"]] * 3, [["cat", "dog"]] * 3), "expected query labels as numbers, got dtype <U3"),
    "lists of several lengths": (([["cat", "dog"], ["cat"], []], IDS), "query labels have rows of different lengths"),
    "bytes of text": ((IDS, np.array([b"a", b"b", b"a"])), "expected database labels as numbers, got dtype |S1"),
    "complex numbers": ((MULTI_HOT.astype(complex), MULTI_HOT), "expected query labels as numbers, got dtype complex128"),
}


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_ids_as_columns(dtype):
    """[n, 1] is ids if a value of either side is above 1, or the other side is ids; of bool it is one class."""
    column, below = IDS[:, None].astype(dtype), (IDS[:, None] % 2).astype(dtype)
    for given_labels in ((column, column), (column, below), (below, column), (IDS, column), (below, IDS % 2)):
        sides = arrays.prepare_labels(*given_labels, n_query=3, n_database=3)
        for side, given_side in zip(sides, given_labels, strict=True):
            assert side.ids
            np.testing.assert_array_equal(side.words(0, 3), [given_side.reshape(-1)])
    for side in arrays.prepare_labels(below != 0, below != 0, n_query=3, n_database=3):
        assert not side.ids
        np.testing.assert_array_equal(side.words(0, 3), [[1, 0, 1]])


@pytest.mark.parametrize(("given_labels", "message"), BAD_LABELS.values(), ids=BAD_LABELS.keys())
def test_bad_labels_are_refused(given_labels, message):
    """One line names the side that is wrong and what was expected."""
    with pytest.raises(InputError, match=message) as raised:
        arrays.prepare_labels(*given_labels, n_query=3, n_database=3)
    assert "\n" not in str(raised.value)


ORIENTATIONS = {  # shapes of codes and labels, and what must be transposed
    "as they should be": ((30, 8), (30,), None),
    "as many codes as bits": ((8, 8), (8, 3), None),
    "another number": ((30, 8), (29,), None),
    "codes": ((8, 30), (30,), "the codes"),
    "codes of multi-hot labels": ((8, 30), (30, 3), "the codes"),
    "labels": ((30, 8), (3, 30), "the labels"),
    "labels in a row": ((30, 8), (1, 30), "the labels"),
    "codes and labels": ((8, 30), (3, 30), "both"),
    "one of them": ((8, 30), (30, 8), "the codes or the labels"),
    "neither matrix nor ids": ((30,), (4, 4, 4), None),
}


@pytest.mark.parametrize(("of_codes", "of_labels", "transposed"), ORIENTATIONS.values(), ids=ORIENTATIONS.keys())
def test_what_is_transposed_is_said(of_codes, of_labels, transposed):
    """On either side, with one line; what doesn't fit either way is left to the other checks."""
    good = {"query_codes": np.ones((30, 8)), "database_codes": np.ones((5, 8))}
    good |= {"query_labels": np.ones(30, int), "database_labels": [1, 2, 3, 4, 5]}
    for side in ("query", "database"):
        given_arrays = {**good, f"{side}_codes": np.ones(of_codes), f"{side}_labels": np.ones(of_labels)}
        if transposed is None:
            arrays.check_orientation(**given_arrays)
            continue
        with pytest.raises(InputError, match=f": {transposed} must be transposed") as raised:
            arrays.check_orientation(**given_arrays)
        assert f"{side} codes have shape {list(of_codes)}" in str(raised.value)
        assert str(raised.value).endswith("; nothing is transposed automatically")
        assert "\n" not in str(raised.value)


def last_set_to(array, value):
    array = np.array(array)
    array.reshape(-1)[-1] = value
    return array


MANY = np.where(random_ones(n=arrays.ROWS + 2, bits=8, seed=5), 1, -1)  # two blocks, the second of two rows
BAD_AT_THE_END = {
    "NaN": (last_set_to(MANY * 0.5, np.nan), MANY, None, "query codes hold NaN"),
    "2": (MANY, last_set_to(MANY, 2), None, "database codes are int64 with values from -1 to 2"),
    "0 in signs": (MANY, last_set_to(MANY, 0), None, "database codes are int64 with values from -1 to 1"),
    "a half in zeros and ones": (last_set_to((MANY > 0) * 1.0, 0.5), MANY > 0, None, "query codes hold no negative number"),
    "a sign only at the end": (last_set_to(np.ones((len(MANY), 8)), -1), MANY > 0, None, r"database codes are in \{0, 1\}"),
    "a zero only at the end": (last_set_to(np.ones((len(MANY), 8)), 0), MANY, None, r"query codes are in \{0, 1\}"),
    "padding": (last_set_to(np.zeros((len(MANY), 1), np.uint8), 64), np.zeros((len(MANY), 1), np.uint8), 6, "beyond bit 6"),
}


@pytest.mark.parametrize(("query", "database", "bits", "message"), BAD_AT_THE_END.values(), ids=BAD_AT_THE_END.keys())
def test_a_bad_code_in_the_last_block_is_found(query, database, bits, message):
    """The bad value is in the second block of rows; without it the codes are accepted."""
    arrays.prepare_codes(query[:-2], query[:-2], bits=bits)
    arrays.prepare_codes(database[:-2], database[:-2], bits=bits)
    with pytest.raises(InputError, match=message):
        arrays.prepare_codes(query, database, bits=bits)


@pytest.mark.parametrize(
    ("labels", "bad"),
    [
        (np.arange(len(MANY)), -1),
        (np.arange(len(MANY)), 2**31),
        (np.arange(float(len(MANY))), 0.5),
        (np.arange(float(len(MANY))), np.nan),
        (np.ones((len(MANY), 3)), 2),
    ],
)
def test_a_bad_label_in_the_last_block_is_found(labels, bad):
    """The bad value is in the second block of rows, of the database as of the queries."""
    arrays.prepare_labels(labels, labels, n_query=len(MANY), n_database=len(MANY))
    for pair in ((last_set_to(labels, bad), labels), (labels, last_set_to(labels, bad))):
        with pytest.raises(InputError, match="hold values"):
            arrays.prepare_labels(*pair, n_query=len(MANY), n_database=len(MANY))


def test_the_largest_number_of_labels_may_be_in_the_last_block():
    """One label in each row of the first block, five in the last row of the second."""
    labels = np.zeros((len(MANY), 6))
    labels[:, 0], labels[-1] = 1, [1, 1, 1, 1, 1, 0]
    query, _ = arrays.prepare_labels(labels, labels[:1], n_query=len(MANY), n_database=1)
    assert query.max_per_row() == 5
