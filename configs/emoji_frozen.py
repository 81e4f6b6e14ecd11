"""Emoji, real pictures with several labels, on a frozen pretrained network: seconds a run once its features exist.

python -m benchmarks.methods.emoji_lists --out=data/emoji && pip install 'adsq_jax[pretrained]'
adsq train --config=emoji_frozen --workdir=runs/emoji_frozen

mAP@all: .456, .495 and .514 at 12, 24 and 48 bits, means of seeds 0, 1 and 2 (2026-11-29; docs/results/).
"""

from adsq_jax.config import freeze_trunk, from_argument, set_objective
from adsq_jax.methods.adsq import BY_NEIGHBOURS


def get_config(argument=""):
    config = from_argument(argument)
    config.data.name = "lists"
    config.data.reader = "lists"
    config.data.directory = "data/emoji"
    config.data.protocol = "own"
    config.data.resize = 128
    config.data.image_size = 112
    freeze_trunk(config)
    set_objective(config, BY_NEIGHBOURS)
    config.optim.learning_rate = 2e-3
    return config
