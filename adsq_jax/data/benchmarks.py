"""Data sets with a split of their own by name, for Python: `load`."""

from pathlib import Path

from adsq_jax.data import arrays, datasets, protocols
from adsq_jax.data.datasets import PROTOCOLS_OF, READERS_OF, Dataset, Settings
from adsq_jax.data.preprocessing import Preprocessing
from adsq_jax.errors import InputError

_NAMES = (*(name for name, names in PROTOCOLS_OF.items() if datasets.OWN not in names), "folder", "lists")


def load(
    name: str,
    *,
    directory: str | Path = "",
    protocol: str | None = None,
    reader: str | None = None,
    seed: int = 0,
    preprocessing: Preprocessing | None = None,
    small_classes: str = "error",
    lists: str | Path = "",
    strip_prefix: str = "",
) -> Dataset:
    """Open a published benchmark, split by its protocol, or your own pictures.

    Args:
      name: "digits", "fashion_mnist", "cifar10", "nuswide", "imagenet100", "coco" or "mirflickr25k"; or "folder", for
        DIRECTORY/CLASS/, of which a tenth of each class becomes queries, or, with `reader="split_folders"`, for
        DIRECTORY/train/CLASS/ and DIRECTORY/test/CLASS/ (or `query`, or `val`); or "lists", for list files.
      directory: the folder of its files; digits come with scikit-learn and need none.
      protocol: how to split it: for "cifar10" also "cifar10-1" and "cifar10-2", for "nuswide" also "nuswide-81", for "coco"
        also "coco-lists", for "lists" also "tiny_imagenet100"; None: the benchmark's own.
      reader: the form of its files: "files" (as published), "lists" or "tfds", as far as a benchmark has it; None: "files", or
        "lists" where `name` is that.
      seed: the seed for drawing queries and training images, from 0.
      preprocessing: how to resize, crop and augment; None: as in `from_arrays`.
      small_classes: for "folder", what becomes of classes of fewer than two pictures: "error" refuses them, "database" puts
        their pictures into database and training set, without queries; `Dataset.classes_without_queries` names them.
      lists: with list files, the folder of query.txt (or test.txt), train.txt and database.txt; "": `directory`.
      strip_prefix: with list files, the folder that all their paths begin with, and that is left out; "": none.

    Returns:
      The data set.

    Raises:
      InputError: an argument is invalid; the message says why.
    """
    if name not in _NAMES:
        raise InputError(f"{name!r} is not a benchmark: expected one of {', '.join(_NAMES)}")
    for given, known_names, key in (
        (protocol, PROTOCOLS_OF[name], "protocol"),
        (reader, READERS_OF[name], "reader"),
        (small_classes, protocols.SMALL_CLASSES, "small_classes"),
    ):
        if given is not None and given not in known_names:
            raise InputError(f"{key}={given!r}: expected, for {name}, {' or '.join(known_names)}")
    form = reader or READERS_OF[name][0]
    if (lists or strip_prefix) and form != "lists":
        raise InputError(f"lists and strip_prefix go with list files; fix: reader='lists', or leave them out of {form!r}")
    split = protocol or PROTOCOLS_OF[name][0]
    if small_classes != "error" and not datasets.has_small_classes(reader=form, protocol=split):
        raise InputError(f"small_classes={small_classes!r} goes with 'folder' of one folder a class; fix: leave it out")
    if preprocessing is not None:
        preprocessing.check()
        if preprocessing.bit_depth and not datasets.has_bit_depth(name=name, reader=form):
            raise InputError(
                f"preprocessing.bit_depth={preprocessing.bit_depth}: expected 0, since the files of {name} have 8 bits a pixel"
                "; fix: leave it out"
            )
    settings = Settings(
        name=name,
        reader=form,
        directory=str(directory),
        lists=str(lists),
        strip_prefix=strip_prefix,
        tfds_name="",
        protocol=split,
        split_seed=seed,
        validation=0,
        query_share=0.1,
        train_share=1.0,
        small_classes=small_classes,
        allow_overlap=False,
        on_bad_image="error",
        most_bad=0.0,
        manifest="",
        keep_mib=arrays.CACHE_BYTES >> 20,
        **(preprocessing or arrays.PICTURES)._asdict(),
    )
    dataset = datasets.load(settings)
    return dataset._replace(preprocessing=arrays.choose_preprocessing(dataset.source, preprocessing))
