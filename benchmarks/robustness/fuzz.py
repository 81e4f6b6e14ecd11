"""Feed damaged and hostile texts and files to what reads them, and record what is neither an answer nor a refusal in one line.

    python -m benchmarks.robustness.fuzz [--cases=2000] [--seed=0] [--only=filter,model] [--out=fuzz.json]

Each reader gets cases of its own: valid content with random changes, and content made of the reader's own vocabulary. An answer
and an `InputError` of one line are expected, within SECONDS and MEBIBYTES; anything else is a finding, which is
written with the case in base64. Each reader runs in a process of its own, so that a crash is a finding too. The same seed makes
the same cases. The exit status is 1 if there are findings.
"""

import argparse
import base64
import contextlib
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.robustness.fuzz_readers import READERS, Use

SECONDS = 5.0  # that one case may take
MEBIBYTES = 1_024  # that one case may add to the process's memory
LONGEST = 4_096  # characters of a message, which can name a path as long
_SHOWN = 2_000  # bytes of a case in the report


class Finding(NamedTuple):
    """A case that is neither answered nor refused as it should be."""

    reader: str
    number: int  # of the case, for the same seed
    what: str
    case: str  # its beginning, in base64


class TooSlow(BaseException):
    """A case takes longer than SECONDS. Not an `Exception`, so that no reader takes it for damage."""


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise `TooSlow` inside when the time is over; libraries that don't return to Python are only measured."""

    def stop(*_: object) -> None:
        raise TooSlow

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _memory(name: str) -> int:
    """Return a figure of this process's memory in MiB: VmRSS now, VmHWM its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) >> 10 for line in lines if line.startswith(f"{name}:")), 0)


def judge(use: Use, case: bytes, folder: Path) -> tuple[str, str]:
    """Give a case to a reader.

    Returns:
      "answer" or "refusal" and its line; or "finding" and what is wrong.
    """
    from adsq_jax.errors import InputError

    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, began = _memory("VmRSS"), time.monotonic()
    outcome, text = "answer", ""
    try:
        with _limited(SECONDS):
            use(case, folder)
    except InputError as error:
        outcome, text = "refusal", str(error)
        if not text.strip() or len(text) > LONGEST:
            outcome, text = "finding", f"a refusal of {len(text):,} characters"
        elif "\n" in text:
            outcome, text = "finding", f"a refusal of several lines: {text!r:.300}"
    except TooSlow:
        outcome, text = "finding", f"more than {SECONDS:.0f} s"
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        outcome, text = "finding", f"{type(error).__name__}: {error!s:.200} ({frame.filename}, line {frame.lineno})"
    seconds, mebibytes = time.monotonic() - began, _memory("VmHWM") - before
    if seconds > SECONDS and outcome != "finding":
        outcome, text = "finding", f"{seconds:.1f} s"
    if mebibytes > MEBIBYTES and outcome != "finding":
        outcome, text = "finding", f"{mebibytes:,} MiB"
    return outcome, text


def try_reader(
    name: str, *, cases: int, seed: int, on_case: Callable[[int, bytes], None] | None = None
) -> tuple[Counter[str], list[Finding]]:
    """Give a reader its cases, in this process.

    Args:
      name: one of READERS.
      cases: how many.
      seed: of the cases.
      on_case: called before each with its number and content.

    Returns:
      How often it answered, refused, or neither; and the findings.
    """
    reader, counts, findings = READERS[name](), Counter[str](), list[Finding]()
    with contextlib.ExitStack() as stack:
        stack.callback(reader.close)
        temporary = stack.enter_context(tempfile.TemporaryDirectory())
        for number in range(cases):
            case = reader.make(random.Random(f"{name} {seed} {number}"))
            if on_case is not None:
                on_case(number, case)
            folder = Path(temporary) / str(number)
            folder.mkdir()
            outcome, text = judge(reader.use, case, folder)
            counts[outcome] += 1
            if outcome == "finding":
                findings.append(Finding(name, number, text, base64.b64encode(case[:_SHOWN]).decode()))
    return counts, findings


def _in_child(name: str, cases: int, seed: int, report: Any) -> None:
    def on_case(number: int, case: bytes) -> None:
        report.send(("case", number, case[:_SHOWN]))

    report.send(("end", *try_reader(name, cases=cases, seed=seed, on_case=on_case)))


def try_apart(name: str, *, cases: int, seed: int) -> tuple[Counter[str], list[Finding]]:
    """Give a reader its cases in a process of its own; a process that dies is a finding, and the rest isn't tried."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_in_child, args=(name, cases, seed, theirs))
    process.start()
    theirs.close()
    number, case = -1, b""
    try:
        while True:
            kind, *content = ours.recv()
            if kind == "end":
                return content[0], content[1]
            number, case = content
    except EOFError:
        process.join()
        what = f"the process died (exit code {process.exitcode})"
        return Counter(finding=1), [Finding(name, number, what, base64.b64encode(case).decode())]
    finally:
        process.join()


def main() -> int:
    """Read the flags, try all readers, and print and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2_000, help="for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help=f"some of {','.join(READERS)}")
    parser.add_argument("--out", type=Path, default=None, help="a JSON file for the findings")
    given = parser.parse_args()
    names = given.only.split(",") if given.only else list(READERS)
    found, counts = list[Finding](), dict[str, Counter[str]]()
    for name in names:
        began = time.monotonic()
        counts[name], some = try_apart(name, cases=given.cases, seed=given.seed)
        found += some
        row = ", ".join(f"{counts[name][kind]:,} {kind}s" for kind in ("answer", "refusal", "finding"))
        print(f"{name}: {row}, {time.monotonic() - began:.0f} s", flush=True)
        for what, count in Counter(finding.what for finding in some).most_common(5):
            print(f"    {count} x {what}", flush=True)
    if given.out is not None:
        content = {"seed": given.seed, "cases": given.cases, "counts": counts, "findings": [one._asdict() for one in found]}
        given.out.write_text(json.dumps(content, indent=2) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.exit(main())
