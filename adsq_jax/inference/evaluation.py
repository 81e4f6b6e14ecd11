"""The result of a run: encode queries and database, keep their codes, measure how they retrieve, tell people."""

import datetime
import functools
import hashlib
import importlib.metadata
import operator
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adsq_jax import __version__, codes, retrieval
from adsq_jax.data.datasets import Dataset, described, retrieval_labels
from adsq_jax.devices import processes
from adsq_jax.errors import InputError
from adsq_jax.inference.encoder import Encoder, HeadEncoder
from adsq_jax.retrieval.blocks import OneDevice
from adsq_jax.run import workdir
from adsq_jax.training.state import ImgNetState

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
QUERY_NETS = {"ff": ("f", "f"), "gg": ("g", "g"), "fg": ("f", "g"), "sum": ("sum", "sum")}  # name: query, database


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
        start, stop = processes.share(len(rows), processes.index())
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


def nets_of(packed: dict[str, dict[str, np.ndarray]]) -> dict[str, tuple[str, str]]:
    """The query nets of which there are codes.

    Args:
      packed: {"query" or "database": {"f", "g" or "sum": codes}}.

    Returns:
      That part of QUERY_NETS.
    """
    return {
        name: (query, database)
        for name, (query, database) in QUERY_NETS.items()
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
    spread: OneDevice,
    told: Callable[[int], None] = lambda pairs: None,
) -> dict[str, Any]:
    """Measures the codes of every query net.

    Args:
      packed: {"query" or "database": {"f", "g" or "sum": uint8[n, ceil(bits / 8)]}}.
      labels: {"query" or "database": class ids [n] or multi-hot [n, c]}.
      bits: the code length.
      query_net: which of QUERY_NETS is the result.
      map_at: the cutoff of `map`, "all" or a rank.
      cutoffs: further ones; "all" is always there.
      with_legacy: whether to add the figures of published code, of the result's query net.
      spread: the devices.
      told: is called on the way with the number of pairs done since.

    Returns:
      `map`, `map_at`, `map_by_query_net`, `query_net`, and what `retrieval.measure` returns for that one.
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
            spread=spread,
            told=told,
        )
        for name, (query, database) in nets_of(packed).items()
    }
    found = by_net[query_net]
    return {
        **found,
        "map": found["metrics"][map_at]["map"],
        "map_at": map_at,
        "map_by_query_net": {name: measured["metrics"][map_at]["map"] for name, measured in by_net.items()},
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
    spread: OneDevice,
) -> dict[str, Any]:
    """Encodes, writes `codes/`, and measures every query net at the protocol's cutoff and over the whole database.

    Args:
      encoder: of the ImgNets.
      img_nets: "f", and "g" with a twin.
      dataset: whose queries and database.
      bits: the code length.
      query_net: which of `map_by_query_net` is the result.
      directory: the run's folder; None: the codes are not kept.
      spread: the devices that measure.

    Returns:
      What `measure` returns, and the sizes and hash of the split.
    """
    packed = encode(encoder, img_nets, dataset)
    labels = retrieval_labels(dataset)
    rows = {part: getattr(dataset.split, part) for part in labels}
    if directory is not None:
        _write_codes(directory / "codes", packed, labels, rows, bits=bits, split_sha256=dataset.split_sha256)
    return {
        **measure(
            packed,
            labels,
            bits=bits,
            query_net=query_net,
            map_at=dataset.map_at,
            cutoffs=(),
            with_legacy=False,
            spread=spread,
        ),
        **described(dataset),
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
    workdir.make_folder(directory)
    _bring_together(directory, packed["database"])
    if not processes.leads():
        return
    arrays = {f"{part}_{name}": array for part, nets in packed.items() for name, array in nets.items()}
    for part, array in labels.items():
        arrays[f"{part}_labels"] = array
        arrays[f"{part}_rows"] = rows[part]
    for name, array in arrays.items():
        workdir.write_array(directory / f"{name}.npy", array)
    manifest = {
        "bits": bits,
        "bit_order": codes.BIT_ORDER,
        "labels": "class ids" if labels["query"].ndim == 1 else "multi-hot",
        "rows": "of the source, in its fixed order",
        "split_sha256": split_sha256,
        "files": {f"{name}.npy": _described(array) for name, array in sorted(arrays.items())},
    }
    workdir.write_json(directory / "manifest.json", manifest)


def _bring_together(directory: Path, database: dict[str, np.ndarray]) -> None:
    """Gives the leading process the rows that the others have encoded, by way of the run's folder."""
    for name, codes_of_net in database.items():
        if not processes.leads():
            start, stop = processes.share(len(codes_of_net), processes.index())
            workdir.write_array(directory / f".{name}_{processes.index()}.npy", codes_of_net[start:stop])
    processes.wait_for_all("codes")
    for name, codes_of_net in database.items():
        for process in range(1, processes.count()) if processes.leads() else ():
            part = directory / f".{name}_{process}.npy"
            start, stop = processes.share(len(codes_of_net), process)
            codes_of_net[start:stop] = workdir.read_array(part, what="codes of another process")
            part.unlink()


def _described(array: np.ndarray) -> dict[str, Any]:
    return {
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "sha256": hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest(),
    }


def read_codes(directory: Path) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, np.ndarray], int]:
    """Reads the folder that `evaluate` wrote.

    Args:
      directory: `DIR/codes`.

    Returns:
      Packed codes by part and network, labels by part, and the code length.

    Raises:
      InputError: a file is missing, or isn't what the manifest says.
    """
    manifest = workdir.read_json(directory / "manifest.json")
    arrays = {}
    try:
        bits, files = operator.index(manifest["bits"]), dict(manifest["files"])
        for name, entry in files.items():
            array = workdir.read_array(directory / Path(name).name, what="a file of the run's codes")
            if _described(array) != entry:
                raise InputError(f"{directory / name} is not what manifest.json says: restore it, or train in another folder")
            arrays[name.removesuffix(".npy")] = array
        parts = ("query", "database")
        labels = {part: arrays[f"{part}_labels"] for part in parts}
        nets = [net for net in ("f", "g", "sum") if f"query_{net}" in arrays]
        return {part: {net: arrays[f"{part}_{net}"] for net in nets} for part in parts}, labels, bits
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{directory / 'manifest.json'} is no manifest of codes: restore it, or train again") from error


def table(result: dict[str, Any]) -> str:
    """A run's result for people.

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
    return _aligned(rows)


_SHOWN = {  # of each cutoff
    "map": "mAP (ties averaged)",
    "map_best": "mAP, best order of ties",
    "map_worst": "mAP, worst order of ties",
    "map_answerable": "mAP, queries with a relevant item",
    "map_legacy_deephash": "mAP as DeepHash-pytorch",
    "map_legacy_hashnet": "mAP as HashNet",
    "ndcg": "NDCG",
    "acg": "ACG",
}


def table_of_measures(found: dict[str, Any]) -> str:
    """All measures of one retrieval for people: a row a measure, a column a cutoff.

    Args:
      found: what `retrieval.measure` returns.

    Returns:
      Some lines of text.
    """
    cutoffs = list(found["metrics"])
    rows = [
        ("queries / database, bits", "{n_query:,} / {n_database:,}, {bits}".format(**found)),
        ("cutoff", " ".join(f"{f'@{cutoff}':>9}" for cutoff in cutoffs)),
    ]
    for key, name in _SHOWN.items():
        values = [found["metrics"][cutoff].get(key, "") for cutoff in cutoffs]
        if any(value != "" for value in values):
            rows.append((name, " ".join(f"{'none' if value is None else f'{value:.4f}':>9}" for value in values)))
    points = [point for point in ("1", "10", "100", "1000") if point in found["precision_at"]]
    rows += [
        ("precision @" + " ".join(points), " ".join(f"{found['precision_at'][point]:9.4f}" for point in points)),
        ("recall @" + " ".join(points), " ".join(f"{found['recall_at'][point]:9.4f}" for point in points)),
        ("precision within radius 2", f"{found['precision_radius2']:9.4f}"),
        ("queries with nothing in radius 2", f"{found['empty_balls']:9.4f}"),
        ("queries without a relevant item", f"{found['n_queries_without_relevant']:9,}"),
    ]
    return _aligned(rows)


def _aligned(rows: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


@functools.cache  # read once, at the start: the source may be edited while a run lasts
def code_sha256() -> str:
    """A hash of this package's source, 64 hexadecimal digits."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def environment() -> dict[str, Any]:
    """Day, Python and package versions of a result."""
    versions = {package: importlib.metadata.version(package) for package in _PACKAGES}
    return {
        "code_sha256": code_sha256(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": {"adsq_jax": __version__, "python": platform.python_version(), **versions},
    }
