"""Checkpoints, by orbax: the whole state and what goes with it, with hashes of its files that damage cannot pass."""

import hashlib
import itertools
import json
import math
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from adsq_jax import storage
from adsq_jax.devices import processes
from adsq_jax.errors import InputError
from adsq_jax.run import workdir

_MANIFEST = "manifest.json"  # what a checkpoint is, and hashes of its files: written last, so without it none was finished
_BEST = "best.json"
_STEP = re.compile(r"0|[1-9][0-9]*")
_CHUNK = 1 << 24  # bytes


class Checkpoints:
    """The checkpoints of one run, newest last. In a run of several processes, each calls every method, at the same time."""

    def __init__(self, directory: Path, *, keep: int, rows: int):
        """Opens or makes the folder.

        Args:
          directory: where, on a disk or in an object store; of all processes the same one.
          keep: the newest checkpoints that stay, beside the best.
          rows: of the training set. Arrays named `bank` and `codes` have so many, and maybe a filling after them, which depends
            on the number of devices: it isn't part of what a checkpoint holds.

        Raises:
          InputError: several processes can't write to that store; or the folder is a link to what isn't there.
        """
        if not storage.is_remote(directory) and directory.is_symlink() and not directory.exists():
            raise InputError(f"{directory} is a link to what isn't there: mount that disk, or remove the link to begin again")
        self._directory, self._keep, self._rows = directory, keep, rows
        self._temporary = None
        if str(directory).startswith("s3://"):  # orbax doesn't know it: each checkpoint goes through a folder of this machine
            if processes.count() > 1:
                raise InputError(
                    f"{directory} can't take the checkpoints of several processes: give a --workdir on gs://, or on a disk "
                    "that all of them see"
                )
            self._temporary = tempfile.TemporaryDirectory(prefix="adsq_jax_checkpoints_")
        here = directory if self._temporary is None else Path(self._temporary.name)
        self._here = here if storage.is_remote(here) else here.resolve()
        # What is old is deleted here, after the new one's hashes are written, and not by orbax before.
        options = ocp.CheckpointManagerOptions(max_to_keep=None, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(self._here, options=options)

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending."""
        try:
            found = storage.entries(self._directory)
        except FileNotFoundError:  # nothing was saved yet
            return []
        return sorted(int(name) for name, is_folder in found.items() if is_folder and _STEP.fullmatch(name))

    def save(self, step: int, state: Any, *, info: dict[str, Any], measured: float | None) -> None:
        """Saves a state, unless that step has been saved.

        Args:
          step: its number.
          state: a pytree of NumPy arrays, and of arrays of JAX that lie with several processes.
          info: what JSON can hold.
          measured: on held-out images, the more the better; the best checkpoint stays, and `best.json` names it.

        Raises:
          InputError: it can't be written.
        """
        if processes.total(processes.leads() and step in self.steps()):
            return
        state = self._cut(state)
        manifest = {"info": info, "measured": measured, "layout": self._layout(state)}
        try:
            self._manager.save(step, args=ocp.args.StandardSave(state), force=True)
            if processes.leads():
                folder = self._here / str(step)
                manifest["files"] = dict(_hashes(folder))
                workdir.write_json(folder / _MANIFEST, {**manifest, "sha256": _hash_of(manifest)})
            if self._temporary is not None:
                storage.copy_folder(folder, self._directory / str(step), last=_MANIFEST)
                self._manager.delete(step)
        except Exception as error:  # orbax raises bare Exceptions, and others, on a full disk
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise InputError(
                f"checkpoint {step} can't be written in {self._directory} ({reason[-1][-200:]}): make room, and give the same "
                "command again; earlier checkpoints are kept"
            ) from error
        self._delete_old()

    def _delete_old(self) -> None:
        """Keeps the newest and the best."""
        if processes.leads():
            steps = self.steps()
            measured = {step: value for step in steps if (value := self._measured(step)) is not None}
            best = max(measured, key=lambda step: (measured[step], step), default=-1)
            if best >= 0:
                workdir.write_json(self._directory / _BEST, {"step": best, "measured": measured[best]})
            for step in steps[: -self._keep]:
                if step != best:
                    _delete(self._directory / str(step))
        processes.wait_for_all("checkpoints deleted")
        self._manager.reload()

    def _measured(self, step: int) -> float | None:
        try:
            measured = float(self._manifest(step)["measured"])
        except (InputError, LookupError, TypeError, ValueError):  # nothing, or it was half deleted when a run was killed
            return None
        return measured if math.isfinite(measured) else None

    def restore(self, template: Any) -> tuple[Any, dict[str, Any]] | None:
        """Restores the newest whole checkpoint; newer ones, which are damaged, are put aside in `damaged_checkpoints`.

        Args:
          template: a state of the same structure, shapes and dtypes, as `save` takes it.

        Returns:
          State and info, or None where there is none.

        Raises:
          InputError: a whole checkpoint has another structure, other shapes or dtypes; it stays.
        """
        template = self._cut(template)
        while (step := self._newest_whole()) >= 0:
            manifest = self._manifest(step)
            self._check_layout(step, manifest["layout"], self._layout(template))
            try:
                return self._cut(self._read(step, template)), manifest["info"]
            except Exception as error:  # orbax raises bare Exceptions, and others
                said = str(error).strip().splitlines() or [type(error).__name__]
                if processes.count() > 1:
                    raise InputError(
                        f"checkpoint {step} in {self._directory} can't be read ({said[0][:200]}): move it away, and give the "
                        "same command again"
                    ) from error
                # a disk that was full while it was written may have cut short what is hashed
                logging.warning("checkpoint %d is damaged: %s", step, said[0][:200])
                self._put_aside(step)
        return None

    def _read(self, step: int, template: Any) -> Any:
        if self._temporary is not None:
            storage.copy_folder(self._directory / str(step), self._here / str(step))
            self._manager.reload()
        # not strict: rows that lie with several processes may have another filling
        state = self._manager.restore(step, args=ocp.args.StandardRestore(template, strict=False))
        if self._temporary is not None:
            self._manager.delete(step)
        return state

    def _newest_whole(self) -> int:
        """The newest step whose files are what they were, or -1; what is damaged is put aside."""
        found = processes.run_on_all(lambda: self._look() if processes.leads() else -1)
        found = int(processes.total(found if processes.leads() else 0))
        self._manager.reload()
        return found

    def _look(self) -> int:
        steps = self.steps()
        try:
            for step in reversed(steps):
                problem = _problem(self._directory / str(step))
                if problem is None:
                    return step
                logging.warning("checkpoint %d is damaged: %s", step, problem)
                self._put_aside(step)
        except OSError as error:
            raise InputError(
                f"{error.filename or self._directory} can't be used ({error.strerror or error}): put that right, and give the "
                "same command again"
            ) from error
        if steps:
            logging.warning("no checkpoint in %s is whole: the run begins again", self._directory)
        return -1

    def _put_aside(self, step: int) -> None:
        """Moves a checkpoint out of the way: left there, it makes orbax refuse later saves."""
        folder, aside = self._directory / str(step), self._directory.parent / "damaged_checkpoints"
        if not storage.is_folder(aside):
            aside.mkdir(exist_ok=True)
        there = storage.entries(aside) if storage.is_folder(aside) else {}
        place = aside / next(name for name in (f"{step}-{n}" for n in itertools.count()) if name not in there)
        if storage.is_remote(folder):
            storage.copy_folder(folder, place)
            _delete(folder)
        else:
            shutil.move(folder, place)

    def _manifest(self, step: int) -> dict[str, Any]:
        return workdir.read_json(self._directory / str(step) / _MANIFEST)

    def _check_layout(self, step: int, found: dict[str, str], wanted: dict[str, str]) -> None:
        for key in sorted(found.keys() | wanted.keys()):
            if found.get(key) != wanted.get(key):
                raise InputError(
                    f"checkpoint {step} in {self._directory} is of other networks, or other data: {key} is "
                    f"{found.get(key)} there and {wanted.get(key)} here: bring back the data, or go on with the version of "
                    "adsq_jax that wrote it, or give another --workdir"
                )

    def _has_rows(self, path: Any) -> bool:
        return jax.tree_util.keystr(path).endswith((".bank", ".codes"))

    def _cut(self, tree: Any) -> Any:
        """Without the filling of arrays that this process has whole."""

        def one(path: Any, x: Any) -> Any:
            return x[: self._rows] if self._has_rows(path) and isinstance(x, np.ndarray) else x

        return jax.tree_util.tree_map_with_path(one, tree)

    def _layout(self, tree: Any) -> dict[str, str]:
        def shape(path: Any, leaf: Any) -> tuple[int, ...]:
            return (self._rows, *leaf.shape[1:]) if self._has_rows(path) else leaf.shape

        return {
            jax.tree_util.keystr(path): f"{leaf.dtype}[{','.join(map(str, shape(path, leaf)))}]"
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }

    def close(self) -> None:
        """Waits for what is under way."""
        self._manager.close()
        if self._temporary is not None:
            self._temporary.cleanup()


def _hashes(folder: Path) -> Iterator[tuple[str, str]]:
    """Each file below a folder, by its path from there, but for the manifest."""
    for name in storage.files(folder):
        if name == _MANIFEST:
            continue
        digest = hashlib.sha256()
        with (folder / name).open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        yield name, digest.hexdigest()


def _delete(folder: Path) -> None:
    if not storage.is_remote(folder) and folder.is_symlink():
        folder.unlink()
    else:
        epath.Path(folder).rmtree()


def _hash_of(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _problem(folder: Path) -> str | None:
    """What is wrong with the files of a checkpoint; None where they are as they were written."""
    try:
        manifest = json.loads(storage.read(folder / _MANIFEST))
        if manifest.pop("sha256") != _hash_of(manifest):
            return f"its {_MANIFEST} is not what was written"
        wanted = manifest["files"]
        if not isinstance(manifest["info"], dict) or not isinstance(manifest["layout"], dict):
            return f"its {_MANIFEST} is none"
        found = dict(_hashes(folder))
        names = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    except FileNotFoundError:
        return "it was not finished"
    except (OSError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        return f"its {_MANIFEST} can't be read ({error})"
    return f"{names[0]} is not what was written" if names else None
