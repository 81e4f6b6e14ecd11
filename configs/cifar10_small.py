"""CIFAR-10 at its own 32 x 32 pixels, with a small CNN from scratch, fit for a CPU.

    adsq train --config=cifar10_small --workdir=runs/cifar10_small
    adsq train --config=cifar10_small:bits=48,protocol=cifar10-1 --workdir=runs/cifar10-1_small

Protocols and data are those of configs/cifar10.py: download the binary version from https://www.cs.toronto.edu/~kriz/cifar.html,
mkdir -p data/cifar10 && tar -xzf cifar-10-binary.tar.gz -C data/cifar10
Network, augmentation and length are Fashion-MNIST's (configs/fashion_mnist.py), but for the wider border of the random crops.
5,000 training images without pretrained weights give far less than configs/cifar10_frozen.py. On a shared 2-core x86-64
machine, in 7 to 13 minutes on one core: mAP@all .464 / .481 / .497 at 12 / 24 / 48 bits, of a JPEG copy of CIFAR-10; means of
seeds 0, 1 and 2 (2026-11-30; docs/results/).
"""

from adsq_jax.config import from_argument


def get_config(argument=""):
    config = from_argument(argument, protocol="cifar10")
    config.data.name = "cifar10"
    config.data.directory = "data/cifar10"
    config.data.image_size = 32
    config.data.crop_padding = 4
    config.data.flip = True
    config.data.erase = 0.35
    config.model.width = 32
    config.model.mean = (0.4914, 0.4822, 0.4465)  # of the 50,000 images of CIFAR-10's training part
    config.model.deviation = (0.2470, 0.2435, 0.2616)
    return config
