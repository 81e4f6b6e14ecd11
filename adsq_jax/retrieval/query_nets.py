"""Measure the codes of a run for each pair of networks that encode queries and database."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from adsq_jax import codes
from adsq_jax.retrieval.blocks import SingleDevice
from adsq_jax.retrieval.evaluator import measure

PackedCodes = dict[str, dict[str, np.ndarray]]  # {"query" or "database": {"f", "g" or "sum": uint8[n, ceil(bits / 8)]}}


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
        name: measure(
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
