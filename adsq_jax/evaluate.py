"""Evaluation: encode queries and database, measure retrieval, keep codes and result."""

import datetime
import hashlib
import importlib.metadata
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adsq_jax import __version__, codes, workdir
from adsq_jax.data.datasets import Dataset, labels_of
from adsq_jax.encode import Encoder
from adsq_jax.retrieval import hamming, metrics
from adsq_jax.train_state import ImgNetState

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
QUERY_NETS = {"ff": ("f", "f"), "gg": ("g", "g"), "fg": ("f", "g"), "sum": ("sum", "sum")}  # name: query, database


def encode(encoder: Encoder, img_nets: dict[str, ImgNetState], dataset: Dataset) -> dict[str, dict[str, np.ndarray]]:
    """Packed codes of queries and database by each network and, with a twin, by the sum of both.

    Args:
      encoder: of the ImgNets.
      img_nets: "f", and "g" with a twin.
      dataset: its split says which images.

    Returns:
      {"query" or "database": {"f", "g" or "sum": uint8[n, ceil(bits / 8)]}}.
    """
    packed: dict[str, dict[str, np.ndarray]] = {}
    for part in ("query", "database"):
        rows = getattr(dataset.split, part)
        print(f"encodes {len(rows):,} images: {part}", file=sys.stderr, flush=True)
        relaxed = {name: encoder(state, dataset.source, rows) for name, state in img_nets.items()}
        if "g" in relaxed:
            relaxed["sum"] = relaxed["f"] + relaxed["g"]
        packed[part] = {name: codes.pack(codes.binarize(x)) for name, x in relaxed.items()}
    return packed


def measure(
    query_codes: np.ndarray,
    database_codes: np.ndarray,
    *,
    query_labels: np.ndarray,
    database_labels: np.ndarray,
    bits: int,
    cutoffs: Sequence[str],
) -> tuple[dict[str, dict[str, float]], int]:
    """Retrieval metrics by cutoff.

    Args:
      query_codes: packed, uint8[n_query, ceil(bits / 8)].
      database_codes: packed, uint8[n_database, ceil(bits / 8)].
      query_labels: uint8[n_query, c].
      database_labels: uint8[n_database, c].
      bits: the code length.
      cutoffs: "all" or ranks, for instance ("all", "5000").

    Returns:
      {cutoff: {"map": tie-aware mean average precision over all queries}}, and the number of queries without a relevant item.
    """
    counts, relevant = hamming.distance_histograms(
        query_codes, database_codes, query_labels=query_labels, database_labels=database_labels, bits=bits
    )
    ranks = {cutoff: None if cutoff == "all" else int(cutoff) for cutoff in cutoffs}
    found = {
        cutoff: {"map": float(metrics.average_precision(counts, relevant, cutoff=rank).mean())}
        for cutoff, rank in ranks.items()
    }
    return found, int((relevant.sum(axis=1) == 0).sum())


def evaluate(
    encoder: Encoder,
    img_nets: dict[str, ImgNetState],
    dataset: Dataset,
    *,
    bits: int,
    query_net: str,
    directory: Path,
) -> dict[str, Any]:
    """Encodes, writes `codes/`, and measures every query net at the protocol's cutoff and over the whole database.

    Args:
      encoder: of the ImgNets.
      img_nets: "f", and "g" with a twin.
      dataset: whose queries and database.
      bits: the code length.
      query_net: which of `map_by_query_net` is the result.
      directory: the run's folder.

    Returns:
      `map`, `metrics`, `map_by_query_net`, and the sizes and hash of the split.
    """
    packed = encode(encoder, img_nets, dataset)
    labels = {part: labels_of(dataset, part) for part in ("query", "database")}
    rows = {part: getattr(dataset.split, part) for part in labels}
    _write_codes(directory / "codes", packed, labels, rows, bits=bits, split_sha256=dataset.split_sha256)
    by_net = {
        name: measure(
            packed["query"][query],
            packed["database"][database],
            query_labels=labels["query"],
            database_labels=labels["database"],
            bits=bits,
            cutoffs=sorted({"all", dataset.map_at}),
        )
        for name, (query, database) in QUERY_NETS.items()
        if query in packed["query"] and database in packed["database"]
    }
    found, without = by_net[query_net]
    return {
        "map": found[dataset.map_at]["map"],
        "map_at": dataset.map_at,
        "map_by_query_net": {name: measured[dataset.map_at]["map"] for name, (measured, _) in by_net.items()},
        "metrics": found,
        "n_queries_without_relevant": without,
        "query_net": query_net,
        "bits": bits,
        "protocol": dataset.protocol,
        "validation": dataset.validation,
        "split_sha256": dataset.split_sha256,
        "n_query": len(dataset.split.query),
        "n_train": len(dataset.split.train),
        "n_database": len(dataset.split.database),
        "database_holds_train": bool(np.isin(dataset.split.train, dataset.split.database).any()),
    }


def _write_codes(
    directory: Path,
    packed: dict[str, dict[str, np.ndarray]],
    labels: dict[str, np.ndarray],
    rows: dict[str, np.ndarray],
    *,
    bits: int,
    split_sha256: str,
) -> None:
    """Writes `{query,database}_{f,g,sum,labels,rows}.npy`, and a manifest with the hash of each."""
    directory.mkdir(exist_ok=True)
    arrays = {f"{part}_{name}": array for part, nets in packed.items() for name, array in nets.items()}
    single = all((array.sum(axis=1) == 1).all() for array in labels.values())
    for part, array in labels.items():
        arrays[f"{part}_labels"] = array.argmax(axis=1) if single else array
        arrays[f"{part}_rows"] = rows[part]
    for name, array in arrays.items():
        workdir.write_array(directory / f"{name}.npy", array)
    manifest = {
        "bits": bits,
        "bit_order": "little; 1 is +1; padding is 0",
        "labels": "class ids" if single else "multi-hot",
        "rows": "of the source, in its fixed order",
        "split_sha256": split_sha256,
        "files": {
            f"{name}.npy": {
                "shape": list(array.shape),
                "dtype": str(array.dtype),
                "sha256": hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest(),
            }
            for name, array in sorted(arrays.items())
        },
    }
    workdir.write_json(directory / "manifest.json", manifest)


def table(result: dict[str, Any]) -> str:
    """A result for people.

    Args:
      result: what `result.json` holds.

    Returns:
      A few lines of text.
    """
    rows = [
        ("protocol", f"{result['protocol']}, split {result['split_sha256'][:12]}"),
        ("queries / training set / database", "{n_query:,} / {n_train:,} / {n_database:,}".format(**result)),
        ("bits, seed", f"{result['bits']}, {result['seed']}"),
        *[
            (f"mAP@{result['map_at']} {name}{' (the result)' if name == result['query_net'] else ''}", f"{value:.4f}")
            for name in QUERY_NETS
            if (value := result["map_by_query_net"].get(name)) is not None
        ],
        ("seconds", f"{result['seconds']:.0f} on {result['machine']}"),
    ]
    if result["validation"]:
        rows.insert(1, ("held out for tuning", f"{result['validation']:,} training images: not the protocol's queries"))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def environment() -> dict[str, Any]:
    """Day, Python and package versions of a result."""
    versions = {package: importlib.metadata.version(package) for package in _PACKAGES}
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": {"adsq_jax": __version__, "python": platform.python_version(), **versions},
    }
