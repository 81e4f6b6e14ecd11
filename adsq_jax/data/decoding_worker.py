"""Decode strangers' pictures in processes of their own, whose memory and time are limited: `DecodingWorker`.

`images.decode` bounds the work by what a picture's header says. A decoder with a defect may take more than that, or crash:
here only the process that it runs in ends, and the next picture gets a new one.
"""

import contextlib
import errno
import json
import math
import os
import queue
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import IO, cast

import numpy as np

from adsq_jax.data import images
from adsq_jax.data.images import BadImage
from adsq_jax.errors import first_line

SECONDS = 5  # of a core, to decode a picture once: noise of 88 megapixels in a PNG takes 4
MEMORY = 2**30  # bytes to decode a picture in, beside its file: what `images.decode` keeps to
_CLOCK = 6 * SECONDS  # seconds by the clock, for a machine that does other work too
_START = 60  # seconds by the clock until a new process must be ready
_LONGEST = 500  # characters of a reason
_READY = b"ready\n"
_REQUEST = struct.Struct(
    "<BBQ"
)  # the number of sizes, the bit depth, and the number of bytes; sizes (uint32 each) and bytes follow
_REPLY = struct.Struct("<BI")  # its kind, and the length of its text, which follows, and then the pixels
_PIXELS, _BAD, _LAST = range(3)  # kinds of replies: pixels; why there are none; that, and the process is of no more use
_PROGRAM = (  # with the module search path of this process, whatever folder it runs in
    "import sys; sys.path[:] = sys.argv[1:]; from adsq_jax.data import decoding_worker; decoding_worker.serve()"
)


class DecodingWorker:
    """Processes that decode pictures, safe to share between threads; a context manager, which ends them.

    They also end when this process does, however it ends.
    """

    def __init__(self, *, processes: int = 2):
        """Set the number of pictures decoded at a time. A second process starts when the first is busy, and so on."""
        self._idle: queue.LifoQueue[_Process] = queue.LifoQueue()  # the one used last has started
        self._processes = [_Process() for _ in range(processes)]
        for process in self._processes:
            self._idle.put(process)

    def __enter__(self) -> "DecodingWorker":
        """Start a process, so that what keeps it from starting is told at once.

        Raises:
          OSError: it doesn't start.
        """
        self._processes[-1].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End all processes."""
        for process in self._processes:
            process.close()
        idle = []
        with contextlib.suppress(queue.Empty):
            while True:  # those that no thread waits for, which would end them itself
                idle.append(self._idle.get_nowait())
        for process in idle:
            process.end()
            self._idle.put(process)  # whoever waits for one gets it, and the error

    def decode(self, content: bytes, *, shorter_sides: Sequence[int], bit_depth: int = 0) -> list[np.ndarray]:
        """Decode a picture as `images.decode` does, once for each size.

        Args:
          content: the bytes of a file.
          shorter_sides: the sizes to resize it to, in pixels, keeping proportions; 0: none.
          bit_depth: as in `images.decode`.

        Returns:
          uint8[h, w, 3] for each size.

        Raises:
          BadImage: as `images.decode`; or it takes more than MEMORY or SECONDS, or ends the process.
          OSError: a process doesn't start.
          RuntimeError: the worker was closed.
        """
        images.check_bytes(len(content))
        process = self._idle.get()
        try:
            return process.decode(content, shorter_sides, bit_depth)
        finally:
            process.end_if_closed()
            self._idle.put(process)


class _Process:
    """One process, started when it is needed; used by one thread at a time."""

    def __init__(self) -> None:
        self._started: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._in_use = threading.Lock()

    def start(self) -> "subprocess.Popen[bytes]":
        """Start the process if it isn't running."""
        if self._closed:
            raise RuntimeError("the worker was closed")
        if self._started is not None and self._started.poll() is None:
            return self._started
        self.end()
        # A session of its own: Ctrl-C in the terminal is for this process, which then ends the other.
        self._started = process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        with _killing(process, after=_START):
            ready = _pipe(process.stdout).read(len(_READY))
        if ready != _READY:
            self.end()
            raise OSError(errno.ECHILD, f"the process that decodes pictures doesn't start (status {process.returncode})")
        return process

    def decode(self, content: bytes, sides: Sequence[int], bit_depth: int) -> list[np.ndarray]:
        """Have a picture decoded; if that ends the process, the next picture gets a new one."""
        with self._in_use:
            answer = self._ask(self.start(), content, sides, bit_depth)
        if isinstance(answer, str):
            raise BadImage(answer)
        return answer

    def _ask(
        self, process: "subprocess.Popen[bytes]", content: bytes, sides: Sequence[int], bit_depth: int
    ) -> str | list[np.ndarray]:
        """Return the pixels, or why there are none."""
        kind = _LAST
        try:
            with _killing(process, after=_CLOCK * max(1, len(sides))):
                stream = _pipe(process.stdin)
                stream.write(_REQUEST.pack(len(sides), bit_depth, len(content)) + struct.pack(f"<{len(sides)}I", *sides))
                stream.write(content)
                stream.flush()
                kind, answer = _read_reply(cast(BufferedReader, process.stdout), len(sides))
            return answer
        except (OSError, EOFError):
            self.end()
            return _why_ended(process.returncode)
        finally:
            if kind == _LAST:  # also if this thread is interrupted, since the answer would reach the next picture
                self.end()

    def end(self) -> None:
        """End the process."""
        process, self._started = self._started, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # what it didn't take
                _pipe(stream).close()

    def end_if_closed(self) -> None:
        """End the process if it was started while another thread closed it."""
        if self._closed:
            self.end()

    def close(self) -> None:
        """End the process for good, also while another thread waits for its answer."""
        self._closed = True
        process = self._started
        if process is not None:
            process.kill()  # which ends that thread's wait
        with self._in_use:
            self.end()


@contextlib.contextmanager
def _killing(process: "subprocess.Popen[bytes]", *, after: float) -> Iterator[None]:
    """Kill a process that isn't done after some seconds: reading from it and writing to it end then."""
    timer = threading.Timer(after, process.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _why_ended(status: int) -> str:
    """Return why a process ended that should have sent an answer."""
    if status in (-signal.SIGPROF, -signal.SIGKILL):  # its own limit; the clock, or the system, which lacks memory
        return f"takes more than {SECONDS} seconds, or too much memory, to decode; fix: make it smaller, or convert it to JPEG"
    return f"ends the program that decodes it (status {status}); fix: convert it to JPEG or PNG"


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # both ends were asked for
    return stream


def _read_reply(stream: BufferedReader, count: int) -> tuple[int, str | list[np.ndarray]]:
    """Read an answer. What was sent is checked: a picture may have taken the process over."""
    kind, length = _REPLY.unpack(_exactly(stream, _REPLY.size))
    if length > _LONGEST:
        raise EOFError
    text = _exactly(stream, length).decode(errors="replace")
    if kind != _PIXELS:
        return kind, "".join(letter if letter.isprintable() else "?" for letter in text)
    try:
        shapes = [(int(height), int(width)) for height, width in json.loads(text)]
    except (TypeError, ValueError) as error:
        raise EOFError from error
    if len(shapes) != count or not all(min(shape) > 0 and math.prod(shape) <= images.MOST_PIXELS for shape in shapes):
        raise EOFError
    arrays = [np.empty((*shape, 3), np.uint8) for shape in shapes]
    for array in arrays:
        if stream.readinto(array.data.cast("B")) != array.nbytes:
            raise EOFError
    return kind, arrays


def _exactly(stream: IO[bytes], length: int) -> bytes:
    content = stream.read(length)
    if len(content) != length:
        raise EOFError
    return content


def serve() -> None:
    """Decode the pictures that arrive at the standard input, until it ends. Only a `DecodingWorker` calls this."""
    import resource  # only here: Windows has none, and importing this module works there

    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):  # whatever a library prints isn't an answer
        os.dup2(nothing, number)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash leaves no file
    begin = _address_space(resource.getpagesize())
    with contextlib.suppress(EOFError, BrokenPipeError):  # the other process has ended
        replies.write(_READY)
        replies.flush()
        while True:
            count, bit_depth, length = _REQUEST.unpack(_exactly(requests, _REQUEST.size))
            sides = struct.unpack(f"<{count}I", _exactly(requests, 4 * count))
            if begin is not None:
                _limit_memory(begin + MEMORY + length)
            _answer(replies, _exactly(requests, length), sides, bit_depth)


def _answer(replies: IO[bytes], content: bytes, sides: Sequence[int], bit_depth: int) -> None:
    arrays = []
    kind = _LAST
    try:
        for side in sides:
            signal.setitimer(signal.ITIMER_PROF, SECONDS)  # SIGPROF ends the process in the midst of any library
            arrays.append(np.ascontiguousarray(images.decode(content, shorter_side=side, bit_depth=bit_depth)))
        kind, text = _PIXELS, json.dumps([array.shape[:2] for array in arrays])
    except BadImage as error:
        kind, text = _BAD, str(error)
    except MemoryError:
        text = f"takes more than {MEMORY >> 20:,} MiB to decode; fix: make it smaller, or convert it to JPEG"
    except Exception as error:
        text = f"can't be decoded ({type(error).__name__}: {first_line(error)}); fix: convert it to JPEG or PNG"
    signal.setitimer(signal.ITIMER_PROF, 0)
    head = text.encode(errors="replace")[:_LONGEST]
    replies.write(_REPLY.pack(kind, len(head)) + head)
    for array in arrays if kind == _PIXELS else ():
        replies.write(array.data.cast("B"))
    replies.flush()


def _address_space(page: int) -> int | None:
    """Return the bytes of address space that this process has, from the size of a page; None where Linux's files don't say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return None
    return pages * page


def _limit_memory(size: int) -> None:
    """Limit the address space, unless it is limited to less already."""
    import resource  # as above

    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size if most == resource.RLIM_INFINITY else min(size, most), most))
