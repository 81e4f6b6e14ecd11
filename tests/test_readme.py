"""Check what README says: its files, config keys, Python and tables."""

import ast
import importlib
import importlib.util
import inspect
import json
import re
import sys
from pathlib import Path

import numpy as np
from support import mock_data
from support.runs import make_setup

import adsq_jax
from adsq_jax.config import default
from adsq_jax.training import init, rounds, step

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
sys.path.insert(0, str(ROOT))
report = importlib.import_module("benchmarks.methods.report")
OWN = "mypackage.mymodule"  # README's method of one's own


def test_the_table_of_results_is_made_from_the_results():
    """The rows of README, and of launch/milvus's, are those that benchmarks/rows.py makes from benchmarks/results."""
    spec = importlib.util.spec_from_file_location("rows", ROOT / "benchmarks" / "rows.py")
    rows = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rows)
    for page in rows.PAGES:
        assert rows.with_rows(page.read_text()) == page.read_text(), page
    assert len(list((ROOT / "benchmarks" / "results").glob("*.json"))) == 6


def leaves(tree, prefix=""):
    """Every value of a tree of dicts, by its dotted key; tuples as JSON has them."""
    if not isinstance(tree, dict):
        return {prefix: list(tree) if isinstance(tree, tuple) else tree}
    return {key: value for name, below in tree.items() for key, value in leaves(below, f"{prefix}.{name}").items()}


def test_the_results_are_of_the_config_in_the_repository():
    """Fashion-MNIST's runs have the config of configs/fashion_mnist.py, one split, no validation, and reach .80.

    Each result holds the config that it was made with. Config keys that came later must have the value of default(), which
    changes nothing.
    """
    results = [json.loads(path.read_text()) for path in (ROOT / "benchmarks" / "results").glob("fashion_mnist*.json")]
    assert {(r["n_query"], r["n_train"], r["n_database"], r["validation"]) for r in results} == {(1_000, 5_000, 69_000, 0)}
    assert len({r["split_sha256"] for r in results}) == 1
    assert len({r["config_sha256"] for r in results}) == 6
    for r in results:
        config = mock_data.load_config("fashion_mnist", f"bits={r['bits']}")
        config.seed = r["seed"]
        keys, then, neutral = leaves(config.to_dict()), leaves(r["config"]), leaves(default().to_dict())
        gone = {key: then.pop(key) for key in then.keys() - keys.keys()}
        assert gone == {".optim.new_layers_multiplier": 1.0}  # it changed nothing at 1, as optim.trunk_lr_scale doesn't
        assert {key: keys[key] for key in then} == then
        later = keys.keys() - then.keys()
        assert {key: keys[key] for key in later} == {key: neutral[key] for key in later}
    for bits in (24, 48):
        assert sum(r["map"] for r in results if r["bits"] == bits) / 3 >= 0.80
    assert {(r["bits"], r["seed"]) for r in results} == {(bits, seed) for bits in (24, 48) for seed in (0, 1, 2)}


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


def test_the_pages_of_results_are_made_from_the_runs():
    """RESULTS.md and docs/results/ are what benchmarks/methods/report.py makes of the repository's runs, and no page more."""
    folder = ROOT / "benchmarks" / "results" / "compare"
    pages = report.pages(report.read(folder), folder=folder.relative_to(ROOT))
    for path, text in pages.items():
        assert (ROOT / path).read_text() == text, path
    there = {path.relative_to(ROOT) for path in (ROOT / report.PAGES).glob("*.md")}
    assert there | {Path("RESULTS.md")} == pages.keys()
