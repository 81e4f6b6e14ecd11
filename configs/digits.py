"""Scikit-learn's handwritten digits, 1,797 images of 8x8: a first run that needs no download.

adsq train --config=digits --workdir=runs/digits

On a shared 2-core x86-64 machine, in about a minute: mAP@all .981 at 24 bits, seed 0 (2026-11-30).
"""

from adsq_jax.config import from_argument


def get_config(argument=""):
    config = from_argument(argument)
    config.data.crop_padding = 1
    config.train.rounds = 6
    config.train.epochs_per_round = 5
    config.train.batch_size = 100
    return config
