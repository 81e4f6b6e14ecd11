"""Small data sets, small configs and calls of commands, for tests of the whole package."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from adsq_jax import storage
from adsq_jax.data import datasets, sources, splits
from adsq_jax.data.labels import Labels
from adsq_jax.data.preprocessing import Preprocessing

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("[!_]*.py"))


def upload(folder: Path, address: str) -> Path:
    """Copy the files below a folder to an object store, s3://BUCKET/FOLDER."""
    copy = storage.path(address)
    storage.copy_folder(folder, copy)
    return copy


def assert_same(here: sources.Source, there: sources.Source) -> None:
    """Check that two sources have the same images, labels, names, parts and notes."""
    rows = np.arange(len(here))
    assert len(there) == len(here)
    assert there.classes == here.classes
    assert [there.name(row) for row in rows] == [here.name(row) for row in rows]
    np.testing.assert_array_equal(there.labels[rows], here.labels[rows])
    assert there.parts.keys() == here.parts.keys()
    for part, expected in here.parts.items():
        np.testing.assert_array_equal(there.parts[part], expected)
    assert {name: count for name, count in there.notes.items() if count} == {k: v for k, v in here.notes.items() if v}
    assert len(there.missing(rows)) == len(here.missing(rows)) == 0
    for row in rows:
        assert there.content(row) == here.content(row)
        np.testing.assert_array_equal(there[row]["image"], here[row]["image"])


def load_config(name: str, argument: str = ""):
    """Return the config of configs/NAME.py."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(argument)


def small_config(name: str = "digits", *, image_size: int = 8, bits: int = 12, method: str = "adsq"):
    """Return a config of configs/ with toy sizes: two rounds of four updates a network."""
    config = load_config(name, f"bits={bits},method={method}")
    config.data.image_size = image_size
    config.model.width = 0 if config.model.backbone == "efficientnet_lite0" else 4  # which has one width
    config.model.features = 16
    if "label_net" in config:
        config.label_net.hidden, config.label_net.steps = 16, 20
    config.train.rounds, config.train.epochs_per_round = 2, 1
    config.train.batch_size, config.train.log_every = 16, 2
    config.eval.batch_size = 24
    return config


def dataset(*, image_size: int = 8, multi_label: bool = False, protocol: str = "digits", seed: int = 0):
    """Make 140 noisy images with a bright column for each label, 20 of them queries, 64 to train on."""
    random = np.random.default_rng(seed)
    classes, n = 5, 140
    labels = (np.arange(n)[:, None] % classes == np.arange(classes)).astype(np.uint8)
    if multi_label:
        labels |= random.random(labels.shape) < 0.2
    columns = np.repeat(labels, -(-image_size // classes), axis=1)[:, :image_size]  # [n, image_size]
    images = random.integers(0, 100, (n, image_size, image_size, 3)) + 120 * columns[:, None, :, None]
    split = splits.Split(np.arange(20), np.arange(20, 84), np.arange(20, n))
    names = [str(k) for k in range(classes)]
    source = sources.ArraySource(images.astype(np.uint8), Labels.from_multi_hot(labels), classes=names)
    return datasets.make_dataset(source, split, protocol=protocol, map_at="all", preprocessing=Preprocessing(0, image_size))


def pictures(folder: Path, *, each: int = 12) -> Path:
    """Write noisy pictures of 24x18 pixels, as PNG, in folders named by their colour."""
    random = np.random.default_rng(0)
    for label, colour in {"red": (220, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 220)}.items():
        (folder / label).mkdir(parents=True)
        for number in range(each):
            noisy = random.integers(0, 60, (18, 24, 3)) + np.array(colour) - 30
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / label / f"{number:02d}.png")
    return folder


def train_on_pictures(folder: Path, workdir: Path | str, *arguments: str) -> list[str]:
    """Return the flags of `train` for a small run of configs/folder.py; more flags may follow."""
    small = ("model.width=4", "model.features=16", "label_net.hidden=16", "label_net.steps=20", "train.batch_size=16")
    small += ("train.rounds=3", "train.epochs_per_round=2", "data.resize=10", "data.image_size=8", "eval.batch_size=16")
    flags = ["--config=configs/folder.py:bits=12", f"--workdir={workdir}", f"--config.data.directory={folder}"]
    return [*flags, *(f"--config.{knob}" for knob in small), *arguments]


def run_on_pictures(folder: Path, workdir: Path, *arguments: str) -> Path:
    """Train a small run of configs/folder.py by the command line, and return its folder."""
    command = [sys.executable, "-m", "adsq_jax.main", *train_on_pictures(folder, workdir, *arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return workdir


_FORKS = """
import importlib, json, os, sys, tempfile
from adsq_jax import command_line
module, answers = importlib.import_module(sys.argv[1]), []
for arguments in json.load(sys.stdin):
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        pid = os.fork()
        if not pid:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.argv[1:] = arguments
            command_line.run(module.main)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        answers.append([status, *(file.seek(0) or file.read() for file in (out, err))])
json.dump(answers, sys.stdout)
"""


def commands(module: str, calls: list[list[str]]) -> list[subprocess.CompletedProcess]:
    """Run a command once for each list of arguments, in processes forked from one that has imported it."""
    child = [sys.executable, "-W", "ignore", "-c", _FORKS, module]
    root = ROOT
    done = subprocess.run(child, input=json.dumps(calls), cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [subprocess.CompletedProcess(call, *answer) for call, answer in zip(calls, json.loads(done.stdout), strict=True)]


def assert_refused(module: str, cases: list[tuple[dict[str, object], str]], given: dict[str, object]) -> None:
    """Check that each change of the given flags ends with exit status 2 and one line that contains a text."""
    calls = [[f"{name}={value}" for name, value in {**given, **changed}.items()] for changed, _ in cases]
    for (changed, said), done in zip(cases, commands(module, calls), strict=True):
        assert done.returncode == 2, (changed, done)
        assert said in done.stderr, (changed, done)
        assert len(done.stderr.strip().splitlines()) == 1, (changed, done)
        assert not done.stdout, (changed, done)
