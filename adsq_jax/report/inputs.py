"""The inputs of a report: the files of a finished run, and its images if they are still there."""

import contextlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from adsq_jax import config as config_module
from adsq_jax import retrieval, storage
from adsq_jax.codes import QUERY_NETS
from adsq_jax.data import datasets
from adsq_jax.data.datasets import Settings
from adsq_jax.data.images import BadImage
from adsq_jax.data.sources import Source, WrappedSource
from adsq_jax.errors import InputError, first_line
from adsq_jax.inference import model_files, pictures
from adsq_jax.inference.model import DESCRIPTION, FOLDER
from adsq_jax.inference.pictures import Places
from adsq_jax.run import codes_folder, tables
from adsq_jax.run.workdir import read_array, read_json

_LARGEST = 1e100  # number that a plot can show
_PARTS = ("query", "database")


class Codes(NamedTuple):
    """The codes that a run's result is about; each dictionary has "query" and "database"."""

    packed: dict[str, np.ndarray]  # uint8[n, ceil(bits / 8)]
    labels: dict[str, np.ndarray]  # class ids [n] or multi-hot [n, c]
    rows: dict[str, np.ndarray]  # rows of the source, int64[n]
    bits: int


def read_result(directory: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read `result.json` and the lines of `metrics.jsonl` that can be drawn; a kill may have cut some.

    Raises:
      InputError: the run isn't finished, or result.json is damaged.
    """
    try:
        finished = storage.is_file(directory / "result.json")
        text = storage.read(directory / "metrics.jsonl") if storage.is_file(directory / "metrics.jsonl") else b""
    except OSError as error:
        raise InputError(f"--workdir={directory} can't be read ({error.strerror}); fix: give another folder") from error
    if not finished:
        raise InputError(f"--workdir={directory} holds no finished run; fix: finish it with adsq train, or give another folder")
    result = read_json(directory / "result.json")
    try:
        tables.result_rows(result)
        retrieval.check_cutoffs([result["map_at"]])
        if result["query_net"] not in QUERY_NETS or not isinstance(result["method"], str) or type(result["config"]) is not dict:
            raise ValueError
        curve = result["precision_recall"]
        numbers = [*curve["recall"], *curve["precision"], *result["precision_at"].values(), *map(int, result["precision_at"])]
        if len(curve["recall"]) != len(curve["precision"]) or not (result["precision_at"] and all(map(_is_number, numbers))):
            raise ValueError
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:  # a number can have any size
        raise InputError(f"{directory / 'result.json'} is not the result of a run; fix: restore it, or train again") from error
    metrics = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            metrics.append(json.loads(line))
    return result, [line for line in metrics if _is_valid(line)]


def other_model(directory: Path, result: dict[str, Any]) -> str:
    """Return a line that says so if the folder's model is another one than the result's; "" if not, or if that isn't known."""
    try:
        path = directory / FOLDER / DESCRIPTION
        if "model_sha256" not in result or not storage.is_file(path) or storage.size(path) > model_files.MAX_DESCRIPTION:
            return ""
        description = read_json(path)
    except (OSError, InputError):  # a report needs no model
        return ""
    if not isinstance(description, dict) or description.get("sha256") == result["model_sha256"]:
        return ""
    return f"{directory / FOLDER} holds another model than the one of this result; fix: run the same training command again"


def _is_valid(line: Any) -> bool:
    """Tell whether a line of metrics has a known phase and network, and finite numbers."""
    if not isinstance(line, dict) or line.get("phase") not in ("label_net", "img_net", "validation"):
        return False
    if (line["phase"] == "img_net") != (line.get("net") in ("f", "g")) or (line["phase"] == "validation") != ("map" in line):
        return False
    return "step" in line and all(_is_number(value) for name, value in line.items() if name not in ("phase", "net"))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < _LARGEST


def read_codes(directory: Path, *, query_net: str) -> Codes:
    """Read the codes of a run by one of `QUERY_NETS`.

    Raises:
      InputError: the codes are missing or damaged.
    """
    folder = directory / "codes"
    by_net, labels, bits = codes_folder.read(folder)
    nets = dict(zip(_PARTS, QUERY_NETS[query_net], strict=True))
    if any(nets[part] not in by_net[part] for part in _PARTS):
        raise InputError(f"{folder} lacks the codes by {query_net}; fix: restore it, or train again")
    rows = {part: np.asarray(read_array(folder / f"{part}_rows.npy", description="rows")) for part in _PARTS}
    return Codes({part: by_net[part][nets[part]] for part in _PARTS}, labels, rows, bits)


class Images(WrappedSource):
    """The images of a run, without those whose files are at no known place: a link in a data set may lead anywhere."""

    def __init__(self, source: Source, places: Places, *, bit_depth: int):
        """Wrap a source; `bit_depth` is the run's."""
        super().__init__(source.labels, classes=source.classes, names=source.names, parts=source.parts, notes=source.notes)
        self._source, self.places, self._bit_depth = source, places, bit_depth
        self.hidden = set[int]()  # rows of images that were asked for and not opened

    def image(self, index: int, *, shorter_side: int, bit_depth: int = 0) -> np.ndarray:
        """Return an image's pixels, by the run's bit depth where none is given."""
        path = self._source.path(index)
        if path is not None and self.places.find(os.fsdecode(path)) is None:
            self.hidden.add(index)
            raise BadImage(f"{self.location(index)} isn't shown: {self.places.hint}")
        return self._source.image(index, shorter_side=shorter_side, bit_depth=bit_depth or self._bit_depth)


def open_images(result: dict[str, Any], codes: Codes, *, folders: Sequence[str], remote: bool) -> tuple[Images | None, str]:
    """Open the images of a run, if they are still there and have the labels of its codes.

    Only the settings `data.*` of the run's config are used: no module that the config names is imported, no data set is
    downloaded, and no object store is asked unless the user says so.

    Args:
      result: the run's result.
      codes: its codes.
      folders: folders that the user names, below which the images must lie; none: the folder that the result names.
      remote: whether that may be in an object store.

    Returns:
      The images and ""; or None and a line with the reason.
    """
    named = pictures.named(folders) if folders else None
    try:
        settings = config_module.data_settings(ConfigDict(result["config"]))
        places = _places(settings, named, remote=remote)
        source = Images(datasets.open_prepared(settings), places, bit_depth=settings.bit_depth)
        for part, labels in codes.labels.items():
            rows = codes.rows[part]
            same = source.labels.ids(rows) if labels.ndim == 1 else source.labels[rows]
            if same is None or not np.array_equal(same, labels):
                raise InputError("the data set has other labels now")
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError, RecursionError) as error:
        note = f"Without pictures, since the data can't be opened: {first_line(error)}"
        print(note, file=sys.stderr)
        return None, note
    return source, ""


def _places(settings: Settings, named: Places | None, *, remote: bool) -> Places:
    """Return where a run's images may lie; raise InputError if its data set is elsewhere."""
    for place in (settings.directory, settings.lists):
        if not isinstance(place, str) or "\0" in place:
            raise InputError(f"the folder of the data is {place!r:.100}: expected a path")
        if "://" in place and not (remote or (named is not None and named.holds(place))):
            raise InputError(f"the data are at {place}, which only the run names; fix: if you trust it, --remote_pictures")
    directory = storage.expand_home(settings.directory)
    if named is None or "://" in directory:
        hint = "only those below the data set's folder are; fix: give that and other folders, each with --pictures=FOLDER"
        folders = [*(named.folders if named else ()), *filter(None, [directory])]
        return pictures.allow(folders, hint=hint)
    if settings.reader != "tfds" and not named.holds(directory):
        raise InputError(f"the data are in {directory}; fix: --pictures={directory}, or leave it out")
    return named
