"""Serve a page on which to search an index: drop a picture, or pick one, and see the nearest. Needs the extra `demo`.

`adsq demo --index=INDEX`
"""

from collections.abc import Sequence

from adsq_jax import command_line, demo
from adsq_jax.errors import InputError


def main(arguments: Sequence[str]) -> None:
    """Read the flags, and serve the page until a signal ends it."""
    flags = command_line.Flags(arguments, description=__doc__)
    flags.text("index", "The index that `adsq encode` made: its folder, or its address on a Milvus server.")
    flags.text("workdir", "The run whose model made the codes, if its folder has moved.")
    flags.text("host", "The address to listen on; 0.0.0.0 lets other machines in.", default="127.0.0.1")
    flags.integer("port", "The port to listen on; 0: any free one.", default=7860, low=0, high=65_535)
    flags.texts("pictures", "Show pictures below this folder, not below those that the index was filled from; may be repeated.")
    flags.boolean("remote_pictures", "Show pictures of object stores that the index names, with your credentials.")
    given = flags.parse()
    if not given.index:
        raise InputError("expected --index=INDEX, made by adsq encode")
    demo.serve_until_stopped(
        given.index,
        workdir=given.workdir,
        host=given.host,
        port=given.port,
        pictures=given.pictures,
        remote_pictures=given.remote_pictures,
    )


if __name__ == "__main__":
    command_line.run(main)
