"""Copies an index from one place to another, a folder or a Milvus server, and makes sure of the copy.

`python -m adsq_jax.index copy FROM TO`
"""

import sys

from adsq_jax import command_line
from adsq_jax.errors import InputError, Stopped
from adsq_jax.index import copying, places


def main(command: str, source: str, target: str) -> None:
    """Copies and tells."""
    if command != "copy":
        raise InputError(f"{command!r:.100} is no command: give copy FROM TO")
    if source == target:
        raise InputError(f"{source} can't be copied to itself: give another place")
    done = 0

    def on_progress(count: int) -> None:
        nonlocal done
        done += count
        bar.update(count)

    with places.open_index(source) as opened, places.create(target, opened.manifest) as made:
        try:
            with command_line.progress_bar(opened.count(), unit="items") as bar:
                copied = copying.copy(opened, made, on_progress=on_progress)
        except (KeyboardInterrupt, Stopped) as error:
            print(f"stopped: {done:,} items are in {target}; the same command goes on", file=sys.stderr)
            command_line.hard_exit(0 if isinstance(error, Stopped) else 130)
    more = f"; {target} has {copied.others:,} others as well" if copied.others else ""
    print(f"{copied.added:,} items copied, {copied.unchanged:,} were there already; all compared, the same{more}")


if __name__ == "__main__":
    command_line.run(main, arguments=("copy", "FROM", "TO"))
