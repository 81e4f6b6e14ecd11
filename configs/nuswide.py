"""NUS-WIDE, several labels an image: 21 concepts (2,100 / 10,500 / 193,734), or HashNet's 81 with protocol=nuswide-81.

    adsq data --config=nuswide --out=runs/nuswide_data
    adsq train --config=nuswide:bits=48 --workdir=runs/nuswide

data/nuswide is the original distribution: Groundtruth/, ConceptsList/, ImageList/, and images in Flickr/CONCEPT/ or images/.
The first run prepares it, with a copy of the images in data/nuswide/prepared. For list files with their images:
--config.data.reader=lists --config.data.lists=LISTS. nuswide-81 (5,000 / 10,000 / 218,496) needs HashNet's lists: fewer images
of the original distribution have a label. mAP@5000.
Papers start from ImageNet weights: --config.model.pretrained=FILE, for instance torchvision's resnet50. Not measured yet.
"""

from adsq_jax.config import from_argument


def get_config(argument=""):
    config = from_argument(argument, several_labels=True, protocol="nuswide")
    config.data.name = "nuswide"
    config.data.directory = "data/nuswide"
    config.data.resize = 256
    config.data.image_size = 224
    config.data.flip = True
    config.model.backbone = "resnet50"
    config.optim.trunk_lr_scale = 0.1
    config.optim.learning_rate = 1e-3
    config.train.rounds = 30
    return config
