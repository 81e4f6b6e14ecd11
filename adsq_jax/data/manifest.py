"""The manifest of a split: written on one machine, it says on another whether the data and their division are the same."""

import json
from pathlib import Path
from typing import Any

from adsq_jax import storage
from adsq_jax.errors import InputError

_LARGEST = 2**30  # bytes
_TOLD = ("data", "protocol", "split_seed", "validation", "n_skipped", "n_query", "n_train", "n_database", "classes")


def read(path: Path) -> dict[str, Any]:
    """Reads a manifest of `python -m adsq_jax.data`.

    Args:
      path: the file.

    Returns:
      Its content.

    Raises:
      InputError: it isn't there, or is no manifest.
    """
    advice = "give the manifest.json that python -m adsq_jax.data wrote"
    try:
        if not storage.is_file(path) or storage.size(path) > _LARGEST:  # to open a pipe would wait for ever
            raise InputError(f"{path} is no file, or one of more than {_LARGEST >> 20} MiB: {advice}")
        content = json.loads(storage.read(path).decode())
        if not isinstance(content["split_sha256"], str) or len(content["split_sha256"]) != 64:
            raise ValueError
        if not all(type(bad["row"]) is int and 0 <= bad["row"] < 2**63 for bad in content["bad_images"]):
            raise ValueError
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}): {advice}") from error
    except InputError:
        raise
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no manifest of a split: {advice}") from error
    return content


def check_origin(content: dict[str, Any], *, path: str, **own: str | int) -> None:
    """Says that a manifest is of these data and this draw.

    Args:
      content: from `read`.
      path: of the manifest.
      **own: what `data`, `protocol` and so on are here.

    Raises:
      InputError: one of them is another.
    """
    for key, value in own.items():
        if content.get(key) != value:
            raise InputError(
                f"{path} is of {key}={content.get(key)!r}, the config of {value!r}: give the manifest of these data"
            )


def check(content: dict[str, Any], split_sha256: str, *, path: Path) -> None:
    """Says that a split is the manifest's.

    Raises:
      InputError: it is another.
    """
    if content["split_sha256"] != split_sha256:
        raise InputError(
            f"the data give split {split_sha256[:12]}, and {path} is of split {content['split_sha256'][:12]}: "
            f"python -m adsq_jax.data --verify={path} says what differs"
        )


def differences(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """What differs between two manifests of the same data, most telling first.

    Args:
      theirs: read from a file.
      ours: of the data here.

    Returns:
      Short texts; none where split and images are the same.
    """
    found = []
    for key in _TOLD:
        old, new = theirs.get(key), ours[key]
        if old != new and key == "n_skipped":
            found.append(
                f"{old} images were left out there and {new} here (--config.data.on_bad_image, --config.data.most_bad)"
            )
        elif old != new:
            short = isinstance(new, str | int) and isinstance(old, str | int)
            found.append(f"{key} is {old!r} there and {new!r} here" if short else f"{key} differ")
    if theirs["split_sha256"] != ours["split_sha256"] and not found:
        found.append(
            "labels, names, or order of the images differ" if ours["names"] else "labels or order of the images differ"
        )
    read_by_both = theirs.get("images_sha256") and ours["images_sha256"]
    if read_by_both and [bad["row"] for bad in theirs["bad_images"]] != [bad["row"] for bad in ours["bad_images"]]:
        found.append("other images are missing or unreadable")
    elif read_by_both and theirs["images_sha256"] != ours["images_sha256"]:
        found.append("the content of some images differs")
    return found
