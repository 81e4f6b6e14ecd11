"""CIFAR-10 on a frozen pretrained network: only the hash heads are trained, fit for a CPU once its features exist.

    pip install 'adsq_jax[pretrained]'
    adsq train --config=cifar10_frozen --workdir=runs/cifar10_frozen
    adsq train --config=cifar10_frozen:bits=48,protocol=cifar10-1 --workdir=runs/cifar10-1_frozen

Protocols and data are those of configs/cifar10.py: download the binary version from https://www.cs.toronto.edu/~kriz/cifar.html,
mkdir -p data/cifar10 && tar -xzf cifar-10-binary.tar.gz -C data/cifar10
EfficientNet-Lite0 sees all 60,000 images at 112 pixels, and four augmented views of each of the 5,000 training images, once for
both protocols if the runs get the same --config.data.feature_cache=FOLDER; then a run takes less than a minute. mAP@all by
protocol cifar10: .594, .621 and .634 at 12, 24 and 48 bits, means of seeds 0, 1 and 2 (2026-11-29; docs/results/).
"""

from adsq_jax.config import freeze_trunk, from_argument, set_objective
from adsq_jax.methods.adsq import BY_CODES


def get_config(argument=""):
    config = from_argument(argument, protocol="cifar10")
    config.data.name = "cifar10"
    config.data.directory = "data/cifar10"
    config.data.resize = 128
    config.data.image_size = 112
    freeze_trunk(config)
    set_objective(config, BY_CODES)
    config.optim.learning_rate = 2e-3
    return config
