"""NUS-WIDE as it was distributed: label and list files, and a folder of images; prepared once as a TFDS data set.

The folder holds `ImageList/Imagelist.txt`, `ConceptsList/Concepts81.txt`, `Groundtruth/AllLabels/Labels_CONCEPT.txt`, and the
images below `Flickr/` or `images/`, by concept or all in one folder. Source: Chua et al., NUS-WIDE, CIVR 2009.
"""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from adsq_jax.data.readers import lists, tfds_sets
from adsq_jax.data.sources import Source, Subset
from adsq_jax.errors import InputError

PAGE = "https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/NUS-WIDE.html"
CONCEPTS = 81
_ROOTS = ("Flickr", "images")


class NusWide(tfds.core.GeneratorBasedBuilder):
    """All images of the list, in its order, also those whose file isn't there: they have no bytes."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"From {PAGE} get the ground truth (Groundtruth/), the concept list (ConceptsList/) and the image list (ImageList/), "
        "and the images, by its list of URLs or on request. Unpack them all to one folder, the images to Flickr/CONCEPT/ or "
        "images/."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "labels": tfds.features.Sequence(tfds.features.ClassLabel(num_classes=CONCEPTS)),
            "name": tfds.features.Text(),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), homepage=PAGE, disable_shuffling=True, description=__doc__
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {"train": self._generate_examples(Path(dl_manager.manual_dir))}

    def _generate_examples(self, directory: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        names, labels = read_labels(directory, concepts=read_concepts(directory))
        for row, (name, path) in enumerate(zip(names, _paths(directory, names), strict=True)):
            content = b"" if path is None else path.read_bytes()
            yield row, {"image": io.BytesIO(content), "labels": np.flatnonzero(labels[row]).tolist(), "name": name}


def read(directory: Path, *, most_frequent: int | None) -> Source:
    """Opens NUS-WIDE; prepares it first, in `directory/prepared`, where it isn't: that copies the images.

    Args:
      directory: of the original distribution.
      most_frequent: how many of the 81 concepts, those that most images show; None for all.

    Returns:
      The images that show at least one of these concepts, in the order of the image list.

    Raises:
      InputError: a file is missing, or damaged in a way that can't be repaired from another of its files.
    """
    concepts = read_concepts(directory)
    prepared = directory / "prepared"
    tfds_sets.check_prepared(prepared)
    try:
        builder = NusWide(data_dir=prepared, file_format="array_record")
    except Exception as error:  # TFDS raises whatever its reader of a damaged description does
        raise InputError(f"{prepared} is damaged: remove it, and give the same command again") from error
    read_images = tfds.download.DownloadConfig(manual_dir=directory)
    tfds_sets.prepare(builder, config=read_images, advice=f"make room, and give the same command again; see {PAGE}")
    again = f"put it below {directory / _ROOTS[0]} and remove {prepared}, so that it is prepared again"
    whole = tfds_sets.of_builder(builder, splits=("train",), remedy=again)
    chosen = np.arange(CONCEPTS)
    if most_frequent is not None:
        chosen = np.sort(np.argsort(-whole.labels.per_class(), kind="stable")[:most_frequent])
    labels = whole.labels.select_classes(chosen)
    rows = np.flatnonzero(labels.per_image())
    return Subset(whole, rows, labels=labels.take(rows), classes=[concepts[k] for k in chosen], parts={})


def read_concepts(directory: Path) -> list[str]:
    """The names of the 81 concepts, in the order of their list.

    Raises:
      InputError: the list is missing, or has another number of them, or a name that is no file's.
    """
    concepts = [name.decode(errors="replace") for name in _lines(directory / "ConceptsList" / "Concepts81.txt")]
    if len(set(concepts)) != CONCEPTS or not all(re.fullmatch("[A-Za-z0-9_-]+", name) for name in concepts):
        raise InputError(
            f"{directory / 'ConceptsList' / 'Concepts81.txt'} has {len(concepts)} concepts, expected 81: {_advice()}"
        )
    return concepts


def read_labels(directory: Path, *, concepts: list[str]) -> tuple[list[str], np.ndarray]:
    """Names and labels of all images of the list.

    A value that is neither 0 nor 1 is taken from `Groundtruth/TrainTestLabels`, which hold the same labels divided otherwise.

    Args:
      directory: of the original distribution.
      concepts: from `read_concepts`.

    Returns:
      Names `CONCEPT/FILE.jpg`, and uint8[n, 81].

    Raises:
      InputError: a file is missing, has another number of lines than the image list, or a value that can't be repaired.
    """
    path = directory / "ImageList" / "Imagelist.txt"
    lines = _lines(path)
    if not lines:
        raise InputError(f"{path} is empty: {_advice()}")
    raw = lists.inside(lines, path=path)
    odd = next((line for line, name in enumerate(raw, start=1) if not name.isascii()), None)
    if odd is not None:
        raise InputError(f"{path}, line {odd}: {raw[odd - 1]!r} isn't plain text: {_advice()}")
    labels = np.zeros((len(raw), len(concepts)), np.uint8)
    for k, concept in enumerate(concepts):
        path = directory / "Groundtruth" / "AllLabels" / f"Labels_{concept}.txt"
        values = np.array(_lines(path))
        if len(values) != len(raw):
            raise InputError(f"{path} has {len(values):,} lines, the image list {len(raw):,}: {_advice()}")
        labels[:, k] = values == b"1"
        for row in np.flatnonzero((values != b"0") & (values != b"1")):
            labels[row, k] = _repaired(directory, concept, raw[row], path=path, line=int(row) + 1, value=values[row])
    return [name.decode() for name in raw], labels


def _repaired(directory: Path, concept: str, name: bytes, *, path: Path, line: int, value: bytes) -> int:
    """The label of one image by the other copy of the ground truth."""
    for part in ("Train", "Test"):
        listed = directory / "ImageList" / f"{part}Imagelist.txt"
        other = directory / "Groundtruth" / "TrainTestLabels" / f"Labels_{concept}_{part}.txt"
        if listed.is_file() and other.is_file():
            names, values = lists.inside(_lines(listed), path=listed), _lines(other)
            if len(names) == len(values) and name in names and values[names.index(name)] in (b"0", b"1"):
                return int(values[names.index(name)])
    raise InputError(
        f"{path}, line {line}: {value.decode(errors='backslashreplace')!r} is neither 0 nor 1, and "
        f"{directory / 'Groundtruth' / 'TrainTestLabels'} doesn't tell the right one: {_advice()}"
    )


def _lines(path: Path) -> list[bytes]:
    """A file's lines without spaces around them."""
    if not path.is_file():
        raise InputError(f"{path} is missing: {_advice()}")
    return [line.strip() for line in lists.text_of(path).split(b"\n") if line.strip()]


def _paths(directory: Path, names: list[str]) -> Iterator[Path | None]:
    """Where each image is, by concept or all in one folder; None where it isn't."""
    roots = [directory / name for name in _ROOTS if (directory / name).is_dir()]
    if not roots:
        raise InputError(f"{directory} has neither {_ROOTS[0]}/ nor {_ROOTS[1]}/ with the images: {_advice()}")
    for name in names:
        candidates = (root / place for root in roots for place in (name, name.rpartition("/")[2]))
        yield next((path for path in candidates if path.is_file()), None)


def _advice() -> str:
    return f"get it from {PAGE} and unpack it there"
