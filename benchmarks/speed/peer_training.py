"""Train by the code of DeepHash-pytorch, as a user has cloned it, on this project's network, split, batches and augmentation.

    pip install torch

`time_to_map.py` calls it. The user's clone is imported when it is needed, and nothing of it is here: its `METHOD.py` gives the
loss, the settings and the loop over epochs (`get_config`, `train_val`), which run as they are. In the loop's place of data,
network and measurement stand those of this file. torchvision isn't needed: the peer uses it for its own data sets and
pretrained networks alone, which don't take part, so an empty stand-in is imported in its name.
"""

import contextlib
import importlib
import importlib.machinery
import io
import random
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from adsq_jax import models
from adsq_jax.data import pipeline
from adsq_jax.data.datasets import Dataset, part_labels
from adsq_jax.data.pipeline import ReadOptions
from adsq_jax.devices import host
from adsq_jax.errors import InputError
from adsq_jax.models.backbones.small_cnn import SmallCNN

STAND_INS = ("torchvision", "torchvision.models", "torchvision.transforms", "torchvision.datasets")
EPOCHS = 100_000  # the caller decides when training ends
ENCODED_AT_ONCE = 512


class Enough(Exception):
    """Training has gone on for long enough: `score` raises it, to end the peer's loop."""


class Peer(NamedTuple):
    """Which method of the peer to train, and how."""

    folder: Path  # the clone
    method: str  # the name of a file in it, without .py
    rate: float  # a factor on the learning rate of its settings


def load(peer: Peer) -> types.ModuleType:
    """Import a method of the peer.

    Raises:
      InputError: there is no such method in the folder, it can't be imported, or a package is missing.
    """
    file = peer.folder / f"{peer.method}.py"
    if not file.is_file():
        raise InputError(f"--peer: expected {file} of DeepHash-pytorch, got no such file; fix: give its clone's folder")
    for name in STAND_INS:
        stand_in = sys.modules[name] = types.ModuleType(name)
        stand_in.__spec__ = importlib.machinery.ModuleSpec(name, None)  # others may look for it
        stand_in.__getattr__ = _nothing  # type: ignore[method-assign]
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, stand_in)
    sys.path.insert(0, str(peer.folder.absolute()))
    try:
        module = importlib.import_module(peer.method)
    except ModuleNotFoundError as error:
        raise InputError(f"{file} needs the package {error.name}; fix: pip install {error.name}") from error
    except Exception as error:  # a Python file may raise anything
        raise InputError(f"{file} can't be imported: {type(error).__name__}: {error}; fix: give a clone that runs") from error
    missing = [name for name in ("get_config", "train_val", "get_data", "validate") if not hasattr(module, name)]
    if missing:
        raise InputError(f"{file}: expected a method with {', '.join(missing)}, got none; fix: choose another --peer-methods")
    return module


def _nothing(attribute: str) -> Any:
    """Be what a stand-in has under any name, but for those that Python itself looks for."""
    if attribute.startswith("__"):
        raise AttributeError(attribute)
    return object


def torch_network(network: models.Network) -> Any:
    """Build an ImgNet of the backbone small_cnn in torch: the same layers, torch's own initial weights, and a linear head.

    The layers are numbered as Flax numbers them. The outputs are the hash layer's: the peer's losses apply their own tanh.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    ours: Any = network.img_net
    if not isinstance(ours.backbone, SmallCNN) or not ours.features:
        raise InputError("--peer: expected a config with model.backbone=small_cnn and features; fix: leave --peer out")
    width = ours.backbone.width

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            sizes = [(3, width, 5, 2), (width, 2 * width, 3, 2), (2 * width, 4 * width, 3, 1), (4 * width, 4 * width, 3, 1)]
            sizes.append((2 * width, 4 * width, 1, 1))
            self.convs = nn.ModuleList(nn.Conv2d(cin, out, size, stride, bias=False) for cin, out, size, stride in sizes)
            self.norms = nn.ModuleList(nn.BatchNorm2d(size[1]) for size in sizes)  # momentum and epsilon as ours
            self.semantic = nn.Linear(8 * width, ours.features)
            self.hash = nn.Linear(ours.features, ours.bits)
            self.register_buffer("mean", torch.tensor(ours.mean)[:, None, None])
            self.register_buffer("deviation", torch.tensor(ours.deviation)[:, None, None])

        def layer(self, number: int, x: torch.Tensor) -> torch.Tensor:
            conv = self.convs[number]
            (size, _), (stride, _) = conv.kernel_size, conv.stride
            padding: list[int] = []
            for side in (x.shape[3], x.shape[2]):  # the zeros that Flax's "SAME" adds
                total = max(0, (-(-side // stride) - 1) * stride + size - side)
                padding += [total // 2, total - total // 2]
            return self.norms[number](conv(functional.pad(x, padding)))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            x = (images / 255 - self.mean) / self.deviation
            x = torch.relu(self.layer(0, x))
            x = torch.relu(self.layer(1, x))
            y = self.layer(3, torch.relu(self.layer(2, x)))
            x = torch.relu(y + self.layer(4, x))
            x = torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)
            return self.hash(torch.relu(self.semantic(x)))

    return Net().to(memory_format=torch.channels_last)  # a fifth faster on a CPU than torch's default


def images_to_torch(inputs: np.ndarray) -> Any:
    """Turn uint8[batch, h, w, 3] into float32[batch, 3, h, w], which stays in the order of `inputs` in memory."""
    import torch

    return torch.from_numpy(inputs).permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.channels_last)


class Batches:
    """The training set as the peer's loop wants its loader: each pass yields images, multi-hot labels, and rows."""

    def __init__(self, data: Dataset, *, batch_size: int, seed: int) -> None:
        self._labels, self._count = part_labels(data, "train"), len(data.split.train) // batch_size
        self._batches = pipeline.train_batches(
            data.source,
            data.split.train,
            preprocessing=data.preprocessing,
            batch_size=batch_size,
            seed=seed,
            start=0,
            read_options=_read_options(),
        )

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[Any, Any, Any]]:
        import torch

        for _ in range(self._count):
            batch = next(self._batches)
            index = batch["index"].astype(np.int64)
            yield images_to_torch(batch["inputs"]), torch.from_numpy(self._labels[index]), torch.from_numpy(index)


def encode(net: Any, data: Dataset, rows: np.ndarray) -> np.ndarray:
    """Compute a torch network's outputs for rows of the source, float32[n, bits], from their centre crops."""
    import torch

    outputs = []
    options = {"preprocessing": data.preprocessing, "batch_size": ENCODED_AT_ONCE, "read_options": _read_options()}
    net.eval()
    with torch.inference_mode():
        for batch in pipeline.in_order(data.source, rows, **options):
            outputs.append(net(images_to_torch(batch["inputs"])).numpy())
    return np.concatenate(outputs)[: len(rows)]


def _read_options() -> ReadOptions:
    return ReadOptions(threads=host.reading_threads(0))


def train(
    peer: Peer,
    data: Dataset,
    network: models.Network,
    *,
    seed: int,
    score: Callable[[int, Callable[[np.ndarray], np.ndarray]], None],
) -> None:
    """Train a method of the peer by its own loop, until `score` raises Enough.

    Args:
      peer: which method.
      data: what to train on.
      network: the network to rebuild in torch; its bits are the code length.
      seed: for weights, order and augmentation.
      score: called after each pass with the number of passes, and a function from rows of the source to outputs.

    Raises:
      InputError: as `load`, or the network isn't small_cnn.
      Exception: whatever the peer's code raises.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise InputError("--peer needs torch; fix: pip install torch") from error
    module = load(peer)
    for begin in (random.seed, np.random.seed, torch.manual_seed):  # the peer draws by each
        begin(seed)
    torch.set_num_threads(host.cores())
    config = module.get_config()
    config["optimizer"]["optim_params"]["lr"] *= peer.rate
    config |= {"dataset": "fashion_mnist", "n_class": data.source.labels.classes, "device": torch.device("cpu")}
    config |= {"net": lambda bits: torch_network(network), "epoch": EPOCHS, "test_map": 1}
    config.pop("pr_curve_path", None)
    config.pop("save_path", None)
    split = data.split
    loader = Batches(data, batch_size=config["batch_size"], seed=seed)

    def validate(config: Any, best: float, queries: Any, database: Any, net: Any, bits: int, epoch: int, *rest: Any) -> float:
        score(epoch + 1, lambda rows: encode(net, data, rows))
        return best

    replaced = {
        "get_data": lambda config: (loader, None, None, len(split.train), len(split.query), len(split.database)),
        "validate": validate,
    }
    vars(module).update(replaced, config=config, bit=network.img_net.bits)  # some methods read what their script sets
    with contextlib.suppress(Enough), contextlib.redirect_stdout(io.StringIO()):
        module.train_val(config, network.img_net.bits)
