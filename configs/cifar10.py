"""CIFAR-10 by its published protocols: cifar10 (1,000 / 5,000 / 54,000), cifar10-1 (59,000, with train), cifar10-2.

    python -m adsq_jax.main --config=configs/cifar10.py:bits=48,protocol=cifar10-1 --workdir=runs/cifar10

Its reader is not in this version: it stops and says what to get. Measured result: none yet.
"""

from adsq_jax.config import IMAGENET_DEVIATION, IMAGENET_MEAN, default, parse_argument


def get_config(argument=""):
    options = parse_argument(argument, bits=24, protocol="cifar10")
    config = default()
    config.bits = options["bits"]
    config.data.name = "cifar10"
    config.data.directory = "data/cifar10"
    config.data.protocol = options["protocol"]
    config.data.image_size = 224  # the field enlarges 32x32 for networks of ImageNet's size
    config.data.flip = True
    config.model.backbone = "resnet18"
    config.model.width = 64
    config.model.mean = IMAGENET_MEAN
    config.model.deviation = IMAGENET_DEVIATION
    config.optim.new_layers_multiplier = 10.0
    config.optim.learning_rate = 1e-4
    config.train.rounds = 30
    config.train.epochs_per_round = 3
    return config
