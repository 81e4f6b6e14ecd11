"""benchmarks/end_to_end.sh, from folders of pictures to hits on a screen, on a sample of Tux Paint's stamps."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

pytestmark = pytest.mark.benchmark
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "end_to_end.sh"
STAMPS = Path("/usr/share/tuxpaint/stamps")
SMALL = ("data.feature_views=1", "train.rounds=4", "train.batch_size=8", "label_net.steps=60")


# Ten commands, one after the other, and a browser.
@pytest.mark.slow
@pytest.mark.system
def test_the_script_finds_what_is_alike(tmp_path):
    """Trains, encodes, searches, reports, serves and exports; of the nearest ten nine in ten are of the query's folder."""
    for name in ("animals", "food", "space"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for path in sorted((STAMPS / name).rglob("*.png"))[:11]:
            shutil.copy(path, tmp_path / "pictures" / name)
    first = min((tmp_path / "pictures" / "animals").iterdir())
    first.rename(first.with_name(f"a {first.name}"))  # spaces are common
    command = [SCRIPT, tmp_path / "made", tmp_path / "pictures", *(f"--config.{setting}" for setting in SMALL)]
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))  # the script's `python` is this one
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env={**os.environ, "PATH": path})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all agree" in done.stdout
    hits = json.loads((tmp_path / "made" / "hits.json").read_text())
    assert [len(one["hits"]) for one in hits] == [33, 33]
    right = [hit["labels"] == [one["query"].split("/")[-2]] for one in hits for hit in one["hits"][:10]]
    assert sum(right) >= 18
    assert (tmp_path / "made" / "hits.html").read_text().count("data:image/jpeg") == 22
    assert (tmp_path / "made" / "run" / "report" / "index.html").stat().st_size > 100_000
    for name in ("hits.png", "demo.png"):
        with Image.open(tmp_path / "made" / name) as picture:
            assert len(picture.convert("RGB").getcolors(2**24)) > 100
