"""Say where a training step of twin ResNet-18s spends its time, beside torch.

    taskset -c 0 python -m benchmarks.speed.profile_step [--turns=7] [--out=DIR]
    pip install -e . torch efficientnet_lite_pytorch          (torch's build for CPUs)

The step is that of `backbones.py`. Each kind of kernel has its milliseconds a step of both networks: of this package from XLA's
own profile, in which each operation of the compiled program has the layer that it comes from; of torch (channels_last, the
better layout) from torch.profiler. Both run in one process on one core, in turns; the median over the turns counts. XLA writes
an operation and those that it fused into it as one: a norm's part that a convolution took in counts as convolution.
"""

import argparse
import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import jax

from adsq_jax import storage
from adsq_jax.devices import host
from adsq_jax.run import environment, workdir
from adsq_jax.run.tables import align
from adsq_jax.training import rounds
from benchmarks.speed.backbones import CASES, QUICK, Case, Ours, Torch

ROOT = Path(__file__).parents[2]
TURNS = 7
FORWARD, INPUTS, WEIGHTS = "convolution, forward", "convolution, input gradient", "convolution, weight gradient"
BACKWARD, COPIES, PATCHES = "convolution, both gradients", "copies to another layout", "patches for products"
NORM, POOL, RELU = "batch norm", "max pooling", "ReLU and sums of branches"
OPTIMIZER, HEADS, OTHER = "optimiser, clipping and norms", "heads, loss and input", "other"
CONVOLUTIONS = (FORWARD, BACKWARD, INPUTS, WEIGHTS, PATCHES, COPIES)
KINDS = (*CONVOLUTIONS, NORM, POOL, RELU, OPTIMIZER, HEADS, OTHER)
OPERATION = re.compile(r"^  (?:ROOT )?%(\S+) = \(?\w+\[([\d,]*)\]\S* ([\w-]+)\(")
PRODUCTS = ("dot", "convolution", "custom-call")
TORCH_KINDS = {
    "aten::mkldnn_convolution": FORWARD,
    "aten::convolution_backward": BACKWARD,
    "aten::copy_": COPIES,
    "aten::native_batch_norm": NORM,
    "aten::native_batch_norm_backward": NORM,
    "aten::max_pool2d_with_indices": POOL,
    "aten::max_pool2d_with_indices_backward": POOL,
    "aten::threshold_backward": RELU,
    "aten::clamp_min_": RELU,
    "aten::add_": RELU,
    "aten::_fused_adamw_": OPTIMIZER,
    "aten::linalg_vector_norm": OPTIMIZER,
    "aten::mul_": OPTIMIZER,
    "aten::mm": HEADS,
    "aten::addmm": HEADS,
}


def kind_of(name: str, *, opcode: str, shape: Sequence[int], source: str, kernels: Sequence[Sequence[int]]) -> str:
    """Return the kind of an operation of XLA's program.

    Args:
      name: its name, which says more of a fusion than its opcode.
      opcode: in the program.
      shape: of the result.
      source: its `op_name`: functions and layers, separated by slashes; "": XLA added it.
      kernels: the shape of each convolution's kernel.
    """
    product = opcode in PRODUCTS or name.startswith("ynn_fusion")
    of_weights = sorted(shape) in map(sorted, kernels) or (len(shape) == 2 and source.endswith("/transpose"))
    if not source:
        return WEIGHTS if product and of_weights else COPIES if "transpose" in name or "copy" in name else OTHER
    backbone, backward = "/backbone" in source, "transpose(" in source
    if not backbone:
        return HEADS if "jvp(" in source or "ImgNet" in source else OPTIMIZER
    if "norm" in source:
        return NORM
    if re.search(r"/(conv\d|stem|shortcut)/", source):
        if product:
            return FORWARD if not backward else WEIGHTS if of_weights else INPUTS
        return PATCHES if "branch_0_fun" in source else COPIES
    return POOL if "/backbone/cond/" in source else RELU


def kinds_of_program(text: str, *, kernels: Sequence[Sequence[int]]) -> dict[str, str]:
    """Return the kind of each operation of a compiled program by its name."""
    kinds = {}
    for line in text.splitlines():
        found = OPERATION.match(line)
        if found:
            name, sides, opcode = found.groups()
            source = re.search(r'op_name="([^"]*)"', line)
            shape = [int(side) for side in sides.split(",") if side]
            path = source.group(1) if source else ""
            kinds[name] = kind_of(name, opcode=opcode, shape=shape, source=path, kernels=kernels)
    return kinds


def ours_by_kind(side: Ours, kinds: Mapping[str, str]) -> dict[str, float]:
    """Take one step of both networks, and return milliseconds by kind."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            side.run(1)
        (file,) = Path(folder).rglob("*.xplane.pb")
        profile = jax.profiler.ProfileData.from_file(str(file))
        spent: dict[str, float] = defaultdict(float)
        for plane in profile.planes:
            for line in plane.lines:
                for event in line.events:
                    if event.name in kinds:
                        spent[kinds[event.name]] += event.duration_ns / 1e6
    return dict(spent)


def torch_by_kind(side: Torch) -> dict[str, float]:
    """Take one step of both networks, and return milliseconds by kind."""
    import torch

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        side.run(1)
    spent: dict[str, float] = defaultdict(float)
    for event in profile.events():
        spent[TORCH_KINDS.get(event.name, OTHER)] += event.self_cpu_time_total / 1e3
    return dict(spent)


def measure(case: Case, *, turns: int) -> dict[str, dict[str, float]]:
    """Profile both sides in turns.

    Returns:
      Milliseconds a step of both networks, by side and kind.
    """
    ours, theirs = Ours(case), Torch(case, channels_last=True)
    shapes = jax.tree.leaves(ours.setup.net_shapes["params"])
    kernels = [x.shape for x in shapes if len(x.shape) == 4]
    batch = rounds.split_batch(ours.setup, ours.batch(0))
    program = ours.setup.donating_img_net_step.lower(ours.nets["f"], ours.placed_targets, batch).compile().as_text()
    sides: dict[str, Callable[[], dict[str, float]]] = {
        "adsq_jax": partial(ours_by_kind, ours, kinds_of_program(program, kernels=kernels)),
        "torch": partial(torch_by_kind, theirs),
    }
    ours.run(2)
    theirs.run(2)
    seen: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(turns):
        for side, take in sides.items():
            seen[side].append(take())
    return {side: {kind: median(turn.get(kind, 0.0) for turn in several) for kind in KINDS} for side, several in seen.items()}


def table(spent: Mapping[str, Mapping[str, float]]) -> str:
    """Return milliseconds by kind and side, and their differences as shares of torch's whole."""
    ours, theirs = spent["adsq_jax"], spent["torch"]
    whole = sum(theirs.values())
    rows = [["kind", "adsq_jax, ms", "torch, ms", "difference, of torch's step"]]

    def row(title: str, kinds: Sequence[str]) -> None:
        a, b = (sum(side[kind] for kind in kinds) for side in (ours, theirs))
        rows.append([title, f"{a:.0f}", f"{b:.0f}", f"{100 * (a - b) / whole:+.1f} %"])

    for kind in KINDS:
        row(kind, [kind])
    row("all of the convolutions", CONVOLUTIONS)
    row("everything", KINDS)
    return align(rows, right=(1, 2, 3))


def main(given: Sequence[str] | None = None) -> None:
    """Profile, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=storage.path, default=ROOT / "benchmarks" / "results" / "backbones", help="a folder")
    parser.add_argument("--turns", type=int, default=TURNS, help="steps of each side")
    parser.add_argument("--quick", action="store_true", help="toy sizes, to check that it runs")
    asked = parser.parse_args(given)
    case = next(case for case in (QUICK if asked.quick else CASES).values() if case.train)
    host.split_into_devices(batch_size=case.batch, host_devices=1)
    spent = measure(case, turns=asked.turns)
    print(table(spent))
    about = {**environment.environment(), "machine": f"{os.uname().machine}, {host.cores()} cores"}
    about |= {"load_after": os.getloadavg()[0], "case": vars(case), "milliseconds": spent}
    asked.out.mkdir(parents=True, exist_ok=True)
    workdir.write_json(asked.out / "profile.json", about)


if __name__ == "__main__":
    main()
