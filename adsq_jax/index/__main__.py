"""Look after an index, in a folder or on a Milvus server.

`adsq index info INDEX` says what it holds. `copy FROM TO` copies it to another place, and compares every item.
`remove INDEX WHAT` removes the items of a folder or a picture, or those of a filter. `move INDEX OLD NEW` follows pictures that
were moved to another folder. `duplicates INDEX` lists groups of near-identical pictures.
"""

import sys
from collections.abc import Sequence

from adsq_jax import command_line, index
from adsq_jax.data.text import printable
from adsq_jax.errors import InputError, Stopped, did_you_mean
from adsq_jax.index import near_duplicates
from adsq_jax.index.copying import create_for_copy
from adsq_jax.run import tables

_MOST_LABELS = 20  # that `info` shows


def main(arguments: Sequence[str]) -> None:
    """Call the command that is named first with the arguments that follow."""
    name, *rest = arguments or [""]
    if name in ("--help", "-h"):
        command_line.Flags(["--help"], description=__doc__).parse()
    if name not in COMMANDS:
        expected = f"expected one of the commands {', '.join(COMMANDS)}, got {name!r:.100}"
        raise InputError(f"{expected}{did_you_mean(name, COMMANDS)}")
    COMMANDS[name](rest)


def _info(arguments: Sequence[str]) -> None:
    flags = command_line.Flags(arguments, description="Say what an index holds: adsq index info INDEX")
    (place,) = flags.parse(positional=("info INDEX",)).positional
    about = index.info(place)
    labels = [f"{printable(name.encode())} {count:,}" for name, count in about.labels.items()]
    more = f", and {len(labels) - _MOST_LABELS:,} more" if len(labels) > _MOST_LABELS else ""
    rows = {
        "index": about.location,
        "items": f"{about.items:,}",
        "bits": str(about.bits),
        "features": f"{about.features} numbers an item" if about.features else "none: it is searched by codes alone",
        "model": f"{about.model or 'unknown'}, sha256 {about.model_sha256[:12] or 'unknown'}",
        "size": "on a server" if about.size is None else f"{about.size:,} bytes",
        "labels": ", ".join(labels[:_MOST_LABELS]) + more if labels else "none",
        "filled from": ", ".join(about.folders) or "unknown",
    }
    print(tables.align(list(rows.items())))


def _copy(arguments: Sequence[str]) -> None:
    flags = command_line.Flags(arguments, description="Copy an index: adsq index copy FROM TO")
    source, target = flags.parse(positional=("copy FROM", "TO")).positional
    with index.open_index(source) as opened, create_for_copy(target, opened) as copy:
        try:
            counts = index.copy(opened, copy)
        except (KeyboardInterrupt, Stopped) as error:
            print(f"stopped: {target} keeps what was copied; the same command continues", file=sys.stderr)
            command_line.hard_exit(0 if isinstance(error, Stopped) else 130)
    others = f"; {target} has {counts.others:,} other items" if counts.others else ""
    print(f"{counts.added:,} items copied, {counts.unchanged:,} were there already; all are equal{others}")


def _remove(arguments: Sequence[str]) -> None:
    flags = command_line.Flags(arguments, description="Remove items from an index: adsq index remove INDEX WHAT")
    flags.boolean("all", "Remove them even if no others are left.")
    given = flags.parse(positional=("remove INDEX", "WHAT"))
    place, what = given.positional
    print(f"{index.remove(place, what, allow_all=given.all):,} items removed from {place}; their pictures stay")


def _move(arguments: Sequence[str]) -> None:
    flags = command_line.Flags(arguments, description="Follow moved pictures: adsq index move INDEX OLD NEW")
    place, old, new = flags.parse(positional=("move INDEX", "OLD", "NEW")).positional
    print(f"{index.move(place, old, new):,} items of {place} are at {new} now")


def _duplicates(arguments: Sequence[str]) -> None:
    flags = command_line.Flags(arguments, description="List near-identical pictures: adsq index duplicates INDEX")
    flags.integer("radius", f"The largest distance of two pictures, in bits. {near_duplicates.RADIUS} by default.", low=0)
    flags.text("cosine", "The least cosine of their features, where the index has them.", default=str(near_duplicates.COSINE))
    given = flags.parse(positional=("duplicates INDEX",))
    try:
        cosine = float(given.cosine)
    except ValueError as error:
        raise InputError(f"--cosine={given.cosine!r:.100}: expected a number from -1 to 1") from error
    groups = index.duplicates(given.positional[0], radius=given.radius, cosine=cosine)
    for group in groups:
        print(*(printable(name.encode()) for name in group), sep="\n", end="\n\n")
    print(f"{len(groups):,} groups of near-identical pictures, {sum(map(len, groups)):,} pictures in them")


COMMANDS = {"info": _info, "copy": _copy, "remove": _remove, "move": _move, "duplicates": _duplicates}


if __name__ == "__main__":
    command_line.run(main)
