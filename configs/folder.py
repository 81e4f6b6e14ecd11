"""Your own pictures, one folder a class: DIRECTORY/CLASS/*.jpg (or PNG, GIF, WebP, BMP, TIFF; folders in a class count).

    adsq data --config=folder --config.data.directory=DIRECTORY --out=runs/my_data
    adsq train --config=folder:bits=48 --config.data.directory=DIRECTORY --workdir=runs/my_run

A tenth of each class become queries, the rest is database and training set (data.query_share, data.train_share). A class of one
picture is an error, or has no query with --config.data.small_classes=database. Pictures in DIRECTORY/train/CLASS/ and
DIRECTORY/test/CLASS/ are split so by --config.data.reader=split_folders. The small network takes 64x64 pixels and trains on a
CPU. The result depends on the pictures.
"""

from adsq_jax.config import from_argument


def get_config(argument=""):
    config = from_argument(argument)
    config.data.name = "folder"
    config.data.directory = "data/pictures"
    config.data.protocol = "own"
    config.data.resize = 72
    config.data.image_size = 64
    config.data.flip = True
    config.train.batch_size = 64
    return config
