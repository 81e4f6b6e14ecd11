"""A trained model as files that need neither this package nor Flax: the function by jax.export, a manifest, an example."""

import hashlib
import importlib.util
import os
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from adsq_jax import __version__, codes, storage
from adsq_jax.errors import InputError
from adsq_jax.inference import loading
from adsq_jax.inference.model import Model, Part
from adsq_jax.run import output
from adsq_jax.run.workdir import write_bytes, write_json

PLATFORMS = ("cpu", "cuda", "tpu")
_FILES = (".bin", ".h5", ".keras", ".mlmodel", ".mlpackage", ".onnx", ".ort", ".pb", ".pt", ".pth", ".safetensors", ".tflite")
PREPROCESSING = (
    "EXIF orientation applied; RGB, transparent on white, grey in three equal channels, the upper 8 of 16 bits (of bit_depth "
    "bits, if that isn't 0 and the picture is a grey PNG or TIFF, where a larger value, and 16 bits in each colour, are an "
    "error; of 12 in a TIFF that stores 12), an animation's first frame; if resize is not 0: the "
    "shorter side resized to it in proportion, the longer one rounded, bilinear with antialiasing (Pillow's BILINEAR, "
    "reducing_gap=3.0; JPEG read at a half, a quarter or an eighth of its size while that is large enough); the centre cut "
    "out, image_size pixels a side, offsets (length - image_size) // 2; uint8, [batch, image_size, image_size, 3]"
)
_EXAMPLE = '''"""Codes of pictures by the encoder beside this file: python example.py PICTURE...

Needs jax, flatbuffers, numpy and Pillow.
"""

import hashlib
import json
import sys
from pathlib import Path

import jax.export
import numpy as np
from PIL import Image, ImageOps

folder = Path(__file__).parent
manifest = json.loads((folder / "manifest.json").read_text())


def stop(problem):
    print(f"error: {problem}", file=sys.stderr)
    sys.exit(2)


def load(part):
    """Return the encoder of "query" or "database". Of a damaged file JAX might run anything: it must be the one exported."""
    about = manifest["files"][part]
    content = (folder / about["name"]).read_bytes()
    if hashlib.sha256(content).hexdigest() != about["sha256"]:
        stop(f"{about['name']} isn't the file that was exported; fix: export it again")
    return jax.export.deserialize(content)


def pixels(path):
    """Return the network's input for a picture, uint8[side, side, 3]."""
    picture, side, shorter = Image.open(path), manifest["image_size"], manifest["resize"]
    stored, bit_depth = str([tile[3] for tile in picture.tile]), manifest["bit_depth"]  # known until it is decoded
    deep = picture.mode.startswith("I;16") or (picture.format, picture.mode) == ("PPM", "I")
    depth = 12 if "I;12" in stored else 16 if picture.mode == "I" else bit_depth or 16
    if shorter and picture.getexif().get(0x0112, 1) == 1:
        picture.draft("RGB", (shorter, shorter))
    picture = ImageOps.exif_transpose(picture)
    if not deep and ";16" in stored and bit_depth not in (0, 16):
        stop(f"{path} has 16 bits in each colour, and bit_depth={bit_depth} is for grey; fix: convert it to 8 bits")
    if deep:
        values = np.asarray(picture)
        if values.max() >= 1 << depth:
            stop(f"{path} has the value {values.max():,}, more than {depth} bits; fix: give pictures like the training set's")
        picture = Image.fromarray((values >> depth - 8).astype(np.uint8))
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
    picture = picture.convert("RGB")
    if shorter and min(picture.size) != shorter:
        size = [max(shorter, round(length * shorter / min(picture.size))) for length in picture.size]
        picture = picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
    left, top = ((length - side) // 2 for length in picture.size)
    return np.asarray(picture)[top : top + side, left : left + side]


codes = np.asarray(load("query").call(np.stack([pixels(path) for path in sys.argv[1:]])))  # uint8[n, ceil(bits / 8)]
for path, code in zip(sys.argv[1:], codes):
    print(code.tobytes().hex(), int(np.unpackbits(code ^ codes[0]).sum()), "bits from the first:", path)
'''


def export(workdir: str | Path, out: str | Path) -> Path:
    """Export the encoder of a run's trained model.

    Args:
      workdir: the run's folder, on this machine or in an object store.
      out: the encoder's folder on this machine, a new or an empty one; it is written completely or not at all.

    Returns:
      The absolute path of `out`, with `manifest.json`, `example.py`, and `encoder.bin`; or `query.bin` and `database.bin` where
      different networks encode them.

    Raises:
      InputError: `workdir` holds no trained model, `out` can't be written, holds files or is named like a file of another
        format, or flatbuffers isn't installed.
    """
    suffix = storage.path(str(out)).suffix
    if suffix.lower() in _FILES:
        raise InputError(
            f"--out={out}: expected a folder, or a file .onnx (in Python: export_onnx), got {suffix}; fix: export into .onnx, "
            "convert that, and compare the relaxed codes"
        )
    if importlib.util.find_spec("flatbuffers") is None:
        raise InputError("an export needs flatbuffers; fix: pip install 'adsq_jax[export]'")
    folder = output.check_folder(storage.path(str(out))).resolve()
    model = loading.load(workdir)
    with output.writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            write(model, Path(temporary))
            Path(temporary).chmod(0o755)
            os.replace(temporary, folder)  # an empty folder may be in its place
    return folder


def write(model: Model, folder: Path) -> None:
    """Write the encoder's files into an empty folder."""
    names = {"query": "encoder.bin", "database": "encoder.bin"}
    if model.networks["query"] != model.networks["database"]:
        names = {"query": "query.bin", "database": "database.bin"}
    files: dict[str, Any] = {}
    parts: tuple[Part, Part] = ("query", "database")
    for part in parts:
        path = folder / names[part]
        if not path.exists():
            write_bytes(path, bytes(_exported(model, part=part).serialize()))
        files[part] = {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    write_bytes(folder / "example.py", _EXAMPLE.encode())
    write_json(folder / "manifest.json", _manifest(model, files))


def _exported(model: Model, *, part: Part) -> jax.export.Exported:
    """Export a model with its weights: uint8[batch, image_size, image_size, 3] -> packed codes uint8[batch, ceil(bits / 8)]."""

    def encode(images: jax.Array) -> jax.Array:
        total = sum(model.relaxed_codes(model.variables, images, part=part), jnp.zeros((), jnp.float32))  # [batch, bits]
        return jnp.packbits(codes.sign_bits(total), axis=1, bitorder="little")

    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, model.image_size, model.image_size, 3), np.uint8)
    frames = jax.config.jax_traceback_in_locations_limit  # type: ignore[attr-defined]
    jax.config.update("jax_traceback_in_locations_limit", 0)  # else the file names paths of this machine, and of the caller
    try:
        return jax.export.export(jax.jit(encode), platforms=PLATFORMS)(images)
    finally:
        jax.config.update("jax_traceback_in_locations_limit", frames)


def _manifest(model: Model, files: dict[str, Any]) -> dict[str, Any]:
    return {
        "format": 1,
        "files": files,
        "takes": f"uint8[batch, {model.image_size}, {model.image_size}, 3]",
        "gives": f"uint8[batch, {-(-model.bits // 8)}], packed codes",
        "bits": model.bits,
        "bit_order": codes.BIT_ORDER,
        "image_size": model.image_size,
        "resize": model.resize,
        "bit_depth": model.bit_depth,
        "preprocessing": PREPROCESSING,
        "method": model.description["method"],
        "model_sha256": model.sha256,
        "platforms": PLATFORMS,
        "versions": {"adsq_jax": __version__, "jax": jax.__version__},
        "needs": f"flatbuffers, and jax {jax.__version__} or newer, as long as that reads older exports (docs.jax.dev)",
    }
