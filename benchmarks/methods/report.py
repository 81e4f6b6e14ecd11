"""Make the pages of the comparison and their plots: `python -m benchmarks.methods.report [--write] [--folder=DIR] [--out=DIR]`.

Reads the runs of `python -m benchmarks.methods.compare`, DIR/SET/runs.jsonl, and prints the first page. With --write it writes
all pages into OUT (default: docs/results): index.md, SET.md for each data set, tuning.md and the plots. Needs the extra `test`
(matplotlib). `python -m benchmarks.rows --write` writes these and every other page of results.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

from adsq_jax import storage
from adsq_jax.errors import InputError
from adsq_jax.methods import METHODS
from benchmarks.methods import plots
from benchmarks.methods.conditions import NAMES
from benchmarks.methods.report_text import (
    ABOUT,
    ALL_METHODS,
    BEST,
    HEAD,
    HOW_TO_READ,
    NOTES,
    SENTENCES,
    SET_HEAD,
    TITLES,
    TUNING,
    UNCOUNTED,
    UNDECIDED,
    VARIANTS,
)
from benchmarks.methods.scores import (
    ALONE,
    BOTH,
    QUERY_NETS,
    Cell,
    Set,
    Table,
    best_of,
    difference,
    display_name,
    map_of,
    read,
    settings_text,
    table_of,
    to_baselines,
    to_best_baseline,
)
from benchmarks.methods.standings import (
    BASELINES,
    aim,
    counted,
    lengths,
    made_text,
    means_table,
    short,
    title,
    verdict_of,
    what_to_see,
)
from benchmarks.methods.tables import MISSING, cell_text, count, difference_text, markdown

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "results" / "compare"
PAGES = ROOT / "docs" / "results"


# --------------------------------------------------------------------------------------------------------------- the first page


def index(sets: list[Set], *, folder: Path) -> str:
    """Write the first page; `folder` is the results folder relative to the repository."""
    shown = counted(sets)
    missing = [text for name, text in TITLES.items() if name not in UNCOUNTED and name not in {one.name for one in shown}]
    run = {line["method"] for one in sets for line in one.runs}
    missing += [display_name(name) for name in METHODS if name not in run]
    text = f"{HEAD}\n{aim({ours: verdict_of(shown, ours) for ours in (BOTH, ALONE)})}\n"
    means = means_table(shown)
    text += f"\n{means}" if means else ""
    text += f"\n![{plots.OVERVIEW}](overview.png)\n" if shown else ""
    text += f"\n## The data\n\n{data_list(sets)}"
    if shown:
        text += f"\n{BEST}\n{best_table(shown, BOTH)}\n{best_table(shown, ALONE)}\n{ALL_METHODS}{all_methods(shown)}"
    sentences = SENTENCES.format(missing=f" Not run yet: {', '.join(missing)}." if missing else "", folder=folder.as_posix())
    return f"{text}\n{HOW_TO_READ}\n{sentences}"


def data_list(sets: list[Set]) -> str:
    """Write a line for each data set: what it is, and where the rest is."""
    lines, shown = [], counted(sets)
    for one in shown:
        settings = one.runs[0]["settings_of_all"]
        what = "".join(f"{sentence} " for sentence in ABOUT.get(one.name, ())[:1])
        lines.append(
            f"- [{title(one)}]({one.name}.md): {what}{about_runs(one.runs)}"
            f"{f' Set for all methods: {settings}.' if settings else ''}\n"
        )
    others = ", ".join(f"[{title(one)}]({one.name}.md)" for one in sets if one not in shown)
    if others:
        lines.append(f"- {others}: not counted above, since many methods lie within each other's intervals there.\n")
    return "".join(lines)


def best_table(sets: list[Set], ours: str) -> str:
    """Write a row for each data set: one of ADSQ's rows minus the best baseline, and how many baselines it is above."""
    all_bits = sorted({bits for one in sets for bits in lengths(one)})

    def at(one: Set, bits: int) -> str:
        best, minus = to_best_baseline(one.table, ours, bits) if bits in lengths(one) else ("", None)
        if minus is None:
            return MISSING
        side = to_baselines(one.table, ours, bits).values()
        above, below = sum(to.above for to in side), sum(to.below for to in side)
        numbers = f"{above} / {len(side) - above - below} / {below}"
        return f"{short(difference_text(minus, digits=3))}<br>{best}; {numbers}"

    table = markdown(
        [ours, *(f"{bits} bits" for bits in all_bits)], [[title(one), *(at(one, bits) for bits in all_bits)] for one in sets]
    )
    return f"{ours} minus the best {BASELINES[ours]}:\n\n{table}"


def all_methods(sets: list[Set]) -> str:
    """Write the means of all methods at each code length: a table for the frozen networks, one for the others."""
    frozen = [one for one in sets if one.name.endswith("_frozen")]
    groups = {"On a frozen network": frozen, "Trained from scratch": [one for one in sets if one not in frozen]}
    text = ""
    for name, group in groups.items():
        for start in range(0, len(group), 3):  # more columns don't fit on a page
            text += f"\n{all_methods_table(group[start : start + 3], head=name)}"
    return text


def all_methods_table(sets: list[Set], *, head: str) -> str:
    """Write a row for each method, a column for each data set, and in a cell a mean for each code length."""
    means: dict[str, list[float]] = {}
    for one in sets:
        for name, row in one.table.items():
            means.setdefault(name, []).extend(map_of(row[bits]) for bits in lengths(one) if bits in row)
    names = [name for name in means if means[name]]
    names.sort(key=lambda name: (name not in (BOTH, ALONE), -len(means[name]), -mean(means[name]), name))
    best = {(one.name, bits): best_of(one.table, bits) for one in sets for bits in lengths(one)}
    seeds = most_seeds(cell for one in sets for row in one.table.values() for cell in row.values())

    def at(one: Set, name: str) -> str:
        row = one.table.get(name, {})
        texts = [
            short(cell_text(row.get(bits), seeds=seeds, bold=name in best[one.name, bits], digits=3, spread=False))
            for bits in lengths(one)
        ]
        return " / ".join(texts) if any(bits in row for bits in lengths(one)) else MISSING

    columns = [f"{title(one)}<br>{' / '.join(map(str, lengths(one)))} bits" for one in sets]
    return markdown([head, *columns], [[name, *(at(one, name) for one in sets)] for name in names])


def most_seeds(cells: Iterable[Cell]) -> int:
    """Return the largest number of seeds of a cell."""
    return max(map(len, cells), default=0)


# ------------------------------------------------------------------------------------------------------- the page of a data set


def set_page(one: Set) -> str:
    """Write a data set's page."""
    see = UNDECIDED if one.name in UNCOUNTED else what_to_see(one)
    opening = " ".join(filter(None, (*ABOUT.get(one.name, ()), see)))
    text = SET_HEAD.format(title=title(one), opening=f"\n{opening}\n" if opening else "")
    if one.name in NOTES:
        text += f"\n{NOTES[one.name]}\n"
    if one.runs:
        text += f"\n{about_runs(one.runs)}\n\n{main_table(one)}"
        text += "".join(differences_table(one, ours) for ours in (BOTH, ALONE)) + query_nets_table(one)
        text += f"\n## Precision within Hamming radius 2 / share of queries that find nothing there\n\n{radius_table(one)}"
        text += f"\n## Time and memory\n\n{cost_table(one)}"
        text += f"\n## Curves\n\n![{plots.CURVES}]({one.name}.png)\n"
    if one.conditions:
        text += f"\n## Harder data\n\n{conditions_text(one)}"
    if one.variants:
        text += f"\n## Variants of the objective\n\n{variants_table(one)}"
    if one.runs:
        text += f"\n## How these runs were made\n\n{how_made([*one.runs, *one.variants])}\n"
    return text


def by_length(one: Set, head: str, rows: Iterable[Sequence[str]], *more: str) -> str:
    """Write a table with a column for each code length."""
    return markdown([head, *(f"{bits} bits" for bits in one.bits), *more], rows)


def main_table(one: Set) -> str:
    """Write the mAP of each method by code length, and the mean over the code lengths where all were run."""
    seeds = most_seeds(cell for row in one.table.values() for cell in row.values())
    best, rows = {bits: best_of(one.table, bits) for bits in one.bits}, []
    for name, row in one.table.items():
        cells = [cell_text(row.get(bits), seeds=seeds, bold=name in best[bits]) for bits in one.bits]
        whole = f"{mean(map_of(cell) for cell in row.values()):.4f}" if len(row) == len(one.bits) else MISSING
        rows.append([name, *cells, whole])
    return by_length(one, "mAP", rows, "mean")


def cost_table(one: Set) -> str:
    """Write how many networks encode an image, and the median time and memory of a run, which trains all its networks."""
    rows = []
    for name, row in one.table.items():
        runs = [score.run for cell in row.values() for score in cell.values()]
        networks = "1" if name == ALONE or runs[0]["query_net"] != "sum" else "2"
        rows.append([name, networks, *(f"{median(run[key] for run in runs):,.0f}" for key in ("seconds", "memory_mib"))])
    return markdown(["method", "networks that encode an image", "seconds per run", "peak memory, MiB"], rows)


def differences_table(one: Set, ours: str) -> str:
    """Write the differences of one of ADSQ's rows to the baselines; nothing without any."""
    by_bits = {bits: to_baselines(one.table, ours, bits) for bits in one.bits}
    names = [name for name in one.table if any(name in to for to in by_bits.values())]
    rows = [[name, *(difference_text(by_bits[bits].get(name)) for bits in one.bits)] for name in names]
    return f"\n## {ours} minus each\n\n{by_length(one, 'minus', rows)}" if names else ""


def query_nets_table(one: Set) -> str:
    """Write ADSQ's mAP by query net; nothing without runs of two networks."""
    cells, rows = one.table.get(BOTH, {}), []
    for net, what in QUERY_NETS.items():
        of_net = {
            bits: {s: score._replace(map=score.run["map_by_query_net"][net]) for s, score in cell.items()}
            for bits, cell in cells.items()
        }
        rows.append([what, *(cell_text(of_net.get(bits), seeds=most_seeds(cells.values())) for bits in one.bits)])
    return f"\n## ADSQ by the networks that encode\n\n{by_length(one, 'encoded by', rows)}" if cells else ""


def radius_table(one: Set) -> str:
    """Write precision within radius 2 and the share of empty balls, means over the seeds, of the runs' query net."""

    def at(cell: Cell | None) -> str:
        runs = [score.run for score in (cell or {}).values()]
        if not runs:
            return MISSING
        return f"{mean(run['precision_radius2'] for run in runs):.4f} / {mean(run['empty_balls'] for run in runs):.1%}"

    names = [name for name in one.table if name != ALONE or BOTH not in one.table]
    return by_length(one, "method", [[name, *(at(one.table[name].get(bits)) for bits in one.bits)] for name in names])


def conditions_text(one: Set) -> str:
    """Write a table for each code length of runs on harder data, with ADSQ's differences to the best baseline that was run."""
    tables = {condition: table_of(runs) for condition, runs in one.conditions.items()}
    text = "".join(f"- **{name}**: {NAMES.get(name, MISSING)} ({sizes(runs)}).\n" for name, runs in one.conditions.items())
    for bits in sorted({bits for table in tables.values() for row in table.values() for bits in row}):
        at = {name: table for name, table in tables.items() if any(bits in row for row in table.values())}
        names = dict.fromkeys(name for table in at.values() for name, row in table.items() if bits in row)
        columns = [{name: one.table.get(name, {}) for name in names}, *at.values()]
        text += f"\n{short(markdown([f'{bits} bits', 'unchanged', *at], condition_rows(columns, list(names), bits)))}"
    return text


def condition_rows(columns: list[Table], names: list[str], bits: int) -> list[list[str]]:
    """Return the rows of a table with a column a condition, and below them ADSQ minus the best baseline."""
    best = [best_of(table, bits) for table in columns]
    seeds = [most_seeds(row[bits] for row in table.values() if bits in row) for table in columns]
    rows = [
        [
            name,
            *(
                cell_text(t.get(name, {}).get(bits), seeds=n, bold=name in b, digits=3)
                for t, n, b in zip(columns, seeds, best, strict=True)
            ),
        ]
        for name in names
    ]
    for ours in (BOTH, ALONE):
        best_baselines = [to_best_baseline(table, ours, bits) for table in columns]
        texts = [f"{difference_text(to, digits=3)}<br>{name}" if to else MISSING for name, to in best_baselines]
        rows.append([f"{ours} minus the best baseline", *texts])
    return rows


def variants_table(one: Set) -> str:
    """Write the mAP of ADSQ's variants, and their differences to ADSQ with as many networks."""
    table, bits = table_of(one.variants), sorted({run["bits"] for run in one.variants})
    seeds, rows = most_seeds(cell for row in table.values() for cell in row.values()), []
    for name, row in table.items():
        plain = next((of for end, of in (("(both)", BOTH), ("(f)", ALONE)) if name.endswith(end)), "")
        minus = [difference(row.get(b, {}), one.table.get(plain, {}).get(b, {})) for b in bits]
        rows.append([name, *(cell_text(row.get(b), seeds=seeds) for b in bits), *map(difference_text, minus)])
    return VARIANTS + markdown(["variant", *(f"{b} bits" for b in bits), *(f"minus ADSQ, {b} bits" for b in bits)], rows)


def sizes(runs: list[dict[str, Any]]) -> str:
    """Write how many images the parts have."""
    parts = (("n_query", "queries"), ("n_train", "training images"), ("n_database", "images in the database"))
    return ", ".join(f"{' or '.join(f'{n:,}' for n in sorted({run[key] for run in runs}))} {what}" for key, what in parts)


def about_runs(runs: list[dict[str, Any]]) -> str:
    """Write protocol, sizes and split of runs on a line."""
    protocols = ", ".join(f"`{name}`" for name in sorted({run["protocol"] for run in runs}))
    return f"Protocol {protocols}, mAP@{runs[0]['map_at']}: {sizes(runs)}; split `{runs[0]['split_sha256'][:12]}`."


def how_made(runs: list[dict[str, Any]]) -> str:
    """Write the settings of all runs, if there are any, and their days, machines and versions."""
    codes = sorted({run["code_sha256"][:12] for run in runs})
    packages = sorted({f"{name} {version}" for run in runs for name, version in run["versions"].items()})
    untuned = sorted({display_name(run["method"]) for run in runs if run["trial"] is None})
    settings = runs[0]["settings_of_all"]
    of_all = f"Set for all methods, also while tuning: {settings}.\n" if settings else ""
    of_all += f"Not tuned, at the settings of its config or file: {', '.join(untuned)}.\n" if untuned else ""
    return of_all + (
        f"{count(len(runs), 'run')}, {made_text(runs)}, with "
        f"{count(len(codes), 'version')} of the code ({', '.join(f'`{code}`' for code in codes)}) and {', '.join(packages)}."
    )


# ----------------------------------------------------------------------------------------------------------------- the appendix


def tuning_page(sets: list[Set]) -> str:
    """Write the appendix: a row for each trial, the mean over its folds; the trial that a method's runs take is marked."""
    return TUNING + "".join(f"\n## {title(one)}\n\n{trials_table(one)}" for one in sets if one.trials)


def trials_table(one: Set) -> str:
    """Write a row a trial of a data set."""
    chosen: dict[tuple, set] = {}
    for run in (*one.runs, *one.variants):
        chosen.setdefault((run["method"], run["variant"]), set()).add(run["trial"])
    rows = []
    folds: dict[tuple[str, str], dict[int, list[dict[str, Any]]]] = {}
    for line in one.trials:
        folds.setdefault((line["method"], line["variant"]), {}).setdefault(line["trial"], []).append(line)
    for key, trials in sorted(folds.items()):
        name = " ".join(filter(None, (display_name(key[0]), key[1])))
        most = max(map(len, trials.values()))
        scores = {trial: mean(line["map"] for line in lines) for trial, lines in trials.items()}
        best = max(scores[trial] for trial, lines in trials.items() if len(lines) == most)
        for trial, lines in sorted(trials.items()):
            lines.sort(key=lambda line: line["fold"])
            value = f"{scores[trial]:.4f}" + (", best" if scores[trial] == best and len(lines) == most else "")
            value += ", **chosen**" if trial in chosen.get(key, ()) else ""
            held = ", ".join(f"{line['validation']:,}" for line in lines)
            took = f"{mean(line['seconds'] for line in lines):,.0f}; {lines[-1]['date']}"
            settings = settings_text(lines[0]["settings"]).replace("objective.weights.", "weights.")
            rows.append([f"{name}, {trial}", settings, value, held, f"{lines[0]['bits']}, {lines[0]['seed']}", took])
    head = ["method, trial", "settings", "validation mAP", "images held out", "bits, seed", "seconds; date"]
    return markdown(head, rows)


def pages(sets: list[Set], *, folder: Path) -> dict[str, str]:
    """Write every page.

    Args:
      sets: the results.
      folder: the results folder, as the first page names it.

    Returns:
      The text of each page by the name of its file.
    """
    return {
        "index.md": index(sets, folder=folder),
        **{f"{one.name}.md": set_page(one) for one in sets},
        "tuning.md": tuning_page(sets),
    }


def write(sets: list[Set], texts: dict[str, str], out: Path) -> None:
    """Write the pages and the plots into a folder, which is made if it is missing."""
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8")
    plots.plot(sets, counted(sets), out)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the first page, and write all pages with --write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the pages and the plots")
    parser.add_argument("--folder", type=storage.path, default=FOLDER, help="the folder of the results")
    parser.add_argument("--out", type=storage.path, default=PAGES, help="the folder of the pages")
    given = parser.parse_args(arguments)
    try:
        sets = read(given.folder)
        texts = pages(sets, folder=Path(os.path.relpath(given.folder, ROOT)))
        if given.write:
            write(sets, texts, given.out)
    except (ImportError, InputError, OSError) as error:
        parser.exit(2, f"error: {' '.join(str(error).split())}\n")
    sys.stdout.write(texts["index.md"])


if __name__ == "__main__":
    main()
