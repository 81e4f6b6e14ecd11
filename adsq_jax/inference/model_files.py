"""Check what a model's folder holds, field by field and array by array, before anything large is read or computed."""

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adsq_jax import codes
from adsq_jax.codes import QUERY_NETS
from adsq_jax.data.preprocessing import Preprocessing
from adsq_jax.errors import InputError
from adsq_jax.models import backbones, network, weight_files
from adsq_jax.models.img_net import HEADS, ImgNet
from adsq_jax.models.layers import DTYPES, Layers
from adsq_jax.models.network import make_img_net

FORMAT = 1
TRUNK = "trunk"  # stands for a network's name before the variables of a frozen trunk
MAX_DESCRIPTION = 2**20  # bytes of model.json, which has about a thousand
LARGEST_BATCH = 2**20  # images
MAX_BYTES_PER_IMAGE = 2**30  # of the largest array that a network computes: VGG's for an image of 2,048 x 2,048 pixels
MAX_BYTES_AT_ONCE = 4 * 2**30  # of that array for all images of a batch: 1,337 of 224 x 224 pixels for a ResNet
_MAX_HEADER = 2**20  # bytes of the names and shapes in weights.safetensors
_MAX_NAME = 1_000  # characters of a method's name, which may be a module's
_BATCH = 127  # a prime: an axis that it divides is the batch's
_FIELDS = {"format", "bits", "bit_order", "query_net", "method", "batch_size", "dtype", "view", "network"}
_HASHES = {"weights_sha256", "sha256"}
_NETWORK_FIELDS = {"backbone", "width", "options", "features", "mean", "deviation"}  # and `bounded` or `head`
_BOUNDED = {"tanh": True, "linear": False}  # the heads that the field `bounded` stands for; it is older than the others
_OTHER_HEADS = tuple(head for head in HEADS if head not in _BOUNDED)


def check_description(description: Any) -> None:
    """Check every field of a `model.json`, and that it has no others.

    Raises:
      InputError: a field is missing, unknown, of another type, or out of its range.
    """
    _check_fields("model.json", description, _FIELDS | _HASHES)
    has_depth = isinstance(description["view"], dict) and "bit_depth" in description["view"]
    _check_fields("view", description["view"], {"resize", "image_size"} | ({"bit_depth"} if has_depth else set()))
    _check_network(description["network"])
    if not _is_whole(description["format"], low=FORMAT, high=FORMAT) or description["bit_order"] != codes.BIT_ORDER:
        raise InputError(f"its format is not {FORMAT}")
    for name, high in (("bits", codes.MAX_BITS), ("batch_size", LARGEST_BATCH)):
        if not _is_whole(description[name], low=1, high=high):
            raise _wrong(name, description[name], f"a whole number from 1 to {high:,}")
    for name, choices in (("query_net", tuple(QUERY_NETS)), ("dtype", DTYPES)):
        if description[name] not in choices:
            raise _wrong(name, description[name], " or ".join(choices))
    if not isinstance(description["method"], str) or len(description["method"]) > _MAX_NAME:
        raise _wrong("method", description["method"], "a name")
    for name in _HASHES:
        if not isinstance(description[name], str) or len(description[name]) != 64:
            raise _wrong(name, description[name], "64 hexadecimal digits")
    for name, value in description["view"].items():
        if not _is_whole(value, low=0):  # True is an int, too
            raise _wrong(name, value, "a whole number")
        if name == "bit_depth" and not value:  # one description for each view, since a hash identifies a model
            raise _wrong(name, value, "9 to 16, or no such field")
    Preprocessing(**description["view"]).check()
    network.check_arguments(**network_arguments(description["network"]))
    backbones.check_side(description["network"]["backbone"], description["view"]["image_size"])


def view_fields(preprocessing: Preprocessing) -> dict[str, int]:
    """Return the field `view` of a `model.json`: a model without `bit_depth` has 0, as all models of before."""
    depth = {"bit_depth": preprocessing.bit_depth} if preprocessing.bit_depth else {}
    return {"resize": preprocessing.resize, "image_size": preprocessing.image_size, **depth}


def _check_network(fields: Any) -> None:
    has_head = isinstance(fields, dict) and "head" in fields
    _check_fields("network", fields, _NETWORK_FIELDS | {"head" if has_head else "bounded"})
    if has_head and fields["head"] not in _OTHER_HEADS:  # one name for each, since a hash identifies a model
        raise _wrong("head", fields["head"], " or ".join(_OTHER_HEADS))
    if not has_head and not isinstance(fields["bounded"], bool):
        raise _wrong("bounded", fields["bounded"], "true or false")


def network_fields(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the field `network` of a `model.json`, from the arguments of `make_img_net` but for layers and bits."""
    fields = {name: value for name, value in arguments.items() if name != "head"}
    head = arguments["head"]
    return {**fields, **({"bounded": _BOUNDED[head]} if head in _BOUNDED else {"head": head})}


def network_arguments(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `make_img_net` but for layers and bits, from the field `network` of a `model.json`."""
    arguments = {name: value for name, value in fields.items() if name != "bounded"}
    return arguments if "head" in fields else {**arguments, "head": "tanh" if fields["bounded"] else "linear"}


def _check_fields(name: str, value: Any, fields: Collection[str]) -> None:
    if not isinstance(value, dict):
        raise _wrong(name, value, "an object of JSON")
    odd = sorted(fields ^ value.keys())
    if odd:
        raise InputError(f"{name} {'lacks' if odd[0] in fields else 'has an unknown field'} {odd[0]!r:.100}")


def _is_whole(value: Any, *, low: int, high: float = math.inf) -> bool:
    return type(value) is int and low <= value <= high


def _wrong(name: str, value: Any, expected: str) -> InputError:
    return InputError(f"{name} is {value!r:.100}, expected {expected}")


def identity(description: Mapping[str, Any]) -> str:
    """Hash what decides the codes."""
    deciding = {key: value for key, value in description.items() if key not in ("sha256", "batch_size", "method")}
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def build(description: Mapping[str, Any]) -> ImgNet:
    """Build the network that a `model.json` describes."""
    fields = network_arguments(description["network"]).items()
    arguments: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in fields}
    return make_img_net(layers=Layers(dtype=description["dtype"]), bits=description["bits"], **arguments)


class Expected:
    """The arrays that the weights of a network must be, and what it costs to run."""

    def __init__(self, img_net: ImgNet, *, image_size: int):
        """Trace a network, which allocates nothing.

        Raises:
          InputError: it computes larger arrays for one image than MAX_BYTES_PER_IMAGE.
        """
        images = jax.ShapeDtypeStruct((_BATCH, image_size, image_size, 3), jnp.uint8)
        key = jax.eval_shape(jax.random.key, 0)
        trace, (_, variables) = jax.make_jaxpr(partial(img_net.init_with_output, train=False), return_shape=True)(key, images)
        self._variables: dict[str, Any] = {"params": {}, "batch_stats": {}, **variables}
        self._bytes_per_image = _largest_array(trace.jaxpr)
        if self._bytes_per_image > MAX_BYTES_PER_IMAGE:
            raise InputError(
                f"it computes arrays of {self._bytes_per_image:,} bytes for an image of {image_size}x{image_size} pixels, "
                f"expected at most {MAX_BYTES_PER_IMAGE:,}"
            )

    @property
    def batch_size(self) -> int:
        """The largest number of images to compute at once."""
        return max(1, MAX_BYTES_AT_ONCE // max(1, self._bytes_per_image))

    def arrays(self, names: Collection[str]) -> dict[str, Any]:
        """Return the shape and dtype of each array, by its name in the file.

        Args:
          names: the networks, "f" and "g", and TRUNK where they share a frozen one.
        """
        kinds, arrays = self._variables, {}
        for name in names:
            for kind, tree in kinds.items():
                if TRUNK in names:
                    tree = {key: below for key, below in tree.items() if (key == "backbone") == (name == TRUNK)}
                for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
                    arrays["/".join([name, kind, *(key.key for key in path)])] = leaf
        return arrays

    def check_size(self, size: int) -> None:
        """Check the size of a file of weights before it is read.

        Raises:
          InputError: no weights of this network take so many bytes.
        """
        whole = _bytes(self.arrays(["f"]))  # two networks can share a trunk, which is a part of it
        if not whole <= size <= min(2 * whole + _MAX_HEADER, weight_files.MAX_BYTES):
            raise InputError(f"weights.safetensors was changed: it has {size:,} bytes, expected {whole:,} a network")

    def check(self, arrays: Mapping[str, np.ndarray], *, nets: Collection[str]) -> None:
        """Check names, shapes, dtypes and numbers of the arrays in a file of weights.

        Args:
          arrays: by name.
          nets: the networks that encode, "f", "g" or both.

        Raises:
          InputError: an array is missing, unknown, of another shape or dtype, or holds a number that no trained network has.
        """
        names = sorted({name.partition("/")[0] for name in arrays} & {"f", "g", TRUNK} | set(nets))
        expected = self.arrays(names)
        odd = sorted(expected.keys() ^ arrays.keys())
        if odd:
            raise InputError(f"weights.safetensors {'lacks' if odd[0] in expected else 'has an unknown array'} {odd[0]!r:.200}")
        for name, array in arrays.items():
            if array.shape != expected[name].shape or array.dtype != expected[name].dtype:
                wanted = f"{expected[name].dtype}{list(expected[name].shape)}"
                raise InputError(f"{name} is {array.dtype}{list(array.shape)!s:.100}, expected {wanted}")
            if not np.isfinite(array).all():
                raise InputError(f"{name} has numbers that aren't finite")
            if name.endswith("/var") and array.min(initial=0) < 0:  # its root would be NaN
                raise InputError(f"{name} has a variance below 0")


def _bytes(arrays: Mapping[str, Any]) -> int:
    return sum(math.prod(array.shape) * array.dtype.itemsize for array in arrays.values())


def _largest_array(jaxpr: Any) -> int:
    """Return the bytes, per image, of the largest array that is computed for each image, in any branch of a function."""
    largest = 0
    for equation in jaxpr.eqns:
        for output in equation.outvars:
            shape = getattr(output.aval, "shape", ())
            if any(side and side % _BATCH == 0 for side in shape):
                largest = max(largest, math.prod(shape) * output.aval.dtype.itemsize // _BATCH)
        for value in equation.params.values():
            for below in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(below, "jaxpr", below)  # of a closed one
                if hasattr(inner, "eqns"):
                    largest = max(largest, _largest_array(inner))
    return largest
