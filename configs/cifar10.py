"""CIFAR-10 by its published protocols: cifar10 (1,000 / 5,000 / 54,000), cifar10-1 (59,000, with train), cifar10-2.

    adsq data --config=cifar10:protocol=cifar10-1 --out=runs/cifar10-1_data
    adsq train --config=cifar10:bits=48,protocol=cifar10-1 --workdir=runs/cifar10-1

cifar10-2 is 10,000 / 50,000 / the same 50,000. All draw from all 60,000 images. Download the binary version
from https://www.cs.toronto.edu/~kriz/cifar.html to data/cifar10, unpacked; or use TFDS's copy, in another order and so split
in another way: --config.data.reader=tfds --config.data.directory=TFDS_DATA_DIR. mAP@all.
Papers start from ImageNet weights: --config.model.pretrained=FILE, for instance torchvision's resnet50. Not measured yet.
"""

from adsq_jax.config import from_argument


def get_config(argument=""):
    config = from_argument(argument, protocol="cifar10")
    config.data.name = "cifar10"
    config.data.directory = "data/cifar10"
    config.data.resize = 224  # the field enlarges 32x32 for networks of ImageNet's size
    config.data.image_size = 224
    config.data.flip = True
    config.model.backbone = "resnet18"
    config.optim.trunk_lr_scale = 0.1
    config.optim.learning_rate = 1e-3
    config.train.rounds = 30
    return config
