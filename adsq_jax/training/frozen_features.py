"""A frozen trunk's features: computed once, kept on disk, and shared by all runs of the same trunk and images."""

import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from adsq_jax import storage
from adsq_jax.data.datasets import Dataset
from adsq_jax.errors import InputError, Stopped
from adsq_jax.inference.encoder import Encoder
from adsq_jax.run import workdir
from adsq_jax.run.file_locks import FileLock
from adsq_jax.run.progress import progress_bar


class Features(NamedTuple):
    """The features of the images of a split, mapped from the disk."""

    rows: np.ndarray  # rows of the source, ascending, int64[m]
    centre: np.ndarray  # features of each image's centre crop, float32[m, width]
    views: list[np.ndarray]  # features of augmented views of the training set, in its order, each float32[n, width]

    def of_rows(self, rows: np.ndarray) -> np.ndarray:
        """Return the centre crops' features of some rows of the source, int[n] -> float32[n, width]."""
        return np.asarray(self.centre[np.searchsorted(self.rows, rows)])


def compute(
    encoder: Encoder,
    trunk: Any,
    dataset: Dataset,
    *,
    views: int,
    identity: Any,
    directory: Path,
    stop: Callable[[], bool],
    note_seconds: float = 5.0,
) -> Features:
    """Run a trunk over all images of a split, or open what an earlier run has computed.

    Args:
      encoder: encodes the images.
      trunk: the trunk's variables.
      dataset: source and split.
      views: how many augmented views of the training set to compute, in addition to the centre crops.
      identity: everything else that the features depend on, JSON-serialisable.
      directory: where the features are stored, in a folder named by a hash of all that they depend on.
      stop: asked after each batch.
      note_seconds: for tests: the least time between two notes of what is on the disk.

    Returns:
      The features.

    Raises:
      InputError: the folder can't be used.
      Stopped: `stop` returned True; the same call continues with what is on the disk.
    """
    if storage.is_remote(directory):
        raise InputError(
            f"{directory} can't hold a frozen trunk's features, which are mapped from a disk; fix: give a folder on this "
            "machine with --config.data.feature_cache and a new --workdir"
        )
    rows = np.unique(np.concatenate(dataset.split))
    key = {"trunk": tree_sha256(trunk), "images": dataset.source.stamp(rows), "rows": rows.tolist(), "of": identity}
    train = dataset.split.train
    folder = directory / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]
    total = len(rows) + views * len(train)
    with _locked(folder, stop), progress_bar(total, unit="images", description="frozen trunk") as bar:

        def compute_or_open(name: str, which: np.ndarray, seed: int | None) -> np.ndarray:
            return _compute_or_open(
                folder / name,
                len(which),
                lambda start: encoder.features(trunk, which, seed=seed, start=start),
                stop=stop,
                note_seconds=note_seconds,
                on_progress=bar.update,
            )

        # A view's seed is its number, and training images are hashed in their order: another split makes other views.
        order = hashlib.sha256(np.ascontiguousarray(train, np.int64).tobytes()).hexdigest()[:8]
        names = [f"view{k}_{order}" for k in range(views)]
        return Features(
            rows, compute_or_open("centre", rows, None), [compute_or_open(name, train, k) for k, name in enumerate(names)]
        )


def _compute_or_open(
    path: Path,
    count: int,
    batches: Callable[[int], Iterator[np.ndarray]],
    *,
    stop: Callable[[], bool],
    note_seconds: float,
    on_progress: Callable[[int], Any],
) -> np.ndarray:
    """Append the missing rows of `count` to PATH.f32, note their number and hash in PATH.json, and map all rows."""
    data = path.with_suffix(".f32")
    done, digest, width = _valid_rows(path, count)
    on_progress(done)
    if done < count:
        with data.open("r+b" if done else "wb") as file:
            file.truncate(done * width * 4)
            file.seek(done * width * 4)
            noted = time.monotonic()
            for batch in batches(done):
                content = np.ascontiguousarray(batch, np.float32).tobytes()
                file.write(content)
                digest.update(content)
                done, width = done + len(batch), batch.shape[1]
                on_progress(len(batch))
                stopping = stop()
                if done == count or stopping or time.monotonic() - noted > note_seconds:
                    file.flush()
                    os.fsync(file.fileno())
                    note = {"rows": done, "width": width, "sha256": _hash_note(digest, done, width)}
                    workdir.write_json(path.with_suffix(".json"), note)
                    noted = time.monotonic()
                if done < count and stopping:
                    raise Stopped
    return np.memmap(data, np.float32, mode="r", shape=(count, width))


def _hash_note(digest: Any, done: int, width: int) -> str:
    """Hash the rows together with their number and width."""
    digest = digest.copy()
    digest.update(f"{done} {width}".encode())
    return digest.hexdigest()


def _valid_rows(path: Path, count: int) -> tuple[int, Any, int]:
    """Return how many valid rows are on the disk, their hash and their width; zero if the cache is invalid."""
    try:
        note = json.loads(path.with_suffix(".json").read_text())
        done, width, digest = int(note["rows"]), int(note["width"]), hashlib.sha256()
        with path.with_suffix(".f32").open("rb") as file:
            if 0 < done <= count and width > 0 and done * width * 4 <= os.fstat(file.fileno()).st_size:
                for _ in range(done):
                    digest.update(file.read(width * 4))
                if _hash_note(digest, done, width) == note["sha256"]:
                    return done, digest, width
        logging.warning("features in %s are damaged: they are computed again", path)
    except FileNotFoundError:
        pass
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        logging.warning("features in %s are damaged: they are computed again", path)
    return 0, hashlib.sha256(), 0


@contextlib.contextmanager
def _locked(folder: Path, stop: Callable[[], bool]) -> Iterator[None]:
    """Make a folder, and let one run at a time into it."""
    advice = "fix: give another --config.data.feature_cache, on a local disk, and a new --workdir"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} can't be used for features ({error.strerror}); {advice}") from error
    waiting = False
    while True:
        try:
            lock = FileLock(folder / ".lock")
            break
        except BlockingIOError:  # another run computes the same features
            if not waiting:
                print(f"waiting for another run that computes the same features in {folder}", file=sys.stderr, flush=True)
            waiting = True
            if stop():
                raise Stopped from None
            time.sleep(0.2)
        except OSError as error:  # some network disks have no locks
            raise InputError(f"{folder} can't be locked ({error.strerror}); {advice}") from error
    with contextlib.closing(lock):
        yield


def tree_sha256(tree: Any) -> str:
    """Hash a tree's paths, dtypes, shapes and numbers: 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()
