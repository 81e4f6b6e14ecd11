"""Copy an index to another location, a folder or a Milvus server, and compare every item of the copy.

`python -m adsq_jax.index copy FROM TO`
"""

import sys
from collections.abc import Sequence

from adsq_jax import command_line, index
from adsq_jax.errors import InputError, Stopped


def main(arguments: Sequence[str]) -> None:
    """Read the arguments, copy, and print how many items were copied."""
    flags = command_line.Flags(arguments, description=__doc__)
    command, source, target = flags.parse(positional=("copy", "FROM", "TO")).positional
    if command != "copy":
        raise InputError(f"expected the command copy, got {command!r:.100}; fix: copy FROM TO")
    with index.open_index(source) as opened, index.create(target, opened.manifest) as copy:
        try:
            counts = index.copy(opened, copy)
        except (KeyboardInterrupt, Stopped) as error:
            print(f"stopped: {target} keeps what was copied; the same command continues", file=sys.stderr)
            command_line.hard_exit(0 if isinstance(error, Stopped) else 130)
    others = f"; {target} has {counts.others:,} other items" if counts.others else ""
    print(f"{counts.added:,} items copied, {counts.unchanged:,} were there already; all are equal{others}")


if __name__ == "__main__":
    command_line.run(main)
