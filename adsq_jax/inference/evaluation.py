"""The result of a run: encode queries and database, keep their codes, measure how they retrieve, tell people."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adsq_jax import codes, retrieval
from adsq_jax.data.datasets import Dataset, facts, retrieval_labels
from adsq_jax.devices import processes
from adsq_jax.inference.encoder import Encoder, HeadEncoder
from adsq_jax.retrieval.blocks import SingleDevice
from adsq_jax.run import codes_folder
from adsq_jax.training.state import ImgNetState


def encode(
    encoder: Encoder | HeadEncoder, img_nets: dict[str, ImgNetState], dataset: Dataset
) -> dict[str, dict[str, np.ndarray]]:
    """Packed codes of queries and database by each network and, with a twin, by the sum of both.

    Of several processes each encodes its share. All get the codes of all queries; of the database each has its own rows, and
    zeros for the others.

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
        start, stop = processes.local_range(len(rows), processes.index())
        if processes.leads():
            print(f"encodes {len(rows):,} images: {part}", file=sys.stderr, flush=True)
        relaxed = {name: encoder(state, rows[start:stop]) for name, state in img_nets.items()}
        if "g" in relaxed:
            relaxed["sum"] = relaxed["f"] + relaxed["g"]
        packed[part] = {}
        for name, x in relaxed.items():
            own = codes.pack(codes.binarize(x))
            whole = np.zeros((len(rows), own.shape[1]), np.uint8)
            whole[start:stop] = own
            packed[part][name] = processes.total(whole).astype(np.uint8) if part == "query" else whole
    return packed


def available_query_nets(packed: dict[str, dict[str, np.ndarray]]) -> dict[str, tuple[str, str]]:
    """The query nets of which there are codes.

    Args:
      packed: {"query" or "database": {"f", "g" or "sum": codes}}.

    Returns:
      That part of codes.QUERY_NETS.
    """
    return {
        name: (query, database)
        for name, (query, database) in codes.QUERY_NETS.items()
        if query in packed["query"] and database in packed["database"]
    }


def measure(
    packed: dict[str, dict[str, np.ndarray]],
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
    """Measures the codes of every query net.

    Args:
      packed: {"query" or "database": {"f", "g" or "sum": uint8[n, ceil(bits / 8)]}}.
      labels: {"query" or "database": class ids [n] or multi-hot [n, c]}.
      bits: the code length.
      query_net: which of codes.QUERY_NETS is the result.
      map_at: the cutoff of `map`, "all" or a rank.
      cutoffs: further ones; "all" is always there.
      with_legacy: whether to add the figures of published code, of the result's query net.
      devices: the devices.
      on_progress: is called on the way with the number of pairs done since.

    Returns:
      `map`, `map_at`, `map_by_query_net`, `query_net`, and what `Measures.to_dict` returns for that one.
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
    return {
        **by_net[query_net].to_dict(),
        "map": by_net[query_net].at(map_at).map,
        "map_at": map_at,
        "map_by_query_net": {name: measures.at(map_at).map for name, measures in by_net.items()},
        "query_net": query_net,
    }


def evaluate(
    encoder: Encoder | HeadEncoder,
    img_nets: dict[str, ImgNetState],
    dataset: Dataset,
    *,
    bits: int,
    query_net: str,
    directory: Path | None,
    devices: SingleDevice,
) -> dict[str, Any]:
    """Encodes, writes `codes/`, and measures every query net at the protocol's cutoff and over the whole database.

    Args:
      encoder: of the ImgNets.
      img_nets: "f", and "g" with a twin.
      dataset: whose queries and database.
      bits: the code length.
      query_net: which of `map_by_query_net` is the result.
      directory: the run's folder; None: the codes are not kept.
      devices: the devices that measure.

    Returns:
      What `measure` returns, and the sizes and hash of the split.
    """
    packed = encode(encoder, img_nets, dataset)
    labels = retrieval_labels(dataset)
    rows = {part: getattr(dataset.split, part) for part in labels}
    if directory is not None:
        codes_folder.write(directory / "codes", packed, labels, rows, bits=bits, split_sha256=dataset.split_sha256)
    return {
        **measure(
            packed,
            labels,
            bits=bits,
            query_net=query_net,
            map_at=dataset.map_at,
            cutoffs=(),
            with_legacy=False,
            devices=devices,
        ),
        **facts(dataset),
    }
