"""Make a page with plots of a finished run: how it learned, how its codes retrieve, what it finds and where it fails.

`python -m adsq_jax.report --workdir=DIR`
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
    given = flags.parse()
    if not given.workdir:
        raise InputError("expected --workdir=DIR, a finished run's folder")
    host.use_all_cores()
    print(f"written to {report.write(given.workdir, out=given.out)}")


if __name__ == "__main__":
    command_line.run(main)
