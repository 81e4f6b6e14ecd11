"""Measure what ADSQ costs beyond its two networks: `python -m benchmarks.speed.adsq_cost [--batch=16] [--turns=5] [--out=DIR]`.

ResNet-50 at 224x224, 64 bits, 50,000 rows in the bank. Two steps of the same network, compiled in the same process, take turns:
one with ADSQ's loss, the other with the mean square of the relaxed codes for a loss, for which XLA drops the bank, the hash
codes and the guidance. Their difference is what the pairs cost. The pairs' work grows with the batch as the network's does, so
that a CPU's small batch says the same. Images are random bytes.

To this come LabelNet's training, once, and the B-step, once a round, spread over the steps (3 passes a round with --full-batch
images a step, 10 rounds), both as shares of the plain step at that batch. First calls, which compile, stay out. Refreshing the
banks, which is to encode the training set by each network once a round, is a line of its own and isn't in the sum.

On a machine with other work only CPU seconds can be compared. Even so the difference of two steps of a large network is lost in
their spread where it is a hundredth; so it is measured beside a tiny network as well, with the same bank and batch.
"""

import argparse
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adsq_jax import config as config_module
from adsq_jax import storage
from adsq_jax.codes import binarize
from adsq_jax.data import datasets, sources, splits
from adsq_jax.data.labels import Labels
from adsq_jax.data.preprocessing import Preprocessing
from adsq_jax.devices import data_parallel, host
from adsq_jax.methods.method import LossInputs
from adsq_jax.methods.objective import Terms
from adsq_jax.run import environment, workdir
from adsq_jax.run.tables import align
from adsq_jax.training import TrainSetup, TrainState, init, loop, rounds
from adsq_jax.training.init import global_rows, to_local_rows

ROOT = Path(__file__).parents[2]
SEED, AIM = 0, 0.05  # the largest share that is aimed at
CLOCKS = ("wall", "CPU")
TINY = {"backbone": "small_cnn", "width": 1, "side": 8}  # next to which the pairs can be measured alone
SPREAD = 0.5  # deviation of the banks' outputs from LabelNet's, before tanh

Times = tuple[float, float]  # wall and CPU seconds


@dataclass(frozen=True)
class Case:
    """The sizes of what is timed."""

    backbone: str = "resnet50"
    width: int = 0  # of the backbone; 0: as published
    side: int = 224  # pixels
    batch: int = 16  # images of the timed steps
    full_batch: int = 64  # images a step of the training that LabelNet and B-step are spread over
    rows: int = 50_000  # n
    bits: int = 64
    classes: int = 100
    label_sets: int = 0  # about so many distinct sets of several labels; 0: each image has one label


def make_labels(case: Case) -> np.ndarray:
    """Draw the labels, uint8[n, c]."""
    if not case.label_sets:
        return np.eye(case.classes, dtype=np.uint8)[np.arange(case.rows) % case.classes]
    random = np.random.default_rng(SEED)
    some = (random.random((case.label_sets, case.classes)) < 2 / case.classes).astype(np.uint8)
    some[np.arange(case.label_sets), random.integers(0, case.classes, case.label_sets)] = 1
    return some[np.arange(case.rows) % case.label_sets]


def make_setup(case: Case) -> TrainSetup:
    """Set up training by the default config, on the devices that `adsq_jax.main` takes; all images share the memory of one."""
    pixels = np.broadcast_to(np.zeros((1, 1, 1, 1), np.uint8), (case.rows, case.side, case.side, 3))
    labels = Labels.from_multi_hot(make_labels(case))
    source = sources.ArraySource(pixels, labels, classes=[str(k) for k in range(case.classes)])
    everything = np.arange(case.rows)
    split = splits.Split(query=everything[:0], train=everything, database=everything)
    config = config_module.default(several_labels=case.label_sets > 0)
    config.bits, config.seed, config.data.image_size = case.bits, SEED, case.side
    config.model.backbone, config.model.width = case.backbone, case.width
    config.train.batch_size = config.eval.batch_size = case.batch
    data = datasets.Dataset(
        source, split, protocol="digits", split_sha256="", map_at="all", preprocessing=Preprocessing(0, case.side)
    )
    devices = data_parallel.DataParallel(config.parallel, devices=data_parallel.devices_for_batch(case.batch))
    return loop.setup_from_config(config, data, devices=devices)


def mean_square(inputs: LossInputs) -> Terms:
    """Be a loss that costs nothing, and still needs every layer's gradient."""
    return {"square": jnp.mean(inputs.relaxed_codes**2)}


def without_adsq(setup: TrainSetup) -> TrainSetup:
    """Return the same setup with the plain loss."""
    return replace(setup, method=replace(setup.method, loss=mean_square))


def fill_banks(setup: TrainSetup, state: TrainState) -> TrainState:
    """Fill both banks with LabelNet's codes and noise, as if networks had learned something, with their signs for codes."""
    random, sizes = np.random.default_rng(SEED), (setup.size, setup.bits)
    labels = np.arctanh(np.clip(to_local_rows(setup, state.img_nets["f"].bank), -0.999, 0.999))
    banks = {name: np.tanh(labels + SPREAD * random.normal(size=sizes)).astype(np.float32) for name in setup.networks}
    nets = {name: replace(net, bank=global_rows(setup, banks[name])) for name, net in state.img_nets.items()}
    return replace(state, img_nets=nets, codes=global_rows(setup, binarize(banks["f"])))


def seconds_of(call: Callable[[], Any]) -> tuple[float, float]:
    """Return wall and CPU seconds of a call, whose result is waited for."""
    began = time.perf_counter(), time.process_time()
    jax.block_until_ready(call())
    return time.perf_counter() - began[0], time.process_time() - began[1]


def step_times(case: Case, setup: TrainSetup, state: TrainState, *, turns: int) -> dict[str, list[Times]]:
    """Measure seconds of a step of network f, by ADSQ's loss and by the plain one in turns; of each the first is left out."""
    random = np.random.default_rng(SEED)
    steps: dict[str, Callable[[], Any]] = {}
    for name, one in (("adsq", setup), ("plain", without_adsq(setup))):
        fixed = rounds.targets(one, state, net="f")
        nets = [one.devices.to_devices(jax.tree.map(jnp.array, state.img_nets["f"]), one.specs.img_nets["f"])]

        def step(one: TrainSetup = one, nets: list[Any] = nets, fixed: Any = fixed) -> Any:
            pixels = random.integers(0, 256, (case.batch, case.side, case.side, 3), dtype=np.uint8)
            index = random.choice(case.rows, case.batch, replace=False).astype(np.int32)
            batch = rounds.split_batch(one, {"inputs": pixels, "index": index})
            nets[0], metrics = one.donating_img_net_step(nets[0], fixed, batch)
            return nets[0].params, metrics

        steps[name] = step
    seconds: dict[str, list[Times]] = {name: [] for name in steps}
    for turn in range(turns + 1):
        for name in sorted(steps, reverse=bool(turn % 2)):
            taken = seconds_of(steps[name])
            if turn:
                seconds[name].append(taken)
    return seconds


def encoding_times(case: Case, setup: TrainSetup, state: TrainState, *, turns: int) -> list[Times]:
    """Measure seconds a batch of a bank's refreshing: the network in evaluation mode, without reading."""
    local = setup.devices.local
    apply = jax.jit(lambda variables, images: setup.img_net.apply(variables, images, train=False)[1])
    variables = local.replicate(state.img_nets["f"].variables)
    images = local.shard(np.random.default_rng(SEED).integers(0, 256, (case.batch, case.side, case.side, 3), dtype=np.uint8))
    return [seconds_of(lambda: apply(variables, images)) for _ in range(turns + 1)][1:]


def prepare(case: Case) -> tuple[TrainSetup, TrainState]:
    """Set up a case and train LabelNet; return the state with filled banks."""
    setup = make_setup(case)
    return setup, fill_banks(setup, rounds.train_label_net(setup, init(setup)))


def measure(case: Case, *, turns: int) -> dict[str, Any]:
    """Measure everything of one case.

    Args:
      case: the sizes.
      turns: steps of each kind; three times as many beside the tiny network.

    Returns:
      All times, [wall, CPU] seconds; and by each clock seconds and shares, of which `share` is the sum that is aimed at.
    """
    setup, state = prepare(case)
    fresh = init(setup)
    times = {"label_net": [seconds_of(lambda: rounds.train_label_net(setup, fresh).codes)]}  # it is compiled
    times["b_step"] = [seconds_of(lambda: rounds.update_codes(setup, state, refresh=False).codes) for _ in range(min(turns, 3))]
    times["encode"] = encoding_times(case, setup, state, turns=turns)
    times |= step_times(case, setup, state, turns=turns)
    tiny = replace(case, **TINY)
    beside = step_times(tiny, *prepare(tiny), turns=3 * turns)
    times |= {f"{name}, tiny network": several for name, several in beside.items()}
    counts = {"rounds": setup.rounds, "steps_a_round": 6 * (case.rows // case.full_batch)}
    assert counts["steps_a_round"] == len(setup.networks) * setup.epochs_per_round * (case.rows // case.full_batch)
    by_clock = {name: shares_of(case, times, clock=clock, **counts) for clock, name in enumerate(CLOCKS)}
    return {"case": asdict(case), **counts, **by_clock, "times": times}


def shares_of(
    case: Case, times: Mapping[str, Sequence[Times]], *, clock: int, rounds: int, steps_a_round: int
) -> dict[str, Any]:
    """Return seconds and shares of a plain step by one clock: 0, wall; 1, CPU."""
    seconds = {name: median(turn[clock] for turn in several) for name, several in times.items()}
    plain = seconds["plain"]
    full = plain * case.full_batch / case.batch  # of a plain step of that batch
    alone = seconds["adsq, tiny network"] - seconds["plain, tiny network"]
    pairs = zip(times["adsq"], times["plain"], strict=True)
    shares = {
        "pairs": median(ours[clock] / other[clock] for ours, other in pairs) - 1,
        "b_step": seconds["b_step"] / (steps_a_round * full),
        "label_net": seconds["label_net"] / (rounds * steps_a_round * full),
    }
    return {
        "seconds": {**seconds, "pairs, tiny network": alone},
        "shares": shares,
        "share": sum(shares.values()),
        "share_by_tiny_network": sum({**shares, "pairs": alone / plain}.values()),
        "pairs_by_tiny_network": alone / plain,
        "refreshing_share": 2 * case.rows / case.batch * seconds["encode"] / (steps_a_round * full),
    }


def table(result: Mapping[str, Any]) -> str:
    """Return seconds and shares by both clocks as aligned lines."""
    case, clocks = result["case"], [result[name] for name in CLOCKS]
    rows = [["part", *(f"{name} seconds" for name in CLOCKS), *(f"of a step, {name}" for name in CLOCKS)]]

    def row(title: str, seconds: str, share: Callable[[Any], float] | None) -> None:
        taken = [f"{one['seconds'][seconds]:.3f}" if seconds else "" for one in clocks]
        rows.append([title, *taken, *("" if share is None else f"{100 * share(one):.2f} %" for one in clocks)])

    row(f"plain step, batch {case['batch']}", "plain", None)
    row("step with ADSQ's loss: pairs and guidance", "adsq", lambda one: one["shares"]["pairs"])
    row("the same difference beside a tiny network", "pairs, tiny network", lambda one: one["pairs_by_tiny_network"])
    row("B-step, once a round", "b_step", lambda one: one["shares"]["b_step"])
    row("LabelNet, once", "label_net", lambda one: one["shares"]["label_net"])
    row("all of it", "", lambda one: one["share"])
    row("all of it, pairs by the tiny network", "", lambda one: one["share_by_tiny_network"])
    row("besides: refreshing both banks", "", lambda one: one["refreshing_share"])
    sizes = f"{case['backbone']} at {case['side']}, {case['bits']} bits, n = {case['rows']:,}"
    return f"{sizes}, {result['steps_a_round']:,} steps a round; aim: {AIM:.0%}\n{align(rows, right=(1, 2, 3, 4))}"


def main(given: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in asdict(Case()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=f"default: {default}")
    parser.add_argument("--turns", type=int, default=5, help="steps of each kind")
    parser.add_argument("--out", type=storage.path, default=ROOT / "benchmarks" / "results" / "adsq_cost", help="a folder")
    asked = vars(parser.parse_args(given))
    turns, out = asked.pop("turns"), asked.pop("out")
    if turns < 1:
        parser.error(f"--turns: expected at least 1, got {turns}")
    case = Case(**asked)
    host.split_into_devices(batch_size=case.batch, host_devices=0)
    about = {**environment.environment(), "machine": f"{os.uname().machine}, {host.cores()} cores"}
    result = {**about, "load_before": os.getloadavg()[0], **measure(case, turns=turns)}
    print(table(result))
    out.mkdir(parents=True, exist_ok=True)
    workdir.write_json(out / "adsq_cost.json", result)


if __name__ == "__main__":
    main()
