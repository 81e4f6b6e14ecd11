"""Codes of runs and indexes as files: whoever evaluates them finds what this project finds."""

import csv
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from support import mock_data
from support.engines import embedded

from adsq_jax import codes, evaluate, index, storage
from adsq_jax.errors import InputError
from adsq_jax.export import codes as codes_files
from adsq_jax.run import array_output, codes_folder, workdir

BITS = 12
KNOWN = dict.fromkeys(("protocol", "split_sha256", "seed", "method", "config_sha256", "n_train"), 0)
NAMES = ("query_codes", "database_codes", "query_labels", "database_labels")
SUFFIXES = (".npy", ".npz", ".mat", ".csv", ".txt")
APART = (".npy", ".csv", ".txt")


def make_labels(kind):
    """Labels of 20 queries and 60 items."""
    if kind == "ids of one class":
        return np.zeros(80, np.int64)
    ids = np.random.default_rng(1).integers(0, 2 if kind == "two classes" else 4, 80)
    if kind == "several labels":
        return np.eye(4, dtype=np.uint8)[ids] | np.eye(4, dtype=np.uint8)[ids[::-1]]
    if kind == "one class":
        return (ids > 1)[:, None]
    return ids


def write_run(directory, labels):
    """Write the codes and the result of a run with a twin, whose result is of f against g."""
    random = np.random.default_rng(0)
    signs = {net: random.choice([-1, 1], (80, BITS)) for net in ("f", "g", "sum")}
    for net in signs:
        signs[net][:, :2] = np.where(labels.reshape(80, -1)[:, :1] > 0, 1, -1)
    parts = {"query": slice(20), "database": slice(20, 80)}
    codes_folder.write(
        directory / "codes",
        {part: {net: codes.pack(x[rows]) for net, x in signs.items()} for part, rows in parts.items()},
        {part: labels[rows] for part, rows in parts.items()},
        {part: np.arange(80)[rows] for part, rows in parts.items()},
        bits=BITS,
        split_sha256="0",
    )
    workdir.write_json(directory / "result.json", {**KNOWN, "query_net": "fg", "map_at": "all"})
    return signs


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a run in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    write_run(tmp_path / "run", make_labels("ids"))
    return tmp_path


@pytest.mark.parametrize("kind", ["ids", "two classes", "several labels", "one class", "ids of one class"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_was_written_evaluates_as_the_run(suffix, kind, tmp_path, capsys):
    """Each format, each kind of labels, from the files alone: the same mAP, counts and bits."""
    write_run(tmp_path, make_labels(kind))
    codes_files.main([str(tmp_path), f"--out={tmp_path}/x{suffix}"])
    places = {name: f"{tmp_path}/x_{name}{suffix}" if suffix in APART else f"{tmp_path}/x{suffix}:{name}" for name in NAMES}
    ours = evaluate.evaluate_files(**places, on_progress=lambda pairs: None)
    last = capsys.readouterr().out.splitlines()[-1]
    flags = dict(flag[2:].split("=") for flag in shlex.split(last.removeprefix("measure them: adsq evaluate ")))
    assert flags == places
    run = evaluate.evaluate_run(tmp_path, on_progress=lambda pairs: None)
    for figure in ("map", "map_best", "map_worst", "map_answerable"):
        assert ours["metrics"]["all"][figure] == run["metrics"]["all"][figure]
    for figure in ("bits", "n_query", "n_database", "precision_recall", "n_queries_without_relevant"):
        assert ours[figure] == run[figure]


@pytest.mark.parametrize("query_net", [None, *codes.QUERY_NETS])
def test_codes_of_every_query_net(query_net, tmp_path):
    """From Python: the signs and labels that the run was made of, of the result's networks or of those asked for."""
    labels = make_labels("several labels")
    signs = write_run(tmp_path, labels)
    arrays = codes_files.read_codes(tmp_path, query_net=query_net)
    assert set(arrays) == set(NAMES)
    query, database = codes.QUERY_NETS[query_net or "fg"]
    np.testing.assert_array_equal(arrays["query_codes"], signs[query][:20])
    np.testing.assert_array_equal(arrays["database_codes"], signs[database][20:])
    np.testing.assert_array_equal(arrays["database_labels"], labels[20:])
    assert arrays["query_codes"].dtype == np.int8


def test_names_of_classes(folder):
    """Those of the result, if it has them and they are texts; MATLAB gets cells, text a line for each."""
    known = workdir.read_json(folder / "run" / "result.json")
    for names in ([1, 2], "abcd", [], None):
        workdir.write_json(folder / "run" / "result.json", {**known, "class_names": names})
        assert "label_names" not in codes_files.read_codes("run")
    workdir.write_json(folder / "run" / "result.json", {**known, "class_names": ["ä", "b c", "d,e", "f"]})
    for suffix in (".mat", ".csv", ".txt"):
        codes_files.export_codes("run", f"x{suffix}")
    assert [name[0] for name in scipy.io.loadmat("x.mat")["label_names"][:, 0]] == ["ä", "b c", "d,e", "f"]
    assert Path("x_label_names.csv").read_text() == 'ä\nb c\n"d,e"\nf\n'
    assert Path("x_label_names.txt").read_text() == "ä\nb c\nd,e\nf\n"


def test_other_programs_read_them(folder, capsys):
    """NumPy, SciPy and Python's csv see codes of -1 and +1, and the command says where."""
    expected = codes_files.read_codes("run")
    for suffix in SUFFIXES:
        codes_files.main(["run", f"--out=x{suffix}"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["x_query_codes.npy: query_codes [20, 12]", "x_query_labels.npy: query_labels [20]"]
    with np.load("x.npz") as archive:
        assert set(archive) == set(NAMES)
        np.testing.assert_array_equal(archive["query_codes"], expected["query_codes"])
    matlab = scipy.io.loadmat("x.mat")
    np.testing.assert_array_equal(matlab["database_codes"], expected["database_codes"])
    np.testing.assert_array_equal(matlab["query_labels"], expected["query_labels"][:, None])
    rows = list(csv.reader(Path("x_database_codes.csv").read_text().splitlines()))
    np.testing.assert_array_equal(np.array(rows, int), expected["database_codes"])
    assert Path("x_query_labels.txt").read_text().split() == [str(number) for number in expected["query_labels"]]


ITEMS = [
    index.Item("/b, c.png", ("cat",)),
    index.Item("/a.png", ("ant",)),
    index.Item("/ä.png", ("cat",)),
]


def write_index(folder, name, items):
    packed = np.arange(2 * len(items), dtype=np.uint8).reshape(-1, 2)
    packed[:, 1] &= 15
    with embedded(folder).create(name, bits=BITS) as opened:
        opened.add(items, packed)
    return dict(zip((item.id for item in items), codes.unpack(packed, bits=BITS), strict=True))


def test_an_index(tmp_path, monkeypatch, capsys):
    """Items by id, with the ids of their labels' names; text, MATLAB and NumPy agree, and evaluate as the command says."""
    monkeypatch.chdir(tmp_path)
    expected = write_index(tmp_path, "index", ITEMS)
    arrays = codes_files.read_codes("index")
    assert arrays["ids"].tolist() == sorted(expected)
    np.testing.assert_array_equal(arrays["codes"], [expected[name] for name in sorted(expected)])
    assert arrays["label_names"][arrays["labels"]].tolist() == ["ant", "cat", "cat"]
    for suffix in SUFFIXES:
        codes_files.main(["index", f"--out=x{suffix}"])
        *_, last = capsys.readouterr().out.splitlines()
        evaluate.main(shlex.split(last.removeprefix("measure them: adsq evaluate ")))
        assert "3 / 2, 12" in capsys.readouterr().out
        place = "x{0}:{1}" if suffix in (".npz", ".mat") else "x_{1}{0}"
        given = {f"{side}_{kind}": place.format(suffix, kind) for kind in ("codes", "labels") for side in ("query", "database")}
        assert evaluate.evaluate_files(**given, on_progress=lambda pairs: None)["n_query"] == 3
    assert [row[0] for row in csv.reader(Path("x_ids.csv").read_text().splitlines())] == sorted(expected)
    assert Path("x_ids.txt").read_text().splitlines() == sorted(expected)
    assert [name[0] for name in scipy.io.loadmat("x.mat")["ids"][:, 0]] == sorted(expected)
    with np.load("x.npz") as archive:
        assert archive["ids"].tolist() == sorted(expected)


def test_an_index_with_several_labels_an_item_or_none(tmp_path, capsys):
    """Multi-hot columns in the order of the names; without any label there are no labels."""
    write_index(tmp_path, "several", [index.Item("/a", ("x", "y")), index.Item("/b"), index.Item("/c", ("y",))])
    arrays = codes_files.read_codes(tmp_path / "several")
    assert arrays["label_names"].tolist() == ["x", "y"]
    assert arrays["labels"].tolist() == [[True, True], [False, False], [False, True]]
    write_index(tmp_path, "none", [index.Item("/a"), index.Item("/b")])
    assert set(codes_files.read_codes(str(tmp_path / "none"))) == {"codes", "ids"}
    codes_files.main([str(tmp_path / "none"), f"--out={tmp_path}/x.npz"])
    assert capsys.readouterr().out.splitlines()[1:] == [f"{tmp_path}/x.npz: ids [2]"]


def test_a_run_in_a_store(folder, bucket):
    """Codes are read from an object store, and written to one, where nothing is overwritten."""
    address = mock_data.upload(folder / "run", f"{bucket}/run")
    codes_files.export_codes(address, f"{bucket}/x.npz")
    with np.load(io.BytesIO(storage.read(storage.path(f"{bucket}/x.npz")))) as archive:
        np.testing.assert_array_equal(archive["query_codes"], codes_files.read_codes("run")["query_codes"])
    with pytest.raises(InputError, match="nothing was overwritten"):
        codes_files.export_codes(address, f"{bucket}/x.npz")
    with pytest.raises(InputError, match="neither a finished run nor an index"):
        codes_files.read_codes(f"{bucket}/nothing")


def spoil(folder):
    (folder / "there_database_codes.csv").write_text("mine")
    (folder / "there.npz").write_text("mine")
    (folder / "empty").mkdir()
    (folder / "unfinished" / "codes").mkdir(parents=True)
    for path in (folder / "run" / "codes").iterdir():
        (folder / "unfinished" / "codes" / path.name).write_bytes(path.read_bytes())
    (folder / "listed").mkdir()
    write_run(folder / "listed", make_labels("ids"))
    (folder / "listed" / "result.json").write_text("[]")
    (folder / "damaged" / "codes").mkdir(parents=True)
    (folder / "damaged" / "codes" / "manifest.json").write_text("{}")
    write_index(folder, "an_index", ITEMS)
    write_index(folder, "lines", [index.Item("/a\nb")])
    write_index(folder, "nothing", [])


BAD = {
    "no --out": (["run"], "expected --out=FILE"),
    "no place": (["--out=x.npz"], "expected RUN_OR_INDEX"),
    "an unknown ending": (["run", "--out=x.xls"], "expected a name that ends with .npy, .csv, .txt, .npz, .mat"),
    "a file that is there": (["run", "--out=there.npz"], "nothing was overwritten"),
    "one of several files is there": (["run", "--out=there.csv"], "there_database_codes.csv is there already"),
    "no folder for it": (["run", "--out=absent/x.npz"], "make the folder first"),
    "neither run nor index": (["empty", "--out=x.npz"], "neither a finished run nor an index"),
    "no folder": (["absent", "--out=x.npz"], "neither a finished run nor an index"),
    "a run that isn't finished": (["unfinished", "--out=x.npz"], "result.json"),
    "a damaged result": (["listed", "--out=x.npz"], "is not the result of a run"),
    "a damaged run": (["damaged", "--out=x.npz"], "not a manifest of codes"),
    "an unknown query net": (["run", "--query_net=x", "--out=x.npz"], "expected one of ff, gg, fg, sum"),
    "a query net of an index": (["an_index", "--query_net=ff", "--out=x.npz"], "goes with a run"),
    "an id with a line break": (["lines", "--out=x.txt"], "a line break, which a .txt can't hold"),
    "an empty index": (["nothing", "--out=x.npz"], "is an empty index"),
    "an index on no server": (["http://127.0.0.1:9/x", "--out=x.npz"], "127.0.0.1:9"),
    "an empty place": (["", "--out=x.npz"], "expected"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line(arguments, message, folder):
    """The line says what is wrong; nothing is written or changed."""
    spoil(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        codes_files.main(arguments)
    assert "\n" not in str(raised.value)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_what_fails_half_way_leaves_nothing(folder, monkeypatch):
    """Of several files none stays if the disk is full at the third."""
    write, written = workdir.write_bytes, []

    def failing(path, content):
        if content:
            written.append(path)
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(workdir, "write_bytes", failing)
    with pytest.raises(InputError, match="No space left"):
        codes_files.export_codes("run", "x.csv")
    assert len(written) == 3
    assert not list(folder.glob("*.csv"))


def test_arrays_that_a_format_cannot_hold(folder, monkeypatch):
    """Only .npy has no limit."""
    monkeypatch.setattr("adsq_jax.run.array_output.MAX_BYTES", 100)
    for suffix in SUFFIXES[1:]:
        with pytest.raises(InputError, match=r"too many for a .*; fix: give --out=FILE\.npy"):
            codes_files.export_codes("run", f"x{suffix}")
    codes_files.export_codes("run", "x.npy")


def test_an_archive_holds_the_arrays_alone(folder, monkeypatch):
    """With NumPy 2.0 too, for which each named argument of savez is an array."""
    given, savez = [], np.savez_compressed
    monkeypatch.setattr(np, "savez_compressed", lambda file, **arrays: given.extend(arrays) or savez(file, **arrays))
    codes_files.export_codes("run", "x.npz")
    assert sorted(given) == sorted(NAMES)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_python_objects_are_not_written(tmp_path, suffix):
    """Nothing is pickled into a file, of any format."""
    file = tmp_path / f"x{suffix}"
    with pytest.raises(InputError, match="ids holds Python objects: expected numbers or strings; fix: convert it"):
        array_output.write({"ids": file}, {"ids": np.array([{}, None], dtype=object)})
    assert not list(tmp_path.iterdir())


def test_the_command_by_itself(folder):
    """`adsq codes` ends with status 0, and with 2 and one line where the file is there."""
    command = [sys.executable, "-m", "adsq_jax", "codes", "run", "--out=x.csv"]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 5
    again = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert (again.returncode, again.stdout, again.stderr.count("\n")) == (2, "", 1)
