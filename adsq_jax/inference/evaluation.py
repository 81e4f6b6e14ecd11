"""Encode the queries and the database of a data set, and measure how the codes retrieve."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from adsq_jax import codes
from adsq_jax.data.datasets import Dataset, facts, retrieval_labels
from adsq_jax.devices import processes
from adsq_jax.inference.encoder import Encoder, HeadEncoder
from adsq_jax.retrieval.blocks import SingleDevice
from adsq_jax.retrieval.query_nets import PackedCodes, measure_query_nets
from adsq_jax.run import codes_folder


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
