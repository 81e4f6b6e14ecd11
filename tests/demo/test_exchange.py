"""One request and its answer, without a server."""

import asyncio

import pytest

from adsq_jax.demo.exchange import Exchange, Gone
from adsq_jax.demo.limits import Transfer


def test_a_visitor_who_leaves_gets_no_more():
    """An answer ends when its visitor has left: asyncio would log a warning for each piece of the rest."""
    sent = []

    async def send(message):
        sent.append(message["type"])

    state = {"has_ended": lambda: len(sent) == 3}
    exchange = Exchange({"path": "/", "method": "GET", "headers": [], "state": state}, None, send)
    with pytest.raises(Gone):
        asyncio.run(exchange.send(200, "text/plain", bytes(2**20), transfer=Transfer(2**20)))
    assert sent == ["http.response.start", "http.response.body", "http.response.body"]
