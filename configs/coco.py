"""MS COCO, 80 labels: 5,000 queries, 10,000 to train, 117,218 as database (with train). mAP@5000.

    adsq data --config=coco --out=runs/coco_data
    adsq train --config=coco:bits=48 --workdir=runs/coco

Download from https://cocodataset.org/#download to data/coco, unpacked: train2014.zip, val2014.zip,
annotations_trainval2014.zip; those of 2017 have the same images and split. HashNet's lists have the queries in the database:
protocol=coco-lists with --config.data.reader=lists --config.data.lists=LISTS --config.data.allow_overlap=True;
their absolute paths need --config.data.strip_prefix=FOLDER, which the error that refuses them names.
Papers start from ImageNet weights: --config.model.pretrained=FILE, for instance torchvision's resnet50. Not measured yet.
"""

from adsq_jax.config import from_argument


def get_config(argument=""):
    config = from_argument(argument, several_labels=True, protocol="coco")
    config.data.name = "coco"
    config.data.directory = "data/coco"
    config.data.resize = 256
    config.data.image_size = 224
    config.data.flip = True
    config.model.backbone = "resnet50"
    config.optim.trunk_lr_scale = 0.1
    config.optim.learning_rate = 1e-3
    config.train.rounds = 30
    return config
