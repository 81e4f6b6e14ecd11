"""Checkpoints of a run, written by orbax: the complete state, with a manifest of hashes that reveals damaged files."""

import hashlib
import itertools
import json
import math
import re
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from adsq_jax import storage
from adsq_jax.devices import processes
from adsq_jax.errors import InputError, first_line, reason, remedy
from adsq_jax.run import workdir

_MANIFEST = "manifest.json"  # info, measured, layout and the files' hashes; written last, so without it nothing is complete
_BEST = "best.json"
_STEP = re.compile(r"0|[1-9][0-9]{0,17}")  # a larger number than those of 64 bits is no step
_CHUNK = 1 << 24  # bytes


class Checkpoints:
    """The checkpoints of one run. With several processes, all of them call every method, at the same time."""

    def __init__(self, directory: Path, *, keep: int, rows: int):
        """Open the folder, on a disk or in an object store, or make it.

        Args:
          directory: the folder; the same one in all processes.
          keep: how many of the newest checkpoints stay; the best one stays as well.
          rows: the size of the training set. Arrays named `bank` and `codes` have this many rows, then padding that depends on
            the number of devices and isn't saved.
        """
        if not storage.is_remote(directory) and directory.is_symlink() and not directory.exists():
            raise InputError(f"{directory} is a broken link; fix: mount the disk it leads to, or remove it to start again")
        self._directory, self._keep, self._rows = directory, keep, rows
        self._temporary = None
        if str(directory).startswith("s3://"):  # orbax can't write there: each checkpoint goes through a local folder
            if processes.count() > 1:
                raise InputError(
                    f"{directory}: several processes can't write checkpoints to s3://; fix: give a --workdir on gs://, or on a "
                    "disk that all processes see"
                )
            self._temporary = tempfile.TemporaryDirectory(prefix="adsq_jax_checkpoints_")
        local = directory if self._temporary is None else Path(self._temporary.name)
        self._orbax_directory = local if storage.is_remote(local) else local.resolve()
        # orbax would delete old checkpoints before the new one's manifest is written; `delete_old` does it after.
        options = ocp.CheckpointManagerOptions(max_to_keep=None, enable_async_checkpointing=False, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(self._orbax_directory, options=options)
        self._run = workdir.Identity(directory.parent)

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, ascending."""
        try:
            entries = storage.entries(self._directory)
        except FileNotFoundError:
            return []
        return sorted(int(name) for name, is_folder in entries.items() if is_folder and _STEP.fullmatch(name))

    def save(self, step: int, state: Any, *, info: dict[str, Any], measured: float | None) -> None:
        """Save a state, unless that step is saved already; raise InputError if it can't be written.

        Args:
          step: the training step.
          state: a pytree of NumPy arrays, and of JAX arrays that are spread over several processes.
          info: saved with the state, in types that JSON has.
          measured: the score on held-out images, higher is better. `best.json` names the best checkpoint, which stays.
        """
        processes.run_on_leader(self._run.check)  # orbax would make the folder again
        if processes.total(processes.leads() and step in self.steps()):
            return
        state = self._cut_padding(state)
        manifest = {"info": info, "measured": measured, "layout": self._layout(state)}
        try:
            self._manager.save(step, args=ocp.args.StandardSave(state), force=True)
            if processes.leads():
                folder = self._orbax_directory / str(step)
                manifest["files"] = _hashes(folder)
                workdir.write_json(folder / _MANIFEST, {**manifest, "sha256": _json_sha256(manifest)})
            if self._temporary is not None:
                storage.copy_folder(folder, self._directory / str(step), last=_MANIFEST)
                self._manager.delete(step)
        except Exception as error:  # on a full disk orbax raises bare Exceptions, and others
            self._run.check()  # it may be gone since
            if processes.is_lost_connection(error):  # the other says why, if it can
                raise
            raise InputError(
                f"checkpoint {step} can't be written in {self._directory} ({reason(error)}); fix: {remedy(error)}, then run "
                "the same command again; earlier checkpoints are kept"
            ) from error
        self.delete_old(keep=self._keep)

    def restore(self, template: Any) -> tuple[Any, dict[str, Any]] | None:
        """Return state and info of the newest intact checkpoint, or None; newer, damaged ones move to `damaged_checkpoints`.

        Raises:
          InputError: an intact checkpoint has another structure, other shapes or dtypes than the template, or is of
            another version of this package; it is left alone.
        """
        template = self._cut_padding(template)
        while (step := self._newest_intact()) >= 0:
            manifest = self._manifest(step)
            self._check_layout(step, manifest["layout"], self._layout(template))
            try:
                state = self._cut_padding(self._read(step, template))
            except Exception as error:  # orbax raises bare Exceptions, and others
                if processes.count() > 1:
                    raise InputError(
                        f"checkpoint {step} in {self._directory} can't be read ({first_line(error)}); fix: move it away, then "
                        "run the same command again"
                    ) from error
                if "tree structures do not match" in str(error):
                    raise InputError(
                        f"expected a checkpoint of this version of adsq_jax, got another's in {self._directory / str(step)}; "
                        "fix: use that version, or another folder"
                    ) from error
                # the hashes match, but a full disk may have cut files short before they were hashed
                logging.warning("checkpoint %d is damaged: %s", step, first_line(error))
                self._move_to_damaged(step)
                continue
            self.delete_old(keep=self._keep)  # a kill may have come before it
            return state, manifest["info"]
        return None

    def _best(self) -> tuple[int, float] | None:
        """Return step and score of the best checkpoint on held-out images; None where none was scored."""
        measured = {step: value for step in self.steps() if (value := self._measured(step)) is not None}
        return max(measured.items(), key=lambda item: (item[1], -item[0]), default=None)

    def close(self) -> None:
        """Finish pending writes and remove temporary files."""
        self._manager.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def delete_old(self, *, keep: int) -> None:
        """Delete all checkpoints but the newest ones, and the best one."""
        if processes.leads():
            steps, best = self.steps(), self._best()
            if best is not None:
                workdir.write_json(self._directory / _BEST, {"step": best[0], "measured": best[1]})
            for step in steps[:-keep]:
                if best is None or step != best[0]:
                    try:
                        _delete(self._directory / str(step))
                    except OSError as error:  # a network disk keeps what another program has open
                        logging.warning("checkpoint %d can't be removed (%s)", step, error.strerror)
        processes.wait_for_all("checkpoints deleted")
        self._manager.reload()

    def _measured(self, step: int) -> float | None:
        try:
            measured = float(self._manifest(step)["measured"])
        except (InputError, LookupError, TypeError, ValueError):  # not measured, or a kill interrupted its deletion
            return None
        return measured if math.isfinite(measured) else None

    def _read(self, step: int, template: Any) -> Any:
        if self._temporary is not None:
            storage.copy_folder(self._directory / str(step), self._orbax_directory / str(step))
            self._manager.reload()
        # not strict: arrays that are spread over several processes may have another padding
        state = self._manager.restore(step, args=ocp.args.StandardRestore(template, strict=False))
        if self._temporary is not None:
            self._manager.delete(step)
        return state

    def _newest_intact(self) -> int:
        """Return the newest step with undamaged files, the same in all processes, or -1."""
        step = processes.run_on_leader(self._find_newest_intact) or 0
        step = int(processes.total(step))
        self._manager.reload()
        return step

    def _find_newest_intact(self) -> int:
        steps = self.steps()
        try:
            for step in reversed(steps):
                problem = _problem(self._directory / str(step))
                if problem is None:
                    return step
                logging.warning("checkpoint %d is damaged: %s", step, problem)
                self._move_to_damaged(step)
        except OSError as error:
            raise InputError(
                f"{error.filename or self._directory} can't be used ({error.strerror or error}); fix: repair that, then run "
                "the same command again"
            ) from error
        if steps:
            logging.warning("no checkpoint in %s is intact: the run starts again", self._directory)
        return -1

    def _move_to_damaged(self, step: int) -> None:
        """Move a checkpoint away; if it stayed, orbax would refuse to save that step."""
        folder, damaged = self._directory / str(step), self._directory.parent / "damaged_checkpoints"
        if not storage.is_folder(damaged):
            damaged.mkdir(exist_ok=True)
        taken = storage.entries(damaged) if storage.is_folder(damaged) else {}
        target = damaged / next(name for name in (f"{step}-{n}" for n in itertools.count()) if name not in taken)
        if storage.is_remote(folder):
            storage.copy_folder(folder, target)
            _delete(folder)
        else:
            shutil.move(folder, target)

    def _manifest(self, step: int) -> dict[str, Any]:
        return workdir.read_json(self._directory / str(step) / _MANIFEST)

    def _check_layout(self, step: int, saved: dict[str, str], expected: dict[str, str]) -> None:
        for key in sorted(saved.keys() | expected.keys()):
            if saved.get(key) != expected.get(key):
                raise InputError(
                    f"checkpoint {step} in {self._directory} has other networks or other data: {key} is {saved.get(key)} "
                    f"there and {expected.get(key)} here; fix: restore the data, use the version of adsq_jax that wrote it, "
                    "or give another --workdir"
                )

    def _cut_padding(self, tree: Any) -> Any:
        """Cut the padding off arrays that are complete in this process."""

        def cut(path: Any, leaf: Any) -> Any:
            return leaf[: self._rows] if _has_rows(path) and isinstance(leaf, np.ndarray) else leaf

        return jax.tree_util.tree_map_with_path(cut, tree)

    def _layout(self, tree: Any) -> dict[str, str]:
        """Return dtype and shape without padding of each array, by its path in the tree."""
        layout = {}
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            shape = (self._rows, *leaf.shape[1:]) if _has_rows(path) else leaf.shape
            layout[jax.tree_util.keystr(path)] = f"{leaf.dtype}[{','.join(map(str, shape))}]"
        return layout


def _has_rows(path: Any) -> bool:
    """Return whether the array at a path of the tree has a row for each training image."""
    return jax.tree_util.keystr(path).endswith((".bank", ".codes"))


def _hashes(folder: Path, names: Collection[str] | None = None) -> dict[str, str]:
    """Return the SHA-256 of each file below a folder, or of those with these names, by its path from there."""
    hashes = {}
    for name in storage.files(folder):
        if name != _MANIFEST and (names is None or name in names):
            digest = hashlib.sha256()
            with (folder / name).open("rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
            hashes[name] = digest.hexdigest()
    return hashes


def _json_sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _delete(folder: Path) -> None:
    if not storage.is_remote(folder) and folder.is_symlink():
        folder.unlink()
    else:
        epath.Path(folder).rmtree()


def _problem(folder: Path) -> str | None:
    """Return how the files of a checkpoint differ from what was written, or None if they don't."""
    try:
        manifest = json.loads(storage.read(folder / _MANIFEST))
        if manifest.pop("sha256") != _json_sha256(manifest):
            return f"its {_MANIFEST} has changed since it was written"
        expected = manifest["files"]
        if not isinstance(manifest["info"], dict) or not isinstance(manifest["layout"], dict):
            return f"its {_MANIFEST} is not a checkpoint's"
        hashes = _hashes(folder, expected)  # file managers and network disks add files of their own, as .DS_Store
        changed = sorted(name for name in expected if expected[name] != hashes.get(name))
    except FileNotFoundError:
        return "it was not finished"
    except (OSError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        return f"its {_MANIFEST} can't be read ({error})"
    return f"{changed[0]} has changed since it was written" if changed else None
