"""RESULTS.md and plots of the comparison of methods: `python -m benchmarks.methods.report [--write] [--folder=DIR]`.

Reads what `python -m benchmarks.methods.compare` leaves: a folder a data set, in it a JSON a run. Prints RESULTS.md; with
--write also writes it, and PNGs beside the runs. Needs the extra `test` (matplotlib).
"""

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

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
    map_of,
    ranking,
    read,
    settings_text,
    shown,
    table_of,
)

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "results" / "compare"
MISSING = "\u2013"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def cell_text(cell: dict[int, Score] | None, *, seeds: int, best: float | None) -> str:
    """A cell's mean and spread.

    Args:
      cell: scores by seed, if there are any.
      seeds: how many the cells beside it have.
      best: the highest mean of the column; None: none is marked.

    Returns:
      Markdown.
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
    """A number and its noun: "1 seed", "2 seeds"."""
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def difference_text(one: Difference | None) -> str:
    """A difference in a table: bold where it is beyond the spread."""
    if one is None:
        return MISSING
    text = f"{one.mean:+.4f}"
    return f"{f'**{text}**' if one.beyond else text}, p {one.p:.4f}"


def difference_words(one: Difference, other: str) -> str:
    """A difference in a sentence: "0.0100 below DPSH, beyond the spread (p 0.0200)"."""
    side = "above" if one.mean > 0 else "below" if one.mean < 0 else "away from"
    spread = "spread unknown of one seed" if one.spread is None else f"{'beyond' if one.beyond else 'within'} the spread"
    return f"{abs(one.mean):.4f} {side} {other}, {spread} (p {one.p:.4f})"


def columns(table: Table, keys: Sequence[int]) -> tuple[int, dict[int, float]]:
    """The most seeds of a cell, and the highest mean of each code length."""
    seeds = max((len(cell) for row in table.values() for cell in row.values()), default=0)
    return seeds, {bits: max(map_of(row[bits]) for row in table.values() if bits in row) for bits in keys}


def main_table(one: Set) -> str:
    """A row a method, a column a code length; then the mean over them and what a run takes."""
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
    """ADSQ's two rows minus every baseline."""
    text = ""
    for ours, differences in one.differences.items():
        if differences:
            rows = [[name, *(difference_text(row.get(bits)) for bits in one.bits)] for name, row in differences.items()]
            text += f"\n{ours} minus each:\n\n" + markdown([f"{ours} minus", *(f"{bits} bits" for bits in one.bits)], rows)
    return text or "\nNo seed is common to ADSQ and a baseline: there is nothing to compare.\n"


def query_nets_table(one: Set) -> str:
    """ADSQ's mAP by what encodes queries and database, all of the same runs; empty without such runs."""
    cells = one.table.get(BOTH, {})
    found = {
        net: {
            bits: {seed: score._replace(map=score.run["map_by_query_net"][net]) for seed, score in cell.items()}
            for bits, cell in cells.items()
        }
        for net in QUERY_NETS
    }
    seeds, best = columns(found, list(cells))
    rows = [
        [what, *(cell_text(found[net].get(bits), seeds=seeds, best=best.get(bits)) for bits in one.bits)]
        for net, what in QUERY_NETS.items()
    ]
    head = ["encoded by", *(f"{bits} bits" for bits in one.bits)]
    return "\nADSQ by query net:\n\n" + markdown(head, rows) if cells else ""


def at_radius(run_scores: dict[int, Score] | None, name: str) -> tuple[str, str]:
    """Precision within radius 2 and the share of empty balls, means over the seeds, of a run's own query net."""
    runs = [score.run for score in (run_scores or {}).values() if name != ALONE or score.run["query_net"] == "ff"]
    if not runs:
        return MISSING, MISSING
    return f"{mean(run['precision_radius2'] for run in runs):.4f}", f"{mean(run['empty_balls'] for run in runs):.1%}"


def radius_table(one: Set) -> str:
    """Precision within radius 2 and empty balls."""
    rows = [[name, *(" / ".join(at_radius(row.get(bits), name)) for bits in one.bits)] for name, row in one.table.items()]
    return markdown(["method", *(f"{bits} bits" for bits in one.bits)], rows)


def trials_table(one: Set) -> str:
    """A row a trial; of each method the one that its runs took is marked."""
    chosen: dict[tuple, set] = {}
    for run in (*one.runs, *one.variants):
        chosen.setdefault((run["method"], run["variant"]), set()).add(run["trial"])
    rows = []
    for trial in sorted(one.trials, key=lambda trial: (trial["method"], trial["variant"], trial["trial"])):
        key = trial["method"], trial["variant"]
        name = " ".join(filter(None, (shown(key[0]), key[1])))
        best = max(other["map"] for other in one.trials if (other["method"], other["variant"]) == key)
        value = f"{trial['map']:.4f}" + (" (best)" if trial["map"] == best else "")
        mark = "**chosen**" if trial["trial"] in chosen.get(key, ()) else ""
        rest = [f"{trial['validation']:,}", f"{trial['bits']}, {trial['seed']}", f"{trial['seconds']:,.0f}", trial["date"]]
        rows.append([name, str(trial["trial"]), settings_text(trial["settings"]), value, mark, *rest])
    head = ["method", "trial", "settings", "validation mAP", "runs take", "images held out", "bits, seed", "seconds", "date"]
    return markdown(head, rows)


def beyond_text(one: Set) -> str:
    """Runs under other conditions: a table a code length, and for each condition where ADSQ stands."""
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
        for (condition, ours), found in differences.items():
            text += standing(f"{condition}: {ours}", table=tables[condition], found=found, bits=bits)
    about = [f"- {condition}: {NAMES.get(condition, MISSING)}. {about_runs(runs)}\n" for condition, runs in one.beyond.items()]
    return f"\n{BEYOND}\n{''.join(about)}{text}"


def standing(name: str, *, table: Table, found: Differences, bits: int) -> str:
    """A line that says how far a row is from the best baseline that was run; empty where there is none."""
    others = baselines_at(found, bits)
    if not others:
        return ""
    best = max(others, key=lambda other: map_of(table[other][bits]))
    rival = f"the best of {count(len(others), 'baseline')}, {best}"
    return f"- {name} is {difference_words(others[best], rival)}.\n"


def variants_text(one: Set) -> str:
    """Changed objectives: the mAP of each, and each minus the plain method with as many networks."""
    table = table_of(one.variants)
    lengths = sorted({run["bits"] for run in one.variants})
    found: dict[str, Differences] = {"(both)": {}, "(f)": {}}
    for name, row in table.items():
        for nets, plain in (("(both)", BOTH), ("(f)", ALONE)):
            cells = {bits: difference(cell, one.table.get(plain, {}).get(bits, {})) for bits, cell in row.items()}
            if name.endswith(nets):
                found[nets][name] = {bits: cell for bits, cell in cells.items() if cell is not None}
    differences = {name: row for nets in found.values() for name, row in corrected(nets).items()}
    seeds, _ = columns(table, lengths)
    rows = []
    for name, row in table.items():
        maps = [cell_text(row.get(bits), seeds=seeds, best=None) for bits in lengths]
        rows.append([name, *maps, *(difference_text(differences.get(name, {}).get(bits)) for bits in lengths)])
    head = ["variant", *(f"{bits} bits" for bits in lengths), *(f"minus ADSQ, {bits} bits" for bits in lengths)]
    text = (
        f"\nA variant (both) is set beside {BOTH}, a variant (f) beside {ALONE}, and p corrected over those of each kind.\n"
        "What has no difference is a baseline's. Earlier code made those of before neighbours and of unweighted pairs, each\n"
        "tuned by trials of its own.\n\n"
    )
    return text + markdown(head, rows)


def span(values: Iterable[str]) -> str:
    """A value, or the first and the last."""
    found = sorted(set(values))
    return " to ".join(dict.fromkeys((found[0], found[-1])))


def about_runs(runs: list[dict[str, Any]]) -> str:
    """Protocol, sizes and split of runs, on a line."""
    protocols = ", ".join(sorted({run["protocol"] for run in runs}))
    sizes = [
        f"{' or '.join(f'{n:,}' for n in sorted({run[key] for run in runs}))} {what}"
        for key, what in (("n_query", "queries"), ("n_train", "training images"), ("n_database", "images in the database"))
    ]
    return f"{protocols}; mAP@{runs[0]['map_at']}; {', '.join(sizes)}; split `{runs[0]['split_sha256'][:12]}`."


def how_made(runs: list[dict[str, Any]]) -> str:
    """What was set for all runs, where that is something, and their days, machines and versions."""
    codes = sorted({run["code_sha256"][:12] for run in runs})
    packages = sorted({f"{name} {version}" for run in runs for name, version in run["versions"].items()})
    machines = "; ".join(sorted({run["machine"] for run in runs}))
    settings = runs[0]["settings_of_all"]
    of_all = f"Set for all of them, trials too: {settings}.\n" if settings else ""
    return of_all + (
        f"{count(len(runs), 'run')}, {span(run['date'] for run in runs)}, on {machines}. "
        f"{count(len(codes), 'version')} of the code ({', '.join(f'`{code}`' for code in codes)}); {', '.join(packages)}."
    )


def section(one: Set, place: Path) -> str:
    """A data set's section.

    Args:
      one: the data set.
      place: the folder of all data sets, as seen from the report.

    Returns:
      Markdown.
    """
    text = f"\n## {one.name}\n"
    if one.runs:
        images = "\n".join(f"![{what}]({(place / one.name / file).as_posix()})\n" for file, what in plots.IMAGES.items())
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


BEYOND = """ADSQ and the baselines nearest by the mAP of unchanged data, with the settings that were chosen there. What a
condition changes is drawn once, alike for all methods and seeds. Their runs were trained and tested so:
"""

HEAD = f"""# Comparison of hashing methods

Made by two commands, no number typed by hand: `python -m benchmarks.methods.compare ...` trains, measures and leaves a JSON a
run under `PLACE`; `python -m benchmarks.methods.report --write` makes this file and the plots from those.

- **mAP** is that of a method's own codes at the protocol's cutoff, ties averaged, from 0 to 1: mean ± spread over the seeds.
  The **spread** is the sample standard deviation over the seeds. Bold: the best of a column.
- ADSQ stands in every table of mAP twice: **{ALONE}** encodes an image by one network, **{BOTH}** by the sum of two, which
  takes two passes an image (over a frozen trunk, which the two share, one pass and two heads). The rows are of the same runs.
- Nets, data, augmentation and epochs of a network are the same for all. ADSQ and DADH train two networks, and so take twice the
  updates of the others; ADSQ and DSEH train LabelNet as well.
- **Tuning** is four trials a method on held-out training images: two learning rates by two choices of settings. The choices
  were written down before a method's runs, with two exceptions. ADSQ got two terms, `neighbours` and `bit_likelihood`, and its
  choices were changed, after runs on stamps and on emoji_frozen had been seen (there "before neighbours", among the variants):
  these two sets tell less of ADSQ than digits and fashion_mnist, which had no part in it. DPSH, DHN and DSDH first had
  unweighted pairs, as in their papers, and merged classes ("unweighted pairs", among the variants); they were given the weights
  of HashNet's and ADSQ's pairs, and settings nearer to their papers', and were run again.
- A **difference** is one of means over the seeds that both methods have. It is **beyond the spread** where it is larger than
  the pooled sample standard deviation of the two (the root of the mean of their variances); differences beyond it are bold.
  With three seeds, a difference as large as that comes by chance in about three of ten cases (t of 4 degrees of freedom).
- **p** is of a two-sided paired randomisation test (Fisher's; Smucker, Allan and Carterette, CIKM 2007) on the average
  precision of each query, averaged over the common seeds: {FLIPS:,} random flips of signs from a fixed seed,
  p = (1 + count) / (1 + flips), or all flips where they are fewer. It is corrected by Holm over the rows of one table and code
  length (of the variants, over those of as many networks); the summary repeats the p of the set's table. It is of the queries,
  and says nothing of other seeds. Queries that belong together, as an emoji's pictures do, count as independent, so that p is
  too small there.
- **Precision within radius 2** is the mean over the queries; one with nothing there counts 0.
- {MISSING} stands for what is missing; a cell with fewer seeds than others says how many it has.
"""


def report(sets: list[Set], *, place: Path) -> str:
    """The whole of RESULTS.md.

    Args:
      sets: what `read` returns.
      place: their folder, as seen from the report.

    Returns:
      Markdown.
    """
    return HEAD.replace("PLACE", place.as_posix()) + summary(sets) + "".join(section(one, place) for one in sets)


def summary(sets: list[Set]) -> str:
    """Where ADSQ is above every baseline and where it isn't, and a row a data set and code length."""
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
                found = one.differences[ours].get(rival, {}).get(bits)
                line.append(difference_text(found) if found else MISSING)
            rows.append(line)
    text += markdown(["set", "bits", "best method", "best baseline", f"{BOTH} minus it", f"{ALONE} minus it"], rows)
    return text + ranking_table(sets)


def ranking_table(sets: list[Set]) -> str:
    """The baselines from the best to the worst over all places that have each of them; empty where there is no such place."""
    places, found = ranking(sets)
    if not found:
        return ""
    text = (
        "\nThe baselines over the set and code lengths at which each of them was run "
        f"({places} of {sum(len(one.bits) for one in sets)}):\n\n"
    )
    rows = [[name, f"{rank:.2f}", f"{below:.4f}"] for name, rank, below in found]
    return text + markdown(["baseline", "mean rank", "mean distance below the best baseline"], rows)


def verdict(sets: list[Set], ours: str) -> str:
    """A paragraph on one of ADSQ's rows: how often it is above every baseline beyond the spread, and where."""
    everyone = {name for one in sets for name in one.table} - {BOTH, ALONE}
    places = {(one.name, bits): baselines_at(one.differences[ours], bits) for one in sets for bits in one.bits}
    places = {place: found for place, found in places.items() if found}
    if not places:
        return f"{ours} can't be compared: no seed of it is common to a baseline.\n\n"
    whole = [place for place, found in places.items() if found.keys() == everyone]
    unbeaten = {
        place: {name: one for name, one in found.items() if not (one.mean > 0 and one.beyond)}
        for place, found in places.items()
    }
    groups = {
        "It is so at": [place for place in whole if not unbeaten[place]],
        "It is not so at": [place for place in whole if unbeaten[place]],
        "Not counted, since not every baseline was run there": [place for place in places if place not in whole],
    }
    below, far = (
        sum(any(one.mean < 0 and (one.beyond or not strictly) for one in places[place].values()) for place in whole)
        for strictly in (False, True)
    )
    text = (
        f"**{ours} is above every baseline beyond the spread at {len(groups['It is so at'])} of {len(whole)} set and code "
        f"lengths.** It is below at least one baseline at {below} of them, beyond the spread at {far}.\n\n"
    )
    for words, members in groups.items():
        if members:
            text += f"{words}:\n\n{''.join(place_line(place, places[place], unbeaten[place]) for place in members)}\n"
    return text


def place_line(place: tuple[str, int], found: dict[str, Difference], unbeaten: dict[str, Difference]) -> str:
    """A line on one set and code length: how far the nearest of the baselines is."""
    nearest = min(found, key=lambda other: found[other].mean)
    if unbeaten:
        nearest = min(unbeaten, key=lambda other: unbeaten[other].mean)
    among = count(len(found), "baseline")
    more = f"not beaten beyond the spread: {len(unbeaten)} of {among}" if unbeaten else f"the nearest of {among}"
    return f"- {place[0]}, {place[1]} bits: {difference_words(found[nearest], nearest)}; {more}\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the report, and writes it where that is asked for.

    Args:
      arguments: of the command line; None: the process's own.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the report and the plots")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the sets' folders; the plots go there too")
    parser.add_argument("--out", type=Path, default=ROOT / "RESULTS.md", help="the report's file")
    given = parser.parse_args(arguments)
    try:
        sets = read(given.folder)
        text = report(sets, place=Path(os.path.relpath(given.folder, given.out.parent)))
        if given.write:
            for one in sets:
                plots.plot(one, plots.looks(sets))
            given.out.write_text(text, encoding="utf-8")
    except (ImportError, InputError, OSError) as error:
        parser.exit(2, f"error: {' '.join(str(error).split())}\n")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
