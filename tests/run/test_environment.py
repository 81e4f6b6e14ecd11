"""What a result says of the code that made it."""

import importlib.util
import shutil
from pathlib import Path

import pytest

import adsq_jax


def hash_of(root):
    """The hash that a copy of the package takes of itself."""
    spec = importlib.util.spec_from_file_location("environment_of_a_copy", root / "run" / "environment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.code_sha256()


@pytest.mark.parametrize("changed", ["codes.py", "methods/adsq.py", "data/readers/coco.py"])
def test_each_source_file_counts(changed, tmp_path):
    """A change in any file, in subpackages too, is another hash; the same files elsewhere are the same."""
    here = Path(adsq_jax.__file__).parent
    root = shutil.copytree(here, tmp_path / "adsq_jax", ignore=shutil.ignore_patterns("__pycache__"))
    assert hash_of(root) == hash_of(here)
    with (root / changed).open("a") as file:
        file.write("# changed\n")
    assert hash_of(root) != hash_of(here)
