"""Measure what many visitors, and hostile ones, do to the demo: whether the next is answered, and what stays in memory.

    python -m benchmarks.robustness.demo_visitors [--index=INDEX] [--out=benchmarks/results/index/demo_visitors.json]

Without `--index` a small model is trained and an index of 60 pictures made. The visitors are, one after the other:

- 100 at once, each of whom opens the page, gives a picture, and searches with a filter: all answered within 60 s;
- one who gives 1,000 pictures in a row, and 600 who come one by one: the demo's memory stays within 200 MB of where it began;
- 900 who send half a request and stop: the next visitor is answered within 10 s.

The exit status is 1 if one of these aims is missed.
"""

import argparse
import contextlib
import http.client
import io
import json
import os
import platform
import re
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from adsq_jax.devices import host
from adsq_jax.run import environment

AIMS = {"at_once_seconds": 60.0, "growth_mb": 200.0, "after_halves_seconds": 10.0}
HALF = 2**18  # bytes of a picture that a visitor sends before stopping


class Demo:
    """A demo that runs in a process of its own, and what its visitors do."""

    def __init__(self, location: str):
        """Start it, on any free port."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "adsq_jax.demo", f"--index={location}", "--port=0"], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        match = re.match(r"http://(.+):(\d+)/ shows ", self._process.stdout.readline())
        assert match, "the demo doesn't start"
        self.address = match[1], int(match[2])

    def ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        """Return the answer to a request, which must be given within a minute."""
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        try:
            connection.request(method, path, body=body)
            response = connection.getresponse()
            content = response.read()
            assert response.status == 200, f"{response.status} {content[:200]!r}"
            return json.loads(content) if path != "/" else None
        finally:
            connection.close()

    def give(self, seed: int) -> str:
        """Give a picture, and return its code."""
        return self.ask("POST", f"/upload?name={seed}.jpg", picture(seed))["code"]

    def search(self, code: str, where: str = "") -> int:
        """Search, and return the number of hits."""
        question = {"code": code, "k": 20, "radius": 8, "where": where}
        return len(self.ask("POST", "/search", json.dumps(question).encode())["hits"])

    def visit(self, seed: int) -> None:
        """Do what a visitor does."""
        self.ask("GET", "/")
        self.ask("GET", "/start")
        self.search(self.give(seed), where="not label=none" if seed % 2 else "")

    def memory(self) -> float:
        """Return the memory of the demo and of the processes that it has started, in MB of 10^6 bytes."""
        return sum(map(_resident, _family(self._process.pid))) / 1e6

    def end(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.communicate(timeout=60)


def picture(seed: int) -> bytes:
    """Return a JPEG of 600 x 400 pixels, another for each seed."""
    small = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((600, 400)).save(buffer, "JPEG")
    return buffer.getvalue()


def _family(number: int) -> Iterator[int]:
    yield number
    for task in Path(f"/proc/{number}/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has ended
            for child in (task / "children").read_text().split():
                yield from _family(int(child))


def _resident(number: int) -> int:
    return int(Path(f"/proc/{number}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def at_once(demo: Demo, count: int) -> dict[str, Any]:
    """Let many visitors come at the same time; return the seconds until the last was answered, and who wasn't."""
    wrong, began = list[str](), time.monotonic()

    def visit(seed: int) -> None:
        try:
            demo.visit(seed)
        except Exception as error:
            wrong.append(repr(error)[:200])

    threads = [threading.Thread(target=visit, args=[seed]) for seed in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"seconds": round(time.monotonic() - began, 2), "visitors": count, "not_answered": wrong}


def in_a_row(demo: Demo, *, pictures: int, sessions: int) -> dict[str, Any]:
    """Give pictures in a row, then let visitors come one by one; return the memory before and after each."""
    before = demo.memory()
    for seed in range(pictures):
        demo.search(demo.give(seed))
    middle = demo.memory()
    for seed in range(sessions):
        demo.visit(seed)
    after = demo.memory()
    mb = [round(value, 1) for value in (before, middle, after)]
    return {"mb_before_and_after_each": mb, "growth_mb": round(max(mb) - mb[0], 1), "pictures": pictures, "sessions": sessions}


def halves(demo: Demo, count: int) -> dict[str, Any]:
    """Let visitors send half a picture, or half a head, and stop; return the seconds until the next one was answered."""
    head = f"POST /upload HTTP/1.1\r\nHost: {demo.address[0]}\r\nContent-Length: {20 * 2**20}\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        for number in range(count):
            connection = stack.enter_context(socket.create_connection(demo.address, timeout=60))
            connection.setblocking(False)
            with contextlib.suppress(OSError):  # the demo takes no more, or has ended the connection
                connection.send(head + bytes(HALF) if number % 2 else b"POST /upload HTTP/1.1\r\nHost: ")
        began, memory = time.monotonic(), demo.memory()
        demo.visit(count)
        return {"seconds": round(time.monotonic() - began, 2), "half_sent": count, "mb_then": round(memory, 1)}


def measure(location: str, *, visitors: int, pictures: int, sessions: int, half_sent: int) -> dict[str, Any]:
    """Start a demo on an index and measure all of it.

    Args:
      location: the index.
      visitors: how many come at once.
      pictures: how many are given in a row.
      sessions: how many visitors come one by one.
      half_sent: how many requests stop in the middle.

    Returns:
      The figures by what was done, and under "missed" the aims that were missed.
    """
    demo = Demo(location)
    try:
        at_once(demo, 8)  # whatever is started when it is first needed has been started
        began = demo.memory()
        figures: dict[str, Any] = {"at_once": at_once(demo, visitors)}
        figures["in_a_row"] = in_a_row(demo, pictures=pictures, sessions=sessions)
        figures["half_sent"] = halves(demo, half_sent)
        figures["growth_mb"] = round(demo.memory() - began, 1)
    finally:
        demo.end()
    got = {
        "at_once_seconds": figures["at_once"]["seconds"],
        "growth_mb": max(figures["growth_mb"], figures["in_a_row"]["growth_mb"]),
        "after_halves_seconds": figures["half_sent"]["seconds"],
    }
    missed = [f"{name}: {got[name]}, aim {aim}" for name, aim in AIMS.items() if got[name] > aim]
    if figures["at_once"]["not_answered"]:
        missed.append(f"not answered: {figures['at_once']['not_answered'][:3]}")
    return {**figures, "missed": missed}


def make_index(folder: Path) -> str:
    """Train a small model on 60 pictures, and return the index of them."""
    import adsq_jax
    from adsq_jax.encode import encode_images

    for number in range(60):
        path = folder / "pictures" / f"class{number % 3}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    paths = sorted((folder / "pictures").rglob("*.jpg"))
    run = adsq_jax.fit(
        [str(path) for path in paths],
        [path.parent.name for path in paths],
        bits=8,
        preprocessing=adsq_jax.data.Preprocessing(resize=36, image_size=32),
        rounds=1,
        epochs_per_round=1,
    )
    run.save(str(folder / "run"))
    encode_images(str(folder / "run"), str(folder / "pictures"), index=str(folder / "index"))
    return str(folder / "index")


def main() -> None:
    """Measure, print and write; end with status 1 if an aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", default="", help="an index whose model resizes pictures")
    parser.add_argument("--visitors", type=int, default=100)
    parser.add_argument("--pictures", type=int, default=1_000)
    parser.add_argument("--sessions", type=int, default=600)
    parser.add_argument("--half_sent", type=int, default=900)
    parser.add_argument("--out", default="benchmarks/results/index/demo_visitors.json")
    given = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # for the sockets of all who stop in the middle
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(
            given.index or make_index(Path(folder)),
            visitors=given.visitors,
            pictures=given.pictures,
            sessions=given.sessions,
            half_sent=given.half_sent,
        )
    result = {**environment.environment(), "machine": f"{platform.machine()}, {host.cores()} cores", **figures}
    print(json.dumps(result, indent=1))
    if given.out:
        Path(given.out).parent.mkdir(parents=True, exist_ok=True)
        Path(given.out).write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(1 if figures["missed"] else 0)


if __name__ == "__main__":
    main()
