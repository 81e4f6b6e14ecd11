"""Hash codes and labels as people have them: checked once, then read block by block as words, whatever their size."""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from adsq_jax.errors import InputError

MAX_BITS = 256
_ROWS = 1 << 18  # rows looked at a time: bounds what a check or a conversion takes of memory
_NO_LABEL = -1  # an id that no query has


class Codes:
    """Hash codes of one side of a retrieval: `codes.words(start, stop)` are some of them, packed."""

    def __init__(self, array: np.ndarray, *, bits: int, form: str):
        """Wraps codes that `pair_of_codes` has checked.

        Args:
          array: [n, bits], or uint8[n, ceil(bits / 8)] where packed.
          bits: the code length.
          form: "packed", "zeros and ones" or "signs".
        """
        self.bits, self._array, self._form = bits, array, form

    def __len__(self) -> int:
        return len(self._array)

    def words(self, start: int, stop: int) -> np.ndarray:
        """Codes start to stop, a bit each, as uint32[ceil(bits / 32), stop - start]; padding is zero."""
        rows = np.asarray(self._array[start:stop])
        if self._form == "signs":
            rows = np.packbits(rows >= 0, axis=1, bitorder="little")  # sgn(0) = +1
        elif self._form == "zeros and ones":
            rows = np.packbits(rows != 0, axis=1, bitorder="little")
        return _words(rows)


class Labels:
    """Labels of one side of a retrieval: `labels.words(start, stop)` are those of some rows."""

    def __init__(self, array: np.ndarray):
        """Wraps labels that `pair_of_labels` has checked.

        Args:
          array: class ids [n] or multi-hot [n, c].
        """
        self._array, self.ids = array, array.ndim == 1

    def __len__(self) -> int:
        return len(self._array)

    @property
    def absent(self) -> np.ndarray:
        """What a row without a label has for words, [words, 1]."""
        return np.full((1, 1), _NO_LABEL, np.int32) if self.ids else np.zeros_like(self.words(0, 1))

    def words(self, start: int, stop: int) -> np.ndarray:
        """Ids as int32[1, stop - start]; multi-hot labels, a bit a label, as uint32[ceil(c / 32), stop - start]."""
        rows = np.asarray(self._array[start:stop])
        return rows.astype(np.int32)[None] if self.ids else _words(np.packbits(rows != 0, axis=1, bitorder="little"))

    def most(self) -> int:
        """The largest number of labels that a row has, at least 1."""
        if self.ids:
            return 1
        return max(1, *(int((rows != 0).sum(axis=1).max()) for rows in _blocks(self._array)))


def pair_of_codes(query_codes: np.ndarray, database_codes: np.ndarray, *, bits: int | None) -> tuple[Codes, Codes]:
    """Checks codes of queries and database, and finds out how they are written.

    Args:
      query_codes: float (relaxed codes: the sign counts, 0 is +1), {-1, +1} or {0, 1} of any dtype, [n_query, K]; or packed,
        uint8[n_query, ceil(K / 8)], little bit order, 1 = +1, padding zero. NumPy (mapped files too) or JAX.
      database_codes: the same way, [n_database, ...].
      bits: K, the code length, 1 to 256; needed for packed codes, and for them alone. None: the codes are not packed.

    Returns:
      The codes of queries and database.

    Raises:
      InputError: what they hold is none of these, differs between the two, or doesn't fit `bits`.
    """
    sides = {"query codes": _matrix(query_codes, "query codes"), "database codes": _matrix(database_codes, "database codes")}
    query, database = sides.values()
    if bits is None:
        if query.shape[1] != database.shape[1]:
            raise InputError(
                f"query codes have {query.shape[1]} bits and database codes {database.shape[1]}: both must be [n, K] with one K"
            )
        if query.shape[1] > MAX_BITS:
            raise InputError(f"codes of {query.shape[1]} bits: at most {MAX_BITS} are supported")
        form = _form(sides)
        return Codes(query, bits=query.shape[1], form=form), Codes(database, bits=query.shape[1], form=form)
    if not isinstance(bits, int | np.integer) or not 1 <= bits <= MAX_BITS:
        raise InputError(f"bits={bits}: the length of packed codes must be a whole number from 1 to {MAX_BITS}")
    for name, array in sides.items():
        _check_packed(array, name, bits=bits)
    return Codes(query, bits=bits, form="packed"), Codes(database, bits=bits, form="packed")


def pair_of_labels(
    query_labels: np.ndarray, database_labels: np.ndarray, *, n_query: int, n_database: int
) -> tuple[Labels, Labels]:
    """Checks labels of queries and database.

    Args:
      query_labels: class ids [n_query], whole numbers from 0 to 2**31 - 1; strings [n_query], one a row; or multi-hot
        [n_query, c] in {0, 1}.
      database_labels: the same way, [n_database] or [n_database, c].
      n_query: how many queries there are.
      n_database: how many items there are.

    Returns:
      The labels of queries and database.

    Raises:
      InputError: they are not one row a code, of another kind, or of values out of range.
    """
    sides = _ids_of_strings({"query labels": query_labels, "database labels": database_labels})
    for (name, array), rows in zip(sides.items(), (n_query, n_database), strict=True):
        _check_kind(array, name)
        if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] == 0):
            raise InputError(f"{name} have shape {array.shape}: expected class ids [n] or multi-hot [n, c]")
        if len(array) != rows:
            raise InputError(f"{name} have {len(array)} rows for {rows} codes: give one row a code, in the order of the codes")
    query, database = sides.values()
    if query.shape[1:] != database.shape[1:]:
        raise InputError(
            f"query labels have shape {query.shape} and database labels {database.shape}: both must be class ids [n], or both "
            "multi-hot [n, c] with one c"
        )
    for name, array in sides.items():
        _check_labels(array, name)
    return Labels(query), Labels(database)


def _as_array(values: Any, name: str) -> np.ndarray:
    """Return an array of what may be lists."""
    try:
        return np.asanyarray(values)
    except ValueError as error:
        raise InputError(f"{name} have rows of different lengths: expected an array, or lists of one length") from error


def _ids_of_strings(sides: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return labels as arrays of numbers: strings become ids, the same on both sides."""
    arrays = {name: _as_array(values, name) for name, values in sides.items()}
    flat = {}  # the values of each side that has strings
    for name, array in arrays.items():
        # NumPy turns a list of strings and numbers into strings: look at the list itself
        values = sides[name] if isinstance(sides[name], list | tuple) else array.tolist() if array.dtype.kind in "OTU" else ()
        strings = [isinstance(value, str) for value in values] if array.ndim == 1 else []
        if any(strings):
            if not all(strings):
                raise InputError(f"{name} mix strings with other values: expected one string a row, or numbers")
            flat[name] = values
    if not flat:
        return arrays
    for name in arrays:
        if name not in flat:
            raise InputError(f"{' and '.join(flat)} are strings and {name} are not: give strings for both, or numbers for both")
    ids: dict[str, int] = {}
    return {name: np.array([ids.setdefault(value, len(ids)) for value in values]) for name, values in flat.items()}


def _matrix(values: Any, name: str) -> np.ndarray:
    array = _as_array(values, name)
    _check_kind(array, name)
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"{name} have shape {array.shape}: expected a matrix [n, K], at least one row and one column")
    return array


def _check_kind(array: np.ndarray, name: str) -> None:
    if array.dtype.kind not in "bui" and not _is_float(array):
        raise InputError(f"{name} are of dtype {array.dtype}: expected numbers (save objects or strings as numbers first)")


def _is_float(array: np.ndarray) -> bool:
    return bool(jnp.issubdtype(array.dtype, jnp.floating))  # JAX's bfloat16 too, which NumPy's own test misses


def _blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    return (np.asarray(array[start : start + _ROWS]) for start in range(0, len(array), _ROWS))


def _check_packed(array: np.ndarray, name: str, *, bits: int) -> None:
    width = -(-bits // 8)
    if array.dtype != np.uint8 or array.shape[1] != width:
        raise InputError(
            f"{name} are {array.dtype}[{array.shape[0]}, {array.shape[1]}]: packed codes of {bits} bits are uint8[n, {width}] "
            "(leave bits out where they are not packed)"
        )
    if bits % 8 and any((rows[:, -1] >> (bits % 8)).any() for rows in _blocks(array)):
        raise InputError(
            f"{name} have bits set beyond the {bits}th: give their true number of bits, packed in little bit order with zero "
            "padding (np.packbits(codes > 0, axis=1, bitorder='little'))"
        )


def _form(sides: dict[str, np.ndarray]) -> str:
    """How the codes of both sides are written: "zeros and ones", or "signs"."""
    found = {name: _facts(array, name) for name, array in sides.items()}
    if not any(negative for negative, _, _ in found.values()):
        for name, (_, binary, _) in found.items():
            if not binary:
                raise InputError(
                    f"{name} hold no negative number, and others than 0 and 1: expected codes of both signs, {{-1, +1}}, "
                    "{0, 1}, or packed codes with their number of bits"
                )
        return "zeros and ones"
    for name, (negative, binary, zero) in found.items():
        if not negative and binary and zero:
            raise InputError(f"{name} are in {{0, 1}} and those of the other side are not: write both in one way")
    return "signs"


def _facts(array: np.ndarray, name: str) -> tuple[bool, bool, bool]:
    """Whether a number is negative, whether all are 0 or 1, and whether one is 0."""
    negative, binary, zero = False, True, False
    low, high = 0, 0
    for rows in _blocks(array):
        if not np.isfinite(rows).all():
            raise InputError(f"{name} hold NaN or infinity: look for it where the codes come from")
        negative |= bool((rows < 0).any())
        binary = binary and bool(((rows == 0) | (rows == 1)).all())
        zero |= bool((rows == 0).any())
        low, high = min(low, int(rows.min())), max(high, int(rows.max()))
    if not _is_float(array) and not binary and (low < -1 or high > 1 or zero):
        raise InputError(
            f"{name} are {array.dtype} with values from {low} to {high}: expected two values, {{-1, +1}} or {{0, 1}} (packed "
            "codes need their number of bits)"
        )
    return negative, binary, zero


def _check_labels(array: np.ndarray, name: str) -> None:
    if array.ndim == 2:
        for rows in _blocks(array):
            if not ((rows == 0) | (rows == 1)).all():
                raise InputError(f"{name} [n, c] hold values other than 0 and 1: expected multi-hot labels, or class ids [n]")
        return
    for rows in _blocks(array):
        if _is_float(array):
            rows = rows.astype(np.float64)  # float16 knows no 2^31
        # NaN fails each comparison
        if not ((rows >= 0) & (rows < 2**31)).all() or (_is_float(array) and (rows != np.floor(rows)).any()):
            raise InputError(f"{name} [n] hold values that are no class ids: expected whole numbers from 0 to {2**31 - 1}")


def _words(packed: np.ndarray) -> np.ndarray:
    """uint8[n, bytes] -> uint32[ceil(bytes / 4), n], padded with zeros: a word of all codes side by side, for vector units."""
    count = -(-packed.shape[1] // 4)
    if packed.shape[1] != 4 * count:
        room = np.zeros((len(packed), 4 * count), np.uint8)
        room[:, : packed.shape[1]] = packed
        packed = room
    return np.ascontiguousarray(np.ascontiguousarray(packed).view(np.uint32).T)
