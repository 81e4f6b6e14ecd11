"""List files as HashNet and DeepHash-pytorch have them: an image a line, its path, then a 0 or 1 for each class; or names.

    adsq data --config=lists --config.data.directory=IMAGES --config.data.lists=LISTS --out=DATA_DIR
    adsq train --config=lists --config.data.directory=IMAGES --config.data.lists=LISTS --workdir=RUN_DIR

LISTS holds query.txt (or test.txt), train.txt, database.txt, and maybe classes.txt; their paths are relative to IMAGES, or all
begin with what --config.data.strip_prefix=/home/someone/ leaves out. A line may also be `path,name,name`, or `path 17` with a
class id. The lists are the split. Its sizes aren't checked; a benchmark's config with --config.data.reader=lists does that.
"""

from adsq_jax.config import from_argument


def get_config(argument=""):
    config = from_argument(argument, several_labels=True)
    config.data.name = "lists"
    config.data.reader = "lists"
    config.data.directory = "data/lists"
    config.data.protocol = "own"
    config.data.resize = 72
    config.data.image_size = 64
    config.data.flip = True
    config.train.batch_size = 64
    return config
