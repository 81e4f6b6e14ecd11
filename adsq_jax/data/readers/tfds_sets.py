"""Data sets of TFDS, prepared as array_record: random access, without TensorFlow."""

import contextlib
import contextvars
import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from adsq_jax import storage
from adsq_jax.data.images import BadImage
from adsq_jax.data.labels import Labels
from adsq_jax.data.readers.imagenet100 import synsets as synsets_of_imagenet100
from adsq_jax.data.sources import EncodedSource, Names, Source, Subset
from adsq_jax.errors import InputError, first_line
from adsq_jax.run.progress import progress_bar

_LABELS = "adsq_jax_labels.npz"  # beside the records: without it, reading the labels means reading every image
_NAMES = ("file_name", "image/filename", "name", "id")  # features that name an image
_IDS = "image/id"  # COCO's
_may_prepare = contextvars.ContextVar("may_prepare", default=True)  # whether `prepare` downloads and writes
_NAME = re.compile(r"[a-z]\w*(/[\w.-]+)?(:\d+\.\d+\.\d+)?", re.ASCII)


class RecordSource(EncodedSource):
    """One record per image, in files of array_record."""

    def __init__(
        self,
        records: Sequence[Sequence[Mapping[str, Any]]],
        labels: Labels,
        *,
        classes: Sequence[str],
        names: Names | None,
        parts: Mapping[str, np.ndarray],
        missing: np.ndarray,
        fix: str,
    ):
        """Wrap the records of each part, one part after another, with what `open_builder` read of all."""
        super().__init__(labels, classes=classes, names=names, parts=parts)
        self._records = records
        self._starts = np.cumsum([0, *(len(part) for part in records)])
        self._missing, self._fix = missing, fix

    def content(self, index: int) -> bytes:
        """Return the record's image."""
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        content = self._records[part][int(index - self._starts[part])]["image"]
        if not content:
            raise BadImage(f"is missing; fix: {self._fix}")
        return bytes(content)

    def missing(self, rows: np.ndarray) -> np.ndarray:
        """Return the records without an image."""
        return rows[self._missing[rows]]


def read(name: str, directory: str, *, splits: Sequence[str] | None) -> Source:
    """Open a classification data set of TFDS; prepare it first if necessary.

    Args:
      name: its name in TFDS, for instance `cifar10` or `coco/2014`.
      directory: TFDS's data_dir; "" for TFDS's own default.
      splits: its splits to read, in that order; None for all that have labels.

    Returns:
      All images, one split after another; with `splits`, `parts` has the rows of each.

    Source: TensorFlow Datasets, https://www.tensorflow.org/datasets.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"{name[:80]!r} is not the name of a TFDS data set: expected set, set/config or set/config:1.0.0")
    data_dir = storage.expand_home(directory or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets"))
    check_prepared(Path(data_dir) / re.split("[/:]", name)[0])
    try:
        builder = tfds.builder(name, data_dir=data_dir)
        if (Path(builder.data_dir) / "dataset_info.json").exists():  # which alone names alternative formats
            builder = tfds.builder_from_directory(builder.data_dir)
    except Exception as error:  # TFDS raises anything its registry, network and import layers do
        raise InputError(
            f"TFDS can't open {name!r} ({_reason(error)}); fix: see tensorflow.org/datasets for the names"
        ) from error
    root = Path(builder.data_dir)
    if not (root / "dataset_info.json").exists():
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    elif "array_record" not in {form.value for form in (builder.info.file_format, *builder.info.alternative_file_formats)}:
        raise InputError(
            f"{root} is prepared as {builder.info.file_format.value}, which has no random access; fix: convert it once, beside "
            "what is there, after pip install tensorflow apache-beam mlcroissant: tfds convert_format "
            f"--dataset_version_dir={root} --out_file_format=array_record; or give another directory, to prepare it there"
        )
    prepare(builder, config=None, fix=f"pip install tensorflow && tfds build {name} --file_format=array_record")
    whole = open_builder(builder, splits=splits, fix=f"remove {builder.data_dir} and prepare it again")
    if splits is not None:
        return whole
    labelled = [rows for rows in whole.parts.values() if whole.labels.per_image(rows).any()]  # parts with labels
    rows = np.concatenate([np.zeros(0, np.int64), *labelled])
    return Subset(whole, rows, labels=whole.labels.take(rows), classes=whole.classes, parts={})


def check_prepared(folder: Path) -> None:
    """Check a prepared data set's descriptions before TFDS opens them, because it imports the classes that they name."""
    for path in [*folder.rglob("features.json"), *folder.rglob("dataset_info.json")]:
        try:
            entries = list(_entries(json.loads(path.read_text())))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(
                f"{path} is not the description of a TFDS data set; fix: remove {path.parent} and prepare it again"
            ) from error
        for key, value in entries:
            foreign = key in ("pythonClassName", "type") and not str(value).startswith("tensorflow_datasets.")
            if (foreign and "." in str(value)) or (key == "filepathTemplate" and "/" in str(value)):
                raise InputError(
                    f"{path} names {str(value)[:80]!r}, which is not TFDS's own, and is not opened; fix: prepare the data set "
                    "with TFDS's own features"
                )


def _entries(tree: Any) -> Iterator[tuple[str, Any]]:
    """Yield keys and plain values of JSON, at any depth."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if isinstance(value, dict | list):
            yield from _entries(value)
        else:
            yield str(key), value


@contextlib.contextmanager
def prepared_only() -> Iterator[None]:
    """Open only data sets that are prepared already: inside, nothing is downloaded or prepared."""
    token = _may_prepare.set(False)
    try:
        yield
    finally:
        _may_prepare.reset(token)


def prepare(builder: Any, *, config: Any, fix: str) -> None:
    """Prepare a data set as array_record, unless it is prepared already. An interrupted preparation starts again.

    `config` is a `tfds.download.DownloadConfig` or None; `fix` says what to do if preparing fails.
    """
    root = Path(builder.data_dir)
    if (root / "dataset_info.json").exists():
        return
    if not _may_prepare.get():
        raise InputError(f"{builder.name} isn't prepared in {builder.data_dir}; fix: prepare it with adsq data")
    if root.exists():
        raise InputError(
            f"{root} has no dataset_info.json, so it isn't prepared; fix: remove it, and run the same command again"
        )
    try:
        builder.download_and_prepare(download_config=config)
    except InputError:
        raise
    except Exception as error:  # TFDS raises anything its network, disk and import layers do
        raise InputError(
            f"{builder.name} isn't prepared in {builder.data_dir}, and TFDS can't prepare it here ({_reason(error)}); fix: "
            f"prepare it once where there is a network and room: {fix}"
        ) from error


def open_builder(builder: Any, *, splits: Sequence[str] | None, fix: str) -> RecordSource:
    """Open a data set that was prepared as array_record: some of its splits; None: all.

    `fix` says what to do about a record without an image.

    Returns:
      All images, one split after another; `parts` has the rows of each.
    """
    features = builder.info.features
    if "image" not in features or not isinstance(features["image"], tfds.features.Image):
        raise InputError(f"TFDS {builder.name} has no feature `image`; fix: give a data set of images")
    chosen = list(splits or builder.info.splits)
    records = [builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()}) for split in chosen]
    classes = _label_feature(builder)[1]
    try:
        arrays = _labels(builder, records, chosen)
    except RuntimeError as error:  # array_record's, if files are missing or damaged
        raise InputError(f"{builder.data_dir} can't be read ({_reason(error)}); fix: {fix}") from error
    starts = np.cumsum([0, *(len(part) for part in records)])
    names = arrays["names"].tobytes()
    return RecordSource(
        records,
        Labels.from_packed(arrays["labels"], classes=len(classes)),
        classes=classes,
        names=Names(names.split(b"\n")) if names else None,
        parts={split: np.arange(starts[k], starts[k + 1]) for k, split in enumerate(chosen)},
        missing=arrays["missing"],
        fix=fix,
    )


def _label_feature(builder: Any) -> tuple[tuple[str, ...], list[str]]:
    """Return the path of the classes in an example, and their names."""
    features = builder.info.features
    for path in (("label",), ("labels",), ("objects", "label")):
        feature = features
        with contextlib.suppress(KeyError, TypeError, AttributeError):
            for key in path:
                feature = getattr(feature, "feature", feature)[key]
            feature = getattr(feature, "feature", feature)
            if isinstance(feature, tfds.features.ClassLabel):
                return path, feature.names or [str(k) for k in range(feature.num_classes)]
    raise InputError(
        f"TFDS {builder.name} has no class labels in `label`, `labels` or `objects`; fix: give a classification set"
    )


def _labels(builder: Any, records: list[Any], splits: list[str]) -> dict[str, np.ndarray]:
    """Return labels, names and absence of all images, from the file beside the records, which is written if necessary."""
    root = Path(builder.data_dir)
    info = (root / "dataset_info.json").read_bytes()
    files = sorted((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in root.glob("*.array_record*"))
    key = hashlib.sha256(info + repr(files).encode() + repr((splits, [len(part) for part in records])).encode()).digest()
    path = root / _LABELS
    # a file that is missing, damaged, or of other records is replaced
    with contextlib.suppress(Exception), np.load(io.BytesIO(path.read_bytes() if path.is_file() else b"")) as file:
        arrays = {name: file[name] for name in ("labels", "names", "missing")}
        shapes = (*(len(arrays[name]) for name in ("labels", "missing")), *(arrays[name].dtype for name in arrays))
        total = sum(len(part) for part in records)
        if file["key"].tobytes() == key and shapes == (total, total, np.uint8, np.uint8, np.bool_):
            return arrays
    arrays = _read_labels(builder, records)
    buffer = io.BytesIO()
    np.savez(buffer, key=np.frombuffer(key, np.uint8), **dict[str, Any](arrays))
    with contextlib.suppress(OSError):  # in another user's folder they are read each time
        handle, name = tempfile.mkstemp(dir=os.path.realpath(path.parent), prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(buffer.getvalue())
            os.replace(name, path)
        except OSError:
            os.unlink(name)
    return arrays


def _read_labels(builder: Any, records: list[Any]) -> dict[str, np.ndarray]:
    """Read labels, names and absence of all images from the records."""
    label, classes = _label_feature(builder)
    name_key = next((key for key in (_IDS, *_NAMES) if key in builder.info.features), None)
    is_number = name_key is not None and np.issubdtype(builder.info.features[name_key].np_dtype, np.integer)
    total = sum(len(part) for part in records)
    packed = np.zeros((total, -(-len(classes) // 8)), np.uint8)
    missing, names = np.zeros(total, bool), []
    examples = (part[index] for part in records for index in range(len(part)))
    with progress_bar(total, unit="images", description=f"reading the labels of {builder.name}, once") as bar:
        for row, example in enumerate(examples):
            value: Any = example
            for step in label:
                value = value[step]
            ids = np.atleast_1d(np.asarray(value, np.int64))
            if len(ids) and ids.max() >= len(classes):
                raise InputError(
                    f"record {row} of {builder.data_dir} has class {ids.max()} of {len(classes)}; fix: prepare it again"
                )
            hot = np.zeros(len(classes), np.uint8)
            hot[ids[ids >= 0]] = 1
            packed[row], missing[row] = np.packbits(hot), not example["image"]
            if name_key:
                name = example[name_key]
                names.append(b"%012d" % int(name) if is_number else bytes(name).replace(b"\n", b" "))
            bar.update()
    return {"labels": packed, "missing": missing, "names": np.frombuffer(b"\n".join(names), np.uint8)}


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def imagenet100(directory: str) -> Subset:
    """Open the hundred synsets of `imagenet2012`, in the order of `imagenet100.read`, so that splits are the same."""
    whole = read("imagenet2012", directory, splits=("train", "validation"))
    synsets = synsets_of_imagenet100()
    labels = whole.labels.select_classes(np.array([whole.classes.index(synset) for synset in synsets]))
    rows = np.flatnonzero(labels.per_image())
    ids, folders = labels.ids(rows), np.where(rows < len(whole.parts["train"]), "train", "val")
    assert ids is not None
    names = [
        f"{folder}/{synsets[k]}/{whole.name(int(row))}".encode() for folder, k, row in zip(folders, ids, rows, strict=True)
    ]
    order = np.array(sorted(range(len(rows)), key=names.__getitem__))
    in_train = folders[order] == "train"
    return Subset(
        whole,
        rows[order],
        labels=labels.take(rows[order]),
        classes=synsets,
        names=Names(names[i] for i in order),
        parts={"train": np.flatnonzero(in_train), "validation": np.flatnonzero(~in_train)},
    )


def coco(directory: str) -> Subset:
    """Open the images of `coco/2014` with a label, in the order of `coco.read`, so that splits are the same."""
    whole = read("coco/2014", directory, splits=("train", "validation"))
    names = [whole.name(row) for row in range(len(whole))]
    rows = np.array([row for row in sorted(range(len(whole)), key=names.__getitem__) if whole.labels[row].any()])
    return Subset(whole, rows, labels=whole.labels.take(rows), classes=whole.classes, parts={})


BENCHMARKS: dict[str, Callable[[str], Source]] = {  # the data sets with a protocol
    "cifar10": lambda directory: read("cifar10", directory, splits=("train", "test")),
    "coco": coco,
    "fashion_mnist": lambda directory: read("fashion_mnist", directory, splits=("train", "test")),
    "imagenet100": imagenet100,
}
