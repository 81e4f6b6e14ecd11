"""Reports: what a page shows, what the command refuses, and what no run can make it do."""

import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import mock_data

from adsq_jax import report, storage
from adsq_jax.codes import pack
from adsq_jax.errors import InputError
from adsq_jax.report import inputs
from adsq_jax.report import page as report_page
from adsq_jax.report.__main__ import main
from adsq_jax.run import codes_folder

ROOT = Path(__file__).parents[2]
EVIL = "<script>alert(1)</script>&"


@pytest.fixture
def run(colours, tmp_path):
    """A copy of a finished run."""
    return Path(shutil.copytree(colours[1], tmp_path / "run"))


def rows(page):
    """Return the average precision of each query, and mark, name and distance of its hits, in the page's order."""
    heading = r"<h3>\d+ of \d+ right, average precision ([\d.]+)</h3>"
    sections = re.findall(rf"{heading}(.*?)(?=<h3>|<h2|</body>)", page, flags=re.DOTALL)
    hit = r'<figure class="(\w+)" title="([^"]*)">.*?<figcaption><div>(\d+) bits?(?: =)?</div>'
    return [(float(value), re.findall(hit, text, flags=re.DOTALL)) for value, text in sections]


@pytest.mark.slow
def test_a_report(run):
    """Plots, examples and worst queries with pictures; a hit of the query's folder is right; a second report replaces it."""
    command = [sys.executable, "-m", "adsq_jax.report", f"--workdir={run}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    path = run / "report" / "index.html"
    assert (done.returncode, done.stdout, done.stderr) == (0, f"written to {path}\n", "")
    first = path.read_bytes()
    assert report.write(run) == path
    assert path.read_bytes() == first
    names = {path.name for path in (run / "report").iterdir()}
    assert names == {
        *("index.html", "loss_label_net.png", "loss_f.png", "loss_g.png", "precision_recall.png", "precision_at.png"),
        *("distances.png", "balance.png", "correlation.png", "usage.png"),
    }
    page = path.read_text()
    for name in ("protocol", "queries / training set / database", "mAP@all sum (the result)", "mAP@all by chance"):
        assert f"<tr><td>{name}</td><td>" in page
    assert "held-out training pictures, and this run has none" in page
    assert not re.findall(r"""src=["'](?!data:)""", page)
    shown = rows(page)
    queries = len(np.load(run / "codes" / "query_rows.npy"))
    assert len(shown) == 2 * min(10, queries)
    for (_, hits), query in zip(shown, re.findall(r'<figure class="" title="([^"]*)">', page), strict=True):
        assert [mark for mark, _, _ in hits] == [
            "right" if name.split("/")[-2] == query.split("/")[-2] else "wrong" for _, name, _ in hits
        ]
        distances = [int(distance) for _, _, distance in hits]
        assert distances == sorted(distances)
    worst = [value for value, _ in shown[len(shown) // 2 :]]
    assert worst == sorted(worst)
    assert page.count("data:image/jpeg") == sum(1 + len(hits) for _, hits in shown)


@pytest.fixture
def without_plots(monkeypatch):
    """Pages without plots, which take most of their time."""
    monkeypatch.setattr(report_page, "_plots", lambda metrics, result, measured: {})


@pytest.mark.usefixtures("without_plots")
def test_what_a_report_says_first(run, monkeypatch):
    """The data set, how many pictures share a code, the run's own date and folder, and mAP beside chance."""
    monkeypatch.setattr(report_page.measures, "code_usage", lambda packed: np.array([7, 3, 1]))
    changed(run, date="2001-02-03")
    page = report.write(run).read_text()
    assert "<h1>pictures: adsq, 12 bits</h1>" in page
    assert page.index("3 codes for 11 pictures; the most used has 7.") < page.index("<table>")
    assert "<td>date</td><td>2001-02-03</td>" in page
    value = re.search(r"<td>mAP@all by chance</td><td>(0\.\d{4})</td>", page)[1]
    ids = inputs.read_codes(run, query_net="sum").labels
    share = np.mean(ids["query"][:, None] == ids["database"])
    assert share < float(value) < share + 0.15  # in a small database the order matters
    assert page.count("fg queries by f and database by g") == 1
    assert f'<td>run</td><td><a href="..">{run}</a>' in page
    assert f'<td>run</td><td><a href="{run.as_uri()}">{run}</a>' in report.write(run, out=run.parent / "page").read_text()


@pytest.mark.usefixtures("without_plots")
def test_the_classes_of_a_report(run, monkeypatch):
    """Each class by its folder's name, the lowest first, as in result.json; a run of before there were classes has them too."""
    result = json.loads((run / "result.json").read_text())
    by_name = {result["class_names"][int(k)]: value for k, value in result["map_by_class"].items()}
    pages = [report.write(run).read_text()]
    before = {key: value for key, value in result.items() if key not in ("map_by_class", "map_mean_of_classes", "class_names")}
    (run / "result.json").write_text(json.dumps(before))
    pages.append(report.write(run).read_text())
    assert ["mean of" in page[: page.index("<h2")] for page in pages] == [True, False]
    for page in pages:
        section = page[page.index('<h2 id="map-by-class">') : page.index('<h2 id="examples">')]
        found = re.findall(r"<tr><td>(\w+)</td><td>([\d.]+) \(\d+ quer(?:y|ies)\)</td></tr>", section)
        assert found == [(name, f"{by_name[name]:.4f}") for name in sorted(by_name, key=by_name.get)]
        assert f"Mean of {len(by_name)} classes: {result['map_mean_of_classes']:.4f}." in section
    monkeypatch.setattr(report_page, "_MOST_CLASSES", 1)
    assert "The lowest 1 are shown." in report.write(run).read_text()


@pytest.mark.usefixtures("without_plots")
def test_a_result_of_another_model_is_told(run, capsys):
    """After a kill between writing model and result one line says so, in the page and on the terminal; else there is none."""
    line = f"{run / 'model'} holds another model than the one of this result; fix: run the same training command again"
    assert "another model" not in report.write(run).read_text() + capsys.readouterr().err
    changed(run, model_sha256="0" * 64)
    assert f"<p>{line}</p>" in report.write(run).read_text()
    assert capsys.readouterr().err == f"{line}\n"
    (run / "model" / "model.json").write_text("{")  # a report needs no model
    assert "another model" not in report.write(run).read_text() + capsys.readouterr().err


@pytest.mark.usefixtures("without_plots")
def test_the_contents_lead_to_the_sections(run):
    """Each link leads to one heading of the page."""
    page = report.write(run).read_text()
    links = re.findall(r'<a href="#([^"]+)">', page)
    assert links[-2:] == ["examples", "worst-queries"]
    assert re.findall(r'<h2 id="([^"]+)">', page) == links


@pytest.mark.usefixtures("without_plots")
def test_ties_are_marked(run):
    """A distance has = where others are as near, also such as aren't shown, and their number is told."""
    codes = inputs.read_codes(run, query_net="sum")
    signs = {part: np.ones((len(rows), 12), np.int8) for part, rows in codes.rows.items()}
    signs["database"][1:3, :1] = -1
    signs["database"][3:, :2] = -1
    packed = {part: {"sum": pack(some)} for part, some in signs.items()}
    codes_folder.write(run / "codes", packed, codes.labels, codes.rows, bits=12, split_sha256="0" * 64)
    page = report.write(run).read_text()
    lines = re.findall(r"<figcaption><div>(\d+ bits?(?: =)?)</div>", page)
    queries = len(lines) // 10
    assert queries > 0
    assert lines == ["0 bits", "1 bit =", "1 bit =", *["2 bits ="] * 7] * queries
    more = len(signs["database"]) - 10
    assert page.count(f"<p>{more} more at the same distance as the last, 2 bits</p>") == queries


@pytest.mark.usefixtures("without_plots")
def test_an_earlier_report_is_replaced(run):
    """Plots of an earlier version, and those that this run doesn't have, go; a result without a date is shown."""
    content = json.loads((run / "result.json").read_text())
    del content["date"]
    (run / "result.json").write_text(json.dumps(content))
    (run / "report").mkdir()
    for name in ("loss.png", "validation.png", "index.html"):
        (run / "report" / name).write_text("old")
    page = report.write(run).read_text()
    assert [path.name for path in (run / "report").iterdir()] == ["index.html"]
    assert "<td>date</td><td>unknown</td>" in page


def worst_marks(path):
    """Right or wrong, for each hit of the worst queries."""
    shown = rows(path.read_text())
    return [[mark for mark, _, _ in hits] for _, hits in shown[len(shown) // 2 :]]


def test_several_labels_are_right_if_one_is_shared(run, capsys):
    """An item is right if it has a label of the query, not where both lack one."""
    codes, random = inputs.read_codes(run, query_net="sum"), np.random.default_rng(0)
    packed = {part: {"sum": random.permutation(array)} for part, array in codes.packed.items()}  # wrong hits too
    several = {part: np.eye(6, dtype=np.uint8)[ids] for part, ids in codes.labels.items()}
    wanted, found = [
        codes_folder.write(run / "codes", packed, labels, codes.rows, bits=codes.bits, split_sha256="0" * 64)
        or worst_marks(report.write(run))
        for labels in (codes.labels, several)
    ]
    assert found == wanted
    assert {"right", "wrong"} <= {mark for marks in found for mark in marks}
    capsys.readouterr()


def test_evil_names(colours, run):
    """Names of folders and files are shown as text."""
    folder = shutil.copytree(colours[0], run.parent / "pictures")
    evil = EVIL.replace("/", "_")
    for path in sorted(folder.iterdir()):
        for number in range(12):
            (path / f"{number:02d}.png").rename(path / f"{number:02d}{evil}.png")
        path.rename(path.with_name(f"{path.name}{evil}"))
    moved(run, folder)
    page = report.write(run, out=run.parent / "page").read_text()
    assert "data:image/jpeg" in page
    assert "<script" not in page
    assert f"<div>red{html.escape(evil)}</div>" in page
    assert f"<div>03{html.escape(evil)}.png</div>" in page


def moved(run, folder):
    """Change the folder of the run's data set in its result."""
    config = json.loads((run / "result.json").read_text())["config"]
    config["data"]["directory"] = str(folder)
    changed(run, config=config)


def changed(run, **entries):
    (run / "result.json").write_text(json.dumps({**json.loads((run / "result.json").read_text()), **entries}))


def without(run, name):
    path = run / "codes" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["files"][name]
    path.write_text(json.dumps(manifest))


def test_without_the_pictures(run, capsys):
    """Without the data set, and with lines of metrics that are damaged or cut: the page says why it has no pictures."""
    moved(run, f"/nowhere/{EVIL}")
    (run / "report").mkdir()
    (run / "report" / ".index.html.abc123").touch()  # left by a kill
    with (run / "metrics.jsonl").open("a") as file:
        for value in ('"x"', "null", "[1]", "NaN", "1e308", "1" * 400):
            file.write(f'{{"phase": "img_net", "net": "f", "step": 9, "loss": {value}}}\n')
        file.write('{"phase": "img_net", "net": "z", "step": 9, "loss": 1.0}\n{"phase": "validation", "step": 9}\n')
        file.write('{"phase": "img_net", "net": "f", "loss": 1.0}\n{"phase": "img_n')
    page = report.write(run).read_text()
    assert capsys.readouterr().err.startswith("Without pictures, since the data can't be opened:")
    assert "Without pictures" in page
    assert "<script" not in page
    assert "data:image/jpeg" not in page
    assert "row 3" in page


def test_other_labels_mean_other_pictures(colours, run, capsys):
    """The pictures of a data set that has changed aren't shown as those of the codes."""
    pictures = shutil.copytree(colours[0], run.parent / "pictures")
    (pictures / "red" / "00.png").rename(pictures / "green" / "other.png")
    moved(run, pictures)
    report.write(run)
    assert "Without pictures" in capsys.readouterr().err


def test_a_run_names_no_code_that_runs(run, tmp_path, monkeypatch):
    """A method that `result.json` and `config.json` name by a module isn't imported."""
    (tmp_path / "hostile.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("result.json", "config.json"):
        content = json.loads((run / name).read_text())
        for part in (content, content.get("config", {})):
            part["method"] = "hostile.method"
        (run / name).write_text(json.dumps(content))
    assert "<h1>pictures: hostile.method, 12 bits</h1>" in report.write(run).read_text()
    assert "hostile" not in sys.modules


DAMAGES = {
    "holds no finished run": lambda run: (run / "result.json").unlink(),
    "result.json is not the result": lambda run: (run / "result.json").write_text("{}"),
    "result.json can't be read": lambda run: (run / "result.json").write_text("{"),
    "is not the result of a run": lambda run: changed(run, query_net="zz", map_by_query_net={"zz": 0.5}),
    "the result of a run": lambda run: changed(run, method=None),
    "json is not the result of a run": lambda run: changed(run, precision_at={"first": 0.5}),
    "not the result of a run": lambda run: changed(run, seconds=10**400),
    "is not the result of a run; fix: restore it": lambda run: changed(run, precision_at={}),
    "is not the result of a run; fix": lambda run: changed(run, precision_recall={"recall": [0.5], "precision": []}),
    "codes": lambda run: shutil.rmtree(run / "codes"),
    "lacks the codes by sum": lambda run: without(run, "query_sum.npy"),
    "nothing was overwritten": lambda run: (run / "report").mkdir() or (run / "report" / "mine.txt").write_text("kept"),
    "is not a folder": lambda run: (run / "report").write_text("kept"),
}


def test_refused(colours, tmp_path):
    """A folder without a finished run, and a report's folder with other files: one line, and nothing is changed."""
    cases = [(colours[1], ["--out=s3://bucket/report"], "is in an object store"), ("", [], "expected --workdir=DIR")]
    for number, (message, damage) in enumerate(DAMAGES.items()):
        run = Path(shutil.copytree(colours[1], tmp_path / str(number)))
        damage(run)
        cases.append((run, [], message))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for run, arguments, message in cases:
        with pytest.raises(InputError, match=message) as error:
            main([f"--workdir={run}", *arguments])
        assert "\n" not in str(error.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def rows_with_pictures(run, *flags):
    main([f"--workdir={run}", *flags])
    return (run / "report" / "index.html").read_text().count("data:image/jpeg")


# Five pages, two of them with all pictures from a store.
@pytest.mark.usefixtures("without_plots")
def test_data_in_an_object_store_are_opened_by_a_flag_alone(colours, run, bucket, monkeypatch, capsys):
    """A run from elsewhere can name any bucket; nothing is asked of it, unless the user says so, or names the place."""
    whole = rows_with_pictures(run)
    assert whole > 0
    moved(run, f"{bucket}/pictures")
    with monkeypatch.context() as patch:
        patch.setattr(storage, "_client", lambda scheme: pytest.fail("a store was asked"))
        assert rows_with_pictures(run) == 0
        assert "which only the run names; fix: if you trust it, --remote_pictures" in capsys.readouterr().err
        assert rows_with_pictures(run, f"--pictures={colours[0]}") == 0
    mock_data.upload(colours[0], f"{bucket}/pictures")
    assert rows_with_pictures(run, "--remote_pictures") == whole
    assert rows_with_pictures(run, f"--pictures={bucket}/pictures") == whole


# Four pages.
@pytest.mark.usefixtures("without_plots")
def test_links_out_of_the_data_set_are_not_followed(colours, run, capsys):
    """A class folder or a picture that is a link to elsewhere: not shown, unless the user names that folder too."""
    whole = rows_with_pictures(run)
    pictures = Path(shutil.copytree(colours[0], run.parent / "pictures"))
    elsewhere = run.parent / "elsewhere"
    (pictures / "red").rename(elsewhere)
    (pictures / "red").symlink_to(elsewhere)
    moved(run, pictures)
    capsys.readouterr()
    shown = rows_with_pictures(run)
    assert 0 < shown < whole
    assert "pictures aren't shown: only those below the data set's folder are" in capsys.readouterr().err
    assert rows_with_pictures(run, f"--pictures={pictures}", f"--pictures={elsewhere}") == whole
    assert rows_with_pictures(run, f"--pictures={elsewhere}") == 0
    assert f"the data are in {pictures}; fix: --pictures={pictures}" in capsys.readouterr().err


# Imports TFDS.
@pytest.mark.usefixtures("without_plots")
def test_no_data_set_is_downloaded_for_a_page(run, tmp_path, capsys):
    """A result that names a data set of TFDS, which training would prepare first."""
    config = json.loads((run / "result.json").read_text())["config"]
    config["data"] |= {"name": "tfds", "reader": "tfds", "tfds_name": "mnist", "directory": str(tmp_path / "tfds")}
    changed(run, config=config)
    assert rows_with_pictures(run) == 0
    assert "mnist isn't prepared in" in capsys.readouterr().err
    assert not (tmp_path / "tfds").exists()


def test_without_matplotlib(run, monkeypatch):
    """The message names the missing extra, and nothing is written."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"pip install 'adsq_jax\[report\]'"):
        report.write(run)
    assert not (run / "report").exists()
