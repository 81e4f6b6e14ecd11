"""Write and show the metrics of a run, no more: `training/rounds.py` and `training/step.py` decide what is logged."""

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import logging

from adsq_jax import storage
from adsq_jax.run import workdir
from adsq_jax.run.metrics_display import MetricsDisplay

_EVENTS_SECONDS = 30.0  # between two writes of TensorBoard's files to the disk, at least
_STORE_SECONDS = 10.0  # between two writes of a file to an object store, at least


class MetricsLog:
    """Writes the metrics of a run to its folder, and shows them on standard error."""

    def __init__(self, directory: Path, *, start: int | None):
        """Open the files of a run.

        Lines of `metrics.jsonl` after `start`, the step that the run resumes from, are dropped, since the run repeats them.
        None means a new run: all lines are dropped.
        """
        path = directory / "metrics.jsonl"
        lines = b"" if start is None else _lines_until(path, start)
        workdir.write_bytes(path, lines)
        self._file = _RemoteFile(path, lines) if storage.is_remote(path) else path.open("ab")
        # Events are hidden from a step on: LabelNet counts its own steps, so it has its own folder.
        events = directory / "tensorboard"
        self._label_net_events = _Events(events / "label_net", hide_from=0 if start is None else None)
        self._events = _Events(events / "img_nets", hide_from=0 if start is None else start + 1)
        self._display = MetricsDisplay()

    def phase(self, name: str, *, total: int, start: int = 0) -> None:
        """Begin to show a phase of `total` steps, `start` of which are done."""
        self._display.phase(name, total=total, start=start)

    def say(self, text: str) -> None:
        """Show a line of text."""
        self._display.say(text)

    def record(self, phase: str, step: int, values: dict[str, Any], *, labels: dict[str, Any]) -> None:
        """Write one line of metrics, without showing it.

        The phase is `label_net`, `img_net`, `codes` or `validation`; `labels` has further entries, for instance {"net": "f"}.
        """
        line = {"phase": phase, "step": step, **labels, **values}
        self._file.write((json.dumps(line, allow_nan=False) + "\n").encode())
        self._file.flush()
        events = self._label_net_events if phase == "label_net" else self._events
        for name, value in values.items():
            events.add(f"{group(phase, labels)}/{name}", value, step)
        events.flush_now_and_then()

    def show(self, step: int, values: dict[str, float], *, label: str, images_per_second: float | None = None) -> None:
        """Show how far the phase is: the step, the metrics, the speed, and the time left."""
        self._display.show(step, values, label=label, images_per_second=images_per_second)

    def close(self) -> None:
        """Write pending lines, and close files and bars."""
        with contextlib.ExitStack() as closing:  # all of them, though a full disk makes one fail
            for part in (self._display, self._events, self._label_net_events, self._file):
                closing.callback(part.close)


class SilentLog(MetricsLog):
    """A log that writes and shows nothing: for training in memory, and for all processes but the first."""

    def _ignore(self, *arguments: Any, **options: Any) -> None:
        pass

    __init__ = phase = say = record = show = close = _ignore


class CallbackLog(SilentLog):
    """A log that calls a function with what would be a line of `metrics.jsonl`, and writes and shows nothing itself.

    Such a line is {"phase": "img_net", "step": 20, "net": "f", "likelihood": 0.3, ...}.
    """

    def __init__(self, on_progress: Callable[[dict[str, Any]], None]):
        self._on_progress = on_progress

    def record(self, phase: str, step: int, values: dict[str, Any], *, labels: dict[str, Any]) -> None:
        """Call the function; arguments as in `MetricsLog.record`."""
        self._on_progress({"phase": phase, "step": step, **labels, **values})


def group(phase: str, labels: dict[str, Any]) -> str:
    """Return what the names of a record's metrics begin with where they are plotted: `img_net/f`."""
    return "/".join([phase, *[label for label in labels.values() if isinstance(label, str)]])


class _Events:
    """The values of a folder as TensorBoard reads them, written by this thread, so that an error is this thread's too."""

    def __init__(self, folder: Path, *, hide_from: int | None):
        """Begin a file; TensorBoard hides what earlier files have from that step on."""
        from tensorboardX import event_file_writer, record_writer  # with boto3 and PyTorch, if they are there: a second
        from tensorboardX.proto import event_pb2
        from tensorboardX.summary import scalar

        for scheme in storage.SCHEMES:  # tensorboardX's own writers need further packages and other settings
            record_writer.register_writer_factory(scheme, _RemoteFiles())
        self._event, self._scalar = event_pb2.Event, scalar
        if not storage.is_remote(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._writer = event_file_writer.EventsWriter(str(folder / "events"))
        self._flushed, self._closed = 0.0, False
        if hide_from is not None:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._writer.write_event(self._event(step=hide_from, wall_time=time.time(), session_log=start))

    def add(self, name: str, value: Any, step: int) -> None:
        """Add a value."""
        self._writer.write_event(self._event(step=int(step), wall_time=time.time(), summary=self._scalar(name, value)))

    def flush_now_and_then(self) -> None:
        """Write what was added to the disk, unless that was done a moment ago."""
        if time.monotonic() - self._flushed >= _EVENTS_SECONDS:
            self._writer.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Write what was added, and close the file; once that was done, do nothing."""
        if not self._closed:
            self._writer.close()
            self._closed = True


class _RemoteFile:
    """A growing file in an object store. Stores can't append: the object is replaced from time to time, and at the end."""

    def __init__(self, path: Path, content: bytes = b""):
        self._path, self._content = path, bytearray(content)
        self._last_write, self._written = time.monotonic(), len(content)

    def write(self, content: bytes) -> None:
        self._content += content

    def flush(self) -> None:
        if time.monotonic() - self._last_write < _STORE_SECONDS:
            return
        try:
            self._store()
        except OSError as error:
            logging.warning("%s can't be written (%s): the next write tries again", self._path, error.strerror)

    def close(self) -> None:
        if self._written < len(self._content):
            self._store()

    def _store(self) -> None:
        self._last_write = time.monotonic()  # before the attempt, which may fail and takes time
        content = bytes(self._content)
        storage.write(self._path, content)
        self._written = len(content)


class _RemoteFiles:
    """What tensorboardX asks to open files in an object store."""

    def directory_check(self, path: str) -> None:
        """Accept any folder: a store has none."""

    def open(self, path: str) -> _RemoteFile:
        return _RemoteFile(storage.path(path))


def _lines_until(path: Path, start: int) -> bytes:
    """Return the complete lines up to step `start`, and all of LabelNet's."""
    lines = []
    for line in storage.read(path).splitlines(keepends=True) if storage.is_file(path) else []:
        try:
            entry = json.loads(line)
            keep = entry["phase"] == "label_net" or entry["step"] <= start
        except (ValueError, LookupError, TypeError, RecursionError):  # cut short by a kill, or not a line of this log
            continue
        if line.endswith(b"\n") and keep:
            lines.append(line)
    return b"".join(lines)
