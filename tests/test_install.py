"""What people install: the wheel that the source archive makes works away from this folder, with extras and without."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from adsq_jax import __main__ as adsq

# Both build and install from a package index. ./test.sh gives uv the index that pip has.
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
DIGITS = ["--config=digits", "--config.model.width=4", "--config.train.rounds=1", "--config.train.epochs_per_round=1"]


def run(*command, folder):
    """Run a command away from this folder; return what it prints."""
    done = subprocess.run([*map(str, command)], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def uv(*arguments, folder):
    return run(sys.executable, "-m", "uv", *arguments, "--quiet", folder=folder)


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """A copy of the files that git has, the source archive of it, and the wheel that this archive makes."""
    folder = tmp_path_factory.mktemp("archives")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in [name for name in listed.split("\0") if name and os.path.lexists(ROOT / name)]:
        (folder / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / "copy" / name, follow_symlinks=False)
    uv("build", "--out-dir", folder / "out", folder / "copy", folder=folder)
    return folder / "copy", *(folder / "out").glob("*.tar.gz"), *(folder / "out").glob("*.whl")


def install(what, folder):
    """Make an environment with a package; return the folder of its programs."""
    uv("venv", "--python", sys.executable, folder / "env", folder=folder)
    uv("pip", "install", "--python", folder / "env" / "bin" / "python", *what, folder=folder)
    return folder / "env" / "bin"


def test_the_archives_hold_what_they_should(archives):
    """The wheel holds the package with its configs and pages; the source archive all but git's, its host's and pre-commit's."""
    copy, source, wheel = archives
    with zipfile.ZipFile(wheel) as opened:
        names = {name for name in opened.namelist() if ".dist-info/" not in name}
    expected = {path.relative_to(copy).as_posix() for path in (copy / "adsq_jax").rglob("*") if path.is_file()}
    expected |= {f"adsq_jax/configs/{path.name}" for path in (copy / "configs").iterdir()}
    assert names == expected
    assert {"adsq_jax/py.typed", "adsq_jax/demo/page.html", "adsq_jax/configs/digits.py"} <= names
    with tarfile.open(source) as opened:
        files = {member.name.partition("/")[2] for member in opened.getmembers() if member.isfile()}
    tracked = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    left_out = {name for name in tracked - files if not name.startswith(".github/")}
    assert left_out == {".gitignore", ".pre-commit-config.yaml"}


HELP = """
import contextlib
from adsq_jax import __main__ as adsq
for name in adsq.COMMANDS:  # in one process, since each takes seconds to start
    with contextlib.suppress(SystemExit):
        adsq.main([name, "--help"])
"""


# Installs forty packages, each of which Python compiles when it is first imported.
def test_the_wheel_trains_and_measures(archives, tmp_path):
    """With the extra `digits` all commands work in any folder, and a run of `--config=digits` is measured again."""
    programs = install([f"{archives[2]}[digits]"], tmp_path)
    place = run(programs / "python", "-c", "import adsq_jax; print(adsq_jax.__file__)", folder=tmp_path)
    assert Path(place).is_relative_to(tmp_path / "env")
    assert re.match(r"adsq_jax \S+, Python ", run(programs / "adsq", "--version", folder=tmp_path))
    shown = run(programs / "python", "-c", HELP, folder=tmp_path)
    assert shown.count("\n  --help\n") == len(adsq.COMMANDS)
    assert "mAP@all" in run(programs / "adsq", "train", *DIGITS, "--workdir=run", folder=tmp_path)
    run(programs / "adsq", "evaluate", "--workdir=run", folder=tmp_path)
    trained, measured = (json.loads((tmp_path / "run" / f"{name}.json").read_text()) for name in ("result", "evaluation"))
    assert trained["map"] == measured["map"]
    run(programs / "adsq", "data", "--config=digits", "--out=data", folder=tmp_path)
    assert json.loads((tmp_path / "data" / "manifest.json").read_text())["split_sha256"] == trained["split_sha256"]


TYPES = "import adsq_jax\n\nreveal_type(adsq_jax.fit([], []))\nreveal_type(adsq_jax.data.from_arrays([], []))\n"


def test_the_core_alone_measures_codes_and_has_types(archives, tmp_path):
    """The wheel without extras measures codes in files; mypy sees the types of it, and of an editable install."""
    programs = install([archives[2]], tmp_path)
    files = {
        "query_codes": "1 1 1\n-1 -1 -1\n",
        "database_codes": "1 1 -1\n-1 -1 1\n",
        "query_labels": "0\n1\n",
        "database_labels": "0\n1\n",
    }
    for name, lines in files.items():
        (tmp_path / f"{name}.txt").write_text(lines)
    flags = [f"--{name}={name}.txt" for name in files]
    run(programs / "adsq", "evaluate", *flags, "--out=figures.json", folder=tmp_path)
    assert json.loads((tmp_path / "figures.json").read_text())["metrics"]["all"]["map"] == 1
    (tmp_path / "use.py").write_text(TYPES)
    for editable in (False, True):
        if editable:
            uv("pip", "install", "--python", programs / "python", "--no-deps", "-e", archives[0], folder=tmp_path)
        shown = run(sys.executable, "-m", "mypy", "--python-executable", programs / "python", "use.py", folder=tmp_path)
        assert re.findall(r'Revealed type is "(.*)"', shown)[0] == "adsq_jax.training.fit.Run"
        assert "adsq_jax.data.datasets.Dataset" in shown
