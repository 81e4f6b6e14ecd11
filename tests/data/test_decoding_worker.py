"""Decoding in processes of their own: the same pixels, limits of memory and time, and no process is left."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import hostile_pictures as hostile

from adsq_jax.data import decoding_worker
from adsq_jax.data.decoding_worker import DecodingWorker
from adsq_jax.data.images import BadImage, decode

PICTURE = hostile.saved(hostile.noise(60, 90), "JPEG")


@pytest.fixture(scope="module")
def worker():
    with DecodingWorker() as opened:
        yield opened


@pytest.fixture
def starting_with(monkeypatch):
    """Makes the processes start with other limits, by a line of Python."""

    def change(line):
        program = decoding_worker._PROGRAM.replace("decoding_worker.serve()", f"{line}; decoding_worker.serve()")
        monkeypatch.setattr(decoding_worker, "_PROGRAM", program)

    return change


def runs(pid):
    """Whether a process runs; one that has ended may still be listed."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def pids(worker):
    """The processes of a worker that run."""
    started = [process._started for process in worker._processes]
    return {popen.pid for popen in started if popen is not None and runs(popen.pid)}


def test_same_pixels(worker):
    """Pixels are those of `decode`, for each size, and may be written to."""
    found = worker.decode(PICTURE, shorter_sides=[0, 40, 7])
    for array, side in zip(found, [0, 40, 7], strict=True):
        np.testing.assert_array_equal(array, decode(PICTURE, shorter_side=side))
        array[0] = 1
    assert worker.decode(PICTURE, shorter_sides=[]) == []
    deep = io.BytesIO()
    Image.fromarray(np.array([[4_095, 16]], np.uint16)).save(deep, "PNG")
    for depth, wanted in ((0, [15, 0]), (12, [255, 1])):
        (pixels,) = worker.decode(deep.getvalue(), shorter_sides=[0], bit_depth=depth)
        assert pixels[0, :, 0].tolist() == wanted


@pytest.mark.parametrize(
    "content", [b"", b"text", PICTURE[:-100], hostile.tiff_of_tile(46_000), hostile.saved(hostile.noise(9, 9), "PDF")]
)
def test_same_refusals(worker, content):
    """A refusal has the text of `decode`, and the process goes on."""
    before = pids(worker)
    with pytest.raises(BadImage) as expected:
        decode(content, shorter_side=8)
    with pytest.raises(BadImage, match=re.escape(str(expected.value))):
        worker.decode(content, shorter_sides=[8])
    assert pids(worker) == before


def test_threads(worker):
    """Threads get the answers to their own pictures, refusals among them."""
    contents = [hostile.saved(hostile.noise(5, 8 + k), "PNG") if k % 3 else b"text" for k in range(30)]

    def ask(content):
        try:
            return worker.decode(content, shorter_sides=[0])[0].shape
        except BadImage:
            return None

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, contents)) == [(5, 8 + k, 3) if k % 3 else None for k in range(30)]


def test_too_long(starting_with):
    """A picture that takes too much of a core's time is refused as such; the next one has a new process."""
    starting_with("decoding_worker.SECONDS = 0.02")
    with DecodingWorker(processes=1) as worker:
        (before,) = pids(worker)
        with pytest.raises(BadImage, match="seconds"):
            worker.decode(hostile.png(6000, 6000), shorter_sides=[256])
        assert worker.decode(PICTURE, shorter_sides=[8])[0].shape == (8, 12, 3)
        assert pids(worker).isdisjoint({before})
        assert not runs(before)


def test_stuck(monkeypatch):
    """A process that doesn't answer is killed after a time by the clock."""
    with DecodingWorker(processes=1) as worker:
        monkeypatch.setattr(decoding_worker, "_CLOCK", 0.2)
        (process,) = pids(worker)
        os.kill(process, signal.SIGSTOP)
        with pytest.raises(BadImage, match="seconds"):
            worker.decode(PICTURE, shorter_sides=[8])
        monkeypatch.undo()
        assert worker.decode(PICTURE, shorter_sides=[8])[0].shape == (8, 12, 3)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the system doesn't limit the memory of a process")
def test_too_large(starting_with):
    """A picture that takes more memory than the limit is refused as such; the next one is decoded."""
    starting_with("decoding_worker.MEMORY = 2**24")
    with DecodingWorker(processes=1) as worker:
        with pytest.raises(BadImage, match="MiB to decode; fix: make it smaller"):
            worker.decode(hostile.png(5000, 5000), shorter_sides=[256])
        assert worker.decode(PICTURE, shorter_sides=[8])[0].shape == (8, 12, 3)


@pytest.mark.parametrize("line", ["os._exit(7)", "os.kill(os.getpid(), 11)", "raise KeyError"])
def test_a_decoder_that_crashes(line, starting_with):
    """A decoder that crashes, or raises what nobody expects, costs one picture."""
    starting_with(f"import os; real = decoding_worker.images.decode; decoding_worker.images.decode = {crash(line)}")
    with DecodingWorker(processes=1) as worker:
        with pytest.raises(BadImage, match="fix: convert it to JPEG or PNG"):
            worker.decode(b"crash", shorter_sides=[8])
        assert worker.decode(PICTURE, shorter_sides=[8])[0].shape == (8, 12, 3)


def crash(line):
    """Python of a function that decodes as usual, but for a file of the content `crash`."""
    call = "(_ for _ in ()).throw(KeyError())" if line.startswith("raise") else line
    return f"lambda content, **options: {call} if content == b'crash' else real(content, **options)"


@pytest.mark.parametrize(
    "answer",
    [
        "b'\\0' + (2**32 - 1).to_bytes(4, 'little')",
        "b'\\0' + (4).to_bytes(4, 'little') + b'[[0]'",
        "b'\\0' + (13).to_bytes(4, 'little') + b'[[2000000, 8]]'[:13]",
        "b'\\0' + (14).to_bytes(4, 'little') + b'[[90000,9000]]'",
        "b'junk'",
    ],
)
def test_answers_are_checked(answer, starting_with):
    """What a process that was taken over sends is an answer of the right form, or is refused."""
    starting_with(
        f"decoding_worker._answer = lambda replies, content, sides: (replies.write({answer}), replies.flush(), 1 / 0)"
    )
    with DecodingWorker(processes=1) as worker, pytest.raises(BadImage):
        worker.decode(PICTURE, shorter_sides=[8])


def test_ends():
    """At the end all processes have ended, also while a thread waits for an answer; more work is refused."""
    with DecodingWorker(processes=2) as worker:
        (process,) = pids(worker)  # a second one only when the first is busy
        os.kill(process, signal.SIGSTOP)
        pool = ThreadPoolExecutor(1)
        waiting = pool.submit(worker.decode, PICTURE, shorter_sides=[8])
        while worker._idle.qsize() == 2:
            time.sleep(0.01)
        assert worker.decode(PICTURE, shorter_sides=[8])[0].shape == (8, 12, 3)
        both = pids(worker)
        assert len(both) == 2
    with pytest.raises(BadImage):
        waiting.result(timeout=10)
    pool.shutdown()
    assert not any(map(runs, both))
    with pytest.raises(RuntimeError, match="closed"):
        worker.decode(PICTURE, shorter_sides=[8])


def test_threads_that_wait_are_refused():
    """Where threads wait for the only process when the worker ends, each has an error, and so has whoever comes later."""
    with ThreadPoolExecutor(3) as pool:
        with DecodingWorker(processes=1) as worker:
            (process,) = pids(worker)
            os.kill(process, signal.SIGSTOP)
            waiting = [pool.submit(worker.decode, PICTURE, shorter_sides=[8]) for _ in range(3)]
            while worker._idle.qsize():
                time.sleep(0.01)
        errors = [one.exception(timeout=10) for one in waiting]
    assert sorted(type(error).__name__ for error in errors) == ["BadImage", "RuntimeError", "RuntimeError"]
    for _ in range(2):
        with pytest.raises(RuntimeError, match="closed"):
            worker.decode(PICTURE, shorter_sides=[8])


def test_ends_with_its_parent():
    """The processes end when the one that started them is killed."""
    code = """
import os
from adsq_jax.data.decoding_worker import DecodingWorker
worker = DecodingWorker().__enter__()
print(worker._processes[-1].start().pid, flush=True)
os.kill(os.getpid(), 9)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment)
    pid = int(found.stdout)
    for _ in range(100):
        if not runs(pid):
            return
        time.sleep(0.05)
    pytest.fail("it still runs")


def test_no_process(monkeypatch):
    """If no process can start, the context manager says so."""
    monkeypatch.setattr(decoding_worker, "_PROGRAM", "raise SystemExit(3)")
    with pytest.raises(OSError, match="status 3"), DecodingWorker():
        pass
