"""The server of the page, which refuses all else: files by their path, other addresses, requests without an end."""

import ipaddress
import os
import re
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from adsq_jax.demo import page
from adsq_jax.demo.finder import Finder
from adsq_jax.errors import InputError
from adsq_jax.index import open_index
from adsq_jax.inference import hits

_MAX_REQUEST = page.MAX_BYTES * 4 // 3 + 2**20  # bytes of a request: a picture in base64, and the rest
_MAX_WAITING = 16  # requests, each of up to that many bytes
# The routes that the page uses. Other routes of Gradio return files, fetch from elsewhere, or write to the disk.
_ROUTES = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|manifest\.json)|/(assets|static)/[^%]+"
    r"|/gradio_api/(queue/join|queue/data|reset|cancel|heartbeat/\w+)"
)
_POLICY = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"  # the browser asks no other machine for anything


def serve(index: str | Path, *, workdir: str | Path | None = None, host: str = "127.0.0.1", port: int = 7860) -> None:
    """Serve a page on which to search an index of pictures, until a signal or KeyboardInterrupt ends it.

    Args:
      index: the index: its folder, or its address on a Milvus server.
      workdir: the folder of the run whose model made the codes; None: the one that the index names.
      host: the address to listen on; "0.0.0.0" lets other machines in.
      port: the port to listen on; 0: any free one. A line on the standard output says which.

    Raises:
      InputError: there is no such index, its model isn't there, host or port can't be listened on, or Gradio isn't installed.
    """
    with (
        listen(host, port) as listener,
        open_index(index) as opened,
        tempfile.TemporaryDirectory(prefix="adsq_jax_demo_") as temporary,
    ):
        model = hits.load_model(opened, workdir=workdir)
        _serve(Finder(opened, model), listener, location=opened.location, temporary=temporary)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address; port 0 is any free one.

    Raises:
      InputError: the port is taken, or the address isn't this machine's.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, TypeError, UnicodeError) as error:  # TypeError: not a host name
        number = getattr(error, "errno", None) or 0  # below 0 if a name isn't resolved
        reason = os.strerror(number) if number > 0 else "no such address"
        raise InputError(
            f"--host={host} --port={port} can't be listened on ({reason}); fix: give another host or port"
        ) from error


def _serve(finder: Finder, listener: socket.socket, *, location: str, temporary: str) -> None:
    """Serve the page; `temporary` is a folder for Gradio's files, which should stay empty."""
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": temporary}
    try:
        import fastapi
        import gradio
        import uvicorn
        from starlette.middleware.trustedhost import TrustedHostMiddleware
    except ModuleNotFoundError as error:
        raise InputError(f"the page needs Gradio ({error.name} is missing); fix: pip install -e '.[demo]'") from error
    blocks, looks = page.build(finder)
    blocks.queue(max_size=_MAX_WAITING)
    app = fastapi.FastAPI(openapi_url=None)
    address, port = listener.getsockname()[:2]
    if ipaddress.ip_address(address).is_loopback:
        # The name of a hostile page can point to this machine's address; the page could then read what is here.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", "[::1]", address])
    else:
        print(f"anyone who can reach port {port} of this machine sees the pictures of the index", file=sys.stderr)
        address = socket.gethostname()
    app.add_middleware(Guard)
    quiet = {"footer_links": [], "run_history": False, "enable_monitoring": False, "ssr_mode": False, "show_error": False}
    gradio.mount_gradio_app(app, blocks, path="/", pwa=False, mcp_server=False, **quiet, **looks)
    config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1)
    print(f"http://{f'[{address}]' if ':' in address else address}:{port}/ shows {location}; Ctrl-C ends it", flush=True)
    uvicorn.Server(config).run(sockets=[listener])


class Guard:
    """ASGI middleware that refuses requests which the page doesn't make."""

    def __init__(self, app: Any):
        """Keep the application that answers the other requests."""
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = _refusal(scope)
        if status:
            await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return

        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", _POLICY)]
            await send(message)

        await self._app(scope, receive, send_with_policy)


def _refusal(scope: Any) -> int:
    """Return the HTTP status for refusing a request; 0 if it is allowed."""
    if not _ROUTES.fullmatch(scope["path"]):
        return 404
    if scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return 0
    length = dict(scope["headers"]).get(b"content-length")
    if length is None:
        return 411
    return 413 if int(length) > _MAX_REQUEST else 0
