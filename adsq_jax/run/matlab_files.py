"""Read arrays of numbers from MATLAB's files of version 5 (`save -v6` and `-v7`).

SciPy's reader is not used: a damaged file can crash it. Files of version 7.3 are HDF5, which `hdf5_files` reads.
"""

import functools
import math
import zlib
from typing import NamedTuple

import numpy as np

from adsq_jax.errors import InputError
from adsq_jax.run.named_arrays import MAX_BYTES, NamedArray

_BEGIN = 128  # bytes of text, version and byte order
_MATRIX, _COMPRESSED, _FLAGS, _SIGNED = 14, 15, 6, 5  # types of elements
_NAMES = (1, 2, 16)  # types of elements that hold a name
_NUMBERS = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_OTHERS = {1: "a cell array", 2: "a struct", 3: "an object", 4: "text", 5: "a sparse matrix", 16: "a function", 17: "an object"}
_OPAQUE = 17  # a class without dimensions
_MOST_ARRAYS = 10_000
_HEAD = 1 << 16  # bytes that hold an array's class, dimensions and name
_DAMAGED = "it is damaged or cut short; fix: copy or save it again"


class _Head(NamedTuple):
    """What a matrix begins with."""

    kind: int  # its class
    is_logical: bool
    is_complex: bool
    shape: tuple[int, ...]
    name: str
    end: int  # where its numbers begin


def arrays(content: bytes) -> list[NamedArray]:
    """List the arrays of a file.

    Args:
      content: the file's bytes.

    Returns:
      The arrays in the file's order; numbers are read when they are loaded, in MATLAB's class and shape, logical as bool.

    Raises:
      InputError: it is no such file, or it is damaged; `load` raises it too.

    Source: MathWorks, MAT-File Format, level 5.
    """
    if content[126:128] == b"MI":
        raise InputError("it has big-endian numbers; fix: save it again with -v7 on a little-endian machine")
    if len(content) < _BEGIN or content[124:128] != b"\x00\x01IM":
        raise InputError("it isn't a MATLAB file of version 5 to 7.3; fix: save it with -v7")
    view, at, found = memoryview(content), _BEGIN, list[NamedArray]()
    while at < len(view):
        kind, data, _ = _element(view, at)
        end = at + 8 + len(data)
        if kind == _COMPRESSED:
            head = zlib.decompressobj().decompress(data, _HEAD)
            found.append(_describe(memoryview(head), functools.partial(_unpack, data)))
        elif kind == _MATRIX:
            found.append(_describe(view[at:end], functools.partial(lambda whole: whole, view[at:end])))
        else:
            raise InputError(_DAMAGED)
        if len(found) > _MOST_ARRAYS:
            raise InputError(f"it has more than {_MOST_ARRAYS:,} arrays; fix: save the ones that matter")
        at = end
    return [array for array in found if array.name]  # MATLAB keeps what belongs to objects without a name


def _element(view: memoryview, at: int) -> tuple[int, memoryview, int]:
    """Return an element's type, its bytes, and where the next one begins."""
    word = int.from_bytes(view[at : at + 4], "little")
    if word >> 16:  # up to four bytes stand in the tag itself
        size, kind, start, after = word >> 16, word & 0xFFFF, at + 4, at + 8
        if size > 4:
            raise InputError(_DAMAGED)
    else:
        size, kind, start = int.from_bytes(view[at + 4 : at + 8], "little"), word, at + 8
        after = start + -(-size // 8) * 8
    if start + size > len(view):
        raise InputError(_DAMAGED)
    return kind, view[start : start + size], after


def _describe(head: memoryview, unpack: functools.partial[memoryview]) -> NamedArray:
    about = _read_head(head)
    problem = _OTHERS.get(about.kind, "complex" if about.is_complex else "" if about.kind in _CLASSES else "of an unknown kind")
    return NamedArray(about.name, about.shape, problem, functools.partial(_load, unpack))


def _read_head(view: memoryview) -> _Head:
    kind, data = int.from_bytes(view[:4], "little"), view[8:]
    if kind != _MATRIX:
        raise InputError(_DAMAGED)
    if not data:  # an empty array without a name
        return _Head(6, False, False, (0, 0), "", 8)
    kind, flags, at = _element(data, 0)
    if kind != _FLAGS or len(flags) != 8:
        raise InputError(_DAMAGED)
    shape: tuple[int, ...] = ()
    if flags[0] != _OPAQUE:
        kind, sizes, at = _element(data, at)
        if kind not in (_SIGNED, _FLAGS) or len(sizes) % 4 or len(sizes) < 8:
            raise InputError(_DAMAGED)
        shape = tuple(np.frombuffer(sizes, "<i4").tolist())
        if min(shape) < 0:
            raise InputError(_DAMAGED)
    kind, name, at = _element(data, at)
    if kind not in _NAMES:
        raise InputError(_DAMAGED)
    return _Head(flags[0], bool(flags[1] & 2), bool(flags[1] & 8), shape, bytes(name).decode(errors="replace"), 8 + at)


def _unpack(data: memoryview) -> memoryview:
    """Return a compressed matrix, which says at its beginning how long it is."""
    stream = zlib.decompressobj()
    begin = stream.decompress(data, 8)
    size = 8 + int.from_bytes(begin[4:8], "little")
    if size > MAX_BYTES:
        raise InputError(f"it has an array of {size:,} bytes, expected at most {MAX_BYTES:,}; fix: save it as .npy")
    whole = begin + stream.decompress(stream.unconsumed_tail, max(1, size - len(begin)))
    if stream.decompress(stream.unconsumed_tail, 1) or not stream.eof or len(whole) != size:
        raise InputError(_DAMAGED)
    return memoryview(whole)


def _load(unpack: functools.partial[memoryview]) -> np.ndarray:
    view = unpack()
    head = _read_head(view)
    kind, data, after = _element(view, head.end)
    dtype = np.dtype(_CLASSES[head.kind])
    if kind not in _NUMBERS or math.prod(head.shape) * dtype.itemsize > MAX_BYTES:
        raise InputError(_DAMAGED)
    stored = np.dtype(_NUMBERS[kind])
    if math.prod(head.shape) * stored.itemsize != len(data) or after < len(view):
        raise InputError(_DAMAGED)
    numbers = np.frombuffer(data, stored)
    if stored.newbyteorder("=") != dtype:  # MATLAB stores doubles that are small whole numbers in fewer bytes
        converted = numbers.astype(dtype)
        if not np.can_cast(stored, dtype) and (stored.kind not in "iu" or (converted != numbers).any()):
            raise InputError(_DAMAGED)
        numbers = converted
    if head.is_logical:
        if not np.isin(numbers, (0, 1)).all():
            raise InputError(_DAMAGED)
        numbers = numbers != 0
    return numbers.reshape(head.shape, order="F")
