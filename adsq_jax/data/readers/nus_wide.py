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
from adsq_jax.data.text import quote
from adsq_jax.errors import InputError

PAGE = "https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/NUS-WIDE.html"
CONCEPTS = 81
_ROOTS = ("Flickr", "images")
_FIX = f"fix: get it from {PAGE} and unpack it there"


class NusWide(tfds.core.GeneratorBasedBuilder):
    """All images of the list, in its order; those whose file is missing have no bytes."""

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
        for row, (name, path) in enumerate(zip(names, _find_images(directory, names), strict=True)):
            content = b"" if path is None else path.read_bytes()
            yield row, {"image": io.BytesIO(content), "labels": np.flatnonzero(labels[row]).tolist(), "name": name}


def read(directory: Path, *, most_frequent: int | None) -> Source:
    """Open NUS-WIDE, after preparing it once in `directory/prepared`, which copies the images.

    Args:
      directory: the folder of the original distribution.
      most_frequent: how many of the 81 concepts to use, those with the most images; None for all.

    Returns:
      The images with at least one of these concepts, in the order of the image list.
    """
    concepts = read_concepts(directory)
    prepared = directory / "prepared"
    tfds_sets.check_prepared(prepared)
    try:
        builder = NusWide(data_dir=prepared, file_format="array_record")
    except Exception as error:  # TFDS raises anything for a damaged description
        raise InputError(f"{prepared} is damaged; fix: remove it, and run the same command again") from error
    config = tfds.download.DownloadConfig(manual_dir=directory)
    tfds_sets.prepare(builder, config=config, fix=f"make room, and run the same command again; see {PAGE}")
    missing = f"put it below {directory / _ROOTS[0]} and remove {prepared}, so that it is prepared again"
    whole = tfds_sets.open_builder(builder, splits=("train",), fix=missing)
    chosen = np.arange(CONCEPTS)
    if most_frequent is not None:
        chosen = np.sort(np.argsort(-whole.labels.per_class(), kind="stable")[:most_frequent])
    labels = whole.labels.select_classes(chosen)
    rows = np.flatnonzero(labels.per_image())
    return Subset(whole, rows, labels=labels.take(rows), classes=[concepts[k] for k in chosen], parts={})


def read_concepts(directory: Path) -> list[str]:
    """Read the names of the 81 concepts, in the order of their list."""
    path = directory / "ConceptsList" / "Concepts81.txt"
    concepts = [name.decode(errors="replace") for name in _lines(path)]
    if len(set(concepts)) != CONCEPTS or not all(re.fullmatch("[A-Za-z0-9_-]+", name) for name in concepts):
        raise InputError(f"{path} has {len(concepts)} concepts, expected 81; {_FIX}")
    return concepts


def read_labels(directory: Path, *, concepts: list[str]) -> tuple[list[str], np.ndarray]:
    """Read names and labels of all images of the list.

    A value that is neither 0 nor 1 is taken from `Groundtruth/TrainTestLabels`, which has the same labels divided differently.

    Returns:
      Names `CONCEPT/FILE.jpg`, and uint8[n, 81].
    """
    path = directory / "ImageList" / "Imagelist.txt"
    lines = _lines(path)
    if not lines:
        raise InputError(f"{path} is empty; {_FIX}")
    names = lists.clean_paths(lines, path=path)
    odd = next((line for line, name in enumerate(names, start=1) if not name.isascii()), None)
    if odd is not None:
        raise InputError(f"{path}, line {odd}: {names[odd - 1]!r} isn't plain text; {_FIX}")
    labels = np.zeros((len(names), len(concepts)), np.uint8)
    for k, concept in enumerate(concepts):
        path = directory / "Groundtruth" / "AllLabels" / f"Labels_{concept}.txt"
        values = np.array(_lines(path))
        if len(values) != len(names):
            raise InputError(f"{path} has {len(values):,} lines, the image list {len(names):,}; {_FIX}")
        labels[:, k] = values == b"1"
        for row in np.flatnonzero((values != b"0") & (values != b"1")):
            labels[row, k] = _repair(directory, concept, names[row], path=path, line=int(row) + 1, value=values[row])
    return [name.decode() for name in names], labels


def _repair(directory: Path, concept: str, name: bytes, *, path: Path, line: int, value: bytes) -> int:
    """Return an image's label from the other copy of the ground truth."""
    for part in ("Train", "Test"):
        listed = directory / "ImageList" / f"{part}Imagelist.txt"
        other = directory / "Groundtruth" / "TrainTestLabels" / f"Labels_{concept}_{part}.txt"
        if listed.is_file() and other.is_file():
            names, values = lists.clean_paths(_lines(listed), path=listed), _lines(other)
            if len(names) == len(values) and name in names and values[names.index(name)] in (b"0", b"1"):
                return int(values[names.index(name)])
    raise InputError(
        f"{path}, line {line}: {quote(value)} is neither 0 nor 1, and {directory / 'Groundtruth' / 'TrainTestLabels'} doesn't "
        f"have the right value; {_FIX}"
    )


def _lines(path: Path) -> list[bytes]:
    """Return a file's lines that aren't empty, without spaces around them."""
    if not path.is_file():
        raise InputError(f"{path} is missing; {_FIX}")
    return [line.strip() for line in lists.read_text(path).split(b"\n") if line.strip()]


def _find_images(directory: Path, names: list[str]) -> Iterator[Path | None]:
    """Yield the path of each image, by concept or all in one folder; None if it is missing."""
    roots = [directory / name for name in _ROOTS if (directory / name).is_dir()]
    if not roots:
        raise InputError(f"{directory} has neither {_ROOTS[0]}/ nor {_ROOTS[1]}/ with the images; {_FIX}")
    for name in names:
        candidates = (root / path for root in roots for path in (name, name.rpartition("/")[2]))
        yield next((path for path in candidates if path.is_file()), None)
