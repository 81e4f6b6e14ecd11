"""Arrays from HDF5, by h5py and as MATLAB writes them; data elsewhere, links and unwritten data are refused."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from adsq_jax.errors import InputError
from adsq_jax.run import array_files, hdf5_files

SIGNS = np.random.default_rng(0).choice(np.array([-1, 1], np.int8), (6, 5))


@pytest.fixture
def h5py(tmp_path, monkeypatch):
    """The library; the current folder is an empty one."""
    monkeypatch.chdir(tmp_path)
    return pytest.importorskip("h5py")


def write_matlab(h5py, name, **arrays):
    """Write as MATLAB does: 512 bytes of text first, shapes from the last axis to the first, and each array's class."""
    with h5py.File(name, "w", userblock_size=512) as file:
        for key, (array, kind) in arrays.items():
            file[key] = array.T
            file[key].attrs["MATLAB_class"] = np.bytes_(kind)
    content = bytearray(Path(name).read_bytes())
    content[:19] = b"MATLAB 7.3 MAT-file"
    Path(name).write_bytes(content)


@pytest.mark.parametrize("dtype", ["f8", "f4", ">f8", "i1", "u2", "<i8", "?"])
@pytest.mark.parametrize("options", [{}, {"chunks": (2, 4), "compression": "gzip"}], ids=["whole", "in chunks"])
def test_arrays_of_h5py(h5py, dtype, options):
    """By name, in a group, and without a name where there is one; the shape is the file's own."""
    array = SIGNS.astype(dtype)
    with h5py.File("one.h5", "w") as file:
        file.create_dataset("train/B", data=array, **options)
    for place in ("one.h5", "one.h5:train/B"):
        np.testing.assert_array_equal(array_files.read(place), array)
    with h5py.File("one.h5", "a") as file:
        file["labels"] = np.arange(6)
    with pytest.raises(InputError, match=re.escape("labels [6], train/B [6, 5]; fix: name one, one.h5:labels")):
        array_files.read("one.h5")
    np.testing.assert_array_equal(array_files.read("one.h5", dimensions=(2,)), array)


def test_arrays_of_matlab(h5py):
    """They have the shape that they have in MATLAB; logical is bool, text is refused."""
    write_matlab(
        h5py,
        "v73.mat",
        B=(SIGNS.astype(float), "double"),
        L=((SIGNS > 0).astype(np.uint8), "logical"),
        text=(np.array([[97, 98]], np.uint16), "char"),
        cells=(np.ones((2, 2)), "cell"),
    )
    np.testing.assert_array_equal(array_files.read("v73.mat:B"), SIGNS)
    write_matlab(h5py, "column.mat", L=((SIGNS[:, :1] > 0).astype(np.uint8), "logical"))
    assert array_files.read("column.mat").dtype == np.uint8  # which may be ids, or one class
    np.testing.assert_array_equal(array_files.read("column.mat"), SIGNS[:, :1] > 0)
    logical = array_files.read("v73.mat:L")
    assert logical.dtype == bool
    np.testing.assert_array_equal(logical, SIGNS > 0)
    for name in ("text", "cells"):
        with pytest.raises(InputError, match=f"'{name}' is MATLAB's"):
            array_files.read(f"v73.mat:{name}")


def test_what_lies_outside_is_not_opened(h5py):
    """Links to files and to names, data in other files, and virtual data."""
    np.save("secret.npy", SIGNS)
    with h5py.File("other.h5", "w") as file:
        file["B"] = SIGNS
    layout = h5py.VirtualLayout((6, 5), "i1")
    layout[:] = h5py.VirtualSource("other.h5", "B", shape=(6, 5))
    with h5py.File("links.h5", "w") as file:
        file["external"] = h5py.ExternalLink("other.h5", "B")
        file["soft"] = h5py.SoftLink("/soft")
        file.create_dataset("stored", (6, 5), "i1", external=[("secret.npy", 128, 30)])
        file.create_virtual_dataset("virtual", layout)
    for name, message in {
        "external": "no array",
        "soft": "no array",
        "stored": "other files",
        "virtual": "other files",
    }.items():
        with pytest.raises(InputError, match=message):
            array_files.read(f"links.h5:{name}")


def test_groups_with_many_names(h5py):
    """A group that 20 links lead to, from itself and from below, is read once: otherwise there would be 20^8 names."""
    with h5py.File("circle.h5", "w") as file:
        for name in [f"{k:02d}" for k in range(20)]:
            file[f"a/{name}"] = file.require_group("a")
            file[f"a/b/{name}"] = file.require_group("a/b")
        file["a/b/B"] = SIGNS
        file["a/b/root"] = file["/"]
    visited = []
    visit = h5py.Group.__iter__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(h5py.Group, "__iter__", lambda group: visited.append(group.name) or visit(group))
        patch.setattr(hdf5_files, "_DEEPEST", 3)  # deep enough to count, not to wait
        np.testing.assert_array_equal(array_files.read("circle.h5:a/b/B"), SIGNS)
    assert visited == ["/", "/a", "/a/b"]
    np.testing.assert_array_equal(array_files.read("circle.h5"), SIGNS)


def test_groups_of_groups(h5py):
    """An array below as many groups as are read is found, also where a link from deeper leads to its group first."""
    below = "/".join("abcdefgh")
    with h5py.File("deep.h5", "w") as file:
        file[f"{below}/B"] = SIGNS
        file[f"{below}/i/C"] = SIGNS
        file["z/y/B"] = SIGNS
        file[f"{below[:-2]}/z"] = file["z"]  # whose own group would be too deep
    np.testing.assert_array_equal(array_files.read(f"deep.h5:{below}/B"), SIGNS)
    np.testing.assert_array_equal(array_files.read("deep.h5:z/y/B"), SIGNS)
    with pytest.raises(InputError, match="no array"):
        array_files.read(f"deep.h5:{below}/i/C")


def test_what_was_never_written_is_not_zeros(h5py):
    """An array that is only announced, or of which a chunk is missing."""
    with h5py.File("part.h5", "w") as file:
        file.create_dataset("none", (6, 5), "i1")
        file.create_dataset("some", (6, 5), "i1", chunks=(2, 5))[:2] = 1
        file.create_dataset("large", (2**40, 5), "i1", chunks=(2, 5))
    for name, message in {"none": "incomplete", "some": "incomplete", "large": "at most"}.items():
        with pytest.raises(InputError, match=message):
            array_files.read(f"part.h5:{name}")


def test_other_types_and_damage(h5py):
    """Text, references, complex numbers and enumerations aren't numbers; a file cut short is damaged."""
    with h5py.File("types.h5", "w") as file:
        file["text"] = ["a", "b"]
        file["complex"] = np.eye(3) * 1j
        file.create_dataset("enum", data=[0, 1], dtype=h5py.enum_dtype({"a": 0, "b": 1}, "i1"))
        file["reference"] = file["text"].ref
        file["empty"] = h5py.Empty("f4")
    for name in ("text", "complex", "enum", "reference", "empty"):
        with pytest.raises(InputError, match=f"'{name}' is "):
            array_files.read(f"types.h5:{name}")
    Path("cut.h5").write_bytes(Path("types.h5").read_bytes()[:1500])
    with pytest.raises(InputError, match="it is damaged"):
        array_files.read("cut.h5")


def test_without_h5py(tmp_path, monkeypatch):
    """One line that says how to install it."""
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "a.mat").write_bytes(bytes(512) + b"\x89HDF\r\n\x1a\n")
    with pytest.raises(InputError, match=re.escape("needs h5py; fix: pip install 'adsq_jax[hdf5]'")):
        array_files.read(tmp_path / "a.mat")
