"""ImageNet, the 100 classes of HashNet: 5,000 queries from validation, 13,000 to train, 128,503 as database (with train).

    adsq data --config=imagenet100 --out=runs/imagenet100_data
    adsq train --config=imagenet100:bits=48 --workdir=runs/imagenet100

Download ILSVRC2012's training and validation images from https://image-net.org/download (with an account), unpacked to
data/imagenet/train/SYNSET/ and data/imagenet/val/SYNSET/; or use TFDS's imagenet2012, with the same split:
--config.data.reader=tfds --config.data.directory=TFDS_DATA_DIR. mAP@1000.
Papers start from ImageNet weights: --config.model.pretrained=FILE, for instance torchvision's resnet50. Not measured yet.
"""

from adsq_jax.config import from_argument


def get_config(argument=""):
    config = from_argument(argument)
    config.data.name = "imagenet100"
    config.data.directory = "data/imagenet"
    config.data.protocol = "imagenet100"
    config.data.resize = 256
    config.data.image_size = 224
    config.data.flip = True
    config.model.backbone = "resnet50"
    config.optim.trunk_lr_scale = 0.1
    config.optim.learning_rate = 1e-3
    config.train.rounds = 30
    return config
