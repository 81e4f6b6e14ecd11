"""The server of the page and of the API. It refuses all else: other paths, hosts and origins, requests without end or bound."""

import contextlib
import ipaddress
import json
import os
import socket
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adsq_jax.data.decoding_worker import DecodingWorker
from adsq_jax.demo import api, page
from adsq_jax.demo.exchange import Exchange, Gone, field, text, whole
from adsq_jax.demo.finder import Finder
from adsq_jax.demo.limits import Lane, Refused, Room
from adsq_jax.errors import InputError
from adsq_jax.index import open_index, own_model
from adsq_jax.index.filters import FilterError
from adsq_jax.inference import hits
from adsq_jax.inference import pictures as picture_files

_MAX_JSON = 2**16  # bytes of a question: the longest filter or id, each character escaped
_MAX_NAME = 255  # characters of a picture's name
_ROOM = 64 * 2**20  # bytes of all pictures that come, and of all answers that go
_BYTES_A_HIT = 2**16  # of an answer: a thumbnail of noise in base64, and a long id; without the thumbnail half of it


def serve(
    index: str | Path,
    *,
    workdir: str | Path | None = None,
    host: str = "127.0.0.1",
    port: int = 7860,
    pictures: Sequence[str] = (),
    remote_pictures: bool = False,
    has_page: bool = True,
) -> None:
    """Serve a page on which to search an index of pictures, and an API, until a signal or KeyboardInterrupt ends it.

    Args:
      index: the index: its folder, or its address on a Milvus server.
      workdir: the folder of the run whose model made the codes; None: the one that the index names.
      host: the address to listen on; "0.0.0.0" lets other machines in.
      port: the port to listen on; 0: any free one. A line on the standard output says which.
      pictures: folders below which pictures may be shown; none: those that the index was filled from.
      remote_pictures: whether those may be in object stores, which this user's credentials open.
      has_page: whether there is the page, and not the API alone (`POST /api/search` and `GET /api/info`).

    Raises:
      InputError: there is no such index, its model isn't there, host or port can't be listened on, or uvicorn isn't installed.
    """
    with (
        listen(host, port) as listener,
        open_index(index) as plain,
        open_index(index) as filtered,
        _started_worker() as worker,
    ):
        model = hits.load_model(plain, workdir=workdir)
        places = picture_files.places(plain, folders=pictures, remote=remote_pictures)
        if has_page and not places.folders:
            print(f"no pictures are shown: {places.hint}", file=sys.stderr)
        finder = Finder(
            plain,
            filtered,
            model,
            decode=lambda content, sides: worker.decode(content, shorter_sides=sides, bit_depth=model.bit_depth),
            read=lambda name: picture_files.read(name, places),
        )
        run = str(workdir or ("" if own_model.is_in(plain) else plain.manifest.model))
        heading = page.heading(plain, model, run=run)
        _serve(finder, listener, location=plain.location, heading=heading, has_page=has_page)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address; port 0 is any free one.

    Raises:
      InputError: the port is taken, or the address isn't this machine's.
    """
    if not host:  # which the system takes for all addresses, as 0.0.0.0
        raise InputError("--host is empty; fix: give an address, as 127.0.0.1, or leave the flag out")
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, TypeError, UnicodeError) as error:  # TypeError: not a host name
        number = getattr(error, "errno", None) or 0  # below 0 if a name isn't resolved
        reason = os.strerror(number) if number > 0 else "no such address"
        raise InputError(
            f"--host={host} --port={port} can't be listened on ({reason}); fix: give another host or port"
        ) from error


@contextlib.contextmanager
def _started_worker() -> Iterator[DecodingWorker]:
    with contextlib.ExitStack() as stack:
        try:
            worker = stack.enter_context(DecodingWorker())
        except OSError as error:
            raise InputError(
                f"a process that decodes pictures can't be started ({error.strerror}); fix: allow more memory and files"
            ) from error
        yield worker


def _serve(finder: Finder, listener: socket.socket, *, location: str, heading: str, has_page: bool) -> None:
    try:
        import uvicorn

        from adsq_jax.demo.connections import BoundedProtocol
    except ModuleNotFoundError as error:
        raise InputError(f"this needs uvicorn ({error.name} is missing); fix: pip install 'adsq_jax[demo]'") from error
    address, port = listener.getsockname()[:2]
    hosts = None
    if ipaddress.ip_address(address).is_loopback:
        # The name of a hostile page can point to this machine's address; the page could then read what is here.
        hosts = {"localhost", "127.0.0.1", "::1", address}
    else:
        print(f"anyone who can reach port {port} of this machine sees the pictures of the index", file=sys.stderr)
        address = socket.gethostname()
    with contextlib.closing(Application(finder, hosts=hosts, heading=heading, has_page=has_page)) as application:
        config = uvicorn.Config(
            application,
            http=BoundedProtocol,
            ws="none",
            loop="asyncio",
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            backlog=128,  # connections that are taken at once, before `BoundedProtocol` counts them
            log_level="critical",  # the application reports its own defects, and nothing of what visitors send
            timeout_graceful_shutdown=1,
        )
        does = "shows" if has_page else "answers searches of"
        line = f"http://{f'[{address}]' if ':' in address else address}:{port}/ {does} {location}; Ctrl-C ends it"

        class Server(uvicorn.Server):
            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                print(line, flush=True)  # from here on a signal ends it in order

        Server(config).run(sockets=[listener])


class Application:
    """The ASGI application. It keeps nothing of a visitor: the page itself holds the query and its code."""

    def __init__(self, finder: Finder, *, hosts: set[str] | None, heading: str = "", has_page: bool = True):
        """Make what is the same for all visitors.

        Args:
          finder: answers the questions.
          hosts: the names by which requests may call this machine; None: any.
          heading: says what is searched.
          has_page: whether there is the page, and not the API alone.
        """
        self._finder, self._hosts, self._heading = finder, hosts, heading
        self._pages = dict[str, tuple[str, bytes]]()
        self._questions: dict[str, tuple[Callable[..., Awaitable[None]], int]] = {"/api/search": (self._find, page.MAX_BYTES)}
        if has_page:
            self._add_page()
        self._coming, self._going = Room(_ROOM), Room(_ROOM)
        # A filter, a picture that is hard to decode, or a hundred thumbnails keep others of their kind waiting alone.
        self._plain, self._filtered = Lane(threads=1), Lane(threads=1)
        self._encoding, self._drawing = Lane(threads=2), Lane(threads=2)

    def _add_page(self) -> None:
        finder = self._finder
        samples, labels = finder.samples(page.SAMPLES), finder.labels(page.LABELS)
        start = page.start(samples, labels, bits=finder.bits, heading=self._heading)
        self._pages = {**page.files(), "/start": ("application/json", json.dumps(start).encode())}
        self._questions["/upload"] = (self._upload, page.MAX_BYTES)
        self._questions["/select"] = (self._select, _MAX_JSON)
        self._questions["/search"] = (self._search, _MAX_JSON)

    def close(self) -> None:
        """Begin no more work."""
        for lane in (self._plain, self._filtered, self._encoding, self._drawing):
            lane.close()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"expected a request of HTTP, got {scope['type']}")
        exchange = Exchange(scope, receive, send)
        try:
            await self._answer(exchange)
        except Gone:
            exchange.abort()
        except InputError as error:
            about = {"field": "where"} if isinstance(error, FilterError) else {}  # the page shows it there
            await exchange.send_json(400, {"error": str(error), **about})
        except Refused as refused:
            if exchange.began:
                exchange.abort()  # a reader that is too slow
            else:
                await exchange.send_json(refused.status, {"error": str(refused)}, close=True)
        except Exception as error:  # a defect
            traceback.print_exception(error)
            exchange.abort()

    async def _answer(self, exchange: Exchange) -> None:
        path, method = exchange.path, exchange.method
        exchange.check_origin(self._hosts)
        if path in self._pages:
            if method not in ("GET", "HEAD"):
                raise Refused(405, f"{path} is only read")
            kind, content = self._pages[path]
            async with self._going.hold(len(content)) as transfer, transfer.moving():
                await exchange.send(200, kind, content, transfer=transfer)
            return
        if path == "/api/info" and method == "GET":
            count = await exchange.run(self._plain, self._finder.count)
            await exchange.send_json(200, {"index": self._heading, "items": count, "bits": self._finder.bits})
            return
        if path not in self._questions:
            raise Refused(404, "there is no such page; fix: GET /api/info, or POST /api/search")
        if method != "POST":
            raise Refused(405, f"{path} answers to POST alone")
        work, most = self._questions[path]
        await work(exchange, exchange.length(most=most))

    async def _upload(self, exchange: Exchange, length: int) -> None:
        name = exchange.parameter("name")[:_MAX_NAME] or "the picture"
        async with self._coming.hold(length) as transfer:
            async with transfer.moving():
                content = await exchange.read(length, transfer=transfer)
            query = await exchange.run(self._encoding, self._finder.query, name, content)
        await self._send_query(exchange, query)

    async def _select(self, exchange: Exchange, length: int) -> None:
        name = text(await exchange.read_json(length), "id")
        await self._send_query(exchange, await exchange.run(self._encoding, self._finder.indexed, name))

    async def _send_query(self, exchange: Exchange, query: Any) -> None:
        await exchange.send_json(200, page.query(query, bits=self._finder.bits))

    async def _search(self, exchange: Exchange, length: int) -> None:
        given = await exchange.read_json(length)
        k = whole(given, "k", low=1, high=page.MAX_HITS)
        radius = whole(given, "radius", low=0, high=self._finder.bits)
        where, code = text(given, "where"), _code(given)
        lane = self._filtered if where.strip() else self._plain
        found, seconds, count = await exchange.run(lane, self._finder.hits, code, k=k, radius=radius, where=where)
        async with self._going.hold((len(found) + 1) * _BYTES_A_HIT) as transfer:
            drawn = {"seconds": seconds, "count": count, "thumbnail": self._finder.thumbnail}
            answer = await exchange.run(self._drawing, page.hits, found, **drawn)
            content = json.dumps(answer).encode()
            async with transfer.moving():
                await exchange.send(200, "application/json", content, transfer=transfer)

    async def _find(self, exchange: Exchange, length: int) -> None:
        """Answer a program: a search by a picture, or by JSON that names an item."""
        if exchange.is_json:
            if length > _MAX_JSON:
                raise Refused(413, f"expected at most {_MAX_JSON:,} bytes of JSON, got {length:,}")
            name, options = api.about_item(await exchange.read_json(length))
            code = await exchange.run(self._plain, self._finder.stored_code, name)
        else:
            options = api.about_picture(exchange.parameters())
            async with self._coming.hold(length) as transfer:
                async with transfer.moving():
                    content = await exchange.read(length, transfer=transfer)
                code = await exchange.run(self._encoding, self._finder.code, "the picture", content)
        lane = self._filtered if options.where.strip() else self._plain
        found, seconds, count = await exchange.run(lane, self._finder.hits, code, **options._asdict())
        async with self._going.hold((len(found) + 1) * _BYTES_A_HIT // 2) as transfer, transfer.moving():
            content = json.dumps(api.answer(found, seconds=seconds, count=count)).encode()
            await exchange.send(200, "application/json", content, transfer=transfer)


def _code(given: Any) -> np.ndarray:
    digits = field(given, "code", str, "hexadecimal digits")
    try:
        return np.frombuffer(bytes.fromhex(digits), np.uint8)[None]
    except ValueError as error:
        raise InputError(f"expected code to be hexadecimal digits, got {digits!r:.100}; fix: reload the page") from error
