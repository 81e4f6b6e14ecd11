"""A page on which to look through an index: give a picture, or pick one, and see the nearest; needs the extra `demo`.

`python -m adsq_jax.demo --index=INDEX`
"""

import sys
import tempfile

from absl import flags

from adsq_jax import command_line, index
from adsq_jax.demo import server
from adsq_jax.demo.finder import Finder
from adsq_jax.errors import InputError, Stopped
from adsq_jax.inference import hits

_INDEX = flags.DEFINE_string("index", None, "The index of adsq_jax.encode: its folder, or its address on a Milvus server.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The run whose model the index is of, if it isn't where it was any more.")
_HOST = flags.DEFINE_string("host", "127.0.0.1", "The address to listen on; 0.0.0.0 lets other machines in.")
_PORT = flags.DEFINE_integer("port", 7860, "The port to listen on; 0: any that is free.", lower_bound=0, upper_bound=65_535)


def main() -> None:
    """Reads the flags and serves the page until a signal comes."""
    if not _INDEX.value:
        raise InputError("--index=INDEX is needed: what adsq_jax.encode made")
    try:
        with (
            server.listening(_HOST.value, _PORT.value) as listener,
            index.open_index(_INDEX.value) as opened,
            tempfile.TemporaryDirectory(prefix="adsq_jax_demo_") as temporary,
        ):
            model = hits.model_of(opened, place=_INDEX.value, directory=_WORKDIR.value)
            server.serve(Finder(opened, model), listener, place=_INDEX.value, temporary=temporary)
    except Stopped:
        print("stopped", file=sys.stderr)
        command_line.hard_exit(0)


if __name__ == "__main__":
    command_line.run(main)
