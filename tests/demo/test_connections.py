"""Connections of the demo: how many there may be, and for how long without a request; a server in a thread of its own."""

import contextlib
import gc
import socket
import threading
import time
import weakref

import pytest
import uvicorn

from adsq_jax.demo import connections
from adsq_jax.demo.connections import BoundedProtocol

ASK = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def served(monkeypatch):
    """Return a function that connects to a server of at most four connections."""
    monkeypatch.setattr(connections, "_MOST", 4)
    monkeypatch.setattr(connections, "_SECONDS", 0.3)

    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    options = {"ws": "none", "loop": "asyncio", "lifespan": "off", "log_level": "critical", "timeout_graceful_shutdown": 1}
    server = uvicorn.Server(uvicorn.Config(application, http=BoundedProtocol, **options))
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield lambda address="127.0.0.1": stack.enter_context(
            socket.create_connection(listener.getsockname(), timeout=20, source_address=(address, 0))
        )
        server.should_exit = True
        thread.join()


def is_answered(connection):
    content = b""
    with contextlib.suppress(ConnectionError):
        connection.sendall(ASK)
        while not content.endswith(b"\r\n\r\nok"):
            more = connection.recv(1_000)
            if not more:
                return False
            content += more
    return content.startswith(b"HTTP/1.1 200 OK")


def test_the_oldest_connections_make_room(served, monkeypatch):
    """Of twenty, most of them with half a request, the last three stay when one more is answered."""
    monkeypatch.setattr(connections, "_SECONDS", 30)
    others = []
    for number in range(20):
        others.append(served())
        others[-1].sendall(ASK[: number % 3])
    assert is_answered(served())
    ended = 0
    for other in others:
        other.settimeout(0.2)
        try:
            ended += not other.recv(1)
        except TimeoutError:
            pass
        except ConnectionError:
            ended += 1
    assert ended == 17


def test_an_address_with_many_connections_makes_room_for_others(served, monkeypatch):
    """Whoever connects again and again drops only their own connections; those of another address stay."""
    monkeypatch.setattr(connections, "_SECONDS", 30)
    other = served("127.0.0.2")
    assert is_answered(other)
    for _ in range(20):
        assert is_answered(served())
    assert is_answered(other)


def test_a_request_that_does_not_come_is_not_awaited(served):
    """A connection with half a head, with none, and one that was answered and stays, end after a while; not before."""
    half, silent, answered = served(), served(), served()
    half.sendall(ASK[:9])
    assert is_answered(answered)
    began = time.monotonic()
    assert is_answered(answered)
    for connection in (half, silent, answered):
        with contextlib.suppress(ConnectionError):
            assert connection.recv(1) == b""
    assert 0.2 < time.monotonic() - began < 5


def test_connections_that_ended_are_not_kept(served):
    """What a connection held is freed when it ends, not when Python next looks for garbage."""
    kept, made = [], BoundedProtocol.connection_made

    def remember(self, transport):
        kept.append(weakref.ref(self))
        made(self, transport)

    gc.disable()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(BoundedProtocol, "connection_made", remember)
            for _ in range(3):
                with served() as connection:
                    assert is_answered(connection)
            end = time.monotonic() + 5
            while any(each() is not None for each in kept) and time.monotonic() < end:
                time.sleep(0.05)
        assert [each() for each in kept] == [None] * 3
    finally:
        gc.enable()
