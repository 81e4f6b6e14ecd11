"""Bounds on what all visitors take together: bytes that come and go, and threads."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

SECONDS = 60.0  # that a body may come, an answer go, and anybody stand in a line
_GRACE = 1.0  # seconds that a body may stand still while others wait for its room
_SLOWEST = 2**19  # bytes a second that it must move then
_PAUSE = 0.25  # seconds between two looks at what is slow
_MOST_WAITING = 256  # in a line

BUSY = "too many visitors at once; fix: try again in a minute"


class Refused(Exception):
    """A request that isn't answered: an HTTP status, and a line for the visitor."""

    def __init__(self, status: int, line: str):
        """Keep both."""
        super().__init__(line)
        self.status = status


class Transfer:
    """A body that comes or goes."""

    def __init__(self, size: int):
        """Hold `size` bytes of room."""
        self.size, self.moved = size, 0
        self._timeout: asyncio.Timeout | None = None

    @contextlib.asynccontextmanager
    async def moving(self) -> AsyncIterator[None]:
        """Bound the time inside, in which the body moves: `moved` counts its bytes.

        Raises:
          Refused: it took too long, or was slow while others waited for its room.
        """
        self._began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(SECONDS) as self._timeout:
                yield
        except TimeoutError as error:
            raise Refused(408, "the request came too slowly; fix: try again, or give a smaller picture") from error
        finally:
            self._timeout = None

    def end_if_slow(self) -> None:
        """End it if it moves more slowly than it must while others wait."""
        now = asyncio.get_running_loop().time()
        if self._timeout is not None and now > self._began + _GRACE + self.moved / _SLOWEST:
            self._timeout.reschedule(now)


class Room:
    """What visitors share, as memory for bodies, with a line of bounded length before it.

    Who comes last is let in first, so that no line of hostile requests keeps the next visitor waiting; where the line is full
    its first one is refused.
    """

    def __init__(self, size: int):
        """Take how much there is to hold, for instance bytes."""
        self._free = size
        self._held = set[Transfer]()
        self._line = list[tuple[asyncio.Future[None], Transfer]]()  # the last one is the next
        self._watch: asyncio.TimerHandle | None = None

    @contextlib.asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[Transfer]:
        """Wait for room for `size`, and hold it inside.

        Raises:
          Refused: there was none for too long, or too many came later.
        """
        transfer = Transfer(size)
        try:
            await self._wait(transfer)
            yield transfer
        finally:
            if transfer in self._held:
                self._held.remove(transfer)
                self._free += size
            self._admit()

    async def _wait(self, transfer: Transfer) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._line.append((turn, transfer))
        self._admit()
        if len(self._line) > _MOST_WAITING:
            first, _ = self._line.pop(0)
            if not first.done():
                first.set_exception(Refused(503, BUSY))
        try:
            async with asyncio.timeout(SECONDS):
                await turn
        except TimeoutError as error:
            raise Refused(503, BUSY) from error
        finally:
            if (turn, transfer) in self._line:
                self._line.remove((turn, transfer))
            del turn  # which may hold an error, whose traceback holds this frame and those that called it

    def _admit(self) -> None:
        while self._line and self._line[-1][1].size <= self._free:
            turn, transfer = self._line.pop()
            self._free -= transfer.size
            self._held.add(transfer)
            if not turn.done():  # else its task ends, and gives the room back
                turn.set_result(None)
        if self._line and self._watch is None:
            self._watch = asyncio.get_running_loop().call_later(_PAUSE, self._end_slow)

    def _end_slow(self) -> None:
        self._watch = None
        for transfer in self._held:
            transfer.end_if_slow()
        self._admit()  # looks again in a moment if somebody still waits


class Lane:
    """Threads for one kind of work: one kind doesn't wait for another."""

    def __init__(self, *, threads: int):
        """Start no thread before it is needed."""
        self._pool, self._room = ThreadPoolExecutor(threads), Room(threads)

    async def run(self, work: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        """Return what `work` returns in a thread.

        Raises:
          Refused: no thread was free for too long, too many came later, or `work` takes too long; it then ends by itself.
        """
        async with self._room.hold(1):
            future = self._pool.submit(work, *arguments, **more)
            try:
                async with asyncio.timeout(SECONDS):
                    return await asyncio.wrap_future(future)
            except TimeoutError as error:
                if future.done() and not future.cancelled():
                    raise  # by the work itself
                raise Refused(503, "the answer takes too long; fix: try again in a minute") from error
            finally:
                del future  # which holds an error, whose traceback holds this frame and all that `work` got

    def close(self) -> None:
        """Begin no work that waits."""
        self._pool.shutdown(wait=False, cancel_futures=True)
