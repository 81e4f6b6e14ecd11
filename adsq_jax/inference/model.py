"""A trained model, apart from the run that made it: images in, hash codes out. A run keeps it in `DIR/model/`."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from ml_collections import ConfigDict
from PIL import Image

from adsq_jax import codes, storage
from adsq_jax.codes import QUERY_NETS
from adsq_jax.data import images as pictures
from adsq_jax.data.images import BadImage
from adsq_jax.devices import data_parallel
from adsq_jax.errors import InputError
from adsq_jax.inference.encoder import computed, even
from adsq_jax.models.img_net import ImgNet
from adsq_jax.models.layers import DTYPES, Layers
from adsq_jax.models.network import make_img_net
from adsq_jax.run import workdir
from adsq_jax.training.state import TrainState

FOLDER = "model"  # of a run's
_FORMAT = 1
_MOST_AT_ONCE = 2**20  # images
_DESCRIPTION, _WEIGHTS = "model.json", "weights.safetensors"
_TRUNK = "trunk"  # what stands for a network's name before the variables of a frozen trunk
Part = Literal["query", "database"]
ImageLike = str | Path | Image.Image | np.ndarray


class Model:
    """The ImgNets of a finished run; `load` makes one."""

    def __init__(self, description: dict[str, Any], variables: dict[str, Any]):
        """Takes what `load` has read.

        Args:
          description: of `model.json`.
          variables: by network, "f" and "g", and of a frozen trunk "trunk": {"params": ..., "batch_stats": ...}.
        """
        self.description = description
        self.bits: int = description["bits"]
        self.sha256: str = description["sha256"]  # codes of models of one hash can be compared, and no others
        self.image_size: int = description["view"]["image_size"]  # pixels a side of what the network sees
        self.resize: int = description["view"]["resize"]  # pixels of the shorter side before the centre is cut; 0: as it is
        self.variables, self._local = variables, data_parallel.local_devices()  # of all networks, for `relaxed_codes`
        self.batch_size: int = even(description["batch_size"], self._local)
        self.networks = dict(zip(("query", "database"), QUERY_NETS[description["query_net"]], strict=True))  # f, g or sum
        whole = make_img_net(layers=Layers(dtype=description["dtype"]), bits=self.bits, **description["network"])
        self._relaxed = {name: jax.jit(partial(_relaxed, whole, _nets(name))) for name in set(self.networks.values())}

    def relaxed_codes(self, variables: Any, images: jax.Array, *, part: Part) -> list[jax.Array]:
        """Relaxed codes of each network that a part is encoded by; hash codes are the sign of their sum. Pure, for JAX.

        Args:
          variables: `self.variables`.
          images: uint8[batch, image_size, image_size, 3].
          part: "query" or "database".

        Returns:
          One or two arrays, float32[batch, bits].
        """
        return list(self._relaxed[self.networks[part]](variables, images))

    def encode(self, images: ImageLike | Sequence[ImageLike] | np.ndarray, *, part: Part = "database") -> np.ndarray:
        """Hash codes of images.

        Args:
          images: one, or several: a path, of this machine or of an object store; a PIL image; an array uint8[h, w, 3] or, grey,
            uint8[h, w]; many of the same size may be one array, uint8[n, h, w, 3].
          part: "database", or "query" for what is looked for there. They differ where a run has `eval.query_net="fg"` alone.

        Returns:
          Packed codes, uint8[n, ceil(bits / 8)], little bit order, 1 = +1, padding zero; `codes.unpack` makes them -1 and +1.

        Raises:
          InputError: an image can't be read, or isn't one; the text says which.

        Source: this project.
        """
        if part not in ("query", "database"):
            raise InputError(f"part={part!r}: expected query or database")
        several = _several(images)
        found = self.stream(_batched(map(self.seen, several, itertools.count()), self.batch_size), part=part)
        return np.concatenate([np.zeros((0, -(-self.bits // 8)), np.uint8), *found])

    def stream(self, batches: Iterable[np.ndarray], *, part: Part) -> Iterator[np.ndarray]:
        """Packed codes of batch after batch; one computes while the next is read.

        Args:
          batches: uint8[n, image_size, image_size, 3] each, n from 1 to `batch_size`.
          part: as of `encode`.

        Returns:
          uint8[n, ceil(bits / 8)] of each batch, in their order.
        """
        devices = even(1, self._local)
        function = self._relaxed[self.networks[part]]
        lengths: list[int] = []

        def filled() -> Iterator[np.ndarray]:
            for batch in batches:
                lengths.append(len(batch))
                # two sizes, since each is compiled on its own: a query or two, and whole batches
                room = devices if len(batch) <= devices else self.batch_size
                yield np.concatenate([batch, np.repeat(batch[:1], room - len(batch), axis=0)])

        for relaxed in computed(function, self.variables, filled(), local=self._local):
            total = sum(map(np.asarray, relaxed), np.zeros((1, self.bits), np.float32))  # [batch, bits]
            yield codes.pack(codes.binarize(total[: lengths.pop(0)]))

    def seen(self, image: ImageLike, number: int) -> np.ndarray:
        """What the network sees of an image.

        Args:
          image: as of `encode`.
          number: its place among others, for messages.

        Returns:
          uint8[image_size, image_size, 3].

        Raises:
          InputError: it can't be read, isn't one, or isn't to be resized and has another size.
        """
        name = str(image) if isinstance(image, str | Path) else f"image {number}"
        try:
            pixels = _pixels(image, shorter_side=self.resize)
        except BadImage as error:
            raise InputError(f"{name} {error}") from error
        return self.cut(pixels, name=name)

    def cut(self, pixels: np.ndarray, *, name: str) -> np.ndarray:
        """The centre of a resized image.

        Args:
          pixels: uint8[h, w, 3], its shorter side `resize` pixels.
          name: for messages.

        Returns:
          uint8[image_size, image_size, 3].

        Raises:
          InputError: images are not to be resized, and this one has another size.
        """
        if not self.resize and pixels.shape[:2] != (self.image_size, self.image_size):
            raise InputError(
                f"{name} is {pixels.shape[0]}x{pixels.shape[1]}, and the model wants {self.image_size}x{self.image_size}: "
                "resize it, or train with --config.data.resize"
            )
        return pictures.centre(pixels, side=self.image_size)


def _nets(name: str) -> tuple[str, ...]:
    return ("f", "g") if name == "sum" else (name,)


def _relaxed(whole: Any, nets: Sequence[str], variables: dict[str, Any], images: jax.Array) -> list[jax.Array]:
    """Relaxed codes of some networks; a frozen trunk, which they share, is run once."""
    if _TRUNK in variables:
        images = whole.apply(variables[_TRUNK], images, train=False, method=whole.trunk)
        whole = whole.clone(backbone=None)
    return [whole.apply(variables[net], images, train=False)[1] for net in nets]


def _several(images: Any) -> Sequence[Any]:
    if hasattr(images, "__array__") and not isinstance(images, Image.Image):  # NumPy's, JAX's, torch's
        images = _array(images)
        if images.ndim == 4:
            return list(images)
        return [images] if images.dtype != object else list(images)
    if isinstance(images, str | bytes | Path | Image.Image):
        return [images]
    try:
        return list(images)
    except TypeError as error:
        raise InputError(
            f"{type(images).__name__} is no image: expected a path, a PIL image or an array uint8[h, w, 3]"
        ) from error


def _pixels(image: ImageLike, *, shorter_side: int) -> np.ndarray:
    if isinstance(image, str | Path):
        if "\0" in str(image):
            raise BadImage("has a null in its name: give the path of a picture")
        return pictures.decode(pictures.read(storage.path(str(image))), shorter_side=shorter_side)
    if isinstance(image, Image.Image):
        return pictures.from_picture(image, shorter_side=shorter_side)
    if isinstance(image, bytes):
        raise BadImage("is bytes: expected a path, a PIL image or an array; PIL.Image.open(io.BytesIO(...)) makes one of them")
    array = _array(image)
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise BadImage(f"is {array.dtype}{list(array.shape)}: expected a path, a PIL image or an array uint8[h, w, 3]")
    pictures.check_size(array.shape[1::-1], shorter_side=shorter_side)
    return pictures.resize(array, shorter_side=shorter_side)


def _array(image: Any) -> np.ndarray:
    try:
        return np.asarray(image)
    except (TypeError, ValueError) as error:
        raise BadImage(f"is no image ({error}): expected a path, a PIL image or an array uint8[h, w, 3]") from error


def _batched(images: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    while batch := list(itertools.islice(images, size)):
        yield np.stack(batch)


def save(directory: Path, state: TrainState, *, config: ConfigDict, img_net: ImgNet, options: dict[str, Any]) -> None:
    """Writes a trained model: `weights.safetensors`, and `model.json`, which says what they are.

    Args:
      directory: the run's folder.
      state: of the end of training, NumPy arrays.
      config: of the run.
      img_net: the whole network.
      options: what the layout of its pretrained weights asked of the backbone.

    Source: this project.
    """
    folder = directory / FOLDER
    workdir.make_folder(folder)
    trees = {
        name: {
            "params": {key: tree for key, tree in net.params.items() if key != "method"},  # the loss's own: no part of encoding
            "batch_stats": net.batch_stats,
        }
        for name, net in state.img_nets.items()
    }
    if state.trunk is not None:
        trees[_TRUNK] = state.trunk
    arrays = {
        "/".join(key.key for key in path): np.ascontiguousarray(x) for path, x in jax.tree_util.tree_leaves_with_path(trees)
    }
    content = safetensors.numpy.save(arrays)
    network = {
        "backbone": config.model.backbone,
        "width": config.model.width,
        "options": options,
        "features": img_net.features,
        "mean": list(img_net.mean),
        "deviation": list(img_net.deviation),
        "bounded": img_net.bounded,
    }
    description = {
        "format": _FORMAT,
        "bits": config.bits,
        "bit_order": codes.BIT_ORDER,
        "query_net": config.eval.query_net,
        "method": config.method,
        "batch_size": config.eval.batch_size,
        "dtype": config.model.dtype,
        "view": {"resize": config.data.resize, "image_size": config.data.image_size},
        "network": network,
        "weights_sha256": hashlib.sha256(content).hexdigest(),
    }
    workdir.write_bytes(folder / _WEIGHTS, content)
    workdir.write_json(folder / _DESCRIPTION, {**description, "sha256": _identity(description)})


def _identity(description: dict[str, Any]) -> str:
    """A hash of what decides the codes."""
    deciding = {key: value for key, value in description.items() if key not in ("sha256", "batch_size", "method")}
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def load(directory: str | Path) -> Model:
    """Loads the trained model of a run.

    Args:
      directory: the run's folder, that `adsq_jax.main` was given as `--workdir`; on a disk, or in an object store.

    Returns:
      The model.

    Raises:
      InputError: the folder holds no finished run, or its model is damaged.
    """
    folder = workdir.path(str(directory)) / FOLDER
    try:
        there = storage.is_file(folder / _DESCRIPTION)
    except OSError as error:
        raise InputError(f"{directory} can't be read ({error.strerror}): give the folder of a run") from error
    if not there:
        raise InputError(f"{directory} holds no trained model: finish the run with adsq_jax.main, or give another folder")
    description = workdir.read_json(folder / _DESCRIPTION)
    try:
        _check(description)
        content = storage.read(folder / _WEIGHTS)
        if description["sha256"] != _identity(description):
            raise ValueError("model.json was changed")
        if hashlib.sha256(content).hexdigest() != description["weights_sha256"]:
            raise ValueError("weights.safetensors isn't what was written")
        model = Model(description, _tree(safetensors.numpy.load(content)))
        images = jax.ShapeDtypeStruct((1, model.image_size, model.image_size, 3), jnp.uint8)
        for part in ("query", "database"):  # finds out now whether all of it fits
            jax.eval_shape(partial(model.relaxed_codes, part=part), model.variables, images)
    except Exception as error:  # a file that was changed makes JSON's contents, safetensors and flax raise almost anything
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"{folder} is no whole model ({said}): restore it, or train again") from error
    return model


def _check(description: Any) -> None:
    """Looks at what the network itself doesn't; the rest is found out by building it."""
    if description["format"] != _FORMAT or description["bit_order"] != codes.BIT_ORDER:
        raise ValueError(f"it is of another version than format {_FORMAT}")
    batch_size, method = description["batch_size"], description["method"]
    if type(batch_size) is not int or not 1 <= batch_size <= _MOST_AT_ONCE or description["dtype"] not in DTYPES:
        raise ValueError("batch_size or dtype is out of range")
    if not isinstance(method, str):
        raise ValueError("method is no name")


def _tree(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Named arrays as the tree whose paths they are named by."""
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *above, leaf = name.split("/")
        below = tree
        for key in above:
            below = below.setdefault(key, {})
        below[leaf] = array
    return {name: {"params": {}, "batch_stats": {}, **variables} for name, variables in tree.items()}
