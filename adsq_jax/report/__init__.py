"""Reports on finished runs: a page of HTML with plots, by `write`."""

from adsq_jax.report.page import write

__all__ = ["write"]
