"""The command that makes a report: what it shows, and what it refuses."""

import html
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import mock_data
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
EVIL = "<script>alert(1)</script>&"


def report(workdir, *arguments, path=()):
    command = [sys.executable, "-m", "adsq_jax.report", f"--workdir={workdir}", *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT)))}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, cwd=ROOT)


@pytest.fixture
def run(colours, tmp_path):
    """A copy of a finished run."""
    return Path(shutil.copytree(colours[1], tmp_path / "run"))


def rows(page):
    """Marks and distances of the hits of each query, in the page's order."""
    found = re.findall(r"<h3>Average precision ([\d.]+)</h3>(.*?)(?=<h3>|<h2>|</body>)", page, flags=re.DOTALL)
    hit = r'<figure class="(\w+)" title="([^"]*)">.*?<figcaption><div>(\d+) bits?</div>'
    return [(float(value), re.findall(hit, text, flags=re.DOTALL)) for value, text in found]


def test_a_report(run):
    """Plots, examples and worst queries with pictures; right and wrong are those of the folders; made anew by a second run."""
    for _ in range(2):
        done = report(run)
        assert (done.returncode, done.stderr) == (0, "")
    names = {path.name for path in (run / "report").iterdir()}
    assert names == {
        *("index.html", "loss.png", "precision_recall.png", "precision_at.png", "distances.png", "balance.png"),
        *("correlation.png", "usage.png"),
    }
    page = (run / "report" / "index.html").read_text()
    assert "held out, here none" in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)
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


def test_evil_names(colours, run):
    """Names of folders and files are shown as text."""
    folder = shutil.copytree(colours[0], run.parent / "pictures")
    evil = EVIL.replace("/", "_")
    for path in sorted(folder.iterdir()):
        for number in range(12):
            (path / f"{number:02d}.png").rename(path / f"{number:02d}{evil}.png")
        path.rename(path.with_name(f"{path.name}{evil}"))
    moved(run, folder)
    assert report(run, f"--out={run.parent}/page").returncode == 0
    page = (run.parent / "page" / "index.html").read_text()
    assert "data:image/jpeg" in page
    assert "<script" not in page
    assert f"<div>red{html.escape(evil)}</div>" in page
    assert f"<div>03{html.escape(evil)}.png</div>" in page


def moved(run, place):
    """A run whose data set is said to be elsewhere."""
    config = json.loads((run / "result.json").read_text())["config"]
    config["data"]["directory"] = str(place)
    changed(run, config=config)


def changed(run, **entries):
    (run / "result.json").write_text(json.dumps({**json.loads((run / "result.json").read_text()), **entries}))


def without(run, name):
    path = run / "codes" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["files"][name]
    path.write_text(json.dumps(manifest))


def test_without_the_pictures(run):
    """Without the data set, and with a last line of metrics that a kill has cut: a page without pictures that says why."""
    moved(run, f"/nowhere/{EVIL}")
    (run / "report").mkdir()
    (run / "report" / ".index.html.abc123").touch()  # a kill has left it
    with (run / "metrics.jsonl").open("a") as file:
        for value in ('"x"', "null", "[1]", "NaN", "1e308", "1" * 400):  # none of which can be drawn
            file.write(f'{{"phase": "img_net", "net": "f", "step": 9, "loss": {value}}}\n')
        file.write('{"phase": "img_net", "net": "z", "step": 9, "loss": 1.0}\n{"phase": "validation", "step": 9}\n')
        file.write('{"phase": "img_n')
    done = report(run)
    assert done.returncode == 0
    assert done.stderr.startswith("Without pictures, since the data can't be opened:")
    page = (run / "report" / "index.html").read_text()
    assert "Without pictures" in page
    assert "<script" not in page
    assert "data:image/jpeg" not in page
    assert "row 3" in page


def test_other_labels_mean_other_pictures(colours, run):
    """Pictures of a data set that has changed since aren't shown as those of the codes."""
    pictures = shutil.copytree(colours[0], run.parent / "pictures")
    (pictures / "red" / "00.png").rename(pictures / "green" / "other.png")
    moved(run, pictures)
    done = report(run)
    assert done.returncode == 0
    assert "Without pictures" in done.stderr


DAMAGES = {
    "holds no finished run": lambda run: (run / "result.json").unlink(),
    "result.json is no result": lambda run: (run / "result.json").write_text("{}"),
    "result.json can't be read": lambda run: (run / "result.json").write_text("{"),
    "is no result of a run": lambda run: changed(run, query_net="zz", map_by_query_net={"zz": 0.5}),
    "no result of a run": lambda run: changed(run, method=None),
    "codes": lambda run: shutil.rmtree(run / "codes"),
    "lacks those by sum": lambda run: without(run, "query_sum.npy"),
    "nothing was overwritten": lambda run: (run / "report").mkdir() or (run / "report" / "mine.txt").write_text("kept"),
    "can't be used for a report": lambda run: (run / "report").write_text("kept"),
}


def test_refused(colours, tmp_path):
    """What isn't a finished run, and a folder that holds something else: one line, and nothing is touched."""
    cases = [({"--out": "s3://bucket/report"}, "can't hold a report"), ({"--workdir": ""}, "is needed")]
    for number, (said, damage) in enumerate(DAMAGES.items()):
        run = Path(shutil.copytree(colours[1], tmp_path / str(number)))
        damage(run)
        cases.append(({"--workdir": run}, said))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    mock_data.assert_refused("adsq_jax.report.__main__", cases, {"--workdir": colours[1]})
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_without_matplotlib(run, tmp_path):
    """The extra that is missing is named."""
    (tmp_path / "matplotlib.py").write_text("raise ImportError('not there')")
    done = report(run, path=[tmp_path])
    assert done.returncode == 2
    assert "pip install -e '.[report]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (run / "report").exists()
