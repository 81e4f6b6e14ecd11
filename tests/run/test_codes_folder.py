"""The folder of a run's codes: what is written is read back, and damage is refused."""

import hashlib

import numpy as np
import pytest

from adsq_jax import storage
from adsq_jax.errors import InputError
from adsq_jax.run import codes_folder, workdir

BITS = 12
SIZES = {"query": 20, "database": 110}


def written(folder, *, nets=("f", "g", "sum"), multi_label=False):
    """Write codes and labels that a seed fixes, and return them."""
    random = np.random.default_rng(0)
    packed = {part: {net: random.integers(0, 256, (n, 2), np.uint8) & [255, 15] for net in nets} for part, n in SIZES.items()}
    packed = {part: {net: array.astype(np.uint8) for net, array in by_net.items()} for part, by_net in packed.items()}
    shape = (3,) if multi_label else ()
    labels = {part: random.integers(0, 2, (n, *shape)) for part, n in SIZES.items()}
    rows = {part: random.permutation(n) for part, n in SIZES.items()}
    codes_folder.write(folder, packed, labels, rows, bits=BITS, split_sha256="0")
    return packed, labels, rows


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("nets", [("f",), ("f", "g", "sum")])
def test_what_is_written_is_read_back(nets, multi_label, tmp_path):
    """The same codes, labels and bits; the manifest has the hash of each file, and says what the labels are."""
    packed, labels, rows = written(tmp_path / "codes", nets=nets, multi_label=multi_label)
    read, read_labels, bits = codes_folder.read(tmp_path / "codes")
    assert bits == BITS
    for part in SIZES:
        assert list(read[part]) == list(nets)
        for net in nets:
            np.testing.assert_array_equal(read[part][net], packed[part][net])
        np.testing.assert_array_equal(read_labels[part], labels[part])
        np.testing.assert_array_equal(np.load(tmp_path / "codes" / f"{part}_rows.npy"), rows[part])
    manifest = workdir.read_json(tmp_path / "codes" / "manifest.json")
    assert manifest["labels"] == ("multi-hot" if multi_label else "class ids")
    assert len(manifest["files"]) == 2 * (len(nets) + 2)
    for name, entry in manifest["files"].items():
        array = np.load(tmp_path / "codes" / name)
        assert entry == {
            "shape": list(array.shape),
            "dtype": str(array.dtype),
            "sha256": hashlib.sha256(array.tobytes()).hexdigest(),
        }


def change_a_bit(folder):
    array = np.load(folder / "query_f.npy")
    array[0, 0] ^= 1
    np.save(folder / "query_f.npy", array)


def change_the_manifest(**changes):
    def change(folder):
        workdir.write_json(folder / "manifest.json", {**workdir.read_json(folder / "manifest.json"), **changes})

    return change


def write_the_manifest(text):
    return lambda folder: (folder / "manifest.json").write_text(text)


DAMAGE = {
    "labels of the same bytes in another shape": (
        lambda folder: np.save(folder / "query_labels.npy", np.load(folder / "query_labels.npy")[:, None]),
        r"is not as manifest\.json describes it",
    ),
    "bits that are no whole number": (change_the_manifest(bits=12.5), "not a manifest of codes"),
    "text in place of the files": (change_the_manifest(files="query_f.npy"), "not a manifest of codes"),
    "a name that no file can have": (change_the_manifest(files={"\0": {}}), "not a manifest of codes"),
    "a name that no text can have": (change_the_manifest(files={"\ud800": {}}), "not a manifest of codes"),
    "nothing but brackets": (write_the_manifest("[" * 200_000), "can't be read as JSON"),
    "a number too long": (write_the_manifest("1" * 5_000), "can't be read as JSON"),
    "a bit flipped": (
        change_a_bit,
        r"is not as manifest\.json describes it; fix: .*run the training command again; else restore",
    ),
    "a file gone": (lambda folder: (folder / "database_sum.npy").unlink(), "can't be read"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "can't be read as JSON"),
    "an empty manifest": (write_the_manifest("{}"), "not a manifest of codes"),
    "a list for a manifest": (write_the_manifest("[1]"), "not a manifest of codes"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_codes_are_refused(damage, message, tmp_path):
    """Files that are missing, or not those of the manifest, end in one line."""
    written(tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError, match=message):
        codes_folder.read(tmp_path)


def test_a_manifest_does_not_lead_out_of_its_folder(tmp_path):
    """Names are those that a run writes: no path, and no line end, which a message would show."""
    written(tmp_path / "codes")
    (tmp_path / "codes" / "query_f.npy").rename(tmp_path / "query_f.npy")
    path = tmp_path / "codes" / "manifest.json"
    manifest = workdir.read_json(path)
    described = manifest["files"].pop("query_f.npy")
    for name in ("../query_f.npy", f"{tmp_path}/query_f.npy", "query_f.npy\n", "x\n.npy", "", ".."):
        workdir.write_json(path, {**manifest, "files": {**manifest["files"], name: described}})
        with pytest.raises(InputError, match=r"manifest\.json is not a manifest of codes"):
            codes_folder.read(tmp_path / "codes")


def test_codes_in_a_store(bucket, tmp_path):
    """The same files as on a disk; a file that isn't as the manifest describes it, and a missing manifest, are refused."""
    folder = storage.path(f"{bucket}/run/codes")
    written(folder)
    packed, labels, _ = written(tmp_path)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {name: storage.read(folder / name) for name in storage.entries(folder)} == files
    read, read_labels, bits = codes_folder.read(folder)
    assert bits == BITS
    np.testing.assert_array_equal(read["database"]["sum"], packed["database"]["sum"])
    np.testing.assert_array_equal(read_labels["query"], labels["query"])
    workdir.write_array(folder / "query_f.npy", np.zeros((20, 2), np.uint8))
    with pytest.raises(InputError, match=r"is not as manifest\.json describes it"):
        codes_folder.read(folder)
    with pytest.raises(InputError, match=r"manifest\.json can't be read"):
        codes_folder.read(folder.parent)
