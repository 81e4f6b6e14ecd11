"""The public names of the package: what its public parts list in `__all__`."""

import importlib
import types

PARTS = ("data", "devices", "index", "inference", "methods", "models", "retrieval", "training", "export", "report", "demo")


def public_names():
    """Yield the part, the name, what it stands for, and the object's own dotted name; "" for modules and values."""
    for part in ("adsq_jax", *(f"adsq_jax.{name}" for name in PARTS)):
        for name in importlib.import_module(part).__all__:
            found = getattr(importlib.import_module(part), name)
            own = f"{found.__module__}.{found.__qualname__}" if isinstance(found, types.FunctionType | type) else ""
            yield part, name, found, own
