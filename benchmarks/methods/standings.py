"""Where ADSQ is above the other methods and where it isn't, and the table of means that README shows."""

import re
from collections.abc import Iterable, Sequence
from statistics import mean
from typing import Any

from benchmarks.methods import plots
from benchmarks.methods.report_text import TITLES, UNCOUNTED
from benchmarks.methods.scores import ALONE, BOTH, LEVEL, Cell, Difference, Set, display_name, map_of, to_baselines
from benchmarks.methods.tables import MISSING, markdown
from benchmarks.methods.tasks import ADSQ

LENGTHS = (12, 24, 48)  # the code lengths that are counted, where a data set has one of them
AIM = {BOTH: 3, ALONE: 2}  # data sets on which ADSQ should be above every baseline at all of them
BASELINES = {BOTH: "baseline", ALONE: "one-network baseline"}  # which ones each row is compared with
MOST_BASELINES = 7  # in the table of means

Verdict = dict[tuple[str, int], dict[str, Difference]]  # data set and code length -> baseline -> ADSQ's difference to it


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
    """Return the code lengths of a data set that are counted."""
    return [bits for bits in one.bits if bits in LENGTHS] or one.bits


def short(text: str) -> str:
    """Write numbers below 1 without their leading 0."""
    return re.sub(r"(?<![\d.])0\.", ".", text)


def listed(texts: Iterable[Any], word: str = "and") -> str:
    """Write a list as in a sentence: `12, 24 and 48`."""
    *first, last = map(str, texts)
    return f"{', '.join(first)} {word} {last}" if first else last


def machine_text(machine: str) -> str:
    """Write a CPU as it is recorded, `1 x cpu (x86_64, 1 cores)` or `x86_64, 1 cores`, in words; other machines as they are."""
    cpu = re.fullmatch(r"(?:\d+ x cpu \()?(\w+), (\d+) cores?\)?", machine)
    return f"{cpu[2]} core{'' if cpu[2] == '1' else 's'} of an {cpu[1]} CPU" if cpu else machine


def made_text(runs: Sequence[dict[str, Any]]) -> str:
    """Write when runs were made and on which machines."""
    days = sorted({run["date"] for run in runs})
    machines = listed(sorted({machine_text(run["machine"]) for run in runs}))
    return f"{' to '.join(dict.fromkeys((days[0], days[-1])))}, on {machines}"


# ------------------------------------------------------------------------------------------------------------------ the verdict


def verdict_of(sets: list[Set], ours: str) -> Verdict:
    """Subtract the baselines from one of ADSQ's rows at every data set and code length that has both."""
    cases = {(title(one), bits): to_baselines(one.table, ours, bits) for one in sets for bits in lengths(one)}
    return {case: differences for case, differences in cases.items() if differences}


def is_above(differences: dict[str, Difference]) -> bool:
    """Return whether ADSQ is above every baseline."""
    return all(one.above for one in differences.values())


def is_below(differences: dict[str, Difference]) -> bool:
    """Return whether ADSQ is below at least one baseline."""
    return any(one.below for one in differences.values())


def aim(verdicts: dict[str, Verdict]) -> str:
    """Write whether the aim is reached: on how many data sets ADSQ is above every baseline at all code lengths."""
    if not all(verdicts.values()):
        return "**ADSQ can't be compared here: no seed of it is common to a baseline.**"
    texts, reached = [], True
    for ours, verdict in verdicts.items():
        names = dict.fromkeys(name for name, _ in verdict)
        won = [n for n in names if all((n, bits) in verdict and is_above(verdict[n, bits]) for bits in LENGTHS)]
        reached = reached and len(won) >= AIM[ours]
        texts.append(
            f"{ours} should be above every {BASELINES[ours]} at {listed(LENGTHS)} bits on at least {AIM[ours]} data sets, and "
            f"is on {len(won)} of {len(names)}{f' ({listed(won)})' if won else ''}."
        )
    below = sum(map(is_below, verdicts[BOTH].values()))
    texts.append(
        f"{BOTH} should be below no baseline in any case (a data set at one code length), and is below one in {below} of "
        f"{len(verdicts[BOTH])}."
    )
    return f"**The aim is {'reached' if reached and not below else 'not reached yet'}.** {' '.join(texts)}"


def cases_text(verdict: Verdict, *, above: bool) -> str:
    """Write in how many cases ADSQ is above every baseline, or below one, and which: `2: CIFAR-10 (12, 24 bits; DHD)`."""
    test = is_above if above else is_below
    by_set: dict[str, tuple[list[str], dict[str, None]]] = {}
    for (name, bits), differences in verdict.items():
        if test(differences):
            at, best = by_set.setdefault(name, ([], {}))
            at.append(str(bits))
            best[min(differences, key=lambda other: differences[other].mean)] = None
    texts = [f"{name} ({', '.join(at)} bits{'' if above else f'; {listed(best)}'})" for name, (at, best) in by_set.items()]
    return f"{sum(len(at) for at, _ in by_set.values())}" + (f": {', '.join(texts)}" if texts else "")


def what_to_see(one: Set) -> str:
    """Write at which code lengths ADSQ is above every baseline, below some, or neither; nothing without a baseline."""
    texts: dict[str, list[int]] = {}
    for bits in one.bits:
        differences = to_baselines(one.table, BOTH, bits)
        if differences:
            texts.setdefault(side_text(differences), []).append(bits)
    parts = [f"at {listed(at)} bits {'it' if number else BOTH} {text}" for number, (text, at) in enumerate(texts.items())]
    return f"{'; '.join(parts)}.".replace("at ", "At ", 1) if parts else ""


def side_text(differences: dict[str, Difference]) -> str:
    """Write on which side of the baselines ADSQ is: `is above every baseline that was run`."""
    lower = [name for name in differences if differences[name].below]
    level = [name for name in differences if not differences[name].below and not differences[name].above]
    if lower:
        return f"is below {listed(lower) if len(lower) < 4 else f'{len(lower)} of {len(differences)} baselines'}"
    if len(level) > 3:
        return f"doesn't clearly differ from {len(level)} of {len(differences)} baselines"
    if len(level) == len(differences):
        return f"doesn't clearly differ from {listed(level)}"
    return "is above every baseline that was run" + (
        f" but {listed(level)}, where there is no clear difference" if level else ""
    )


# ----------------------------------------------------------------------------------------------------------- the table of means


def mean_of(row: dict[int, Cell]) -> float | None:
    """Return a row's mean over the counted code lengths; None if one of them was not run."""
    return mean(map_of(row[bits]) for bits in LENGTHS) if all(bits in row for bits in LENGTHS) else None


def means_rows(sets: list[Set]) -> dict[str, list[float | None]]:
    """Return the rows of the table of means: ADSQ's two, the best baseline of each data set, and the best over all.

    Args:
      sets: those that are counted.

    Returns:
      A mean for each data set, by the row's name; baselines in the order of their means' sums.
    """
    names = dict.fromkeys(name for one in sets for name in one.table)
    means = {name: [mean_of(one.table.get(name, {})) for one in sets] for name in names}
    rivals = {
        name: row
        for name, row in means.items()
        if name not in (BOTH, ALONE) and plots.BUDGET_SEPARATOR not in name and any(row)
    }
    winners = [max(rivals, key=lambda name: rivals[name][at] or 0) for at in range(len(sets))] if rivals else []
    others = [name for name in plots.best_baselines(sets, most=len(rivals)) if name in rivals]
    chosen = [*dict.fromkeys([*winners, *others])][:MOST_BASELINES]
    chosen.sort(key=lambda name: (-sum(value is not None for value in rivals[name]), -sum(filter(None, rivals[name]))))
    return {name: means[name] for name in [*(name for name in (BOTH, ALONE) if name in means), *chosen]}


def means_table(sets: list[Set]) -> str:
    """Write the means of ADSQ and the best baselines over code lengths and seeds, and where ADSQ is above and below.

    Args:
      sets: all that were read; those that can't tell the best methods apart are left out.

    Returns:
      A table in Markdown, a paragraph and a list; nothing if no method was run at all the lengths.
    """
    shown = counted(sets)
    rows = means_rows(shown)
    best = [max((row[at] or 0 for row in rows.values()), default=0) for at in range(len(shown))]
    cells = {
        name: [
            MISSING if value is None else short(f"{f'**{value:.3f}**' if value == top else f'{value:.3f}'}")
            for value, top in zip(row, best, strict=True)
        ]
        for name, row in rows.items()
    }
    table = markdown(["mean mAP", *map(title, shown)], [[name, *row] for name, row in cells.items()])
    return f"{table}\n{means_text(shown)}" if any(map(any, rows.values())) else ""


def means_text(shown: list[Set]) -> str:
    """Write what the table of means holds, and where ADSQ is above and below the baselines."""
    verdicts = {ours: verdict_of(shown, ours) for ours in (BOTH, ALONE)}
    runs = [run for one in shown for run in one.runs]
    cutoffs = [f"mAP@{one.runs[0]['map_at']} for {title(one)}" for one in shown if str(one.runs[0]["map_at"]) != "all"]
    two = {display_name(run["method"]) for run in runs if run["query_net"] == "sum" and run["budget"] == ""}
    two = sorted(two - {display_name(ADSQ)})
    text = (
        f"Means over {listed(LENGTHS)} bits and seeds {listed(sorted({run['seed'] for run in runs}))} of "
        f"mAP@all{f' ({listed(cutoffs)})' if cutoffs else ''}; {MISSING}: not run at all three lengths. {ALONE} encodes an "
        f"image with one network, as the baselines do{f' ({listed(two)}: two)' if two else ''}; {BOTH} with two. "
        f"The {len(verdicts[BOTH])} cases below are data sets at one code length, and a difference counts where its "
        f"{LEVEL:.0%} interval excludes 0. "
    )
    sides = "".join(
        f"- {ours} is above every {BASELINES[ours]} in {cases_text(verdict, above=True)}. It is below one or more in "
        f"{cases_text(verdict, above=False)}.\n"
        for ours, verdict in verdicts.items()
        if verdict
    )
    return f"{text}Measured {made_text(runs)}.\n" + (f"\n{sides}" if sides else "")
