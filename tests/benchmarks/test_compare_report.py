"""The report of the comparison: figures worked out by hand, how a loss reads, and damaged files."""

import itertools
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import permutation_test

from adsq_jax.errors import InputError
from benchmarks.methods import plots, report, run_file, scores

pytestmark = pytest.mark.benchmark
ROOT = Path(__file__).parents[2]
QUERIES = 40


def made_run(method, value, *, bits=16, seed=0, alone=None, ap=None, **changed):
    """Make a run whose mAP is `value`, and with network f alone `alone`."""
    random = np.random.default_rng([bits, seed])
    hard = random.integers(-1_500, 1_500, QUERIES)
    shape = np.linspace(0, 1, bits + 1)
    run = {
        "set": "toys",
        "method": method,
        "variant": "",
        "bits": bits,
        "seed": seed,
        "map": value,
        "map_at": "all",
        "map_by_query_net": {"ff": value},
        "query_net": "ff",
        "ap": (round(1e4 * value) + hard).tolist() if ap is None else ap,
        "precision_radius2": value - 0.1,
        "empty_balls": 0.25,
        "precision_at": {str(n): value + 0.1 - 0.03 * np.log10(n) for n in (1, 5, 10, 50, 100, 1000)},
        "precision_recall": {
            "radius": list(range(bits + 1)),
            "precision": (value + 0.1 - 0.5 * shape**2).tolist(),
            "recall": shape.tolist(),
        },
        "protocol": "toys-1",
        "split_sha256": "a" * 64,
        "n_query": QUERIES,
        "n_train": 500,
        "n_database": 1_000,
        "settings": {"learning_rate": 0.01, "alpha": 2},
        "trial": 1,
        "seconds": 12.4,
        "memory_mib": 1_234.5,
        "machine": "a machine",
        "date": f"2026-11-2{seed}",
        "code_sha256": "c" * 64,
        "versions": {"jax": "1"},
        "config_sha256": "d" * 64,
    }
    if method == "adsq":
        alone = value - 0.02 if alone is None else alone
        run |= {"query_net": "sum", "ap_f": (round(1e4 * alone) + hard).tolist()}
        run["map_by_query_net"] = {"ff": alone, "gg": alone, "fg": alone, "sum": value}
    return run | changed


def put(folder, run):
    """Add a run, in place of one of the same name."""
    path = folder / "toys" / "runs.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line for line in lines if run_file.name_of(json.loads(line)) != run_file.name_of(run)))
    run_file.append(path, run)


def made_trial(method, trial, value):
    return {
        **{"method": method, "trial": trial, "settings": {"learning_rate": 0.01, "alpha": trial}, "bits": 16, "seed": 0},
        **{"map": value, "seconds": 3.0, "date": "2026-11-19", "validation": 100},
    }


def small(folder):
    """Write runs of two methods and ADSQ at 16 and 32 bits with two seeds; ADSQ is best at 16 bits and is beaten at 32."""
    for seed, step in ((0, -0.01), (1, 0.01)):
        put(folder, made_run("adsq", 0.8 + step, bits=16, seed=seed))
        put(folder, made_run("adsq", 0.7 + step, bits=32, seed=seed))
        for bits in (16, 32):
            put(folder, made_run("hashnet", 0.75 + step, bits=bits, seed=seed))
    put(folder, made_run("dpsh", 0.5, bits=16))
    return folder


def report_of(folder):
    return report.report(scores.read(folder), folder=Path("results"))


def table_rows(text, first):
    """Return the cells of the first table whose first column has this head."""
    lines = text[text.index(f"| {first} |") :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in [lines[0], *lines[2:]]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),  # 3 x 0.01; 2 x 0.03; 0.04, but not below the one before
        ([0.5, 0.02], [0.5, 0.04]),
        ([0.6, 0.7], [1.0, 1.0]),
        ([0.2], [0.2]),
        ([], []),
    ],
)
def test_holm_by_hand(values, expected):
    assert scores.holm(values) == pytest.approx(expected)


@pytest.mark.parametrize("differences", [[5, 3, -1, 4, 2], [0, 0, 0], [1, -1, 1], [7, 6, 5, 4, 3, 2, 1, 1]])
def test_p_of_few_queries_is_that_of_all_flips(differences):
    sums = [abs(np.dot(signs, differences)) for signs in itertools.product((-1, 1), repeat=len(differences))]
    expected = np.mean(np.array(sums) >= abs(sum(differences)))
    assert scores.paired_p(np.array(differences)) == pytest.approx(expected)


def test_p_of_many_queries_counts_flips():
    """(1 + count) / (1 + flips), close to the normal distribution's p, the same each time; its least is 1 / (1 + flips)."""
    differences = np.random.default_rng(1).integers(-100, 130, 300)
    p = scores.paired_p(differences)
    normal = math.erfc(abs(differences.sum()) / math.sqrt(2 * (differences**2).sum()))
    assert p == pytest.approx(normal, abs=0.01)
    assert p == scores.paired_p(differences) == scores.paired_p(-differences)
    assert (p * (1 + scores.FLIPS)) == pytest.approx(round(p * (1 + scores.FLIPS)))
    assert scores.paired_p(np.full(50, 3)) == pytest.approx(1 / (1 + scores.FLIPS))


@pytest.mark.parametrize("n", [5, 200])
def test_p_is_that_of_scipy(n):
    """The same test of another library, whose flips are drawn otherwise."""
    differences = np.random.default_rng(n).integers(-100, 120, n)
    found = permutation_test(
        (differences.astype(float),),
        lambda x, axis: abs(x.sum(axis=axis)),
        permutation_type="samples",
        n_resamples=scores.FLIPS,
        batch=1_000,
        alternative="greater",
        rng=np.random.default_rng(0),
    )
    assert scores.paired_p(differences) == pytest.approx(found.pvalue, abs=0.02)


def cell(values, ap):
    return {seed: scores.Score(value, np.array(ap), {}) for seed, value in values.items()}


def test_a_difference_by_hand():
    """Over the common seeds only; variances 0.0002 and 0.0018 pool to a deviation of the root of 0.001."""
    ours, other = cell({0: 0.5, 1: 0.52, 7: 0.9}, [10, 20, 30]), cell({0: 0.44, 1: 0.5, 8: 0.1}, [9, 18, 27])
    found = scores.difference(ours, other)
    assert found.mean == pytest.approx(0.04)
    assert found.spread == pytest.approx(0.001**0.5)
    assert found.p == pytest.approx(2 / 8)  # of eight flips the one that is and its mirror image
    assert found.beyond
    assert not found._replace(mean=0.03).beyond
    assert found._replace(mean=-0.04).beyond
    assert scores.difference(ours, cell({8: 0.1}, [9, 18, 27])) is None
    one = scores.difference(cell({0: 0.5}, [1, 2]), cell({0: 0.1}, [0, 0]))
    assert one.spread is None
    assert not one.beyond


def test_the_table_of_a_set(tmp_path):
    """Sorted by mean, ADSQ twice, best in bold, fewer seeds and gaps marked."""
    rows = table_rows(report_of(small(tmp_path)), "method")
    assert rows[0] == ["method", "16 bits", "32 bits", "mean", "passes an image", "seconds a run", "memory, MiB"]
    assert rows[1:] == [
        ["ADSQ (both)", "**0.8000 ± 0.0141**", "0.7000 ± 0.0141", "0.7500", "2", "12", "1,234"],
        ["HashNet", "0.7500 ± 0.0141", "**0.7500 ± 0.0141**", "0.7500", "1", "12", "1,234"],
        ["ADSQ (f)", "0.7800 ± 0.0141", "0.6800 ± 0.0141", "0.7300", "1", "12", "1,234"],
        ["DPSH", "0.5000 (1 seed)", "\u2013", "\u2013", "1", "12", "1,234"],
    ]


def test_a_loss_reads_as_a_loss(tmp_path):
    """What is below a baseline is said to be, in words and in the tables."""
    text = report_of(small(tmp_path))
    assert (
        "**ADSQ (both) is above every baseline beyond the spread at 0 of 1 set and code lengths.** It is below at least one "
        "baseline at 0 of them, beyond the spread at 0.\n\nIt is not so at:\n\n"
        "- toys, 16 bits: 0.2900 above DPSH, spread unknown of one seed (p 0.0002); "
        "not beaten beyond the spread: 1 of 2 baselines\n\n"
        "Not counted, since not every baseline was run there:\n\n"
        "- toys, 32 bits: 0.0500 below HashNet, beyond the spread (p 0.0001); not beaten beyond the spread: 1 of 1 baseline\n"
    ) in text
    summary = table_rows(text, "set")
    assert summary[1] == [
        *("toys", "16", "ADSQ (both) (0.8000)", "HashNet (0.7500)"),
        *("**+0.0500**, p 0.0002", "**+0.0300**, p 0.0002"),
    ]
    assert summary[2][2:] == ["HashNet (0.7500)", "HashNet (0.7500)", "**-0.0500**, p 0.0001", "**-0.0700**, p 0.0001"]
    rows = table_rows(text, "ADSQ (f) minus")
    assert rows[1:] == [
        ["HashNet", "**+0.0300**, p 0.0002", "**-0.0700**, p 0.0001"],
        ["DPSH", "+0.2700, p 0.0002", "\u2013"],
    ]


def test_a_win_within_the_spread_is_none(tmp_path):
    for seed, step in ((0, -0.1), (1, 0.1)):
        put(tmp_path, made_run("adsq", 0.8 + step, alone=0.7 + step, seed=seed))
        put(tmp_path, made_run("dpsh", 0.75 + step, seed=seed))
    text = report_of(tmp_path)
    assert "- toys, 16 bits: 0.0500 above DPSH, within the spread (p 0.0001)" in text
    assert "- toys, 16 bits: 0.0500 below DPSH, within the spread (p 0.0001)" in text
    put(tmp_path, made_run("dpsh", 0.3, seed=0))
    put(tmp_path, made_run("dpsh", 0.32, seed=1))
    text = report_of(tmp_path)
    for ours in ("ADSQ (both)", "ADSQ (f)"):
        assert f"**{ours} is above every baseline beyond the spread at 1 of 1 set and code lengths.** It is below at" in text
    assert "It is not so" not in text
    assert (
        "It is so at:\n\n- toys, 16 bits: 0.4900 above DPSH, beyond the spread (p 0.0001); the nearest of 1 baseline\n\n"
        in text
    )


def test_query_nets(tmp_path):
    """A row a query net with the mean of each code length, the best one marked; without ADSQ there is no such table."""
    put(tmp_path, made_run("dpsh", 0.5))
    assert "by query net" not in report_of(tmp_path)
    for seed, step in ((0, -0.01), (1, 0.01)):
        nets = {"ff": 0.7 + step, "gg": 0.72 + step, "fg": 0.68 + step, "sum": 0.75 + step}
        put(tmp_path, made_run("adsq", nets["sum"], alone=nets["ff"], seed=seed, map_by_query_net=nets))
    assert table_rows(report_of(tmp_path), "encoded by")[1:] == [
        ["f for both", "0.7000 ± 0.0141"],
        ["g for both", "0.7200 ± 0.0141"],
        ["f for queries, g for the database", "0.6800 ± 0.0141"],
        ["the sum of f and g for both", "**0.7500 ± 0.0141**"],
    ]


def test_tuning_conditions_and_variants(tmp_path):
    """Each has its table where there is data; the trial that the runs took is marked, beside the one that was best."""
    small(tmp_path)
    bare = report_of(tmp_path)
    assert all(heading not in bare for heading in ("tuning", "other conditions", "variants of"))
    for trial in range(2):
        put(tmp_path, made_trial("dpsh", trial, 0.6 - 0.1 * trial))
    for seed in range(2):
        put(tmp_path, made_run("adsq", 0.4 + seed / 50, seed=seed, condition="noise20"))
        put(tmp_path, made_run("dpsh", 0.5 + seed / 50, seed=seed, condition="noise20"))
        put(tmp_path, made_run("adsq", 0.85 + seed / 50, seed=seed, variant="smooth"))
    text = report_of(tmp_path)
    assert [row[:5] for row in table_rows(text[text.index("tuning") :], "method")[1:]] == [
        ["DPSH", "0", "learning_rate 0.01, alpha 0", "0.6000 (best)", ""],
        ["DPSH", "1", "learning_rate 0.01, alpha 1", "0.5000", "**chosen**"],
    ]
    beyond = text[text.index("other conditions") :]
    assert table_rows(beyond, "method")[0][1:3] == ["unchanged", "noise20"]
    assert ["DPSH", "0.5000 (1 seed)", "**0.5100 ± 0.0141**"] in table_rows(beyond, "method")
    assert "- noise20: a fifth of the training images have" in beyond
    assert "- noise20: ADSQ (both) is 0.1000 below the best of 1 baseline, DPSH, beyond the spread (p 0.0001).\n" in beyond
    variants = table_rows(text[text.index("variants of") :], "variant")
    assert variants[1] == ["smooth (both)", "0.8600 ± 0.0141", "**+0.0600**, p 0.0001"]
    assert variants[2][0] == "smooth (f)"
    path = tmp_path / "toys" / "runs.jsonl"
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if "validation" in line))
    assert "tuning" in report_of(tmp_path)


def test_conditions_are_in_their_own_order(tmp_path):
    """Not in that of their letters, by which few100 comes before few20 and few50."""
    small(tmp_path)
    for condition in ("unseen", "few20", "few100", "noise40", "few50"):
        put(tmp_path, made_run("dpsh", 0.5, condition=condition))
    (one,) = scores.read(tmp_path)
    assert list(one.beyond) == ["noise40", "few100", "few50", "few20", "unseen"]


def test_the_baselines_are_ranked_where_all_of_them_were_run(tmp_path):
    """Ranks among the baselines alone, from the means over the seeds; a place that lacks one of them doesn't count."""
    maps = {"dpsh": (0.6, 0.6, 0.9), "hashnet": (0.7, 0.5, 0.1), "dsh": (0.4, 0.58, None), "adsq": (0.9, 0.1, 0.5)}
    for method, values in maps.items():
        for bits, value in zip((16, 32, 48), values, strict=True):
            for seed, step in ((0, -0.15), (1, 0.15)) if value else ():
                put(tmp_path, made_run(method, value + step, bits=bits, seed=seed))
    text = report_of(tmp_path)
    assert "at which each of them was run (2 of 3):" in text
    assert table_rows(text, "baseline")[1:] == [
        ["DPSH", "1.50", "0.0500"],
        ["HashNet", "2.00", "0.0500"],
        ["DSH", "2.50", "0.1600"],
    ]


def test_settings_of_all_runs(tmp_path):
    """What was set for all stands with the runs, and runs of other settings aren't compared with them."""
    assert "Set for all" not in report_of(small(tmp_path / "small"))
    put(tmp_path, made_run("dpsh", 0.5, settings_of_all={"train.rounds": 4, "optim.momentum": 0.9}))
    put(tmp_path, made_run("adsq", 0.6, settings_of_all={"train.rounds": 4, "optim.momentum": 0.9}))
    assert "Set for all of them, trials included: train.rounds 4, optim.momentum 0.9.\n2 runs" in report_of(tmp_path)
    put(tmp_path, made_run("dsh", 0.5))
    with pytest.raises(InputError, match="differ in settings_of_all"):
        report_of(tmp_path)


def changed(tmp_path, **keys):
    put(tmp_path, made_run("dpsh", 0.5))
    run_file.append(tmp_path / "toys" / "runs.jsonl", made_run("adsq", 0.5) | keys)


def add_line(tmp_path, text):
    changed(tmp_path)
    with (tmp_path / "toys" / "runs.jsonl").open("a", errors="surrogateescape") as file:
        file.write(text + "\n")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: changed(path, split_sha256="b" * 64), "differ in split_sha256"),
        (lambda path: changed(path, map_at="5000"), "differ in map_at"),
        (lambda path: changed(path, bits="16"), "bits is '16', of the wrong type"),
        (lambda path: changed(path, ap=[1]), "ap is not a list of 40"),
        (lambda path: changed(path, ap_f=None), "ap_f is not a list of 40"),
        (lambda path: changed(path, ap=[0.5] * QUERIES), "ap is not a list of 40"),
        (lambda path: changed(path, map_by_query_net={}), "no 'ff'"),
        (lambda path: changed(path, query_net="ff"), "expected query_net 'sum'"),
        (lambda path: changed(path, variant=3), "variant is '3'"),
        (lambda path: changed(path, settings_of_all=[3]), "settings_of_all is"),
        (lambda path: changed(path, map=float("nan")), "line 2 can't be read as the JSON"),
        (lambda path: changed(path, map=float("inf")), "line 2 can't be read as the JSON"),
        (lambda path: changed(path, seconds=10**400), "line 2 can't be read as the JSON"),
        (lambda path: changed(path, ap=[10**30] * QUERIES), "line 2 can't be read as the JSON"),
        (lambda path: changed(path, precision_at={"1": "x"}), "precision_at"),
        (lambda path: changed(path, precision_at={"x": 1}), "precision_at"),
        (lambda path: changed(path, precision_recall={key: ["x"] for key in ("radius", "precision", "recall")}), "_recall"),
        (lambda path: changed(path, condition=["few20"]), "condition is"),
        (lambda path: changed(path, precision_recall={"radius": [0], "precision": []}), "precision_recall"),
        (lambda path: (path / "toys").mkdir(), "has no SET/runs.jsonl"),
        (lambda path: None, "has no SET/runs.jsonl"),
        (lambda path: add_line(path, "{"), "line 3 can't be read"),
        (lambda path: add_line(path, "[]"), "line 3 can't be read"),
        (lambda path: add_line(path, "{}"), "line 3 has no 'set'"),
        (lambda path: add_line(path, "\udcff"), "can't be read"),
        (lambda path: (changed(path), (path / "toys").rename(path / "dolls")), "line 1 is of 'toys', its folder of 'dolls'"),
        (lambda path: add_line(path, json.dumps(made_run("dpsh", 0.5))), "remove one"),
    ],
)
def test_bad_input(tmp_path, damage, words):
    damage(tmp_path)
    with pytest.raises(InputError, match=words):
        scores.read(tmp_path)


def test_a_line_that_a_kill_cut_off(tmp_path):
    """It is not read, and the next line takes its place."""
    path = tmp_path / "toys" / "runs.jsonl"
    for part in ("", "{", json.dumps(made_run("dpsh", 0.5))):
        path.unlink(missing_ok=True)
        run_file.append(path, made_run("dpsh", 0.5))
        whole = path.read_bytes()
        path.write_bytes(whole + part.encode())
        assert [line["method"] for line in run_file.read(path)] == ["dpsh"]
        run_file.append(path, made_run("csq", 0.5))
        assert path.read_bytes().startswith(whole)
        assert [line["method"] for line in run_file.read(path)] == ["dpsh", "csq"]


def test_every_run_in_the_repository_has_a_name():
    """No two runs of a data set have the same one; there are 1,014."""
    runs = [run for path in report.FOLDER.glob("*/runs.jsonl") for run in run_file.read(path)]
    assert len({(run["set"], run_file.name_of(run)) for run in runs}) == len(runs) == 1_014


@pytest.mark.parametrize("key", ["map", "trial", "ap", "versions"])
def test_a_missing_key(tmp_path, key):
    run = made_run("dpsh", 0.5)
    run_file.append(tmp_path / "toys" / "runs.jsonl", {name: value for name, value in run.items() if name != key})
    with pytest.raises(InputError, match=f"runs.jsonl, line 1 has no '{key}'"):
        scores.read(tmp_path)


def test_two_versions_of_the_code_are_named(tmp_path):
    put(tmp_path, made_run("dpsh", 0.5))
    assert "1 version of the code (`cccccccccccc`)" in report_of(tmp_path)
    put(tmp_path, made_run("dpsh", 0.5, seed=1, code_sha256="e" * 64))
    text = report_of(tmp_path)
    assert "2 runs, 2026-11-20 to 2026-11-21, on a machine. 2 versions of the code (`cccccccccccc`, `eeeeeeeeeeee`)" in text
    assert "ADSQ (both) can't be compared" in text


def test_the_command_writes_the_report_and_the_plots(tmp_path, capsys):
    """Without --write nothing is written; with it the files are the same each time."""
    small(tmp_path / "runs")
    out = tmp_path / "RESULTS.md"
    flags = [f"--folder={tmp_path / 'runs'}", f"--out={out}"]
    report.main(flags)
    printed = capsys.readouterr().out
    assert not out.exists()
    assert not list(tmp_path.rglob("*.png"))
    report.main([*flags, "--write"])
    assert out.read_text() == capsys.readouterr().out == printed
    first = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    assert sorted(path.name for path in first) == sorted(plots.IMAGES)
    for path in first:
        assert f"]({path.relative_to(tmp_path).as_posix()})" in printed
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert len(image.convert("RGB").getcolors(1 << 24)) > 10
        assert path.stat().st_size < 150_000
    report.main([*flags, "--write"])
    assert {path: path.read_bytes() for path in first} == first


def test_bad_input_is_a_line_and_exit_status_2(tmp_path):
    command = [
        sys.executable,
        "-m",
        "benchmarks.methods.report",
        f"--folder={tmp_path}",
        f"--out={tmp_path / 'r.md'}",
        "--write",
    ]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: {tmp_path} has no SET/runs")
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stdout == ""
