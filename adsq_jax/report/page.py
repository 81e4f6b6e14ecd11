"""The page of a report: how a run learned, how its codes retrieve, what its queries find and where they fail."""

import contextlib
import os
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
_LOSSES = {"loss_label_net.png": "LabelNet", "loss_f.png": "ImgNet f", "loss_g.png": "ImgNet g"}
_PLOTS = {  # section: file: heading, and what to see in the plot
    "How it learned": {
        **{file: (f"Loss terms of {network}", "") for file, network in _LOSSES.items()},
        "validation.png": ("mAP on held-out training pictures", "Measured at each checkpoint; never on the queries."),
    },
    "How its codes differ": {
        "usage.png": ("Pictures of each code", "The steeper the curve falls, the fewer codes hold most of the pictures."),
        "distances.png": ("Distances", "The less the two overlap, the better a radius tells similar from dissimilar."),
        "balance.png": ("Bit balance", "Fraction of +1 over the database: a bit says most at one half."),
        "correlation.png": ("Correlation between bits", "Over the database: correlated bits say the same twice."),
    },
    "What its codes find": {
        "precision_recall.png": (
            "Precision and recall",
            "A point for each Hamming radius; a query without hits has precision 0.",
        ),
        "precision_at.png": ("Precision of the first N", "Averaged over the orders of equal distances."),
    },
}
_BEFORE = ("loss.png",)  # of earlier versions
_LOSS = "Each loss term times its weight: they add up to the loss. Each point is a mean over the updates since the last."
_NO_VALIDATION = "No mAP over time: it is measured on held-out training pictures, and this run has none (data.validation)."
_CHANCE = (
    "Chance is the mAP of the database in random order, the mean over all orders: it follows from how many pictures have a "
    "label of each query."
)
_EXAMPLES = (
    "Each query, and its nearest pictures beside it. ✓ and a solid frame: it has a label of the query. ✗ and a broken frame: "
    "it has none. = after a distance: other pictures are as near, and nothing says which of them comes first. The queries are "
    "of as many classes as there is room for, in the order of classes, then of average precision."
)
_CLASSES = "mAP of the queries of each class, the lowest first. A large class that is found well hides small ones in the mean."
_MOST_CLASSES = 100  # rows of the table of classes
_WORST = "The queries of the lowest average precision, the lowest first."


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
    replaceable = {_PAGE, *_BEFORE, *(name for section in _PLOTS.values() for name in section)}
    folder = output.check_folder(storage.path(str(out)) if out else directory / "report", replaceable=replaceable)
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
        for name in replaceable - {_PAGE} - set(plots):  # of an earlier report
            (folder / name).unlink(missing_ok=True)
        for name, png in plots.items():
            write_bytes(folder / name, png)
        mismatch = inputs.other_model(directory, result)
        about = _about(result, measured, directory=directory, folder=folder)
        about += [html_page.paragraph(mismatch), html_page.paragraph(note)]
        write_bytes(folder / _PAGE, _page(_title(result), about, plots, measured, codes, source=source))
    if mismatch:
        print(mismatch, file=sys.stderr)
    if source is not None and source.hidden:
        print(f"{len(source.hidden):,} pictures aren't shown: {source.places.hint}", file=sys.stderr)
    return folder / _PAGE


def _plots(metrics: list[dict[str, Any]], result: dict[str, Any], measured: Measured) -> dict[str, bytes]:
    """Draw the plots that have data, by file name."""
    losses = figures.losses(metrics)
    drawn = {
        **{file: losses.get(network) for file, network in _LOSSES.items()},
        "validation.png": figures.validation(metrics),
        "precision_recall.png": figures.precision_recall(result["precision_recall"]),
        "precision_at.png": figures.precision_at(result["precision_at"]),
        "distances.png": figures.distances(measured),
        "balance.png": figures.bit_balance(measured),
        "correlation.png": figures.correlation(measured),
        "usage.png": figures.usage(measured),
    }
    return {name: png for name, png in drawn.items() if png is not None}


def _data_set(result: dict[str, Any]) -> tuple[str, str]:
    """Return the name of a run's data set, of a folder the folder's, and where it is; both may be empty."""
    data = result["config"].get("data")
    name, place = (str(data.get(key) or "") for key in ("name", "directory")) if isinstance(data, dict) else ("", "")
    if name == "tfds":
        name = str(data.get("tfds_name"))
    return (place.rstrip("/").rpartition("/")[2] or name) if name == "folder" else name, place


def _title(result: dict[str, Any]) -> str:
    return f"{_data_set(result)[0] or result['protocol']}: {result['method']}, {result['bits']} bits"


def _about(result: dict[str, Any], measured: Measured, *, directory: Path, folder: Path) -> list[str]:
    """Say what ran, how its codes are used and what it reached; `folder` is the report's, `directory` the run's."""
    images, most = int(measured.usage.sum()), int(measured.usage[0])
    codes = f"{len(measured.usage):,} code{'' if len(measured.usage) == 1 else 's'}"
    usage = f"{codes} for {images:,} pictures; the most used has {most:,}. Pictures with the same code can't be told apart."
    rows = tables.result_rows({**result, "map_by_chance": measured.chance})
    links = {}
    if not storage.is_remote(directory):
        run, here = directory.absolute(), folder.absolute()
        links["run"] = os.path.relpath(run, here) if here.is_relative_to(run) else run.as_uri()
    name, place = _data_set(result)
    first = [("data set", ", ".join(filter(None, (name, place)))), ("date", str(result.get("date") or "unknown"))]
    return [
        html_page.lead(usage),
        html_page.table([*first, *rows, ("run", str(directory))], links=links),
        html_page.paragraph(tables.QUERY_NETS if len(result["map_by_query_net"]) > 1 else ""),
        html_page.paragraph(_CHANCE),
    ]


def _page(
    title: str, about: list[str], plots: dict[str, bytes], measured: Measured, codes: Codes, *, source: Source | None
) -> bytes:
    sections = {}
    for heading, captions in _PLOTS.items():
        drawn = [
            html_page.plot(plots[name], heading=text, note=note) for name, (text, note) in captions.items() if name in plots
        ]
        sections[heading] = [html_page.plots(drawn)]
        if "validation.png" in captions:
            note = _LOSS if "validation.png" in plots else f"{_LOSS} {_NO_VALIDATION}"
            sections[heading].insert(0, html_page.paragraph(note))
    sections["mAP by class"] = _classes(measured, codes, source=source)
    examples = measures.examples(codes.labels["query"], measured.average_precision, count=_QUERIES)
    worst = np.argsort(measured.average_precision, kind="stable")[:_QUERIES]
    for heading, note, queries in (("Examples", _EXAMPLES, examples), ("Worst queries", _WORST, worst)):
        rows = [_query_row(query, measured, codes, source=source) for query in queries.tolist()]
        sections[heading] = [html_page.paragraph(note), *rows]
    parts = [*about, html_page.contents(list(sections))]
    for heading, content in sections.items():
        parts += [html_page.section(heading), *content]
    return html_page.document(title, parts)


def _classes(measured: Measured, codes: Codes, *, source: Source | None) -> list[str]:
    """Return the table of the classes that the queries have, the lowest mAP first, and what it is."""
    found = measures.by_class(codes.labels["query"], measured.average_precision)
    mean = f"{_CLASSES} Mean of {len(found):,} classes: {np.mean([value for *_, value in found]) if found else 0:.4f}."
    shown = f" The lowest {_MOST_CLASSES} are shown." if len(found) > _MOST_CLASSES else ""
    rows = [
        (str(k) if source is None else source.classes[k], f"{value:.4f} ({count:,} {'query' if count == 1 else 'queries'})")
        for k, count, value in found[:_MOST_CLASSES]
    ]
    return [html_page.paragraph(mean + shown), html_page.table(rows)]


def _query_row(query: int, measured: Measured, codes: Codes, *, source: Source | None) -> str:
    """Draw a query and its nearest items; an item is right if it shares a label with the query."""
    query_labels, database_labels = codes.labels["query"], codes.labels["database"]
    nearest, distances, tied = (array[query].tolist() for array in (measured.nearest, measured.distances, measured.tied))
    hits, count = [], 0
    for item, distance, others in zip(nearest, distances, tied, strict=True):
        same = query_labels[query] == database_labels[item]
        right = same if query_labels.ndim == 1 else (query_labels[query] & database_labels[item]).any()
        count += bool(right)
        line = f"{html_page.bits(distance)}{' =' if others else ''}"
        hits.append(_picture("database", item, codes, source=source, line=line, mark="right" if right else "wrong"))
    more = tied[-1] + 1 - distances.count(distances[-1])
    return html_page.row(
        _picture("query", query, codes, source=source, line="query", mark=""),
        hits,
        heading=f"{count} of {len(hits)} right, average precision {measured.average_precision[query]:.3f}",
        note=f"{more:,} more at the same distance as the last, {html_page.bits(distances[-1])}" if more else "",
    )


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
