"""The command that looks for pictures: table, JSON, pages; many queries; bad ones are told in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import adsq_jax
from adsq_jax import index

ROOT = Path(__file__).parent.parent


def search(*arguments, check=True):
    command = [sys.executable, "-m", "adsq_jax.search", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def filled(colours, tmp_path_factory):
    """Pictures, and an index of them."""
    folder, run = colours
    place = str(tmp_path_factory.mktemp("search") / "index")
    model = adsq_jax.load(run)
    paths = sorted(str(path) for path in folder.rglob("*.png"))
    with index.create(place, index.Manifest(model.bits, model.sha256, str(run))) as opened:
        opened.add([index.Item(path, (path.split("/")[-2],)) for path in paths], model.encode(paths))
    return folder, place


def test_a_query_and_pages(filled, tmp_path):
    """A table with the picture itself at distance 0, and the page that was asked for."""
    folder, place = filled
    query = f"{folder}/red/00.png"
    done = search(f"--index={place}", f"--query={query}", "--k=36", f"--out={tmp_path}/hits.html")
    lines = done.stdout.splitlines()
    assert lines[0] == query
    assert lines[1].split() == ["rank", "bits", "labels", "path"]
    assert len(lines) == 2 + 36
    assert any(line.split()[1:] == ["0", "red", query] for line in lines[2:])
    assert (tmp_path / "hits.html").read_text().count("data:image/jpeg") == 37


def test_many_queries_as_json(filled, tmp_path):
    """Pictures and folders of them together, within a radius and by a filter; the sheet beside it."""
    folder, place = filled
    done = search(
        *(f"--index={place}", f"--query={folder}/red/00.png", f"--query={folder}/blue", "--radius=3", "--k=5"),
        *("--where=label=blue and path!=*/03.png", "--json", f"--out={tmp_path}/hits.png"),
    )
    found = json.loads(done.stdout)
    assert [one["query"] for one in found] == [f"{folder}/red/00.png", *(f"{folder}/blue/{k:02d}.png" for k in range(12))]
    assert any(one["hits"] for one in found)
    for hit in (hit for one in found for hit in one["hits"]):
        assert hit["distance"] <= 3
        assert hit["labels"] == ["blue"]
        assert not hit["id"].endswith("03.png")
    assert (tmp_path / "hits.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"--index": ""}, "are both needed"),
        ({"--index": "/nowhere"}, "/nowhere holds no index"),
        ({"--query": "/nowhere.png"}, "/nowhere.png isn't there"),
        ({"--query": "setup.cfg"}, "setup.cfg is no whole picture"),
        ({"--query": "configs"}, "holds no picture"),
        ({"--k": "0"}, "k=0: expected a whole number from 1"),
        ({"--radius": "-1"}, "radius=-1: expected"),
        ({"--where": "colour=red"}, "the filter 'colour=red' can't be read"),
        ({"--workdir": "/nowhere"}, "/nowhere holds no trained model"),
        ({"--out": "hits.gif"}, "ends with .html or .png"),
        ({"--out": "README.png/hits.html"}, "in a folder that is there"),
    ],
)
def test_bad_flags(filled, changed, said):
    given = {"--index": filled[1], "--query": f"{filled[0]}/red/00.png"} | changed
    done = search(*(f"{name}={value}" for name, value in given.items()), check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not done.stdout


def test_a_page_that_is_there_stays(filled, tmp_path):
    (tmp_path / "hits.html").write_text("mine")
    os.symlink("/nowhere", tmp_path / "link.png")
    for name in ("hits.html", "link.png"):
        done = search(f"--index={filled[1]}", f"--query={filled[0]}/red/00.png", f"--out={tmp_path / name}", check=False)
        assert done.returncode == 2
        assert "is there already" in done.stderr
    assert (tmp_path / "hits.html").read_text() == "mine"
