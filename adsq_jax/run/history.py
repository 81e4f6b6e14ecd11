"""What a run had finished before it was extended, and finished in the end: `history.json` in its folder."""

from pathlib import Path
from typing import Any, NamedTuple

from adsq_jax import storage
from adsq_jax.errors import InputError
from adsq_jax.run import workdir

_FILE = "history.json"


class Finished(NamedTuple):
    """What a run had finished before the rounds that are planned now."""

    rounds: tuple[int, ...] = ()  # after how many it had finished, ascending
    extensions: tuple[tuple[str, float], ...] = ()  # schedule and scale of the learning rate in each of them but the first


def read(directory: Path) -> list[dict[str, Any]]:
    """Return what a run has finished: {"rounds", "planned", "seconds", "map", "extension"} each time, the oldest first.

    `rounds` were trained, of the `planned` ones; `map` is None where the codes were not measured; `extension`, for rounds that
    were added, has schedule and scale of their learning rate.

    Raises:
      InputError: the file is not what `add` writes.
    """
    path = directory / _FILE
    if not storage.is_file(path):
        return []
    entries = workdir.read_json(path)
    if not isinstance(entries, list) or not all(_is_entry(entry) for entry in entries):
        raise InputError(f"{path} is not the history of a run; fix: restore it, or train in another folder")
    return entries


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not all(type(entry.get(key)) is int and entry[key] > 0 for key in ("rounds", "planned")):
        return False
    extension = entry.get("extension")
    is_pair = isinstance(extension, list) and [type(part) for part in extension] in ([str, float], [str, int])
    return extension is None or is_pair


def add(
    directory: Path,
    *,
    rounds: int,
    planned: int,
    seconds: float,
    extension: tuple[str, float] | None,
    mean_ap: float | None = None,
) -> list[dict[str, Any]]:
    """Write down that a run has finished, in place of what was written about the same number of planned rounds.

    Returns:
      The history, as `read` does.
    """
    entry: dict[str, Any] = {"rounds": rounds, "planned": planned, "seconds": seconds, "map": mean_ap}
    if extension is not None:
        entry["extension"] = list(extension)
    entries = [*(other for other in read(directory) if other["planned"] < planned), entry]
    workdir.write_json(directory / _FILE, entries)
    return entries


def finished(directory: Path, *, planned: int, key: str) -> Finished:
    """Return what a run had finished before it was extended to the rounds that are planned now.

    Args:
      directory: the run's folder, which may be new.
      planned: the number of rounds now.
      key: where the folder's `config.json` has the number of rounds, as "train.rounds".

    Raises:
      InputError: fewer rounds are planned than before, or more for a run that has not finished.
    """
    before = planned_before(directory, key=key)
    if before is None:
        return Finished()
    entries = read(directory) or _older(directory, before)
    is_finished = bool(entries) and entries[-1]["planned"] == before
    if planned < before or (planned > before and not is_finished):
        state, most = ("", " or more") if is_finished else (" that has not finished", "")
        raise InputError(
            f"--workdir={directory} has a run of {before} rounds{state}, got {key}={planned}; fix: give {before}{most}, or "
            "another folder"
        )
    entries = [entry for entry in entries if entry["planned"] < planned]
    extensions = [entry.get("extension") or ("restart", 1.0) for entry in entries[1:]]
    return Finished(tuple(entry["rounds"] for entry in entries), tuple((kind, scale) for kind, scale in extensions))


def keep(directory: Path, *, planned: int, key: str) -> None:
    """Write down that a run has finished, if it is of a version that did not do so, before it is extended."""
    before = planned_before(directory, key=key)
    if before is not None and before < planned and not storage.is_file(directory / _FILE):
        for entry in _older(directory, before):
            workdir.write_json(directory / _FILE, [entry])


def planned_before(directory: Path, *, key: str) -> int | None:
    """Return the number of rounds in a folder's `config.json`; None if there is none."""
    path = directory / "config.json"
    if not storage.is_file(path):
        return None
    value = workdir.read_json(path)
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value if type(value) is int else None


def _older(directory: Path, planned: int) -> list[dict[str, Any]]:
    """Return the history of a run that had none written down: it has finished if it has its model."""
    if not storage.is_file(directory / "model" / "model.json"):
        return []
    path = directory / "result.json"
    result = workdir.read_json(path) if storage.is_file(path) else {}
    facts = {key: result.get(key) if isinstance(result, dict) else None for key in ("seconds", "map")}
    return [{"rounds": planned, "planned": planned, **facts}]
