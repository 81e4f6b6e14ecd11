"""One request over ASGI and its answer: what is read is checked and counted, what is sent is sent in pieces."""

import asyncio
import json
import urllib.parse
from collections.abc import Callable
from typing import Any

from adsq_jax.demo.limits import Lane, Refused, Transfer
from adsq_jax.errors import InputError
from adsq_jax.index import is_text

_SECONDS = 10.0  # that a question without a picture may come
_PIECE = 2**16  # bytes of an answer that wait in memory for a slow reader
_HEADERS = (  # the browser asks no other machine for anything, and gives no other page an answer
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


class Gone(Exception):
    """The visitor has left."""


class Exchange:
    """A request, and its answer."""

    def __init__(self, scope: Any, receive: Any, send: Any):
        """Keep what ASGI gives."""
        self.path, self.method = scope["path"], scope["method"]
        self.began = False  # whether the answer has begun
        self._scope, self._receive, self._send = scope, receive, send
        self._headers: dict[bytes, bytes] = dict(scope["headers"])

    def check_origin(self, hosts: set[str] | None) -> None:
        """Check that a request names this machine by one of some names, None: any, and that no other page made it.

        Raises:
          Refused: it doesn't.
        """
        host = self._header(b"host")
        if hosts is not None and (_name(host) or "").removesuffix(".") not in hosts:
            raise Refused(400, "the demo is at another address; fix: open it by the address that it printed")
        origin = self._header(b"origin")
        if origin and origin not in (f"http://{host}", f"https://{host}"):  # https: behind a proxy
            raise Refused(403, "another page asked; fix: open the demo itself")

    def length(self, *, most: int) -> int:
        """Return the length of the body, which must be stated and be at most so many bytes.

        Raises:
          Refused: it isn't, or the body comes in chunks.
        """
        length = self._header(b"content-length")
        if b"transfer-encoding" in self._headers or not length.isdecimal():
            raise Refused(411, "expected the length of the request, and no chunks")
        if int(length) > most:
            raise Refused(413, f"expected at most {most:,} bytes, got {int(length):,}; fix: make it smaller")
        return int(length)

    def parameter(self, name: str) -> str:
        """Return a parameter of the address; "" if it isn't there."""
        return self.parameters().get(name, "")

    def parameters(self) -> dict[str, str]:
        """Return the parameters of the address; of several with one name, the first."""
        text = self._scope["query_string"].decode("latin-1")
        given = urllib.parse.parse_qs(text, keep_blank_values=True, errors="replace")
        return {name: values[0] for name, values in given.items()}

    @property
    def is_json(self) -> bool:
        """Whether the body says that it is JSON."""
        return self._header(b"content-type").partition(";")[0].strip().lower() == "application/json"

    async def read(self, length: int, *, transfer: Transfer) -> bytes:
        """Return the body, which must have the length that was stated.

        Raises:
          Gone: it ended before.
        """
        content, more = bytearray(), True
        while more:
            message = await self._receive()
            if message["type"] != "http.request":
                raise Gone
            content += message.get("body", b"")
            transfer.moved, more = len(content), message.get("more_body", False)
            if len(content) > length:
                raise Refused(413, f"expected {length:,} bytes, got more")
        return bytes(content)

    async def read_json(self, length: int) -> Any:
        """Return the value that the body holds in JSON.

        Raises:
          InputError: it holds none.
          Refused: it came too slowly.
        """
        try:
            async with asyncio.timeout(_SECONDS):
                content = await self.read(length, transfer=Transfer(length))
        except TimeoutError as error:
            raise Refused(408, "the request came too slowly; fix: try again") from error
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise InputError("expected JSON, got something else; fix: reload the page") from error

    async def send(self, status: int, kind: str, content: bytes, *, transfer: Transfer, close: bool = False) -> None:
        """Send the answer; `close` ends the connection after it, as where a body wasn't read.

        Raises:
          Gone: the visitor left before its end.
        """
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(content)).encode()), *_HEADERS]
        headers += [(b"connection", b"close")] if close else []
        self.began = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        for start in range(0, max(1, len(content)), _PIECE):
            if self._scope["state"]["has_ended"]():  # asyncio would log each piece
                raise Gone
            more = start + _PIECE < len(content)
            await self._send({"type": "http.response.body", "body": content[start : start + _PIECE], "more_body": more})
            transfer.moved = start

    async def send_json(self, status: int, content: Any, *, close: bool = False) -> None:
        """Send a small answer."""
        encoded = json.dumps(content).encode()
        await self.send(status, "application/json", encoded, transfer=Transfer(len(encoded)), close=close)

    async def run(self, lane: Lane, work: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        """Return what `work` returns in a thread of a lane.

        Raises:
          Gone: the visitor had left when a thread was free.
          Refused: the line was full, or it took too long.
        """
        has_ended = self._scope["state"]["has_ended"]

        def begin() -> Any:
            if has_ended():
                raise Gone
            return work(*arguments, **more)

        return await lane.run(begin)

    def abort(self) -> None:
        """End the connection at once."""
        self._scope["state"]["abort"]()

    def _header(self, name: bytes) -> str:
        return self._headers.get(name, b"").decode("latin-1")


def _name(host: str) -> str | None:
    """Return the name in a Host header, without the port."""
    try:
        return urllib.parse.urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def field(given: Any, name: str, kind: type, expected: str) -> Any:
    """Return a value that the page sent; check it, since anybody can send anything.

    Raises:
      InputError: it is missing, or of another type.
    """
    value = given.get(name) if isinstance(given, dict) else None
    if type(value) is not kind:
        raise InputError(f"expected {name} to be {expected}, got {value!r:.100}; fix: reload the page")
    return value


def text(given: Any, name: str) -> str:
    """Return a text that the page sent.

    Raises:
      InputError: it sent none.
    """
    value = field(given, name, str, "a text")
    if not is_text(value):
        raise InputError(f"expected {name} to be a text, got {value!r:.100}; fix: reload the page")
    return value


def whole(given: Any, name: str, *, low: int, high: int) -> int:
    """Return a whole number that the page sent.

    Raises:
      InputError: it sent none, or one that is out of range.
    """
    expected = f"a whole number from {low} to {high}"
    value = field(given, name, int, expected)
    if not low <= value <= high:
        raise InputError(f"expected {name} to be {expected}, got {value!r:.100}; fix: reload the page")
    return value
