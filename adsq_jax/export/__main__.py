"""Export the encoder of a trained model: a file that takes images and returns packed codes, without this package.

`python -m adsq_jax.export --workdir=DIR --out=encoder`
"""

from collections.abc import Sequence

from adsq_jax import command_line, export
from adsq_jax.errors import InputError


def main(arguments: Sequence[str]) -> None:
    """Read the flags, export the encoder, and print where it is."""
    flags = command_line.Flags(arguments, description=__doc__)
    flags.text("workdir", "A finished run's folder: its model is exported.")
    flags.text("out", "The encoder's folder: a new or an empty one.")
    given = flags.parse()
    if not (given.workdir and given.out):
        raise InputError("expected --workdir=DIR and --out=FOLDER")
    out = export.export(given.workdir, given.out)
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{out}: {size / 2**20:.1f} MiB; python {out}/example.py PICTURE... shows how to use it")


if __name__ == "__main__":
    command_line.run(main)
