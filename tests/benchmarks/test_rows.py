"""The pages of results are what benchmarks/rows.py makes of benchmarks/results/, and its tables say what the runs say."""

import json
import re
from pathlib import Path
from statistics import mean

import pytest
from support import mock_data

from adsq_jax.config import default
from benchmarks import rows
from benchmarks.methods import report, run_file, scores, standings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sets():
    """The comparison's results in the repository."""
    return scores.read(report.FOLDER)


def test_the_tables_on_all_pages_are_made_from_the_results():
    """Each page has what benchmarks/rows.py would write into it; each table is on a page, and each page has the command."""
    for page in rows.PAGES:
        assert rows.with_rows(page.read_text()) == page.read_text(), page
    text = "".join(page.read_text() for page in rows.PAGES)
    assert all(f"<!-- {name} -->" in text for name in rows.TABLES if name != "means")
    for page in rows.PAGES[2:]:
        assert "`python -m benchmarks.rows --write`" in page.read_text()


def test_the_pages_of_the_comparison_are_made_from_the_runs(sets):
    """docs/results/ has what benchmarks/methods/report.py makes of the repository's runs, and no page more."""
    pages = report.pages(sets, folder=report.FOLDER.relative_to(ROOT))
    for name, text in pages.items():
        assert (report.PAGES / name).read_text() == text, name
    there = set(report.PAGES.glob("*.md"))
    assert there == {*(report.PAGES / name for name in pages), *rows.PAGES[2:]}


def test_links_and_images_of_the_pages_exist():
    """Relative to the page that has them; a link to a heading leads to one."""
    links = 0
    for page in report.PAGES.glob("*.md"):
        for link in re.findall(r"\]\(([^)]*)\)", page.read_text()):
            path, _, heading = link.partition("#")
            target = page.parent / path if path else page
            assert target.is_file(), (page, link)
            titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if heading else []
            assert not heading or heading in {title.lower().replace(" ", "-") for title in titles}, (page, link)
            links += 1
    assert links > 30


def test_the_table_of_means_wherever_a_page_has_its_comments(sets):
    """Between the comments; at most nine rows; each mean is that of the lines of runs.jsonl; bold is the largest that was run.

    The largest of each data set is among the rows, so that no better baseline is left out.
    """
    page = rows.with_rows("# A page\n\n<!-- means -->\n<!-- /means -->\n")
    assert page == f"# A page\n\n<!-- means -->\n{standings.means_table(sets)}<!-- /means -->\n"
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    assert lines[0][1:] == [standings.title(one) for one in standings.counted(sets)]
    assert len(lines) - 2 <= 9
    for column, one in enumerate(standings.counted(sets), start=1):
        by_row: dict[str, dict[int, list[float]]] = {}
        for run in run_file.read(one.folder / run_file.NAME):
            if not (run.get("validation") or run.get("condition") or run.get("variant") or run.get("budget")):
                named = {scores.display_name(run["method"]): run["map"]}
                if run["method"] == "adsq":
                    named = {"ADSQ (both)": run["map"], "ADSQ (f)": run["map_by_query_net"]["ff"]}
                for name, value in named.items():
                    by_row.setdefault(name, {}).setdefault(run["bits"], []).append(value)
        means = {
            name: mean(mean(values[bits]) for bits in (12, 24, 48))
            for name, values in by_row.items()
            if {12, 24, 48} <= values.keys()
        }
        for line in lines[2:]:
            text = f"{means[line[0]]:.3f}"[1:] if line[0] in means else "\u2013"
            largest = means.get(line[0]) == max(means.values())
            assert line[column] == (f"**{text}**" if largest else text)
        assert max(means, key=means.get) in [line[0] for line in lines[2:]]


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
    assert len(results) == 6
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
