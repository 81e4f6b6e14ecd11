"""The command that looks for pictures: table, JSON, pages; many queries; bad ones are told in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mock_data

ROOT = Path(__file__).parent.parent


def search(*arguments, check=True):
    command = [sys.executable, "-m", "adsq_jax.search", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert not check or done.returncode == 0, done.stderr
    return done


def test_a_query_and_pages(filled, colours, tmp_path):
    """A table with the picture itself at distance 0, and the page that was asked for."""
    folder, place = colours[0], filled[2]
    query = f"{folder}/red/00.png"
    done = search(f"--index={place}", f"--query={query}", "--k=36", f"--out={tmp_path}/hits.html")
    lines = done.stdout.splitlines()
    assert lines[0] == query
    assert lines[1].split() == ["rank", "bits", "labels", "path"]
    assert len(lines) == 2 + 36
    assert any(line.split()[1:] == ["0", "red", query] for line in lines[2:])
    assert (tmp_path / "hits.html").read_text().count("data:image/jpeg") == 37


def test_many_queries_as_json(filled, colours, tmp_path):
    """Pictures and folders of them together, within a radius and by a filter; the sheet beside it."""
    folder, place = colours[0], filled[2]
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


def test_bad_flags(filled, colours):
    cases = [
        ({"--index": ""}, "are both needed"),
        ({"--index": "/nowhere"}, "/nowhere holds no index"),
        ({"--query": "/nowhere.png"}, "/nowhere.png isn't there"),
        ({"--query": "setup.cfg"}, "setup.cfg is no whole picture"),
        ({"--query": "configs"}, "holds no picture"),
        ({"--k": "0"}, "not a positive integer"),
        ({"--radius": "-1"}, "not a non-negative integer"),
        ({"--where": "colour=red"}, "the filter 'colour=red' can't be read"),
        ({"--workdir": "/nowhere"}, "/nowhere holds no trained model"),
        ({"--out": "hits.gif"}, "ends with .html or .png"),
        ({"--out": "/nowhere/hits.html"}, "can't be written (No such file or directory)"),
        ({"--out": "README.md/hits.html"}, "in an existing folder"),
        ({"--out": f"/tmp/{'a' * 260}.html"}, "can't be written (File name too long)"),
        ({"--query": ""}, "are both needed"),
    ]
    mock_data.assert_refused("adsq_jax.search", cases, {"--index": filled[2], "--query": f"{colours[0]}/red/00.png"})


def test_a_name_that_is_not_utf_8(filled, colours, tmp_path):
    """A query of any name is searched for, told and shown."""
    os.link(f"{colours[0]}/red/00.png", os.fsencode(tmp_path) + b"/caf\xe9.png")
    search(f"--index={filled[2]}", f"--query={tmp_path}", f"--out={tmp_path}/hits.html")
    assert "caf\\udce9.png" in (tmp_path / "hits.html").read_text()


def test_long_names(filled, colours, tmp_path):
    """The longest that the system takes."""
    name = f"{'a' * 250}.html"
    search(f"--index={filled[2]}", f"--query={colours[0]}/red/00.png", f"--out={tmp_path}/{name}")
    assert (tmp_path / name).stat().st_size > 1000


def test_a_page_that_is_there_stays(filled, colours, tmp_path):
    (tmp_path / "hits.html").write_text("mine")
    os.symlink("/nowhere", tmp_path / "link.png")
    cases = [({"--out": f"{tmp_path}/{name}"}, "is there already") for name in ("hits.html", "link.png")]
    mock_data.assert_refused("adsq_jax.search", cases, {"--index": filled[2], "--query": f"{colours[0]}/red/00.png"})
    assert (tmp_path / "hits.html").read_text() == "mine"
