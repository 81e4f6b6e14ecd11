"""Serves the page, and nothing else: no file by its path, no other address, no request without end."""

import ipaddress
import os
import re
import socket
import sys
from typing import Any

from adsq_jax.demo import page
from adsq_jax.demo.finder import Finder
from adsq_jax.errors import InputError

_MOST_SENT = page.MOST_BYTES * 4 // 3 + 2**20  # bytes of a request: a picture in base64, and what goes with it
_MOST_WAITING = 16  # requests, each of up to that many bytes
# What the page asks Gradio for. Others of its routes give out files, fetch what is elsewhere, or write to the disk.
_ROUTES = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|manifest\.json)|/(assets|static)/[^%]+"
    r"|/gradio_api/(queue/join|queue/data|reset|cancel|heartbeat/\w+)"
)
_OWN = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"  # the browser asks no other machine for anything


def listening(host: str, port: int) -> socket.socket:
    """Takes a port.

    Args:
      host: the address.
      port: its number; 0: any that is free.

    Returns:
      A socket that listens.

    Raises:
      InputError: it is taken, or the address isn't this machine's.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, TypeError, UnicodeError) as error:  # a name that is none: TypeError
        number = getattr(error, "errno", None) or 0  # of names that aren't found below 0
        said = os.strerror(number) if number > 0 else "no such address"
        raise InputError(f"--host={host} --port={port} can't be listened on ({said}): give another host or port") from error


def serve(finder: Finder, listener: socket.socket, *, place: str, temporary: str) -> None:
    """Serves the page until a signal comes.

    Args:
      finder: what it shows.
      listener: where.
      place: of the index, for messages.
      temporary: a folder for Gradio's files, which should be empty.

    Raises:
      InputError: Gradio isn't installed.
    """
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": temporary}
    try:
        import fastapi
        import gradio
        import uvicorn
        from starlette.middleware.trustedhost import TrustedHostMiddleware
    except ImportError as error:
        raise InputError(f"the page needs Gradio ({error.name} is missing): pip install -e '.[demo]'") from error
    blocks, looks = page.build(finder)
    blocks.queue(max_size=_MOST_WAITING)
    app = fastapi.FastAPI(openapi_url=None)
    address, port = listener.getsockname()[:2]
    if ipaddress.ip_address(address).is_loopback:
        # A foreign page can give its own name this machine's address, and would then read what is here.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", "[::1]", address])
    else:
        print(f"anyone who can reach port {port} of this machine sees the pictures of the index", file=sys.stderr)
        address = socket.gethostname()
    app.add_middleware(Guard)
    quiet = {"footer_links": [], "run_history": False, "enable_monitoring": False, "ssr_mode": False, "show_error": False}
    gradio.mount_gradio_app(app, blocks, path="/", pwa=False, mcp_server=False, **quiet, **looks)
    config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1)
    print(f"http://{f'[{address}]' if ':' in address else address}:{port}/ shows {place}; Ctrl-C ends it", flush=True)
    uvicorn.Server(config).run(sockets=[listener])


class Guard:
    """Keeps from Gradio what its page doesn't ask for."""

    def __init__(self, app: Any):
        """Takes the application that answers the rest."""
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers one request, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = _refused(scope)
        if status:
            await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return

        async def send_bounded(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", _OWN)]
            await send(message)

        await self._app(scope, receive, send_bounded)


def _refused(scope: Any) -> int:
    """The HTTP status that a request is refused with; 0 if it isn't."""
    if not _ROUTES.fullmatch(scope["path"]):
        return 404
    if scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return 0
    length = dict(scope["headers"]).get(b"content-length")
    if length is None:
        return 411
    return 413 if int(length) > _MOST_SENT else 0
