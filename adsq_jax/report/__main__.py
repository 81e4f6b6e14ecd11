"""A page and plots of a finished run: how it learned, how its codes retrieve, what it finds and where it fails.

`python -m adsq_jax.report --workdir=DIR`
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from adsq_jax import command_line, retrieval, storage
from adsq_jax import config as config_module
from adsq_jax.codes import QUERY_NETS
from adsq_jax.data import datasets
from adsq_jax.data.images import BadImage
from adsq_jax.data.sources import Source
from adsq_jax.devices import host, sharded_database
from adsq_jax.errors import InputError
from adsq_jax.inference import html_page
from adsq_jax.report import figures, measures
from adsq_jax.report.measures import Measured
from adsq_jax.run import codes_folder, tables, workdir

_WORKDIR = flags.DEFINE_string("workdir", None, "A finished run's folder.")
_OUT = flags.DEFINE_string("out", None, "The report's folder; DIR/report if not given. An earlier report there is replaced.")

_TOP, _SHOWN = 10, 10  # hits of a query; queries of each kind
_MOST = 1e100  # that a plot can show
_PAGE = "index.html"
_PLOTS: dict[str, tuple[str, str, Callable[..., bytes | None]]] = {  # file; heading; what to see in it; what draws it
    "loss.png": (
        "Loss terms",
        "Each times its weight, so that they add up to the loss; means over the updates between two lines.",
        lambda lines, found, result: figures.losses(lines),
    ),
    "validation.png": (
        "mAP on held-out training images",
        "Measured at each checkpoint; never on the queries.",
        lambda lines, found, result: figures.validation(lines),
    ),
    "precision_recall.png": (
        "Precision and recall",
        "A point a Hamming radius; an empty ball has precision 0.",
        lambda lines, found, result: figures.precision_recall(result["precision_recall"]),
    ),
    "precision_at.png": (
        "Precision of the first N",
        "Averaged over the orders of equal distances.",
        lambda lines, found, result: figures.precision_at(result["precision_at"]),
    ),
    "distances.png": (
        "Distances",
        "The less the two overlap, the better a radius tells similar from dissimilar.",
        lambda lines, found, result: figures.distances(found),
    ),
    "balance.png": (
        "Bit balance",
        "Share of +1 over the database: a bit says most where it is half.",
        lambda lines, found, result: figures.bit_balance(found),
    ),
    "correlation.png": (
        "Correlation between bits",
        "Over the database: bits that go together say the same twice.",
        lambda lines, found, result: figures.correlation(found),
    ),
    "usage.png": ("Code usage", "", lambda lines, found, result: figures.usage(found)),
}
_NO_VALIDATION = "No mAP over time: it is measured on training images that are held out, here none (data.validation)."


def main() -> None:
    """Reads the flags, measures, draws and writes."""
    if not _WORKDIR.value:
        raise InputError("--workdir=DIR is needed: a finished run's folder")
    directory = workdir.path(_WORKDIR.value)
    out = workdir.path(_OUT.value) if _OUT.value else directory / "report"
    if storage.is_remote(out):
        raise InputError(f"{out} can't hold a report: give a folder of this machine with --out")
    _check_out(out)
    host.use_all_cores()
    result, lines = read_run(directory)
    packed, labels, bits = codes_folder.read(directory / "codes")
    query_net, database_net = QUERY_NETS[result["query_net"]]
    if query_net not in packed["query"] or database_net not in packed["database"]:
        raise InputError(f"{directory / 'codes'} lacks those by {result['query_net']}: restore it, or train again")
    codes = {"query": packed["query"][query_net], "database": packed["database"][database_net]}
    found = measures.measure(
        codes["query"],
        codes["database"],
        labels=labels,
        bits=bits,
        cutoff=result["map_at"],
        top=_TOP,
        devices=sharded_database.ShardedDatabase(),
    )
    plots = draw(lines, found, result)
    rows = rows_of(directory)
    source, note = source_of(result, labels, rows=rows)
    with workdir.writing(out):
        out.mkdir(parents=True, exist_ok=True)
        for name, content in plots.items():
            workdir.write_bytes(out / name, content)
        workdir.write_bytes(out / _PAGE, page_of(result, plots, found, labels, rows=rows, source=source, note=note))
    print(f"written to {out / _PAGE}")


def _check_out(out: Path) -> None:
    try:
        own = {_PAGE, *_PLOTS}
        left = tuple(f".{name}." for name in own)  # by a kill
        others = sorted(name for name in os.listdir(out) if name not in own and not name.startswith(left))
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{out} can't be used for a report ({error.strerror}): give another --out") from error
    if others:
        raise InputError(f"{out} holds other files ({others[0]!r:.100}): give another --out; nothing was overwritten")


def read_run(directory: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Reads a run's result and its metrics.

    Args:
      directory: the run's folder.

    Returns:
      What result.json holds, and the lines of metrics.jsonl; lines that a kill has cut are passed over.

    Raises:
      InputError: the run isn't finished, or result.json isn't one.
    """
    try:
        finished = storage.is_file(directory / "result.json")
        text = storage.read(directory / "metrics.jsonl") if storage.is_file(directory / "metrics.jsonl") else b""
    except OSError as error:
        raise InputError(f"--workdir={directory} can't be read ({error.strerror}): give another folder") from error
    if not finished:
        raise InputError(f"--workdir={directory} holds no finished run: finish it with adsq_jax.main, or give another folder")
    result = workdir.read_json(directory / "result.json")
    try:
        tables.result_table(result)
        retrieval.check_cutoffs([result["map_at"]])
        kinds = [isinstance(result[key], dict) for key in ("config", "precision_at", "precision_recall")]
        if not all(kinds) or result["query_net"] not in QUERY_NETS or not isinstance(result["method"], str):
            raise ValueError
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{directory / 'result.json'} is no result of a run: restore it, or train again") from error
    lines = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            lines.append(json.loads(line))
    return result, [line for line in lines if _is_whole(line)]


def _is_whole(line: Any) -> bool:
    """Whether a line of metrics can be drawn: its values are finite numbers, of a net that there is."""
    if not isinstance(line, dict) or line.get("phase") not in ("label_net", "img_net", "validation"):
        return False
    if (line["phase"] == "img_net") != (line.get("net") in ("f", "g")) or (line["phase"] == "validation") != ("map" in line):
        return False
    numbers = [line.get("step"), *(value for name, value in line.items() if name not in ("phase", "net", "step"))]
    return all(type(x) in (int, float) and abs(x) < _MOST for x in numbers)


def draw(lines: list[dict[str, Any]], found: Measured, result: dict[str, Any]) -> dict[str, bytes]:
    """All plots of which there is something to show, by the name of their file.

    Args:
      lines: of metrics.jsonl.
      found: what `measures.measure` returns.
      result: of result.json.

    Returns:
      PNGs.
    """
    drawn = {name: plot(lines, found, result) for name, (_, _, plot) in _PLOTS.items()}
    return {name: content for name, content in drawn.items() if content is not None}


def rows_of(directory: Path) -> dict[str, np.ndarray]:
    """Rows of the source of queries and database, int64[n] each."""
    return {
        part: np.asarray(workdir.read_array(directory / "codes" / f"{part}_rows.npy", what="rows"))
        for part in ("query", "database")
    }


def source_of(
    result: dict[str, Any], labels: dict[str, np.ndarray], *, rows: dict[str, np.ndarray]
) -> tuple[Source | None, str]:
    """Opens the images of a run, if they are still where they were.

    Args:
      result: its result.json.
      labels: of its codes; those of the images must be the same.
      rows: of the source.

    Returns:
      The images and ""; or None and a line that says why not.
    """
    try:
        source = datasets.open_source(config_module.data_settings(ConfigDict(result["config"])))
        for part, theirs in labels.items():
            same = source.labels.ids(rows[part]) if theirs.ndim == 1 else source.labels[rows[part]]
            if same is None or not np.array_equal(same, theirs):
                raise InputError("the data set has other labels now")
    except (LookupError, TypeError, ValueError, AttributeError, OSError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        note = f"Without pictures, since the data can't be opened: {said[0][:300]}"
        print(note, file=sys.stderr)
        return None, note
    return source, ""


def page_of(
    result: dict[str, Any],
    plots: dict[str, bytes],
    found: Measured,
    labels: dict[str, np.ndarray],
    *,
    rows: dict[str, np.ndarray],
    source: Source | None,
    note: str,
) -> bytes:
    """The page: summary, plots, and queries with their nearest items.

    Args:
      result: of result.json.
      plots: PNGs by name.
      found: what `measures.measure` returns.
      labels: of queries and database.
      rows: of the source.
      source: the images; None where they can't be had.
      note: why not.

    Returns:
      HTML, as the bytes of a file.
    """
    table = [tuple(line.split("  ", 1)) for line in tables.result_table(result).splitlines()]
    texts = {name: text for name, (_, text, _) in _PLOTS.items()} | {"usage.png": _usage(found)}
    drawn = {name: html_page.plot(content, heading=_PLOTS[name][0], note=texts[name]) for name, content in plots.items()}
    parts = [
        html_page.table([(name, value.strip()) for name, value in table]),
        html_page.paragraph(note),
        drawn.pop("loss.png", ""),
    ]
    parts.append(html_page.plots(list(drawn.values())))
    parts.append(html_page.paragraph("" if "validation.png" in drawn else _NO_VALIDATION))
    worst = np.argsort(found.average_precision, kind="stable")[:_SHOWN]
    for title, queries in (("Examples", measures.examples(labels["query"], count=_SHOWN)), ("Worst queries", worst)):
        parts.append(html_page.section(title))
        parts += [_of_query(int(query), found, labels, rows=rows, source=source) for query in queries]
    return html_page.document(f"{result['method']}, {result['bits']} bits, {result['protocol']}", parts)


def _usage(found: Measured) -> str:
    images, most = int(found.usage.sum()), int(found.usage[0])
    codes = f"The {images:,} images of the database have {len(found.usage):,} codes"
    return f"{codes}; the most used has {most:,} ({most / images:.1%})."


def _of_query(
    query: int, found: Measured, labels: dict[str, np.ndarray], *, rows: dict[str, np.ndarray], source: Source | None
) -> str:
    """A query with its nearest items; those that share a label are marked right, the others wrong."""
    shown = [_picture("query", query, "query", labels, rows=rows, source=source, mark="")]
    for item, distance in zip(found.nearest[query].tolist(), found.distances[query].tolist(), strict=True):
        ours, theirs = labels["query"][query], labels["database"][item]
        right = bool(ours == theirs) if labels["query"].ndim == 1 else bool((ours & theirs).any())
        told, mark = html_page.bits(distance), "right" if right else "wrong"
        shown.append(_picture("database", item, told, labels, rows=rows, source=source, mark=mark))
    return html_page.row(shown, heading=f"Average precision {found.average_precision[query]:.3f}")


def _picture(
    part: str,
    number: int,
    told: str,
    labels: dict[str, np.ndarray],
    *,
    rows: dict[str, np.ndarray],
    source: Source | None,
    mark: str,
) -> str:
    row, own = int(rows[part][number]), labels[part][number]
    classes = [int(own)] if labels[part].ndim == 1 else np.flatnonzero(own).tolist()
    names = [str(k) if source is None else source.classes[k] for k in classes]
    pixels = None
    if source is not None:
        with contextlib.suppress(BadImage):  # gone since
            pixels = source.image(row, shorter_side=0)
    name = f"row {row}" if source is None else source.name(row)
    return html_page.picture(pixels, name=name, lines=[told, ", ".join(names)], mark=mark)


if __name__ == "__main__":
    command_line.run(main)
