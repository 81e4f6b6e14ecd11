"""What a run had finished before it was extended, and finished in the end: `history.json` in its folder."""

from pathlib import Path
from typing import Any

from adsq_jax import storage
from adsq_jax.errors import InputError
from adsq_jax.run import workdir

_FILE = "history.json"


def read(directory: Path) -> list[dict[str, Any]]:
    """Return what a run has finished: {"rounds", "planned", "seconds", "map"} each time, the oldest first.

    `rounds` were trained, of the `planned` ones; `map` is None where the codes were not measured.

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
    return isinstance(entry, dict) and all(type(entry.get(key)) is int and entry[key] > 0 for key in ("rounds", "planned"))


def add(directory: Path, *, rounds: int, planned: int, seconds: float, mean_ap: float | None = None) -> list[dict[str, Any]]:
    """Write down that a run has finished, in place of what was written about the same number of planned rounds.

    Returns:
      The history, as `read` does.
    """
    entry = {"rounds": rounds, "planned": planned, "seconds": seconds, "map": mean_ap}
    entries = [*(other for other in read(directory) if other["planned"] < planned), entry]
    workdir.write_json(directory / _FILE, entries)
    return entries


def finished_rounds(directory: Path, *, planned: int, key: str) -> tuple[int, ...]:
    """Return after how many rounds a run had finished before it was extended to those that are planned now; () if never.

    Args:
      directory: the run's folder, which may be new.
      planned: the number of rounds now.
      key: where the folder's `config.json` has the number of rounds, as "train.rounds".

    Raises:
      InputError: fewer rounds are planned than before, or more for a run that has not finished.
    """
    before = _planned_before(directory, key)
    if before is None:
        return ()
    entries = read(directory) or _older(directory, before)
    if planned < before:
        raise InputError(
            f"--workdir={directory} has a run of {before} rounds, got {key}={planned}; fix: give {before} or more, or another "
            "folder"
        )
    if planned > before and not (entries and entries[-1]["planned"] == before):
        raise InputError(
            f"--workdir={directory} has a run of {before} rounds that has not finished, got {key}={planned}; fix: finish it "
            f"with {key}={before}, then add rounds"
        )
    return tuple(entry["rounds"] for entry in entries if entry["planned"] < planned)


def keep(directory: Path, *, planned: int, key: str) -> None:
    """Write down that a run has finished, if it is of a version that did not do so, before it is extended."""
    before = _planned_before(directory, key)
    if before is not None and before < planned and not storage.is_file(directory / _FILE):
        for entry in _older(directory, before):
            workdir.write_json(directory / _FILE, [entry])


def _planned_before(directory: Path, key: str) -> int | None:
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
    return [{"rounds": planned, "planned": planned, "seconds": None, "map": None}]
