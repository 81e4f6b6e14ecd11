"""What a run tells while it runs: JSON lines, TensorBoard events, and a bar on a terminal or plain lines elsewhere."""

import json
import shutil
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

from absl import logging
from tensorboardX import SummaryWriter, record_writer
from tqdm import tqdm

from adsq_jax import storage
from adsq_jax.run import workdir

_QUIET_SECONDS = 10.0  # least time between two plain lines
_STORE_SECONDS = 10.0  # least time between two writes of a file to an object store


class MetricsLog:
    """Writes a run's metrics to its folder, and shows them."""

    def __init__(self, directory: Path, *, start: int | None, total: int):
        """Opens the records.

        Args:
          directory: the run's folder; lines of `metrics.jsonl` from beyond `start` are dropped, since they come again.
          start: the step of the checkpoint the run goes on from, or None where it begins: then all lines are dropped.
          total: steps in all.
        """
        path = directory / "metrics.jsonl"
        kept = b"" if start is None else _lines_until(path, start)
        workdir.write_bytes(path, kept)
        self._file = _Object(path, kept) if storage.is_remote(path) else path.open("ab")
        for scheme in storage.SCHEMES:  # TensorBoard's own want further packages, and other settings than the rest of a run
            record_writer.register_writer_factory(scheme, _Objects())
        # TensorBoard forgets all of a folder's values from a step on: LabelNet, whose steps count apart, has its own folder.
        events = directory / "tensorboard"
        self._label_net_events = SummaryWriter(str(events / "label_net"), purge_step=0 if start is None else None)
        self._events = SummaryWriter(str(events / "img_nets"), purge_step=0 if start is None else start + 1)
        start = start or 0
        self._bar, self._below = None, []
        if sys.stderr.isatty():
            self._bar = tqdm(total=total, initial=start, unit="step", dynamic_ncols=True)
            # The loss terms stand below the bar, in as many lines as 80 columns need.
            self._below = [tqdm(bar_format="{desc}", position=line, leave=False) for line in (1, 2)]
        self._total, self._start, self._began, self._shown = total, start, time.monotonic(), 0.0

    def say(self, text: str) -> None:
        """Shows a line."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def record(self, phase: str, step: int, values: dict[str, Any], *, labels: dict[str, Any]) -> None:
        """Writes one line of metrics, without showing it.

        Args:
          phase: what is measured: `label_net`, `img_net` or `codes`.
          step: its number within the phase.
          values: numbers by name.
          labels: what else the line says, for instance {"net": "f"}.
        """
        line = {"phase": phase, "step": step, **labels, **values}
        self._file.write((json.dumps(line, allow_nan=False) + "\n").encode())
        self._file.flush()
        group = "/".join([phase, *[str(v) for v in labels.values() if isinstance(v, str)]])
        events = self._label_net_events if phase == "label_net" else self._events
        for name, value in values.items():
            events.add_scalar(f"{group}/{name}", value, step)

    def show(self, step: int, values: dict[str, float], *, label: str, images_per_second: float) -> None:
        """Shows where training is: each loss term, the speed, and the time left."""
        terms = format_metrics(values)
        if self._bar is not None:
            self._bar.set_description_str(label, refresh=False)
            self._bar.set_postfix_str(f"{images_per_second:.0f} images/s", refresh=False)
            self._bar.update(step - self._bar.n)
            self._bar.refresh()
            lines = textwrap.wrap(terms, max(20, shutil.get_terminal_size().columns - 1))
            for bar, line in zip(self._below, [*lines, "", ""], strict=False):
                bar.set_description_str(line)
            return
        now = time.monotonic()
        if now - self._shown < _QUIET_SECONDS and step < self._total:
            return
        self._shown = now
        left = (now - self._began) / max(step - self._start, 1) * (self._total - step)
        self.say(
            f"{label} step {step}/{self._total} {terms} | {images_per_second:.0f} images/s | "
            f"{int(left) // 60}:{int(left) % 60:02d} left"
        )

    def close(self) -> None:
        """Flushes and closes everything."""
        self._file.close()
        self._label_net_events.close()
        self._events.close()
        for bar in [*self._below, self._bar]:
            if bar is not None:
                bar.close()


class SilentLog(MetricsLog):
    """Of a process that doesn't lead: what it measures is what the leading one writes."""

    def __init__(self) -> None:
        """Opens nothing."""

    def say(self, text: str) -> None:
        """Says nothing."""

    def record(self, phase: str, step: int, values: dict[str, Any], *, labels: dict[str, Any]) -> None:
        """Writes nothing."""

    def show(self, step: int, values: dict[str, float], *, label: str, images_per_second: float) -> None:
        """Shows nothing."""

    def close(self) -> None:
        """Closes nothing."""


def format_metrics(values: dict[str, float]) -> str:
    """Numbers by name, for people: `balance 0.01 loss 0.3`."""
    return " ".join(f"{name} {value:.4g}" for name, value in values.items())


class _Object:
    """A file that grows, in an object store, which can't append: what is there is replaced now and then, and at the end."""

    def __init__(self, path: Path, content: bytes = b""):
        self._path, self._content = path, bytearray(content)
        self._stored, self._size = time.monotonic(), len(content)

    def write(self, content: bytes) -> None:
        self._content += content

    def flush(self) -> None:
        if time.monotonic() - self._stored < _STORE_SECONDS:
            return
        try:
            self._store()
        except OSError as error:
            logging.warning("%s can't be written (%s): it is tried again", self._path, error.strerror)

    def close(self) -> None:
        if self._size < len(self._content):
            self._store()

    def _store(self) -> None:
        self._stored = time.monotonic()  # also where it fails: an attempt takes time
        content = bytes(self._content)
        storage.write(self._path, content)
        self._size = len(content)


class _Objects:
    """Opens TensorBoard's files in an object store."""

    def directory_check(self, path: str) -> None:
        """A folder needn't be there."""

    def open(self, path: str) -> _Object:
        return _Object(storage.path(path))


def _lines_until(path: Path, start: int) -> bytes:
    """Whole lines of ImgNet steps up to `start`, and LabelNet's, which are before the first checkpoint."""
    kept = []
    for line in storage.read(path).splitlines(keepends=True) if storage.is_file(path) else []:
        try:
            entry = json.loads(line)
            wanted = entry["phase"] == "label_net" or entry["step"] <= start
        except (ValueError, LookupError, TypeError, RecursionError):  # cut short by a kill, or none of ours
            break
        if line.endswith(b"\n") and wanted:
            kept.append(line)
    return b"".join(kept)
