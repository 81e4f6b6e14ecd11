"""Make a page with plots of a finished run: how it learned, how its codes retrieve, what it finds and where it fails.

`adsq report --workdir=DIR`
"""

from collections.abc import Sequence

from adsq_jax import command_line, report
from adsq_jax.devices import host
from adsq_jax.errors import InputError


def main(arguments: Sequence[str]) -> None:
    """Read the flags, write the report, and print where it is."""
    flags = command_line.Flags(arguments, description=__doc__)
    flags.text("workdir", "A finished run's folder.")
    flags.text("out", "The report's folder; DIR/report if not given. An earlier report there is replaced.")
    flags.texts("pictures", "Show pictures below this folder, not below the one that the run names; may be repeated.")
    flags.boolean("remote_pictures", "Show pictures of the object store that the run names, with your credentials.")
    given = flags.parse()
    if not given.workdir:
        raise InputError("expected --workdir=DIR, a finished run's folder")
    host.use_all_cores()
    path = report.write(given.workdir, out=given.out, pictures=given.pictures, remote_pictures=given.remote_pictures)
    print(f"written to {path}")


if __name__ == "__main__":
    command_line.run(main)
