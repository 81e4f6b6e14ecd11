"""The defects of benchmarks/robustness/mutants.toml fit the package as it is now."""

from pathlib import Path

import pytest

from benchmarks.robustness import mutants as benchmark

pytestmark = pytest.mark.benchmark
ROOT = Path(__file__).parents[2]


def test_each_defect_can_be_put_in():
    """Its lines stand in its file once, and the file is Python with it too."""
    for mutant in benchmark.read():
        content = (ROOT / mutant["file"]).read_text()
        changed = benchmark.mutate(content, mutant)
        assert changed != content
        compile(changed, mutant["file"], "exec")


def test_every_folder_of_the_package_has_defects():
    """At least 80 in all, and two in each folder."""
    folders = [Path(mutant["file"]).parts[1] for mutant in benchmark.read()]
    assert len(folders) >= 80
    paths = [path for path in (ROOT / "adsq_jax").iterdir() if not path.is_symlink() and (path / "__init__.py").exists()]
    for folder in (path.name for path in paths):
        assert folders.count(folder) >= 2, folder


def test_the_tests_of_a_file_come_first():
    """Its own by name, then the others of its folder."""
    own, others = benchmark.nearby_tests("adsq_jax/retrieval/metrics.py")
    assert own == ["tests/retrieval/test_metrics.py"]
    assert "tests/retrieval/test_hamming.py" in others
    assert benchmark.nearby_tests("adsq_jax/config_check.py") == [["tests/test_config.py"]]
    own, others, command = benchmark.nearby_tests("adsq_jax/demo/limits.py")
    assert (own, command) == (["tests/demo/test_limits.py"], ["tests/test_demo.py"])
    assert "tests/demo/test_connections.py" in others


def test_lines_that_are_not_there():
    """A defect that fits no longer is an error that shows its lines."""
    with pytest.raises(ValueError, match=r"a\.py has these lines 0 times, expected once: b"):
        benchmark.mutate("a\n", {"file": "a.py", "old": "b", "new": "c"})
