"""Check what README says: its files, config keys and Python."""

import ast
import inspect
import re
from pathlib import Path

import numpy as np
from support import mock_data
from support.runs import make_setup

import adsq_jax
from adsq_jax.config import default
from adsq_jax.training import init, rounds, step

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
OWN = "mypackage.mymodule"  # README's method of one's own


def test_every_file_and_config_key_that_readme_names_exists():
    """Paths exist; each --config key is one of default()'s, or of another method's; the example's own method has `pull`."""
    for path in re.findall(r"(?:configs|benchmarks|adsq_jax|examples|launch|tests)/[\w./]+\w", README):
        assert (ROOT / path).exists() or path == "configs/NAME.py", path
    keys = set(re.findall(r"--config\.([a-z_.]+)=", README)) - {"baseline.pull"}
    assert len(keys) > 5
    for key in keys:
        node = default(method="csq" if key.startswith("baseline") else "adsq")
        for name in key.split("."):
            assert name in node, key
            node = node[name]


def test_the_method_in_readme_trains(tmp_path, monkeypatch):
    """README's method of one's own, as a module outside the package, trains on the mock data and its loss falls."""
    [source] = re.findall(r"```python\n(\"\"\".*?)```", README, re.DOTALL)
    assert f"method={OWN} " in README
    path = tmp_path / f"{OWN.replace('.', '/')}.py"
    path.parent.mkdir()
    path.write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    setup = make_setup(mock_data.small_config(method=OWN))
    state = init(setup)
    losses = []
    for batch, _ in zip(rounds.train_batches(setup, net="f", step=0), range(20), strict=False):
        state, metrics = step(setup, state, batch, net="f")
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0]
    assert len(source.splitlines()) < 100


def calls_of(block):
    """Yield each function of adsq_jax that a block of Python calls by its dotted name, and the names of its keywords."""
    starts = {"aj": adsq_jax, "adsq_jax": adsq_jax, "retrieval": adsq_jax.retrieval, "index": adsq_jax.index}
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.Call):
            start, *names = ast.unparse(node.func).split(".")
            if start in starts:
                function = starts[start]
                for name in names:
                    function = getattr(function, name)
                yield function, [keyword.arg for keyword in node.keywords]


def test_every_function_that_readme_calls_takes_these_arguments():
    """In README's blocks of Python each function of the package exists, and has the keywords that it is given."""
    calls = [call for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) for call in calls_of(block)]
    assert len(calls) > 15
    for function, keywords in calls:
        inspect.signature(function).bind_partial(**dict.fromkeys(keywords))


def test_the_search_in_readme_finds(colours, tmp_path, capsys):
    """README's search in Python, with other pictures and folders, finds a picture first, at distance 0 from itself."""
    paths = sorted(str(path) for path in colours[0].rglob("*.png"))
    [source] = re.findall(r"```python\n(import adsq_jax\n.*?)```", README, re.DOTALL)
    names = {"runs/untrained": tmp_path / "model", "runs/more_pictures": tmp_path / "index", "PICTURES": colours[0]}
    for name, other in {**names, "*.jpg": "*.png", "cat.jpg": paths[0], "dog.jpg": paths[-1]}.items():
        assert f'"{name}"' in source
        source = source.replace(f'"{name}"', f'"{other}"')
    made = {}
    exec(source, made)
    np.testing.assert_array_equal(made["codes"], adsq_jax.load(tmp_path / "model").encode([paths[0], paths[-1]]))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 20
    assert lines[0] == f"1 0 1.0 {paths[0]} ('blue',)"
