"""A web page on which to search an index of pictures, by `serve`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adsq_jax.demo.server import serve

__all__ = ["serve"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from adsq_jax.demo import server  # JAX takes seconds to import: only when it is needed

    return getattr(server, name)
