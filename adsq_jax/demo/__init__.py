"""A web page on which to search an index of pictures, by `serve`."""

import sys
from typing import TYPE_CHECKING, Any

from adsq_jax import command_line
from adsq_jax.devices import compiled_programs
from adsq_jax.errors import Stopped
from adsq_jax.run import lazy_names as _lazy_names

if TYPE_CHECKING:
    from adsq_jax.demo.server import serve

__all__ = ["serve"]
__getattr__ = _lazy_names.loader(__name__, {"serve": "server"})  # takes seconds to import


def serve_until_stopped(index: str, **options: Any) -> None:
    """Serve as a command: say at once that it starts, and end the process in order after SIGTERM; options as of `serve`."""
    print(f"starting: opens {index} and its model", file=sys.stderr, flush=True)
    compiled_programs.keep()
    try:
        from adsq_jax.demo import server  # takes seconds to import

        server.serve(index, **options)
    except Stopped:
        print("stopped", file=sys.stderr)
        command_line.hard_exit(0)
