"""Read one array from a file of NumPy, MATLAB, HDF5 or text; nothing in a file is run."""

import functools
import io
import math
import re
import warnings
import zipfile
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np

from adsq_jax import storage
from adsq_jax.errors import InputError, first_line, printable
from adsq_jax.run import hdf5_files, matlab_files, workdir
from adsq_jax.run.named_arrays import MAX_BYTES, NamedArray, choose

TEXTS, ARCHIVES = (".csv", ".txt"), (".npz", ".mat", ".h5", ".hdf5")
SUFFIXES = (".npy", *ARCHIVES, *TEXTS)
_PLACE = re.compile(rf"(.*?({'|'.join(map(re.escape, SUFFIXES))}))(?::(.*))?", re.IGNORECASE | re.DOTALL)
_MAX_TEXT = MAX_BYTES // 4  # bytes of a text file: a digit and a comma become a number of 8 bytes
_CHARACTERS = b"0123456789+-.eE,; \t\r\n"  # of a text file without comments
_COMMENT = re.compile(rb"^[ \t]*#[^\r\n]*", re.MULTILINE)
_MOST_RATIO = 1_100  # of bytes unpacked to bytes packed: zlib has at most 1,032


def read(place: str | Path, *, description: str = "an array", dimensions: Collection[int] = (1, 2)) -> np.ndarray:
    """Read one array of numbers, or of strings in a file of NumPy.

    Args:
      place: a path that ends with .npy, .npz, .mat, .h5, .hdf5, .csv or .txt. In a file of several arrays one is named after a
        colon, `codes.mat:B` or `codes.h5:train/B`; a file with one suitable array needs no name. A text file has a row of
        numbers on each line, between commas, semicolons or blanks; lines that begin with # and empty lines don't count.
      description: what the array is, for messages.
      dimensions: how many dimensions it may have where none is named.

    Returns:
      The array, read-only: of a .npy on a disk mapped, of others at most 2 GiB in memory. Text with one number on each line is
      [n], or [n, 1] where that has too few dimensions; text of whole numbers is int64, other text float64. MATLAB's arrays have
      the class and shape that they have there, logical as bool; but a logical column [n, 1], and one of HDF5, is uint8, as
      ids of two classes and labels of one class are written so.

    Raises:
      InputError: the file is missing, damaged, of another format or too large, or it is unclear which array is meant.

    Source: this project.
    """
    path, name = _split(str(place))
    suffix = path.suffix.lower()
    if suffix not in ARCHIVES and name is None and (suffix not in TEXTS or _begins_as_npy(path)):
        if suffix in SUFFIXES or _begins_as_npy(path) or storage.is_remote(path) or not storage.is_file(path):
            return workdir.read_array(path, description=description)
        raise InputError(f"{path} can't be read as {description}: expected a name that ends with {', '.join(SUFFIXES)}")
    try:
        if suffix not in ARCHIVES and name is not None:
            raise InputError(f"a {suffix} file has one array, without a name; fix: leave the colon and what follows out")
        content = _read_bytes(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's, on headers of Python 2
            if suffix in TEXTS:
                array = _read_text(content)
                array = array[:, 0] if array.shape[1] == 1 and 1 in dimensions else array
            else:
                array = _read_named(content, path, name, dimensions)
    except InputError as error:
        raise InputError(f"{path} can't be read as {description}: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # for a damaged file, zipfile, zlib and h5py raise almost anything
        reason = printable(first_line(error), keep="")
        raise InputError(
            f"{path} can't be read as {description} ({reason}): it is damaged; fix: copy or save it again"
        ) from error
    array.flags.writeable = False
    return array


def _split(place: str) -> tuple[Path, str | None]:
    """Return a path, and what follows its colon; a file of the whole name comes first."""
    match = _PLACE.fullmatch(place)
    if match is None or match[3] is None:
        return storage.path(place), None
    whole = storage.path(place)
    if not storage.is_remote(whole) and storage.is_file(whole):
        return whole, None
    return storage.path(match[1]), match[3]


def _begins_as_npy(path: Path) -> bool:
    """Return whether a file of any name is one of numpy.save."""
    if storage.is_remote(path) or not storage.is_file(path):
        return False
    try:
        with path.open("rb") as file:
            return file.read(6) == b"\x93NUMPY"
    except OSError:  # which reading reports
        return False


def _read_bytes(path: Path) -> bytes:
    try:
        if not storage.is_file(path):  # opening a pipe would wait for ever
            raise InputError("expected a regular file that you may read")
        most = _MAX_TEXT if path.suffix.lower() in TEXTS else MAX_BYTES
        if (size := storage.size(path)) > most:
            raise InputError(f"it has {size:,} bytes, expected at most {most:,}; fix: save it as .npy")
        return storage.read(path)
    except OSError as error:
        raise InputError(f"{error.strerror}; fix: give another file") from None


def _read_named(content: bytes, path: Path, name: str | None, dimensions: Collection[int]) -> np.ndarray:
    suffix = path.suffix.lower()
    if suffix == ".npz":
        arrays = _npz_arrays(content)
    elif suffix == ".mat" and not hdf5_files.is_hdf5(content):
        arrays = matlab_files.arrays(content)
    elif hdf5_files.is_hdf5(content):
        arrays = hdf5_files.arrays(content)
    else:
        raise InputError("it isn't HDF5, as its name says; fix: save it again, or rename it to its format")
    array = choose(arrays, name, file=str(path), dimensions=dimensions).load()
    if not array.size:
        raise InputError("the array is empty; fix: give another one")
    # In Python bool [n, 1] is labels of one class; in MATLAB a comparison makes such a column, whatever it means.
    return array.astype(np.uint8) if suffix != ".npz" and array.dtype == bool and array.shape[1:] == (1,) else array


def _npz_arrays(content: bytes) -> list[NamedArray]:
    """List the arrays of an archive that numpy.savez wrote."""
    archive = zipfile.ZipFile(io.BytesIO(content))
    members = archive.infolist()
    if sum(member.file_size for member in members) > min(MAX_BYTES, _MOST_RATIO * len(content)):
        raise InputError(f"it unpacks to more than {MAX_BYTES:,} bytes, or to far more than it can; fix: save it as .npy")
    found = []
    for member in members:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
            raise InputError("it is compressed in a way that numpy.savez doesn't use; fix: save it again")
        name = member.filename.removesuffix(".npy")
        if name == member.filename:
            found.append(NamedArray(name, (), "no array of NumPy", lambda: np.zeros(0)))
            continue
        try:
            with archive.open(member) as file:
                shape, dtype = workdir.read_header(file, size=member.file_size)
            problem = "" if dtype.kind in "biufU" else f"of dtype {str(dtype)[:50]}"
        except workdir.ObjectArray as error:
            shape, problem = error.shape, "an array of Python objects, which aren't loaded"
        found.append(NamedArray(name, shape, problem, functools.partial(_load_npy, archive, member)))
    return found


def _load_npy(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    return np.lib.format.read_array(io.BytesIO(archive.read(member)), allow_pickle=False)


def _read_text(content: bytes) -> np.ndarray:
    """Return a text's numbers, [rows, columns]; anything but rows of equally many numbers is an error, which names the line."""
    content = _COMMENT.sub(b"", content.removeprefix(b"\xef\xbb\xbf"))  # lines keep their numbers
    first = re.search(rb"\S[^\r\n]*", content)
    if first is None:
        raise InputError("it holds no numbers; fix: give another file")
    delimiter = next((mark for mark in (",", ";") if mark.encode() in first[0]), None)
    if content.translate(None, _CHARACTERS):
        raise InputError(_bad_line(content, delimiter))
    lines = io.TextIOWrapper(io.BytesIO(content), encoding="ascii", newline=None)
    try:
        array = np.loadtxt(lines, dtype=np.float64, delimiter=delimiter, comments=None, ndmin=2)
    except ValueError as error:
        raise InputError(_bad_line(content, delimiter)) from error
    if not np.isfinite(array).all():
        raise InputError(_bad_line(content, delimiter))
    _check_no_counting(array)
    if not re.search(rb"[.eE]", content):
        if np.abs(array).max() >= 2**53:
            raise InputError("it holds whole numbers of more than 53 bits: expected codes or labels; fix: save those as .npy")
        array = array.astype(np.int64)
    return array


def _check_no_counting(array: np.ndarray) -> None:
    """Refuse a first row or column 0, 1, 2, ..., as tables have them in place of names."""
    for side, what, numbers in (("row", "columns", array[0]), ("column", "rows", array[:, 0])):
        other = array.shape[0] if side == "row" else array.shape[1]
        if len(numbers) > 2 and other > 1 and any(np.array_equal(numbers, np.arange(len(numbers)) + low) for low in (0, 1)):
            raise InputError(f"its first {side} counts the {what}, as a table's does; fix: save the numbers alone")


def _bad_line(content: bytes, delimiter: str | None) -> str:
    """Return what is wrong with the first line that isn't a row of numbers like the first one."""
    width, width_line = 0, 0
    for number, line in enumerate(_lines(content), 1):
        fields = line.strip(b" \t").split(delimiter.encode() if delimiter else None) if line.strip() else []
        for field in fields:
            if not _is_number(field):
                text = printable(field.strip()[:40].decode(errors="surrogateescape"), keep="")
                return (
                    f"line {number} holds {text!r}, which isn't a number: expected rows of numbers alone; fix: remove it, "
                    "begin a header with #, or save names as .npy"
                )
        if fields and not width:
            width, width_line = len(fields), number
        if fields and len(fields) != width:
            return f"line {number} has {len(fields)} numbers and line {width_line} has {width}; fix: give as many on each line"
    return "it isn't rows of numbers; fix: save it again"


def _lines(content: bytes) -> Iterable[bytes]:
    return re.split(rb"\r\n|\r|\n", content)


def _is_number(field: bytes) -> bool:
    try:
        return not field.translate(None, _CHARACTERS) and math.isfinite(float(field))
    except ValueError:
        return False
