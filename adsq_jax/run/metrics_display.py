"""Show how far a run is: a bar for each phase on a terminal and in a notebook, and now and then a line elsewhere."""

import contextlib
import shutil
import sys
import textwrap
import time
from collections import deque
from typing import Any

from tqdm.auto import tqdm

from adsq_jax.run import terminal

_LINE_SECONDS = 10.0  # between two plain lines, at least
_PACE_SECONDS = 60.0  # of steps that the time left is estimated from
_LABEL_WIDTH = 14  # of the longest usual label, "round 10/10 f", so that columns stand below one another


class MetricsDisplay:
    """Shows phases on standard error, one after the other. `phase` begins one."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._lines_below: list[Any] = []
        # a class of that module is the bar of a notebook
        self._has_bars = sys.stderr.isatty() or tqdm.__module__ == "tqdm.auto"
        self._total, self._shown, self._pace = 0, 0.0, _Pace()

    def phase(self, name: str, *, total: int, start: int) -> None:
        """Begin a phase of `total` steps, `start` of which are done, with a bar that is there at once."""
        self.close()
        self._total, self._pace = total, _Pace()
        if self._has_bars:
            options = {"file": terminal.bar_stream(), "dynamic_ncols": True}
            layout = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"  # with our own time left
            self._bar = tqdm(total=total, initial=start, desc=name, bar_format=layout, **options)
            # the loss terms stand below the bar; on 80 columns they need two lines
            self._lines_below = [tqdm(bar_format="{desc}", position=line, leave=False, **options) for line in (1, 2)]

    def say(self, text: str) -> None:
        """Show a line of text."""
        if self._has_bars:
            tqdm.write(terminal.clean(text), file=terminal.bar_stream())
        else:
            print(text, file=sys.stderr, flush=True)

    def show(self, step: int, values: dict[str, float], *, label: str, images_per_second: float | None) -> None:
        """Show the step, the metrics, the speed, and the time left."""
        left = self._pace.time_left(step, self._total)
        speed = [] if images_per_second is None else [f"{images_per_second:.0f} images/s"]
        if self._bar is not None:
            self._bar.set_description_str(label, refresh=False)
            self._bar.set_postfix_str(", ".join([*speed, f"{left} left"]), refresh=False)
            self._bar.update(step - self._bar.n)
            self._bar.refresh()
            width = max(20, shutil.get_terminal_size().columns - 1)
            lines = textwrap.wrap(terminal.clean(format_metrics(values)), width)
            for bar, line in zip(self._lines_below, [*lines, "", ""], strict=False):
                bar.set_description_str(line)
            return
        now = time.monotonic()
        if now - self._shown < _LINE_SECONDS and step < self._total:
            return
        self._shown = now
        metrics = terminal.clean(" ".join(f"{name} {value:<9.3g}" for name, value in values.items()))
        counted = f"{step:>{len(str(self._total))}}/{self._total}"
        self.say(" | ".join([f"{label:<{_LABEL_WIDTH}} step {counted} {metrics}", *speed, f"{left} left"]))

    def close(self) -> None:
        """Leave the phase's bar as it is, and remove the lines below it."""
        with contextlib.ExitStack() as closing:
            for bar in (self._bar, *reversed(self._lines_below)):
                if bar is not None:
                    closing.callback(bar.close)
        self._bar, self._lines_below = None, []


def format_metrics(values: dict[str, float]) -> str:
    """Format metrics for messages: `balance 0.01 loss 0.3`."""
    return " ".join(f"{name} {value:.4g}" for name, value in values.items())


class _Pace:
    """How long a phase takes, by its steps of the last minute; what comes before the first, as compiling, doesn't count."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int]] = deque()

    def time_left(self, step: int, total: int) -> str:
        """Note a step, and return the time left, as 0:05 or 1:02:03; "?" at the first one."""
        now = time.monotonic()
        self._points.append((now, step))
        while len(self._points) > 2 and now - self._points[0][0] > _PACE_SECONDS:
            self._points.popleft()
        began, first = self._points[0]
        if step >= total:
            return "0:00"
        if step <= first:
            return "?"
        seconds = round((now - began) / (step - first) * (total - step))
        minutes, hours = seconds // 60, seconds // 3600
        return f"{hours}:{minutes % 60:02d}:{seconds % 60:02d}" if hours else f"{minutes}:{seconds % 60:02d}"
