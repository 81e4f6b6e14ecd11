"""The evaluator's command line and its functions: anyone's codes, a run's codes, and bad input."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.io
from support import mock_data

from adsq_jax import evaluate, retrieval, storage
from adsq_jax.errors import InputError
from adsq_jax.run import codes_folder, workdir

ROOT = Path(__file__).parent.parent
BITS = 20


def run_process(*arguments, folder):
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "adsq_jax.evaluate", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
    )


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """A function that calls the command in the folder and returns what it prints."""
    jax.devices()  # the command must not change their number for other tests
    monkeypatch.chdir(folder)

    def call(*arguments):
        evaluate.main(arguments)
        return capsys.readouterr().out

    return call


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
    done = run_process(*FILES, "--map_at=5,all", "--legacy", "--out=r.json", folder=folder)
    assert done.returncode == 0, done.stderr
    figures = json.loads((folder / "r.json").read_text())
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
        assert figures[name] == json.loads(json.dumps(value)), name
    assert f"{figures['metrics']['5']['map_legacy_deephash']:.4f}" in done.stdout
    assert {"date", "versions", "machine", "files", "seconds_evaluate"} <= figures.keys()


def test_files_from_python(folder):
    """Labels may be strings; progress adds up to all pairs, twice with the pass of published code."""
    codes, labels = data()
    for part in labels:
        np.save(folder / f"{part}_names.npy", np.array(["ant", "bee", "cat", "dog"])[labels[part]])
    progress = []
    figures = evaluate.evaluate_files(
        folder / "Q.npy",
        str(folder / "D.npy"),
        query_labels=folder / "query_names.npy",
        database_labels=folder / "database_names.npy",
        map_at=[5, "all"],
        legacy=True,
        on_progress=progress.append,
    )
    expected = retrieval.measure(
        *codes.values(), query_labels=labels["query"], database_labels=labels["database"], cutoffs=[5, "all"], with_legacy=True
    ).to_dict()
    for measured in expected["metrics"].values():
        measured["map_by_class"] = {["ant", "bee", "cat", "dog"][int(k)]: v for k, v in measured["map_by_class"].items()}
    assert figures.items() >= expected.items()
    assert figures["files"]["query_codes"] == str(folder / "Q.npy")
    assert sum(progress) == 2 * 30 * 200


def test_codes_of_every_form_give_the_same(folder, run):
    """Float, -1 and +1, 0 and 1, and packed codes; ids and one-hot labels: one table, but for the graded figures."""
    tables = [run(*FILES)]
    for part in "QD":
        relaxed, ids = np.load(folder / f"{part}.npy"), np.load(folder / f"{part}L.npy")
        np.save(folder / f"{part}_signs.npy", np.where(relaxed < 0, -1, 1).astype(np.int8))
        np.save(folder / f"{part}_binary.npy", relaxed >= 0)
        np.save(folder / f"{part}_packed.npy", np.packbits(relaxed >= 0, axis=1, bitorder="little"))
        np.save(folder / f"{part}L_hot.npy", np.eye(4, dtype=np.float32)[ids])
    for form in ("signs", "binary", "packed"):
        bits = ["--bits=20"] if form == "packed" else []
        tables.append(run(*FILES, f"--query_codes=Q_{form}.npy", f"--database_codes=D_{form}.npy", *bits))
    assert len(set(tables)) == 1
    assert "mAP" in tables[0]
    lines = run(*FILES, "--query_labels=QL_hot.npy", "--database_labels=DL_hot.npy").splitlines()
    assert [line for line in lines if not line.startswith(("NDCG", "ACG"))] == tables[0].splitlines()
    assert len(lines) == len(tables[0].splitlines()) + 2


def test_files_of_every_kind_give_the_same(folder, run):
    """Text, archives and MATLAB's files, arrays by name, from the command and from Python: one table."""
    expected = run(*FILES)
    arrays = {name: np.load(folder / f"{name}.npy") for name in ("Q", "D", "QL", "DL")}
    np.savez(folder / "all.npz", **arrays)
    columns = {name: array[:, None] if array.ndim == 1 else array for name, array in arrays.items()}
    scipy.io.savemat(folder / "all.mat", columns)
    for name, array in arrays.items():
        np.savetxt(folder / f"{name}.csv", array, fmt="%d" if name.endswith("L") else "%.9g", delimiter=",")
    for place in ("all.npz:{}", "all.mat:{}", "{}.csv"):
        flags = [flag.replace(f"{name}.npy", place.format(name)) for flag, name in zip(FILES, arrays, strict=True)]
        assert run(*flags) == expected
    figures = evaluate.evaluate_files(
        folder / "all.mat:Q",
        folder / "all.npz:D",
        query_labels=folder / "QL.csv",
        database_labels=folder / "all.mat:DL",
        on_progress=lambda pairs: None,
    )
    assert f"{figures['metrics']['all']['map']:.4f}" in expected


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
    np.savez(folder / "several.npz", good, good)
    np.save(folder / "QT.npy", good.T)
    np.save(folder / "LT.npy", np.eye(4, dtype=int)[:, np.load(folder / "QL.npy")])
    (folder / "row.csv").write_text(",".join("1" * 30))
    (folder / "header.csv").write_text("label\n" + "1\n" * 30)
    (folder / "names.json").write_text("[1]")
    (folder / "link").symlink_to("nowhere")


def contents(folder):
    return {path: path.readlink() if path.is_symlink() else path.read_bytes() for path in folder.iterdir()}


BAD = {
    "shapes": (["--query_codes=narrow.npy"], "query codes of 7 bits and database codes of 20"),
    "NaN": (["--query_codes=nan.npy"], "hold NaN"),
    "three values": (["--query_codes=three.npy"], "expected two values"),
    "no codes": (["--query_codes=nothing.npy"], "at least one row"),
    "a scalar": (["--query_codes=scalar.npy"], "expected query codes as a matrix"),
    "bits that do not fit": (["--bits=20"], "packed, uint8[n, 3] for 20 bits"),
    "bits beyond": (["--bits=20", "--query_codes=packed.npy", "--database_codes=packed.npy"], "beyond bit 20"),
    "no bits at all": (["--bits=0"], "0 is not an integer in the range [1, 1024]"),
    "a negative label": (["--query_labels=negative.npy"], "not class ids"),
    "labels of another size": (["--query_labels=DL.npy"], "200 rows for 30 codes"),
    "objects": (["--query_labels=objects.npy"], "can't be read as query_labels"),
    "an empty file": (["--query_codes=empty.npy"], "can't be read as query_codes"),
    "a truncated file": (["--query_codes=cut.npy"], "can't be read as query_codes"),
    "a truncated header": (["--query_codes=head.npy"], "can't be read as query_codes"),
    "text": (["--query_codes=text.npy"], "can't be read as query_codes"),
    "an archive of several": (["--query_codes=several.npz"], "2 arrays, arr_0 [30, 20], arr_1 [30, 20]; fix: name one"),
    "a name that isn't there": (["--query_codes=several.npz:B"], "no array 'B'"),
    "text with a header": (["--query_labels=header.csv"], "line 1 holds 'label', which isn't a number"),
    "another kind of file": (["--query_labels=names.json"], "expected a name that ends with .npy, .npz"),
    "transposed codes": (["--query_codes=QT.npy"], "query labels [30]: the codes must be transposed"),
    "transposed labels": (["--query_labels=row.csv"], "query labels [1, 30]: the labels must be transposed"),
    "all transposed": (["--query_labels=LT.npy", "--query_codes=QT.npy"], "query labels [4, 30]: both must be transposed"),
    "no file": (["--query_codes=absent.npy"], "can't be read as query_codes"),
    "a folder": (["--query_codes=."], "can't be read as query_codes"),
    "a cutoff of 0": (["--map_at=0"], "expected 'all' or a rank"),
    "no cutoff": (["--map_at=5,"], "expected 'all' or a rank"),
    "a run as well": (["--workdir=."], "expected --workdir=DIR, or all of"),
    "a result that is there": (["--out=Q.npy"], "nothing was overwritten"),
    "no folder for the result": (["--out=absent/r.json"], "make the folder first"),
    "a link that leads nowhere for the result": (["--out=link"], "nothing was overwritten"),
    "a place that can't be written": (["--out=/proc/r.json"], "can't be written"),
    "a folder for the result": (["--out=new/"], "expected a file"),
    "a name too long": (["--query_codes=" + 300 * "a"], "can't be read as query_codes"),
    "a name of the result too long": (["--out=" + 300 * "a"], "can't be written"),
    "an empty path": (["--query_codes="], "a path is empty"),
    "an unknown flag": (["--cutoff=3"], "cutoff"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line(arguments, message, folder, run):
    """The line says what is wrong; nothing is written or changed."""
    bad_files(folder)
    before = contents(folder)
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        run(*FILES, *arguments)
    assert "\n" not in str(raised.value)
    assert contents(folder) == before


def test_bad_input_ends_with_exit_status_2(folder):
    """In a process of its own: one line on standard error, and no output."""
    done = run_process(*FILES, "--query_labels=DL.npy", folder=folder)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "200 rows for 30 codes" in done.stderr


def test_queries_that_are_the_database(folder, run):
    """Named once or twice, from the command and from Python: the figures of retrieval.measure; the JSON says so."""
    text = run(*FILES[::2], "--leave_self_out", "--out=r.json")
    assert (
        text.splitlines()[:-1]
        == run(*FILES[::2], *(f"--database{flag[7:]}" for flag in FILES[::2]), "--leave_self_out").splitlines()
    )
    figures = json.loads((folder / "r.json").read_text())
    (codes, _), labels = data()[0].values(), data()[1]["query"]
    expected = retrieval.measure(codes, codes, query_labels=labels, database_labels=labels, leave_self_out=True)
    assert figures["metrics"] == expected.to_dict()["metrics"]
    assert (figures["n_query"], figures["n_database"], figures["leave_self_out"]) == (30, 29, True)
    with pytest.raises(InputError, match="the query codes aren't the database codes"):
        run(*FILES, "--leave_self_out")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--leave_self_out"], "goes with --query_codes=FILE and --query_labels=FILE"),
        (["--leave_self_out", "--workdir=."], "goes with --query_codes=FILE and --query_labels=FILE"),
        (["--leave_self_out", "--workdir=.", *FILES], "expected --workdir=DIR, or all of"),
        ([], "expected --workdir=DIR, or all of"),
        (FILES[:3], "expected --workdir=DIR, or all of"),
        (["--workdir=."], "holds no finished run"),
        (["--workdir=.", "--bits=20"], "a run has its own"),
    ],
)
def test_flags_that_do_not_go_together(arguments, message, run):
    """Neither a run nor files, not all files, a folder without a run, and bits of a run: one line."""
    with pytest.raises(InputError, match=message):
        run(*arguments)


def test_a_pickle_is_never_run(folder, run):
    """A file that would run code when unpickled does not."""

    class Payload:
        def __reduce__(self):
            return (Path.touch, (folder / "ran",))

    np.save(folder / "QL.npy", np.array([Payload()], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="can't be read as query_labels"):
        run(*FILES)
    assert not (folder / "ran").exists()


DAMAGED = {
    "no JSON": "{",
    "a list": "[]",
    "an empty result": "{}",
    "a cutoff that is no text": '{"query_net": "ff", "map_at": 5}',
    "class names that are none": '{"query_net": "ff", "map_at": "all", "class_names": [3]}',
    "class names in a text": '{"query_net": "ff", "map_at": "all", "class_names": "abcd"}',
    "a query net that is not there": '{"query_net": "gf", "map_at": "all"}',
}


KNOWN = dict.fromkeys(("protocol", "split_sha256", "seed", "method", "config_sha256", "n_train"), 0)


def write_codes(directory):
    """The codes of a run without a twin."""
    codes, labels = data()
    packed = {part: {"f": np.packbits(x >= 0, axis=1, bitorder="little")} for part, x in codes.items()}
    rows = {part: np.arange(len(x)) for part, x in codes.items()}
    codes_folder.write(directory / "codes", packed, labels, rows, bits=BITS, split_sha256="0")


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_run_whose_result_is_damaged_is_refused(content, folder, run):
    """One line, and nothing is written."""
    if content.startswith('{"'):
        content = json.dumps({**json.loads(content), **KNOWN})
    (folder / "result.json").write_text(content)
    write_codes(folder)
    with pytest.raises(InputError, match=r"result\.json"):
        run("--workdir=.")
    assert not (folder / "evaluation.json").exists()


def test_a_run(folder, run):
    """A finished run is measured at its own cutoff, over the whole database and where asked for; again replaces the file."""
    write_codes(folder)
    workdir.write_json(folder / "result.json", {**KNOWN, "query_net": "ff", "map_at": "7"})
    for cutoffs in ("5", "9"):
        assert run("--workdir=.", f"--map_at={cutoffs}").splitlines()[-1] == "written to evaluation.json"
        figures = workdir.read_json(folder / "evaluation.json")
        assert set(figures["metrics"]) == {"7", "all", cutoffs}
    assert figures["map"] == figures["map_by_query_net"]["ff"] == figures["metrics"]["7"]["map"]
    assert figures["map_by_class"] == figures["metrics"]["7"]["map_by_class"]
    assert "class_names" not in figures
    known = workdir.read_json(folder / "result.json")
    workdir.write_json(folder / "result.json", {**known, "class_names": ["ant", "bee", "cat", "dog"]})
    text = run("--workdir=.")
    lowest = min(figures["map_by_class"], key=figures["map_by_class"].get)
    assert f"{['ant', 'bee', 'cat', 'dog'][int(lowest)]}" in text
    assert re.search(rf"mAP, mean of classes +{figures['map_mean_of_classes']:.4f} ", text)
    again = evaluate.evaluate_run(folder, map_at=[9], on_progress=lambda pairs: None)
    assert again["metrics"] == figures["metrics"]
    assert again["seed"] == 0


def test_files_in_a_store(folder, bucket, run):
    """Codes are read from an object store, and figures are written to one, where nothing is overwritten."""
    address = mock_data.upload(folder, f"{bucket}/codes")
    files = [flag.replace("=", f"={address}/") for flag in FILES]
    local, remote = run(*FILES, "--out=r.json"), run(*files, f"--out={bucket}/r.json")
    assert remote.splitlines()[:-1] == local.splitlines()[:-1]
    figures, expected = json.loads(storage.read(storage.path(f"{bucket}/r.json"))), json.loads((folder / "r.json").read_text())
    assert figures["metrics"] == expected["metrics"]
    with pytest.raises(InputError, match="nothing was overwritten"):
        run(*files, f"--out={bucket}/r.json")


def test_a_run_in_a_store(bucket, run):
    """A finished run of an object store is measured, and its evaluation.json is written beside."""
    directory = storage.path(f"{bucket}/run")
    write_codes(directory)
    with pytest.raises(InputError, match="holds no finished run"):
        run(f"--workdir={directory}")
    workdir.write_json(directory / "result.json", {**KNOWN, "query_net": "ff", "map_at": "all"})
    assert run(f"--workdir={directory}").splitlines()[-1] == f"written to {directory}/evaluation.json"
    assert "all" in workdir.read_json(directory / "evaluation.json")["metrics"]


def test_a_store_that_refuses(run, refused):
    """Without credentials, one line for each way to name the store."""
    for arguments in (
        (f"--workdir={refused}/run",),
        (*FILES, f"--out={refused}/r.json"),
        (*FILES, f"--query_codes={refused}/Q"),
    ):
        with pytest.raises(InputError, match="Unable to locate credentials") as raised:
            run(*arguments)
        assert "\n" not in str(raised.value)
