"""Any classification set of TFDS by name, as array_record; only its preparation needs TensorFlow.

    adsq data --config=tfds:name=oxford_flowers102 --out=runs/flowers_data
    adsq train --config=tfds:name=oxford_flowers102,bits=48 --workdir=runs/flowers

All its splits are merged and split again: a tenth of each class become queries, the rest is database and training set
(data.query_share, data.train_share). data.directory is TFDS's data_dir.
"""

from adsq_jax.config import from_argument


def get_config(argument=""):
    config = from_argument(argument, tfds_name="")
    config.data.name = "tfds"
    config.data.reader = "tfds"
    config.data.protocol = "own"
    config.data.resize = 72
    config.data.image_size = 64
    config.data.flip = True
    config.train.batch_size = 64
    return config
