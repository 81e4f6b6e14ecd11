"""Export the encoder of a trained model: files that take images and return packed codes, without this package.

`adsq export --workdir=DIR --out=encoder` for JAX, `--out=encoder.onnx` for ONNX's runtimes
"""

from collections.abc import Sequence

from adsq_jax import command_line, export, storage
from adsq_jax.errors import InputError
from adsq_jax.export.onnx_model import SUFFIX


def main(arguments: Sequence[str]) -> None:
    """Read the flags, export the encoder, and print where it is."""
    flags = command_line.Flags(arguments, description=__doc__)
    flags.text("workdir", "A finished run's folder: its model is exported.")
    flags.text("out", "The encoder's folder, a new or an empty one; or a new file whose name ends with .onnx.")
    flags.text("part", "With .onnx, where queries and database are encoded by different networks: query or database.")
    given = flags.parse()
    if not (given.workdir and given.out):
        raise InputError("expected --workdir=DIR and --out=FOLDER or --out=FILE.onnx")
    if storage.path(given.out).suffix == SUFFIX:
        path = export.export_onnx(given.workdir, given.out, part=given.part)
        print(f"{path}: {storage.size(path) / 2**20:.1f} MiB; takes images, gives relaxed_codes and codes")
        return
    if given.part is not None:
        raise InputError(
            f"--part={given.part} goes with a .onnx file, as a folder has the encoders of both parts; fix: leave it out, or "
            "give --out=FILE.onnx"
        )
    out = export.export(given.workdir, given.out)
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{out}: {size / 2**20:.1f} MiB; python {out}/example.py PICTURE... shows how to use it")


if __name__ == "__main__":
    command_line.run(main)
