"""A trained model, apart from the run that made it: images in, hash codes out. A run keeps it in `DIR/model/`."""

import copy
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import safetensors.numpy
from PIL import Image

from adsq_jax import codes, storage
from adsq_jax.codes import QUERY_NETS
from adsq_jax.data import images as pictures
from adsq_jax.data.images import BadImage
from adsq_jax.data.preprocessing import Preprocessing
from adsq_jax.devices.data_parallel import LocalDevices
from adsq_jax.errors import InputError
from adsq_jax.inference import hub, model_files
from adsq_jax.inference.batches import map_batches, round_up
from adsq_jax.inference.model_files import FORMAT, TRUNK
from adsq_jax.models.img_net import ImgNet
from adsq_jax.retrieval import features as compressed
from adsq_jax.retrieval.measures import html_table
from adsq_jax.run import workdir

FOLDER = "model"  # in a run's folder
DESCRIPTION, WEIGHTS = "model.json", "weights.safetensors"
Part = Literal["query", "database"]
ImageLike = str | Path | Image.Image | np.ndarray


class Model:
    """The ImgNets of a trained run. `load` reads one; `Model.from_networks` makes one of networks in memory."""

    def __init__(self, description: dict[str, Any], variables: dict[str, Any]):
        """Build a model from a description and variables.

        Args:
          description: the content of `model.json`; hashes may be missing.
          variables: by network, "f" and "g", and "trunk" of a frozen trunk: {"params": ..., "batch_stats": ...}.
        """
        self._description = description
        self.bits: int = description["bits"]  # the code length
        self.image_size: int = description["view"]["image_size"]  # pixels per side of the network's input
        self.resize: int = description["view"]["resize"]  # pixels of the shorter side before the centre crop; 0: no resizing
        self.bit_depth: int = description["view"].get("bit_depth", 0)  # bits that pictures of 16 bits use; 0: all
        self.variables, self._local = variables, LocalDevices()  # of all networks, for `relaxed_codes`
        self.batch_size: int = round_up(description["batch_size"], self._local)  # images encoded at a time
        self.networks = dict(zip(("query", "database"), QUERY_NETS[description["query_net"]], strict=True))  # f, g or sum
        self._img_net = model_files.build(description)
        self._run: str | Path | None = None  # the folder that it was loaded from

    def __repr__(self) -> str:
        net = self._description["network"]["backbone"]
        return f"Model({net}, {self.bits} bits, {self._description['method']}, query_net={self._description['query_net']})"

    def _repr_html_(self) -> str:
        about = self._description
        rows = {
            "method, bits": f"{about['method']}, {self.bits}",
            "backbone": str(about["network"]["backbone"]),
            "queries and database by": " and ".join(self.networks.values()),
            "pixels": f"{self.image_size} x {self.image_size}",
        }
        return html_table([(title, [text]) for title, text in rows.items()])

    @classmethod
    def from_networks(
        cls,
        variables: Mapping[str, Any],
        *,
        network: Mapping[str, Any],
        bits: int,
        dtype: str,
        preprocessing: Preprocessing,
        query_net: str,
        batch_size: int,
        method: str,
    ) -> "Model":
        """Make a model from networks in memory.

        Args:
          variables: by network, "f", with a twin "g", and "trunk" of a frozen trunk: NumPy arrays.
          network: the arguments of `models.network.make_img_net` but for layers and bits.
          bits: the code length.
          dtype: dtype of activations, "float32" or "bfloat16".
          preprocessing: how images were resized and cropped in training.
          query_net: which networks encode queries and database: ff, gg, fg or sum.
          batch_size: images encoded at a time.
          method: the name of the method.

        Returns:
          The model.
        """
        trees = {
            name: {
                # the loss's own parameters don't encode
                "params": {key: tree for key, tree in kinds["params"].items() if key != "method"},
                "batch_stats": kinds.get("batch_stats", {}),
            }
            if name != TRUNK
            else kinds
            for name, kinds in variables.items()
        }
        description = {
            "format": FORMAT,
            "bits": bits,
            "bit_order": codes.BIT_ORDER,
            "query_net": query_net,
            "method": method,
            "batch_size": batch_size,
            "dtype": dtype,
            "view": model_files.view_fields(preprocessing),
            "network": model_files.network_fields(network),
        }
        return cls(description, trees)

    @cached_property
    def _content(self) -> bytes:
        """The content of `weights.safetensors`."""
        arrays = {
            "/".join(key.key for key in path): np.ascontiguousarray(x)
            for path, x in jax.tree_util.tree_leaves_with_path(self.variables)
        }
        return safetensors.numpy.save(arrays)

    @cached_property
    def description(self) -> dict[str, Any]:
        """The content of `model.json`."""
        if "sha256" in self._description:
            return self._description
        whole = {**self._description, "weights_sha256": hashlib.sha256(self._content).hexdigest()}
        return {**whole, "sha256": model_files.identity(whole)}

    @property
    def sha256(self) -> str:
        """A hash of what decides the codes: only codes of models with the same hash can be compared."""
        return self.description["sha256"]

    def save(self, directory: str | Path) -> None:
        """Write the model into `DIRECTORY/model/`: `weights.safetensors`, and `model.json`, which describes them.

        Args:
          directory: where `adsq_jax.load` will find it, made if it doesn't exist; of a model that is there, both files are
            replaced.

        Raises:
          OSError: it can't be written.
        """
        folder = storage.path(str(directory)) / FOLDER
        workdir.make_folder(folder, parents=True)
        for name, content in self.files.items():
            workdir.write_bytes(folder / name, content)

    def with_batch_size(self, batch_size: int) -> "Model":
        """Return the same model, which encodes another number of images at a time.

        Args:
          batch_size: at least 1; rounded up, so that each device gets the same number.

        Raises:
          InputError: it is out of range.
        """
        if type(batch_size) is not int or not 1 <= batch_size <= model_files.LARGEST_BATCH:
            raise InputError(f"batch_size={batch_size!r}: expected a whole number from 1 to {model_files.LARGEST_BATCH:,}")
        other = copy.copy(self)
        other.batch_size = round_up(batch_size, self._local)
        return other

    def push_to_hub(
        self,
        name: str,
        *,
        run: str | Path | None = None,
        private: bool | None = None,
        revision: str | None = None,
        replace_card: bool = False,
        token: str | None = None,
    ) -> str:
        """Upload the model to the Hugging Face Hub, with a model card; `adsq_jax.load("hf://user/name")` loads it from there.

        Args:
          name: the repository, `user/name`; made if it isn't there. Other files in it stay.
          run: the run's folder, whose `result.json` the card tells in short, without its paths; None: the one that the model
            was loaded from. Without a result the card has no measures.
          private: whether a new repository is private; None: as the account has it.
          revision: a branch that is there; None: main.
          replace_card: whether to replace a README.md that is there; otherwise it stays as it is.
          token: one that may write; None: that of `hf auth login`, or of the environment variable HF_TOKEN.

        Returns:
          The address of the commit.

        Raises:
          InputError: the name or the run's folder is not as expected, its result is of another model, huggingface_hub isn't
            installed, or the Hub refuses.
        """
        folder = self._run if run is None else run
        result = hub.read_result(folder, bits=self.bits, model_sha256=self.sha256, must_exist=run is not None)
        card = hub.model_card(self.description, name=name.removeprefix("hf://"), result=result)
        files = {f"{FOLDER}/{file}": content for file, content in self.files.items()}
        return hub.push(name, files, card=card, private=private, revision=revision, replace_card=replace_card, token=token)

    @property
    def files(self) -> dict[str, bytes]:
        """The files that a saved model has, by name, the description last."""
        return {WEIGHTS: self._content, DESCRIPTION: workdir.json_bytes(self.description)}

    def relaxed_codes(self, variables: Any, images: jax.Array, *, part: Part) -> list[jax.Array]:
        """Compute relaxed codes by each network that encodes a part; hash codes are the sign of their sum. Pure, for JAX.

        Args:
          variables: `self.variables`.
          images: uint8[batch, image_size, image_size, 3].
          part: "query" or "database".

        Returns:
          One or two arrays, float32[batch, bits].
        """
        return list(self._compiled(part)(variables, images))

    def _compiled(self, part: Part) -> Callable[..., Any]:
        return _compiled_relaxed_codes(self._img_net, networks_of(self.networks[part]))

    def encode(
        self, images: ImageLike | Sequence[ImageLike] | np.ndarray, *, part: Part = "database", packed: bool = False
    ) -> np.ndarray:
        """Encode images into hash codes.

        Args:
          images: one or several: a path, on this machine or in an object store; a PIL image; an array uint8[h, w, 3] or, grey,
            uint8[h, w] or uint8[h, w, 1]. Many of the same size may be one array, uint8[n, h, w, 3], [n, h, w, 1] or, if
            they are wider than 4 pixels, [n, h, w].
          part: "database", or "query" for the images that you search with; they differ only if `eval.query_net` is "fg".
          packed: whether to pack eight bits into a byte, as an index takes codes.

        Returns:
          int8[n, bits] in {-1, +1}; or, packed, uint8[n, ceil(bits / 8)], little bit order, 1 = +1, padding zero.

        Raises:
          InputError: an image can't be read, or isn't one; the text says which.

        Source: this project.
        """
        if part not in ("query", "database"):
            raise InputError(f"part={part!r}: expected query or database")
        batches = self._batches(images)
        packed_codes = np.concatenate([np.zeros((0, -(-self.bits // 8)), np.uint8), *self.stream(batches, part=part)])
        return packed_codes if packed else codes.unpack(packed_codes, bits=self.bits)

    def stream(self, batches: Iterable[np.ndarray], *, part: Part) -> Iterator[np.ndarray]:
        """Encode batch after batch; one computes while the next is read.

        Args:
          batches: uint8[n, image_size, image_size, 3] each, n from 1 to `batch_size`.
          part: as in `encode`.

        Yields:
          Packed codes uint8[n, ceil(bits / 8)] of each batch, in order.
        """
        for relaxed in self._map(self._compiled(part), batches):
            yield self._packed(relaxed)

    def _packed(self, relaxed: Sequence[np.ndarray]) -> np.ndarray:
        total = sum(relaxed, np.zeros((1, self.bits), np.float32))  # [n, bits]
        if np.isnan(total).any():  # finite weights can be so large that the network's sums aren't
            raise InputError("the model computes no numbers for an image; fix: restore the model, or train again")
        return codes.pack(codes.binarize(total))

    @property
    def has_features(self) -> bool:
        """Whether the trunk's features tell more of a picture than the codes: not those of the small CNN."""
        return bool(self._description["network"]["backbone"] != "small_cnn")

    def stream_with_features(self, batches: Iterable[np.ndarray], *, part: Part) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Encode batch after batch, and compress the trunk's features, by which an index ranks hits again.

        Args:
          batches: as in `stream`.
          part: as in `stream`.

        Yields:
          Packed codes uint8[n, ceil(bits / 8)], and features int8[n, compressed.DIMS], of each batch, in order.
        """
        networks = networks_of(self.networks[part])
        trunk = networks_of(self.networks["database"])[0]  # the same for both parts, so that they can be compared
        for features, *relaxed in self._map(_compiled_both(self._img_net, networks, trunk), batches):
            yield self._packed(relaxed), compressed.compress(features)

    def encode_with_features(
        self, images: ImageLike | Sequence[ImageLike] | np.ndarray, *, part: Part
    ) -> tuple[np.ndarray, np.ndarray]:
        """Encode images, and compress their features; arguments and errors as in `encode`.

        Returns:
          Packed codes uint8[n, ceil(bits / 8)], and features int8[n, compressed.DIMS].
        """
        batches = self._batches(images)
        nothing = (np.zeros((0, -(-self.bits // 8)), np.uint8), np.zeros((0, compressed.DIMS), np.int8))
        both = zip(*[nothing, *self.stream_with_features(batches, part=part)], strict=True)
        packed_codes, features = map(np.concatenate, both)
        return packed_codes, features

    def features(self, images: ImageLike | Sequence[ImageLike] | np.ndarray) -> np.ndarray:
        """Compute the trunk's features of images: what the network sees before codes are made of it.

        Args:
          images: as in `encode`.

        Returns:
          float32[n, width], the width that of the backbone's output; by the first network, if each has a trunk of its own.

        Raises:
          InputError: an image can't be read, or isn't one; the text says which.

        Source: this project.
        """
        found = list(self.stream_features(self._batches(images)))
        return np.concatenate(found) if found else np.zeros((0, self.features_width), np.float32)

    def stream_features(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Compute the trunk's features batch after batch.

        Args:
          batches: as in `stream`.

        Yields:
          float32[n, width] of each batch, in order.
        """
        for (features,) in self._map(_compiled_features(self._img_net, self.networks["database"]), batches):
            yield features

    def _batches(self, images: Any) -> Iterator[np.ndarray]:
        return _batched(map(self.preprocess, _as_list(images), itertools.count()), self.batch_size)

    def _map(self, function: Callable[..., Any], batches: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
        """Map a compiled function over batches; yield its outputs without padding."""
        devices = round_up(1, self._local)
        lengths: list[int] = []

        def padded() -> Iterator[np.ndarray]:
            for batch in batches:
                lengths.append(len(batch))
                # only two sizes, since each is compiled: a query or two, and full batches
                size = devices if len(batch) <= devices else self.batch_size
                yield np.concatenate([batch, np.repeat(batch[:1], size - len(batch), axis=0)])

        for outputs in map_batches(function, self.variables, padded(), local=self._local):
            length = lengths.pop(0)
            yield [np.asarray(output)[:length] for output in outputs]

    @property
    def features_width(self) -> int:
        """The number of features of an image that `features` computes."""
        images = jax.ShapeDtypeStruct((1, self.image_size, self.image_size, 3), np.uint8)
        (features,) = jax.eval_shape(_compiled_features(self._img_net, self.networks["database"]), self.variables, images)
        return int(features.shape[1])

    def preprocess(self, image: ImageLike, number: int) -> np.ndarray:
        """Return the pixels of an image that the network gets.

        Args:
          image: as in `encode`.
          number: its position among others, for messages.

        Returns:
          uint8[image_size, image_size, 3].

        Raises:
          InputError: it can't be read, isn't an image, or has another size and the model doesn't resize.
        """
        name = str(image) if isinstance(image, str | Path) else f"image {number}"
        try:
            pixels = _pixels(image, shorter_side=self.resize, bit_depth=self.bit_depth)
        except BadImage as error:
            raise InputError(f"{name} {error}") from error
        return self.crop(pixels, name=name)

    def crop(self, pixels: np.ndarray, *, name: str) -> np.ndarray:
        """Cut the centre out of a resized image.

        Args:
          pixels: uint8[h, w, 3], its shorter side `resize` pixels.
          name: for messages.

        Returns:
          uint8[image_size, image_size, 3].

        Raises:
          InputError: the model doesn't resize, and the image has another size.
        """
        if not self.resize and pixels.shape[:2] != (self.image_size, self.image_size):
            raise InputError(
                f"{name} is {pixels.shape[0]}x{pixels.shape[1]}: expected {self.image_size}x{self.image_size}, since the model "
                "doesn't resize; fix: resize it, or train with --config.data.resize"
            )
        cut = pictures.centre(pixels, side=self.image_size)
        return cut if cut.shape == pixels.shape else cut.copy()  # a view would keep the whole picture while it waits


def networks_of(name: str) -> tuple[str, ...]:
    """Return the networks behind a name of a model's `networks`: both of "sum", and itself of "f" and "g"."""
    return ("f", "g") if name == "sum" else (name,)


@functools.lru_cache(maxsize=16)  # models of the same architecture share compiled programs
def _compiled_relaxed_codes(img_net: ImgNet, networks: tuple[str, ...]) -> Callable[..., Any]:
    return jax.jit(partial(_relaxed_codes, img_net, networks))


@functools.lru_cache(maxsize=16)
def _compiled_features(img_net: ImgNet, name: str) -> Callable[..., Any]:
    return jax.jit(partial(_features, img_net, networks_of(name)[0]))


def _features(img_net: Any, network: str, variables: dict[str, Any], images: jax.Array) -> list[jax.Array]:
    """Compute the features of the frozen trunk, or of a network's own."""
    trunk = variables[TRUNK if TRUNK in variables else network]
    return [img_net.apply(trunk, images, train=False, method=img_net.trunk)]


@functools.lru_cache(maxsize=16)
def _compiled_both(img_net: ImgNet, networks: tuple[str, ...], trunk: str) -> Callable[..., Any]:
    return jax.jit(partial(_features_and_codes, img_net, networks, trunk))


def _features_and_codes(
    img_net: Any, networks: Sequence[str], trunk: str, variables: dict[str, Any], images: jax.Array
) -> list[jax.Array]:
    """Compute the features of one network's trunk, and relaxed codes by some networks; no trunk is run twice."""
    owner = dict.fromkeys((trunk, *networks), TRUNK) if TRUNK in variables else {net: net for net in (trunk, *networks)}
    found = {name: _features(img_net, name, variables, images)[0] for name in dict.fromkeys(owner.values())}
    heads = img_net.clone(backbone=None)
    return [found[owner[trunk]], *(heads.apply(variables[net], found[owner[net]], train=False)[1] for net in networks)]


def _relaxed_codes(img_net: Any, networks: Sequence[str], variables: dict[str, Any], images: jax.Array) -> list[jax.Array]:
    """Compute relaxed codes by some networks; a frozen trunk, which they share, is run once."""
    if TRUNK in variables:
        images = img_net.apply(variables[TRUNK], images, train=False, method=img_net.trunk)
        img_net = img_net.clone(backbone=None)
    return [img_net.apply(variables[net], images, train=False)[1] for net in networks]


def _as_list(images: Any) -> Sequence[Any]:
    if hasattr(images, "__array__") and not isinstance(images, Image.Image):  # NumPy's, JAX's, torch's
        images = _array(images)
        is_grey_stack = images.ndim == 3 and images.shape[2] > 4  # up to 4 they are channels of one image
        if images.dtype == object or images.ndim == 4 or is_grey_stack:
            return list(images)
        return [images]
    if isinstance(images, str | bytes | Path | Image.Image):
        return [images]
    try:
        return list(images)
    except TypeError as error:
        raise InputError(
            f"{type(images).__name__} is not an image: expected a path, a PIL image or an array uint8[h, w, 3]"
        ) from error


def _pixels(image: ImageLike, *, shorter_side: int, bit_depth: int) -> np.ndarray:
    if isinstance(image, str | Path):
        if "\0" in str(image):
            raise BadImage("has a null in its name: give the path of a picture")
        return pictures.decode(pictures.read(storage.path(str(image))), shorter_side=shorter_side, bit_depth=bit_depth)
    if isinstance(image, Image.Image):
        return pictures.from_picture(image, shorter_side=shorter_side, bit_depth=bit_depth)
    if isinstance(image, bytes):
        raise BadImage("is bytes: expected a path, a PIL image or an array; PIL.Image.open(io.BytesIO(...)) makes one of them")
    array = _array(image)
    if array.ndim == 2 or array.shape[2:] == (1,):
        array = np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise BadImage(f"is {array.dtype}{list(array.shape)}: expected a path, a PIL image or an array uint8[h, w, 3]")
    pictures.check_size(array.shape[1::-1], shorter_side=shorter_side)
    return pictures.resize(array, shorter_side=shorter_side)


def _array(image: Any) -> np.ndarray:
    try:
        return np.asarray(image)
    except (TypeError, ValueError) as error:
        raise BadImage(f"is not an image ({error}): expected a path, a PIL image or an array uint8[h, w, 3]") from error


def _batched(images: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    while batch := list(itertools.islice(images, size)):
        yield np.stack(batch)
