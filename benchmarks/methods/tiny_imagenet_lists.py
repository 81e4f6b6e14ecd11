"""Write list files of 100 classes of Tiny-ImageNet for configs/imagenet100_frozen.py.

    curl -LO http://cs231n.stanford.edu/tiny-imagenet-200.zip && unzip -q tiny-imagenet-200.zip -d data
    python -m benchmarks.methods.tiny_imagenet_lists --directory=data/tiny-imagenet-200

Tiny-ImageNet has 200 of ImageNet's classes at 64x64 pixels. The first 100 synsets, sorted, are the classes. Queries are their
5,000 images of the validation part, the database their 50,000 of the training part; 130 of these a class, drawn at random, are
the training set.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from adsq_jax import storage

CLASSES = 100
TRAIN = 130  # images of a class, as in HashNet's ImageNet protocol


def make_lists(folder: Path, *, seed: int) -> dict[str, list[str]]:
    """Make the lines of each list, and the names of the classes.

    Args:
      folder: tiny-imagenet-200, unpacked.
      seed: the seed of the draw of training images.

    Returns:
      The lines of `query`, `train`, `database` and `classes`.

    Raises:
      OSError: a file or folder is missing.
      ValueError: there are fewer synsets, or fewer training images of a class.
    """
    synsets = sorted((folder / "wnids.txt").read_text().split())[:CLASSES]
    if len(synsets) < CLASSES:
        raise ValueError(f"expected {CLASSES} synsets or more in {folder / 'wnids.txt'}, got {len(synsets)}")
    labels = {synset: " ".join(str(int(k == row)) for k in range(CLASSES)) for row, synset in enumerate(synsets)}
    words = dict(line.split("\t") for line in (folder / "words.txt").read_text().splitlines())
    annotated = [line.split("\t")[:2] for line in (folder / "val" / "val_annotations.txt").read_text().splitlines()]
    lists: dict[str, list[str]] = {
        "classes": [words[synset].split(",")[0] for synset in synsets],
        "query": [f"val/images/{name} {labels[synset]}" for name, synset in annotated if synset in labels],
        "train": [],
        "database": [],
    }
    random = np.random.default_rng(seed)
    for synset in synsets:
        names = sorted(path.name for path in (folder / "train" / synset / "images").iterdir())
        lines = [f"train/{synset}/images/{name} {labels[synset]}" for name in names]
        lists["database"] += lines
        lists["train"] += [lines[k] for k in np.sort(random.choice(len(lines), TRAIN, replace=False))]
    return lists


def main() -> None:
    """Write query.txt, train.txt, database.txt and classes.txt beside the images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--directory", type=storage.path, required=True, help="tiny-imagenet-200, unpacked; the lists go there too"
    )
    parser.add_argument("--seed", type=int, default=0, help="for the draw of training images")
    given = parser.parse_args()
    try:
        lists = make_lists(given.directory, seed=given.seed)
        for name, lines in lists.items():
            (given.directory / f"{name}.txt").write_text("\n".join(lines) + "\n")
    except (OSError, LookupError, ValueError) as error:
        sys.exit(f"error: {given.directory} isn't tiny-imagenet-200 ({error}): download and unpack it again")
    print(", ".join(f"{name} {len(lines):,}" for name, lines in lists.items()))


if __name__ == "__main__":
    main()
