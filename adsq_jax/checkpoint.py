"""Checkpoints, by orbax: the whole state and what goes with it, with a hash that damage cannot pass."""

import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from adsq_jax.errors import InputError


class Checkpoints:
    """The checkpoints of one run, newest last."""

    def __init__(self, directory: Path, *, keep: int):
        """Opens or makes the folder; of its checkpoints the newest `keep` stay."""
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(directory.resolve(), options=options)

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, *, info: dict[str, Any]) -> None:
        """Saves a state, unless that step has been saved.

        Args:
          step: its number.
          state: a pytree of arrays.
          info: what JSON can hold.

        Raises:
          InputError: it can't be written.
        """
        if step in self.steps():
            return
        state = jax.tree.map(np.array, state)  # copies: the step that follows reuses the state's buffers
        info = {**info, "sha256": sha256(state), "layout": _layout(state)}
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), info=ocp.args.JsonSave(info))
        try:
            self._manager.save(step, args=args, force=True)
        except Exception as error:  # orbax raises bare Exceptions, and others, on a full disk
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise InputError(
                f"checkpoint {step} can't be written in {self._manager.directory} ({reason[-1][-200:]}): make room, and give "
                "the same command again; earlier checkpoints are kept"
            ) from error

    def restore(self, template: Any) -> tuple[Any, dict[str, Any]] | None:
        """Restores the newest whole checkpoint; newer ones, which are damaged, are put aside in `damaged_checkpoints`.

        Args:
          template: a state of the same structure, shapes and dtypes.

        Returns:
          State (NumPy arrays) and info, or None where there is none.

        Raises:
          InputError: a whole checkpoint has another structure, other shapes or dtypes; it stays.
        """
        template = jax.tree.map(np.asarray, template)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(template), info=ocp.args.JsonRestore())
        for step in reversed(self.steps()):
            try:
                restored = self._manager.restore(step, args=args)
                if sha256(restored.state) != restored.info["sha256"]:
                    raise ValueError("its content doesn't match its hash")
                if _layout(restored.state) != _layout(template):  # orbax lets other shapes pass
                    raise ValueError("it is of other networks")
                return restored.state, restored.info
            except Exception as error:  # orbax raises bare Exceptions, and others, on damage
                self._check_layout(step, template)
                logging.warning("checkpoint %d is damaged: %s", step, str(error).strip().split("\n")[0][:200])
                self._put_aside(step)
        return None

    def _put_aside(self, step: int) -> None:
        """Moves a checkpoint out of the way: left there, it makes orbax refuse later saves."""
        directory = Path(self._manager.directory)
        aside = directory.parent / "damaged_checkpoints"
        aside.mkdir(exist_ok=True)
        number = sum(path.name.startswith(f"{step}-") for path in aside.iterdir())
        (directory / str(step)).rename(aside / f"{step}-{number}")
        self._manager.reload()

    def _check_layout(self, step: int, template: Any) -> None:
        try:
            info = self._manager.restore(step, args=ocp.args.Composite(info=ocp.args.JsonRestore())).info
            found, wanted = info["layout"], _layout(template)
        except Exception:  # as above; without its info the checkpoint is damaged
            return
        for key in sorted(found.keys() | wanted.keys()):
            if found.get(key) != wanted.get(key):
                raise InputError(
                    f"checkpoint {step} in {self._manager.directory} is of other networks, or other data: {key} is "
                    f"{found.get(key)} there and {wanted.get(key)} here: bring back the data, or go on with the version of "
                    "adsq_jax that wrote it, or give another --workdir"
                )

    def close(self) -> None:
        """Waits for what is under way."""
        self._manager.close()


def _layout(tree: Any) -> dict[str, str]:
    return {
        jax.tree_util.keystr(path): f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def sha256(tree: Any) -> str:
    """A hash of a tree's paths, dtypes, shapes and numbers, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()
