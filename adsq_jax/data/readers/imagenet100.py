"""ImageNet-100: the images of ILSVRC2012, one folder per synset, of the hundred synsets that HashNet drew."""

from pathlib import Path

import numpy as np

from adsq_jax import storage
from adsq_jax.data.labels import Labels
from adsq_jax.data.readers import folder
from adsq_jax.data.sources import FileSource, Names
from adsq_jax.errors import InputError

PARTS = ("train", "val")
_SYNSETS = Path(__file__).with_name("imagenet100_synsets.txt")
_GET = (
    "get ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from https://image-net.org/download (an account is needed) and "
    "unpack them to {directory}/train/SYNSET/ and {directory}/val/SYNSET/"
)


def synsets() -> list[str]:
    """Return the hundred synsets of HashNet's list, sorted."""
    return _SYNSETS.read_text(encoding="ascii").split()


def read(directory: Path) -> FileSource:
    """Read the folders of the hundred synsets from train/SYNSET/ and val/SYNSET/, and ignore other synsets.

    Returns:
      The training part, then the validation part, each sorted by synset and by file name; `parts` has the rows of `train` and
      `validation`.

    Source: HashNet, Cao et al., ICCV 2017, its list of synsets.
    """
    classes = synsets()
    for part in PARTS:
        _check_folders(directory, part, classes)
    folders = [f"{part}/{synset}".encode() for part in PARTS for synset in classes]
    pictures = folder.find_pictures(directory, folders, fix=_GET.format(directory=directory))
    labels = Labels.from_ids(pictures.folders % len(classes), classes=len(classes))
    in_train = pictures.folders < len(classes)
    parts = {"train": np.flatnonzero(in_train), "validation": np.flatnonzero(~in_train)}
    return FileSource(directory, labels, classes=classes, names=Names(pictures.names), parts=parts, notes=pictures.notes)


def _check_folders(directory: Path, part: str, classes: list[str]) -> None:
    """Check that a part has a folder for each synset."""
    missing = [synset for synset in classes if not storage.is_folder(directory / part / synset)]
    if not missing:
        return
    path = directory / part
    if any(path.glob("ILSVRC2012_val_*")):
        raise InputError(
            f"{path} holds the validation images in one folder: expected {path}/SYNSET/; fix: sort them with the script "
            "valprep.sh (https://github.com/soumith/imagenetloader.torch), run in that folder"
        )
    problem = f"{path / missing[0]} is missing" + (f", and {len(missing) - 1} more of 100 synsets" if missing[1:] else "")
    archive = path / f"{missing[0]}.tar"
    if archive.exists():
        raise InputError(f"{problem}; fix: unpack each SYNSET.tar in {path} to its own folder, {archive.name} among them")
    raise InputError(f"{problem}; fix: {_GET.format(directory=directory)}")
