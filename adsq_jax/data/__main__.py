"""Prepares and checks a data set by its protocol: `python -m adsq_jax.data --config=configs/digits.py --out=DIR`."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags
from tqdm import tqdm

from adsq_jax import command_line, config_check, storage
from adsq_jax import config as config_module
from adsq_jax.data import contact_sheet, datasets, inspection, manifest
from adsq_jax.data.datasets import Dataset, Settings
from adsq_jax.devices import host
from adsq_jax.errors import InputError
from adsq_jax.run import workdir

_CONFIG = config_flags.DEFINE_config_file("config", help_string="A file of configs/, as for adsq_jax.main.")
_OUT = flags.DEFINE_string("out", None, "A folder for manifest.json and contact_sheet.png; another split there stays.")
_VERIFY = flags.DEFINE_string("verify", None, "A manifest.json: says whether the split here is the same; writes nothing.")
_BAD_TOLD = 10
_READ_IMAGES = flags.DEFINE_bool("read_images", True, "Reads and decodes every image; --noread_images is quicker, and trusts.")


def main() -> None:
    """Reads the flags, prepares, checks, tells and writes."""
    config = _CONFIG.value
    given = [value for value in (_OUT.value, _VERIFY.value) if value is not None]
    if not isinstance(config, ConfigDict) or len(given) != 1 or not given[0]:
        raise InputError("give --config=FILE.py, and --out=DIR to write a manifest or --verify=FILE to compare with one")
    config_check.check(config)
    settings = config_module.data_settings(config)
    out = None if _OUT.value is None else workdir.path(_OUT.value)
    if out is not None and storage.is_remote(out):
        raise InputError(f"--out={out} is in an object store: give a folder of this machine, and copy it there")
    # what is wrong with what was given is found before the work
    theirs = manifest.read(workdir.path(_VERIFY.value)) if out is None else _checked_out(out, settings)
    dataset = datasets.draw(settings)
    images = _images(dataset, config)
    if images is not None and settings.on_bad_image == "skip":
        dataset = datasets.without(dataset, np.array(sorted(images.bad), np.int64), settings=settings)
    content = inspection.manifest_of(dataset, settings, images)
    print(inspection.table(content))
    bad = content["bad_images"]
    for entry in bad[:_BAD_TOLD]:
        print(f"bad image: {entry['why']}")
    if len(bad) > _BAD_TOLD:
        print(f"and {len(bad) - _BAD_TOLD:,} more")
    if out is None:
        _compare(theirs or {}, content)
        return
    if bad and settings.on_bad_image == "error":
        raise InputError(
            f"{len(bad):,} of {content['n_images']:,} images can't be used, as told above, and no manifest was written: bring "
            "them, or leave them out with --config.data.on_bad_image=skip, whose manifest names them all"
        )
    _write(out, content, dataset, theirs=theirs)


def _checked_out(out: Path, settings: Settings) -> dict[str, Any] | None:
    """The manifest that is there already, if one is; what else would be overwritten, or can't be written, is an error."""
    with workdir.writing(out):
        if os.path.lexists(out) and not out.is_dir():
            raise InputError(f"--out={out} is no folder: give one, or a new name")
        if settings.name == "folder" and Path(settings.directory).resolve() in (out.resolve(), *out.resolve().parents):
            raise InputError(f"--out={out} is below the pictures, and would become a class of them: give another folder")
        theirs = manifest.read(out / "manifest.json") if os.path.lexists(out / "manifest.json") else None
        if theirs is None and os.path.lexists(out / "contact_sheet.png"):
            raise InputError(
                f"{out / 'contact_sheet.png'} is there without a manifest: give another --out; nothing was overwritten"
            )
        there = next(path for path in (out, *out.resolve().parents) if path.exists())
        workdir.write_bytes(there / ".adsq_jax", b"")
        (there / ".adsq_jax").unlink()
    return theirs


def _images(dataset: Dataset, config: ConfigDict) -> inspection.Images | None:
    if not _READ_IMAGES.value:
        if config.data.on_bad_image == "skip":
            raise InputError(
                "--noread_images doesn't find what config.data.on_bad_image='skip' is to skip: leave out one of them"
            )
        datasets.check_present(dataset)
        return None
    rows = datasets.used_rows(dataset.split)
    with tqdm(
        total=len(rows), desc="reads images", unit=" images", delay=2, mininterval=1, dynamic_ncols=True, leave=False
    ) as bar:
        return inspection.read_images(
            dataset.source,
            rows,
            shorter_side=config.data.resize,
            threads=host.reading_threads(config.data.threads),
            on_progress=bar.update,
        )


def _compare(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    found = manifest.differences(theirs, ours)
    if found:
        raise InputError(
            f"the split differs from {_VERIFY.value}: {'; '.join(found)}: bring the same data, or train on another split"
        )
    compared = theirs.get("images_sha256") and ours["images_sha256"]
    print(f"the same split as {_VERIFY.value}{' and the same images' if compared else '; images were not compared'}")


def _write(out: Path, content: dict[str, Any], dataset: Dataset, *, theirs: dict[str, Any] | None) -> None:
    """The sheet, and then the manifest: where there is a manifest, all is there."""
    path = out / "manifest.json"
    if theirs is not None:
        found = manifest.differences(theirs, content)
        if found:
            raise InputError(f"{path} is of another split ({'; '.join(found)}): give another --out; nothing was overwritten")
        if theirs.get("images_sha256") and content["images_sha256"] is None:
            raise InputError(f"{path} knows the images, which were not read now: give another --out; nothing was overwritten")
    sheet = contact_sheet.draw(dataset)
    with workdir.writing(out):
        out.mkdir(parents=True, exist_ok=True)
        workdir.write_bytes(out / "contact_sheet.png", sheet)
        workdir.write_json(path, content)
    print(f"written to {path} and {out / 'contact_sheet.png'}")


if __name__ == "__main__":
    command_line.run(main)
