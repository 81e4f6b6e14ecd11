"""The results of the comparison: a file a data set, SET/runs.jsonl, with a JSON object a line, one of every run and trial."""

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adsq_jax.errors import InputError

NAME = "runs.jsonl"
LARGEST = 1e15  # no run gives a number as large as this


def name_of(run: Mapping[str, Any]) -> str:
    """Return the name of a run, as `csq, 24 bits, seed 0`, `adsq no twin, 24 bits, seed 0, noise20`, `csq, trial 3, fold 1`.

    No two runs of a data set have the same name. A run that holds out validation images is a trial.
    """
    label = " ".join(filter(None, (run["method"], run.get("variant"), run.get("budget"))))
    if run.get("validation"):
        return f"{label}, trial {run['trial']}" + (f", fold {run['fold']}" if run.get("fold") else "")
    return ", ".join(filter(None, (label, f"{run['bits']} bits", f"seed {run['seed']}", run.get("condition"))))


def read(path: Path) -> list[dict[str, Any]]:
    """Read every run of a data set, without a last line that was cut off by a kill.

    Args:
      path: SET/runs.jsonl; where there is no such file there are no runs.

    Returns:
      What each line holds, and under `where` its file and line, for messages.

    Raises:
      InputError: the file can't be read, or a line isn't a JSON object.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read ({error}): give another folder") from error
    return [_parse(line, where=f"{path}, line {number}") for number, line in enumerate(lines, start=1)]


def _parse(line: str, *, where: str) -> dict[str, Any]:
    try:
        run = json.loads(line, parse_constant=_number, parse_float=_number, parse_int=_number)
        if not isinstance(run, dict):
            raise ValueError("not an object")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} can't be read as the JSON of a run ({error}): remove the line and run it again") from error
    return {**run, "where": where}


def _number(text: str) -> float:
    value = int(text) if text.removeprefix("-").isdecimal() else float(text)
    if not abs(value) < LARGEST:
        raise ValueError(f"expected a number below {LARGEST:g}, got {text[:50]}")
    return value


def check_config(run: Mapping[str, Any], config_sha256: str | None) -> None:
    """Check that a run of the file, from `read`, has this config.

    Raises:
      InputError: it has another one.
    """
    if run.get("config_sha256") != config_sha256:
        raise InputError(f"{run['where']} ({name_of(run)}) is of another config: remove the line, or give another --out")


def _is_in(content: bytes, run: Mapping[str, Any], *, where: Path) -> bool:
    for number, line in enumerate(content.decode().splitlines(), start=1):
        other = _parse(line, where=f"{where}, line {number}")
        if name_of(other) == name_of(run):
            check_config(other, run.get("config_sha256"))
            return True
    return False


def append(path: Path, run: Mapping[str, Any]) -> None:
    """Add a line to a data set's file, in place of a last line that was cut off by a kill.

    A lock keeps other processes out meanwhile; once this returns the line is on the disk. A run that another comparison has
    added meanwhile isn't added again.

    Raises:
      InputError: the file can't be written, or has a run of this name with another config.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            content = file.read()
            whole = content[: content.rfind(b"\n") + 1]
            if _is_in(whole, run, where=path):
                return
            file.truncate(len(whole))
            file.write(json.dumps(run, separators=(",", ":")).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(f"{path} can't be written ({error.strerror}): give another --out") from error
