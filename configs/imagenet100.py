"""ImageNet, the 100 classes of HashNet: 5,000 queries from validation, 13,000 to train, 128,503 as database (with train).

    python -m adsq_jax.main --config=configs/imagenet100.py:bits=48 --workdir=runs/imagenet100

Its reader is not in this version: it stops and says what to get. Measured result: none yet.
"""

from adsq_jax.config import IMAGENET_DEVIATION, IMAGENET_MEAN, default, parse_argument


def get_config(argument=""):
    options = parse_argument(argument, bits=24)
    config = default()
    config.bits = options["bits"]
    config.data.name = "imagenet100"
    config.data.directory = "data/imagenet"
    config.data.protocol = "imagenet100"
    config.data.image_size = 224
    config.data.flip = True
    config.model.backbone = "resnet50"
    config.model.width = 64
    config.model.mean = IMAGENET_MEAN
    config.model.deviation = IMAGENET_DEVIATION
    config.optim.new_layers_multiplier = 10.0
    config.optim.learning_rate = 1e-4
    config.train.rounds = 30
    config.train.epochs_per_round = 3
    return config
