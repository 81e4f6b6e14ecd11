"""The content of a manifest: counts and overlaps of a split, and a hash of every image."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from adsq_jax.data import splits
from adsq_jax.data.datasets import Dataset, Settings, used_rows
from adsq_jax.data.images import BadImage, is_dark
from adsq_jax.data.sources import Source
from adsq_jax.data.splits import Split
from adsq_jax.run import tables

_DIGEST = 16  # bytes of an image's hash
_AT_ONCE = 256  # images handed to the threads together: bounds memory, and lets Ctrl-C through
_DARK_NOTE = "pictures of 16 bits with values below 4,096 alone, read as nearly black without data.bit_depth=12"
_SMALL_NOTE = "classes too small to split, without queries"
_CLASSES_SHOWN, _LONGEST_NAME = 30, 30


class Images(NamedTuple):
    """The images of a split, as they were read."""

    rows: np.ndarray  # int64[n], ascending
    digests: np.ndarray  # hashes of the stored bytes, uint8[n, 16]; zeros if nothing could be read
    bad: dict[int, str]  # the reason, by row
    dark: int = 0  # those of 16 bits of which at most 12 are used, if no bit depth was given


def read_images(
    source: Source, rows: np.ndarray, *, shorter_side: int, bit_depth: int = 0, threads: int, on_progress: Callable[[int], None]
) -> Images:
    """Read and decode images, rows int[n] in ascending order, as training would; bad images raise nothing.

    `on_progress` is called with the number of images read since its last call.
    """

    def read(row: int) -> tuple[bytes, str | None, bool]:
        try:
            digest = hashlib.blake2b(source.content(row), digest_size=_DIGEST).digest()
        except BadImage as error:
            return bytes(_DIGEST), f"{source.location(row)} {error}", False
        try:
            pixels = source.image(row, shorter_side=shorter_side, bit_depth=bit_depth)
            return digest, None, not bit_depth and is_dark(source.content(row), pixels)
        except BadImage as error:
            return digest, str(error), False

    missing = set(source.missing(rows).tolist())  # in seconds for a million, which would take minutes one by one
    digests, bad, dark = [], {}, 0
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(rows), _AT_ONCE):
            block = rows[start : start + _AT_ONCE].tolist()
            results = pool.map(read, [row for row in block if row not in missing])
            for row in block:
                wrong: str | None
                if row in missing:
                    digest, wrong, has_few_bits = bytes(_DIGEST), f"{source.location(row)} is missing; fix: restore it", False
                else:
                    digest, wrong, has_few_bits = next(results)
                dark += has_few_bits
                digests.append(digest)
                if wrong is not None:
                    bad[row] = wrong
            on_progress(len(block))
    return Images(rows, np.frombuffer(b"".join(digests), np.uint8).reshape(-1, _DIGEST), bad, dark)


def manifest_of(dataset: Dataset, settings: Settings, images: Images | None) -> dict[str, Any]:
    """Return the content of a manifest, for JSON.

    Args:
      dataset: the data set, without the images left out.
      settings: the settings with which it was opened.
      images: the result of `read_images`, with the images left out; None if they weren't read.
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
        "overlaps": {**splits.overlaps(split, source.names), "train in database": int(np.isin(*split[1:]).sum())},
        "classes": list(source.classes),
        "names": source.names is not None,
        "counts": {name: {part: int(n[k]) for part, n in counts.items()} for k, name in enumerate(source.classes)},
        "labels": _label_statistics(dataset),
        "notes": _notes(dataset, images),
        "bad_images": [{"row": row, "name": source.name(row), "why": why} for row, why in sorted(bad.items())],
        "images_sha256": None if images is None else hashlib.sha256(images.digests.tobytes()).hexdigest(),
        "same_bytes": None if images is None else _same_bytes(images, split),
    }


def _notes(dataset: Dataset, images: Images | None) -> dict[str, int]:
    """Return counts of what somebody should look at, by their names."""
    counts = {
        _SMALL_NOTE: len(dataset.classes_without_queries),
        _DARK_NOTE: 0 if images is None else images.dark,
    }
    return {**dataset.source.notes, **{name: count for name, count in counts.items() if count}}


def _label_statistics(dataset: Dataset) -> dict[str, Any]:
    """Count labels per image, and compute the share of the database that is relevant to a query, near mAP by chance."""
    labels, split = dataset.source.labels, dataset.split
    per_image = labels.per_image(used_rows(split))
    sets, sizes = np.unique(labels[split.query], axis=0, return_counts=True)  # [sets, c], queries of each
    relevant = np.zeros(len(sets), np.int64)
    for block in labels.blocks(split.database):
        relevant += ((sets.astype(np.float32) @ block.T.astype(np.float32)) > 0).sum(axis=1)
    return {
        "mean_per_image": float(per_image.mean()),
        "most_per_image": int(per_image.max()),
        "images_without": int((per_image == 0).sum()),
        "relevant_share": float(np.average(relevant / len(split.database), weights=sizes)),
    }


def _same_bytes(images: Images, split: Split) -> dict[str, int]:
    """Count images that are byte-for-byte copies of others, and queries with a copy in another part."""
    group, sizes = np.unique(images.digests, axis=0, return_inverse=True, return_counts=True)[1:]
    group = np.ravel(group)  # [n]
    copied, readable = sizes[group] > 1, np.asarray(images.digests.any(axis=1))  # [n]

    def groups(rows: np.ndarray) -> np.ndarray:
        positions = np.searchsorted(images.rows, rows)
        return group[positions[readable[positions]]]

    query = groups(split.query)
    counts = {"images": int((copied & readable).sum())}
    for part in ("train", "database"):
        others = np.setdiff1d(getattr(split, part), split.query)
        counts[f"queries in {part}"] = int(np.isin(query, groups(others)).sum())
    return counts


def table(content: dict[str, Any]) -> str:
    """Return the content of a manifest as lines of text."""
    labels = content["labels"]
    rows = [
        ("data set, protocol", f"{content['data']} ({content['reader']}), {content['protocol']}"),
        ("split", f"{content['split_sha256'][:12]} (seed {content['split_seed']})"),
        ("queries / training set / database", " / ".join(f"{content[f'n_{part}']:,}" for part in Split._fields)),
        ("held out for tuning", f"{content['validation']:,}"),
        ("database holds the training set", "yes" if content["database_holds_train"] else "no"),
        ("labels per image", f"{labels['mean_per_image']:.2f}, at most {labels['most_per_image']}"),
        ("images without a label", f"{labels['images_without']:,}"),
        ("relevant to a query, of the database", f"{labels['relevant_share']:.4f}, about mAP@all by chance"),
        *[(f"overlap: {where}", f"{count:,}") for where, count in content["overlaps"].items()],
    ]
    if content["same_bytes"] is None:
        rows.append(("images", "not read"))
    else:
        rows += [(f"same bytes: {where}", f"{count:,}") for where, count in content["same_bytes"].items()]
        rows.append(("missing or unreadable", f"{len(content['bad_images']):,}, {content['n_skipped']:,} left out"))
    rows += [(name, f"{count:,}") for name, count in content["notes"].items()]
    classes = [("class", *Split._fields)]
    for name, count in list(content["counts"].items())[:_CLASSES_SHOWN]:
        classes.append((name[:_LONGEST_NAME], *(f"{count[part]:,}" for part in Split._fields)))
    lines = [tables.align(rows), "", tables.align(classes, right=(1, 2, 3))]
    if len(content["counts"]) > _CLASSES_SHOWN:
        lines.append(f"and {len(content['counts']) - _CLASSES_SHOWN} more, in the manifest")
    return "\n".join(lines)
