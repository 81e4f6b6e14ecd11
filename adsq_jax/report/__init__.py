"""Reports on finished runs: a page of HTML with plots, by `write`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adsq_jax.report.page import write

__all__ = ["write"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from adsq_jax.report import page  # JAX takes seconds to import: only when it is needed

    return getattr(page, name)
