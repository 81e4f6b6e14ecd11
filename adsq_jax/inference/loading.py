"""Load a trained model from a run's folder, an object store or the Hugging Face Hub; nothing that was changed is taken."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from adsq_jax import storage
from adsq_jax.codes import QUERY_NETS
from adsq_jax.errors import InputError, first_line, is_out_of_memory, is_without_device
from adsq_jax.inference import hub, model_files
from adsq_jax.inference.batches import round_up
from adsq_jax.inference.model import DESCRIPTION, FOLDER, WEIGHTS, Model, networks_of
from adsq_jax.run import workdir

BEST = "best"  # in a run's folder: the folder of the model that was best on held-out images


def load(directory: str | Path, *, best: bool = False) -> Model:
    """Load the trained model of a run.

    Args:
      directory: the run's folder, which `adsq train` was given as `--workdir`, or the `model/` in it; on a disk, or in an
        object store. Or `hf://user/name`, or `hf://user/name@revision`, of the Hugging Face Hub, which `Model.push_to_hub`
        made.
      best: take the model that was best on held-out images, which a run with `data.validation` keeps, and not the last one.

    Returns:
      The model.

    Raises:
      InputError: the folder holds no finished run, or its model is damaged; or the Hub can't be reached.
      MemoryError, RuntimeError: the machine, and not the model, is at fault.
    """
    if hub.is_address(directory):
        address = str(directory)
        directory = hub.fetch(address, description=f"{FOLDER}/{DESCRIPTION}", weights=f"{FOLDER}/{WEIGHTS}")
    folder = (best_folder(directory) if best else storage.path(str(directory))) / FOLDER
    try:
        is_there = storage.is_file(folder / DESCRIPTION)
        if not is_there and storage.is_file(folder.parent / DESCRIPTION):
            folder, is_there = folder.parent, True
        too_large = is_there and storage.size(folder / DESCRIPTION) > model_files.MAX_DESCRIPTION
    except OSError as error:
        raise InputError(f"{folder.parent} can't be read ({error.strerror}); fix: give the folder of a run") from error
    if not is_there:
        fix = "fix: finish the run with adsq train, or give another folder"
        raise InputError(f"{folder.parent} holds no trained model; {fix}")
    if too_large:
        raise _incomplete(folder, f"{DESCRIPTION} has more than {model_files.MAX_DESCRIPTION:,} bytes")
    description = workdir.read_json(folder / DESCRIPTION)
    try:
        return _load(folder, description)
    except Exception as error:  # a file that was changed makes safetensors and flax raise almost anything
        if is_out_of_memory(error) or is_without_device(error):
            raise
        raise _incomplete(folder, first_line(error).partition("; fix:")[0]) from error


def best_folder(directory: str | Path) -> Path:
    """Return the folder, in a run's, of the model that was best on held-out images; raise InputError if there is none."""
    folder = storage.path(str(directory)) / BEST
    if not storage.is_file(folder / FOLDER / DESCRIPTION):
        raise InputError(f"{directory} holds no best model; fix: train with --config.data.validation=N, or take the last model")
    return folder


def _incomplete(folder: Path, reason: str) -> InputError:
    return InputError(f"{folder} is not a complete model ({reason}); fix: restore it, or train again")


def _load(folder: Path, description: Any) -> Model:
    """Make a model of the content of its `model.json`, and its weights; both are checked before they cost anything."""
    model_files.check_description(description)
    if description["sha256"] != model_files.identity(description):
        raise InputError(f"{DESCRIPTION} was changed")
    expected = model_files.Expected(model_files.build(description), image_size=description["view"]["image_size"])
    expected.check_size(storage.size(folder / WEIGHTS))
    content = storage.read(folder / WEIGHTS)
    if hashlib.sha256(content).hexdigest() != description["weights_sha256"]:
        raise InputError(f"{WEIGHTS} was changed")
    arrays = safetensors.numpy.load(content)
    nets = {net for part in QUERY_NETS[description["query_net"]] for net in networks_of(part)}
    expected.check(arrays, nets=nets)
    model = Model(description, _tree(arrays))
    model.batch_size = round_up(min(description["batch_size"], expected.batch_size), model._local)
    model._run = folder.parent
    return model


def _tree(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Build the tree whose paths are the names of the arrays."""
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *above, leaf = name.split("/")
        below = tree
        for key in above:
            below = below.setdefault(key, {})
        below[leaf] = array
    return {name: {"params": {}, "batch_stats": {}, **variables} for name, variables in tree.items()}
