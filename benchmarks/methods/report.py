"""Make RESULTS.md, docs/results/ and their plots: `python -m benchmarks.methods.report [--write] [--folder=DIR] [--out=DIR]`.

Reads the runs of `python -m benchmarks.methods.compare`, DIR/SET/runs.jsonl, and prints RESULTS.md. With --write it also writes
RESULTS.md, docs/results/SET.md for each data set, docs/results/tuning.md and the plots. Needs the extra `test` (matplotlib).
"""

import argparse
import os
import re
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
from benchmarks.methods.report_text import HEAD, HOW_TO_READ, NOTES, SENTENCES, SET_HEAD, TITLES, TUNING, UNCOUNTED, VARIANTS
from benchmarks.methods.scores import (
    ALONE,
    BOTH,
    QUERY_NETS,
    Cell,
    Difference,
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
from benchmarks.methods.tables import MISSING, cell_text, count, difference_text, markdown

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "results" / "compare"
PAGES = Path("docs") / "results"
LENGTHS = (12, 24, 48)  # the code lengths that RESULTS.md shows and counts, where a data set has one of them
AIM = {BOTH: 3, ALONE: 2}  # data sets on which ADSQ should be above every baseline at all of them


def title(one: Set) -> str:
    """Return what readers call a data set."""
    return TITLES.get(one.name, one.name)


def counted(sets: Iterable[Set]) -> list[Set]:
    """Return the data sets with runs that can tell the best methods apart, the field's own first."""
    order = [*TITLES]
    return sorted(
        (one for one in sets if one.runs and one.name not in UNCOUNTED),
        key=lambda one: (order.index(one.name) if one.name in order else len(order), one.name),
    )


def lengths(one: Set) -> list[int]:
    """Return the code lengths of a data set that RESULTS.md shows and counts."""
    return [bits for bits in one.bits if bits in LENGTHS] or one.bits


def short(text: str) -> str:
    """Write numbers below 1 without their leading 0."""
    return re.sub(r"(?<![\d.])0\.", ".", text)


# ----------------------------------------------------------------------------------------------------------------- RESULTS.md


def results(sets: list[Set], *, folder: Path) -> str:
    """Write RESULTS.md; `folder` is the results folder relative to it."""
    shown = counted(sets)
    verdicts = {ours: standings(shown, ours) for ours in (BOTH, ALONE)}
    plot = f"\n![{plots.OVERVIEW}]({(PAGES / 'overview.png').as_posix()})\n" if shown else ""
    missing = [text for name, text in TITLES.items() if name not in UNCOUNTED and name not in {one.name for one in shown}]
    run = {line["method"] for one in sets for line in one.runs}
    missing += [display_name(name) for name in METHODS if name not in run]
    told = SENTENCES.format(
        above="; ".join(f"{ours} {places(verdicts[ours], 'above')}" for ours in verdicts),
        below="; ".join(f"{ours} {places(verdicts[ours], 'below')}" for ours in verdicts),
        missing=f"; {', '.join(missing)}, not run yet" if missing else "",
        folder=folder.as_posix(),
    )
    return f"{HEAD}\n{aim(verdicts)}\n\n{data_list(sets)}\n{overview_table(shown)}{HOW_TO_READ}{plot}\n{told}"


def data_list(sets: list[Set]) -> str:
    """Write a line a data set: what it is, and where the rest is."""
    lines, shown = [], counted(sets)
    for one in shown:
        settings = one.runs[0]["settings_of_all"]
        lines.append(
            f"- [{title(one)}]({page(one)}): {about_runs(one.runs)}{f' Set for all: {settings}.' if settings else ''}\n"
        )
    others = ", ".join(f"[{title(one)}]({page(one)})" for one in sets if one not in shown)
    if others:
        lines.append(f"- Not counted, since they can't tell the best methods apart: {others}.\n")
    return "".join(lines)


def page(one: Set) -> str:
    """Return where a data set's page is, relative to RESULTS.md."""
    return (PAGES / f"{one.name}.md").as_posix()


def standings(sets: list[Set], ours: str) -> dict[tuple[str, int], dict[str, Difference]]:
    """Subtract the baselines from one of ADSQ's rows at every data set and code length that has both."""
    places = {(title(one), bits): to_baselines(one.table, ours, bits) for one in sets for bits in lengths(one)}
    return {place: differences for place, differences in places.items() if differences}


def is_above(differences: dict[str, Difference]) -> bool:
    """Return whether ADSQ is above every baseline."""
    return all(one.above for one in differences.values())


def is_below(differences: dict[str, Difference]) -> bool:
    """Return whether ADSQ is below at least one baseline."""
    return any(one.below for one in differences.values())


def aim(verdicts: dict[str, dict[tuple[str, int], dict[str, Difference]]]) -> str:
    """Write whether the aim is reached: on how many data sets ADSQ is above every baseline at all code lengths."""
    if not all(verdicts.values()):
        return "**ADSQ can't be compared here: no seed of it is common to a baseline.**"
    won = {}
    for ours, places_of in verdicts.items():
        names = dict.fromkeys(name for name, _ in places_of)
        won[ours] = [n for n in names if all((n, bits) in places_of and is_above(places_of[n, bits]) for bits in LENGTHS)]
    below = sum(map(is_below, verdicts[BOTH].values()))
    reached = not below and all(len(won[ours]) >= wanted for ours, wanted in AIM.items())
    both, alone = (f"{len(won[ours])} (aim: {wanted})" for ours, wanted in AIM.items())
    return (
        f"**The aim is {'reached' if reached else 'missed'}: {BOTH} is above every baseline at 12, 24 and 48 bits on this many "
        f"data sets: {both}; {ALONE} above every one-network baseline: {alone}; {BOTH} is below a baseline at {below} of "
        f"{count(len(verdicts[BOTH]), 'place')} (aim: 0).**"
    )


def places(verdict: dict[tuple[str, int], dict[str, Difference]], side: str) -> str:
    """Write at how many places ADSQ is above every baseline, or below one, and which."""
    test = {"above": is_above, "below": is_below}[side]
    by_set: dict[str, tuple[list[str], set[str]]] = {}
    for (name, bits), differences in verdict.items():
        if test(differences):
            at, highest = by_set.setdefault(name, ([], set()))
            at.append(str(bits))
            highest.add(min(differences, key=lambda other: differences[other].mean))
    texts = [
        f"{name} at {', '.join(at)} bits" + (f" [{', '.join(sorted(highest))}]" if side == "below" else "")
        for name, (at, highest) in by_set.items()
    ]
    return f"at {sum(len(at) for at, _ in by_set.values())} of {len(verdict)} places" + "".join(f", {text}" for text in texts)


def overview_table(sets: list[Set]) -> str:
    """Write the means and spreads of all methods on the counted data sets, and ADSQ's differences to the best baselines."""
    columns = [(one, bits) for one in sets for bits in lengths(one)]
    means: dict[str, list[float]] = {}
    for one, bits in columns:
        for name, row in one.table.items():
            means.setdefault(name, []).extend([map_of(row[bits])] if bits in row else [])
    names = sorted(means, key=lambda name: (name not in (BOTH, ALONE), -len(means[name]), -mean(means[name] or [0]), name))
    best = [best_of(one.table, bits) for one, bits in columns]
    seeds = most_seeds(cell for one, _ in columns for row in one.table.values() for cell in row.values())

    def cells(name: str) -> list[str]:
        return [
            short(cell_text(one.table.get(name, {}).get(bits), seeds=seeds, bold=name in bold, digits=3))
            for (one, bits), bold in zip(columns, best, strict=True)
        ]

    rows = [[name, *cells(name)] for name in names]
    for ours, what in ((BOTH, "baseline"), (ALONE, "one-network baseline")):
        minus = [to_best_baseline(one.table, ours, bits)[1] for one, bits in columns]
        rows.append([f"{ours} minus the best {what}", *(short(difference_text(to, digits=3)) for to in minus)])
        sides = [to_baselines(one.table, ours, bits).values() for one, bits in columns]
        counts = [[sum(to.above for to in side), len(side), sum(to.below for to in side)] for side in sides]
        texts = [f"{above} / {every - above - below} / {below}" for above, every, below in counts]
        rows.append([f"{what}s that {ours} is above / neither / below", *texts])
    head = ["mAP", *(f"{title(one)}<br>{bits} bits" for one, bits in columns)]
    return markdown(head, rows) if columns else ""


def most_seeds(cells: Iterable[Cell]) -> int:
    """Return the largest number of seeds of a cell."""
    return max(map(len, cells), default=0)


# ------------------------------------------------------------------------------------------------------- the page of a data set


def set_page(one: Set) -> str:
    """Write a data set's page."""
    text = SET_HEAD.format(title=title(one), note="".join(f"\n{NOTES[one.name]}\n" if one.name in NOTES else ""))
    if one.runs:
        text += f"\n{about_runs(one.runs)}\n{how_made([*one.runs, *one.variants])}\n\n{main_table(one)}"
        text += "".join(differences_table(one, ours) for ours in (BOTH, ALONE)) + query_nets_table(one)
        text += f"\n## Precision within radius 2 / share of queries with nothing there\n\n{radius_table(one)}"
        text += f"\n## Curves\n\n![{plots.CURVES}]({one.name}.png)\n"
    if one.conditions:
        text += f"\n## Harder data\n\n{conditions_text(one)}"
    if one.variants:
        text += f"\n## Variants of the objective\n\n{variants_table(one)}"
    return text


def by_length(one: Set, head: str, rows: Iterable[Sequence[str]], *more: str) -> str:
    """Write a table with a column a code length."""
    return markdown([head, *(f"{bits} bits" for bits in one.bits), *more], rows)


def main_table(one: Set) -> str:
    """Write the mAP of each method by code length, the mean over code lengths, and the time and memory of a run."""
    seeds = most_seeds(cell for row in one.table.values() for cell in row.values())
    best, rows = {bits: best_of(one.table, bits) for bits in one.bits}, []
    for name, row in one.table.items():
        runs = [score.run for cell in row.values() for score in cell.values()]
        passes = "1" if name == ALONE or runs[0]["query_net"] != "sum" else "2"
        cells = [cell_text(row.get(bits), seeds=seeds, bold=name in best[bits]) for bits in one.bits]
        whole = f"{mean(map_of(cell) for cell in row.values()):.4f}" if len(row) == len(one.bits) else MISSING
        rows.append(
            [name, *cells, whole, passes, *(f"{median(run[key] for run in runs):,.0f}" for key in ("seconds", "memory_mib"))]
        )
    return by_length(one, "mAP", rows, "mean", "passes an image", "seconds a run", "memory, MiB")


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
    return f"\n## ADSQ by query net\n\n{by_length(one, 'encoded by', rows)}" if cells else ""


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
    """Write a table a code length of runs on harder data, with ADSQ's differences to the best baseline that was run."""
    tables = {condition: table_of(runs) for condition, runs in one.conditions.items()}
    text = "".join(f"- {name}: {NAMES.get(name, MISSING)}. {about_runs(runs)}\n" for name, runs in one.conditions.items())
    for bits in sorted({bits for table in tables.values() for row in table.values() for bits in row}):
        at = {name: table for name, table in tables.items() if any(bits in row for row in table.values())}
        names = dict.fromkeys(name for table in at.values() for name, row in table.items() if bits in row)
        columns = [{name: one.table.get(name, {}) for name in names}, *at.values()]
        text += f"\n{markdown([f'{bits} bits', 'unchanged', *at], condition_rows(columns, list(names), bits))}"
    return text


def condition_rows(columns: list[Table], names: list[str], bits: int) -> list[list[str]]:
    """Return the rows of a table with a column a condition, and below them ADSQ minus the best baseline."""
    best = [best_of(table, bits) for table in columns]
    seeds = [most_seeds(row[bits] for row in table.values() if bits in row) for table in columns]
    rows = [
        [
            name,
            *(
                cell_text(t.get(name, {}).get(bits), seeds=n, bold=name in b)
                for t, n, b in zip(columns, seeds, best, strict=True)
            ),
        ]
        for name in names
    ]
    for ours in (BOTH, ALONE):
        best_baselines = [to_best_baseline(table, ours, bits) for table in columns]
        texts = [f"{name}: {difference_text(to)}" if to else MISSING for name, to in best_baselines]
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


def about_runs(runs: list[dict[str, Any]]) -> str:
    """Write protocol, sizes and split of runs on a line."""
    protocols = ", ".join(sorted({run["protocol"] for run in runs}))
    sizes = [
        f"{' or '.join(f'{n:,}' for n in sorted({run[key] for run in runs}))} {what}"
        for key, what in (("n_query", "queries"), ("n_train", "training images"), ("n_database", "images in the database"))
    ]
    return f"protocol {protocols}, mAP@{runs[0]['map_at']}; {', '.join(sizes)}; split `{runs[0]['split_sha256'][:12]}`."


def how_made(runs: list[dict[str, Any]]) -> str:
    """Write the settings of all runs, if there are any, and their days, machines and versions."""
    codes = sorted({run["code_sha256"][:12] for run in runs})
    packages = sorted({f"{name} {version}" for run in runs for name, version in run["versions"].items()})
    machines = "; ".join(sorted({run["machine"] for run in runs}))
    days = sorted({run["date"] for run in runs})
    untuned = sorted({display_name(run["method"]) for run in runs if run["trial"] is None})
    settings = runs[0]["settings_of_all"]
    of_all = f"Set for all of them, trials included: {settings}.\n" if settings else ""
    of_all += f"Not tuned, at their default settings: {', '.join(untuned)}.\n" if untuned else ""
    return of_all + (
        f"{count(len(runs), 'run')}, {' to '.join(dict.fromkeys((days[0], days[-1])))}, on {machines}. "
        f"{count(len(codes), 'version')} of the code ({', '.join(f'`{code}`' for code in codes)}); {', '.join(packages)}."
    )


# ----------------------------------------------------------------------------------------------------------------- the appendix


def tuning_page(sets: list[Set]) -> str:
    """Write the appendix: a row a trial, the mean over its folds; the trial whose settings a method's runs take is marked."""
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
            value = f"{scores[trial]:.4f}" + (" (best)" if scores[trial] == best and len(lines) == most else "")
            mark = "**chosen**" if trial in chosen.get(key, ()) else ""
            held = ", ".join(f"{line['validation']:,}" for line in lines)
            rest = [held, f"{lines[0]['bits']}, {lines[0]['seed']}", f"{mean(line['seconds'] for line in lines):,.0f}"]
            rows.append([name, str(trial), settings_text(lines[0]["settings"]), value, mark, *rest, lines[-1]["date"]])
    head = ["method", "trial", "settings", "validation mAP", "runs take", "images held out", "bits, seed", "seconds", "date"]
    return markdown(head, rows)


def pages(sets: list[Set], *, folder: Path) -> dict[Path, str]:
    """Write every page.

    Args:
      sets: the results.
      folder: the results folder relative to RESULTS.md.

    Returns:
      The text of each file, by its path relative to that of RESULTS.md.
    """
    return {
        Path("RESULTS.md"): results(sets, folder=folder),
        **{PAGES / f"{one.name}.md": set_page(one) for one in sets},
        PAGES / "tuning.md": tuning_page(sets),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print RESULTS.md, and write all pages with --write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the pages and the plots")
    parser.add_argument("--folder", type=storage.path, default=FOLDER, help="the folder of the results")
    parser.add_argument("--out", type=storage.path, default=ROOT, help="the folder of RESULTS.md and docs/results/")
    given = parser.parse_args(arguments)
    try:
        sets = read(given.folder)
        texts = pages(sets, folder=Path(os.path.relpath(given.folder, given.out)))
        if given.write:
            (given.out / PAGES).mkdir(parents=True, exist_ok=True)
            for path, text in texts.items():
                (given.out / path).write_text(text, encoding="utf-8")
            plots.plot(sets, counted(sets), given.out / PAGES)
    except (ImportError, InputError, OSError) as error:
        parser.exit(2, f"error: {' '.join(str(error).split())}\n")
    sys.stdout.write(texts[Path("RESULTS.md")])


if __name__ == "__main__":
    main()
