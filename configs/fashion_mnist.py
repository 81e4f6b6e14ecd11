"""Fashion-MNIST, 1,000 queries, 5,000 training images, the other 69,000 (with the training set) as database.

apt-get install dataset-fashion-mnist
adsq train --config=fashion_mnist:bits=24 --workdir=runs/fashion_mnist

On a shared 2-core x86-64 machine, in 6 to 10 minutes: mAP@all .834 at 24 bits, .847 at 48, means of seeds 0, 1 and 2
(2026-11-24; benchmarks/results/). Network and length were chosen with --config.data.validation=1000.
"""

from adsq_jax.config import from_argument
from adsq_jax.data.readers import fashion_mnist


def get_config(argument=""):
    config = from_argument(argument)
    config.data.name = "fashion_mnist"
    config.data.directory = fashion_mnist.DIRECTORY
    config.data.protocol = "fashion_mnist"
    config.data.image_size = 28
    config.data.crop_padding = 2
    config.data.flip = True
    config.data.erase = 0.35
    config.model.width = 32
    config.model.mean = (0.286, 0.286, 0.286)
    config.model.deviation = (0.353, 0.353, 0.353)
    return config
