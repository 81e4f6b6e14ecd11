"""Bounds on what visitors take together: room, lines and lanes, each in a loop of its own."""

import asyncio
import gc
import threading
import time
import weakref

import pytest

from adsq_jax.demo import limits
from adsq_jax.demo.limits import Lane, Refused, Room


async def stand_still(room, size, events):
    """Hold room for a body that doesn't come."""
    try:
        async with room.hold(size) as transfer, transfer.moving():
            events.append("in")
            await asyncio.Event().wait()
    except Refused as refused:
        events.append(refused.status)


def test_the_newest_comes_first_and_slow_ones_end(monkeypatch):
    """Of many bodies that stand still those that hold room end once others wait, and the newest is let in next."""
    monkeypatch.setattr(limits, "_GRACE", 0.05)
    monkeypatch.setattr(limits, "_PAUSE", 0.01)

    async def run():
        room, events = Room(10), []
        slow = [asyncio.create_task(stand_still(room, 5, events)) for _ in range(40)]
        await asyncio.sleep(0)
        began = time.monotonic()
        async with asyncio.timeout(5), room.hold(10):
            waited = time.monotonic() - began
        for task in slow:
            task.cancel()
        return waited, events

    waited, events = asyncio.run(run())
    assert waited < 1
    assert events[:2] == ["in", "in"]
    assert events.count(408) == 2


def test_room_is_never_exceeded_and_comes_back():
    """Whatever is held at a time is at most the room, and in the end all of it is free, also after errors."""

    async def use(room, size, held):
        try:
            async with room.hold(size):
                held.append(held[-1] + size)
                await asyncio.sleep(0.001 * (size % 3))
                held.append(held[-1] - size)
                if size % 2:
                    raise ValueError
        except ValueError:
            pass

    async def run():
        room, held = Room(10), [0]
        await asyncio.gather(*(use(room, 1 + number % 10, held) for number in range(100)))
        async with asyncio.timeout(1), room.hold(10):
            pass
        return held

    held = asyncio.run(run())
    assert max(held) <= 10
    assert held[-1] == 0


def test_where_nobody_waits_a_slow_body_may_come(monkeypatch):
    """It ends only after a longer time."""
    monkeypatch.setattr(limits, "_GRACE", 0)
    monkeypatch.setattr(limits, "_PAUSE", 0.001)
    monkeypatch.setattr(limits, "SECONDS", 0.2)

    async def run():
        events, began = [], time.monotonic()
        await stand_still(Room(10), 5, events)
        return events, time.monotonic() - began

    events, seconds = asyncio.run(run())
    assert events == ["in", 408]
    assert 0.1 < seconds < 2


def test_who_waits_too_long_is_told(monkeypatch):
    """In the line for room, and in the line for a thread: 503; what was in line isn't begun later."""
    monkeypatch.setattr(limits, "SECONDS", 0.05)

    async def wait_for_room():
        room = Room(1)
        async with room.hold(1):
            with pytest.raises(Refused, match="too many visitors") as error:
                async with room.hold(1):
                    pass
        assert error.value.status == 503
        async with asyncio.timeout(1), room.hold(1):
            pass

    async def wait_for_thread():
        lane, ended, begun = Lane(threads=1), threading.Event(), []
        first = asyncio.create_task(lane.run(ended.wait))
        await asyncio.sleep(0)
        with pytest.raises(Refused) as error:
            await lane.run(begun.append, 1)
        assert error.value.status == 503
        with pytest.raises(Refused):
            await first
        ended.set()
        assert await lane.run(lambda: 5) == 5
        lane.close()
        assert not begun

    asyncio.run(wait_for_room())
    asyncio.run(wait_for_thread())


def test_a_line_is_bounded(monkeypatch):
    """As many as may wait are answered, the newest first; with one more the oldest is told to come again."""
    monkeypatch.setattr(limits, "_MOST_WAITING", 3)

    async def run():
        lane, ended, order = Lane(threads=1), threading.Event(), []
        tasks = [asyncio.create_task(lane.run(lambda n=n: ended.wait() and order.append(n))) for n in range(5)]
        with pytest.raises(Refused, match="too many visitors") as error:
            await tasks[1]
        assert error.value.status == 503
        ended.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        for error in (ValueError, TimeoutError):
            with pytest.raises(error):
                await lane.run(fail, error)
        assert [await lane.run(lambda n=n: n) for n in range(10)] == list(range(10))
        lane.close()
        return order

    assert asyncio.run(run()) == [0, 4, 3, 2]


def fail(error):
    raise error


class Picture:
    """Something large."""


def test_what_failed_is_not_kept():
    """What a question was about is freed as soon as its error was handled, not when Python next looks for garbage."""

    def refuse(picture):
        raise ValueError(picture)

    async def run():
        lane, picture = Lane(threads=1), Picture()
        kept = weakref.ref(picture)
        try:
            await lane.run(refuse, picture)
        except ValueError:
            del picture
        await lane.run(int)  # the thread has forgotten the work before
        lane.close()
        return kept() is not None

    gc.disable()
    try:
        assert not asyncio.run(run())
    finally:
        gc.enable()


def test_who_is_refused_is_not_kept(monkeypatch):
    """What was to be sent or asked is freed when its place in the line is lost."""
    monkeypatch.setattr(limits, "_MOST_WAITING", 1)

    async def wait(room, picture, kept):
        kept.append(weakref.ref(picture))
        try:
            async with room.hold(1):
                pass
        except Refused:
            pass

    async def run():
        room, kept = Room(1), []
        async with room.hold(1):
            tasks = [asyncio.create_task(wait(room, Picture(), kept)) for _ in range(2)]
            await tasks.pop(0)
        await tasks.pop()
        await asyncio.sleep(0)
        return [each() is not None for each in kept]

    gc.disable()
    try:
        assert asyncio.run(run()) == [False, False]
    finally:
        gc.enable()


def test_a_task_that_is_cancelled_in_line_takes_no_room():
    """Room that is given to a task in the moment in which it is cancelled comes back."""

    async def run():
        room = Room(1)
        async with room.hold(1):
            task = asyncio.create_task(stand_still(room, 1, []))
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(1), room.hold(1):
            pass

    asyncio.run(run())
