"""The manifest of a split: written on one machine, it shows on another whether data and split are the same."""

import json
from pathlib import Path
from typing import Any

from adsq_jax import storage
from adsq_jax.errors import InputError

_MOST_BYTES = 2**30
_COMPARED = ("data", "protocol", "split_seed", "validation", "n_skipped", "n_query", "n_train", "n_database", "classes")


def read(path: Path) -> dict[str, Any]:
    """Read a manifest of `adsq data`."""
    fix = "fix: give the manifest.json that adsq data wrote"
    try:
        if not storage.is_file(path) or storage.size(path) > _MOST_BYTES:  # opening a pipe would block
            raise InputError(f"{path} is not a file, or has more than {_MOST_BYTES >> 20} MiB; {fix}")
        content = json.loads(storage.read(path).decode())
        if not isinstance(content["split_sha256"], str) or len(content["split_sha256"]) != 64:
            raise ValueError
        if not all(type(bad["row"]) is int and 0 <= bad["row"] < 2**63 for bad in content["bad_images"]):
            raise ValueError
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}); {fix}") from error
    except InputError:
        raise
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a manifest of a split; {fix}") from error
    return content


def check_origin(content: dict[str, Any], *, path: str, **expected: str | int) -> None:
    """Check that a manifest has the expected values of `data`, `protocol` and so on."""
    for key, value in expected.items():
        if content.get(key) != value:
            raise InputError(
                f"{path} has {key}={content.get(key)!r:.100}, the config has {value!r}; fix: give the manifest of these data"
            )


def check(content: dict[str, Any], split_sha256: str, *, path: Path) -> None:
    """Check that a split is the manifest's."""
    if content["split_sha256"] != split_sha256:
        raise InputError(
            f"the data give split {split_sha256[:12]}, and {path} is of split {content['split_sha256'][:12]}; fix: see what "
            f"differs with adsq data --verify={path}"
        )


def differences(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """Return the differences of two manifests, the most important first; an empty list if split and images are the same.

    Args:
      theirs: the manifest from a file.
      ours: the manifest of the local data.
    """
    texts = []
    for key in _COMPARED:
        old, new = theirs.get(key), ours[key]
        if old != new and key == "n_skipped":
            texts.append(
                f"{old} images were left out there and {new} here (--config.data.on_bad_image, --config.data.most_bad)"
            )
        elif old != new:
            short = isinstance(new, str | int) and isinstance(old, str | int)
            texts.append(f"{key} is {old!r:.100} there and {new!r:.100} here" if short else f"{key} differ")
    if theirs["split_sha256"] != ours["split_sha256"] and not texts:
        texts.append(
            "labels, names, or order of the images differ" if ours["names"] else "labels or order of the images differ"
        )
    if theirs.get("images_sha256") and ours["images_sha256"]:
        if [bad["row"] for bad in theirs["bad_images"]] != [bad["row"] for bad in ours["bad_images"]]:
            texts.append("other images are missing or unreadable")
        elif theirs["images_sha256"] != ours["images_sha256"]:
            texts.append("the content of some images differs")
    return texts
