"""The page of a report: how a run learned, how its codes retrieve, what its queries find and where they fail."""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adsq_jax import storage
from adsq_jax.data.images import BadImage
from adsq_jax.data.sources import Source
from adsq_jax.devices.sharded_database import ShardedDatabase
from adsq_jax.inference import html_page
from adsq_jax.report import figures, inputs, measures
from adsq_jax.report.inputs import Codes
from adsq_jax.report.measures import Measured
from adsq_jax.run import output, tables
from adsq_jax.run.workdir import write_bytes

_TOP, _QUERIES = 10, 10  # hits of a query; queries in each section
_PAGE = "index.html"
_CAPTIONS = {  # file: heading, and what to see in the plot
    "loss.png": (
        "Loss terms",
        "Each term times its weight, so that they add up to the loss; each point is a mean over the updates since the last.",
    ),
    "validation.png": ("mAP on held-out training images", "Measured at each checkpoint; never on the queries."),
    "precision_recall.png": ("Precision and recall", "A point for each Hamming radius; an empty ball has precision 0."),
    "precision_at.png": ("Precision of the first N", "Averaged over the orders of equal distances."),
    "distances.png": ("Distances", "The less the two overlap, the better a radius tells similar from dissimilar."),
    "balance.png": ("Bit balance", "Fraction of +1 over the database: a bit says most at one half."),
    "correlation.png": ("Correlation between bits", "Over the database: correlated bits say the same twice."),
    "usage.png": ("Code usage", ""),
}
_NO_VALIDATION = "No mAP over time: it is measured on held-out training images, and this run has none (data.validation)."


def write(
    workdir: str | Path,
    *,
    out: str | Path | None = None,
    pictures: Sequence[str] = (),
    remote_pictures: bool = False,
) -> Path:
    """Write a report of a finished run: a page of HTML that needs no other file, and its plots as PNG.

    Args:
      workdir: the run's folder, on this machine or in an object store.
      out: the report's folder, on this machine; None: `report` in the run's folder. An earlier report there is replaced.
      pictures: folders below which pictures may be opened; none: the data set's folder, as the run names it.
      remote_pictures: whether pictures of an object store that the run names may be opened, with this user's credentials.

    Returns:
      The path of the page.

    Raises:
      InputError: the run isn't finished or is damaged; `out` holds other files or can't be written; matplotlib isn't installed.
    """
    directory = storage.path(str(workdir))
    result, metrics = inputs.read_result(directory)
    folder = output.check_folder(storage.path(str(out)) if out else directory / "report", replaceable={_PAGE, *_CAPTIONS})
    codes = inputs.read_codes(directory, query_net=result["query_net"])
    measured = measures.measure(
        codes.packed["query"],
        codes.packed["database"],
        labels=codes.labels,
        bits=codes.bits,
        cutoff=result["map_at"],
        top=_TOP,
        devices=ShardedDatabase(),
    )
    plots = _plots(metrics, result, measured)
    source, note = inputs.open_images(result, codes, folders=pictures, remote=remote_pictures)
    with output.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, png in plots.items():
            write_bytes(folder / name, png)
        write_bytes(folder / _PAGE, _page(result, plots, measured, codes, source=source, note=note))
    if source is not None and source.hidden:
        print(f"{len(source.hidden):,} pictures aren't shown: {source.places.hint}", file=sys.stderr)
    return folder / _PAGE


def _plots(metrics: list[dict[str, Any]], result: dict[str, Any], measured: Measured) -> dict[str, bytes]:
    """Draw the plots that have data, by file name."""
    drawn = {
        "loss.png": figures.losses(metrics),
        "validation.png": figures.validation(metrics),
        "precision_recall.png": figures.precision_recall(result["precision_recall"]),
        "precision_at.png": figures.precision_at(result["precision_at"]),
        "distances.png": figures.distances(measured),
        "balance.png": figures.bit_balance(measured),
        "correlation.png": figures.correlation(measured),
        "usage.png": figures.usage(measured),
    }
    return {name: png for name, png in drawn.items() if png is not None}


def _page(
    result: dict[str, Any], plots: dict[str, bytes], measured: Measured, codes: Codes, *, source: Source | None, note: str
) -> bytes:
    captions = _CAPTIONS | {"usage.png": ("Code usage", _usage_note(measured))}
    sections = {name: html_page.plot(png, heading=captions[name][0], note=captions[name][1]) for name, png in plots.items()}
    parts = [
        html_page.table(tables.result_rows(result)),
        html_page.paragraph(note),
        sections.pop("loss.png", ""),
        html_page.plots(list(sections.values())),
        html_page.paragraph("" if "validation.png" in plots else _NO_VALIDATION),
    ]
    worst = np.argsort(measured.average_precision, kind="stable")[:_QUERIES]
    for title, queries in (("Examples", measures.examples(codes.labels["query"], count=_QUERIES)), ("Worst queries", worst)):
        parts.append(html_page.section(title))
        parts += [_query_row(query, measured, codes, source=source) for query in queries.tolist()]
    return html_page.document(f"{result['method']}, {result['bits']} bits, {result['protocol']}", parts)


def _usage_note(measured: Measured) -> str:
    images, most = int(measured.usage.sum()), int(measured.usage[0])
    return (
        f"The {images:,} images of the database have {len(measured.usage):,} codes; the most used has {most:,} "
        f"({most / images:.1%})."
    )


def _query_row(query: int, measured: Measured, codes: Codes, *, source: Source | None) -> str:
    """Draw a query and its nearest items; an item is right if it shares a label with the query."""
    query_labels, database_labels = codes.labels["query"], codes.labels["database"]
    figures_ = [_picture("query", query, codes, source=source, line="query", mark="")]
    for item, distance in zip(measured.nearest[query].tolist(), measured.distances[query].tolist(), strict=True):
        same = query_labels[query] == database_labels[item]
        right = same if query_labels.ndim == 1 else (query_labels[query] & database_labels[item]).any()
        mark = "right" if right else "wrong"
        figures_.append(_picture("database", item, codes, source=source, line=html_page.bits(distance), mark=mark))
    heading = f"Average precision {measured.average_precision[query]:.3f}"
    return html_page.row(figures_[0], figures_[1:], heading=heading, note="")


def _picture(part: str, number: int, codes: Codes, *, source: Source | None, line: str, mark: str) -> str:
    row, labels = int(codes.rows[part][number]), codes.labels[part][number]
    classes = [int(labels)] if codes.labels[part].ndim == 1 else np.flatnonzero(labels).tolist()
    if source is None:
        return html_page.picture(None, name=f"row {row}", lines=[line, ", ".join(map(str, classes))], mark=mark)
    pixels = None
    with contextlib.suppress(BadImage):  # the file may be gone
        pixels = source.image(row, shorter_side=0)
    names = ", ".join(source.classes[k] for k in classes)
    return html_page.picture(pixels, name=source.name(row), lines=[line, names], mark=mark)
