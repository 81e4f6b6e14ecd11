"""100 classes of ImageNet at 64 x 64 pixels (of Tiny-ImageNet's 200), heads on a frozen pretrained network.

    curl -LO http://cs231n.stanford.edu/tiny-imagenet-200.zip && unzip -q tiny-imagenet-200.zip -d data
    python -m benchmarks.methods.tiny_imagenet_lists --directory=data/tiny-imagenet-200 && pip install 'adsq_jax[pretrained]'
    adsq train --config=imagenet100_frozen --workdir=runs/imagenet100_frozen

The second command writes list files into the folder: the first 100 synsets; 5,000 queries, their images in Tiny-ImageNet's
validation part; 50,000 in the database, their training part; 13,000 of these to train on, 130 a class. mAP@1000.
The trunk's weights were trained on ImageNet's 1,000 classes: they have seen these 100 classes with their labels, and images of
these lists at full size among their training images, as in the field's papers. A figure compares heads on the same features,
and says little about classes that a network hasn't seen. Nor can it be set beside figures of configs/imagenet100.py: those are
of HashNet's 100 classes, at full size. ImageNet's terms of use allow research, no commerce.
mAP@1000: .322, .388 and .410 at 12, 24 and 48 bits, means of seeds 0, 1 and 2 (2026-11-29; docs/results/).
"""

from adsq_jax.config import freeze_trunk, from_argument, set_objective
from adsq_jax.methods.adsq import BY_NEIGHBOURS


def get_config(argument=""):
    config = from_argument(argument)
    config.data.name = "lists"
    config.data.reader = "lists"
    config.data.directory = "data/tiny-imagenet-200"
    config.data.protocol = "tiny_imagenet100"
    config.data.resize = 128
    config.data.image_size = 112
    freeze_trunk(config)
    set_objective(config, BY_NEIGHBOURS)
    config.optim.learning_rate = 2e-3
    return config
