"""The examples run as scripts, and are notebooks in jupytext's percent format."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


@pytest.mark.slow  # trains twice, with the default model
def test_train_in_python(tmp_path):
    """With a round of `fit` where it has three it ends, prints measures that are far above chance, and writes plots."""
    text = (ROOT / "examples" / "train_in_python.py").read_text()
    assert text.count("bits=48, rounds=3)") == 1
    script = tmp_path / "train_in_python.py"
    script.write_text(text.replace("bits=48, rounds=3)", "bits=48, rounds=1)"))
    command = [sys.executable, str(script), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False, env=environment)
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
