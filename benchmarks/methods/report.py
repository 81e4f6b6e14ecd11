"""Make RESULTS.md and the plots of the comparison of methods: `python -m benchmarks.methods.report [--write] [--folder=DIR]`.

Reads the runs of `python -m benchmarks.methods.compare`, DIR/SET/runs.jsonl, and prints RESULTS.md. With --write it also writes
RESULTS.md, and PNGs beside the runs. Needs the extra `test` (matplotlib).
"""

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from adsq_jax import storage
from adsq_jax.errors import InputError
from benchmarks.methods import plots
from benchmarks.methods.conditions import NAMES
from benchmarks.methods.scores import (
    ALONE,
    BOTH,
    FLIPS,
    QUERY_NETS,
    Difference,
    Differences,
    Score,
    Set,
    Table,
    baselines_at,
    compared,
    corrected,
    difference,
    display_name,
    map_of,
    ranking,
    read,
    settings_text,
    table_of,
)

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "results" / "compare"
MISSING = "\u2013"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def cell_text(cell: dict[int, Score] | None, *, seeds: int, best: float | None) -> str:
    """Write a cell's mean and spread.

    Args:
      cell: scores by seed, if there are any.
      seeds: the number of seeds of the table; a cell with fewer says so.
      best: the mean to be bold, the highest of the column.
    """
    if not cell:
        return MISSING
    text = f"{map_of(cell):.4f}"
    if len(cell) > 1:
        text += f" ± {stdev(score.map for score in cell.values()):.4f}"
    if map_of(cell) == best:
        text = f"**{text}**"
    return text + (f" ({count(len(cell), 'seed')})" if len(cell) < seeds else "")


def count(n: int, word: str) -> str:
    """Write a number and its noun: `1 seed`, `2 seeds`."""
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def difference_text(one: Difference | None) -> str:
    """Write a difference for a table, in bold if it is beyond the spread."""
    if one is None:
        return MISSING
    text = f"{one.mean:+.4f}"
    return f"{f'**{text}**' if one.beyond else text}, p {one.p:.4f}"


def difference_words(one: Difference, other: str) -> str:
    """Write a difference for a sentence: `0.0100 below DPSH, beyond the spread (p 0.0200)`."""
    side = "above" if one.mean > 0 else "below" if one.mean < 0 else "away from"
    spread = "spread unknown of one seed" if one.spread is None else f"{'beyond' if one.beyond else 'within'} the spread"
    return f"{abs(one.mean):.4f} {side} {other}, {spread} (p {one.p:.4f})"


def columns(table: Table, keys: Sequence[int]) -> tuple[int, dict[int, float]]:
    """Return the largest number of seeds of a cell, and the highest mean of each code length."""
    seeds = max((len(cell) for row in table.values() for cell in row.values()), default=0)
    return seeds, {bits: max(map_of(row[bits]) for row in table.values() if bits in row) for bits in keys}


def main_table(one: Set) -> str:
    """Write the mAP of each method by code length, the mean over code lengths, and the time and memory of a run."""
    seeds, best = columns(one.table, one.bits)
    rows = []
    for name, row in one.table.items():
        runs = [score.run for cell in row.values() for score in cell.values()]
        passes = "1" if name == ALONE or runs[0]["query_net"] != "sum" else "2"
        cells = [cell_text(row.get(bits), seeds=seeds, best=best[bits]) for bits in one.bits]
        whole = f"{mean(map_of(cell) for cell in row.values()):.4f}" if len(row) == len(one.bits) else MISSING
        cost = [f"{median(run[key] for run in runs):,.0f}" for key in ("seconds", "memory_mib")]
        rows.append([name, *cells, whole, passes, *cost])
    lengths = [f"{bits} bits" for bits in one.bits]
    return markdown(["method", *lengths, "mean", "passes an image", "seconds a run", "memory, MiB"], rows)


def differences_tables(one: Set) -> str:
    """Write the differences of ADSQ's two rows to every baseline."""
    text = ""
    for ours, differences in one.differences.items():
        if differences:
            rows = [[name, *(difference_text(row.get(bits)) for bits in one.bits)] for name, row in differences.items()]
            text += f"\n{ours} minus each:\n\n" + markdown([f"{ours} minus", *(f"{bits} bits" for bits in one.bits)], rows)
    return text or "\nNo seed is common to ADSQ and a baseline: there is nothing to compare.\n"


def query_nets_table(one: Set) -> str:
    """Write ADSQ's mAP by query net; nothing without runs of two networks."""
    cells = one.table.get(BOTH, {})
    table = {
        net: {
            bits: {seed: score._replace(map=score.run["map_by_query_net"][net]) for seed, score in cell.items()}
            for bits, cell in cells.items()
        }
        for net in QUERY_NETS
    }
    seeds, best = columns(table, list(cells))
    rows = [
        [what, *(cell_text(table[net].get(bits), seeds=seeds, best=best.get(bits)) for bits in one.bits)]
        for net, what in QUERY_NETS.items()
    ]
    head = ["encoded by", *(f"{bits} bits" for bits in one.bits)]
    return "\nADSQ by query net:\n\n" + markdown(head, rows) if cells else ""


def at_radius(run_scores: dict[int, Score] | None, name: str) -> tuple[str, str]:
    """Write precision within radius 2 and the share of empty balls, means over the seeds, of the runs' query net."""
    runs = [score.run for score in (run_scores or {}).values() if name != ALONE or score.run["query_net"] == "ff"]
    if not runs:
        return MISSING, MISSING
    return f"{mean(run['precision_radius2'] for run in runs):.4f}", f"{mean(run['empty_balls'] for run in runs):.1%}"


def radius_table(one: Set) -> str:
    """Write precision within radius 2 and the share of empty balls by method and code length."""
    rows = [[name, *(" / ".join(at_radius(row.get(bits), name)) for bits in one.bits)] for name, row in one.table.items()]
    return markdown(["method", *(f"{bits} bits" for bits in one.bits)], rows)


def trials_table(one: Set) -> str:
    """Write a row a trial; the trial whose settings a method's runs take is marked."""
    chosen: dict[tuple, set] = {}
    for run in (*one.runs, *one.variants):
        chosen.setdefault((run["method"], run["variant"]), set()).add(run["trial"])
    rows = []
    for trial in sorted(one.trials, key=lambda trial: (trial["method"], trial["variant"], trial["trial"])):
        key = trial["method"], trial["variant"]
        name = " ".join(filter(None, (display_name(key[0]), key[1])))
        best = max(other["map"] for other in one.trials if (other["method"], other["variant"]) == key)
        value = f"{trial['map']:.4f}" + (" (best)" if trial["map"] == best else "")
        mark = "**chosen**" if trial["trial"] in chosen.get(key, ()) else ""
        rest = [f"{trial['validation']:,}", f"{trial['bits']}, {trial['seed']}", f"{trial['seconds']:,.0f}", trial["date"]]
        rows.append([name, str(trial["trial"]), settings_text(trial["settings"]), value, mark, *rest])
    head = ["method", "trial", "settings", "validation mAP", "runs take", "images held out", "bits, seed", "seconds", "date"]
    return markdown(head, rows)


def beyond_text(one: Set) -> str:
    """Write a table a code length of runs under other conditions, and for each condition how far ADSQ is from the best."""
    tables = {condition: table_of(runs) for condition, runs in one.beyond.items()}
    differences = {(condition, ours): compared(table, ours) for condition, table in tables.items() for ours in (BOTH, ALONE)}
    text = ""
    for bits in sorted({bits for table in tables.values() for row in table.values() for bits in row}):
        at = {"unchanged": one.table, **tables}
        at = {condition: table for condition, table in at.items() if any(bits in row for row in table.values())}
        order = dict.fromkeys(name for table in tables.values() for name, row in table.items() if bits in row)
        ranked = {condition: columns(table, [bits]) for condition, table in at.items()}
        rows = [
            [
                name,
                *(cell_text(at[c].get(name, {}).get(bits), seeds=ranked[c][0], best=ranked[c][1][bits]) for c in at),
            ]
            for name in order
        ]
        text += f"\n{bits} bits:\n\n"
        text += markdown(["method", *at], rows) + "\n"
        for (condition, ours), to_baselines in differences.items():
            text += standing(f"{condition}: {ours}", tables[condition], to_baselines, bits=bits)
    about = [f"- {condition}: {NAMES.get(condition, MISSING)}. {about_runs(runs)}\n" for condition, runs in one.beyond.items()]
    return f"\n{BEYOND}\n{''.join(about)}{text}"


def standing(name: str, table: Table, differences: Differences, *, bits: int) -> str:
    """Write how far a row is from the best baseline that was run; nothing if none was."""
    others = baselines_at(differences, bits)
    if not others:
        return ""
    best = max(others, key=lambda other: map_of(table[other][bits]))
    rival = f"the best of {count(len(others), 'baseline')}, {best}"
    return f"- {name} is {difference_words(others[best], rival)}.\n"


def variants_text(one: Set) -> str:
    """Write the mAP of ADSQ's variants, and their differences to ADSQ with as many networks."""
    table = table_of(one.variants)
    lengths = sorted({run["bits"] for run in one.variants})
    by_nets: dict[str, Differences] = {"(both)": {}, "(f)": {}}
    for name, row in table.items():
        for nets, plain in (("(both)", BOTH), ("(f)", ALONE)):
            cells = {bits: difference(cell, one.table.get(plain, {}).get(bits, {})) for bits, cell in row.items()}
            if name.endswith(nets):
                by_nets[nets][name] = {bits: cell for bits, cell in cells.items() if cell is not None}
    differences = {name: row for nets in by_nets.values() for name, row in corrected(nets).items()}
    seeds, _ = columns(table, lengths)
    rows = []
    for name, row in table.items():
        maps = [cell_text(row.get(bits), seeds=seeds, best=None) for bits in lengths]
        rows.append([name, *maps, *(difference_text(differences.get(name, {}).get(bits)) for bits in lengths)])
    head = ["variant", *(f"{bits} bits" for bits in lengths), *(f"minus ADSQ, {bits} bits" for bits in lengths)]
    text = (
        f"\nA variant (both) is compared with {BOTH}, a variant (f) with {ALONE}, and p is corrected over each kind.\n"
        "Rows without a difference are baselines' variants. Earlier code made the variants before neighbours and with\n"
        "unweighted pairs, each tuned by its own trials.\n\n"
    )
    return text + markdown(head, rows)


def span(values: Iterable[str]) -> str:
    """Write a value, or the first and the last of several."""
    different = sorted(set(values))
    return " to ".join(dict.fromkeys((different[0], different[-1])))


def about_runs(runs: list[dict[str, Any]]) -> str:
    """Write protocol, sizes and split of runs on a line."""
    protocols = ", ".join(sorted({run["protocol"] for run in runs}))
    sizes = [
        f"{' or '.join(f'{n:,}' for n in sorted({run[key] for run in runs}))} {what}"
        for key, what in (("n_query", "queries"), ("n_train", "training images"), ("n_database", "images in the database"))
    ]
    return f"{protocols}; mAP@{runs[0]['map_at']}; {', '.join(sizes)}; split `{runs[0]['split_sha256'][:12]}`."


def how_made(runs: list[dict[str, Any]]) -> str:
    """Write the settings of all runs, if there are any, and their days, machines and versions."""
    codes = sorted({run["code_sha256"][:12] for run in runs})
    packages = sorted({f"{name} {version}" for run in runs for name, version in run["versions"].items()})
    machines = "; ".join(sorted({run["machine"] for run in runs}))
    settings = runs[0]["settings_of_all"]
    of_all = f"Set for all of them, trials included: {settings}.\n" if settings else ""
    return of_all + (
        f"{count(len(runs), 'run')}, {span(run['date'] for run in runs)}, on {machines}. "
        f"{count(len(codes), 'version')} of the code ({', '.join(f'`{code}`' for code in codes)}); {', '.join(packages)}."
    )


def section(one: Set, folder: Path) -> str:
    """Write a data set's section; `folder` is the results folder relative to the report."""
    text = f"\n## {one.name}\n"
    if one.runs:
        images = "\n".join(f"![{what}]({(folder / one.name / file).as_posix()})\n" for file, what in plots.IMAGES.items())
        text += f"\n{about_runs(one.runs)}\n{how_made([*one.runs, *one.variants])}\n\n{main_table(one)}"
        text += differences_tables(one) + query_nets_table(one)
        text += f"\nPrecision within radius 2 / share of queries with nothing there:\n\n{radius_table(one)}\n{images}"
    if one.trials:
        text += f"\n### {one.name}: tuning\n\nOn training images that were held out, not on the queries.\n\n{trials_table(one)}"
    if one.beyond:
        text += f"\n### {one.name}: other conditions\n{beyond_text(one)}"
    if one.variants:
        text += f"\n### {one.name}: variants of the objective\n{variants_text(one)}"
    return text


BEYOND = """ADSQ and the baselines whose mAP is nearest to its own on unchanged data, with the settings chosen there. What a
condition changes is drawn once, the same for all methods and seeds. The runs were trained and tested like this:
"""

HEAD = f"""# Comparison of hashing methods

Made by two commands, no number typed by hand: `python -m benchmarks.methods.compare ...` trains, measures and adds a line for
each run to `FOLDER/SET/runs.jsonl`; `python -m benchmarks.methods.report --write` makes this file and the
plots from these.

- **mAP** is that of a method's own codes at the protocol's cutoff, ties averaged, from 0 to 1: mean ± spread over the seeds.
  The **spread** is the sample standard deviation over the seeds. Bold: the best of a column.
- ADSQ has two rows in every table of mAP: **{ALONE}** encodes an image with one network, **{BOTH}** with the sum of two, which
  takes two passes an image (over a frozen trunk, which the two share, one pass and two heads). Both rows are of the same runs.
- Nets, data, augmentation and epochs of a network are the same for all. ADSQ and DADH train two networks, and so take twice the
  updates of the others; ADSQ and DSEH train LabelNet as well.
- **Tuning** is four trials a method on held-out training images: two learning rates by two choices of settings. The choices
  were written down before a method's runs, with two exceptions. ADSQ got two terms, `neighbours` and `bit_likelihood`, and its
  choices were changed, after runs on stamps and on emoji_frozen had been seen (there "before neighbours", among the variants):
  these two sets say less about ADSQ than digits and fashion_mnist, which had no part in it. DPSH, DHN and DSDH first had
  unweighted pairs, as in their papers, and merged classes ("unweighted pairs", among the variants); they were given the weights
  of HashNet's and ADSQ's pairs, and settings nearer to their papers', and were run again.
- A **difference** is one of means over the seeds that both methods have. It is **beyond the spread** if it is larger than
  the pooled sample standard deviation of the two (the root of the mean of their variances); differences beyond it are bold.
  With three seeds, a difference that large comes by chance in about three of ten cases (t with 4 degrees of freedom).
- **p** is that of a two-sided paired randomisation test (Fisher's; Smucker, Allan and Carterette, CIKM 2007) on the average
  precision of each query, averaged over the common seeds: {FLIPS:,} random flips of signs from a fixed seed,
  p = (1 + count) / (1 + flips), or all flips if they are fewer. It is corrected by Holm over the rows of one table and code
  length (for variants, over those with as many networks); the summary repeats the p of the set's table. It is about the
  queries, and says nothing about other seeds. Queries that belong together, as an emoji's pictures do, count as independent, so
  that p is too small there.
- **Precision within radius 2** is the mean over the queries; a query with nothing there counts 0.
- {MISSING} stands for what is missing; a cell with fewer seeds than others gives their number.
"""


def report(sets: list[Set], *, folder: Path) -> str:
    """Write RESULTS.md; `folder` is the results folder relative to it."""
    return HEAD.replace("FOLDER", folder.as_posix()) + summary(sets) + "".join(section(one, folder) for one in sets)


def summary(sets: list[Set]) -> str:
    """Write where ADSQ is above every baseline and where it isn't, and a row a data set and code length."""
    text = "\n## Summary\n\n" + "".join(verdict(sets, ours) for ours in (BOTH, ALONE))
    rows = []
    for one in sets:
        for bits in one.bits:
            means = {name: map_of(row[bits]) for name, row in one.table.items() if bits in row}
            others = {name: value for name, value in means.items() if name not in (BOTH, ALONE)}
            rival = max(others, key=others.__getitem__, default=None)
            best = max(means, key=means.__getitem__)
            line = [one.name, str(bits), f"{best} ({means[best]:.4f})", f"{rival} ({means[rival]:.4f})" if rival else MISSING]
            for ours in (BOTH, ALONE):
                line.append(difference_text(one.differences[ours].get(rival, {}).get(bits)))
            rows.append(line)
    text += markdown(["set", "bits", "best method", "best baseline", f"{BOTH} minus it", f"{ALONE} minus it"], rows)
    return text + ranking_table(sets)


def ranking_table(sets: list[Set]) -> str:
    """Write the baselines' ranks over the set and code lengths that have all of them; nothing if there are none."""
    compared_at, ranks = ranking(sets)
    if not ranks:
        return ""
    text = (
        "\nThe baselines over the set and code lengths at which each of them was run "
        f"({compared_at} of {sum(len(one.bits) for one in sets)}):\n\n"
    )
    rows = [[name, f"{rank:.2f}", f"{below:.4f}"] for name, rank, below in ranks]
    return text + markdown(["baseline", "mean rank", "mean distance below the best baseline"], rows)


def verdict(sets: list[Set], ours: str) -> str:
    """Write a paragraph on one of ADSQ's rows: how often it is above every baseline beyond the spread, and where."""
    everyone = {name for one in sets for name in one.table} - {BOTH, ALONE}
    at = {(one.name, bits): baselines_at(one.differences[ours], bits) for one in sets for bits in one.bits}
    at = {cell: to_baselines for cell, to_baselines in at.items() if to_baselines}
    if not at:
        return f"{ours} can't be compared: no seed of it is common to a baseline.\n\n"
    whole = [cell for cell, to_baselines in at.items() if to_baselines.keys() == everyone]
    unbeaten = {
        cell: {name: one for name, one in to_baselines.items() if not (one.mean > 0 and one.beyond)}
        for cell, to_baselines in at.items()
    }
    groups = {
        "It is so at": [cell for cell in whole if not unbeaten[cell]],
        "It is not so at": [cell for cell in whole if unbeaten[cell]],
        "Not counted, since not every baseline was run there": [cell for cell in at if cell not in whole],
    }
    below, far = (
        sum(any(one.mean < 0 and (one.beyond or not strictly) for one in at[cell].values()) for cell in whole)
        for strictly in (False, True)
    )
    text = (
        f"**{ours} is above every baseline beyond the spread at {len(groups['It is so at'])} of {len(whole)} set and code "
        f"lengths.** It is below at least one baseline at {below} of them, beyond the spread at {far}.\n\n"
    )
    for words, cells in groups.items():
        if cells:
            text += f"{words}:\n\n{''.join(nearest_line(cell, at[cell], unbeaten[cell]) for cell in cells)}\n"
    return text


def nearest_line(cell: tuple[str, int], to_baselines: dict[str, Difference], unbeaten: dict[str, Difference]) -> str:
    """Write how far the nearest of the baselines is at one set and code length."""
    nearest = min(unbeaten or to_baselines, key=lambda other: to_baselines[other].mean)
    among = count(len(to_baselines), "baseline")
    more = f"not beaten beyond the spread: {len(unbeaten)} of {among}" if unbeaten else f"the nearest of {among}"
    return f"- {cell[0]}, {cell[1]} bits: {difference_words(to_baselines[nearest], nearest)}; {more}\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the report, and write it with --write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the report and the plots")
    parser.add_argument("--folder", type=storage.path, default=FOLDER, help="the folder of the results; the plots go there too")
    parser.add_argument("--out", type=storage.path, default=ROOT / "RESULTS.md", help="the file of the report")
    given = parser.parse_args(arguments)
    try:
        sets = read(given.folder)
        text = report(sets, folder=Path(os.path.relpath(given.folder, given.out.parent)))
        if given.write:
            for one in sets:
                plots.plot(one, plots.looks(sets))
            given.out.write_text(text, encoding="utf-8")
    except (ImportError, InputError, OSError) as error:
        parser.exit(2, f"error: {' '.join(str(error).split())}\n")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
