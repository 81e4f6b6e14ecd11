"""Torch's pickles: weights are read from them, and nothing in them is run."""

import builtins
import collections
import contextlib
import copyreg
import io
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.torch_files import HERE, HUGE, MAGIC, Raw, assert_same, both, error_of, legacy, opcodes, outcome, tensor, zipped

from adsq_jax.errors import InputError
from adsq_jax.models import torch_pickle, weight_files


@pytest.mark.parametrize("name", ["module.pth", "module_legacy.pth"])
def test_whole_model(name):
    """A pickled model is refused; the message says what to save instead."""
    text = error_of(str(HERE / name))
    assert "is a complete model" in text
    assert "torch.save(model.state_dict(), PATH)" in text


@both
@pytest.mark.parametrize(
    "key", ["state_dict", "model", "model_state", "model_state_dict", "net", "network", "state_dict_ema", "params"]
)
def test_where_checkpoints_keep_weights(write_file, form, key):
    """Weights are read from below each usual key, even with another tensor beside it."""
    found = weight_files.read(write_file(form({"best": tensor(), "epoch": 1, key: {"a": tensor(), "b": "text"}}))).arrays
    assert_same(found, {"a": np.arange(4, dtype=np.float32)})


def test_first_of_two_keys(write_file):
    """Weights are preferred to their moving average, whichever comes first in the file."""
    content = zipped({"state_dict_ema": {"b": tensor()}, "state_dict": {"a": tensor()}})
    assert list(weight_files.read(write_file(content)).arrays) == ["a"]


@both
@pytest.mark.parametrize("order", [1, -1])
def test_weights_below_two_keys(write_file, form, order):
    """Two keys that both have tensors are refused in one line that names both; a key without tensors doesn't count."""
    keys = ["model", "net"][::order]
    text = error_of(write_file(form({"epoch": 1, **{key: {"a": tensor()} for key in keys}})))
    assert "has weights below model and net" in text
    assert "torch.save(checkpoint['model'], PATH)" in text
    assert list(weight_files.read(write_file(form({keys[0]: {"a": tensor()}, keys[1]: {"lr": 1}}))).arrays) == ["a"]


@pytest.mark.parametrize(
    "prefix",
    ["module.", "model.", "_orig_mod.", "backbone.", "encoder.", "module.encoder_q.", "module._orig_mod.model.", "module." * 9],
)
def test_prefixes(write_file, prefix):
    """Prefixes of wrapping modules are removed, several too, and only those that all names have."""
    names = ["fc.weight", "model.b", "encoder.c"]
    given = {prefix + name: tensor() for name in names}
    assert list(weight_files.read(write_file(zipped(given))).arrays) == names
    assert list(weight_files.read(write_file(zipped({**given, "d": tensor()}))).arrays) == [*given, "d"]


@pytest.mark.reference
@pytest.mark.parametrize("key", [None, "model_state_dict", "net"])
@pytest.mark.parametrize("wraps", [(), ("module",), ("_orig_mod", "module"), ("encoder", "backbone", "model")])
def test_wrapped_modules_of_pytorch(write_file, key, wraps):
    """What PyTorch saves of a network inside others, in a checkpoint or alone, gives the arrays of the network alone."""
    import torch

    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    expected = {name: value.numpy() for name, value in network.state_dict().items()}
    for name in wraps:
        network = torch.nn.ModuleDict({name: network})
    saved, optimizer = io.BytesIO(), torch.optim.SGD(network.parameters(), lr=0.1)
    state = network.state_dict()
    torch.save(state if key is None else {"epoch": 3, key: state, "optimizer": optimizer.state_dict()}, saved)
    assert_same(weight_files.read(write_file(saved.getvalue())).arrays, expected)


@both
@pytest.mark.parametrize(
    "value", [{}, {"epoch": 3}, {"state_dict": {"a": 1}}, {3: tensor()}, [tensor()], tensor(), None, "text"]
)
def test_no_tensors(write_file, form, value):
    """A file without named tensors is refused with what was expected."""
    assert "expected names with tensors" in error_of(write_file(form(value)))


@both
def test_calls_that_torch_wrote_before_0_4(write_file, form):
    """Files of 2017, with _rebuild_tensor and Python 2's OrderedDict of pairs, are read."""
    identity = opcodes(("storage", Raw(b"ctorch\nFloatStorage\n"), "0", "cpu", 4))
    old = Raw(b"ctorch._utils\n_rebuild_tensor\n" + opcodes((Raw(identity + b"Q"), 0, (2, 2), (2, 1))) + b"R")
    state = Raw(b"ccollections\nOrderedDict\n" + opcodes(([["a.weight", old]],)) + b"R")
    arrays = weight_files.read(write_file(form(state))).arrays
    assert list(arrays) == ["a.weight"]
    np.testing.assert_array_equal(arrays["a.weight"], [[0, 1], [2, 3]])


@given(st.lists(st.sampled_from([bytes([code]) for code in range(256)] + [b"}", b"(", b"t", b"h\x00", b"q\x00"]), max_size=40))
@example([b"."])
@settings(max_examples=300)
def test_any_opcodes(folder, program):
    """Any opcodes in any order, with torch's names at hand, give arrays or a refusal."""
    names = b"ctorch._utils\n_rebuild_tensor_v2\nctorch\nFloatStorage\nccollections\nOrderedDict\n"
    outcome(folder, "any.pth", MAGIC + b"\x80\x02" + names + b"".join(program) + b".")


LAUGHS = b"](NNNNNNNNNNe" + b"".join(b"q%c](" % k + b"h%c" % k * 10 + b"e" for k in range(60))
PROGRAMS = {
    "laughs": LAUGHS,
    "deep lists": b"]" * 150_000 + b"a" * 149_999,
    "deep tuples": b")" + b"\x85" * 150_000,
    "deep tuple as a key": b"})" + b"\x85" * 150_000 + b"Ns",
    "deep tuple as a name": b"ctorch\nSize\n)" + b"\x85" * 150_000 + b"\x85R",
    "deep dicts": b"}" + b"K\x00}" * 100_000 + b"s" * 100_000,
    "tuple as a key": b"}))s",
    "float as a key": b"}G" + bytes(8) + b"Ns",
    "large memo": b"Nr\xff\xff\xff\xff",
    "claimed bytes": b"\x8e" + struct.pack("<Q", HUGE),
    "claimed text": b"\x8d" + struct.pack("<Q", HUGE),
    "claimed array of bytes": b"\x96" + struct.pack("<Q", HUGE),
    "claimed frame": b"\x95" + struct.pack("<Q", HUGE) + b"N",
    "marks": b"(" * 100_000,
    "unbalanced marks": b"tttttt",
    "nothing": b"",
    "two values": b"NN",
    "memo of nothing": b"h\x07",
    "odd items": b"}(K\x01u",
    "items of a list": b"]K\x01K\x02s",
    "append to a dict": b"}K\x01a",
    "build of a list": b"]}b",
    "call of a dict": b"})R",
    "call of text": opcodes("text") + b")R",
    "call of a storage's name": b"ctorch\nFloatStorage\n)R",
    "call of a tensor": tensor() + b")R",
    "call without a tuple": b"ccollections\nOrderedDict\n]R",
    "dict of items": b"ccollections\nOrderedDict\n" + opcodes(([("a", 1)],)) + b"R",
    "parameter of none": b"ctorch._utils\n_rebuild_parameter\n" + opcodes((None, True, {})) + b"R",
    "size of none": b"ctorch\nSize\n" + opcodes((None,)) + b"R",
    "long shape": b"ctorch._utils\n_rebuild_tensor_v2\n" + opcodes((1, 0, (1,) * 10_000, (1,), False, {})) + b"R",
    "storage that is none": b"NQ",
    "storage of no type": opcodes(("storage", "FloatStorage", "0", "cpu", 4)) + b"Q",
    "storage of a dict": opcodes(("storage", Raw(b"ccollections\nOrderedDict\n"), "0", "cpu", 4)) + b"Q",
    "module": opcodes(("module", Raw(b"ccollections\nOrderedDict\n"), "a.py", "source")) + b"Q",
}


@both
@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_program_that_torch_never_wrote(write_file, form, program, limited_memory):
    """Endless nesting, values that grow by sharing, claimed sizes, and calls of plain values are refused."""
    error_of(write_file(form(Raw(PROGRAMS[program]))))


def test_many_steps(write_file, monkeypatch):
    """A pickle of more steps than weights need is stopped at the limit."""
    monkeypatch.setattr(torch_pickle, "MAX_STEPS", 1000)
    weight_files.read(write_file(zipped({"a": tensor(), "b": Raw(b"]" + b"q\x00" * 900)})))
    assert "more than 1,000 steps" in error_of(write_file(zipped({"a": tensor(), "b": Raw(b"]" + b"q\x00" * 1000)})))


@both
def test_calls_that_share_a_list(write_file, form):
    """Calls that copy one list of pairs again and again are stopped at the same limit: 400 of them took a minute."""

    def ordered(pairs, calls):
        items = b"](" + b"".join(b"](" + opcodes(key) + b"Ne" for key in range(pairs)) + b"e"
        first = b"ccollections\nOrderedDict\nq\x01" + items + b"\x85q\x02R"
        return Raw(b"](" + first + b"h\x01h\x02R" * calls + b"e")

    weight_files.read(write_file(form({"a": tensor(), "b": ordered(30, 400)})))
    assert "more than 2,000,000 steps" in error_of(write_file(form({"a": tensor(), "b": ordered(10_000, 400)})))
    long_pair = b"ccollections\nOrderedDict\n" + opcodes(([[*range(40)]],)) + b"R"
    assert "no pair" in error_of(write_file(form({"a": tensor(), "b": Raw(long_pair)})))


def test_steps_of_all_pickles(write_file, monkeypatch):
    """The small pickles around an old file's object count with it."""
    monkeypatch.setattr(torch_pickle, "MAX_STEPS", 1000)
    slow = MAGIC[: MAGIC.index(b".")] + b"q\x00" * 400 + MAGIC[MAGIC.index(b".") :]
    for steps in (300, 700):
        content = legacy({"a": tensor(), "b": Raw(b"N" + b"q\x00" * steps)}).replace(MAGIC, slow)
        if steps == 300:
            weight_files.read(write_file(content))
        else:
            assert "more than 1,000 steps" in error_of(write_file(content))


def test_keys(write_file):
    """Only whole numbers and short texts are taken as keys: others take long to compare, or crash Python."""
    assert list(weight_files.read(write_file(zipped({"k" * 1000: tensor(), 2**62: 1}))).arrays) == ["k" * 1000]
    for key in ("k" * 1001, 2**64, 1.5, None, ()):
        assert "a key in its pickle is neither a number nor a short text" in error_of(
            write_file(zipped({"a": tensor(), key: 1}))
        )


def test_long_pickle(write_file, monkeypatch):
    """A pickle longer than the limit is refused as such."""
    monkeypatch.setattr(torch_pickle, "MAX_PICKLE_BYTES", 1000)
    for form in (zipped, legacy):
        assert "a pickle of more than 1,000 bytes" in error_of(write_file(form({"a": tensor(), "text": "x" * 1000})))
        weight_files.read(write_file(form({"a": tensor()})))


def test_damaged_keys(write_file):
    """In the old format, a damaged list of storages is refused."""
    whole = legacy({"a": tensor()})
    listed = b"\x80\x02" + opcodes(["0"]) + b"."
    assert listed in whole
    for keys in (b"N", opcodes(["7"]), b"])" + b"\x85" * 100_000 + b"a", opcodes({"0": 1}), opcodes(["0", "0"])):
        error_of(write_file(whole.replace(listed, b"\x80\x02" + keys + b".")))


class Touch:
    """An object whose pickle runs a shell command."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


class Runs:
    """A class that writes a file when an object of it is made."""

    def __new__(cls, path):
        Path(path).touch()
        return super().__new__(cls)


class Altered:
    """A class that a pickle tries to alter."""


def attacks(mark):
    """Return pickles that write a file when Python's own unpickler loads them."""
    command, code = opcodes(f"touch {mark}"), opcodes(f"open({str(mark)!r}, 'w').close()")
    made, path = f"c{__name__}\nRuns\n".encode(), opcodes(str(mark))
    return {
        "os.system": b"cos\nsystem\n(" + command + b"tR",
        "posix.system": b"cposix\nsystem\n(" + command + b"tR",
        "builtins.eval": b"cbuiltins\neval\n(" + code + b"tR",
        "builtins.exec": b"cbuiltins\nexec\n" + code + b"\x85R",
        "__builtin__.eval": b"c__builtin__\neval\n(" + code + b"tR",
        "stack global os.system": opcodes("os") + opcodes("system") + b"\x93" + command + b"\x85R",
        "inst os.system": b"(" + command + b"ios\nsystem\n",
        "obj os.system": b"(cos\nsystem\n" + command + b"o",
        "newobj test_torch_pickle.Runs": made + path + b"\x85\x81",
        "newobj_ex test_torch_pickle.Runs": made + path + b"\x85}\x92",
        "nested os.system": opcodes({"a": [(1, Raw(b"cos\nsystem\n(" + command + b"tR"))]}),
        "popped os.system": b"cos\nsystem\n" + command + b"\x85R0N",
        "beside weights os.system": opcodes({"optimizer": Raw(b"cos\nsystem\n" + command + b"\x85R"), "epoch": 1}),
        "ext": b"\x82\xfa" + command + b"\x85R",
    }


NAMES_OF_ATTACKS = sorted(attacks("x"))


@pytest.fixture
def mark(tmp_path):
    """The file that a pickle's code would write; meanwhile the extension registry has os.system."""
    copyreg.add_extension("os", "system", 250)
    yield tmp_path / "ran"
    copyreg.remove_extension("os", "system", 250)
    copyreg.clear_extension_cache()


@pytest.mark.parametrize("name", NAMES_OF_ATTACKS)
def test_attacks_are_live(mark, name):
    """Python's own unpickler runs each attack, so the next tests refuse real ones."""
    pickle.loads(b"\x80\x02" + attacks(mark)[name] + b".")
    assert mark.exists()


@both
@pytest.mark.parametrize("name", NAMES_OF_ATTACKS)
def test_code_in_the_object(write_file, form, mark, name):
    """Code in a file isn't run, and the message names it."""
    for program in (attacks(mark)[name], opcodes({"state_dict": {"a": tensor()}, "x": Raw(attacks(mark)[name])})):
        text = error_of(write_file(form(Raw(program))))
        assert ("the opcode EXT1" if name == "ext" else name.split()[-1]) in text
        assert "was not run" in text
    assert not mark.exists()


@pytest.mark.parametrize("part", range(4))
def test_code_in_other_pickles(write_file, mark, part):
    """Code isn't run in any of the small pickles around an old file's object."""
    whole = legacy({"a": tensor()})
    harmless = [MAGIC[:15], b"\x80\x02M\xe9\x03.", b"\x80\x02}.", b"\x80\x02" + opcodes(["0"]) + b"."][part]
    assert whole.count(harmless) == 1
    evil = b"\x80\x02" + attacks(mark)["os.system"] + b"."
    assert "asks for os.system" in error_of(write_file(whole.replace(harmless, evil)))
    assert not mark.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_in_a_plain_pickle(write_file, mark, protocol):
    """A plain pickle with code, named .pth, is refused in every protocol."""
    content = pickle.dumps({"weights": [Touch(mark)]}, protocol)
    error_of(write_file(content))
    error_of(write_file(content, "a.tar"))
    assert not mark.exists()
    pickle.loads(content)
    assert mark.exists()


@pytest.mark.parametrize(
    "wanted",
    [
        "torch.storage _load_from_bytes",
        "torch UntypedStorage",
        "torch load",
        "torch.hub load",
        "numpy ndarray",
        "builtins getattr",
        "collections OrderedDict.update",
        "collections deque",
        "torch FloatStorage.__class__",
        "adsq_jax.models.weight_files read",
        " ",
        "a\x1b[2Jb c",
    ],
)
def test_other_names(write_file, wanted):
    """Only the names of a state dict are allowed: not their neighbours, attributes, or names of this package."""
    module, _, name = wanted.partition(" ")
    stacked = opcodes(module) + opcodes(name) + b"\x93)R"
    assert "which is code and was not run" in error_of(write_file(zipped(Raw(stacked))))
    assert "which is code and was not run" in error_of(write_file(legacy(Raw(f"c{module}\n{name}\n".encode() + b")R"))))


@pytest.mark.parametrize(
    "state",
    [
        {"altered": True},
        {"__class__": 1, "__reduce__": 2, "keys": 3, "get": 4, "items": 5, "__setstate__": 6},
        (None, {"altered": True}),
        ({"altered": 1}, {"text": "os system"}),
    ],
    ids=str,
)
def test_build_alters_nothing(write_file, state):
    """BUILD, which sets attributes, has no effect on a state dict, and is refused on names, tensors and storages."""
    plain = Raw(opcodes({"a": tensor()}) + opcodes(state) + b"b")
    assert_same(weight_files.read(write_file(zipped(plain))).arrays, {"a": np.arange(4, dtype=np.float32)})
    before = [
        dict(vars(kind)) for kind in (collections.OrderedDict, torch_pickle.Name, torch_pickle.Tensor, torch_pickle.Storage)
    ]
    targets = [
        b"ccollections\nOrderedDict\n",
        b"ctorch\nFloatStorage\n",
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        bytes(tensor()),
    ]
    for target in targets:
        assert "out of place" in error_of(write_file(zipped(Raw(target + opcodes(state) + b"b"))))
    assert before == [
        dict(vars(kind)) for kind in (collections.OrderedDict, torch_pickle.Name, torch_pickle.Tensor, torch_pickle.Storage)
    ]


def test_build_is_live(write_file):
    """Python's own unpickler lets BUILD alter a class; here the class's name is refused."""
    program = f"c{__name__}\nAltered\n".encode() + opcodes((None, {"altered": True})) + b"b"
    assert "Altered" in error_of(write_file(zipped(Raw(program))))
    assert not hasattr(Altered, "altered")
    pickle.loads(b"\x80\x02" + program + b".")
    assert Altered.altered


def test_nothing_is_imported(write_file, monkeypatch, mark):
    """No name in a pickle is looked up: nothing is imported, and neither eval nor exec is called."""
    wanted = []

    def import_and_note(name, *args, real=builtins.__import__, **rest):
        wanted.append(name)
        return real(name, *args, **rest)

    contents = [form(Raw(program)) for program in attacks(mark).values() for form in (zipped, legacy)]
    files = [write_file(content, f"{number}.pth") for number, content in enumerate(contents)]
    for path in [*files, str(HERE / "zip.pth")]:
        with monkeypatch.context() as patch, contextlib.suppress(InputError):
            patch.setattr(builtins, "__import__", import_and_note)
            patch.setattr(builtins, "eval", lambda *args: wanted.append("eval"))
            patch.setattr(builtins, "exec", lambda *args: wanted.append("exec"))
            weight_files.read(path)
    assert not {"os", "posix", "torch", "builtins", "eval", "exec", __name__} & set(wanted), wanted
