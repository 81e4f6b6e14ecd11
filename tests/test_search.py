"""Searching an index for pictures: from Python, and by the command as a table, JSON and pages."""

import datetime
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import mock_data

from adsq_jax import index, search, storage
from adsq_jax.errors import InputError

ROOT = Path(__file__).parent.parent


def test_a_query_and_pages(filled, colours, tmp_path):
    """A table with the picture itself at distance 0, and the page that was asked for."""
    folder, location = colours[0], filled[2]
    query = f"{folder}/red/00.png"
    command = [sys.executable, "-m", "adsq_jax.search", f"--index={location}", f"--query={query}", "--k=36"]
    done = subprocess.run(
        [*command, f"--out={tmp_path}/hits.html"], cwd=ROOT, capture_output=True, text=True, timeout=300, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[0] == query
    assert lines[1].split() == ["rank", "bits", "labels", "path"]
    assert len(lines) == 2 + 36  # all pictures: no ties are left out
    assert any(line.split()[1:] == ["0", "red", query] for line in lines[2:])
    page = (tmp_path / "hits.html").read_text()
    assert page.count("data:image/jpeg") == 37
    today = datetime.datetime.now(datetime.UTC).date()
    head = dict(re.findall(r"<tr><td>(\w+)</td><td>(.*?)</td></tr>", page))
    assert head.pop("date") in (today.isoformat(), (today - datetime.timedelta(days=1)).isoformat())
    assert head == {
        "index": f"{location}, 36 pictures, 12 bits",
        "model": f"{colours[1]}, sha256 {filled[1].sha256[:12]}",
        "k": "at most 36 hits for each query",
        "radius": "any",
        "filter": "none: all pictures",
        "order": "by codes alone",
    }


def test_a_page_without_hits(filled, colours, tmp_path):
    """It names the radius and the filter that nothing passed, and what to change."""
    given = [f"--index={filled[2]}", f"--query={colours[0]}/red/00.png", "--radius=1", "--where=label=<b>"]
    search.main([*given, f"--out={tmp_path}/hits.html"])
    page = (tmp_path / "hits.html").read_text()
    assert "<p>nothing found within radius 1 where label=&lt;b&gt;; fix: give a larger --radius or another --where, or " in page
    assert "<td>radius</td><td>1 bit</td>" in page
    assert "<td>filter</td><td>label=&lt;b&gt;</td>" in page


def test_many_queries_as_json(filled, colours, tmp_path, capsys):
    """Pictures and folders together, within a radius and with a filter; a sheet of pictures is written too."""
    folder, location = colours[0], filled[2]
    search.main(
        [
            *(f"--index={location}", f"--query={folder}/red/00.png", f"--query={folder}/blue", "--radius=3", "--k=5"),
            *("--where=label=blue and path!=*/03.png", "--json", f"--out={tmp_path}/hits.png"),
        ]
    )
    results = json.loads(capsys.readouterr().out)
    assert [one["query"] for one in results] == [f"{folder}/red/00.png", *(f"{folder}/blue/{k:02d}.png" for k in range(12))]
    assert any(one["hits"] for one in results)
    for hit in (hit for one in results for hit in one["hits"]):
        assert hit["distance"] <= 3
        assert hit["labels"] == ["blue"]
        assert not hit["id"].endswith("03.png")
    assert (tmp_path / "hits.png").read_bytes().startswith(b"\x89PNG")


def test_from_python(filled, tmp_path):
    """Locations and open indexes, filters as text and parsed, folders of runs and loaded models give the same hits."""
    paths, model, location = filled
    (hits,) = search.search(location, paths[0], k=5, where="label=blue")
    distances = [hit.distance for hit in hits]
    assert [hit.rank for hit in hits] == [1 + distances.index(distance) for distance in distances]
    assert {hit.labels for hit in hits} == {("blue",)}
    with index.open_index(location) as opened:
        for given in (model, opened.manifest.model):
            assert search.search(opened, paths[:1], k=5, where=index.parse("label=blue"), model=given) == [hits]
    other = index.create(tmp_path / "other", index.Manifest(12, "0" * 64))
    with other, pytest.raises(InputError, match="codes of another model"):
        search.search(other, paths[0], model=model)


def test_bad_flags(filled, colours):
    """Each is refused in one line."""
    cases = [
        ({"index": ""}, "are both needed"),
        ({"index": "/nowhere"}, "/nowhere holds no index"),
        ({"query": "/nowhere.png"}, "/nowhere.png isn't there"),
        ({"query": "setup.cfg"}, "setup.cfg is not a complete picture"),
        ({"query": "configs"}, "holds no picture"),
        ({"k": "0"}, "not a positive integer"),
        ({"radius": "-1"}, "not a non-negative integer"),
        ({"where": "colour=red"}, "the filter 'colour=red' can't be read"),
        ({"workdir": "/nowhere"}, "/nowhere holds no trained model"),
        ({"out": "hits.gif"}, "ends with .html or .png"),
        ({"out": "/nowhere/hits.html"}, "in an existing folder"),
        ({"out": "README.md/hits.html"}, "in an existing folder"),
        ({"out": f"/tmp/{'a' * 260}.html"}, "can't be written (File name too long)"),
        ({"query": ""}, "are both needed"),
        ({"pictures": "."}, "go with --out=FILE"),
        ({"remote_pictures": "true"}, "go with --out=FILE"),
        ({"pictures": "/nowhere", "out": "hits.html"}, "--pictures=/nowhere isn't there"),
        ({"serve": "true"}, "--serve answers what it is asked later, and --query is for a search now"),
        ({"port": "1"}, "--host and --port go with --serve"),
    ]
    for changed, message in cases:
        assert_refused({"index": filled[2], "query": f"{colours[0]}/red/00.png", **changed}, message)
    for name in ("radius", "rerank"):  # 0 isn't their absence
        assert_refused({"index": filled[2], "serve": "true", name: "0"}, f"--{name} is for a search now")


def assert_refused(given, message):
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        search.main([f"--{name}={value}" for name, value in given.items()])
    assert "\n" not in str(raised.value)


def test_a_name_that_is_not_utf_8(filled, colours, tmp_path):
    """A query of any name is searched for and shown."""
    os.link(f"{colours[0]}/red/00.png", os.fsencode(tmp_path) + b"/caf\xe9.png")
    command = [sys.executable, "-m", "adsq_jax.search", f"--index={filled[2]}", f"--query={tmp_path}"]
    subprocess.run([*command, f"--out={tmp_path}/hits.html"], cwd=ROOT, capture_output=True, timeout=300, check=True)
    assert "caf\\udce9.png" in (tmp_path / "hits.html").read_text()


def test_long_names(filled, colours, tmp_path):
    """The longest name that the system allows."""
    name = f"{'a' * 250}.html"
    search.main([f"--index={filled[2]}", f"--query={colours[0]}/red/00.png", f"--out={tmp_path}/{name}"])
    assert (tmp_path / name).stat().st_size > 1000


def test_an_existing_page_stays(filled, colours, tmp_path):
    """Nothing is overwritten, not even a link that leads nowhere."""
    (tmp_path / "hits.html").write_text("mine")
    os.symlink("/nowhere", tmp_path / "link.png")
    for name in ("hits.html", "link.png"):
        given = {"index": filled[2], "query": f"{colours[0]}/red/00.png", "out": f"{tmp_path}/{name}"}
        assert_refused(given, "is there already")
    assert (tmp_path / "hits.html").read_text() == "mine"


def test_a_page_shows_pictures_of_known_folders_alone(filled, colours, bucket, tmp_path, capsys, monkeypatch):
    """Items that name other files, links and objects of a store have no picture, and nothing is asked of the store."""
    paths, model, _ = filled
    pictures, secret = tmp_path / "pictures", tmp_path / "secret.png"
    shutil.copytree(colours[0] / "red", pictures)
    shutil.copy(colours[0] / "blue" / "00.png", secret)
    (pictures / "link.png").symlink_to(secret)
    names = [f"{pictures}/00.png", f"{pictures}/link.png", str(secret), f"{pictures}/../secret.png"]
    names += [f"{bucket}/00.png", f"{bucket}/01.png"]
    mock_data.upload(colours[0] / "red", bucket)
    with index.create(tmp_path / "index", index.Manifest(model.bits, model.sha256, str(colours[1]))) as opened:
        opened.add([index.Item(name) for name in names], model.encode([paths[0]] * len(names), packed=True))
    given = [f"--index={tmp_path}/index", f"--query={paths[0]}"]

    def shown(number, *flags):
        search.main([*given, f"--out={tmp_path}/{number}.html", *flags])
        page = (tmp_path / f"{number}.html").read_text()
        return page.count("data:image/jpeg") - 1, capsys.readouterr().err

    with monkeypatch.context() as patch:
        patch.setattr(storage, "_client", lambda scheme: pytest.fail("a store was asked"))
        count, line = shown(0)
        assert count == 0
        assert line.startswith(f"6 pictures aren't shown: {tmp_path}/index doesn't say which folders its pictures come from;")
        with index.open_index(tmp_path / "index") as opened:
            index.roots.record(opened, f"{pictures}/")
            index.roots.record(opened, f"{bucket}/")
        count, line = shown(1)
        assert count == 1
        assert line.startswith("5 pictures aren't shown: only pictures below the folders that the index was filled from are;")
        assert shown(2, f"--pictures={pictures}")[0] == 1
        assert shown(3, f"--pictures={pictures}", f"--pictures={tmp_path}") == (4, shown(4, f"--pictures={tmp_path}")[1])


def test_pictures_in_a_store_are_shown_where_a_flag_says_so(filled, colours, bucket, tmp_path):
    """`--remote_pictures` for the places that the index was filled from, `--pictures=s3://...` for others."""
    paths, model, _ = filled
    mock_data.upload(colours[0] / "red", f"{bucket}/red")
    with index.create(tmp_path / "index", index.Manifest(model.bits, model.sha256, str(colours[1]))) as opened:
        opened.add([index.Item(f"{bucket}/red/{k:02d}.png") for k in range(2)], model.encode(paths[:2], packed=True))
        index.roots.record(opened, f"{bucket}/red/")
    for number, (flag, count) in enumerate({"--json": 1, "--remote_pictures": 3, f"--pictures={bucket}/red": 3}.items()):
        search.main([f"--index={tmp_path}/index", f"--query={paths[0]}", f"--out={tmp_path}/{number}.html", flag])
        assert (tmp_path / f"{number}.html").read_text().count("data:image/jpeg") == count
