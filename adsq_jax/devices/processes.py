"""The processes that train together, on one machine or many: how they connect, exchange data, and stop together."""

import collections
import concurrent.futures
import json
import os
import re
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

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # on which a run saves and stops
_CONNECT_SECONDS = 300  # for all processes to find one another
_TEXT_BYTES = 4096  # length of a text that processes exchange; longer ones are cut
_Result = TypeVar("_Result")


class AgreedError(InputError):
    """Bad input that every process has been told of, so all exit normally."""


def connect(*, coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Connect the processes that train together.

    Call this before JAX starts; afterwards it has no effect and the process runs on its own. If the others don't connect within
    five minutes, this process ends with status 1.

    Args:
      coordinator: HOST:PORT of process 0; None: ask the cluster (Cloud TPU, Slurm, MPI); without a cluster this process is
        the only one.
      processes: the number of processes; None: ask the cluster.
      process: the number of this process, from 0; None: ask the cluster.

    Raises:
      InputError: the coordinator's port is in use.
    """
    if process == 0 and coordinator is not None:
        _check_free(coordinator)

    def give_up() -> None:  # JAX would abort in C++ and print a page of addresses
        print(
            f"error: expected all processes to connect to {coordinator or 'the coordinator'} within {_CONNECT_SECONDS} s; fix: "
            "start all of them, with the same --coordinator and --processes, and --process=0, 1, ...",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)

    timer = threading.Timer(_CONNECT_SECONDS, give_up)
    timer.daemon = True
    timer.start()

    def initialize() -> None:
        jax.distributed.initialize(
            coordinator,
            processes,
            process,
            cluster_detection_method=None if coordinator is None else "deactivate",  # flags override the cluster
            initialization_timeout=_CONNECT_SECONDS + 60,
        )

    try:
        _in_a_thread(initialize)
    except (ValueError, RuntimeError) as error:  # there is no cluster; JAX has started, in a notebook or by an earlier command
        if coordinator is not None or not re.search("coordinator_address|must be called before", str(error)):
            raise
    finally:
        timer.cancel()


def _in_a_thread(function: Callable[[], None]) -> None:
    """Call a function in another thread: this one handles signals meanwhile, which it can't while it waits in C++."""
    ended = concurrent.futures.Future[None]()

    def call() -> None:
        try:
            function()
        except BaseException as error:
            ended.set_exception(error)
        else:
            ended.set_result(None)

    threading.Thread(target=call, daemon=True).start()
    ended.result()


def _check_free(coordinator: str) -> None:
    try:
        socket.create_server(("", int(coordinator.rpartition(":")[2]))).close()
    except OSError as error:
        raise InputError(
            f"--coordinator={coordinator} can't be used ({error.strerror}); fix: give another port, to all"
        ) from error


def hard_exit_if_several(status: int) -> None:
    """End this process immediately if there are several, since a normal exit waits for the others; else return."""
    if count() > 1:
        sys.stderr.flush()
        os._exit(status)


def disconnect() -> None:
    """Wait until all processes call this, and end their connection."""
    if count() > 1:
        jax.distributed.shutdown()


def count() -> int:
    """Return the number of processes."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def index() -> int:
    """Return the number of this process, from 0."""
    return jax.process_index() if count() > 1 else 0


def leads() -> bool:
    """Return whether this is process 0, which writes logs and results."""
    return index() == 0


def local_range(size: int, process: int) -> tuple[int, int]:
    """Return start and stop of the rows that a process works on, of an array of `size` rows."""
    rows = -(-size // count())
    start = min(process * rows, size)
    return start, min(start + rows, size)


def name() -> str:
    """Return this process's name in messages, `process 1 of 4 on HOST`; "" if it is the only one."""
    return f"process {index()} of {count()} on {socket.gethostname()}" if count() > 1 else ""


def wait_for_all(barrier: str) -> None:
    """Wait until all processes call this with the same name of a barrier."""
    if count() > 1:
        multihost_utils.sync_global_devices(barrier)


def gather(array: np.ndarray) -> np.ndarray:
    """Stack an array of all processes, [processes, ...]; its dtype has a multiple of 4 bytes."""
    if count() == 1:
        return array[None]
    # as uint32: JAX without 64-bit mode would truncate int64 and float64
    halves = multihost_utils.process_allgather(np.ascontiguousarray(array).reshape(-1).view(np.uint32))
    return np.asarray(halves).view(array.dtype).reshape(-1, *array.shape)


def total(array: Any) -> np.ndarray:
    """Sum an array over all processes, always in the same order, in float64 or int64."""
    array = np.asarray(array)
    return gather(array.astype(np.float64 if array.dtype.kind == "f" else np.int64)).sum(axis=0)


def broadcast_from_0(tree: Any) -> Any:
    """Return the arrays of process 0 in all processes."""
    return multihost_utils.broadcast_one_to_all(tree) if count() > 1 else tree


def _gather_text(text: str) -> list[str]:
    """Return the text of each process."""
    rows = gather(np.frombuffer(text.encode()[:_TEXT_BYTES].ljust(_TEXT_BYTES), np.uint32))
    return [row.tobytes().rstrip().decode(errors="ignore") for row in rows]


def run_on_all(function: Callable[[], _Result]) -> _Result:
    """Call a function in every process; if it raises InputError in some, all raise the first, so that none waits for ever."""
    result, problem = None, ""
    try:
        result = function()
    except InputError as error:
        if count() == 1:
            raise
        problem = str(error)
    for process, text in enumerate(_gather_text(problem)):
        if text:
            raise AgreedError(text if process == index() else f"process {process} says: {text}")
    return result  # type: ignore[return-value]  # it did not fail


def run_on_leader(function: Callable[[], _Result]) -> _Result | None:
    """Call a function in process 0 alone; if it raises InputError, all raise it. Return its result there, None elsewhere."""
    return run_on_all(lambda: function() if leads() else None)


def check_same(**values: str) -> None:
    """Raise InputError in all processes if the values, as `config="3f0c..."`, or the numbers of devices are not the same."""
    _check_devices()
    first, *others = (json.loads(text) for text in _gather_text(json.dumps(values)))
    for process, theirs in enumerate(others, start=1):
        for name in values:
            if theirs[name] != first[name]:
                raise AgreedError(
                    f"process {process} has another {name.replace('_', ' ')} than process 0 ({theirs[name][:12]}, not "
                    f"{first[name][:12]}); fix: start all with the same command, version of adsq_jax and data"
                )


def _check_devices() -> None:
    """Raise InputError if processes have different numbers of devices: they couldn't exchange anything."""
    if count() == 1:
        return
    devices = collections.Counter(device.process_index for device in jax.devices())
    for process in range(1, count()):
        if devices[process] != devices[0]:
            raise AgreedError(
                f"process {process} has {devices[process]} devices and process 0 has {devices[0]}; fix: give all the same "
                "number of GPUs, or without an accelerator --config.host_devices=N"
            )


def is_lost_connection(error: BaseException) -> bool:
    """Return whether an exception says that another process has ended, as JAX does in several ways."""
    if count() == 1:
        return False
    return isinstance(error, jax.errors.JaxRuntimeError) or (isinstance(error, ValueError) and "Gloo " in str(error))


def agreed_stop(signalled: Callable[[], bool]) -> Callable[[], bool]:
    """Return a function that tells all processes to stop at the same call, soon after any of them gets SIGTERM.

    All must call it the same number of times. A single process stops when `signalled()` is true.
    """
    if count() == 1:
        return signalled
    calls, stopping = 0, False

    def stop() -> bool:
        nonlocal calls, stopping
        calls += 1
        # JAX's handler of SIGTERM, which `connect` has installed, chooses a call that no process has made yet
        stopping = stopping or multihost_utils.reached_preemption_sync_point(calls)
        return stopping

    return stop


def jax_handles(number: int) -> bool:
    """Return whether JAX handles a signal itself: SIGTERM, if several processes must agree on when to stop."""
    return count() > 1 and number == signal.SIGTERM


def propagate_signal() -> None:
    """Tell all processes of a signal that this process received."""
    if count() > 1:
        os.kill(os.getpid(), signal.SIGTERM)
