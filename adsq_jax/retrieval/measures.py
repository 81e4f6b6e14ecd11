"""The figures of one retrieval, as an object for Python and as a dictionary for JSON."""

import dataclasses
import html
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from adsq_jax.errors import InputError

TITLES = {  # of the figures at a cutoff, in the order of tables
    "map": "mAP (ties averaged)",
    "map_by_chance": "mAP by chance",
    "map_best": "mAP, best order of ties",
    "map_worst": "mAP, worst order of ties",
    "map_answerable": "mAP, queries with a relevant item",
    "map_mean_of_classes": "mAP, mean of classes",
    "map_legacy_deephash": "mAP as DeepHash-pytorch",
    "map_legacy_hashnet": "mAP as HashNet",
    "ndcg": "NDCG",
    "acg": "ACG",
}
_TABLE_RANKS = (1, 10, 100, 1000)  # of precision and recall at a rank, in tables


@dataclasses.dataclass(frozen=True, kw_only=True)
class CutoffMeasures:
    """Means over the queries of one retrieval, within one cutoff R.

    Attributes:
      map: mean average precision in [0, 1], averaged over all orders of tied items; a query without a relevant item counts 0.
      map_by_chance: what `map` would be if the database were in random order.
      map_best: the same with relevant items first among tied items.
      map_worst: the same with relevant items last among tied items.
      ndcg: NDCG in [0, 1], gain 2^shared labels - 1; None unless the labels are multi-hot.
      acg: the mean number of labels that an item within R shares with the query; None unless the labels are multi-hot.
      map_answerable: `map` over the queries that have a relevant item; None if there is no such query.
      map_by_class: `map` over the queries that have each class, by its name, id or column as text; a class without a query is
        missing. A large class that is found well hides small ones in `map`.
      map_mean_of_classes: the mean of `map_by_class`, each class counted once; None if no query has a label.
      map_legacy_deephash: mAP as DeepHash-pytorch computes it, tied items in database order; None unless `with_legacy`.
      map_legacy_hashnet: the same over the queries with a hit within R, as HashNet; None if there is none, or unless
        `with_legacy`.
    """

    map: float
    map_by_chance: float
    map_best: float
    map_worst: float
    ndcg: float | None = None
    acg: float | None = None
    map_answerable: float | None
    map_by_class: Mapping[str, float] = dataclasses.field(default_factory=dict)
    map_mean_of_classes: float | None = None
    map_legacy_deephash: float | None = None
    map_legacy_hashnet: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures that were measured, by name; `map_by_class` is a dictionary."""
        unmeasured = set()
        if self.ndcg is None:
            unmeasured |= {"ndcg", "acg"}
        if self.map_legacy_deephash is None:
            unmeasured |= {"map_legacy_deephash", "map_legacy_hashnet"}
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in unmeasured}


class PrecisionRecall(NamedTuple):
    """Precision and recall of the Hamming ball of each radius, means over the queries; an empty ball has precision 0."""

    radius: list[int]  # 0 to bits
    precision: list[float]  # of each radius
    recall: list[float]  # of each radius


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Measures:
    """How well codes retrieve: what `adsq_jax.retrieval.measure` returns.

    Attributes:
      by_cutoff: the figures within each cutoff, "all" or a rank, in the order in which the cutoffs were given.
      precision_radius2: precision of the Hamming ball of radius 2; an empty ball counts 0.
      empty_balls: the fraction of queries that have no item within radius 2.
      precision_at: precision at ranks 1 to 10,000 up to the size of the database, ties averaged.
      recall_at: recall at the same ranks.
      precision_recall: precision and recall by Hamming radius.
      n_queries_without_relevant: queries without a relevant item in the database.
      n_query: the number of queries.
      n_database: the number of items of a ranking.
      bits: the code length.
    """

    by_cutoff: Mapping[str, CutoffMeasures]
    precision_radius2: float
    empty_balls: float
    precision_at: Mapping[int, float]
    recall_at: Mapping[int, float]
    precision_recall: PrecisionRecall
    n_queries_without_relevant: int
    n_query: int
    n_database: int
    bits: int

    @property
    def map(self) -> float:
        """Mean average precision at the first cutoff, ties averaged.

        Raises:
          InputError: there is no cutoff.
        """
        return self.at(next(iter(self.by_cutoff), "all")).map

    def at(self, cutoff: int | str) -> CutoffMeasures:
        """Return the figures within one cutoff.

        Args:
          cutoff: "all" or a rank, as a number or text.

        Returns:
          The figures.

        Raises:
          InputError: this cutoff was not measured.
        """
        if str(cutoff) not in self.by_cutoff:
            measured = ", ".join(self.by_cutoff) or "none"
            raise InputError(f"cutoff {cutoff!r} was not measured, only {measured}; fix: give it to measure(cutoffs=[...])")
        return self.by_cutoff[str(cutoff)]

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as JSON values.

        Returns:
          The attributes by name, `by_cutoff` as `metrics`; ranks are text.
        """
        return {
            "metrics": {cutoff: figures.to_dict() for cutoff, figures in self.by_cutoff.items()},
            "precision_radius2": self.precision_radius2,
            "empty_balls": self.empty_balls,
            "precision_at": {str(rank): value for rank, value in self.precision_at.items()},
            "recall_at": {str(rank): value for rank, value in self.recall_at.items()},
            "precision_recall": self.precision_recall._asdict(),
            "n_queries_without_relevant": self.n_queries_without_relevant,
            "n_query": self.n_query,
            "n_database": self.n_database,
            "bits": self.bits,
        }

    def __repr__(self) -> str:
        lines = [f"Measures: {self.n_query:,} queries, {self.n_database:,} items, {self.bits} bits"]
        for cutoff, figures in self.by_cutoff.items():
            more = "" if figures.ndcg is None else f", NDCG {figures.ndcg:.4f}, ACG {figures.acg:.4f}"
            order = f"{figures.map_worst:.4f} to {figures.map_best:.4f} by the order of ties"
            lines.append(f"  mAP@{cutoff} {figures.map:.4f} ({order}){more}")
        lines.append(f"  precision within radius 2 {self.precision_radius2:.4f}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return html_table(table_rows(self.to_dict()))


def html_table(rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Return a table for a notebook, in HTML, from the title and the cells of each row."""
    lines = (
        f'<tr><th style="text-align:left">{html.escape(title)}</th>'
        + "".join(f'<td style="text-align:right">{html.escape(cell)}</td>' for cell in cells)
        + "</tr>"
        for title, cells in rows
    )
    return f"<table>{''.join(lines)}</table>"


def table_rows(figures: Mapping[str, Any]) -> list[tuple[str, Sequence[str]]]:
    """Return the rows of a human-readable table, each a title and its cells, from the dictionary form."""
    by_cutoff = figures["metrics"]
    rows: list[tuple[str, Sequence[str]]] = [
        ("queries / database, bits", ["{n_query:,} / {n_database:,}, {bits}".format(**figures)]),
        ("cutoff", [f"@{cutoff}" for cutoff in by_cutoff]),
    ]
    for name, title in TITLES.items():
        if any(name in measured for measured in by_cutoff.values()):
            rows.append((title, [_text(measured[name]) for measured in by_cutoff.values()]))
        if name == "map_mean_of_classes" and by_cutoff and all(measured.get("map_by_class") for measured in by_cutoff.values()):
            lowest = [lowest_class(measured["map_by_class"], figures.get("class_names")) for measured in by_cutoff.values()]
            rows.append(("mAP, lowest class", [_text(value) for value, _ in lowest]))
            rows.append(("the lowest class", [class_name for _, class_name in lowest]))
    ranks = [str(rank) for rank in _TABLE_RANKS if str(rank) in figures["precision_at"]]
    for name in ("precision", "recall"):
        rows.append((f"{name} @" + " ".join(ranks), [_text(figures[f"{name}_at"][rank]) for rank in ranks]))
    return [
        *rows,
        ("precision within radius 2", [_text(figures["precision_radius2"])]),
        ("queries with nothing in radius 2", [_text(figures["empty_balls"])]),
        ("queries without a relevant item", [f"{figures['n_queries_without_relevant']:,}"]),
    ]


def lowest_class(map_by_class: Mapping[str, float], names: Sequence[str] | None) -> tuple[float, str]:
    """Return the lowest mAP of a class, and what to call the class, at most 30 characters.

    Args:
      map_by_class: at least one; of equal ones the first counts.
      names: of the classes whose keys are ids; None if keys are all that is known.
    """
    key = min(map_by_class, key=map_by_class.__getitem__)
    name = names[int(key)] if names and key.isdecimal() and int(key) < len(names) else key
    return map_by_class[key], name if len(name) <= 30 else f"{name[:27]}..."


def _text(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
