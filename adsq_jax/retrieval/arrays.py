"""Hash codes and labels in any common form: checked once, then read as 32-bit words, some rows at a time."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from adsq_jax import codes, label_columns
from adsq_jax.codes import MAX_MEASURED_BITS
from adsq_jax.errors import InputError

ROWS = 1 << 18  # rows checked or converted at a time, to limit memory
_NUMBERS = 1 << 26  # in these rows: fewer where they are wide
_MULTI_HOT_ROWS = 1 << 14  # rows of labels that are floats at a time
_NO_LABEL = -1  # an id that no query has


class Codes:
    """Checked hash codes of the queries or of the database."""

    def __init__(self, array: np.ndarray, *, bits: int, form: str):
        """Wrap codes that `prepare_codes` has checked.

        Args:
          array: [n, bits], or uint8[n, ceil(bits / 8)] if packed.
          bits: the code length.
          form: "packed"; "signed", where the sign counts; or "binary", zeros and ones.
        """
        self.bits, self._array, self._form = bits, array, form

    def __len__(self) -> int:
        return len(self._array)

    def words(self, start: int, stop: int) -> np.ndarray:
        """Return codes start to stop as uint32[ceil(bits / 32), stop - start], zero-padded."""
        rows = np.asarray(self._array[start:stop])
        if self._form == "packed":
            return _to_words(rows)
        packed, at = np.empty((len(rows), -(-self.bits // 8)), np.uint8), 0
        for some in _blocks(rows):
            ones = codes.sign_bits(some) if self._form == "signed" else some != 0
            packed[at : at + len(some)] = np.packbits(ones, axis=1, bitorder="little")
            at += len(some)
        return _to_words(packed)

    def equals(self, other: "Codes") -> bool:
        """Return whether both hold the same numbers, signs and magnitudes."""
        return self._form == other._form and _are_equal(self._array, other._array)


class Labels:
    """Checked labels of the queries or of the database."""

    def __init__(self, array: np.ndarray, *, names: Sequence[str] | None = None):
        """Wrap labels that `prepare_labels` has checked: class ids [n] or multi-hot [n, c]; `names` of the ids, or None."""
        self._array, self.ids, self._names = array, array.ndim == 1, names

    def __len__(self) -> int:
        return len(self._array)

    @property
    def padding(self) -> np.ndarray:
        """The words of an item that shares no label with any query, [words, 1]."""
        return np.full((1, 1), _NO_LABEL, np.int32) if self.ids else np.zeros_like(self.words(0, 1))

    def words(self, start: int, stop: int) -> np.ndarray:
        """Return ids as int32[1, stop - start], or multi-hot labels as bits of uint32[ceil(c / 32), stop - start]."""
        rows = np.asarray(self._array[start:stop])
        return rows.astype(np.int32)[None] if self.ids else _to_words(np.packbits(rows != 0, axis=1, bitorder="little"))

    def equals(self, other: "Labels") -> bool:
        """Return whether both hold the same labels in the same order."""
        return _are_equal(self._array, other._array)

    def max_per_row(self) -> int:
        """Return the largest number of labels in a row, at least 1."""
        return max(1, *(int(self.per_row(start, start + ROWS).max()) for start in range(0, len(self), ROWS)))

    def per_row(self, start: int, stop: int) -> np.ndarray:
        """Return the number of labels of rows start to stop, int64[stop - start]."""
        rows = np.asarray(self._array[start:stop])
        return np.ones(len(rows), np.int64) if self.ids else (rows != 0).sum(axis=1)

    def means_by_class(self, values: np.ndarray) -> dict[str, float]:
        """Return the mean of the values of the rows that have each class.

        Args:
          values: float64[n], one for each row.

        Returns:
          The means by the class's name, id or column, as text, in the order of ids or columns; one without a row is missing.
        """
        counts = self.count_by_class()
        sums = self._sum_by_class(values)
        return {name: total / counts[name] for name, total in sums.items() if name in counts}

    def count_by_class(self) -> dict[str, int]:
        """Return the number of rows that have each class, as `means_by_class` names and orders them."""
        return {name: round(count) for name, count in self._sum_by_class(np.ones(len(self))).items() if count}

    def _sum_by_class(self, values: np.ndarray) -> dict[str, float]:
        if self.ids:
            classes, inverse = np.unique(np.asarray(self._array), return_inverse=True)
            sums: np.ndarray = np.bincount(inverse, weights=values)
        else:
            classes = np.arange(self._array.shape[1])
            sums = np.zeros(len(classes))
            for start in range(0, len(self), _MULTI_HOT_ROWS):
                rows = np.asarray(self._array[start : start + _MULTI_HOT_ROWS]) != 0
                sums += values[start : start + _MULTI_HOT_ROWS] @ rows.astype(np.float64)
        names = [str(int(k)) if self._names is None else self._names[int(k)] for k in classes]
        return dict(zip(names, sums.tolist(), strict=True))


def prepare_codes(query_codes: ArrayLike, database_codes: ArrayLike, *, bits: int | None) -> tuple[Codes, Codes]:
    """Check the codes of queries and database, and detect their form.

    Args:
      query_codes: float (relaxed codes: the sign counts, 0 is +1), {-1, +1} or {0, 1} of any dtype, [n_query, K]; or packed,
        uint8[n_query, ceil(K / 8)], little bit order, 1 = +1, zero-padded. NumPy (mapped files too), JAX or lists.
      database_codes: the same form, [n_database, ...].
      bits: K of packed codes, 1 to 1,024; None if the codes are not packed.

    Raises:
      InputError: the codes have none of these forms, differ in form, or don't fit `bits`.
    """
    given = {"query codes": query_codes, "database codes": database_codes}
    sides = {name: _to_matrix(values, name) for name, values in given.items()}
    query, database = sides.values()
    if bits is None:
        bits = query.shape[1]
        if bits != database.shape[1]:
            raise InputError(
                f"expected codes [n, K] of one K, got query codes of {bits} bits and database codes of {database.shape[1]}"
            )
        if bits > MAX_MEASURED_BITS:
            raise InputError(f"expected codes of at most {MAX_MEASURED_BITS:,} bits, got {bits:,}")
        form = _detect_form(sides)
    else:
        if not isinstance(bits, int | np.integer) or not 1 <= bits <= MAX_MEASURED_BITS:
            raise InputError(f"bits={bits}: expected the length of packed codes, a whole number from 1 to {MAX_MEASURED_BITS}")
        for name, array in sides.items():
            _check_packed(array, name, bits=bits)
        form = "packed"
    return Codes(query, bits=bits, form=form), Codes(database, bits=bits, form=form)


def prepare_labels(
    query_labels: ArrayLike, database_labels: ArrayLike, *, n_query: int, n_database: int
) -> tuple[Labels, Labels]:
    """Check the labels of queries and database; strings become ids.

    Args:
      query_labels: class ids [n_query], whole numbers from 0 to 2**31 - 1; strings [n_query]; or multi-hot [n_query, c] in
        {0, 1}. A column [n_query, 1] of numbers is ids if a value of the two sides is above 1 or the other side is ids, and
        refused otherwise; of bool it is multi-hot.
      database_labels: the same form, [n_database] or [n_database, c].
      n_query: the number of query codes.
      n_database: the number of database codes.

    Raises:
      InputError: the labels have none of these forms, differ in form, or are not as many as the codes.
    """
    sides, names = _strings_to_ids({"query labels": query_labels, "database labels": database_labels})
    for (name, array), n_codes in zip(sides.items(), (n_query, n_database), strict=True):
        _check_numeric(array, name)
        if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] == 0):
            raise InputError(f"expected {name} as class ids [n] or multi-hot [n, c], got shape {array.shape}")
        if len(array) != n_codes:
            raise InputError(
                f"{name} have {len(array)} rows for {n_codes} codes; fix: give one row per code, in the order of the codes"
            )
    sides = label_columns.to_ids(sides)
    query, database = sides.values()
    if query.shape[1:] != database.shape[1:]:
        raise InputError(
            f"query labels have shape {query.shape} and database labels {database.shape}: both must be class ids [n], or both "
            "multi-hot [n, c] with one c"
        )
    for name, array in sides.items():
        _check_labels(array, name)
        label_columns.check(array, name=name)
    return Labels(query, names=names), Labels(database, names=names)


def check_same(query: Codes, database: Codes, labels: tuple[Labels, Labels]) -> None:
    """Check that queries and database are the same items in the same order.

    Args:
      query: the codes of the queries.
      database: the codes of the database.
      labels: the labels of queries and database.

    Raises:
      InputError: a code or a label differs, or there is a single item.
    """
    for what, same in {"codes": query.equals(database), "labels": labels[0].equals(labels[1])}.items():
        if not same:
            raise InputError(
                f"the query {what} aren't the database {what}: to leave each query out of its own ranking, expected the same "
                "array twice; fix: give the same file or array for both, or rank all items"
            )
    if len(query) < 2:
        raise InputError("without itself a query has nothing to rank: expected at least 2 codes, got 1")


def check_orientation(
    query_codes: ArrayLike, database_codes: ArrayLike, *, query_labels: ArrayLike, database_labels: ArrayLike
) -> None:
    """Refuse codes or labels with one column per item, as MATLAB users have them; the other checks find what else is wrong.

    Args:
      query_codes: as `prepare_codes` takes them.
      database_codes: the same form.
      query_labels: as `prepare_labels` takes them.
      database_labels: the same form.

    Raises:
      InputError: codes and labels aren't equally many, but are if one or both are transposed.
    """
    for side, codes_given, labels_given in (
        ("query", query_codes, query_labels),
        ("database", database_codes, database_labels),
    ):
        of_codes, of_labels = _shape(codes_given), _shape(labels_given)
        if len(of_codes) != 2 or len(of_labels) not in (1, 2) or of_codes[0] == of_labels[0]:
            continue
        fits = {  # once it is transposed
            "the codes": of_codes[1] == of_labels[0],
            "the labels": of_labels[1:] == of_codes[:1],
            "both": of_labels[1:] == of_codes[1:],
        }
        if any(fits.values()):
            raise InputError(
                f"{side} codes have shape {list(of_codes)} and {side} labels {list(of_labels)}: "
                f"{' or '.join(name for name, fit in fits.items() if fit)} must be transposed; fix: give codes as [n, K] "
                "(codes.T, in MATLAB codes') and labels as [n] or [n, c]; nothing is transposed automatically"
            )


def _shape(values: Any) -> tuple[int, ...]:
    try:
        return tuple(np.shape(values))
    except ValueError:  # rows of different lengths
        return ()


def _to_array(values: ArrayLike, name: str) -> np.ndarray:
    try:
        return np.asanyarray(values)
    except ValueError as error:
        raise InputError(f"{name} have rows of different lengths: expected an array, or lists of one length") from error


def _to_matrix(values: ArrayLike, name: str) -> np.ndarray:
    array = _to_array(values, name)
    _check_numeric(array, name)
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"expected {name} as a matrix [n, K], at least one row and one column, got shape {array.shape}")
    return array


def _strings_to_ids(sides: dict[str, Any]) -> tuple[dict[str, np.ndarray], list[str] | None]:
    """Return labels as arrays, and the names of ids; strings become ids, the same on both sides, other labels have no names."""
    arrays = {name: _to_array(values, name) for name, values in sides.items()}
    strings: dict[str, list[str]] = {}
    for name, array in arrays.items():
        if array.ndim != 1 or array.dtype.kind not in "OTU":
            continue
        # NumPy turns a list of strings and numbers into strings: look at the list itself.
        values = list(sides[name]) if isinstance(sides[name], list | tuple) else array.tolist()
        is_string = [isinstance(value, str) for value in values]
        if any(is_string) and not all(is_string):
            raise InputError(f"{name} mix strings with other values: expected one string per row, or numbers")
        if any(is_string):
            strings[name] = values
    for name in arrays:
        if strings and name not in strings:
            raise InputError(
                f"{next(iter(strings))} are strings and {name} are not; fix: give both as strings, or both as numbers"
            )
    ids: dict[str, int] = {}
    numbers = {name: np.array([ids.setdefault(text, len(ids)) for text in texts]) for name, texts in strings.items()}
    return arrays | numbers, list(ids) if strings else None


def _check_numeric(array: np.ndarray, name: str) -> None:
    if array.dtype.kind not in "bui" and not _is_float(array):
        raise InputError(f"expected {name} as numbers, got dtype {array.dtype}")


def _is_float(array: np.ndarray) -> bool:
    return bool(jnp.issubdtype(array.dtype, jnp.floating))  # JAX's bfloat16 too, which NumPy's own test misses


def _are_equal(one: np.ndarray, other: np.ndarray) -> bool:
    if one is other:
        return True
    return one.shape == other.shape and all((a == b).all() for a, b in zip(_blocks(one), _blocks(other), strict=True))


def _blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    rows = min(ROWS, max(1, _NUMBERS // max(1, math.prod(array.shape[1:]))))
    return (np.asarray(array[start : start + rows]) for start in range(0, len(array), rows))


def _check_packed(array: np.ndarray, name: str, *, bits: int) -> None:
    width = -(-bits // 8)
    if array.dtype != np.uint8 or array.shape[1] != width:
        raise InputError(
            f"expected {name} packed, uint8[n, {width}] for {bits} bits, got {array.dtype}{list(array.shape)}; fix: leave bits "
            "out if they are not packed"
        )
    if bits % 8 and any((rows[:, -1] >> (bits % 8)).any() for rows in _blocks(array)):
        raise InputError(
            f"{name} have bits set beyond bit {bits}; fix: give their true number of bits, and pack them in little bit order "
            "with zero padding (np.packbits(codes > 0, axis=1, bitorder='little'))"
        )


class _Values(NamedTuple):
    """The values of unpacked codes that determine their form."""

    has_negative: bool
    has_zero: bool
    is_binary: bool  # all are 0 or 1


def _detect_form(sides: dict[str, np.ndarray]) -> str:
    """Return "signed" or "binary", the form that unpacked codes of both sides have."""
    values = {name: _scan_values(array, name) for name, array in sides.items()}
    if any(side.has_negative for side in values.values()):
        for name, side in values.items():  # codes that are all +1 may stand beside signs, but zeros and ones are ambiguous
            if side.is_binary and side.has_zero:
                raise InputError(f"{name} are in {{0, 1}} and those of the other side are not; fix: give both in one form")
        return "signed"
    for name, side in values.items():
        if not side.is_binary:
            raise InputError(
                f"{name} hold no negative number, and others than 0 and 1: expected codes of both signs, {{-1, +1}}, "
                "{0, 1}, or packed codes with their number of bits"
            )
    return "binary"


def _scan_values(array: np.ndarray, name: str) -> _Values:
    low, high, has_zero, is_binary = 0, 0, False, True
    for rows in _blocks(array):
        if not np.isfinite(rows).all():
            raise InputError(f"{name} hold NaN or infinity; fix: look for it where the codes come from")
        zero = rows == 0
        has_zero = has_zero or bool(zero.any())
        is_binary = is_binary and bool((zero | (rows == 1)).all())
        low, high = min(low, rows.min()), max(high, rows.max())
    if not _is_float(array) and not is_binary and (low < -1 or high > 1 or has_zero):
        raise InputError(
            f"{name} are {array.dtype} with values from {low} to {high}: expected two values, {{-1, +1}} or {{0, 1}} (packed "
            "codes need their number of bits)"
        )
    return _Values(has_negative=bool(low < 0), has_zero=has_zero, is_binary=is_binary)


def _check_labels(array: np.ndarray, name: str) -> None:
    for rows in _blocks(array):
        if array.ndim == 2:
            if not ((rows == 0) | (rows == 1)).all():
                raise InputError(f"{name} [n, c] hold values other than 0 and 1: expected multi-hot labels, or class ids [n]")
            continue
        if _is_float(array):
            rows = rows.astype(np.float64)  # float16 doesn't reach 2^31
        # NaN fails each comparison
        if not ((rows >= 0) & (rows < 2**31)).all() or (_is_float(array) and (rows != np.floor(rows)).any()):
            raise InputError(f"{name} [n] hold values that are not class ids: expected whole numbers from 0 to {2**31 - 1}")


def _to_words(packed: np.ndarray) -> np.ndarray:
    """Turn uint8[n, bytes] into uint32[ceil(bytes / 4), n], zero-padded; words of equal position are contiguous, for SIMD."""
    n_words = -(-packed.shape[1] // 4)
    if packed.shape[1] != 4 * n_words:
        padded = np.zeros((len(packed), 4 * n_words), np.uint8)
        padded[:, : packed.shape[1]] = packed
        packed = padded
    return np.ascontiguousarray(np.ascontiguousarray(packed).view(np.uint32).T)
