"""Emoji, real pictures with several labels, as list files: an example of configs/lists.py that runs on a laptop.

    python -m benchmarks.methods.emoji_lists --out=data/emoji
    adsq data --config=emoji --out=runs/emoji_data
    adsq train --config=emoji --workdir=runs/emoji

On a shared 2-core x86-64 machine, in about 5 minutes: mAP@all .42 at 24 bits, where chance is .125 and the same heads on a
random, frozen backbone reach .29; seeds 0, 1 and 2 (2026-11-24; docs/results/training.md has them by seed).
"""

from adsq_jax.config import from_argument


def get_config(argument=""):
    config = from_argument(argument, several_labels=True)
    config.data.name = "lists"
    config.data.reader = "lists"
    config.data.directory = "data/emoji"
    config.data.protocol = "own"
    config.data.resize = 36
    config.data.image_size = 32
    config.data.flip = True
    return config
