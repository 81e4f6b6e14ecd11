"""Reports on finished runs: a page of HTML with plots, by `write`."""

from adsq_jax import errors as _errors

with _errors.needing(__name__):
    from adsq_jax.report.page import write

__all__ = ["write"]
