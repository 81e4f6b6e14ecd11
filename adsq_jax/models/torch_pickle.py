"""Read the pickles in files of torch.save without running them.

A pickle is a program, and `torch.load` runs it unless told otherwise; torch itself is gigabytes to install. Here `pickletools`
splits a pickle into opcodes, and the few that torch writes for a state dict are carried out on dicts, lists, tuples, strings,
numbers and records of tensors. No name in a pickle is ever looked up: there is no class or function to reach, call or alter.
The format is that of torch/serialization.py.
"""

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from adsq_jax.errors import InputError

MAX_PICKLE_BYTES = 64 * 2**20  # of one pickle, without the tensors' numbers: torch writes about 200 per tensor
MAX_STEPS = 2_000_000  # of a file: opcodes, of which torch writes about 40 per tensor, and pairs that calls copy
BFLOAT16 = "bfloat16"  # a dtype that NumPy doesn't have
DAMAGED = "restore it, or download it again"  # ends messages on damaged files
_MAX_DIMENSIONS = 32
_MAX_KEY = 1000  # characters
_WEIGHTS_KEYS = ("state_dict", "model", "model_state", "model_state_dict", "net", "network", "params")  # of checkpoints
_AVERAGE_KEY = "state_dict_ema"  # the weights' moving average, which stands beside them
_PREFIXES = ("module.", "model.", "_orig_mod.", "backbone.", "encoder.", "encoder_q.")  # of modules that wrap a network

# The names that a pickle of a state dict has; they are compared as text and never looked up.
_ORDERED_DICT = "collections OrderedDict"
_TENSOR = "torch._utils _rebuild_tensor_v2"
_OLD_TENSOR = "torch._utils _rebuild_tensor"  # before torch 0.4; some published files have it
_PARAMETER = "torch._utils _rebuild_parameter"
_SIZE = "torch Size"
_STORAGES = {
    "torch FloatStorage": "f4",
    "torch DoubleStorage": "f8",
    "torch HalfStorage": "f2",
    "torch BFloat16Storage": BFLOAT16,
    "torch LongStorage": "i8",
    "torch IntStorage": "i4",
    "torch ShortStorage": "i2",
    "torch CharStorage": "i1",
    "torch ByteStorage": "u1",
    "torch BoolStorage": "?",
}
_NAMES = {_ORDERED_DICT, _TENSOR, _OLD_TENSOR, _PARAMETER, _SIZE, *_STORAGES}

_PUSH_ARGUMENT = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINSTRING", "SHORT_BINSTRING"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES"),
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


@dataclass(frozen=True, slots=True)
class Name:
    """A name in a pickle, as text; nothing stands behind it."""

    text: str


@dataclass(frozen=True, slots=True)
class Storage:
    """A block of numbers that tensors are views of."""

    key: str
    dtype: str  # NumPy's, or BFLOAT16
    size: int  # numbers


@dataclass(frozen=True, slots=True)
class Tensor:
    """A view of a storage, as the pickle claims it and unchecked; counts are of numbers, not of bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Pickle:
    """One pickle, interpreted here instead of by Python's unpickler, which looks names up and calls what it gets.

    Attributes:
      value: the content: dicts, lists, tuples, strings, bytes, numbers, None, `Name`, `Storage` and `Tensor`.
      storages: by key.
      end: position of the byte after the pickle.
      steps_left: for the pickles after it.
    """

    def __init__(self, content: bytes, *, after: "Pickle | None" = None):
        """Read a file's first pickle, or the one after another; raise InputError if it asks for more than a state dict needs.

        A damaged pickle may raise any Exception.
        """
        begin: int = 0 if after is None else after.end
        self.steps_left: int = MAX_STEPS if after is None else after.steps_left
        self.storages: dict[str, Storage] = {}
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._content = memoryview(content)[begin : begin + MAX_PICKLE_BYTES].tobytes()
        file = io.BytesIO(self._content)
        try:
            for opcode, argument, _ in pickletools.genops(file):
                self._spend(1)
                self._execute(opcode.name, argument)
        except ValueError as error:  # for one, where a long pickle is cut off at the limit
            if len(self._content) < MAX_PICKLE_BYTES or file.tell() < MAX_PICKLE_BYTES or isinstance(error, InputError):
                raise
            raise InputError(f"has a pickle of more than {MAX_PICKLE_BYTES:,} bytes: save only the state_dict") from error
        (self.value,) = self._stack
        self.end: int = begin + file.tell()
        self._stack, self._memo, self._content = [], {}, b""

    def _execute(self, opcode: str, argument: Any) -> None:
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
            expect(stack[-1], list).extend(items)
        elif opcode in ("SETITEM", "SETITEMS"):
            items = self._pop_to_mark() if opcode == "SETITEMS" else self._pop(2)
            _set_items(expect(stack[-1], dict), items)
        elif opcode == "BUILD":  # attributes: a state dict has _metadata, the versions of its modules
            stack.pop()
            expect(stack[-1], dict)
        elif opcode in ("GLOBAL", "STACK_GLOBAL"):
            stack.append(self._name(argument if opcode == "GLOBAL" else " ".join(expect(text, str) for text in self._pop(2))))
        elif opcode == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        elif opcode == "REDUCE":
            name, arguments = self._pop(2)
            self._spend(sum(len(argument) for argument in expect(arguments, tuple)[:1] if type(argument) is list))
            stack.append(_call(expect(name, Name).text, expect(arguments, tuple)))
        elif opcode not in ("PROTO", "FRAME", "STOP"):
            raise self._refusal(argument.replace(" ", ".") if opcode == "INST" else f"the opcode {opcode}")

    def _spend(self, steps: int) -> None:
        self.steps_left -= steps
        if self.steps_left < 0:
            raise InputError(f"has pickles of more than {MAX_STEPS:,} steps: save only the state_dict")

    def _pop(self, count: int) -> list[Any]:
        items = self._stack[-count:]
        if len(items) != count:
            raise InputError(f"is damaged (its pickle takes more values than there are): {DAMAGED}")
        del self._stack[-count:]
        return items

    def _pop_to_mark(self) -> list[Any]:
        mark = self._marks.pop()
        items = self._stack[mark:]
        del self._stack[mark:]
        return items

    def _name(self, text: str) -> Name:
        if text not in _NAMES:
            raise self._refusal(text.replace(" ", "."))
        return Name(text)

    def _refusal(self, wanted: str) -> InputError:
        wanted = printable(wanted)
        if b"torch.nn.modules" in self._content:
            return InputError(
                f"is a complete model (it asks for {wanted}), not weights, and was not run: save model.state_dict() instead, "
                "torch.save(model.state_dict(), PATH)"
            )
        return InputError(
            f"asks for {wanted}, which is code and was not run: expected tensors and plain values; if you trust the file, load "
            "it with torch and save only its state_dict"
        )

    def _storage(self, identity: Any) -> Storage:
        kind, name, key, _, size, *view = expect(identity, tuple)
        if kind != "storage" or len(view) > 1:
            raise InputError(f"is damaged (its pickle refers to something other than a storage): {DAMAGED}")
        if view not in ([], [None]):
            raise InputError("has a view of a storage, as torch before 0.4 wrote: load it with torch and save it again")
        storage = Storage(expect(key, str), _STORAGES[expect(name, Name).text], expect(size, int))
        if storage.size < 0 or len(key) > _MAX_KEY or self.storages.setdefault(key, storage) != storage:
            raise InputError(f"is damaged (the storage {printable(key)} has two sizes or types): {DAMAGED}")
        return storage


def _call(name: str, arguments: tuple[Any, ...]) -> Any:
    """Return what one of torch's calls makes.

    It copies no more than the pairs of an OrderedDict, which its caller counts as steps: a million calls may share one list.
    """
    if name == _ORDERED_DICT and len(arguments) < 2:  # Python 2 gave it a list of [key, value]
        ordered: dict[Any, Any] = {}
        for pair in expect(arguments[0], list) if arguments else ():
            if len(expect(pair, list)) != 2:
                raise InputError(f"is damaged (an entry of a dict in its pickle is no pair): {DAMAGED}")
            _set_items(ordered, pair)
        return ordered
    if (name, len(arguments)) in ((_TENSOR, 6), (_OLD_TENSOR, 4)):  # a seventh marks negated or conjugated numbers
        storage, offset, shape, strides = arguments[:4]
        if len(expect(shape, tuple)) > _MAX_DIMENSIONS or len(expect(strides, tuple)) != len(shape):
            raise InputError(f"is damaged (a tensor has {len(shape)} dimensions and {len(strides)} strides): {DAMAGED}")
        for size in (offset, *shape, *strides):
            expect(size, int)
        return Tensor(expect(storage, Storage), offset, shape, strides)
    if name == _PARAMETER and len(arguments) == 3:
        return expect(arguments[0], Tensor)
    if name == _SIZE and len(arguments) == 1:
        return expect(arguments[0], tuple)
    raise InputError(f"calls {printable(name.replace(' ', '.'))} in an unknown way: load it with torch and save it again")


def _set_items(target: dict[Any, Any], items: list[Any]) -> None:
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Hashing deep tuples can crash Python, and comparing long keys again and again takes very long.
        if not (type(key) is str and len(key) <= _MAX_KEY) and not (type(key) is int and -(2**63) <= key < 2**63):
            raise InputError(f"is damaged (a key in its pickle is neither a number nor a short text): {DAMAGED}")
        target[key] = value


def state_dict(value: Any) -> dict[str, Tensor]:
    """Return the tensors of a pickle's value: a state dict, or a training checkpoint that holds one.

    The prefixes of wrapping modules that all names have are removed. Raise InputError if there are no tensors, or if two keys
    have some, other than the weights' moving average.
    """
    if type(value) is not dict:
        raise InputError("has no state_dict: expected names with tensors, torch.save(model.state_dict(), PATH)")
    found = {key: tensors for key in _WEIGHTS_KEYS if (tensors := _tensors(value.get(key)))}
    if len(found) > 1:
        raise InputError(
            f"has weights below {' and '.join(found)}: expected them below one key; load it with torch and save those that you "
            f"want, torch.save(checkpoint[{min(found)!r}], PATH)"
        )
    for tensors in (*found.values(), _tensors(value.get(_AVERAGE_KEY)), _tensors(value)):
        if tensors:
            return _without_prefixes(tensors)
    keys = ", ".join(printable(str(key)) for key in list(value)[:5]) or "none"
    raise InputError(
        f"has no tensors (its keys: {keys}): expected names with tensors, at the top or below "
        f"{', '.join((*_WEIGHTS_KEYS, _AVERAGE_KEY))}"
    )


def _tensors(value: Any) -> dict[str, Tensor]:
    items = value.items() if type(value) is dict else ()
    return {name: item for name, item in items if type(name) is str and type(item) is Tensor}


def _without_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors without the prefixes that all names have, however many there are one after the other."""
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            return _without_prefixes({name.removeprefix(prefix): tensor for name, tensor in tensors.items()})
    return tensors


def expect(value: Any, kind: type) -> Any:
    """Return a value of a pickle if it is of this very type; else raise InputError."""
    if type(value) is not kind:
        raise InputError(f"is damaged (its pickle has a {type(value).__name__} out of place): {DAMAGED}")
    return value


def printable(text: str) -> str:
    """Return text of a file for a message: one line, short, without control characters that a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:120]) + ("..." if len(text) > 120 else "")
