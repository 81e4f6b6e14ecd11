"""A web page on which to search an index of pictures, by `serve`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adsq_jax.demo.server import serve

__all__ = ["serve"]


def __getattr__(name: str) -> Any:
    if name != "serve":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from adsq_jax.demo import server  # takes seconds to import: the command says before that it is starting

    return server.serve
