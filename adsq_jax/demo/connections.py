"""Connections of the demo: a bounded number of them, and none is held by a request that doesn't come."""

import asyncio
import collections
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from adsq_jax.run import startup

_MOST = 512  # connections, or half of the files that this process may open
_SECONDS = 10.0  # until the head of a request must be there


class BoundedProtocol(H11Protocol):
    """HTTP as uvicorn speaks it, but a silent client is dropped after a while, and one where there are too many.

    That one is of the address that has most connections, and the oldest of these: since who came last is answered first
    (`limits.Room`), it has the least to lose.
    """

    def __init__(self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: Any = None):
        """Let the application end the connection, and see whether it has ended."""
        super().__init__(config, server_state, {**app_state, "abort": self._abort, "has_ended": self._has_ended}, _loop)
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Make room for a new connection."""
        super().connection_made(transport)
        self._expect_request()
        files = startup.limit("RLIMIT_NOFILE")
        if len(self.connections) > (_MOST if files is None else min(_MOST, files // 2)):
            addresses = collections.Counter(other._address for other in self._all())
            (address, _), *_ = addresses.most_common(1)
            min((other for other in self._all() if other._address == address), key=lambda other: other._since)._abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection that has ended."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)
        # Without circles all of it is freed now: Python looks for them seldom in a process as large as this one.
        self.cycle = self.scope = None  # type: ignore[assignment]
        self.app_state = {}

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        if not self.transport.is_closing():
            self._expect_request()

    def _expect_request(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._since = self.loop.time()
        self._timer = self.loop.call_later(_SECONDS, self._end_if_silent)

    def _end_if_silent(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self._abort()

    def _all(self) -> list["BoundedProtocol"]:
        return [other for other in self.connections if isinstance(other, BoundedProtocol)]

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else ""

    def _has_ended(self) -> bool:
        return self.transport.is_closing()

    def _abort(self) -> None:
        self.connections.discard(self)  # at once, since `connection_lost` is called later
        self.transport.abort()
