"""Measure what one update of an ImgNet costs each device, and what it sends: `python -m benchmarks.speed.scaling [--out=DIR]`.

Weak scaling without a cluster: ResNet-50 at 224x224, 64 bits, 32 images a device, on 1 to 8 fake devices of this CPU. Nothing
is executed. The bytes sent are read from the compiled program, array by array. Operations are counted from the shapes of the
program's convolutions and products, lowered for a TPU, since on a CPU `models/layers.py` writes some convolutions as products.
Formulas that don't depend on the program give the same figures; the script fails if they disagree. For more devices than can
be faked there are only the formulas.

Bytes are those of the whole array that a collective takes or gives. In a ring each of D devices sends (D - 1) / D of it for an
all-gather and a reduce-scatter, and 2 (D - 1) / D for an all-reduce. Operations include zeros of padding, as the usual 4.09e9
of ResNet-50 do, but not the zeros between pixels in the gradient of a strided convolution.
"""

import argparse
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from adsq_jax import config as config_module
from adsq_jax import storage
from adsq_jax.data import datasets, sources, splits
from adsq_jax.data.labels import Labels
from adsq_jax.data.preprocessing import Preprocessing
from adsq_jax.devices import data_parallel, host
from adsq_jax.devices.data_parallel import ROWS
from adsq_jax.methods.objective import Guidance
from adsq_jax.run import environment
from adsq_jax.training import Targets, TrainSetup, init, loop
from adsq_jax.training.setup import TARGET_SPECS

ROOT = Path(__file__).parents[2]
TOLERANCE = 0.1  # relative difference of operations between formula and program
TERMS = 6  # numbers averaged with the gradients: five loss terms and the loss
COMPILED, FORMULA_ONLY = (1, 2, 4, 8), (64, 512, 4096)  # devices


class Layer(NamedTuple):
    """A number of convolutions of the same shape."""

    times: int
    size: int
    channels: int
    features: int
    shrunk: int  # side of the images / side of the output
    stride: int
    shortcut: bool = False  # on the shortcut of a block


# fmt: off
RESNET50 = (
    Layer(1, 7, 3, 64, 2, 2),
    Layer(1, 1, 64, 64, 4, 1), Layer(2, 1, 256, 64, 4, 1), Layer(3, 3, 64, 64, 4, 1), Layer(3, 1, 64, 256, 4, 1),
    Layer(1, 1, 64, 256, 4, 1, True),
    Layer(1, 1, 256, 128, 4, 1), Layer(3, 1, 512, 128, 8, 1), Layer(1, 3, 128, 128, 8, 2), Layer(3, 3, 128, 128, 8, 1),
    Layer(4, 1, 128, 512, 8, 1), Layer(1, 1, 256, 512, 8, 2, True),
    Layer(1, 1, 512, 256, 8, 1), Layer(5, 1, 1024, 256, 16, 1), Layer(1, 3, 256, 256, 16, 2), Layer(5, 3, 256, 256, 16, 1),
    Layer(6, 1, 256, 1024, 16, 1), Layer(1, 1, 512, 1024, 16, 2, True),
    Layer(1, 1, 1024, 512, 16, 1), Layer(2, 1, 2048, 512, 32, 1), Layer(1, 3, 512, 512, 32, 2), Layer(2, 3, 512, 512, 32, 1),
    Layer(3, 1, 512, 2048, 32, 1), Layer(1, 1, 1024, 2048, 32, 2, True),
)
SMALL_CNN = (  # 4 channels wide
    Layer(1, 5, 3, 4, 2, 2), Layer(1, 3, 4, 8, 4, 2), Layer(1, 3, 8, 16, 4, 1), Layer(1, 3, 16, 16, 4, 1),
    Layer(1, 1, 8, 16, 4, 1, True),
)
# fmt: on


@dataclass(frozen=True)
class Case:
    """The sizes of an update."""

    backbone: str
    layers: tuple[Layer, ...]  # the backbone's convolutions, each followed by BatchNorm
    width: int  # features that the backbone gives
    side: int  # pixels
    images: int  # n
    classes: int  # c; as many label sets
    batch: int = 32  # images a device
    bits: int = 64
    features: int = 512
    backbone_width: int = 0


CASES = {
    "10,000 images, 100 classes": Case("resnet50", RESNET50, 2048, 224, 10_000, 100),
    "ImageNet-1k": Case("resnet50", RESNET50, 2048, 224, 1_281_167, 1_000),
}
QUICK = {
    "100 images": Case("small_cnn", SMALL_CNN, 32, 16, 100, 5, batch=4, bits=12, features=16, backbone_width=4),
    "1,000 images": Case("small_cnn", SMALL_CNN, 32, 16, 1_000, 10, batch=4, bits=12, features=16, backbone_width=4),
}


def make_setup(case: Case, *, devices: int) -> TrainSetup:
    """Set up training for a case, with only the images of one batch: of the others only the shapes matter."""
    images = max(case.classes, case.batch * devices)
    pixels = np.broadcast_to(np.zeros((1, 1, 1, 1), np.uint8), (images, case.side, case.side, 3))
    labels = Labels.from_ids(np.arange(images) % case.classes, classes=case.classes)
    source = sources.ArraySource(pixels, labels, classes=[str(k) for k in range(case.classes)])
    everything = np.arange(images)
    split = splits.Split(query=everything[:0], train=everything, database=everything)
    config = config_module.default()
    config.bits, config.data.image_size, config.train.batch_size = case.bits, case.side, case.batch * devices
    config.model.backbone, config.model.width, config.model.features = case.backbone, case.backbone_width, case.features
    data = datasets.Dataset(
        source, split, protocol="digits", split_sha256="", map_at="all", preprocessing=Preprocessing(0, case.side)
    )
    some = data_parallel.DataParallel("shard_map", devices=jax.devices()[:devices])
    return loop.setup_from_config(config, data, devices=some)


def arguments(setup: TrainSetup, *, images: int) -> tuple[Any, Targets, dict[str, Any]]:
    """Return the shapes of an update's arguments, each with its sharding, for a training set of this many images."""
    mesh, rows = setup.devices._mesh, setup.devices._padded(images)
    net = jax.eval_shape(partial(init, setup)).img_nets["f"]
    sets, bits, batch = setup.sets.sets, setup.bits, setup.batch_size

    def shape(dtype: Any, *sides: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sides, dtype)

    def sharded(tree: Any, specs: Any) -> Any:
        def one(x: Any, spec: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))

        return data_parallel._map_with_specs(one, tree, specs)

    guidance = Guidance(
        features=shape(jnp.float32, len(sets), setup.img_net.features),
        codes=shape(jnp.float32, len(sets), bits),
        frequencies=shape(jnp.float32, len(sets)),
    )
    targets = Targets(
        bank=shape(jnp.float32, rows, bits) if setup.method.twin else None,
        codes=shape(jnp.int8, rows, bits),
        set_index=shape(jnp.int32, rows),
        row_weights=shape(jnp.float32, rows),
        sets=shape(jnp.uint8, *sets.shape),
        progress=shape(jnp.float32),
        guidance=guidance if setup.method.label_net else None,
    )
    inputs = shape(jnp.uint8, batch, *setup.input_shape[1:])
    return (
        sharded(replace(net, bank=shape(jnp.float32, rows, bits)), setup.specs.img_nets["f"]),
        sharded(targets, TARGET_SPECS),
        sharded({"inputs": inputs, "index": shape(jnp.int32, batch), "label_set": shape(jnp.int32, batch)}, ROWS),
    )


_KINDS = "all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all|collective-broadcast"
_COLLECTIVE = re.compile(
    rf"%?([\w.\-]+) = (\(.*?\)|\S+) (?:ragged-)?({_KINDS})(-start)?\("
)  # the type, lazily: it has no " KIND("
_ELEMENT = re.compile(r" get-tuple-element\(.*?%?([\w.\-]+)\), index=(\d+)")
_DONE = re.compile(rf"%?([\w.\-]+) = .*? (?:{_KINDS})-done\(.*?%?([\w.\-]+)\)")
_ARRAY = re.compile(r"\b(pred|bf16|[suf]\d+)\[([\d,]*)\]")
# The purpose of an array, by its collective, its dtype, and the operation in `img_net_gradients` that XLA names as its origin.
_PURPOSES = {
    "gradients and loss terms": ("all-reduce", "f32", r"shard_map/psum"),
    "BatchNorm, forward": ("all-reduce", "f32", r".*/jvp\(ImgNet\)/.*/psum"),
    "BatchNorm, backward": ("all-reduce", "f32", r".*/transpose\(jvp\(ImgNet\)\)/.*/psum"),
    "neighbours": ("all-reduce", "f32", r"shard_map/(jvp\(\)|transpose\(jvp\(\)\))/psum"),
    "codes": ("all-gather", "f32", r"shard_map/jvp\(\)/all_gather"),
    "gradient of the codes": ("reduce-scatter", "f32", r"shard_map/transpose\(jvp\(\)\)/reduce_scatter"),
    "indices": ("all-gather", "s32", r"shard_map/all_gather"),
    "label sets": ("all-gather", "s32", r"shard_map/jvp\(\)/all_gather"),
    "parameters": ("all-gather", "f32", r"shard_map"),  # with config.shard_parameters
}


class Sent(NamedTuple):
    """An array that a collective carries."""

    kind: str  # as HLO names it, without -start
    dtype: str
    shape: tuple[int, ...]  # of the output on a device
    bytes: int  # of the whole output, or for a reduce-scatter of the whole input
    origin: str  # the operation that XLA names

    @property
    def purpose(self) -> str:
        """One of the known purposes, or "unexplained"."""
        origin = self.origin.removeprefix("jit(run)/")
        for purpose, (kind, dtype, pattern) in _PURPOSES.items():
            if (self.kind, self.dtype) == (kind, dtype) and re.fullmatch(pattern, origin):
                return purpose
        return "unexplained"


def collectives(hlo: str) -> list[Sent]:
    """Return every array that a compiled program's collectives send to other devices, in the program's order.

    Args:
      hlo: `compiled.as_text()`.
    """
    started = {match[1]: match[2] for line in hlo.splitlines() if (match := _DONE.search(line))}
    origins: dict[tuple[str, int], str] = {}
    for line in hlo.splitlines():
        if match := _ELEMENT.search(line):
            origins[started.get(match[1], match[1]), int(match[2])] = _origin(line)
    return [sent for line in hlo.splitlines() for sent in _read_line(line, origins)]


def _origin(line: str) -> str:
    match = re.search(r'op_name="([^"]*)"', line)
    return match[1] if match else ""


def _read_line(line: str, origins: dict[tuple[str, int], str]) -> Iterator[Sent]:
    match = _COLLECTIVE.search(line)
    if not match:
        return
    name, given, kind, start = match.groups()
    arrays = _ARRAY.findall(given)
    if start and kind in ("all-gather", "collective-permute"):  # inputs, outputs, and maybe some counters
        arrays = [array for array in arrays if array != ("u32", "")]
        arrays = arrays[len(arrays) // 2 :]
    if kind != "collective-permute" and _group_size(line) == 1:
        return  # on a CPU XLA leaves it in the program of a single device; nothing is sent
    parts = _group_size(line) if kind == "reduce-scatter" else 1
    for number, (dtype, sides) in enumerate(arrays):
        shape = tuple(int(side) for side in sides.split(",") if side)
        width = 1 if dtype == "pred" else int(re.sub(r"\D", "", dtype)) // 8
        yield Sent(kind, dtype, shape, width * prod(shape) * parts, origins.get((name, number)) or _origin(line))


def _group_size(line: str) -> int:
    """Count the devices of a collective: replica_groups={{0,1},{2,3}}, [groups,devices]<=[...], or mesh['a'=2,'b'=4] {'b'}."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return listed[1].count(",") + 1
    if counted := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(counted[1])
    if mesh := re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", line):
        sides = dict(re.findall(r"('\w+')=(\d+)", mesh[1]))
        return prod(int(sides[axis]) for axis in mesh[2].split(","))
    raise ValueError(f"expected replica_groups of a known form, got {line.strip()}")


def by_purpose(sent: list[Sent]) -> dict[str, int]:
    """Add up the bytes of each purpose."""
    return _sum_bytes((array.purpose, array.bytes) for array in sent)


def by_kind(sent: list[Sent]) -> dict[str, int]:
    """Add up the bytes of each kind of collective."""
    return _sum_bytes((array.kind, array.bytes) for array in sent)


def _sum_bytes(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for name, size in pairs:
        total[name] += size
    return dict(total)


_TYPES = re.compile(r": \(tensor<([\dx]+)x\w+>, tensor<([\dx]+)x\w+>\) -> tensor<([\dx]+)x\w+>")


def count_operations(stablehlo: str) -> dict[str, float]:
    """Count a device's operations in all convolutions and in all matrix products, two for a product and its sum.

    Args:
      stablehlo: `lowered.as_text()`, for a platform where convolutions are not written as products.
    """
    functions: dict[str, dict[str, float]] = {}
    calls: dict[str, Counter[str]] = {}
    name = ""
    for line in stablehlo.splitlines():
        if match := re.search(r"func\.func .*?@([\w.]+)\(", line):
            name = match[1]
            functions[name], calls[name] = {"convolutions": 0.0, "products": 0.0}, Counter()
        elif match := re.search(r"\bcall @([\w.]+)\(", line):
            calls[name][match[1]] += 1
        elif "stablehlo.convolution" in line:
            functions[name]["convolutions"] += _convolution_operations(line)
        elif "stablehlo.dot_general" in line:
            functions[name]["products"] += _product_operations(line)

    def total(name: str) -> dict[str, float]:
        operations = dict(functions[name])
        for called, times in calls[name].items():
            for kind, value in total(called).items():
                operations[kind] += times * value
        return operations

    return total("main")


def _shapes(line: str) -> list[list[int]]:
    match = _TYPES.search(line)
    if not match:
        raise ValueError(f"no shapes in {line.strip()[:200]}")
    return [[int(side) for side in shape.split("x")] for shape in match.groups()]


def _convolution_operations(line: str) -> float:
    _, kernel, out = _shapes(line)
    dimensions = re.search(r"\]x\[([^\]]+)\]->", line)[1].split(", ")
    window = prod(side for side, dimension in zip(kernel, dimensions, strict=True) if dimension != "o")
    holes = prod(int(step) for step in re.search(r"lhs_dilate = \[([^\]]+)\]", line)[1].split(", "))
    return 2 * prod(out) * window / holes


def _product_operations(line: str) -> float:
    left, _, out = _shapes(line)
    summed = re.search(r"contracting_dims = \[([\d, ]+)\]", line)[1].split(", ")
    return 2 * prod(out) * prod(left[int(axis)] for axis in summed)


def multiplications(case: Case) -> int:
    """Return the multiplications of one image through the backbone."""
    return sum(x.times * x.size**2 * x.channels * x.features * (case.side // x.shrunk) ** 2 for x in case.layers)


def parameters(case: Case) -> int:
    """Return the parameters of the network."""
    backbone = sum(x.times * (x.size**2 * x.channels * x.features + 2 * x.features) for x in case.layers)
    return backbone + (case.width + 1) * case.features + (case.features + 1) * case.bits


def rows(case: Case, devices: int) -> int:
    """Return the rows of the training set on a device, with padding."""
    return -(-case.images // devices)


def operations(case: Case, devices: int) -> dict[str, float]:
    """Return a device's operations in an update: backbone and heads forward and for two gradients, pair terms for one gradient.

    The pair terms take the whole batch against the device's rows, likelihood and difference, each forward and backward.
    Guidance takes the device's part of the batch against the label sets. Similarity compares the labels of the batch, and
    of the part, with the label sets; or all of these with each other, if they are fewer.
    """
    stem = case.layers[0]
    images = stem.size**2 * stem.channels * stem.features * (case.side // stem.shrunk) ** 2  # images get no gradient
    heads = case.width * case.features + case.features * case.bits
    return {
        "backbone": 2.0 * case.batch * (3 * multiplications(case) - images),
        "heads": 2.0 * case.batch * 3 * heads,
        "pair terms": 2.0 * case.batch * devices * rows(case, devices) * 4 * case.bits,
        "guidance": 2.0 * case.batch * case.classes * 2 * case.features,
        "similarity": 2.0 * case.classes**2 * sum(min(case.classes, size) for size in (case.batch * devices, case.batch)),
    }


def bytes_sent(case: Case, devices: int) -> dict[str, int]:
    """Return the bytes sent by purpose, as `by_purpose` does; none of them depends on n.

    The norm of a shortcut is added to the last norm of its block: their biases have the same gradient, and XLA sends it once.
    """
    if devices == 1:
        return {}
    twice = sum(x.features for x in case.layers if x.shortcut)
    batch, channels = case.batch * devices, sum(x.times * x.features for x in case.layers)
    return {
        "gradients and loss terms": 4 * (parameters(case) - twice + TERMS),
        "BatchNorm, forward": 4 * 2 * channels,  # means and mean squares
        "BatchNorm, backward": 4 * 2 * channels,
        "codes": 4 * batch * case.bits,
        "gradient of the codes": 4 * batch * case.bits,
        "indices": 4 * batch,
        "label sets": 4 * batch,
    }


def ring(sizes: dict[str, int], devices: int) -> dict[str, float]:
    """Return the bytes that a device sends, and receives, with rings."""
    once = (devices - 1) / devices
    return {name: size * once * (2 if _PURPOSES[name][0] == "all-reduce" else 1) for name, size in sizes.items()}


def bank_bytes(case: Case, devices: int) -> int:
    """Return the bytes on a device that grow with the training set: two banks, codes, each row's label set and weight."""
    return rows(case, devices) * (2 * 4 * case.bits + case.bits + 4 + 4)


def by_formula(case: Case, devices: int) -> dict[str, Any]:
    """Compute a row of the table by the formulas."""
    sent = ring(bytes_sent(case, devices), devices)
    codes = sum(size for name, size in sent.items() if "codes" in name)
    return {
        "devices": devices,
        "batch": case.batch * devices,
        "operations": operations(case, devices),
        "bytes": bytes_sent(case, devices),
        "bytes_sent_by_ring": sent,
        "share_of_codes": codes / sum(sent.values()) if sent else 0.0,
        "ring_all_reduce": 2 * (devices - 1) / devices,
        "bank_bytes": bank_bytes(case, devices),
    }


def from_program(case: Case, devices: int, *, compiled: bool) -> dict[str, Any]:
    """Read a row of the table from the program.

    Args:
      case: the sizes.
      devices: of this process.
      compiled: compile too, to read what is sent; otherwise lower only.
    """
    setup = make_setup(case, devices=devices)
    shapes = arguments(setup, images=case.images)
    traced = setup.donating_img_net_step.trace(*shapes)
    net, targets, _ = shapes
    by_rows = (net.bank, targets.bank, targets.codes, targets.set_index, targets.row_weights)
    row: dict[str, Any] = {
        "operations": count_operations(traced.lower(lowering_platforms=("tpu",)).as_text()),
        "parameters": sum(x.size for x in jax.tree.leaves(net.params)),
        "bank_bytes": sum(prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in by_rows),
    }
    if compiled:
        program = traced.lower().compile()
        sent = collectives(program.as_text())
        row |= {"bytes": by_purpose(sent), "bytes_by_kind": by_kind(sent), "arrays": len(sent)}
        row["operations_by_xla"] = program.cost_analysis()["flops"]  # on a CPU; all instructions, without zeros of padding
    return row


def disagreements(formula: dict[str, Any], program: dict[str, Any], *, case: Case) -> list[str]:
    """List where formula and program disagree: bytes and sizes at all, operations by more than TOLERANCE."""
    wrong = []
    expected = {"convolutions": formula["operations"]["backbone"]}
    expected["products"] = sum(formula["operations"].values()) - expected["convolutions"]
    for kind, value in expected.items():
        if abs(program["operations"][kind] / value - 1) > TOLERANCE:
            wrong.append(f"operations of {kind}: expected {value:.4e} by the formula, got {program['operations'][kind]:.4e}")
    exact = {"parameters": parameters(case), "bank_bytes": formula["bank_bytes"]}
    if "bytes" in program:
        exact["bytes"] = formula["bytes"]
    return wrong + [
        f"{name}: expected {value} by the formula, got {program[name]}"
        for name, value in exact.items()
        if program[name] != value
    ]


def compare(cases: dict[str, Case], *, compiled: tuple[int, ...], formula_only: tuple[int, ...]) -> list[dict[str, Any]]:
    """Compute the rows of all cases, and compare formula and program where there is a program.

    The first case is compiled for each number of devices, the others for the largest only, since what is sent must not depend
    on them.

    Raises:
      SystemExit: formula and program disagree.
    """
    table = []
    for number, (name, case) in enumerate(cases.items()):
        for devices in (*compiled, *formula_only):
            if case.batch * devices > case.images:
                continue  # a batch has no image twice
            row = {"case": name, **by_formula(case, devices)}
            if devices in compiled:
                row["program"] = from_program(case, devices, compiled=number == 0 or devices == max(compiled))
                wrong = disagreements(row, row["program"], case=case)
                if wrong:
                    raise SystemExit(f"{name}, {devices} devices: " + "; ".join(wrong))
            table.append(row)
    return table


def main() -> None:
    """Compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=storage.path, default=ROOT / "benchmarks" / "results" / "scaling", help="folder for scaling.json"
    )
    parser.add_argument("--quick", action="store_true", help="toy sizes, to check that it runs")
    options = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", max(COMPILED))
    cases = QUICK if options.quick else CASES
    about = {**environment.environment(), "machine": f"{os.uname().machine}, {host.cores()} cores"}
    case = next(iter(cases.values()))
    about["network"] = {
        "backbone": case.backbone,
        "side": case.side,
        "bits": case.bits,
        "batch_a_device": case.batch,
        "parameters": parameters(case),
        "multiplications_an_image": multiplications(case),
    }
    content = {**about, "rows": compare(cases, compiled=COMPILED, formula_only=() if options.quick else FORMULA_ONLY)}
    print(json.dumps(content, indent=2))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "scaling.json").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
