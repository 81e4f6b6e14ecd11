"""Data sets by name: a source, split by a protocol, without the images that can't be read.

To add one, write readers/NAME.py, call it in `_open_files`, add NAME to `READERS_OF` and `PROTOCOLS_OF` and its protocol to
`protocols.PROTOCOLS`, and write configs/NAME.py; if TFDS has it too, add it to `tfds_sets.BENCHMARKS`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from adsq_jax import storage
from adsq_jax.data import manifest, protocols, splits
from adsq_jax.data.preprocessing import Preprocessing
from adsq_jax.data.protocols import OWN
from adsq_jax.data.readers import cifar10, coco, digits, fashion_mnist, folder, imagenet100, lists, mirflickr25k
from adsq_jax.data.sources import ArraySource, CachedSource, Source
from adsq_jax.data.splits import Split
from adsq_jax.errors import InputError

READERS_OF = {  # each data set, and the forms that can be read: its files, list files with images, TFDS, a split in folders
    "digits": ("files",),
    "fashion_mnist": ("files", "lists", "tfds"),
    "cifar10": ("files", "lists", "tfds"),
    "nuswide": ("files", "lists"),
    "imagenet100": ("files", "lists", "tfds"),
    "coco": ("files", "lists", "tfds"),
    "mirflickr25k": ("files", "lists"),
    "folder": ("files", folder.SPLIT_FOLDERS),
    "lists": ("lists",),
    "tfds": ("tfds",),
}
_OF_PIXELS = ("digits", "fashion_mnist", "cifar10")  # data sets whose own files hold 8 bits a pixel, not pictures
BAD_IMAGE = ("error", "skip")
PROTOCOLS_OF = {  # each data set, and the protocols that divide it
    "digits": ("digits",),
    "fashion_mnist": ("fashion_mnist",),
    "cifar10": ("cifar10", "cifar10-1", "cifar10-2"),
    "nuswide": ("nuswide", "nuswide-81"),
    "imagenet100": ("imagenet100",),
    "coco": ("coco", "coco-lists"),
    "mirflickr25k": ("mirflickr25k",),
    "folder": (OWN,),
    "lists": (OWN, "tiny_imagenet100"),
    "tfds": (OWN,),
}


class Settings(NamedTuple):
    """Which data to open, and how; the config keys `data.*` of the same names are documented in config.py."""

    name: str
    reader: str
    directory: str
    lists: str
    strip_prefix: str
    tfds_name: str
    protocol: str
    split_seed: int
    validation: int
    query_share: float
    train_share: float
    small_classes: str
    allow_overlap: bool
    on_bad_image: str
    most_bad: float
    manifest: str
    keep_mib: int
    resize: int
    image_size: int
    crop_padding: int
    flip: bool
    erase: float
    bit_depth: int

    @property
    def preprocessing(self) -> Preprocessing:
        """How images are resized, cropped and augmented."""
        return Preprocessing(*(getattr(self, field) for field in Preprocessing._fields))


class Dataset(NamedTuple):
    """Labelled images, split into queries, training set and database, with their preprocessing."""

    source: Source  # the images with their labels and names
    split: Split  # rows of the source: queries, training set, database
    protocol: str  # its name
    split_sha256: str  # a hash of protocol, rows, labels and names: 64 hexadecimal digits
    map_at: str  # the protocol's cutoff of mAP: "all" or a number
    preprocessing: Preprocessing  # how images are resized, cropped and augmented
    validation: int = 0  # training images held out for tuning; 0: the protocol's own queries and database
    allow_overlap: bool = False  # whether queries may be in the database, too
    n_skipped: int = 0  # unreadable images left out of the split
    classes_without_queries: tuple[str, ...] = ()  # those too small to split, with the numbers of their images

    def __repr__(self) -> str:
        query, train, database = (f"{len(rows):,}" for rows in self.split)
        return (
            f"Dataset({len(self.source):,} images in {self.source.labels.classes} classes; protocol {self.protocol!r}: "
            f"{query} queries, {train} to train on, {database} in the database; image_size {self.preprocessing.image_size})"
        )


def has_small_classes(*, reader: str, protocol: str) -> bool:
    """Return whether `small_classes` has an effect: whether a share of each class is drawn."""
    return protocol == OWN and reader not in ("lists", folder.SPLIT_FOLDERS)  # which are split already


def has_bit_depth(*, name: str, reader: str) -> bool:
    """Return whether `bit_depth` can have an effect: whether a data set's images are pictures to decode."""
    return reader != "files" or name not in _OF_PIXELS


def batches(
    dataset: Dataset, *, batch_size: int, seed: int, epoch: int = 0, second_view: bool = False
) -> Iterator[dict[str, np.ndarray]]:
    """Return the batches of one pass over the training set, shuffled and augmented.

    Args:
      dataset: the data set.
      batch_size: images per batch, at most the size of the training set.
      seed: the seed for order and augmentation.
      epoch: the number of the pass, from 0; each has its own order.
      second_view: whether to augment each image a second time, for a method with `Method.second_view`.

    Returns:
      An iterator over n_train // batch_size batches. Each has "inputs", uint8[batch_size, image_size, image_size, 3], and
      "index", int32[batch_size], the positions in the training set, none of which occurs twice. With a second view there is
      also "second_inputs", like "inputs". Threads read ahead until the iterator ends or is closed.

    Raises:
      InputError: an argument is invalid; the message says why.
    """
    from adsq_jax.data import pipeline  # grain and JAX take a second to import
    from adsq_jax.devices import host

    n_train = len(dataset.split.train)
    if not 1 <= batch_size <= n_train:
        raise InputError(f"batch_size={batch_size}: expected 1 to {n_train}, the size of the training set")
    if epoch < 0 or seed < 0:
        raise InputError(f"seed={seed}, epoch={epoch}: expected numbers from 0")
    steps = n_train // batch_size
    return pipeline.train_batches(
        dataset.source,
        dataset.split.train,
        preprocessing=dataset.preprocessing,
        batch_size=batch_size,
        seed=seed,
        start=epoch * steps,
        stop=(epoch + 1) * steps,
        read_options=pipeline.ReadOptions(threads=host.reading_threads(0)),
        second_view=second_view,
    )


def open_source(settings: Settings) -> Source:
    """Open the images of a data set, without a split.

    Raises:
      InputError: the data are missing or damaged; the message says what to get and where to put it.
    """
    if not settings.directory and settings.name != "digits" and settings.reader != "tfds":
        raise InputError("config.data.directory is empty; fix: give the folder of the images, --config.data.directory=FOLDER")
    if settings.reader == "tfds":
        return _open_tfds(settings)
    directory = storage.path(settings.directory)
    try:
        with storage.translate_errors(directory):
            return _open_files(settings, directory)
    except OSError as error:
        if not storage.is_remote(error.filename):
            raise
        raise InputError(
            f"{error.filename} can't be read ({error.strerror}); fix: check its name, and this machine's access to it"
        ) from error


def open_prepared(settings: Settings) -> Source:
    """Open the images as `open_source` does, but download and prepare nothing.

    Raises:
      InputError: as `open_source`; or the data set isn't prepared.
    """
    if settings.reader != "tfds" and settings.name != "nuswide":
        return open_source(settings)
    from adsq_jax.data.readers import tfds_sets  # imports TFDS, which takes a second

    with tfds_sets.prepared_only():
        return open_source(settings)


def _open_files(settings: Settings, directory: Path) -> Source:
    if settings.reader == "lists":
        folder_of_lists = storage.path(settings.lists or settings.directory)
        return lists.read(directory, lists=folder_of_lists, strip_prefix=settings.strip_prefix)
    if settings.reader == folder.SPLIT_FOLDERS:
        return folder.read_split(directory)
    files: dict[str, Callable[[], Source]] = {
        "digits": digits.read,
        "fashion_mnist": lambda: fashion_mnist.read(directory),
        "cifar10": lambda: cifar10.read(directory),
        "nuswide": lambda: _open_nus_wide(directory, settings.protocol),
        "imagenet100": lambda: imagenet100.read(directory),
        "coco": lambda: coco.read(directory),
        "mirflickr25k": lambda: mirflickr25k.read(directory),
        "folder": lambda: folder.read(directory),
    }
    return files[settings.name]()


def _open_nus_wide(directory: Path, protocol: str) -> Source:
    from adsq_jax.data.readers import nus_wide  # imports TFDS, which takes a second

    if storage.is_remote(directory):
        raise InputError(
            f"{directory} is in an object store, and NUS-WIDE is prepared on a disk; fix: copy it to this machine, or give "
            "list files with --config.data.reader=lists"
        )
    return nus_wide.read(directory, most_frequent=21 if protocol == "nuswide" else None)


def _open_tfds(settings: Settings) -> Source:
    from adsq_jax.data.readers import tfds_sets  # as above

    if settings.name == "tfds":
        if not settings.tfds_name:
            raise InputError("config.data.tfds_name is empty; fix: give the data set's name, --config.data.tfds_name=NAME")
        return tfds_sets.read(settings.tfds_name, settings.directory, splits=None)
    return tfds_sets.BENCHMARKS[settings.name](settings.directory)


def draw(settings: Settings) -> Dataset:
    """Open a data set and split it, without a check for unreadable images."""
    source = open_source(settings)
    name, small_classes = settings.protocol, settings.small_classes
    split, map_at = protocols.draw(
        source,
        name,
        seed=settings.split_seed,
        query_share=settings.query_share,
        train_share=settings.train_share,
        small_classes=small_classes,
    )
    classes_without_queries, never_query = protocols.without_queries(source, name, small_classes=small_classes)
    splits.check_disjoint(split, source.names, allow_overlap=settings.allow_overlap)
    if settings.validation:
        split = splits.hold_out(split, validation=settings.validation, seed=settings.split_seed, keep=never_query)
    dataset = make_dataset(source, split, protocol=name, map_at=map_at, preprocessing=settings.preprocessing)
    return dataset._replace(
        validation=settings.validation, allow_overlap=settings.allow_overlap, classes_without_queries=classes_without_queries
    )


def make_dataset(source: Source, split: Split, *, protocol: str, map_at: str, preprocessing: Preprocessing) -> Dataset:
    """Join a source with its split, and hash the split."""
    sha256 = splits.sha256(split, name=protocol, labels=source.labels, names=source.names)
    return Dataset(source, split, protocol=protocol, split_sha256=sha256, map_at=map_at, preprocessing=preprocessing)


def load(settings: Settings) -> Dataset:
    """Open a data set, split it, and check that its images exist.

    With a manifest of `adsq data` the split must be the same; `on_bad_image="skip"` leaves out the images that
    the manifest lists as bad. Decoded training images are cached in memory, up to `keep_mib`.

    Raises:
      InputError: the data or an image are missing, or the split isn't the manifest's.
    """
    dataset = draw(settings)
    if settings.on_bad_image == "skip" and not settings.manifest:
        raise InputError(
            "config.data.on_bad_image='skip' needs a list of the bad images; fix: run adsq data --config=... , "
            "which finds them and writes a manifest, and give that as --config.data.manifest"
        )
    if settings.manifest:
        content = manifest.read(storage.path(settings.manifest))
        manifest.check_origin(
            content, path=settings.manifest, data=settings.name, protocol=settings.protocol, split_seed=settings.split_seed
        )
        if settings.on_bad_image == "skip":
            bad = np.array([bad["row"] for bad in content["bad_images"]], np.int64)
            dataset = skip_images(dataset, bad, most_bad=settings.most_bad)
        manifest.check(content, dataset.split_sha256, path=storage.path(settings.manifest))
    check_present(dataset)
    if isinstance(dataset.source, ArraySource):
        return dataset
    cached = CachedSource(dataset.source, dataset.split.train, most_bytes=settings.keep_mib * 2**20)
    return dataset._replace(source=cached)


def notes(dataset: Dataset) -> list[str]:
    """Return what somebody should know of how a data set was split, a sentence each."""
    small, count = dataset.classes_without_queries, dataset.source.labels.classes
    if not small:
        return []
    are = "is" if len(small) == 1 else "are"
    listed = f"{len(small):,} of {count:,} classes {are} too small to split: {protocols.first_classes(small)}"
    return [f"{listed}; their images are in database and training set, and none is a query"]


def check_present(dataset: Dataset) -> None:
    """Check that no image of a split is missing, without reading any."""
    missing = dataset.source.missing(used_rows(dataset.split))
    if len(missing):
        raise InputError(
            f"{len(missing):,} images are missing, the first is {dataset.source.location(int(missing[0]))}; fix: add them, or "
            "leave them out by --config.data.on_bad_image=skip and a manifest of adsq data"
        )


def skip_images(dataset: Dataset, bad: np.ndarray, *, most_bad: float) -> Dataset:
    """Leave out bad images, int[m]; the others stay in their parts. Refuse more than a share of `most_bad`."""
    used = used_rows(dataset.split)
    bad = np.intersect1d(bad, used)
    if len(bad) > most_bad * len(used):
        raise InputError(
            f"{len(bad):,} of {len(used):,} images can't be used, more than the share config.data.most_bad={most_bad}; "
            "fix: restore them, or allow more with --config.data.most_bad=SHARE"
        )
    if not len(bad):
        return dataset
    split = splits.drop_rows(dataset.split, bad)
    if not all(len(rows) for rows in split):
        raise InputError("without the images that can't be used, a part of the split is empty; fix: restore them")
    source = dataset.source
    sha256 = splits.sha256(split, name=dataset.protocol, labels=source.labels, names=source.names)
    return dataset._replace(split=split, split_sha256=sha256, n_skipped=len(bad))


def used_rows(split: Split) -> np.ndarray:
    """Return the rows that are in any part, int64[n], in ascending order."""
    return np.unique(np.concatenate(split))


def part_labels(dataset: Dataset, part: str) -> np.ndarray:
    """Return the labels of `query`, `train` or `database`, uint8[n, c]."""
    return dataset.source.labels[getattr(dataset.split, part)]


def retrieval_labels(dataset: Dataset) -> dict[str, np.ndarray]:
    """Return labels of `query` and `database`: class ids int64[n] if each image has exactly one, else uint8[n, c].

    Of a single class they are bool[n, 1], since numbers [n, 1] might be ids.
    """
    ids = {part: dataset.source.labels.ids(getattr(dataset.split, part)) for part in ("query", "database")}
    if all(array is not None for array in ids.values()):
        return {part: np.asarray(array) for part, array in ids.items()}
    dtype = np.uint8 if dataset.source.labels.classes > 1 else bool
    return {part: part_labels(dataset, part).astype(dtype, copy=False) for part in ids}


def facts(dataset: Dataset) -> dict[str, Any]:
    """Return what a result reports about its data, apart from the sizes of queries and database."""
    split, overlaps = dataset.split, splits.overlaps(dataset.split, dataset.source.names)
    return {
        "protocol": dataset.protocol,
        "validation": dataset.validation,
        "split_sha256": dataset.split_sha256,
        "n_train": len(split.train),
        "n_query_in_train": overlaps["query in train"],
        "n_query_in_database": overlaps["query in database"],
        "allow_overlap": dataset.allow_overlap,
        "n_skipped": dataset.n_skipped,
        "n_classes_without_queries": len(dataset.classes_without_queries),
        "database_holds_train": bool(np.isin(split.train, split.database).any()),
    }
