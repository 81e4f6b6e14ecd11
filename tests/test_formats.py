"""What earlier versions wrote is still read: a model, a run and an index of each number of their formats, in tests/formats/.

`tests/formats/make.py` says what to do when a format changes.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from formats import make

import adsq_jax
from adsq_jax import codes, data, index, report, search
from adsq_jax.index import roots

ROOT = Path(__file__).parent.parent


def stored(kind):
    """The folders of a kind, of all numbers."""
    return pytest.mark.parametrize("folder", sorted(make.FORMATS.glob(f"{kind}_*/")), ids=lambda folder: folder.name)


def expected(folder):
    return json.loads(folder.with_suffix(".json").read_text())


def test_every_format_of_today_is_kept():
    """Whoever raises a number is told by this to keep files of it; the number stands in the files, where they have one."""
    for name, (number, _) in make.FORMATS_NOW.items():
        assert (make.FORMATS / f"{name}_{number}").is_dir(), "run python tests/formats/make.py"
    for kind, read in {
        "model": lambda folder: json.loads((folder / "model" / "model.json").read_text())["format"],
        "index": lambda folder: expected(folder)["manifest"]["format"],
    }.items():
        for folder in make.FORMATS.glob(f"{kind}_*/"):
            assert folder.name == f"{kind}_{read(folder)}"


@stored("model")
def test_a_model(folder):
    """It encodes pictures as it did; the newest is also written as it was, else its number must rise."""
    model = adsq_jax.load(folder)
    assert [code.tobytes().hex() for code in model.encode(make.pictures(), packed=True)] == expected(folder)["codes"]
    if folder.name == f"model_{make.FORMATS_NOW['model'][0]}":
        assert model.files == {path.name: path.read_bytes() for path in (folder / "model").iterdir()}


@stored("run")
def test_a_run(folder, tmp_path):
    """Its model encodes the digits as it did, the same command says that it is finished, and it can be reported."""
    run = shutil.copytree(folder, tmp_path / "run")
    model, digits = adsq_jax.load(run), data.load("digits")
    for part in ("query", "database"):
        images = np.stack([digits.source[row]["image"] for row in np.load(run / "codes" / f"{part}_rows.npy")])
        kept = codes.unpack(np.load(run / "codes" / f"{part}_sum.npy"), bits=12)
        clear = np.abs(sum(model.relaxed_codes(model.variables, images, part=part))) > 1e-4
        assert clear.mean() > 0.99
        assert np.array_equal(model.encode(images, part=part)[clear], kept[clear])
    command = [sys.executable, "-m", "adsq_jax.main", f"--workdir={run}", *expected(folder)["flags"]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stdout.startswith(f"The run in {run} is finished.\n"), done.stderr
    assert expected(folder)["map"] in done.stdout
    assert expected(folder)["map"] in report.write(run).read_text()


@stored("index")
def test_an_index(folder, tmp_path):
    """It finds what it found, by codes and features of the model that it keeps, and takes another picture."""
    place = str(shutil.copytree(folder, tmp_path / "index"))
    wanted = expected(folder)
    with index.open_index(place) as opened:
        assert opened.manifest.to_dict() == wanted["manifest"]
        assert roots.read(opened) == ("/pictures/",)
    found = search.search(place, make.pictures(), k=3)
    for hits, others in zip(found, wanted["hits"], strict=True):
        assert [hit._asdict() | {"cosine": 0, "labels": list(hit.labels)} for hit in hits] == [
            other | {"cosine": 0} for other in others
        ]
        np.testing.assert_allclose([hit.cosine for hit in hits], [other["cosine"] for other in others], atol=0.01)
    model = adsq_jax.load(place)
    first = make.pictures()[0]
    packed, features = model.encode_with_features(first, part="database")
    with index.create(place, index.Manifest(model.bits, model.sha256, features=features.shape[1])) as opened:
        opened.add([index.Item("/pictures/more.png")], packed, features)
    [[hit]] = search.search(place, first, k=1)
    assert (hit.id, hit.distance) == ("/pictures/more.png", 0)
