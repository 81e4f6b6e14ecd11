"""A look at a divided data set: counts, overlaps, and every image read once. It is what a manifest holds."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from adsq_jax.data import protocols
from adsq_jax.data.datasets import Dataset, Settings, used_rows
from adsq_jax.data.images import BadImage
from adsq_jax.data.sources import Source

_DIGEST = 16  # bytes of an image's hash
_AT_ONCE = 256  # images given out to the threads together: bounds memory, and lets Ctrl-C through
_CLASSES_SHOWN = 30


class Images(NamedTuple):
    """What reading the images of a split found."""

    rows: np.ndarray  # int64[n], ascending
    digests: np.ndarray  # of what is stored, uint8[n, 16]; zeros where nothing could be read
    bad: dict[int, str]  # row: what is wrong with it


def read_images(
    source: Source, rows: np.ndarray, *, shorter_side: int, threads: int, on_progress: Callable[[int], None]
) -> Images:
    """Reads and decodes images as training would.

    Args:
      source: of images.
      rows: int[n], ascending.
      shorter_side: what training resizes them to; 0: nothing.
      threads: how many read at once.
      on_progress: is called on the way with the number of images done since.

    Returns:
      What it found; nothing is raised for a bad image.
    """

    def read(row: int) -> tuple[bytes, str | None]:
        try:
            digest = hashlib.blake2b(source.content(row), digest_size=_DIGEST).digest()
        except BadImage as error:
            return bytes(_DIGEST), f"{source.location(row)} {error}"
        try:
            source.image(row, shorter_side=shorter_side)
        except BadImage as error:
            return digest, str(error)
        return digest, None

    digests, bad = [], {}
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(rows), _AT_ONCE):
            block = rows[start : start + _AT_ONCE].tolist()
            for row, (digest, wrong) in zip(block, pool.map(read, block), strict=True):
                digests.append(digest)
                if wrong is not None:
                    bad[row] = wrong
            on_progress(len(block))
    return Images(rows, np.frombuffer(b"".join(digests), np.uint8).reshape(-1, _DIGEST), bad)


def manifest_of(dataset: Dataset, settings: Settings, images: Images | None) -> dict[str, Any]:
    """Describes a data set.

    Args:
      dataset: divided, without what is left out.
      settings: that it was opened with.
      images: what reading them found, the ones left out too; None if they weren't read.

    Returns:
      What JSON can hold: the content of a manifest.
    """
    source, split = dataset.source, dataset.split
    counts = {part: source.labels.per_class(rows) for part, rows in split._asdict().items()}
    bad = {} if images is None else images.bad
    return {
        "data": settings.name,
        "reader": settings.reader,
        "protocol": dataset.protocol,
        "map_at": dataset.map_at,
        "split_seed": settings.split_seed,
        "validation": dataset.validation,
        "split_sha256": dataset.split_sha256,
        **{f"n_{part}": len(rows) for part, rows in split._asdict().items()},
        "n_images": len(source),
        "n_skipped": dataset.n_skipped,
        "database_holds_train": bool(np.isin(split.train, split.database).any()),
        "allow_overlap": dataset.allow_overlap,
        "overlaps": {**protocols.overlaps(split, source.names), "train in database": int(np.isin(*split[1:]).sum())},
        "classes": list(source.classes),
        "names": source.names is not None,
        "counts": {name: {part: int(n[k]) for part, n in counts.items()} for k, name in enumerate(source.classes)},
        "labels": _label_statistics(dataset),
        "notes": source.notes,
        "bad_images": [{"row": row, "name": source.name(row), "why": why} for row, why in sorted(bad.items())],
        "images_sha256": None if images is None else hashlib.sha256(images.digests.tobytes()).hexdigest(),
        "same_bytes": None if images is None else _same_bytes(images, split),
    }


def _label_statistics(dataset: Dataset) -> dict[str, Any]:
    """Labels an image, and the share of the database that is relevant to a query: mAP's chance level."""
    labels, split = dataset.source.labels, dataset.split
    each = labels.per_image(used_rows(dataset.split))
    sets, sizes = np.unique(labels[split.query], axis=0, return_counts=True)  # [sets, c], queries of each
    shared = np.zeros(len(sets), np.int64)
    for block in labels.blocks(split.database):
        shared += ((sets.astype(np.float32) @ block.T.astype(np.float32)) > 0).sum(axis=1)
    return {
        "mean_per_image": float(each.mean()),
        "most_per_image": int(each.max()),
        "images_without": int((each == 0).sum()),
        "relevant_share": float(np.average(shared / len(split.database), weights=sizes)),
    }


def _same_bytes(images: Images, split: protocols.Split) -> dict[str, int]:
    """Images that are copies of others, byte for byte, and queries that have a copy in another part."""
    group, sizes = np.unique(images.digests, axis=0, return_inverse=True, return_counts=True)[1:]
    group = np.ravel(group)  # [n]
    copied, readable = sizes[group] > 1, np.asarray(images.digests.any(axis=1))  # [n]

    def groups(rows: np.ndarray) -> np.ndarray:
        places = np.searchsorted(images.rows, rows)
        return group[places[readable[places]]]

    query = groups(split.query)
    found = {"images": int((copied & readable).sum())}
    for part in ("train", "database"):
        own = getattr(split, part)
        found[f"queries in {part}"] = int(np.isin(query, groups(np.setdiff1d(own, split.query))).sum())
    return found


def table(content: dict[str, Any]) -> str:
    """A manifest for people.

    Args:
      content: from `manifest_of`.

    Returns:
      Some lines of text.
    """
    parts = ("query", "train", "database")
    rows = [
        ("data set, protocol", f"{content['data']} ({content['reader']}), {content['protocol']}"),
        ("split", f"{content['split_sha256'][:12]} (seed {content['split_seed']})"),
        ("queries / training set / database", " / ".join(f"{content[f'n_{part}']:,}" for part in parts)),
        ("held out for tuning", f"{content['validation']:,}"),
        ("database holds the training set", "yes" if content["database_holds_train"] else "no"),
        (
            "labels an image",
            "{mean_per_image:.2f}, at most {most_per_image}; {images_without:,} images have none".format(**content["labels"]),
        ),
        (
            "relevant to a query, of the database",
            "{relevant_share:.4f}, the chance level of mAP@all".format(**content["labels"]),
        ),
        *[(f"overlap: {where}", f"{count:,}") for where, count in content["overlaps"].items()],
    ]
    if content["same_bytes"] is None:
        rows.append(("images", "not read"))
    else:
        rows += [(f"same bytes: {where}", f"{count:,}") for where, count in content["same_bytes"].items()]
        rows.append(("missing or unreadable", f"{len(content['bad_images']):,}, {content['n_skipped']:,} left out"))
    rows += [(name, f"{count:,}") for name, count in content["notes"].items()]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    return "\n".join([*lines, "", *_class_lines(content["counts"], parts)])


def _class_lines(counts: dict[str, dict[str, int]], parts: tuple[str, ...]) -> list[str]:
    width = min(30, max(len(name) for name in ("class", *counts)))
    lines = [f"{'class':<{width}}" + "".join(f"{part:>10}" for part in parts)]
    for name, count in list(counts.items())[:_CLASSES_SHOWN]:
        lines.append(f"{name[:width]:<{width}}" + "".join(f"{count[part]:>10,}" for part in parts))
    if len(counts) > _CLASSES_SHOWN:
        lines.append(f"and {len(counts) - _CLASSES_SHOWN} more, in the manifest")
    return lines
