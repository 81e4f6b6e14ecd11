"""NUS-WIDE, several labels an image: 21 concepts (2,100 / 10,500 / 193,734), or HashNet's 81 with protocol=nuswide-81.

    python -m adsq_jax.data --config=configs/nuswide.py --out=runs/nuswide_data
    python -m adsq_jax.main --config=configs/nuswide.py:bits=48 --workdir=runs/nuswide

data/nuswide is the original distribution: Groundtruth/, ConceptsList/, ImageList/, the images in Flickr/CONCEPT/ or images/. It
is prepared once, to data/nuswide/prepared, which copies the images. Or list files with their images, by
--config.data.reader=lists --config.data.lists=LISTS. The 223,496 images of nuswide-81 (5,000 / 10,000 / 218,496) are those of
HashNet's lists; fewer of the original have a label, so it wants lists. mAP@5000.
Papers start from ImageNet weights: --config.model.pretrained=FILE, torchvision's resnet50 for one. Measured result: none yet.
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
