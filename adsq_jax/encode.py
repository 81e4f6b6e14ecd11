"""Encodes pictures by a trained model, into an index that `adsq_jax.search` looks through.

`python -m adsq_jax.encode --workdir=DIR --images=FOLDER --index=INDEX`
"""

import hashlib
import itertools
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from absl import flags

from adsq_jax import command_line, index, storage
from adsq_jax.data import gallery as galleries
from adsq_jax.data import images
from adsq_jax.data.gallery import Gallery
from adsq_jax.data.images import BadImage
from adsq_jax.devices import host
from adsq_jax.errors import InputError, Stopped
from adsq_jax.index import CodeIndex, Item, Manifest
from adsq_jax.inference import model as model_module
from adsq_jax.inference.model import Model
from adsq_jax.run import workdir

_WORKDIR = flags.DEFINE_string("workdir", None, "A finished run's folder: its model encodes.")
_IMAGES = flags.DEFINE_string("images", None, "A folder of pictures, a list file, or tfds:NAME or tfds:NAME@SPLIT.")
_DIRECTORY = flags.DEFINE_string("directory", "", "Where a list's paths begin, if not beside it; or TFDS's data_dir.")
_INDEX = flags.DEFINE_string("index", None, "The index's folder, or its address on a Milvus server; made if it isn't there.")
_PRUNE = flags.DEFINE_bool("prune", False, "Takes out of the index what is no longer in the folder.")

_ASKED = 1_000  # images looked up in the index at a time
_TOLD = 20  # images that were left out, told one by one


@dataclass
class Counts:
    """What became of the images."""

    encoded: int = 0
    unchanged: int = 0
    bad: list[str] = field(default_factory=list)  # why each was left out


def main() -> None:
    """Reads the flags, encodes and tells."""
    if not (_WORKDIR.value and _IMAGES.value and _INDEX.value):
        raise InputError("--workdir=DIR, --images=FOLDER and --index=INDEX are all needed")
    began, counts = time.monotonic(), Counts()
    try:
        pruned, total = _run(counts)
    except (KeyboardInterrupt, Stopped) as error:
        print(f"stopped: {counts.encoded:,} images were added to {_INDEX.value}; the same command goes on", file=sys.stderr)
        command_line.hard_exit(0 if isinstance(error, Stopped) else 130)
    for text in counts.bad[:_TOLD]:
        print(f"left out: {text}", file=sys.stderr)
    if len(counts.bad) > _TOLD:
        print(f"left out: {len(counts.bad) - _TOLD:,} more", file=sys.stderr)
    print(
        f"{counts.encoded:,} images encoded, {counts.unchanged:,} unchanged, {len(counts.bad):,} left out, "
        f"{pruned:,} taken out, in {time.monotonic() - began:.0f} s; {_INDEX.value} holds {total:,}"
    )
    if counts.bad and not counts.encoded + counts.unchanged:
        raise InputError(f"none of the {len(counts.bad):,} images of --images={_IMAGES.value} can be used: see above")


def _run(counts: Counts) -> tuple[int, int]:
    """How many images were taken out, and how many the index has then."""
    host.use_all_cores()
    model = model_module.load(_WORKDIR.value)
    gallery = galleries.read(_IMAGES.value, directory=_DIRECTORY.value)
    if _PRUNE.value and not gallery.is_folder:
        raise InputError("--prune goes with a folder: what isn't in a list may still be wanted")
    run = workdir.path(_WORKDIR.value)
    manifest = Manifest(model.bits, model.sha256, str(run) if storage.is_remote(run) else os.path.abspath(run))
    with index.create(_INDEX.value, manifest) as opened:
        with command_line.progress_bar(len(gallery), unit="images") as bar:
            encode(model, gallery, opened, counts=counts, threads=host.reading_threads(0), on_progress=bar.update)
        return prune(gallery, opened) if _PRUNE.value else 0, opened.count()


def encode(
    model: Model, gallery: Gallery, opened: CodeIndex, *, counts: Counts, threads: int, on_progress: Callable[[int], Any]
) -> None:
    """Encodes what is new or has changed; a batch that was added stays, whatever happens after.

    Args:
      model: encodes for the database.
      gallery: the images.
      opened: the index.
      counts: is counted up on the way. An image that can't be read is left out, and counted with the reason.
      threads: that read and decode.
      on_progress: is called on the way with the number of images done since.

    Raises:
      InputError: the index can't be written.

    Source: this project.
    """
    added: deque[list[Item]] = deque()

    def batches() -> Iterator[np.ndarray]:
        changed = _changed(model, gallery, opened, counts=counts, threads=threads, on_progress=on_progress)
        while batch := list(itertools.islice(changed, model.batch_size)):
            added.append([item for item, _ in batch])
            yield np.stack([pixels for _, pixels in batch])

    for codes in model.stream(batches(), part="database"):
        items = added.popleft()
        opened.add(items, codes)
        counts.encoded += len(items)
        on_progress(len(items))


def _changed(
    model: Model, gallery: Gallery, opened: CodeIndex, *, counts: Counts, threads: int, on_progress: Callable[[int], Any]
) -> Iterator[tuple[Item, np.ndarray]]:
    """Of what isn't in the index as it is now: the item, and what the network sees of it."""

    def wanted() -> Iterator[tuple[int, Item | None]]:
        for start in range(0, len(gallery), _ASKED):
            rows = range(start, min(start + _ASKED, len(gallery)))
            names = [gallery.id(row) for row in rows]
            known = opened.find([name for name in names if index.is_text(name)])
            yield from ((row, known.get(name)) for row, name in zip(rows, names, strict=True))

    # A batch is read ahead, so that it is there when the one before has been computed.
    for result in _ahead(
        wanted(), lambda row, known: _read(model, gallery, row, known), threads=threads, most=model.batch_size
    ):
        if isinstance(result, str):
            counts.bad.append(result)
            on_progress(1)
        elif result is None:
            counts.unchanged += 1
            on_progress(1)
        else:
            yield result


def _read(model: Model, gallery: Gallery, row: int, known: Item | None) -> tuple[Item, np.ndarray] | str | None:
    """An item with its pixels; None where it is in the index as it is; or why it can't be used."""
    source, name = gallery.source, gallery.id(row)
    if not index.is_text(name):
        return f"{source.location(row)} has a name that isn't UTF-8: rename it"
    try:
        content = source.content(row)
        item = Item(name, gallery.labels(row), hashlib.sha256(content).hexdigest())
        if item == known:
            return None
        pixels = images.decode(content, shorter_side=model.resize)  # of the bytes that were hashed: files may change meanwhile
        return item, model.cut(pixels, name=source.location(row))
    except BadImage as error:
        return f"{source.location(row)} {error}"
    except InputError as error:  # of another size than the network wants
        return str(error)


def _ahead(
    wanted: Iterator[tuple[int, Item | None]], read: Callable[[int, Item | None], Any], *, threads: int, most: int
) -> Iterator[Any]:
    """What threads read, in order, at most so many ahead."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Any]] = deque()
        try:
            for row, known in wanted:
                waiting.append(pool.submit(read, row, known))
                if len(waiting) > most:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def prune(gallery: Gallery, opened: CodeIndex) -> int:
    """Takes out of an index what is below a folder there, and not in the folder any more.

    Args:
      gallery: of the folder.
      opened: the index.

    Returns:
      How many images.
    """
    if not index.is_text(gallery.prefix):
        return 0  # nothing of it can be in an index
    there = {gallery.id(row) for row in range(len(gallery))}
    gone: Sequence[str] = [name for name in opened.ids(prefix=gallery.prefix) if name not in there]
    return opened.delete(gone)


if __name__ == "__main__":
    command_line.run(main)
