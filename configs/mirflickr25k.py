"""MIRFlickr-25k, 24 labels: 1,000 queries, 4,000 to train, the other 20,000 as database (without train). mAP@all.

    adsq data --config=mirflickr25k --out=runs/mirflickr25k_data
    adsq train --config=mirflickr25k:bits=48 --workdir=runs/mirflickr25k

Download from https://press.liacs.nl/mirflickr/mirdownload.html to data/mirflickr25k, unpacked: mirflickr25k.zip (to
mirflickr/im1.jpg and so on) and mirflickr25k_annotations_v080.zip (to mirflickr25k_annotations_v080/). The 14 `_r1` lists are
stricter subsets, not classes of their own; images without a label are only in the database.
Papers start from ImageNet weights: --config.model.pretrained=FILE, for instance torchvision's resnet50. Not measured yet.
"""

from adsq_jax.config import from_argument


def get_config(argument=""):
    config = from_argument(argument, several_labels=True)
    config.data.name = "mirflickr25k"
    config.data.directory = "data/mirflickr25k"
    config.data.protocol = "mirflickr25k"
    config.data.resize = 256
    config.data.image_size = 224
    config.data.flip = True
    config.model.backbone = "resnet50"
    config.optim.trunk_lr_scale = 0.1
    config.optim.learning_rate = 1e-3
    config.train.rounds = 30
    return config
