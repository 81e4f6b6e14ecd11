"""Measure the backbones' speed on a CPU beside torch: `python -m benchmarks.speed.backbones [--layers] [--out=DIR]`.

    pip install -e . torch efficientnet_lite_pytorch          (torch's build for CPUs)

One training step of twin ResNet-18s, an update of f and one of g, and encoding with EfficientNet-Lite0; both from uint8 images
in memory. torch does the same work on the same cores, with NCHW and with channels_last; the better of the two counts. Each
side runs in its own process, and the processes take turns. With --layers, each convolution alone: ours beside XLA's.

On a machine with other work, seconds can't be compared: torch's threads wait for each other at every layer, and spin. There,
give each side the same one core by `taskset -c 0 python -m benchmarks.speed.backbones`, and compare the CPU's seconds.
The sides have separate processes because threads of one library may still be spinning while the other is timed.

Tried on one core, ResNet-18's forward and gradients, 16 images of 64x64, milliseconds of CPU, lowest of ten or twenty turns.
Maxima over rows, then columns, 188, against all nine places of a pooling window at once, 209: kept. Slower or no faster:
a product for each place of the kernel, without the padding, for images of a few pixels, 195 against 189 of one product of
patches, although each layer alone gained a fifth; the same up to 8x8 pixels, 211; lax.optimization_barrier around the pooling,
no change. BatchNorm with running averages in place of the batch's: no change, so its statistics cost nothing to save.

`profile_step.py` says why torch's step takes .8 to .9 of the time. On one core (2026-11-30) ours took 14 % longer, and no one
kernel makes that: in parts of torch's step, the convolutions' own products 4 % (forward 3, gradients 1: XLA's kernels), the
patches that late layers' products need 5, norms 3, max pooling 3, clipping and optimiser 2, ReLU 1; less 5 that torch spends on
copies and around its kernels.
"""

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from adsq_jax import config as config_module
from adsq_jax import storage
from adsq_jax.data import datasets, sources, splits
from adsq_jax.data.labels import Labels
from adsq_jax.data.preprocessing import Preprocessing
from adsq_jax.devices import data_parallel, host
from adsq_jax.models import backbones, layers
from adsq_jax.run import environment
from adsq_jax.training import TrainSetup, init, loop, rounds
from adsq_jax.training.guidance import guidance
from adsq_jax.training.setup import TARGET_SPECS

ROOT = Path(__file__).parents[2]
SEED, TURNS, CLASSES = 0, 9, 10
SIDES = ("adsq_jax", "torch", "torch, channels_last")
DEFAULTS = config_module.default()


@dataclass(frozen=True)
class Case:
    """The sizes of what is timed."""

    backbone: str
    side: int  # pixels
    batch: int
    calls: int  # a turn
    train: bool  # a step of both networks; else encoding
    images: int = 1_000  # in the training set, and so in the bank
    bits: int = 24
    width: int = 0  # of the backbone; 0: as published
    dtype: str = "float32"  # of the backbone's computations


CASES = {
    "training step, twin ResNet-18, 64x64": Case("resnet18", 64, 32, 6, True),
    "encoding, EfficientNet-Lite0, 224x224": Case("efficientnet_lite0", 224, 32, 6, False, images=64),
}
QUICK = {
    "training step": Case("resnet18", 16, 8, 1, True, images=40, bits=8, width=4),
    "encoding": Case("efficientnet_lite0", 32, 4, 1, False, images=40, bits=8),
}


def make_setup(case: Case) -> TrainSetup:
    """Set up training on random images, on the devices that `adsq_jax.main` takes."""
    random = np.random.default_rng(SEED)
    pixels = random.integers(0, 256, (case.images, case.side, case.side, 3), dtype=np.uint8)
    labels = Labels.from_ids(np.arange(case.images) % CLASSES, classes=CLASSES)
    source = sources.ArraySource(pixels, labels, classes=[str(k) for k in range(CLASSES)])
    everything = np.arange(case.images)
    split = splits.Split(query=everything[:0], train=everything, database=everything)
    config = config_module.default()
    config.bits, config.seed = case.bits, SEED
    config.data.image_size = case.side
    config.model.backbone, config.model.width, config.model.dtype = case.backbone, case.width, case.dtype
    config.train.batch_size = config.eval.batch_size = case.batch
    data = datasets.Dataset(
        source, split, protocol="digits", split_sha256="", map_at="all", preprocessing=Preprocessing(0, case.side)
    )
    devices = data_parallel.DataParallel(config.parallel, devices=data_parallel.devices_for_batch(case.batch))
    return loop.setup_from_config(config, data, devices=devices)


class Ours:
    """This package's side."""

    def __init__(self, case: Case):
        """Set up training, with LabelNet's codes as the bank and the hash codes."""
        self.setup, self.case = make_setup(case), case
        self.state, self.metrics = init(self.setup), {}
        self.pixels = np.stack([self.setup.data.source.image(row, shorter_side=0) for row in range(case.images)])
        bank = np.asarray(guidance(self.setup, self.state).codes)[self.setup.sets.set_index]
        codes = np.where(bank < 0, -1, 1).astype(np.int8)
        devices, specs = self.setup.devices, self.setup.specs.img_nets
        self.targets = replace(rounds.targets(self.setup, self.state, net="f"), bank=bank, codes=codes)
        self.placed_targets = devices.to_devices(self.targets, TARGET_SPECS)
        self.nets = {name: devices.to_devices(net, specs[name]) for name, net in self.state.img_nets.items()}
        self.variables = devices.local.replicate(self.state.img_nets["f"].variables)
        self.apply = jax.jit(lambda variables, images: self.setup.img_net.apply(variables, images, train=False)[1])

    def batch(self, call: int) -> dict[str, np.ndarray]:
        """Return a batch, as the input pipeline gives it."""
        index = (np.arange(self.case.batch) + call * self.case.batch) % self.case.images
        return {"inputs": self.pixels[index], "index": index.astype(np.int32)}

    def step(self, call: int) -> None:
        """Update each network once, against the same targets."""
        for name, net in self.nets.items():
            batch = rounds.split_batch(self.setup, self.batch(call))
            self.nets[name], self.metrics[name] = self.setup.donating_img_net_step(net, self.placed_targets, batch)

    def encode(self, call: int) -> np.ndarray:
        """Compute relaxed codes of a batch."""
        images = self.setup.devices.local.shard(self.batch(call)["inputs"])
        return np.asarray(self.apply(self.variables, images))

    def run(self, calls: int) -> None:
        """Make a number of calls, and wait for them."""
        for call in range(calls):
            self.step(call) if self.case.train else self.encode(call)
        jax.block_until_ready(self.nets)


def torch_resnet18(width: int):
    """Build torchvision's ResNet-18 without its classifier; its layers have this package's names."""
    from torch import nn

    def conv(cin: int, out: int, size: int, stride: int):
        return nn.Conv2d(cin, out, size, stride, size // 2, bias=False)

    class Block(nn.Module):
        def __init__(self, cin: int, out: int, stride: int):
            super().__init__()
            self.conv1, self.norm1 = conv(cin, out, 3, stride), nn.BatchNorm2d(out)
            self.conv2, self.norm2 = conv(out, out, 3, 1), nn.BatchNorm2d(out)
            self.relu, self.changes = nn.ReLU(inplace=True), stride != 1 or cin != out
            if self.changes:
                self.shortcut, self.shortcut_norm = conv(cin, out, 1, stride), nn.BatchNorm2d(out)

        def forward(self, x):
            y = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
            return self.relu(y + (self.shortcut_norm(self.shortcut(x)) if self.changes else x))

    parts = {"stem": conv(3, width, 7, 2), "stem_norm": nn.BatchNorm2d(width), "relu": nn.ReLU(inplace=True)}
    parts["pool"] = nn.MaxPool2d(3, 2, 1)
    cin = width
    for stage in range(4):
        for block in range(2):
            out = width * 2**stage
            parts[f"stage{stage + 1}_block{block}"] = Block(cin, out, 2 if stage and not block else 1)
            cin = out
    net = nn.Sequential()
    for name, part in parts.items():
        net.add_module(name, part)
    return net


def torch_lite0():
    """Build EfficientNet-Lite0 of the package efficientnet_lite_pytorch, up to the mean over the image."""
    from efficientnet_lite_pytorch import EfficientNet
    from torch import nn

    class Features(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = EfficientNet.from_name("efficientnet-lite0")

        def forward(self, x):
            return self.net.extract_features(x)

    return Features()


class Torch:
    """torch's side, with the same heads, loss terms, optimiser and targets."""

    def __init__(self, case: Case, *, channels_last: bool):
        import torch
        from torch import nn

        torch.manual_seed(SEED)
        torch.set_num_threads(host.cores())
        self.ours, self.case = Ours(case), case
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        setup = self.ours.setup
        width = 1280 if case.backbone == "efficientnet_lite0" else 8 * (case.width or 64)
        self.nets, self.optimizers, self.terms = {}, {}, {}
        for name in self.ours.nets:
            trunk = torch_resnet18(case.width or 64) if case.train else torch_lite0()
            net = nn.ModuleDict({"backbone": trunk, "semantic": nn.Linear(width, setup.img_net.features)})
            net["hash"] = nn.Linear(setup.img_net.features, case.bits)
            self.nets[name] = net.to(memory_format=self.format).train(case.train)
            decayed = [[p for p in net.parameters() if (p.ndim > 1) == large] for large in (True, False)]
            groups = [
                {"params": decayed[0], "weight_decay": DEFAULTS.optim.weight_decay},
                {"params": decayed[1], "weight_decay": 0},
            ]
            self.optimizers[name] = torch.optim.AdamW(groups, lr=DEFAULTS.optim.learning_rate, fused=True)
        targets, sets = self.ours.targets, setup.sets
        self.labels, self.sets, self.codes, self.bank, *self.guidance = (
            torch.tensor(np.array(x), dtype=torch.float32)
            for x in (sets.sets[sets.set_index], sets.sets, targets.codes, targets.bank, *targets.guidance)
        )

    def forward(self, name: str, images: np.ndarray):
        """Return semantic features and relaxed codes."""
        import torch

        net = self.nets[name]
        x = torch.from_numpy(images).permute(0, 3, 1, 2).to(torch.float32).contiguous(memory_format=self.format)
        features = net["backbone"]((x / 255 - 0.5) / 0.5).mean((2, 3))
        semantic = net["semantic"](features)
        return semantic, torch.tanh(net["hash"](torch.relu(semantic)))

    def loss_terms(self, semantic, relaxed, index: np.ndarray) -> dict:
        """Compute the terms of `adsq.loss`."""
        import torch
        from torch.nn import functional

        statistics, settings = self.ours.setup.statistics, DEFAULTS.objective
        index, bits = torch.from_numpy(index).long(), self.case.bits
        labels = self.labels[index]

        def likelihood(logits, similar):
            weights = torch.where(similar, statistics.similar_weight, statistics.dissimilar_weight)
            return weights * (functional.softplus(logits) - torch.where(similar, logits, 0.0))

        similar = labels @ self.labels.T > 0
        products = relaxed @ self.codes.T / bits
        features, _, frequencies = self.guidance
        cosines = settings["cosine_scale"] * functional.normalize(semantic) @ functional.normalize(features).T
        guided = likelihood(cosines, labels @ self.sets.T > 0) * frequencies
        terms = {
            "likelihood": likelihood(settings["likelihood_scale"] / bits * relaxed @ self.bank.T, similar).mean(),
            "difference": ((products - torch.where(similar, 1.0, -statistics.ratio)) ** 2).mean(),
            "quantization": ((relaxed - self.codes[index]) ** 2).mean(),
            "balance": (relaxed.mean(0) ** 2).mean(),
            "guidance": guided.sum() / len(labels),
        }
        return {name: settings["weights"][name] * term for name, term in terms.items()}

    def step(self, call: int) -> None:
        """Update each network once."""
        import torch

        for name, net in self.nets.items():
            batch = self.ours.batch(call)
            terms = self.loss_terms(*self.forward(name, batch["inputs"]), batch["index"])
            loss = sum(terms.values())
            self.optimizers[name].zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(net.parameters(), DEFAULTS.optim.clip_norm)
            self.optimizers[name].step()
            self.terms[name] = {**terms, "loss": loss, "grad_norm": norm}

    def encode(self, call: int) -> np.ndarray:
        """Compute relaxed codes of a batch."""
        import torch

        with torch.inference_mode():
            return self.forward("f", self.ours.batch(call)["inputs"])[1].numpy()

    def run(self, calls: int) -> None:
        """Make a number of calls."""
        for call in range(calls):
            self.step(call) if self.case.train else self.encode(call)


def serve(case: Case, side: str) -> None:
    """Run a side's process: for each line on standard input take a turn and print its seconds and its CPU's seconds."""
    host.split_into_devices(batch_size=case.batch, host_devices=0)
    made = Ours(case) if side == SIDES[0] else Torch(case, channels_last=side == SIDES[2])
    made.run(3)  # compiles; torch chooses its kernels
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter(), time.process_time()
        made.run(case.calls)
        ended = time.perf_counter(), time.process_time()
        print(*((stop - start) / case.calls for start, stop in zip(began, ended, strict=True)), flush=True)


def compare(name: str, *, quick: bool, turns: int) -> dict:
    """Time all sides on one case, in turns."""
    case = (QUICK if quick else CASES)[name]
    command = [sys.executable, __file__, f"--case={name}", *(["--quick"] if quick else [])]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    served = {side: subprocess.Popen([*command, f"--side={side}"], **pipes) for side in SIDES}
    try:
        for side, process in served.items():
            if process.stdout.readline() != "ready\n":
                raise SystemExit(f"{side}: its process ended; its output is above")
        wall, cpu = ({side: [] for side in SIDES} for _ in range(2))
        for _ in range(turns):
            for side, process in served.items():
                process.stdin.write("turn\n")
                process.stdin.flush()
                wall_seconds, cpu_seconds = map(float, process.stdout.readline().split())
                wall[side].append(wall_seconds)
                cpu[side].append(cpu_seconds)
    finally:
        for process in served.values():
            process.stdin.close()
            process.wait()
            process.stdout.close()
    best, best_cpu = (min(SIDES[1:], key=lambda side: median(seconds[side])) for seconds in (wall, cpu))
    images = case.batch * (2 if case.train else 1)
    return {
        "case": name,
        "batch": case.batch,
        "seconds": {side: median(turns) for side, turns in wall.items()},
        "images_per_second": {side: images / median(turns) for side, turns in wall.items()},
        "best_of_torch": best,
        "adsq_jax_times_as_fast": median(b / a for a, b in zip(wall[SIDES[0]], wall[best], strict=True)),
        "cpu_seconds": {side: median(turns) for side, turns in cpu.items()},
        "adsq_jax_times_as_fast_by_cpu_seconds": median(b / a for a, b in zip(cpu[SIDES[0]], cpu[best_cpu], strict=True)),
        "turns": wall,
        "cpu_turns": cpu,
    }


def convolutions(case: Case) -> list[dict]:
    """List the distinct convolutions of a case's backbone in order; of EfficientNet those with a kernel for each channel."""
    by_name: dict[str, dict] = {}

    def note(following: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext):
        conv = context.module
        if isinstance(conv, layers.Conv) and conv.depthwise is not case.train:
            sides, size = args[0].shape[1:3], conv.size
            padding = layers._padding(conv.padding, sides, size=size, stride=conv.stride)
            name = f"{size}x{size}/{conv.stride}, {' x '.join(map(str, args[0].shape[1:]))} -> {conv.features}"
            kernel = (size, size, 1 if conv.depthwise else args[0].shape[3], conv.features)
            row = {"name": name, "x": args[0].shape, "kernel": kernel, "stride": conv.stride, "padding": padding, "times": 0}
            by_name.setdefault(name, row)["times"] += 1
        return following(*args, **kwargs)

    net = backbones.build(case.backbone, width=case.width, layers=layers.Layers())
    images = jax.ShapeDtypeStruct((case.batch, case.side, case.side, 3), jnp.float32)
    with nn.intercept_methods(note):
        jax.eval_shape(lambda x: net.init(jax.random.key(0), x, train=False), images)
    return list(by_name.values())


def layer_times(row: dict, devices: data_parallel.DataParallel, *, turns: int) -> dict:
    """Measure milliseconds of one convolution, ours and XLA's in turns: forward, and forward with both gradients."""
    random = np.random.default_rng(SEED)
    x, kernel = (random.normal(size=row[part]).astype(np.float32) for part in ("x", "kernel"))
    options = {"stride": row["stride"], "padding": row["padding"]}
    x, kernel = devices.local.shard(x), devices.local.replicate(kernel / np.sqrt(kernel[..., 0].size))
    ways: dict[str, Callable] = {}
    for way, function in (("adsq_jax", layers.convolve), ("xla", layers._convolve_by_xla)):
        forward = partial(function, **options)

        def both(x, kernel, forward=forward):
            if x.shape[3] == 3:  # images get no gradient
                y, pull = jax.vjp(partial(forward, x), kernel)
            else:
                y, pull = jax.vjp(forward, x, kernel)
            return pull(y)

        ways[f"{way} forward"], ways[f"{way} with gradients"] = jax.jit(forward), jax.jit(both)
    milliseconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(turns + 1):
        for way, function in ways.items():
            began = time.perf_counter()
            jax.block_until_ready(function(x, kernel))
            if turn:  # the first one compiles
                milliseconds[way].append(1e3 * (time.perf_counter() - began))
    return {
        "layer": row["name"],
        "times": row["times"],
        **{way: median(several) for way, several in milliseconds.items()},
        **{f"{way}, least": min(several) for way, several in milliseconds.items()},
    }


def main() -> None:
    """Measure, print and write; or run a side's process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out",
        type=storage.path,
        default=ROOT / "benchmarks" / "results" / "backbones",
        help="folder for speed.json and layers.json",
    )
    parser.add_argument("--layers", action="store_true", help="each convolution alone, beside XLA's")
    parser.add_argument("--turns", type=int, default=TURNS, help="turns of each side")
    parser.add_argument("--quick", action="store_true", help="toy sizes, to check that it runs")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    cases = QUICK if arguments.quick else CASES
    if arguments.side:
        serve(cases[arguments.case], arguments.side)
        return
    about = {**environment.environment(), "machine": f"{os.uname().machine}, {host.cores()} cores", "seed": SEED}
    if arguments.layers:
        rows, path = all_layers(cases, turns=arguments.turns), arguments.out / "layers.json"
    else:
        for package in ("torch", "efficientnet_lite_pytorch"):
            about["versions"][package] = importlib.metadata.version(package)
        rows = [compare(name, quick=arguments.quick, turns=arguments.turns) for name in cases]
        path = arguments.out / "speed.json"
    content = {**about, "cases": rows}
    print(json.dumps(content, indent=2))
    arguments.out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def all_layers(cases: dict[str, Case], *, turns: int) -> list[dict]:
    """Run `layer_times` on every convolution of the cases' backbones."""
    rows = []
    for name, case in cases.items():
        if not rows:  # before JAX starts
            host.split_into_devices(batch_size=case.batch, host_devices=0)
        devices = data_parallel.DataParallel("shard_map", devices=data_parallel.devices_for_batch(case.batch))
        layers_of_case = [layer_times(row, devices, turns=turns) for row in convolutions(case)]
        rows.append({"case": name, "backbone": case.backbone, "batch": case.batch, "layers": layers_of_case})
    return rows


if __name__ == "__main__":
    main()
