"""What one update of an ImgNet costs each device, and what it sends: `python -m benchmarks.speed.scaling [--out=DIR]`.

Weak scaling without a cluster: ResNet-50 at 224x224, 64 bits, 32 images a device, on 1 to 8 fake devices of this CPU. Nothing
is executed. What travels is read from the compiled program, array by array; operations are counted by the shapes of the
program's convolutions and products as lowered for a TPU, since for a CPU `models/layers.py` writes some as products.
Beside both stand formulas that know nothing of the program; they must agree, or the script fails. For more devices than can be
faked the formulas stand alone.

Bytes are of the whole array that a collective gives or takes. A ring sends, from each of D devices, (D - 1) / D of it for an
all-gather and a reduce-scatter, and 2 (D - 1) / D for an all-reduce. Operations count a padding's zeros, as the 4.09e9 that one
reads of ResNet-50 do, but not those between the pixels of a strided convolution's gradient.
"""

import argparse
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adsq_jax import config as config_module
from adsq_jax.data import datasets, sources, splits
from adsq_jax.data.labels import Labels
from adsq_jax.data.preprocessing import Preprocessing
from adsq_jax.devices import data_parallel, host
from adsq_jax.devices.data_parallel import Place
from adsq_jax.methods.objective import Guidance
from adsq_jax.run import environment
from adsq_jax.training.rounds import TARGET_PLACES, Trainer
from adsq_jax.training.state import Targets

ROOT = Path(__file__).parents[2]
TOLERANCE = 0.1  # of the operations: formula beside program
TERMS = 6  # numbers that are averaged with the gradients: five loss terms and the loss
COMPILED, ALONE = (1, 2, 4, 8), (64, 512, 4096)  # devices


class Layer(NamedTuple):
    """Convolutions that are alike."""

    times: int
    size: int
    channels: int
    features: int
    shrunk: int  # the images' side over that of what comes out
    stride: int
    shortcut: bool = False  # beside a block


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
    """An update."""

    backbone: str
    layers: tuple[Layer, ...]  # the backbone's convolutions, each followed by BatchNorm
    width: int  # of what the backbone gives
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


def trainer_of(case: Case, *, devices: int) -> Trainer:
    """A run of a case; of images it has as many as one batch needs, since of the others only the shapes count."""
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
    return Trainer(config, data, parallel=data_parallel.DataParallel("shard_map", devices=jax.devices()[:devices]))


def arguments(trainer: Trainer, *, images: int) -> tuple[Any, Targets, dict[str, Any]]:
    """Shapes of what an update takes, each with its place on the devices, for a training set of so many images."""
    run, config = trainer.parallel, trainer.config
    net = jax.eval_shape(trainer.init).img_nets["f"]
    sets, batch, filled = trainer.sets.sets, config.train.batch_size, run._filled(images)

    def of(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype)

    def placed(places: Any, tree: Any) -> Any:
        def one(place: Place, x: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=run._sharding(place, x.shape))

        return data_parallel._placed(one, places, tree)

    guidance = Guidance(
        features=of(jnp.float32, len(sets), config.model.features),
        relaxed_codes=of(jnp.float32, len(sets), config.bits),
        frequencies=of(jnp.float32, len(sets)),
    )
    targets = Targets(
        bank=of(jnp.float32, filled, config.bits) if trainer.method.twin else None,
        codes=of(jnp.int8, filled, config.bits),
        set_index=of(jnp.int32, filled),
        shares=of(jnp.float32, filled),
        sets=of(jnp.uint8, *sets.shape),
        similar_sets=of(jnp.bool, len(sets), len(sets)),
        progress=of(jnp.float32),
        guidance=guidance if trainer.method.label_net else None,
    )
    inputs = of(jnp.uint8, batch, config.data.image_size, config.data.image_size, 3)
    return (
        placed(trainer.places.img_nets["f"], replace(net, bank=of(jnp.float32, filled, config.bits))),
        placed(TARGET_PLACES, targets),
        placed(Place.ROWS, {"inputs": inputs, "index": of(jnp.int32, batch), "label_set": of(jnp.int32, batch)}),
    )


_KINDS = "all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all|collective-broadcast"
_COLLECTIVE = re.compile(
    rf"%?([\w.\-]+) = (\(.*?\)|\S+) (?:ragged-)?({_KINDS})(-start)?\("
)  # the type, lazily: it has no " KIND("
_ELEMENT = re.compile(r" get-tuple-element\(.*?%?([\w.\-]+)\), index=(\d+)")
_DONE = re.compile(rf"%?([\w.\-]+) = .*? (?:{_KINDS})-done\(.*?%?([\w.\-]+)\)")
_ARRAY = re.compile(r"\b(pred|bf16|[suf]\d+)\[([\d,]*)\]")
# An array's use, by its kind, its dtype, and the place in `img_net_gradients` that XLA has noted.
_PURPOSES = {
    "gradients and loss terms": ("all-reduce", "f32", r"shard_map/psum"),
    "BatchNorm, forward": ("all-reduce", "f32", r".*/jvp\(ImgNet\)/.*/psum"),
    "BatchNorm, backward": ("all-reduce", "f32", r".*/transpose\(jvp\(ImgNet\)\)/.*/psum"),
    "neighbours": ("all-reduce", "f32", r"shard_map/(jvp\(\)|transpose\(jvp\(\)\))/psum"),
    "codes": ("all-gather", "f32", r"shard_map/jvp\(\)/all_gather"),
    "gradient of the codes": ("reduce-scatter", "f32", r"shard_map/transpose\(jvp\(\)\)/reduce_scatter"),
    "indices": ("all-gather", "s32", r"shard_map/all_gather"),
    "label sets": ("all-gather", "s32", r"shard_map/jvp\(\)/all_gather"),
    "parameters": ("all-gather", "f32", r"shard_map"),  # of config.shard_parameters
}


class Sent(NamedTuple):
    """An array that a collective carries."""

    kind: str  # as HLO names it, without -start
    dtype: str
    shape: tuple[int, ...]  # of what comes out on a device
    bytes: int  # of the whole: what comes out, or for a reduce-scatter what goes in
    origin: str  # what XLA has noted of where it comes from

    @property
    def purpose(self) -> str:
        """One of the known ones; "unexplained" otherwise."""
        origin = self.origin.removeprefix("jit(run)/")
        for purpose, (kind, dtype, pattern) in _PURPOSES.items():
            if (self.kind, self.dtype) == (kind, dtype) and re.fullmatch(pattern, origin):
                return purpose
        return "unexplained"


def collectives(hlo: str) -> list[Sent]:
    """Every array that a compiled program's collectives carry to other devices, in the program's order.

    Args:
      hlo: `compiled.as_text()`.
    """
    started = {match[1]: match[2] for line in hlo.splitlines() if (match := _DONE.search(line))}
    origins: dict[tuple[str, int], str] = {}
    for line in hlo.splitlines():
        if match := _ELEMENT.search(line):
            origins[started.get(match[1], match[1]), int(match[2])] = _origin(line)
    return [sent for line in hlo.splitlines() for sent in _of_line(line, origins)]


def _origin(line: str) -> str:
    match = re.search(r'op_name="([^"]*)"', line)
    return match[1] if match else ""


def _of_line(line: str, origins: dict[tuple[str, int], str]) -> Iterator[Sent]:
    match = _COLLECTIVE.search(line)
    if not match:
        return
    name, given, kind, start = match.groups()
    arrays = _ARRAY.findall(given)
    if start and kind in ("all-gather", "collective-permute"):  # what goes in, what comes out, and maybe some counters
        arrays = [array for array in arrays if array != ("u32", "")]
        arrays = arrays[len(arrays) // 2 :]
    if kind != "collective-permute" and _group(line) == 1:
        return  # XLA for a CPU leaves it in the program of a single device; nothing travels
    parts = _group(line) if kind == "reduce-scatter" else 1
    for number, (dtype, sides) in enumerate(arrays):
        shape = tuple(int(side) for side in sides.split(",") if side)
        width = 1 if dtype == "pred" else int(re.sub(r"\D", "", dtype)) // 8
        yield Sent(kind, dtype, shape, width * prod(shape) * parts, origins.get((name, number)) or _origin(line))


def _group(line: str) -> int:
    """Devices of a collective: replica_groups={{0,1},{2,3}}, [groups,devices]<=[...], or mesh['a'=2,'b'=4] {'b'}."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return listed[1].count(",") + 1
    if counted := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(counted[1])
    if of_mesh := re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", line):
        sides = dict(re.findall(r"('\w+')=(\d+)", of_mesh[1]))
        return prod(int(sides[axis]) for axis in of_mesh[2].split(","))
    raise ValueError(f"a collective of unknown devices: {line.strip()}")


def by_purpose(sent: list[Sent]) -> dict[str, int]:
    """Bytes."""
    found: Counter[str] = Counter()
    for array in sent:
        found[array.purpose] += array.bytes
    return dict(found)


def by_kind(sent: list[Sent]) -> dict[str, int]:
    """Bytes."""
    found: Counter[str] = Counter()
    for array in sent:
        found[array.kind] += array.bytes
    return dict(found)


_TYPES = re.compile(r": \(tensor<([\dx]+)x\w+>, tensor<([\dx]+)x\w+>\) -> tensor<([\dx]+)x\w+>")


def counted(stablehlo: str) -> dict[str, float]:
    """Operations of a device, two for a product and its sum: of all convolutions, and of all products of matrices.

    Args:
      stablehlo: `lowered.as_text()`, for a platform where convolutions are convolutions.
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
            functions[name]["convolutions"] += _of_convolution(line)
        elif "stablehlo.dot_general" in line:
            functions[name]["products"] += _of_product(line)

    def total(name: str) -> dict[str, float]:
        found = dict(functions[name])
        for called, times in calls[name].items():
            for kind, value in total(called).items():
                found[kind] += times * value
        return found

    return total("main")


def _shapes(line: str) -> list[list[int]]:
    match = _TYPES.search(line)
    if not match:
        raise ValueError(f"no shapes in {line.strip()[:200]}")
    return [[int(side) for side in shape.split("x")] for shape in match.groups()]


def _of_convolution(line: str) -> float:
    _, kernel, out = _shapes(line)
    dimensions = re.search(r"\]x\[([^\]]+)\]->", line)[1].split(", ")
    window = prod(side for side, dimension in zip(kernel, dimensions, strict=True) if dimension != "o")
    holes = prod(int(step) for step in re.search(r"lhs_dilate = \[([^\]]+)\]", line)[1].split(", "))
    return 2 * prod(out) * window / holes


def _of_product(line: str) -> float:
    left, _, out = _shapes(line)
    summed = re.search(r"contracting_dims = \[([\d, ]+)\]", line)[1].split(", ")
    return 2 * prod(out) * prod(left[int(axis)] for axis in summed)


def multiplications(case: Case) -> int:
    """Of one image through the backbone."""
    return sum(x.times * x.size**2 * x.channels * x.features * (case.side // x.shrunk) ** 2 for x in case.layers)


def parameters(case: Case) -> int:
    """Of the network."""
    backbone = sum(x.times * (x.size**2 * x.channels * x.features + 2 * x.features) for x in case.layers)
    return backbone + (case.width + 1) * case.features + (case.features + 1) * case.bits


def rows(case: Case, devices: int) -> int:
    """Of the training set on a device, with the filling."""
    return -(-case.images // devices)


def operations(case: Case, devices: int) -> dict[str, float]:
    """Of a device in an update: backbone and heads forward and for both gradients; the pair terms have one gradient.

    The pair terms take the whole batch against the device's rows, likelihood and difference each there and back. Guidance takes
    the device's share of the batch against the label sets. Similarity is looked up.
    """
    stem = case.layers[0]
    images = stem.size**2 * stem.channels * stem.features * (case.side // stem.shrunk) ** 2  # which get no gradient
    heads = case.width * case.features + case.features * case.bits
    return {
        "backbone": 2.0 * case.batch * (3 * multiplications(case) - images),
        "heads": 2.0 * case.batch * 3 * heads,
        "pair terms": 2.0 * case.batch * devices * rows(case, devices) * 4 * case.bits,
        "guidance": 2.0 * case.batch * case.classes * 2 * case.features,
    }


def travelling(case: Case, devices: int) -> dict[str, int]:
    """Bytes, by purpose, as of `by_purpose`; n is in none of them.

    A shortcut's norm is added to the block's last norm: their biases have the same gradient, and XLA sends it once.
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


def ring(bytes_of: dict[str, int], devices: int) -> dict[str, float]:
    """Bytes that a device sends, and as many that it receives, where rings are used."""
    once = (devices - 1) / devices
    return {name: size * once * (2 if _PURPOSES[name][0] == "all-reduce" else 1) for name, size in bytes_of.items()}


def kept(case: Case, devices: int) -> int:
    """Bytes on a device that grow with the training set: two banks, codes, each row's label set and share."""
    return rows(case, devices) * (2 * 4 * case.bits + case.bits + 4 + 4)


def by_formula(case: Case, devices: int) -> dict[str, Any]:
    """A row of the table."""
    sent = ring(travelling(case, devices), devices)
    codes = sum(size for name, size in sent.items() if "codes" in name)
    return {
        "devices": devices,
        "batch": case.batch * devices,
        "operations": operations(case, devices),
        "bytes": travelling(case, devices),
        "bytes_sent_by_ring": sent,
        "share_of_codes": codes / sum(sent.values()) if sent else 0.0,
        "ring_all_reduce": 2 * (devices - 1) / devices,
        "bank_bytes": kept(case, devices),
    }


def of_program(case: Case, devices: int, *, compiled: bool) -> dict[str, Any]:
    """The same from the program, as far as it is there to be read.

    Args:
      case: what.
      devices: of this process.
      compiled: also compiles, for what travels; otherwise lowers only.
    """
    trainer = trainer_of(case, devices=devices)
    shapes = arguments(trainer, images=case.images)
    traced = trainer.img_net_step.trace(*shapes)
    net, targets, _ = shapes
    parted = (net.bank, targets.bank, targets.codes, targets.set_index, targets.shares)
    found: dict[str, Any] = {
        "operations": counted(traced.lower(lowering_platforms=("tpu",)).as_text()),
        "parameters": sum(x.size for x in jax.tree.leaves(net.params)),
        "bank_bytes": sum(prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in parted),
    }
    if compiled:
        program = traced.lower().compile()
        sent = collectives(program.as_text())
        found |= {"bytes": by_purpose(sent), "bytes_by_kind": by_kind(sent), "arrays": len(sent)}
        found["operations_by_xla"] = program.cost_analysis()["flops"]  # on a CPU; of all instructions, without paddings' zeros
    return found


def disagreements(formula: dict[str, Any], program: dict[str, Any], *, case: Case) -> list[str]:
    """What formula and program say differently: bytes and sizes at all, operations by more than TOLERANCE."""
    found = []
    expected = {"convolutions": formula["operations"]["backbone"]}
    expected["products"] = sum(formula["operations"].values()) - expected["convolutions"]
    for kind, value in expected.items():
        if abs(program["operations"][kind] / value - 1) > TOLERANCE:
            found.append(f"operations of {kind}: {program['operations'][kind]:.4e}, by the formula {value:.4e}")
    exact = {"parameters": parameters(case), "bank_bytes": formula["bank_bytes"]}
    if "bytes" in program:
        exact["bytes"] = formula["bytes"]
    for name, value in exact.items():
        if program[name] != value:
            found.append(f"{name}: {program[name]}, by the formula {value}")
    return found


def compared(cases: dict[str, Case], *, compiled: tuple[int, ...], alone: tuple[int, ...]) -> list[dict[str, Any]]:
    """Rows of all cases; where the program is read, it and the formula must agree.

    The first case is compiled for each number of devices; the others for the most, since what travels may not depend on them.

    Raises:
      SystemExit: they don't.
    """
    found = []
    for number, (name, case) in enumerate(cases.items()):
        for devices in (*compiled, *alone):
            if case.batch * devices > case.images:
                continue  # a batch has no image twice
            row = {"case": name, **by_formula(case, devices)}
            if devices in compiled:
                row["program"] = of_program(case, devices, compiled=number == 0 or devices == max(compiled))
                wrong = disagreements(row, row["program"], case=case)
                if wrong:
                    raise SystemExit(f"{name}, {devices} devices: " + "; ".join(wrong))
            found.append(row)
    return found


def main() -> None:
    """Compares, tells, and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "scaling", help="folder of JSON")
    parser.add_argument("--quick", action="store_true", help="toy sizes: to see that it runs")
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
    content = {**about, "rows": compared(cases, compiled=COMPILED, alone=() if options.quick else ALONE)}
    print(json.dumps(content, indent=2))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "scaling.json").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
