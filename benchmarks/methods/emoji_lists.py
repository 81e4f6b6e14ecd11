"""Make list files of emoji for configs/emoji.py: real pictures with several labels, small and free.

    python -m benchmarks.methods.emoji_lists --out=data/emoji       (npm fetches two packages, 136 MB; 45 MB stay)

Takes the npm packages emoji-datasource-google and emoji-datasource-twitter, version 16.0.0: 3,786 pictures of 64x64 in each, of
1,911 emoji; the others are their skin tones. A picture's labels are its emoji's subcategory and the words of its name that at
least eight emoji have. All pictures of an emoji, of either vendor and of any skin tone, are in the same part: a tenth of the
emoji are queries, the rest is the database, four tenths are for training. OUT/validation, OUT/validation_2 and OUT/validation_3
have lists for tuning, drawn from these four tenths in the same way, each with queries of its own: one has few.

Licences: the packages' code and emoji.json are MIT (Cal Henderson); Google's pictures (Noto) are Apache-2.0, Twitter's
(Twemoji) CC BY 4.0. They are downloaded, and not part of this repository.
"""

import argparse
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

VENDORS, VERSION = ("google", "twitter"), "16.0.0"
FEWEST = 8  # emoji of a class
NO_WORDS = {"with", "and", "in", "of", "the", "for", "on", "at", "no", "symbol", "sign", "unified", "st", "s", "a", "to"}


def fetch(out: Path) -> list[dict]:
    """Download the pictures to OUT/VENDOR/*.png; return the entries of emoji.json."""
    with tempfile.TemporaryDirectory() as folder:
        packages = [f"emoji-datasource-{vendor}@{VERSION}" for vendor in VENDORS]
        subprocess.run(["npm", "pack", "--silent", *packages], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        for vendor in VENDORS:
            with tarfile.open(Path(folder) / f"emoji-datasource-{vendor}-{VERSION}.tgz") as archive:
                unpack(archive, vendor, out)
    return json.loads((out / "emoji.json").read_text())


def unpack(archive: tarfile.TarFile, vendor: str, out: Path) -> None:
    """Write a package's small pictures, its emoji.json and its licence, and nothing else."""
    (out / vendor).mkdir(parents=True, exist_ok=True)
    for member in archive:
        picture = re.fullmatch(rf"package/img/{vendor}/64/([0-9a-f-]+\.png)", member.name)
        known = {"package/emoji.json": out / "emoji.json", "package/LICENSE": out / vendor / "LICENSE"}
        path = out / vendor / picture[1] if picture else known.get(member.name)
        if path is not None and member.isfile():
            path.write_bytes(archive.extractfile(member).read())


def label_words(emoji: dict) -> set[str]:
    """Return the possible labels of an emoji: its subcategory, and the words of its name."""
    words = set(re.findall(r"[a-z]+", emoji["name"].lower())) - NO_WORDS
    return {f"({emoji['subcategory']})", *words}


PARTS = {  # where each list begins and ends, from 0 to 1, in a random order of the emoji
    "query": (0.0, 0.1),
    "train": (0.1, 0.5),
    "database": (0.1, 1.0),
}
FOLDS = {"validation": 0.0, "validation_2": 0.08, "validation_3": 0.16}  # how far the training emoji are shifted, of 0.4
FOLD_PARTS = {
    "query": (0.1, 0.14),  # a fifth of the training emoji is held out, half of it as queries
    "train": (0.18, 0.5),
    "database": (0.14, 0.212),  # four ninths of it are for training, as in the whole database
}


def make_lists(emojis: list[dict], *, seed: int = 0) -> tuple[list[str], dict[str, list[str]]]:
    """Return the classes, and the lines of each list of PARTS and, by FOLD/LIST, of FOLD_PARTS."""
    counts = Counter(word for emoji in emojis for word in label_words(emoji))
    classes = sorted(word for word, count in counts.items() if count >= FEWEST)
    labelled = [emoji for emoji in emojis if label_words(emoji) & set(classes)]
    order = np.random.default_rng(seed).permutation(len(labelled))
    position = np.empty(len(order))
    position[order] = np.arange(len(order)) / len(order)  # of each emoji, from 0 to 1
    lists: dict[str, list[str]] = {part: [] for part in [*PARTS, *(f"{fold}/{part}" for fold in FOLDS for part in FOLD_PARTS)]}
    for emoji, at in zip(labelled, position, strict=True):
        labels = " ".join(str(int(word in label_words(emoji))) for word in classes)
        pictures = [emoji, *emoji.get("skin_variations", {}).values()]
        for vendor in VENDORS:
            lines = [f"{vendor}/{p['image']} {labels}" for p in pictures if p[f"has_img_{vendor}"]]
            for part, (first, last) in PARTS.items():
                lists[part] += lines if first <= at < last else []
            first, last = PARTS["train"]
            for fold, shift in FOLDS.items() if first <= at < last else ():
                shifted = first + round(at - first - shift, 9) % (last - first)  # rounded: an exact 0 must not become -1e-17
                for part, (begin, end) in FOLD_PARTS.items():
                    lists[f"{fold}/{part}"] += lines if begin <= shifted < end else []
    return classes, lists


def main() -> None:
    """Download, and write query.txt, train.txt, database.txt and classes.txt, of the whole and of each fold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    out = parser.parse_args().out
    if out.exists():
        sys.exit(f"error: {out} exists already: give a new folder")
    try:
        emojis = fetch(out)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: npm couldn't download the packages ({error}): install npm, and check that it reaches a registry")
    classes, lists = make_lists(emojis)
    for folder in (out, *(out / fold for fold in FOLDS)):
        folder.mkdir(exist_ok=True)
        (folder / "classes.txt").write_text("\n".join(classes) + "\n")
    for part, lines in lists.items():
        (out / f"{part}.txt").write_text("\n".join(lines) + "\n")
    print(f"{len(classes)} classes; " + ", ".join(f"{part} {len(lines):,}" for part, lines in lists.items()))


if __name__ == "__main__":
    main()
