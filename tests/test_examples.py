"""The examples run as scripts, and are notebooks in jupytext's percent format."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


@pytest.mark.slow  # trains twice for half a minute
def test_train_in_python(tmp_path):
    """It ends, prints measures that are far above chance, and writes plots."""
    command = [sys.executable, str(ROOT / "examples" / "train_in_python.py"), str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    maps = [float(line.split()[1]) for line in done.stdout.splitlines() if line.strip().startswith("mAP@all")]
    assert len(maps) == 2
    assert min(maps) > 0.7  # chance is .1
    for name in ("digits.png", "training.png"):
        with Image.open(tmp_path / name) as plot:
            assert plot.width > 300


def test_examples_are_notebooks():
    """Each has jupytext's header, and cells of code and of text."""
    for path in (ROOT / "examples").glob("*.py"):
        text = path.read_text()
        assert "format_name: percent" in text.split("# ---")[1]
        assert text.count("\n# %% [markdown]\n") >= 2
        assert text.count("\n# %%\n") >= 2
