"""The processes that train together, on one machine or many: what they tell one another."""

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from adsq_jax.errors import InputError

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # that mean: save and stop
_PATIENCE = 300  # seconds that processes wait for one another at the start
_LONGEST_NOTE = 4096  # bytes that a process tells the others at once
_Outcome = TypeVar("_Outcome")


class AgreedError(InputError):
    """Bad input that every process knows of, so that none is waited for."""


def connect(*, coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Joins the processes that train together, before JAX starts.

    Args:
      coordinator: HOST:PORT of process 0; None: JAX finds it where it knows the surroundings (Cloud TPU, Slurm, MPI), and
        without any this process is alone.
      processes: how many; None as above.
      process: which of them this is, from 0; None as above.

    Ends the process with status 1 where the others don't come within five minutes.

    Raises:
      InputError: the coordinator's port is in use.
    """
    if process == 0 and coordinator is not None:
        _check_free(coordinator)
    found_by = None if coordinator is None else "deactivate"  # flags count more than what JAX knows of the surroundings
    asked_at = coordinator or "the coordinator"

    def give_up() -> None:  # JAX would end the process from within C++, with a page of addresses
        print(
            f"error: the processes didn't find one another at {asked_at} within {_PATIENCE} s: start all of them, with the "
            "same --coordinator and --processes, and --process=0, 1, ...",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)

    timer = threading.Timer(_PATIENCE, give_up)
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process,
            cluster_detection_method=found_by,
            initialization_timeout=_PATIENCE + 60,
        )
    except ValueError as error:
        if coordinator is not None or "coordinator_address" not in str(error):
            raise
    finally:
        timer.cancel()


def _check_free(coordinator: str) -> None:
    try:
        socket.create_server(("", int(coordinator.rpartition(":")[2]))).close()
    except OSError as error:
        raise InputError(f"--coordinator={coordinator} can't be used ({error.strerror}): give another port, to all") from error


def hard_exit(status: int) -> None:
    """Ends this process at once, if there are others: an orderly end would wait for them, and they may wait for this one."""
    if count() > 1:
        sys.stderr.flush()
        os._exit(status)


def disconnect() -> None:
    """Waits until all processes are done."""
    if count() > 1:
        jax.distributed.shutdown()


def count() -> int:
    """How many train together."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def index() -> int:
    """Which of them this is, from 0."""
    return jax.process_index() if count() > 1 else 0


def leads() -> bool:
    """Whether this is the process that writes logs and results."""
    return index() == 0


def local_range(size: int, process: int) -> tuple[int, int]:
    """The rows of an array of `size` that a process sees to: start and stop."""
    each = -(-size // count())
    start = min(process * each, size)
    return start, min(start + each, size)


def name() -> str:
    """What this process is called: `process 1 of 4 on HOST`; nothing where it is alone."""
    return f"process {index()} of {count()} on {socket.gethostname()}" if count() > 1 else ""


def wait_for_all(what: str) -> None:
    """Returns when every process has come here."""
    if count() > 1:
        multihost_utils.sync_global_devices(what)


def gather(array: np.ndarray) -> np.ndarray:
    """The same array of every process, of a dtype of a multiple of 4 bytes: [processes, ...]."""
    if count() == 1:
        return array[None]
    # as halves: without its 64-bit mode JAX would cut an int64 short
    halves = multihost_utils.process_allgather(np.ascontiguousarray(array).reshape(-1).view(np.uint32))
    return np.asarray(halves).view(array.dtype).reshape(-1, *array.shape)


def total(array: Any) -> np.ndarray:
    """The sum of an array over all processes, always in the same order; float64 or int64."""
    array = np.asarray(array)
    return gather(array.astype(np.float64 if array.dtype.kind == "f" else np.int64)).sum(axis=0)


def broadcast_from_0(tree: Any) -> Any:
    """Process 0's arrays, for all."""
    return multihost_utils.broadcast_one_to_all(tree) if count() > 1 else tree


def _notes_of_all(text: str) -> list[str]:
    """A short text of every process."""
    note = text.encode()[:_LONGEST_NOTE]
    notes = gather(np.frombuffer(note.ljust(_LONGEST_NOTE), np.uint32))
    return [x.tobytes().rstrip().decode(errors="ignore") for x in notes]


def run_on_all(function: Callable[[], _Outcome]) -> _Outcome:
    """Calls a function in every process; where it fails in one, all say so and stop, and none waits for ever.

    Raises:
      InputError: the function's, of the first process that has one.
    """
    outcome, said = None, ""
    try:
        outcome = function()
    except InputError as error:
        if count() == 1:
            raise
        said = str(error)
    for process, text in enumerate(_notes_of_all(said)):
        if text:
            raise AgreedError(text if process == index() else f"process {process} says: {text}")
    return outcome  # type: ignore[return-value]  # it did not fail


def check_same(**values: str) -> None:
    """Says that all processes have the same of what decides a run.

    Args:
      **values: by name, for instance `config="3f0c..."`.

    Raises:
      InputError: in every process, that one has another.
    """
    first, *others = (json.loads(text) for text in _notes_of_all(json.dumps(values)))
    for process, theirs in enumerate(others, start=1):
        for name in values:
            if theirs[name] != first[name]:
                raise AgreedError(
                    f"process {process} has another {name.replace('_', ' ')} than process 0 ({theirs[name][:12]} there, "
                    f"{first[name][:12]} here): start all with the same command, the same version of adsq_jax and the same data"
                )


def agreed_stop(asked: Callable[[], bool]) -> Callable[[], bool]:
    """Makes a question of one process, whether to stop, one that all answer alike.

    Args:
      asked: whether a signal came to this process, where it is alone.

    Returns:
      What every process calls equally often: it says yes from the same call on in all, soon after SIGTERM came to one.
    """
    if count() == 1:
        return asked
    calls, stopping = 0, False

    def stop() -> bool:
        nonlocal calls, stopping
        calls += 1
        # JAX's own handler of SIGTERM, which `connect` has set, finds a call that no process has made yet
        stopping = stopping or multihost_utils.reached_preemption_sync_point(calls)
        return stopping

    return stop


def jax_handles(number: int) -> bool:
    """Whether JAX has a handler of its own for a signal: SIGTERM, where several processes must agree on when to stop."""
    return count() > 1 and number == signal.SIGTERM


def propagate_signal() -> None:
    """Makes a signal that came to this process one that all processes learn of."""
    if count() > 1:
        os.kill(os.getpid(), signal.SIGTERM)
