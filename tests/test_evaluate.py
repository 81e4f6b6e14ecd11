"""The evaluator's command line, in processes of its own: anyone's codes, a run's codes, and bad input."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import mock_data
import numpy as np
import pytest

from adsq_jax import retrieval, storage
from adsq_jax.inference import evaluation
from adsq_jax.run import workdir

ROOT = Path(__file__).parent.parent
BITS = 20


def run(*arguments, folder, environment=None):
    return subprocess.run(
        [sys.executable, "-m", "adsq_jax.evaluate", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **(environment or {})},
    )


def data(classes=4):
    random = np.random.default_rng(0)
    centres = random.normal(size=(classes, BITS))
    labels = {"query": random.integers(0, classes, 30), "database": random.integers(0, classes, 200)}
    return {part: (centres[of] + random.normal(size=(len(of), BITS))).astype(np.float32) for part, of in labels.items()}, labels


@pytest.fixture
def folder(tmp_path):
    """A folder of Q.npy, D.npy, QL.npy, DL.npy: relaxed codes and class ids."""
    codes, labels = data()
    for part, letter in (("query", "Q"), ("database", "D")):
        np.save(tmp_path / f"{letter}.npy", codes[part])
        np.save(tmp_path / f"{letter}L.npy", labels[part])
    return tmp_path


FILES = ("--query_codes=Q.npy", "--database_codes=D.npy", "--query_labels=QL.npy", "--database_labels=DL.npy")


def test_files_in_table_and_json_out(folder):
    """All figures of the JSON are those of retrieval.measure on one device; the table shows them."""
    done = run(*FILES, "--map_at=5,all", "--legacy", "--out=r.json", folder=folder)
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "r.json").read_text())
    codes, labels = data()
    expected = retrieval.measure(
        codes["query"],
        codes["database"],
        query_labels=labels["query"],
        database_labels=labels["database"],
        cutoffs=[5, "all"],
        with_legacy=True,
    )
    for name, value in expected.to_dict().items():
        assert found[name] == json.loads(json.dumps(value)), name
    assert f"{found['metrics']['5']['map_legacy_deephash']:.4f}" in done.stdout
    assert {"date", "versions", "machine", "files", "seconds_evaluate"} <= found.keys()


def test_every_way_to_write_codes_gives_the_same(folder):
    """Float, -1 and +1, 0 and 1, and packed codes; ids and one-hot labels: one table, as far as it goes."""
    tables = [run(*FILES, folder=folder)]
    for part in "QD":
        relaxed, ids = np.load(folder / f"{part}.npy"), np.load(folder / f"{part}L.npy")
        np.save(folder / f"{part}_signs.npy", np.where(relaxed < 0, -1, 1).astype(np.int8))
        np.save(folder / f"{part}_binary.npy", relaxed >= 0)
        np.save(folder / f"{part}_packed.npy", np.packbits(relaxed >= 0, axis=1, bitorder="little"))
        np.save(folder / f"{part}L_hot.npy", np.eye(4, dtype=np.float32)[ids])
    for way in ("signs", "binary", "packed"):
        bits = ["--bits=20"] if way == "packed" else []
        codes = (f"--query_codes=Q_{way}.npy", f"--database_codes=D_{way}.npy")
        tables.append(run(*FILES, *codes, *bits, folder=folder))
    assert len({done.stdout for done in tables}) == 1
    assert "mAP" in tables[0].stdout
    hot = run(*FILES, "--query_labels=QL_hot.npy", "--database_labels=DL_hot.npy", folder=folder)
    lines = hot.stdout.splitlines()
    assert [line for line in lines if not line.startswith(("NDCG", "ACG"))] == tables[0].stdout.splitlines()
    assert len(lines) == len(tables[0].stdout.splitlines()) + 2


def bad_files(folder):
    """Files that are wrong, by name."""
    good = np.load(folder / "Q.npy")
    np.save(folder / "narrow.npy", good[:, :7])
    np.save(folder / "nan.npy", np.where(good == good[3, 3], np.nan, good))
    np.save(folder / "three.npy", np.where(good < 0, 0, 2).astype(np.int8))
    np.save(folder / "packed.npy", np.full((30, 3), 255, np.uint8))
    np.save(folder / "negative.npy", -np.ones(30, int))
    np.save(folder / "objects.npy", np.array([{"a": 1}] * 30, dtype=object), allow_pickle=True)
    np.save(folder / "nothing.npy", np.zeros((0, BITS)))
    np.save(folder / "scalar.npy", np.float32(3))
    (folder / "empty.npy").write_bytes(b"")
    (folder / "cut.npy").write_bytes((folder / "Q.npy").read_bytes()[:-100])
    (folder / "head.npy").write_bytes((folder / "Q.npy").read_bytes()[:40])
    (folder / "text.npy").write_text("1 0 1\n")
    np.savez(folder / "several.npz", good)
    (folder / "link").symlink_to("nowhere")


def contents(folder):
    return {path: path.readlink() if path.is_symlink() else path.read_bytes() for path in folder.iterdir()}


BAD = {
    "shapes": (["--query_codes=narrow.npy"], "7 bits and database codes 20"),
    "NaN": (["--query_codes=nan.npy"], "hold NaN"),
    "three values": (["--query_codes=three.npy"], "expected two values"),
    "no codes": (["--query_codes=nothing.npy"], "at least one row"),
    "a scalar": (["--query_codes=scalar.npy"], "expected a matrix"),
    "bits that do not fit": (["--bits=20"], "packed codes of 20 bits are uint8"),
    "bits beyond": (["--bits=20", "--query_codes=packed.npy", "--database_codes=packed.npy"], "beyond the 20th"),
    "no bits at all": (["--bits=0"], "whole number from 1 to 256"),
    "a negative label": (["--query_labels=negative.npy"], "no class ids"),
    "labels of another size": (["--query_labels=DL.npy"], "200 rows for 30 codes"),
    "objects": (["--query_labels=objects.npy"], "can't be read as --query_labels"),
    "an empty file": (["--query_codes=empty.npy"], "can't be read as --query_codes"),
    "a truncated file": (["--query_codes=cut.npy"], "can't be read as --query_codes"),
    "a truncated header": (["--query_codes=head.npy"], "can't be read as --query_codes"),
    "text": (["--query_codes=text.npy"], "can't be read as --query_codes"),
    "an archive": (["--query_codes=several.npz"], "can't be read as --query_codes"),
    "no file": (["--query_codes=absent.npy"], "can't be read as --query_codes"),
    "a folder": (["--query_codes=."], "can't be read as --query_codes"),
    "a cutoff of 0": (["--map_at=0"], "expected 'all' or a rank"),
    "no cutoff": (["--map_at=5,"], "expected 'all' or a rank"),
    "a run as well": (["--workdir=."], "give --workdir=DIR, or all of"),
    "a result that is there": (["--out=Q.npy"], "nothing was overwritten"),
    "no folder for the result": (["--out=absent/r.json"], "make it first"),
    "a link that leads nowhere for the result": (["--out=link"], "nothing was overwritten"),
    "a place that can't be written": (["--out=/proc/r.json"], "can't be written"),
    "a folder for the result": (["--out=new/"], "expected a file"),
    "a name too long": (["--query_codes=" + 300 * "a"], "can't be read as --query_codes"),
    "a name of the result too long": (["--out=" + 300 * "a"], "can't be written"),
    "an empty path": (["--query_codes="], "a path is empty"),
    "an unknown flag": (["--cutoff=3"], "cutoff"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line_and_exit_status_2(arguments, message, folder):
    """The line says what is wrong; nothing is written or changed."""
    bad_files(folder)
    before = contents(folder)
    done = run(*FILES, *arguments, folder=folder)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --workdir=DIR, or all of"),
        (FILES[:3], "give --workdir=DIR, or all of"),
        (["--workdir=."], "holds no finished run"),
        (["--workdir=.", "--bits=20"], "a run knows its own"),
    ],
)
def test_flags_that_do_not_go_together(arguments, message, folder):
    """Neither a run nor files, not all files, a folder without a run, and bits of a run: one line."""
    done = run(*arguments, folder=folder)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_pickle_is_never_run(folder):
    """A file that would run code when unpickled does not."""

    class Payload:
        def __reduce__(self):
            return (Path.touch, (folder / "ran",))

    np.save(folder / "QL.npy", np.array([Payload()], dtype=object), allow_pickle=True)
    assert run(*FILES, folder=folder).returncode == 2
    assert not (folder / "ran").exists()


DAMAGED = {
    "no JSON": "{",
    "a list": "[]",
    "an empty result": "{}",
    "a cutoff that is no text": '{"query_net": "ff", "map_at": 5}',
    "a query net that is not there": '{"query_net": "gf", "map_at": "all"}',
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_run_whose_result_is_damaged_is_refused(content, folder):
    """One line, and nothing is written."""
    codes, labels = data()
    known = dict.fromkeys(("protocol", "split_sha256", "seed", "method", "config_sha256", "n_train"), 0)
    if content.startswith('{"'):
        content = json.dumps({**json.loads(content), **known})
    (folder / "result.json").write_text(content)
    (folder / "codes").mkdir()
    files = {}
    for part in codes:
        arrays = {"f": np.packbits(codes[part] > 0, axis=1, bitorder="little"), "labels": labels[part]}
        for name, array in arrays.items():
            np.save(folder / "codes" / f"{part}_{name}.npy", array)
            digest = hashlib.sha256(array.tobytes()).hexdigest()
            files[f"{part}_{name}.npy"] = {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": digest}
    (folder / "codes" / "manifest.json").write_text(json.dumps({"bits": BITS, "files": files}))
    done = run("--workdir=.", folder=folder)
    assert done.returncode == 2
    assert "result.json" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (folder / "evaluation.json").exists()


def in_store(*arguments, folder):
    """The same command, with the address and the credentials of the store that the fixture has set."""
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    return run(*arguments, folder=folder, environment=environment)


def test_files_in_a_store(folder, bucket):
    """Codes are read from an object store, and figures are written to one, where nothing is overwritten."""
    place = mock_data.upload(folder, f"{bucket}/codes")
    files = [flag.replace("=", f"={place}/") for flag in FILES]
    here, there = run(*FILES, "--out=r.json", folder=folder), in_store(*files, f"--out={bucket}/r.json", folder=folder)
    assert there.returncode == 0, there.stderr
    assert there.stdout.splitlines()[:-1] == here.stdout.splitlines()[:-1]
    found, expected = json.loads(storage.read(storage.path(f"{bucket}/r.json"))), json.loads((folder / "r.json").read_text())
    assert found["metrics"] == expected["metrics"]
    again = in_store(*files, f"--out={bucket}/r.json", folder=folder)
    assert again.returncode == 2
    assert "is there already" in again.stderr


def test_a_run_in_a_store(folder, bucket):
    """A finished run of an object store is measured, and its evaluation.json is written beside."""
    codes, labels = data()
    packed = {part: {"f": np.packbits(x >= 0, axis=1, bitorder="little")} for part, x in codes.items()}
    rows = {part: np.arange(len(x)) for part, x in codes.items()}
    directory = storage.path(f"{bucket}/run")
    evaluation._write_codes(directory / "codes", packed, labels, rows, bits=BITS, split_sha256="0")
    known = dict.fromkeys(("protocol", "split_sha256", "seed", "method", "config_sha256", "n_train"), 0)
    assert "holds no finished run" in in_store(f"--workdir={directory}", folder=folder).stderr
    workdir.write_json(directory / "result.json", {**known, "query_net": "ff", "map_at": "all"})
    done = in_store(f"--workdir={directory}", folder=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"written to {directory}/evaluation.json"
    assert "all" in workdir.read_json(directory / "evaluation.json")["metrics"]


def test_a_store_that_refuses(folder, refused):
    """Without credentials, one line for each way to name the store."""
    for arguments in (
        (f"--workdir={refused}/run",),
        (*FILES, f"--out={refused}/r.json"),
        (*FILES, f"--query_codes={refused}/Q"),
    ):
        done = in_store(*arguments, folder=folder)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert "Unable to locate credentials" in done.stderr
