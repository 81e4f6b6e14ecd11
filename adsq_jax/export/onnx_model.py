"""A trained model's encoder as one ONNX file, for runtimes other than JAX."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from adsq_jax import __version__, codes, storage
from adsq_jax.errors import InputError
from adsq_jax.export import artifact
from adsq_jax.inference import loading
from adsq_jax.inference.model import Model, Part
from adsq_jax.run import output
from adsq_jax.run.workdir import write_bytes

SUFFIX = ".onnx"
OUTPUTS = ("relaxed_codes", "codes")


def export_onnx(workdir: str | Path, out: str | Path, *, part: Part | None = None) -> Path:
    """Export the encoder of a run's trained model as an ONNX file.

    Its input `images` is uint8[n, image_size, image_size, 3], for any n from 1; the normalisation of the pixels is inside.
    Its outputs are `relaxed_codes`, float32[n, bits], summed over the networks that encode, and `codes`, their signs packed,
    uint8[n, ceil(bits / 8)], in little bit order, 1 = +1, padding zero. It computes in float32, also where the model was
    trained in bfloat16. Bits whose relaxed code is next to 0 may differ from the model's, as sums are rounded in another
    order. The file's metadata have bits, bit order, image_size, resize, preprocessing, method, networks and the model's hash.

    Args:
      workdir: the run's folder, on this machine or in an object store.
      out: the file, new, whose name ends with .onnx; it is written completely or not at all.
      part: "query" or "database", whose codes the file gives; None where both are encoded by the same networks.

    Returns:
      The path of `out`.

    Raises:
      InputError: `workdir` holds no trained model, `out` exists or can't be written, `part` is needed and missing, the weights
        are larger than an ONNX file can be (2 GiB), or onnx isn't installed.

    Source: this project.
    """
    if importlib.util.find_spec("onnx") is None:
        raise InputError("an export to .onnx needs onnx; fix: pip install 'adsq_jax[onnx]'")
    if part not in (None, "query", "database"):
        raise InputError(f"--part={part!s:.100}: expected query or database")
    path = output.check_new_file(storage.path(str(out)), suffixes=(SUFFIX,))
    model = loading.load(workdir)
    content = to_onnx(model, part=part)
    with output.writing(path), storage.translate_errors(path):
        write_bytes(path, content)
    return path


def to_onnx(model: Model, *, part: Part | None) -> bytes:
    """Return the content of the ONNX file; arguments and errors as in `export_onnx`."""
    from adsq_jax.export import onnx_graph  # which only the extra `onnx` installs

    by = model.networks
    if part is None and by["query"] != by["database"]:
        raise InputError(
            f"queries are encoded by network {by['query']} and the database by {by['database']}; fix: export two files, with "
            "--part=query and --part=database"
        )
    chosen: Part = part or "query"
    float32 = Model({**model.description, "dtype": "float32"}, model.variables)

    def encode(variables: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        total = sum(float32.relaxed_codes(variables, images, part=chosen), jnp.zeros((), jnp.float32))  # [n, bits]
        return total, _packed(total)

    (batch,) = jax.export.symbolic_shape("n")
    made = onnx_graph.model(
        encode,
        model.variables,
        jax.ShapeDtypeStruct((batch, model.image_size, model.image_size, 3), np.uint8),
        outputs=OUTPUTS,
        metadata=_metadata(model, part=chosen),
        producer=f"adsq_jax {__version__}",
    )
    return bytes(made.SerializeToString(deterministic=True))


def _packed(relaxed_codes: jax.Array) -> jax.Array:
    """Pack as `codes.pack` does, by sums of floats: not every runtime has operations on bits."""
    bits = codes.sign_bits(relaxed_codes).astype(jnp.float32)  # [n, bits]
    padded = jnp.pad(bits, ((0, 0), (0, -bits.shape[1] % 8))).reshape(bits.shape[0], -1, 8)  # [n, bytes, 8]
    return jnp.sum(padded * (2.0 ** np.arange(8, dtype=np.float32))[None, None], axis=2).astype(jnp.uint8)


def _metadata(model: Model, *, part: Part) -> dict[str, str]:
    values = {
        "format": 1,
        "bits": model.bits,
        "bit_order": codes.BIT_ORDER,
        "image_size": model.image_size,
        "resize": model.resize,
        "bit_depth": model.bit_depth,
        "preprocessing": artifact.PREPROCESSING,
        "method": model.description["method"],
        "networks": model.networks[part],
        "model_sha256": model.sha256,
    }
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
