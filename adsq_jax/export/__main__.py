"""Makes an encoder to ship of a trained model: a file that takes images and gives packed codes, without this package.

`python -m adsq_jax.export --workdir=DIR --out=encoder`
"""

import importlib.util
import os
import tempfile
from pathlib import Path

from absl import flags

from adsq_jax import command_line, storage
from adsq_jax.errors import InputError
from adsq_jax.export import artifact
from adsq_jax.inference import model as model_module
from adsq_jax.run import workdir

_WORKDIR = flags.DEFINE_string("workdir", None, "A finished run's folder: its model is exported.")
_OUT = flags.DEFINE_string("out", None, "The encoder's folder; must not be there, or be empty.")


def main() -> None:
    """Reads the flags, exports and tells."""
    if not (_WORKDIR.value and _OUT.value):
        raise InputError("--workdir=DIR and --out=FOLDER are both needed")
    if importlib.util.find_spec("flatbuffers") is None:
        raise InputError("an export needs flatbuffers: pip install -e '.[export]'")
    if storage.is_remote(_OUT.value):
        raise InputError(f"--out={_OUT.value} is no folder of this machine: give a path")
    out = _free(Path(_OUT.value))
    model = model_module.load(_WORKDIR.value)
    with workdir.writing(out), tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        artifact.write(model, Path(folder))
        Path(folder).chmod(0o755)
        os.replace(folder, out)  # whole or not at all; an empty folder may be in its place
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{out}: {size / 2**20:.1f} MiB; python {out}/example.py PICTURE... shows how to use it")


def _free(out: Path) -> Path:
    """The folder, if nothing is in it."""
    try:
        if os.path.lexists(out) and (out.is_symlink() or not out.is_dir() or any(out.iterdir())):
            raise InputError(f"--out={out} is there already: give a new or an empty folder; nothing was overwritten")
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out={out} can't be used ({error.strerror}): give another folder") from error
    return out.absolute()


if __name__ == "__main__":
    command_line.run(main)
