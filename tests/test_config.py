"""Configs: every file loads and fits its networks; every wrong value is refused in one line that names the key."""

import configparser
import dataclasses
import hashlib
import importlib.util
import inspect
import json
import math
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from adsq_jax import config as config_module
from adsq_jax import config_check, methods
from adsq_jax.data import datasets, protocols
from adsq_jax.errors import InputError
from adsq_jax.methods.adsq import BY_CODES, BY_NEIGHBOURS, SETTINGS
from adsq_jax.models import backbones
from adsq_jax.models.img_net import ImgNet
from adsq_jax.models.label_net import LabelNet
from adsq_jax.models.layers import Layers
from adsq_jax.run import workdir
from adsq_jax.training import LabelNetSettings, fit, optimizer, setup

FILES = sorted((Path(__file__).parents[1] / "configs").glob("[!_]*.py"), key=lambda path: path.stem)
CLASSES = {"coco": 80, "mirflickr25k": 24, "nuswide": 21, "nuswide-81": 81}
CLASSES |= dict.fromkeys(("imagenet100", "tiny_imagenet100"), 100)  # the others have 10
DATA_OF = {  # of files that don't have the name of their data set
    "cifar10_frozen": "cifar10",
    "cifar10_small": "cifar10",
    "emoji": "lists",
    "emoji_frozen": "lists",
    "imagenet100_frozen": "lists",
    "stamps": "folder",
}
FREE = {
    "data.directory",
    "data.lists",
    "data.manifest",
    "data.tfds_name",
    "data.feature_cache",
    "data.strip_prefix",
    "model.pretrained",
}  # paths and names that the user chooses
ARGUMENTS = ["", "bits=48", "bits=12"]


def load(path, argument=""):
    """Return the config of a file."""
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(argument)


def leaves_of(config, prefix=""):
    for key, value in config.items():
        if hasattr(value, "items"):
            yield from leaves_of(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


LEAVES = dict(leaves_of(config_module.default()))


def set_to(key, value):
    """Return the default config with one key set, whatever the value's type."""
    config = config_module.default()
    *sections, name = key.split(".")
    section = config
    for part in sections:
        section = section[part]
    with section.ignore_type():
        section[name] = value
    return config


def error_of(config, *words):
    """Return the message that refuses a config, one line that has these words."""
    with pytest.raises(InputError) as caught:
        config_check.check(config)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text
    return text


def test_default_is_valid():
    """The defaults are a valid config."""
    config_check.check(config_module.default())


@pytest.mark.parametrize("argument", ARGUMENTS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_are_valid(path, argument):
    """Every file loads, with and without bits, passes the check, and sets its data set and a known protocol."""
    config = load(path, argument)
    config_check.check(config)
    assert config.bits == (int(argument[5:]) if argument else 24)
    assert config.data.name == DATA_OF.get(path.stem, path.stem)
    assert config.data.protocol in {*protocols.PROTOCOLS, protocols.OWN}


def test_every_data_set_has_a_file():
    """Each data set has a config, and each config a data set."""
    assert {path.stem for path in FILES} == {*datasets.PROTOCOLS_OF, *DATA_OF}
    assert datasets.READERS_OF.keys() == datasets.PROTOCOLS_OF.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_headers_give_the_command(path):
    """The header of a file has the command that runs it."""
    assert f"adsq train --config={path.stem}" in path.read_text().split('"""')[1]


@pytest.mark.parametrize("protocol", protocols.PROTOCOLS)
def test_every_protocol_has_a_config(protocol):
    """Each protocol is that of a config, by default or by its argument."""
    name = {"tiny_imagenet100": "imagenet100_frozen"}.get(protocol, protocol.split("-")[0])
    path = next(path for path in FILES if path.stem == name)
    config = load(path, f"protocol={protocol}" if "-" in protocol else "")
    assert config.data.protocol == protocol
    config_check.check(config)


@pytest.mark.parametrize("name", [name for name, data in DATA_OF.items() if data == "cifar10"])
@pytest.mark.parametrize("protocol", datasets.PROTOCOLS_OF["cifar10"])
def test_every_config_of_cifar10_takes_its_protocols(name, protocol):
    """Those of other networks take the same arguments as configs/cifar10.py."""
    path = next(path for path in FILES if path.stem == name)
    assert load(path).data.protocol == "cifar10"
    config = load(path, f"bits=48,protocol={protocol}")
    assert (config.bits, config.data.protocol) == (48, protocol)
    config_check.check(config)


# Parameters of the published networks without their classifiers: 11,689,512 and 25,557,032 minus 1,000 x (width + 1).
PARAMETERS = {"resnet18": 11_689_512 - 513_000, "resnet50": 25_557_032 - 2_049_000}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_networks_of_every_file(path):
    """Both networks of a config can be built for its image size and bits, and have the shapes that training expects."""
    config = load(path, "bits=48")
    model, classes = config.model, CLASSES.get(config.data.protocol, 10)
    img_net = ImgNet(
        backbone=backbones.build(model.backbone, width=model.width, layers=Layers()),
        bits=config.bits,
        features=model.features,
        mean=(0.5, 0.5, 0.5),
        deviation=(0.5, 0.5, 0.5),
        head="tanh",
    )
    side = config.data.image_size
    images = jax.ShapeDtypeStruct((2, side, side, 3), np.uint8)
    (semantic, codes), variables = jax.eval_shape(
        lambda k, x: img_net.init_with_output(k, x, train=False), jax.random.key(0), images
    )
    assert (semantic.shape, codes.shape) == ((2, model.features), (2, 48))
    assert (semantic.dtype, codes.dtype) == (np.float32, np.float32)
    if model.backbone in PARAMETERS:
        assert sum(x.size for x in jax.tree.leaves(variables["params"]["backbone"])) == PARAMETERS[model.backbone]
    label_net = LabelNet(bits=config.bits, hidden=config.label_net.hidden, features=model.features)
    labels = jax.ShapeDtypeStruct((5, classes), np.uint8)
    outputs, _ = jax.eval_shape(label_net.init_with_output, jax.random.key(0), labels)
    assert [x.shape for x in outputs] == [(5, model.features), (5, 48), (5, classes)]


@pytest.mark.parametrize("key", [key for key, value in LEAVES.items() if type(value) in (int, float)])
def test_every_number_has_a_rule(key):
    """No number may be negative, NaN or infinite; the error names the key and how to set it."""
    wrong = [-1] if isinstance(LEAVES[key], int) else [-1.0, -1e-9, math.nan, math.inf]
    for value in wrong:
        error_of(set_to(key, value), f"config.{key}={value!r}: expected ", f"--config.{key}=VALUE")


@pytest.mark.parametrize("key", [key for key, value in LEAVES.items() if isinstance(value, str) and key not in FREE])
def test_every_name_has_a_rule(key):
    """An unknown name is refused, and the error has its key."""
    error_of(set_to(key, "nonsense"), f"config.{key}='nonsense'")


@pytest.mark.parametrize("key", [key for key, value in LEAVES.items() if isinstance(value, tuple)])
@pytest.mark.parametrize(
    "value", [(0.5, 0.5), (0.5, 0.5, -0.1), (0.5, 0.5, 2.0), (0.5, 0.5, math.nan), ("a", "b", "c"), 0.5, "0.5"]
)
def test_every_tuple_has_a_rule(key, value):
    """Anything but three numbers in range is refused, whatever its type."""
    error_of(set_to(key, value), f"config.{key}={value!r}: expected ")


@pytest.mark.parametrize(
    ("key", "value", "expectation"),
    [
        ("bits", 0, "1 to 256"),
        ("bits", 257, "1 to 256"),
        ("bits", 300, "1 to 256"),
        ("seed", 2**32, "0 to 4294967295"),
        ("model.backbone", "resnet34", "one of small_cnn, alexnet, vgg16, resnet18, resnet50, efficientnet_lite0, "),
        ("model.width", -1, "at least 0"),
        ("model.batch_norm", "local", "one of global, frozen"),
        ("model.dtype", "float16", "one of float32, bfloat16"),
        ("model.dropout", 1.0, "at least 0 and below 1"),
        ("optim.trunk_lr_scale", -0.1, "at least 0"),
        ("data.feature_views", -1, "at least 0"),
        ("data.protocol", "cifar100", "one of cifar10, cifar10-1"),
        ("data.name", "imagenet", "one of digits"),
        ("data.erase", 1.5, "0 to 1"),
        ("data.reader", "zip", "one of files, lists, split_folders, tfds"),
        ("data.on_bad_image", "ignore", "one of error, skip"),
        ("data.most_bad", 1.1, "0 to 1"),
        ("data.strip_prefix", "/home/someone/", "the reader of lists; fix: --config.data.reader=lists, or remove it"),
        ("data.small_classes", "database", "'error', since no share of each class is drawn here; fix: "),
        ("data.bit_depth", 12, "0, since the files of digits have 8 bits a pixel; fix: remove it"),
        ("data.query_share", 0.0, "above 0 and below 1"),
        ("data.query_share", 1.0, "above 0 and below 1"),
        ("data.train_share", 0.0, "above 0, up to 1"),
        ("data.resize", -1, "at least 0"),
        ("data.workers", -1, "at least 0"),
        ("optim.warmup", 1.01, "0 to 1"),
        ("optim.learning_rate", 0.0, "above 0"),
        ("label_net.learning_rate", 0.0, "above 0"),
        ("objective.likelihood_scale", 0.0, "above 0"),
        ("objective.weights.difference", -0.5, "at least 0"),
        ("label_net.weights.balance", -0.5, "at least 0"),
        ("model.deviation", (0.5, 0.0, 0.5), "three numbers above 0"),
        ("train.rounds", 0, "at least 1"),
        ("train.batch_size", 0, "at least 1"),
        ("checkpoint.keep", 0, "at least 1"),
        ("eval.query_net", "gf", "one of ff, gg, fg, sum"),
        ("parallel", "pjit", "one of shard_map, pmap"),
    ],
)
def test_wrong_value(key, value, expectation):
    """A value out of range is refused; the error has the key and the range."""
    error_of(set_to(key, value), f"config.{key}={value!r}: expected {expectation}")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bits", 1),
        ("bits", 256),
        ("seed", 2**32 - 1),
        ("data.erase", 1.0),
        ("data.train_share", 1.0),
        ("data.most_bad", 0.0),
        ("data.keep_mib", 0),
        ("data.resize", 8),
        ("optim.warmup", 0.0),
        ("optim.clip_norm", 0.0),
        ("objective.weights.likelihood", 0.0),
        ("optim.weight_decay", 0.0),
        ("model.mean", (0.0, 0.5, 1.0)),
        ("model.mean", ()),
        ("optim.trunk_lr_scale", 0.0),
        ("model.dropout", 0.0),
        ("host_devices", 1),
    ],
)
def test_edge_of_a_range(key, value):
    """The first and the last value of a range are accepted."""
    config_check.check(set_to(key, value))


READERS = [(name, reader) for name, readers in datasets.READERS_OF.items() for reader in readers]


@pytest.mark.parametrize(("name", "reader"), READERS)
def test_keys_of_some_data_sets(name, reader):
    """small_classes and bit_depth are refused where they change nothing: a given split, files of 8 bits a pixel."""
    kept = {"data.small_classes": {("folder", "files"), ("tfds", "tfds")}}
    kept["data.bit_depth"] = {*READERS} - {(given, "files") for given in ("digits", "cifar10", "fashion_mnist")}
    for key, value in (("data.small_classes", "database"), ("data.bit_depth", 12)):
        config = config_module.default()
        changes = {"data.name": name, "data.reader": reader, "data.protocol": datasets.PROTOCOLS_OF[name][0], key: value}
        config.update_from_flattened_dict(changes)
        if (name, reader) in kept[key]:
            config_check.check(config)
        else:
            error_of(config, f"config.{key}={value!r}: expected ", "; fix: remove it")


@pytest.mark.parametrize(("key", "value"), [("bits", 24.5), ("bits", "24"), ("optim.learning_rate", "fast"), ("data.flip", 1)])
def test_wrong_type(key, value):
    """A value of another type, as a config file may have it, is refused like any other wrong value."""
    error_of(set_to(key, value), f"config.{key}={value!r}: expected the type")


@pytest.mark.parametrize("part", ["objective", "label_net"])
def test_nothing_to_minimise(part):
    """Weights that are all 0, or all others of terms switched off, are refused; label_codes, of the B-step, is no loss."""
    config = config_module.default()
    config[part].weights.update(dict.fromkeys(config[part].weights, 0.0))
    if part == "objective":
        config.objective.weights.label_codes = 1.0
    error_of(config, f"config.{part}.weights are 0 for all losses in use")
    config[part].weights.difference = 1.0
    config_check.check(config)
    config.objective.difference = False
    error_of(config, f"config.{part}.weights are 0 for all losses in use")
    if part == "objective":
        config.objective.label_net = False
        config.objective.weights.update(guidance=1.0, code_guidance=1.0)
        error_of(config, f"config.{part}.weights are 0 for all losses in use")


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("optim.momentum", "; fix: remove it"),
        ("optim.learning_rat", "(did you mean 'optim.learning_rate'?)"),
        ("train.learning_rate", "(did you mean 'optim.learning_rate'?)"),
        ("bit", "(did you mean 'bits'?)"),
        ("optm.learning_rate", "(did you mean 'optim.learning_rate'?)"),
    ],
)
def test_unknown_key(key, hint):
    """An unknown key is named, with the nearest known one if there is one."""
    config = config_module.default()
    config.optm = ConfigDict()
    config.update_from_flattened_dict({key: 0.9})
    error_of(config, f"config.{key} is not a config key", hint)


def test_help_has_every_key_and_comment():
    """The help has each key once with its default, and the comments of config.py and methods/adsq.py, read by a search."""
    text = config_module.help_text()
    assert max(map(len, text.splitlines())) <= 120
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in text.splitlines()[1:] if re.match(r"  [\w.*]+ ", line)}
    assert lines.keys() - {"label_net.weights.*"} == LEAVES.keys() | {"optim.arguments"}
    order = [key for key in lines if key in ("method", "bits", "data.name", "data.reader", "optim.name", "optim.arguments")]
    assert order == ["method", "bits", "data.name", "data.reader", "optim.name", "optim.arguments"]  # of the source
    for key, value in LEAVES.items():
        assert lines[key].startswith(str(value) or '""'), key
    whole = " ".join(text.split())
    for path, assignment in (("config.py", r"    config\.[\w.]+ = .*?"), ("methods/adsq.py", r"        \"\w+\": [\d.]+,")):
        source = (Path(config_module.__file__).parent / path).read_text()
        source = source[source.find("\ndef default(") :] if path == "config.py" else source.partition("BY_NEIGHBOURS")[0]
        comments = re.findall(rf"^{assignment}  # (.+)$", source, re.MULTILINE)
        assert len(comments) > 5
        assert [comment for comment in comments if comment not in whole] == []


@pytest.mark.parametrize("method", sorted(set(methods.METHODS) - {"adsq"}))
def test_help_of_a_method(method):
    """The help on a method's config has its settings, with the comment of its file."""
    text = config_module.help_text(config_module.default(method=method), sections=["baseline"])
    assert set(re.findall(r"^  baseline\.(\w+) ", text, re.MULTILINE)) == methods.METHODS[method].settings.keys()
    [comment] = re.findall(r"^SETTINGS.*#\s(.+)", inspect.getsource(methods.METHODS[method].module), re.MULTILINE)
    assert comment in " ".join(text.split())


@pytest.mark.parametrize(
    ("key", "value", "nearest"),
    [("method", "dpsch", "dpsh"), ("model.backbone", "resnet34", "resnet50"), ("parallel", "shardmap", "shard_map")],
)
def test_nearest_name(key, value, nearest):
    """The error of an unknown name has the nearest known one."""
    error_of(set_to(key, value), f"config.{key}='{value}'", f"did you mean '{nearest}'?")


@pytest.mark.parametrize("key", ["bits", "train.rounds", "objective.weights.guidance", "optim"])
def test_missing_key(key):
    """A missing key or section is named."""
    config = config_module.default()
    *sections, name = key.split(".")
    section = config
    for part in sections:
        section = section[part]
    del section[name]
    error_of(config, f"config.{key}", "is missing")


@pytest.mark.parametrize("query_net", ["sum", "gg", "fg"])
def test_query_net_without_the_twin(query_net):
    """Without the twin only f can encode queries, and the error says how to set that."""
    config = config_module.default()
    config.objective.twin = False
    config.eval.query_net = query_net
    error_of(config, f"config.eval.query_net='{query_net}'", "--config.eval.query_net=ff")
    config.eval.query_net = "ff"
    config_check.check(config)


@pytest.mark.parametrize("name", ["adamm", "__name__", "clip", "chain", "os", ""])
def test_unknown_optimizer(name):
    """A name that isn't an optimiser of optax is refused, even if optax has something else of that name."""
    error_of(set_to("optim.name", name), f"config.optim.name={name!r}", "no optimiser named")


@pytest.mark.parametrize(
    ("name", "argument", "value"),
    [("sgd", "momentun", 0.9), ("adam", "learning_rate", 0.1), ("adamw", "weight_decay", 0.1), ("sgd", "momentum", "much")],
)
def test_wrong_optimizer_argument(name, argument, value):
    """An argument that the optimiser lacks, that has its own config key, or that isn't a number, is refused and named."""
    config = config_module.default()
    config.optim.name = name
    config.optim.arguments[argument] = value
    error_of(config, "config.optim", argument)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("sgd", {"momentum": 0.9, "nesterov": True}), ("adam", {"b1": 0.8}), ("adamw", {}), ("lion", {}), ("lamb", {})],
)
def test_optimizers(name, arguments):
    """Optimisers of optax are accepted, with their arguments."""
    config = config_module.default()
    config.optim.name = name
    config.optim.arguments.update(arguments)
    config_check.check(config)


@pytest.mark.parametrize(
    ("name", "protocol"),
    [("digits", "fashion_mnist"), ("fashion_mnist", "cifar10-1"), ("cifar10", "digits"), ("nuswide", "cifar10-2")],
)
def test_protocol_of_another_data_set(name, protocol):
    """The protocol of another data set is refused, and both are named."""
    config = config_module.default()
    config.data.name, config.data.protocol = name, protocol
    error_of(config, f"config.data.protocol='{protocol}'", f"'{name}'")


@pytest.mark.parametrize(
    ("name", "reader"),
    [("digits", "tfds"), ("nuswide", "tfds"), ("lists", "files"), ("tfds", "lists"), ("lists", "split_folders")],
)
def test_reader_of_another_data_set(name, reader):
    """A reader of other data sets is refused, and the error names those of this one."""
    config = config_module.default()
    config.data.name, config.data.reader = name, reader
    error_of(config, f"config.data.reader='{reader}'", f"'{name}'", datasets.READERS_OF[name][0])


@pytest.mark.parametrize(
    ("backbone", "side", "words"),
    [
        ("alexnet", 62, "alexnet takes images of 63x63 pixels and more, not 62x62"),
        ("vgg16", 31, "vgg16 takes images of 32x32 pixels and more, not 31x31"),
        ("vit_b16", 15, "vit_b16 takes images of 16x16 pixels and more, not 15x15"),
        ("vit_b16", 100, "vit_b16 takes images whose side is a multiple of 16 pixels, not 100x100"),
    ],
)
def test_image_size_that_the_backbone_does_not_take(backbone, side, words):
    """An image size that the backbone can't take is refused, with the backbone and the smallest size."""
    config = config_module.default()
    config.model.backbone, config.data.image_size = backbone, side
    error_of(config, words, "--config.data.image_size")


@pytest.mark.parametrize("backbone", ["alexnet", "vgg16", "efficientnet_lite0", "vit_b16"])
def test_width_of_a_backbone_that_has_one(backbone):
    """Only small_cnn and ResNets have other widths; for other backbones the key is refused, since it would do nothing."""
    config = config_module.default()
    config.model.backbone, config.data.image_size, config.model.width = backbone, 224, 64
    error_of(config, "config.model.width=64", backbone, "give 0")


def test_pretrained_weights_of_a_network_that_has_none():
    """small_cnn is this project's own network, so nobody publishes weights for it."""
    config = config_module.default()
    config.model.pretrained = "weights.pth"
    error_of(config, "config.model.pretrained", "small_cnn", "resnet18")


def test_views_without_a_frozen_trunk():
    """Stored views are for a frozen backbone; for others the keys are refused, since they would do nothing."""
    for key, value in (("feature_views", 2), ("feature_cache", "features")):
        config = config_module.default()
        config.data[key] = value
        error_of(config, f"config.data.{key}={value!r}", "--config.optim.trunk_lr_scale=0")


@pytest.mark.parametrize("method", ["adsq", "dhd"])
def test_two_views_of_stored_features(method):
    """A method that compares two views needs two to be stored; of images it makes them as it goes."""
    config = config_module.default(method=method)
    if method == "adsq":
        config.objective.weights.consistency = 1.0
    config_check.check(config)
    config.optim.trunk_lr_scale, config.data.feature_views = 0.0, 1
    error_of(config, "config.data.feature_views=1", "expected at least 2", f"{method} compares two views of each image")
    config.data.feature_views = 2
    config_check.check(config)


@pytest.mark.parametrize(("backbone", "scale"), [("resnet18", 1.0), ("alexnet", 0.0)])
def test_dropout_where_nothing_is_dropped(backbone, scale):
    """Only AlexNet and VGG have dropout, and a frozen backbone has none; else the key is refused, since it would do nothing."""
    config = config_module.default()
    config.data.image_size, config.model.dropout = 64, 0.5
    config.model.backbone, config.optim.trunk_lr_scale = "alexnet", 1.0
    config_check.check(config)
    config.model.backbone, config.optim.trunk_lr_scale = backbone, scale
    error_of(config, "config.model.dropout=0.5", "alexnet or vgg16")


def test_resize_below_the_crop():
    """A crop can't be larger than the resized image; both keys are named."""
    config = config_module.default()
    config.data.resize, config.data.image_size = 31, 32
    error_of(config, "config.data.resize=31", "data.image_size=32")


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("", {"bits": 24, "rate": 0.5, "protocol": "cifar10"}),
        ("bits=48", {"bits": 48, "rate": 0.5, "protocol": "cifar10"}),
        ("protocol=cifar10-1,bits=12", {"bits": 12, "rate": 0.5, "protocol": "cifar10-1"}),
        ("rate=1e-3,", {"bits": 24, "rate": 1e-3, "protocol": "cifar10"}),
        ("protocol=a=b", {"bits": 24, "rate": 0.5, "protocol": "a=b"}),
        ("bits=48,bits=12", {"bits": 12, "rate": 0.5, "protocol": "cifar10"}),
    ],
)
def test_parse_argument(argument, values):
    """Keys come in any order, with the type of their default; missing ones keep the default; the last of two counts."""
    options = config_module.parse_argument(argument, bits=24, rate=0.5, protocol="cifar10")
    assert options == values
    assert [type(value) for value in options.values()] == [int, float, str]


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("bit=48", ["'bit=48' is unknown", "bits=...", "protocol=..."]),
        ("48", ["'48' is unknown", "bits=..."]),
        ("=48", ["'=48' is unknown"]),
        ("bits", ["'bits': expected int"]),
        ("bits=", ["'bits=': expected int"]),
        ("bits=many", ["'bits=many': expected int"]),
        ("bits=4.5", ["'bits=4.5': expected int"]),
        ("protocol=cifar10,Bits=4", ["'Bits=4' is unknown"]),
    ],
)
def test_parse_argument_refuses(argument, words):
    """An unknown key or a value of the wrong type is refused in one line, with the pair and what is expected."""
    with pytest.raises(InputError) as caught:
        config_module.parse_argument(argument, bits=24, protocol="cifar10")
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


def test_defaults_agree():
    """ADSQ has the same defaults in a config and in Python."""
    assert config_module.default().objective.to_dict() == methods.adsq.settings


@pytest.mark.parametrize(
    ("name", "form", "terms"),
    [
        ("cifar10_frozen", BY_CODES, 5),
        ("imagenet100_frozen", BY_NEIGHBOURS, 6),
        ("emoji_frozen", BY_NEIGHBOURS, 6),
        ("digits", SETTINGS, 5),
    ],
)
def test_the_form_of_adsqs_objective(name, form, terms):
    """A config has the form for ADSQ, with every weight, five or six of them in the loss; other methods have none."""
    (path,) = (path for path in FILES if path.stem == name)
    objective = load(path).objective
    assert (objective.separate, objective.head) == (form["separate"], form["head"])
    assert objective.weights.to_dict() == form["weights"]
    assert form["weights"].keys() == SETTINGS["weights"].keys()
    assert sum(weight > 0 for term, weight in form["weights"].items() if term != "label_codes") == terms
    assert "objective" not in load(path, "method=dseh")


def test_from_argument():
    """The argument sets bits and method, and the keys that a file allows it to set; unknown ones are refused."""
    config = config_module.from_argument("bits=12,method=dpsh,protocol=cifar10-1", protocol="cifar10")
    assert (config.bits, config.method, config.data.protocol, config.data.tfds_name) == (12, "dpsh", "cifar10-1", "")
    config = config_module.from_argument("name=mnist", several_labels=True, tfds_name="")
    assert (config.bits, config.data.protocol, config.data.tfds_name) == (24, "digits", "mnist")
    assert config.objective.weights.quantization == 0.5
    with pytest.raises(InputError, match=r"'protocol=x' is unknown; fix: give bits=\.\.\., method=\.\.\., name="):
        config_module.from_argument("protocol=x", tfds_name="")


OWN_METHOD = """
import sys
from functools import partial
from adsq_jax.methods import Method, dpsh

SETTINGS = {"eta": 0.1, "offset": -1.0, "kind": "a"}


def loss(inputs, *, eta, offset, kind):
    return dpsh.loss(inputs, eta=eta)


def method(**settings):
    return Method(loss=partial(loss, **settings))
"""


def test_a_method_of_ones_own(tmp_path, monkeypatch):
    """A config's argument imports a method by its dotted name; checking a config imports nothing."""
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "hashing.py").write_text(OWN_METHOD)
    (tmp_path / "own_package" / "other.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    config = load(next(path for path in FILES if path.stem == "digits"), "method=own_package.hashing")
    assert config.baseline.to_dict() == {"eta": 0.1, "offset": -1.0, "kind": "a"}
    assert config.eval.query_net == "ff"
    config_check.check(config)
    config.baseline.eta = math.nan
    error_of(config, "config.baseline", "eta")
    config.baseline.eta = 0.2
    config.eval.query_net = "sum"
    error_of(config, "config.eval.query_net='sum'", "own_package.hashing")
    for name in ("own_package.other", "os.path", "sys", ".x"):
        error_of(set_to("method", name), f"config.method='{name}'", "fix: ")
    monkeypatch.delitem(sys.modules, "own_package.hashing")
    config.eval.query_net = "ff"
    error_of(config, "config.method='own_package.hashing'", "--config=FILE.py:method=")
    assert "own_package.hashing" not in sys.modules


def test_the_wheel_has_everything():
    """setup.cfg lists every folder of the package; adsq_jax/configs is a link to configs/, and a package as the others.

    With a package elsewhere an editable install is a hook of imports, which hides the types from mypy and pyright.
    """
    root = Path(__file__).parents[1]
    settings = configparser.ConfigParser()
    settings.read(root / "setup.cfg")
    packages = {path.parent.relative_to(root).as_posix().replace("/", ".") for path in (root / "adsq_jax").rglob("*.py")}
    assert set(settings["options"]["packages"].split()) == packages | {"adsq_jax.configs"}
    assert settings["options"]["package_dir"].split() == ["=", "."]
    assert (root / "adsq_jax" / "configs").readlink() == Path("../configs")


def test_the_defaults_of_python_and_of_configs_are_the_same():
    """`fit` and `setup`, LabelNet's settings, the optimiser and ADSQ's recipe begin where a config begins."""
    config = config_module.default()
    assert dataclasses.asdict(LabelNetSettings()) == config.label_net.to_dict()
    assert methods.adsq.settings == config.objective.to_dict()
    taken = {name: parameter.default for name, parameter in inspect.signature(optimizer.build).parameters.items()}
    not_knobs = {"total_steps": inspect.Parameter.empty, "finished_steps": (), "extensions": ()}
    optim = {key: value for key, value in config.optim.to_dict().items() if not key.startswith("extension")}
    assert {**taken, "arguments": {}} == {**optim, **not_knobs}
    for function in (setup, fit):
        known = inspect.signature(function).parameters
        for name in ("rounds", "epochs_per_round"):
            assert known[name].default == config.train[name]
    known = inspect.signature(setup).parameters
    assert known["batch_size"].default == config.train.batch_size
    assert known["eval_batch_size"].default == config.eval.batch_size


def test_keys_that_came_later_leave_an_older_runs_hash_and_config_as_they_were(tmp_path):
    config = config_module.default()
    older = json.loads(config.to_json())
    for key in config_module.ADDED:
        section, name = key.split(".")
        del older[section][name]
    digest = hashlib.sha256(json.dumps(older, sort_keys=True).encode()).hexdigest()
    assert config_module.sha256(config) == config_module.sha256(ConfigDict(older)) == digest
    config.optim.extension_scale = 0.5
    assert config_module.sha256(config) != digest
    workdir.write_json(tmp_path / "config.json", older)
    added = config_module.added_defaults()
    assert workdir.check(tmp_path, json.loads(config_module.default().to_json()), added=added) == []
    with pytest.raises(InputError, match=r"optim\.extension_scale is 1\.0 there and 0\.5 here"):
        workdir.check(tmp_path, json.loads(config.to_json()), added=added)
    assert config_module.data_settings(ConfigDict(older)) == config_module.data_settings(config_module.default())
