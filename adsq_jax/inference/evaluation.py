"""Encode the queries and the database of a data set, and measure how the codes retrieve."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adsq_jax import codes, retrieval
from adsq_jax.data.datasets import Dataset, facts, retrieval_labels
from adsq_jax.devices import processes
from adsq_jax.inference.encoder import Encoder, HeadEncoder
from adsq_jax.retrieval.blocks import SingleDevice
from adsq_jax.run import codes_folder

PackedCodes = dict[str, dict[str, np.ndarray]]  # {"query" or "database": {"f", "g" or "sum": uint8[n, ceil(bits / 8)]}}


def encode_parts(
    encoder: Encoder | HeadEncoder, variables: Mapping[str, Any], dataset: Dataset, *, announce: bool = True
) -> PackedCodes:
    """Encode queries and database by each network and, with a twin, by the sum of both.

    Each process encodes its part. Every process gets all query codes, but only its own rows of the database; other rows are
    zero.

    Args:
      encoder: encodes rows of the data set.
      variables: each network's, "f" and with a twin "g".
      dataset: its split names the images.
      announce: whether to say on the standard error how many images are encoded.

    Returns:
      Packed codes by part and network.
    """
    packed: PackedCodes = {}
    for part in ("query", "database"):
        rows = getattr(dataset.split, part)
        start, stop = processes.local_range(len(rows), processes.index())
        if announce and processes.leads():
            print(f"encoding {len(rows):,} {part} images", file=sys.stderr, flush=True)
        relaxed = {name: encoder(variables[name], rows[start:stop]) for name in ("f", "g") if name in variables}
        if "g" in relaxed:
            relaxed["sum"] = relaxed["f"] + relaxed["g"]
        packed[part] = {}
        for name, x in relaxed.items():
            local = codes.pack(codes.binarize(x))
            whole = np.zeros((len(rows), local.shape[1]), np.uint8)
            whole[start:stop] = local
            packed[part][name] = processes.total(whole).astype(np.uint8) if part == "query" else whole
    return packed


def available_query_nets(packed: PackedCodes) -> dict[str, tuple[str, str]]:
    """Return the query nets whose codes exist."""
    return {
        name: (query, database)
        for name, (query, database) in codes.QUERY_NETS.items()
        if query in packed["query"] and database in packed["database"]
    }


def measure_query_nets(
    packed: PackedCodes,
    labels: dict[str, np.ndarray],
    *,
    bits: int,
    query_net: str,
    map_at: str,
    cutoffs: Sequence[str],
    with_legacy: bool,
    devices: SingleDevice,
    on_progress: Callable[[int], None] = lambda pairs: None,
) -> dict[str, Any]:
    """Measure the codes of every query net.

    Args:
      packed: packed codes by part and network.
      labels: {"query" or "database": class ids [n] or multi-hot [n, c]}.
      bits: the code length.
      query_net: which of `codes.QUERY_NETS` is the result.
      map_at: the cutoff of `map`, "all" or a rank.
      cutoffs: further cutoffs; "all" is always measured.
      with_legacy: whether to add the figures of published code, for the result's query net.
      devices: the devices.
      on_progress: called with the number of pairs done since the last call.

    Returns:
      `map`, `map_by_chance`, `map_by_class`, `map_mean_of_classes`, `map_at`, `map_by_query_net`, `query_net`, and the
      dictionary of its `Measures`.
    """
    by_net = {
        name: retrieval.measure(
            packed["query"][query],
            packed["database"][database],
            query_labels=labels["query"],
            database_labels=labels["database"],
            bits=bits,
            cutoffs=list(dict.fromkeys((map_at, "all", *cutoffs))),
            with_legacy=with_legacy and name == query_net,
            devices=devices,
            on_progress=on_progress,
        )
        for name, (query, database) in available_query_nets(packed).items()
    }
    result = by_net[query_net].at(map_at)
    return {
        **by_net[query_net].to_dict(),
        "map": result.map,
        "map_by_chance": result.map_by_chance,
        "map_by_class": dict(result.map_by_class),
        "map_mean_of_classes": result.map_mean_of_classes,
        "map_at": map_at,
        "map_by_query_net": {name: measures.map for name, measures in by_net.items()},
        "query_net": query_net,
    }


def evaluate(
    encoder: Encoder | HeadEncoder,
    variables: Mapping[str, Any],
    dataset: Dataset,
    *,
    bits: int,
    query_net: str,
    directory: Path | None,
    devices: SingleDevice,
    announce: bool | None = None,
) -> dict[str, Any]:
    """Encode, write `codes/`, and measure every query net at the protocol's cutoff and over the whole database.

    Args:
      encoder: encodes rows of the data set.
      variables: each network's, "f" and with a twin "g".
      dataset: the data set.
      bits: the code length.
      query_net: which of `map_by_query_net` is the result.
      directory: the run's folder; None: the codes are not written.
      devices: the devices that measure.
      announce: whether to say on the standard error how many images are encoded. None: if codes are written, but not
        for a score while training, which has a progress bar.

    Returns:
      What `measure_query_nets` returns, with `class_names`, to which the keys of `map_by_class` are indices, and with the sizes
      and the hash of the split.
    """
    packed = encode_parts(encoder, variables, dataset, announce=directory is not None if announce is None else announce)
    labels = retrieval_labels(dataset)
    if directory is not None:
        rows = {part: getattr(dataset.split, part) for part in labels}
        codes_folder.write(directory / "codes", packed, labels, rows, bits=bits, split_sha256=dataset.split_sha256)
    measures = measure_query_nets(
        packed,
        labels,
        bits=bits,
        query_net=query_net,
        map_at=dataset.map_at,
        cutoffs=(),
        with_legacy=False,
        devices=devices,
    )
    return {**measures, "class_names": list(dataset.source.classes), **facts(dataset)}
