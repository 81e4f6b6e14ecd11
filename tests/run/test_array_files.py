"""Arrays from files of all kinds: the same numbers from each, and one line for whatever is unclear or damaged."""

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from adsq_jax import data
from adsq_jax.errors import InputError
from adsq_jax.run import array_files, named_arrays, workdir

SIGNS = np.random.default_rng(0).choice([-1, 1], (6, 5))
IDS = np.array([3, 1, 0, 2, 1, 1])


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current folder: SIGNS and IDS in every form."""
    monkeypatch.chdir(tmp_path)
    np.save("B.npy", SIGNS)
    np.savez("one.npz", SIGNS)
    np.savez_compressed("two.npz", B=SIGNS, ids=IDS, names=np.array(["a", "b"]), scalar=np.int64(5))
    scipy.io.savemat("two.mat", {"B": SIGNS.astype(np.int8), "ids": IDS[:, None], "K": 5.0})
    scipy.io.savemat("one.mat", {"B": SIGNS, "K": 5.0, "note": "text"})
    np.savetxt("B.csv", SIGNS, fmt="%d", delimiter=",")
    np.savetxt("B.txt", SIGNS, fmt="%d", header="made by numpy")
    np.savetxt("float.txt", SIGNS + 0.25)
    np.savetxt("ids.txt", IDS, fmt="%d")
    Path("semicolon.csv").write_text("\ufeff" + "\r\n\r\n".join("; ".join(map(str, row)) for row in SIGNS) + "\r\n")
    return tmp_path


@pytest.mark.parametrize(
    "place", ["B.npy", "one.npz", "one.npz:arr_0", "two.npz:B", "one.mat", "two.mat:B", "B.csv", "B.txt", "semicolon.csv"]
)
def test_every_form_holds_the_same(place):
    """Codes from each, by name or as the only suitable ones; whole numbers of text are integers, which is a check of codes."""
    array = array_files.read(place, dimensions=(2,))
    np.testing.assert_array_equal(array, SIGNS)
    assert array.dtype.kind == "i"
    assert not array.flags.writeable
    np.testing.assert_array_equal(data.read_array(place, dimensions=(2,)), SIGNS)


def test_labels():
    """Ids from text are [n], MATLAB's have its shape; strings come from NumPy's files; floats of text stay floats."""
    np.testing.assert_array_equal(array_files.read("ids.txt"), IDS)
    np.testing.assert_array_equal(array_files.read("two.npz:ids"), IDS)
    np.testing.assert_array_equal(array_files.read("two.mat:ids"), IDS[:, None])
    assert array_files.read("two.npz:names").tolist() == ["a", "b"]
    np.testing.assert_array_equal(array_files.read("float.txt"), SIGNS + 0.25)


def test_a_logical_column_is_no_bool():
    """From MATLAB a logical column may be ids or one class, as zeros and ones may; bool of NumPy says that it is one class."""
    column = (IDS > 1)[:, None]
    scipy.io.savemat("l.mat", {"L": column, "B": np.hstack([column, ~column]), "row": column.T})
    np.save("l.npy", column)
    np.savez("l.npz", L=column)
    for place, dtype in {"l.mat:L": "u1", "l.mat:B": "?", "l.mat:row": "?", "l.npz": "?", "l.npy": "?"}.items():
        assert array_files.read(place).dtype == dtype, place
    np.testing.assert_array_equal(array_files.read("l.mat:L"), column)
    assert data.from_arrays(np.zeros((6, 4, 4), np.uint8), data.read_array("l.npy")).source.labels.classes == 1
    with pytest.raises(InputError, match=r"shape \[n, 1\] and values 0 and 1, which may be .*; in MATLAB, ids \+ 1, "):
        data.from_arrays(np.zeros((6, 4, 4), np.uint8), data.read_array("l.mat:L"))


def test_python_objects_beside_an_array(monkeypatch):
    """Only the array of objects can't be read; the others are read by name, and alone without one. Nothing is unpickled."""
    np.savez("mixed.npz", notes=np.array([{"a": 1}, None], dtype=object), codes=SIGNS)
    monkeypatch.setattr("pickle.load", lambda *args, **kwargs: pytest.fail("was unpickled"))
    for place in ("mixed.npz", "mixed.npz:codes"):
        np.testing.assert_array_equal(array_files.read(place), SIGNS)
    np.savez("objects.npz", notes=np.array([{"a": 1}, None], dtype=object))
    for place in ("mixed.npz:notes", "objects.npz"):
        with pytest.raises(InputError, match=r"notes(' is | \[2\] \()an array of Python objects, which aren't loaded"):
            array_files.read(place)


def test_codes_without_a_name_beside_labels():
    """Only arrays of two dimensions can be codes."""
    np.savez("q.npz", codes=SIGNS, labels=IDS)
    np.testing.assert_array_equal(array_files.read("q.npz", dimensions=(2,)), SIGNS)
    with pytest.raises(InputError, match=re.escape("2 arrays, codes [6, 5], labels [6]; fix: name one, q.npz:codes")):
        array_files.read("q.npz")


def test_names_of_files_with_a_colon():
    """A file of the whole name comes first; an ending in capitals is one; .npy content is read under a text's name."""
    np.save("x.mat:B.npy", IDS)
    np.testing.assert_array_equal(array_files.read("x.mat:B.npy"), IDS)
    Path("B.NPZ").write_bytes(Path("one.npz").read_bytes())
    np.testing.assert_array_equal(array_files.read("B.NPZ"), SIGNS)
    Path("array.txt").write_bytes(Path("B.npy").read_bytes())
    np.testing.assert_array_equal(array_files.read("array.txt"), SIGNS)


def test_files_in_a_store(folder, bucket):
    """Arrays are read by name from an object store."""
    for name in ("two.mat", "B.csv", "two.npz"):
        workdir.write_bytes(array_files.storage.path(f"{bucket}/{name}"), Path(name).read_bytes())
    for place in ("two.mat:B", "B.csv", "two.npz:B"):
        np.testing.assert_array_equal(array_files.read(f"{bucket}/{place}"), SIGNS)


TEXTS = {
    "a header": ("label\n1\n2\n", "line 1 holds 'label', which isn't a number"),
    "a name among the numbers": ("1,0\n0,x\n", "line 2 holds 'x', which isn't a number"),
    "a comment at the end of a line": ("1 0 # yes\n", "line 1 holds '#'"),
    "rows of different lengths": ("# a\n1 0 1\n\n1 0\n", "line 4 has 2 numbers and line 2 has 3"),
    "a comma at the end": ("1,0,\n0,1,\n", "line 1 holds ''"),
    "a missing value": ("1,,0\n", "line 1 holds ''"),
    "not a number": ("1 0\nnan 1\n", "line 2 holds 'nan'"),
    "infinity": ("1 0\n1 1e999\n", "line 2 holds '1e999'"),
    "a decimal comma": ("0,5;1,5\n", "line 1 holds '5;1'"),
    "digits of another script": ("1 \u0663\n", "line 1 holds '\u0663'"),
    "underscores": ("1_0 1\n", "line 1 holds '1_0'"),
    "hexadecimal": ("0x1 1\n", "line 1 holds '0x1'"),
    "complex": ("1+2j 1\n", "line 1 holds '1+2j'"),
    "quotes": ('"1","0"\n', "line 1 holds '\"1\"'"),
    "two signs": ("1 -+1\n", "line 1 holds '-+1'"),
    "nothing": ("", "it holds no numbers"),
    "comments alone": ("# a\n\n# b", "it holds no numbers"),
    "a row that counts the columns": ("0,1,2\n1,-1,1\n-1,1,1\n", "its first row counts the columns"),
    "a column that counts the rows": ("1,0.5,-1\n2,0.5,1\n3,1,-1\n", "its first column counts the rows"),
    "numbers of 64 bits": ("18446744073709551615 1\n", "more than 53 bits"),
}


@pytest.mark.parametrize(("text", "message"), TEXTS.values(), ids=TEXTS.keys())
def test_a_text_that_may_mean_something_else_is_refused(text, message):
    """Each is one line, which names the line of the text."""
    for name in ("t.csv", "t.txt"):
        Path(name).write_text(text)
        with pytest.raises(
            InputError, match=re.escape(f"{name} can't be read as labels: ") + ".*" + re.escape(message)
        ) as raised:
            array_files.read(name, description="labels")
        assert "\n" not in str(raised.value)


def write_bad_files():
    """Files that are wrong, by name."""
    whole = Path("two.npz").read_bytes()
    Path("cut.npz").write_bytes(whole[:-40])
    Path("text.npz").write_text("1 0")
    Path("changed.npz").write_bytes(whole[:60] + b"????" + whole[64:])
    np.savez("objects.npz", a=np.array([{}], dtype=object), b=np.zeros(0))
    with zipfile.ZipFile("other.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.npy", Path("B.npy").read_bytes())
    with zipfile.ZipFile("bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", Path("B.npy").read_bytes())
    content = bytearray(Path("bomb.npz").read_bytes())
    at = content.rindex(b"PK\x01\x02")
    content[at + 24 : at + 28] = (1 << 31).to_bytes(4, "little")
    Path("bomb.npz").write_bytes(content)
    Path("cut.mat").write_bytes(Path("two.mat").read_bytes()[:-40])
    Path("text.mat").write_text("B = [1 0 1]\n" * 30)
    scipy.io.savemat("v4.mat", {"B": SIGNS}, format="4")
    scipy.io.savemat("empty.mat", {"B": np.zeros((0, 0))})
    Path("text.h5").write_text("x" * 700)
    Path("codes.parquet").write_text("x")
    Path("folder.mat").mkdir()


FILES = {
    "several arrays": ("two.mat", "it has 2 arrays, B [6, 5], ids [6, 1]; fix: name one, two.mat:B"),
    "a name that isn't there": ("two.mat:b", "no array 'b'"),
    "a name almost right": ("two.npz:idz", "(did you mean 'ids'?)"),
    "an empty name": ("two.mat:", "no array ''"),
    "text in MATLAB": ("one.mat:note", "'note' is text"),
    "a name of a text": ("B.csv:B", "a .csv file has one array"),
    "a name of .npy": ("B.npy:B", "a .npy file has one array"),
    "a truncated archive": ("cut.npz", "it is damaged"),
    "text as an archive": ("text.npz", "it is damaged"),
    "changed bytes": ("changed.npz:B", "it is damaged"),
    "Python objects": ("objects.npz:a", "'a' is an array of Python objects, which aren't loaded; fix: save it as an array of"),
    "another compression": ("other.npz", "a way that numpy.savez doesn't use"),
    "more than it can unpack to": ("bomb.npz", "unpacks to more than"),
    "a truncated file of MATLAB": ("cut.mat:B", "damaged or cut short"),
    "a script": ("text.mat", "isn't a MATLAB file of version 5"),
    "version 4": ("v4.mat", "save it with -v7"),
    "an empty array": ("empty.mat:B", "the array is empty"),
    "no suitable array": ("empty.mat", "no array of 1 or 2 dimensions with more than one number; it holds B [0, 0]; fix: "),
    "text as HDF5": ("text.h5", "it isn't HDF5"),
    "another format": ("codes.parquet", "expected a name that ends with .npy, .npz"),
    "no file": ("absent.mat", "expected a regular file"),
    "no file of numpy": ("absent.npy", "can't be read as codes"),
    "a folder": ("folder.mat", "expected a regular file"),
    "a name too long": (300 * "a" + ".csv", "can't be read as codes"),
    "a null character": ("a\0.csv", "can't be read as codes"),
}


@pytest.mark.parametrize(("place", "message"), FILES.values(), ids=FILES.keys())
def test_a_bad_file_is_one_line(place, message):
    """It says what is wrong and, where something can be done, what."""
    write_bad_files()
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        array_files.read(place, description="codes")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["two.mat", "B.csv", "two.npz"])
def test_a_file_that_is_too_large_is_not_read(name, monkeypatch):
    """The size is looked at first."""
    monkeypatch.setattr(array_files, "MAX_BYTES", 100)
    monkeypatch.setattr(array_files, "_MAX_TEXT", 10)
    monkeypatch.setattr(array_files.storage, "read", lambda path: pytest.fail("was read"))
    with pytest.raises(InputError, match="expected at most"):
        array_files.read(f"{name}:B" if name != "B.csv" else name)


def test_a_choice_among_many_names_some():
    """Not all names are listed."""
    arrays = [named_arrays.NamedArray(f"a{n}", (3, 4), "", np.array) for n in range(50)]
    with pytest.raises(InputError, match=re.escape("a7 [3, 4], ...; fix: name one, f.mat:a0")):
        named_arrays.choose(arrays, None, file="f.mat", dimensions=(2,))
