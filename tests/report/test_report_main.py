"""The command that makes a report: what it shows, and what it refuses."""

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


def refused(done, *, text):
    """One line, exit status 2."""
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert text in done.stderr


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


def test_evil_names_and_validation(tmp_path):
    """Names of folders and files are shown as text; with held-out images there is a plot of mAP."""
    folder = mock_data.pictures(tmp_path / "pictures")
    (folder / "red").rename(folder / EVIL.replace("/", "_"))
    (folder / "blue" / "00.png").rename(folder / "blue" / f"{EVIL.replace('/', '_')}.png")
    knobs = ("--config.data.validation=6", "--config.checkpoint.every_rounds=1")
    run = mock_data.run_on_pictures(folder, tmp_path / "run", *knobs)
    assert report(run, f"--out={tmp_path}/page").returncode == 0
    page = (tmp_path / "page" / "index.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;_script&gt;&amp;" in page
    assert (tmp_path / "page" / "validation.png").stat().st_size > 1000


def test_without_the_pictures(run):
    """Without the data set, and with a last line of metrics that a kill has cut: a page without pictures that says why."""
    result = json.loads((run / "result.json").read_text())
    result["config"]["data"]["directory"] = f"/nowhere/{EVIL}"
    (run / "result.json").write_text(json.dumps(result))
    with (run / "metrics.jsonl").open("a") as file:
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
    result = json.loads((run / "result.json").read_text())
    result["config"]["data"]["directory"] = str(pictures)
    (run / "result.json").write_text(json.dumps(result))
    done = report(run)
    assert done.returncode == 0
    assert "Without pictures" in done.stderr


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda run: (run / "result.json").unlink(), "no finished run"),
        (lambda run: (run / "result.json").write_text("{}"), "result.json is no result"),
        (lambda run: (run / "result.json").write_text("{"), "result.json"),
        (lambda run: shutil.rmtree(run / "codes"), "codes"),
        (lambda run: (run / "report").mkdir() or (run / "report" / "mine.txt").write_text("kept"), "nothing was overwritten"),
        (lambda run: (run / "report").write_text("kept"), "give another --out"),
    ],
    ids=["unfinished", "empty", "cut", "codes", "others", "file"],
)
def test_refused(run, damage, text):
    """What isn't a finished run, and a folder that holds something else: one line, and nothing is touched."""
    damage(run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    refused(report(run), text=text)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_without_matplotlib(run, tmp_path):
    """The extra that is missing is named."""
    (tmp_path / "matplotlib.py").write_text("raise ImportError('not there')")
    refused(report(run, path=[tmp_path]), text="pip install -e '.[report]'")
    assert not (run / "report").exists()
