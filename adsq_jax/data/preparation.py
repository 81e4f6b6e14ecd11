"""Check a data set and every image of its split, and write the manifest of the split or compare it with one."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from adsq_jax import storage
from adsq_jax.data import contact_sheet, datasets, inspection, manifest
from adsq_jax.data.datasets import Dataset, Settings
from adsq_jax.data.text import printable
from adsq_jax.errors import InputError
from adsq_jax.run import output, workdir
from adsq_jax.run.progress import progress_bar

_MANIFEST, _SHEET = "manifest.json", "contact_sheet.png"
_BAD_SHOWN = 10


def prepare(settings: Settings, *, out: Path | None, verify: Path | None, read_images: bool, threads: int) -> dict[str, Any]:
    """Check a data set, print a summary, and write its manifest and contact sheet or compare it with a manifest.

    Args:
      settings: the data set and its split.
      out: the folder to write to; None with `verify`.
      verify: the manifest to compare with; None with `out`.
      read_images: whether to decode every image; without it, only missing files are detected.
      threads: the number of threads that read.

    Returns:
      The content of the manifest.

    Raises:
      InputError: the data are incomplete or differ from the manifest, or `out` holds another split or can't be written.
    """
    known = manifest.read(verify) if out is None and verify is not None else None
    if out is not None:
        known = _check_out(out, settings)  # before the work
    dataset = datasets.draw(settings)
    for line in datasets.notes(dataset):
        print(line, file=sys.stderr)
    images = None
    if read_images:
        images = _read_images(dataset, settings, threads=threads)
    elif settings.on_bad_image == "skip":
        raise InputError("--noread_images doesn't find the images to skip; fix: drop it, or config.data.on_bad_image='skip'")
    else:
        datasets.check_present(dataset)
    if images is not None and settings.on_bad_image == "skip":
        dataset = datasets.skip_images(dataset, np.array(sorted(images.bad), np.int64), most_bad=settings.most_bad)
    content = inspection.manifest_of(dataset, settings, images)
    print(inspection.table(content))
    bad = content["bad_images"]
    for entry in bad[:_BAD_SHOWN]:
        print(f"bad image: {printable(entry['why'])}")
    if len(bad) > _BAD_SHOWN:
        print(f"and {len(bad) - _BAD_SHOWN:,} more")
    if out is None:
        _compare(known or {}, content, path=verify)
    elif bad and settings.on_bad_image == "error":
        raise InputError(
            f"{len(bad):,} of {content['n_images']:,} images can't be used, as listed above, and no manifest was written; fix: "
            "restore them, or leave them out with --config.data.on_bad_image=skip, whose manifest names them all"
        )
    else:
        _write(out, content, dataset, known=known)
    return content


def _check_out(out: Path, settings: Settings) -> dict[str, Any] | None:
    """Return the manifest that is in a folder already, if any, after checking that the folder can be written."""
    with output.writing(out):
        names = os.listdir(out) if out.is_dir() else []
    output.check_folder(out, replaceable=names)
    pictures = storage.path(settings.directory)
    if settings.name == "folder" and pictures.resolve() in (out.resolve(), *out.resolve().parents):
        raise InputError(f"--out={out} is below the pictures, and would become a class of them; fix: give another folder")
    if _MANIFEST in names:
        return manifest.read(out / _MANIFEST)
    if _SHEET in names:
        raise InputError(f"{out / _SHEET} is there without a manifest; fix: give another --out; nothing was overwritten")
    return None


def _read_images(dataset: Dataset, settings: Settings, *, threads: int) -> inspection.Images:
    rows = datasets.used_rows(dataset.split)
    if len(dataset.source.missing(rows)) == len(rows):  # a wrong folder: no list of a million lines
        datasets.check_present(dataset)
    with progress_bar(len(rows), unit="images", description="reading images") as bar:
        return inspection.read_images(
            dataset.source,
            rows,
            shorter_side=settings.resize,
            bit_depth=settings.bit_depth,
            threads=threads,
            on_progress=bar.update,
        )


def _compare(known: dict[str, Any], content: dict[str, Any], *, path: Path | None) -> None:
    differences = manifest.differences(known, content)
    if differences:
        raise InputError(
            f"the split differs from {path}: {'; '.join(differences)}; fix: use the same data, or train on another split"
        )
    compared = known.get("images_sha256") and content["images_sha256"]
    print(f"the same split as {path}{' and the same images' if compared else '; images were not compared'}")


def _write(out: Path, content: dict[str, Any], dataset: Dataset, *, known: dict[str, Any] | None) -> None:
    """Write the contact sheet and then the manifest, so that a folder with a manifest is complete."""
    path = out / _MANIFEST
    if known is not None:
        differences = manifest.differences(known, content)
        if differences:
            raise InputError(
                f"{path} is of another split ({'; '.join(differences)}); fix: give another --out; nothing was overwritten"
            )
        if known.get("images_sha256") and content["images_sha256"] is None:
            raise InputError(
                f"{path} has a hash of the images, which were not read now; fix: give another --out; nothing was overwritten"
            )
    sheet = contact_sheet.draw(dataset)
    with output.writing(out):
        out.mkdir(parents=True, exist_ok=True)
        workdir.write_bytes(out / _SHEET, sheet)
        workdir.write_json(path, content)
    print(f"written to {path} and {out / _SHEET}")
