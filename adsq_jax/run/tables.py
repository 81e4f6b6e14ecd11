"""Tables of results as text."""

import shlex
from collections.abc import Collection, Sequence
from typing import Any

from adsq_jax import codes
from adsq_jax.errors import printable
from adsq_jax.retrieval import measures

QUERY_NETS = (
    "ff, gg, fg, sum: which networks encode. ff is queries and database by f, gg both by g, fg queries by f and database by g, "
    "sum both by the sum of f's and g's outputs."
)


def align(rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> str:
    """Align the cells of a table in columns, two spaces apart.

    Args:
      rows: the cells, the same number in each row.
      right: the columns, from 0, whose cells are aligned on the right.

    Returns:
      One line per row.
    """
    rows = [[printable(cell, keep="") for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            f"{cell:>{width}}" if i in right else f"{cell:<{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def result_table(result: dict[str, Any]) -> str:
    """Return a run's result, what `result.json` holds, as aligned lines of text."""
    return align(result_rows(result))


def next_steps(workdir: str) -> str:
    """Return the commands that a finished run is for."""
    folder = shlex.quote(workdir)
    return align(
        [
            ("look at it", f"adsq report --workdir={folder}"),
            ("encode pictures", f"adsq encode --workdir={folder} --images=PICTURES --index=INDEX"),
            ("search them", "adsq search --index=INDEX --query=PICTURE"),
        ]
    )


def result_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a run's result as names and values to show."""
    rows = [
        ("protocol", f"{result['protocol']}, split {result['split_sha256'][:12]}"),
        ("queries / training set / database", "{n_query:,} / {n_train:,} / {n_database:,}".format(**result)),
        ("bits, seed", f"{result['bits']}, {result['seed']}"),
        *[
            (f"mAP@{result['map_at']} {name}{' (the result)' if name == result['query_net'] else ''}", f"{value:.4f}")
            for name in codes.QUERY_NETS
            if (value := result["map_by_query_net"].get(name)) is not None
        ],
        *_chance_row(result),
        *_class_rows(result),
        *_best_row(result),
        ("seconds", f"{result['seconds']:.0f} on {result['machine']}"),
    ]
    if result["validation"]:
        rows.insert(1, ("held out for tuning", f"{result['validation']:,} training images: not the protocol's queries"))
    return rows


def _chance_row(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what mAP would be in random order; nothing for a result of before there was this figure."""
    if "map_by_chance" not in result:
        return []
    return [(f"mAP@{result['map_at']} by chance", f"{result['map_by_chance']:.4f}")]


def _best_row(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the best score on held-out images; nothing without one."""
    best = result.get("best")
    if not best:
        return []
    number = f"{best['round']:,.2f}".rstrip("0").rstrip(".")  # 3, 2.5 or 1,234
    return [("best, kept in best/", f"{best['map']:.4f} after round {number}")]


def _class_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the mean of the classes and the lowest one; nothing for a result of before there were these figures."""
    if not result.get("map_by_class"):
        return []
    lowest, name = measures.lowest_class(result["map_by_class"], result.get("class_names"))
    mean = f"mAP@{result['map_at']} {result['query_net']}, mean of {len(result['map_by_class']):,} classes"
    return [(mean, f"{result['map_mean_of_classes']:.4f}, lowest {lowest:.4f} ({name})")]


def measures_table(figures: dict[str, Any]) -> str:
    """Return all figures of one retrieval as text: a row per figure, a column per cutoff.

    Args:
      figures: `Measures.to_dict()`, or what `evaluation.json` holds.
    """
    return align([(title, " ".join(f"{cell:>9}" for cell in cells)) for title, cells in measures.table_rows(figures)])
