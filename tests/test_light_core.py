"""What the package does without its extras: it measures codes and computes losses; all else says which extra it needs."""

import configparser
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement

from adsq_jax import __main__ as adsq
from adsq_jax import errors
from adsq_jax.errors import InputError, MissingPackage

ROOT = Path(__file__).parents[1]
SETTINGS = configparser.ConfigParser()
SETTINGS.read(ROOT / "setup.cfg")
# Hides every package but the standard library's and those that $CORE lists, as if they weren't installed.
HIDES = """
import os, sys

class Core:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top in CORE or top.startswith("_sysconfigdata"):
            return self.finder.find_spec(name, path, target)

CORE = {*sys.stdlib_module_names, *os.environ["CORE"].split()}
sys.meta_path[:] = map(Core, sys.meta_path)
"""


def requirements_of(text):
    """The requirements that a setting of setup.cfg lists."""
    return [Requirement(line) for line in text.split("\n") if line]


def installed_with(names):
    """The packages that these bring along, with what they need themselves."""
    found, todo = set(), list(names)
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name not in found:
            found.add(name)
            needed = map(Requirement, importlib.metadata.requires(name) or [])
            todo += [each.name for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    """The environment of a process that sees only what the core brings along."""
    folder = tmp_path_factory.mktemp("core")
    (folder / "sitecustomize.py").write_text(HIDES)
    packages = installed_with(each.name for each in requirements_of(SETTINGS["options"]["install_requires"]))
    modules = importlib.metadata.packages_distributions().items()
    names = [name for name, of in modules if {re.sub(r"[-_.]+", "-", each).lower() for each in of} & packages]
    assert {"jax", "numpy", "absl"} <= set(names)
    assert not {"flax", "PIL", "etils", "ml_collections", "tensorflow_datasets"} & set(names)
    return {**os.environ, "CORE": f"adsq_jax {' '.join(names)}", "PYTHONPATH": f"{folder}:{ROOT}"}


def run(core, *arguments, folder):
    """Run Python with these arguments; return its exit status, output and errors."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=core, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


def save_codes(folder):
    """Write codes and labels of a hand-made case: the nearest item of each query has its label, the other one hasn't."""
    np.save(folder / "q.npy", np.array([[1, 1, 1], [-1, -1, -1]], np.int8))
    np.save(folder / "d.npy", np.array([[1, 1, -1], [-1, -1, 1]], np.int8))
    for name in ("ql", "dl"):
        np.save(folder / f"{name}.npy", np.array([0, 1]))
    return [f"--query_codes={folder}/q.npy", f"--database_codes={folder}/d.npy"] + [
        f"--{part}_labels={folder}/{part[0]}l.npy" for part in ("query", "database")
    ]


def test_codes_are_measured(core, tmp_path):
    """`adsq evaluate` works on files of codes."""
    files = save_codes(tmp_path)
    assert run(core, "-m", "adsq_jax", "evaluate", *files, "--out=figures.json", folder=tmp_path)[::2] == (0, "")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["metrics"]["all"]["map"], "flax" in figures["versions"]) == (1.0, False)


def test_codes_of_a_run_are_measured_and_written(core, tmp_path):
    """`adsq evaluate --workdir` and `adsq codes` work on the folder of a run that another machine trained."""
    run_ = ROOT / "tests" / "formats" / "run_1"
    status, out, err = run(core, "-m", "adsq_jax", "evaluate", f"--workdir={run_}", "--out=figures.json", folder=tmp_path)
    assert (status, err) == (0, "")
    assert "mAP" in out
    for name in ("codes.npz", "codes.mat"):
        assert run(core, "-m", "adsq_jax", "codes", run_, f"--out={name}", folder=tmp_path)[::2] == (0, "")


LOSS = """
import numpy as np
import adsq_jax
inputs = adsq_jax.methods.loss_inputs(np.linspace(-1, 1, 24, dtype=np.float32).reshape(4, 6), np.array([0, 0, 1, 1]))
print(float(adsq_jax.methods.dpsh.loss(inputs, eta=0.1)["likelihood"]))
print(adsq_jax.retrieval.measure([[1], [-1]], [[1], [-1]], query_labels=[0, 1], database_labels=[0, 1]).map)
print(adsq_jax.data.read_array("q.npy").shape)
for statement in STATEMENTS:
    try:
        exec(statement)
    except ImportError as error:
        print(error)
"""
STATEMENTS = {
    "import adsq_jax; adsq_jax.fit": "adsq_jax.fit",
    "from adsq_jax import load": "adsq_jax.load",
    "from adsq_jax.data import from_arrays": "adsq_jax.data.from_arrays",
    "import adsq_jax.training": "adsq_jax.training",
    "import adsq_jax.models": "adsq_jax.models",
    "import adsq_jax.inference": "adsq_jax.inference",
    "import adsq_jax.report": "adsq_jax.report",
    "from adsq_jax.demo import serve": "adsq_jax.demo.serve",
}


def test_python_has_losses_and_measures(core, tmp_path):
    """Losses and measures compute; what trains is an ImportError that names the extra."""
    save_codes(tmp_path)
    status, out, err = run(core, "-c", LOSS.replace("STATEMENTS", repr(list(STATEMENTS))), folder=tmp_path)
    assert (status, err) == (0, "")
    loss, measured, rest, *refusals = out.splitlines()
    assert float(loss) > 0
    assert (float(measured), rest) == (1.0, "(2, 3)")
    assert refusals == [
        f"{subject} needs flax, which isn't installed; fix: pip install 'adsq_jax[train]'" for subject in STATEMENTS.values()
    ]


COMMANDS = [name for name in adsq.COMMANDS if name not in ("evaluate", "codes", "index", "demo")]


@pytest.mark.parametrize("name", COMMANDS)
def test_other_commands_name_the_extra(core, tmp_path, name):
    """A command that needs more ends with one line and status 2; the line has all extras of the command."""
    extras = {"encode": "index,pretrained", "search": "index", "report": "report"}.get(name, "train")
    line = f"needs flax, which isn't installed; fix: pip install 'adsq_jax[{extras}]'\n"
    assert run(core, "-m", "adsq_jax", name, "--help", folder=tmp_path) == (2, "", f"error: adsq {name} {line}")
    if name == "train":
        assert run(core, "-m", "adsq_jax.main", folder=tmp_path) == (2, "", f"error: this command {line}")


def test_other_missing_modules_are_defects():
    """A module that no extra installs, and any other error, is raised as it is; the outer subject is the one that counts."""
    for error in (ModuleNotFoundError("No module named 'x'", name="x"), ImportError("flax", name="flax"), KeyError("flax")):
        with pytest.raises(type(error)) as caught, errors.needing("this"):
            raise error
        assert caught.value is error
    with (
        pytest.raises(InputError, match="outer needs tensorflow_datasets") as raised,
        errors.needing("outer"),
        errors.needing("inner"),
    ):
        raise ModuleNotFoundError("no", name="tensorflow_datasets.core")
    assert isinstance(raised.value, MissingPackage)
    assert "adsq_jax[tfds]" in str(raised.value)


def test_the_extras_bring_what_they_need():
    """Extras whose packages work on a model bring `train`, and TFDS comes with `tfds` alone."""
    extras = {name: requirements_of(text) for name, text in SETTINGS["options.extras_require"].items()}

    def all_of(name):
        own = [each for each in extras[name] if each.name == "adsq_jax"]
        return {each.name for each in extras[name]}.union(*(all_of(extra) for each in own for extra in each.extras))

    without_model = {"gcs", "hdf5", "s3"}  # for the evaluator, too
    assert {name for name in extras if "flax" not in all_of(name)} == without_model
    assert {name for name in extras if "tensorflow-datasets" in all_of(name)} == {"all", "dev", "test", "tfds"}
    named = set().union(*errors._EXTRAS.values())
    distributions = importlib.metadata.packages_distributions()
    train = {re.sub(r"[-_.]+", "-", each.name).lower() for each in extras["train"]}
    assert {re.sub(r"[-_.]+", "-", name).lower() for each in named for name in distributions[each]} >= train
