"""Send a run's metrics to Weights & Biases or MLflow, beside its own files. A tracker that fails costs one warning, no more."""

import contextlib
import importlib.util
import math
import os
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from adsq_jax import storage
from adsq_jax.errors import InputError, Stopped, did_you_mean, last_line, printable
from adsq_jax.run import workdir
from adsq_jax.run.metrics_log import MetricsLog, SilentLog, group

FILE = "trackers.json"  # in the folder of a run: what each tracker calls it
_PROJECT = "adsq_jax"  # where the tracker's own environment variable names no other
_PACKAGES = {"wandb": "wandb", "mlflow": "mlflow-skinny"}  # what to install, by the module and the name of the flag
_LONGEST_QUEUE = 10_000  # records that wait for a slow server
_FINISH_SECONDS = 60.0  # for what waits when the run has ended
_OF_RESULT = ("map", "map_by_query_net", "seconds", "seconds_train")  # of result.json
_MOST_PARAMETERS = 100  # that MLflow takes at once
_LONGEST_NAME = 128  # of a run or a project
_MOST_CHARACTERS = 500  # of a parameter; older servers of MLflow take no more


class _Tracker(Protocol):
    """One run of one tracker."""

    identity: dict[str, str]  # names the run to the tracker, for a later call
    where: str  # tells the user

    def send(self, phase: str, step: int, values: dict[str, Any]) -> None:
        """Send metrics by their names, `img_net/f/loss`."""

    def finish(self, result: dict[str, float], *, state: str) -> None:
        """Send the result, and say that the run is "finished", "stopped" or "failed"."""


class Trackers:
    """The trackers of a run, none of which can end it or change it; a context that finishes them."""

    def __init__(self, senders: Iterable["_Sender"] = ()):
        """Take the senders of trackers that have started; without any, all methods do nothing."""
        self._senders, self._result = list(senders), dict[str, float]()

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        stopped = kind is not None and issubclass(kind, Stopped | KeyboardInterrupt)
        state = "finished" if kind is None else "stopped" if stopped else "failed"
        for sender in self._senders:
            sender.finish(self._result, state=state)

    def following(self, log: MetricsLog) -> MetricsLog:
        """Return a log that does what the given one does, and sends each record to the trackers, too."""
        return _FollowedLog(log, self._senders) if self._senders else log

    def set_result(self, result: dict[str, Any]) -> None:
        """Take the content of `result.json`, whose main figures are sent at the end."""
        self._result = dict(_numbers({name: result.get(name) for name in _OF_RESULT}, "result"))


def check(names: Collection[str]) -> None:
    """Check that trackers are known and installed.

    Raises:
      InputError: one isn't.
    """
    for name in names:
        if name not in _PACKAGES:
            raise InputError(f"--log={name}: expected {' or '.join(_PACKAGES)}{did_you_mean(name, _PACKAGES)}")
        spec = None if name in sys.modules else importlib.util.find_spec(name)
        if name not in sys.modules and (spec is None or spec.origin is None):  # a folder wandb/ is a package without origin
            raise InputError(
                f"--log={name} needs {_PACKAGES[name]}, which isn't installed; fix: pip install 'adsq_jax[{name}]'"
            )


def start(names: Collection[str], directory: Path, config: dict[str, Any]) -> Trackers:
    """Start a run of each tracker, or go on with the one that an earlier call began.

    Their own environment variables say where: WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE, MLFLOW_TRACKING_URI,
    MLFLOW_EXPERIMENT_NAME and so on.

    Args:
      names: "wandb", "mlflow" or both.
      directory: the folder of the run, claimed; it gets `trackers.json`, and on a disk wandb's own files.
      config: of the run, as JSON can hold it.

    Returns:
      The trackers, as a context that finishes them.

    Raises:
      InputError: a tracker is unknown, not installed, or can't start a new run; or `trackers.json` is damaged. If the tracker
        had begun before, there is a warning, and the run goes on without it.
    """
    names = list(dict.fromkeys(names))
    check(names)
    if not names:
        return Trackers()
    identities = _read(directory / FILE)
    with contextlib.ExitStack() as started:
        senders = []
        for name in names:
            begun = identities.get(name)
            try:
                tracker: _Tracker = (_Wandb if name == "wandb" else _MLflow)(directory, config, begun)
            except Exception as error:
                problem = f"--log={name} can't {'start' if begun is None else 'go on'} ({_reason(error)})"
                if begun is None:
                    raise InputError(f"{problem}; fix: set it up, or leave out --log={name}") from error
                _warn(f"{problem}: the run goes on without it")
                continue
            senders.append(started.enter_context(_Sender(name, tracker)))
            print(f"{name}: {tracker.where}", file=sys.stderr, flush=True)
            identities[name] = tracker.identity
        workdir.write_json(directory / FILE, identities)
        started.pop_all()
    return Trackers(senders)


def _read(path: Path) -> dict[str, dict[str, str]]:
    """Return the identities that an earlier call wrote, by tracker."""
    content: Any = workdir.read_json(path) if storage.is_file(path) else {}
    if not isinstance(content, dict) or not all(isinstance(tree, dict) and _is_identity(tree) for tree in content.values()):
        raise InputError(f"{path} is not what --log wrote; fix: restore it, or remove it to begin new runs of the trackers")
    return content


def _is_identity(tree: dict[str, Any]) -> bool:
    texts = [text for text in tree.values() if isinstance(text, str) and text.isprintable() and 0 < len(text) <= _LONGEST_NAME]
    return "id" in tree and tree.keys() <= {"id", "project", "entity"} and len(texts) == len(tree)


class _FollowedLog(SilentLog):
    """A log whose records also go to senders."""

    def __init__(self, log: MetricsLog, senders: Iterable["_Sender"]):
        self._log, self._senders = log, list(senders)
        self.phase, self.say, self.show, self.close = log.phase, log.say, log.show, log.close  # type: ignore[method-assign]

    def record(self, phase: str, step: int, values: dict[str, Any], *, labels: dict[str, Any]) -> None:
        """Write a record where the log does, and pass it on."""
        self._log.record(phase, step, values, labels=labels)
        for sender in self._senders:
            sender.put(phase, step, {f"{group(phase, labels)}/{name}": value for name, value in values.items()})


class _Sender:
    """Sends records from a thread of its own, so that a slow server doesn't hold up training."""

    def __init__(self, name: str, tracker: _Tracker):
        self._name, self._tracker, self._warned = name, tracker, False
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue(_LONGEST_QUEUE)  # None: no more follows
        self._thread = threading.Thread(target=self._run, name=f"--log={name}", daemon=True)
        self._thread.start()

    def __enter__(self) -> "_Sender":
        return self

    def __exit__(self, *_: object) -> None:
        self.finish({}, state="failed")

    def put(self, phase: str, step: int, values: dict[str, Any]) -> None:
        """Send a record soon; drop it if too many wait."""
        try:
            self._queue.put_nowait(partial(self._tracker.send, phase, step, values))
        except queue.Full:
            self._warn("it is too slow, and misses records")

    def finish(self, result: dict[str, float], *, state: str) -> None:
        """Finish the tracker's run once all records are sent, or give up after a minute."""
        deadline = time.monotonic() + _FINISH_SECONDS
        try:
            for last in (partial(self._tracker.finish, result, state=state), None):
                self._queue.put(last, timeout=max(0.0, deadline - time.monotonic()))
        except queue.Full:
            pass
        else:
            self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self._warn(f"it has not taken everything in {_FINISH_SECONDS:.0f} seconds")

    def _run(self) -> None:
        while (call := self._queue.get()) is not None:
            try:
                call()
            except Exception as error:
                self._warn(_reason(error))

    def _warn(self, problem: str) -> None:
        if not self._warned:
            self._warned = True
            _warn(f"--log={self._name}: {problem}; the run goes on, and metrics.jsonl has everything")


class _Wandb:
    """A run of Weights & Biases."""

    def __init__(self, directory: Path, config: dict[str, Any], begun: dict[str, str] | None):
        import wandb

        options: dict[str, Any] = {"silent": True, "console": "off"}  # what a run prints is not the tracker's
        if "finish_timeout" in getattr(wandb.Settings, "model_fields", ()):
            options["finish_timeout"] = _FINISH_SECONDS
        known: dict[str, Any] = begun or {"project": os.environ.get("WANDB_PROJECT") or _PROJECT}
        self._run = wandb.init(
            **known,
            dir=None if storage.is_remote(directory) or os.environ.get("WANDB_DIR") else str(directory),
            name=directory.name,
            config=config,
            resume="allow",
            reinit="create_new",  # a run that the user has open stays open, and gets nothing of ours
            allow_val_change=True,
            settings=wandb.Settings(**options),
        )
        for phase in ("img_net", "codes", "validation"):
            self._run.define_metric(f"{phase}/*", step_metric="step")
        self._run.define_metric("label_net/*", step_metric="label_net/step")  # LabelNet counts its own steps
        self.identity = {key: getattr(self._run, key) for key in ("id", "project", "entity") if getattr(self._run, key)}
        self.where = f"the run {self._run.id}, offline" if self._run.offline else self._run.url or f"the run {self._run.id}"

    def send(self, phase: str, step: int, values: dict[str, Any]) -> None:
        self._run.log({**values, "label_net/step" if phase == "label_net" else "step": step})

    def finish(self, result: dict[str, float], *, state: str) -> None:
        try:
            self._run.summary.update(result)
        finally:
            self._run.finish(exit_code=int(state != "finished"))


class _MLflow:
    """A run of MLflow, by its client, which leaves the process's own current run alone."""

    def __init__(self, directory: Path, config: dict[str, Any], begun: dict[str, str] | None):
        import mlflow
        from mlflow import entities

        self._metric, self._client = entities.Metric, mlflow.MlflowClient()
        if begun is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or _PROJECT
            there = self._client.get_experiment_by_name(name)
            experiment = self._client.create_experiment(name) if there is None else there.experiment_id
            self._id = self._client.create_run(experiment, run_name=directory.name).info.run_id
            parameters = [entities.Param(key, str(value)[:_MOST_CHARACTERS]) for key, value in _leaves(config)]
            for first in range(0, len(parameters), _MOST_PARAMETERS):
                self._client.log_batch(self._id, params=parameters[first : first + _MOST_PARAMETERS])
        else:
            self._id = begun["id"]
            self._client.update_run(self._id, status="RUNNING")
        self.identity = {"id": self._id}
        self.where = f"the run {self._id}"

    def send(self, phase: str, step: int, values: dict[str, Any]) -> None:
        now = int(time.time() * 1000)
        names = {re.sub(r"[^\w .:/-]", "_", name): value for name, value in values.items()}
        self._client.log_batch(self._id, metrics=[self._metric(name, value, now, step) for name, value in names.items()])

    def finish(self, result: dict[str, float], *, state: str) -> None:
        try:
            if result:
                self.send("result", 0, result)
        finally:
            self._client.set_terminated(self._id, {"finished": "FINISHED", "stopped": "KILLED"}.get(state, "FAILED"))


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _numbers(tree: dict[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}/{key}")
        elif isinstance(value, int | float) and math.isfinite(value):
            yield f"{prefix}/{key}", value


def _reason(error: Exception) -> str:
    return printable(last_line(error)[:300], keep="")


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
