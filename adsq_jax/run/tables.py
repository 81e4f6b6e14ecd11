"""Tables of results as text."""

from typing import Any

from adsq_jax import codes


def result_table(result: dict[str, Any]) -> str:
    """Return a run's result, what `result.json` holds, as aligned lines of text."""
    return _aligned(result_rows(result))


def result_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the names and values that a run's result is shown by."""
    rows = [
        ("protocol", f"{result['protocol']}, split {result['split_sha256'][:12]}"),
        ("queries / training set / database", "{n_query:,} / {n_train:,} / {n_database:,}".format(**result)),
        ("bits, seed", f"{result['bits']}, {result['seed']}"),
        *[
            (f"mAP@{result['map_at']} {name}{' (the result)' if name == result['query_net'] else ''}", f"{value:.4f}")
            for name in codes.QUERY_NETS
            if (value := result["map_by_query_net"].get(name)) is not None
        ],
        ("seconds", f"{result['seconds']:.0f} on {result['machine']}"),
    ]
    if result["validation"]:
        rows.insert(1, ("held out for tuning", f"{result['validation']:,} training images: not the protocol's queries"))
    return rows


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


def measures_table(found: dict[str, Any]) -> str:
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
