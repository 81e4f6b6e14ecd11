"""Scikit-learn's handwritten digits, 1,797 images of 8x8: a first run that needs no download.

python -m adsq_jax.main --config=configs/digits.py --workdir=runs/digits

On a shared 2-core x86-64 machine, in about a minute: mAP@all .972 at 24 bits, seed 0 (2026-11-24).
"""

from adsq_jax.config import default, parse_argument


def get_config(argument=""):
    options = parse_argument(argument, bits=24, method="adsq")
    config = default(method=options["method"])
    config.bits = options["bits"]
    config.data.name = "digits"
    config.data.protocol = "digits"
    config.data.image_size = 8
    config.data.crop_padding = 1
    config.model.backbone = "small_cnn"
    config.train.rounds = 6
    config.train.epochs_per_round = 5
    config.train.batch_size = 100
    return config
