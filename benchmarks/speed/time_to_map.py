"""Measure the minutes of training until codes retrieve well, beside DeepHash-pytorch on the same network, split and machine.

    python -m benchmarks.speed.time_to_map
    pip install torch
    python -m benchmarks.speed.time_to_map --peer=DeepHash-pytorch --peer-methods=GreedyHash,DTSH --peer-rates=1,100

Each method trains in a process of its own, one after the other, with the defaults of `configs/fashion_mnist.py` at 24 bits, and
is scored after each pass over the training set by one network, until mAP .80 (--target). The first score at the target counts.
The score is the protocol's: its queries against its database, by this project's exact evaluator, for both sides.

The clock starts with the process: Python, imports, reading of the data, compilation without a cache, and LabelNet count. While
codes are scored (encoding of queries and database, and the evaluator) it stands still, for both sides. Wall seconds and the
process's CPU seconds are kept. On a machine with other work torch's threads wait for each other and spin: give both sides one
core there, by `taskset -c 0`, and compare CPU seconds. Scoring 70,000 images takes longer than a pass of training:
--score-every=2 saves half of it, and makes the times that much coarser.

The peer's side (`peer_training.py`): a clone of DeepHash-pytorch, which the user gets. Its loss, optimiser, batch size and loop
run as they are; network (rebuilt in torch, with torch's own initial weights), images, batches and augmentation are this
project's. Its clock starts when this package is imported, so that JAX, which it needs only to be scored, costs it nothing. Its
learning rates are meant for networks pretrained on ImageNet: --peer-rates gives factors on them, each a run of its own, and the
fastest counts. This project's schedule ends at a learning rate of 0: --rounds gives it other lengths, each a run, too. A method
that can't run so (CSQ's centres need a power of two bits) is shown with its error, and tried again by the next call.

Results are added to OUT/SET_BITSbits.json after each run, with a plot beside it. Finished runs are skipped: repeat the command
after a stop, or with more methods.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import jax
import numpy as np

from adsq_jax import codes, models, retrieval, storage
from adsq_jax import config as config_module
from adsq_jax.data import datasets
from adsq_jax.data.datasets import Dataset
from adsq_jax.devices import data_parallel, host
from adsq_jax.errors import InputError
from adsq_jax.run import environment, workdir
from adsq_jax.run.tables import align
from adsq_jax.training import init, loop, rounds
from benchmarks.methods import scores, tasks
from benchmarks.methods.compare import names, numbers, run_script
from benchmarks.methods.tasks import Task
from benchmarks.speed import peer_training
from benchmarks.speed.peer_training import Enough, Peer

ROOT = Path(__file__).parents[2]
PEER_NAME = "DeepHash-pytorch"


@dataclass(frozen=True)
class Job:
    """One training."""

    config: str
    method: str
    bits: int
    seed: int
    target: float  # mAP
    most_minutes: float  # on the clock
    score_every: int = 1  # passes over the training set by one network
    whole: bool = False  # whether to go on after the target
    settings: Mapping[str, Any] = field(default_factory=dict)  # config keys
    peer: str = ""  # the clone; "": this project's method
    rate: float = 1.0  # a factor on the peer's learning rate

    @property
    def name(self) -> str:
        """The name of its row."""
        if not self.peer:
            settings = [f"{key.removeprefix('train.')} {value}" for key, value in self.settings.items()]
            return ", ".join([scores.display_name(self.method), *settings])
        return f"{self.method}, {PEER_NAME}" + ("" if self.rate == 1 else f", learning rate x {self.rate:g}")


class Stopwatch:
    """Wall seconds, and CPU seconds of this process and its children, since a moment and without pauses."""

    def __init__(self, *, wall: float, cpu: float) -> None:
        self._wall, self._cpu = wall, cpu

    def read(self) -> tuple[float, float]:
        """Return wall and CPU seconds."""
        return time.monotonic() - self._wall, sum(os.times()[:4]) - self._cpu

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stand still meanwhile."""
        wall, cpu = self.read()
        yield
        self._wall, self._cpu = time.monotonic() - wall, sum(os.times()[:4]) - cpu


def config_of(job: Job) -> Any:
    """Return the checked config of a training; a peer's method has that of `classify` for data and network."""
    method = "classify" if job.peer else job.method
    options = tasks.Options(config=job.config, methods=[method], settings=job.settings)
    config = tasks.config_of(Task(method, job.bits, job.seed, {}), options)
    if config.optim.trunk_lr_scale == 0:
        raise InputError(f"--config={job.config}: expected a network that is trained, got a frozen trunk; fix: another config")
    return config


class Scores:
    """Scores after passes over the training set, handed on as they come; they end the training."""

    def __init__(self, job: Job, data: Dataset, watch: Stopwatch, report: Callable[[dict[str, Any]], None]) -> None:
        self.job, self.data, self.watch, self.report = job, data, watch, report
        self._labels = datasets.retrieval_labels(data)

    def add(self, passes: int, encode: Callable[[np.ndarray], np.ndarray]) -> None:
        """Score after a number of passes.

        Raises:
          Enough: the target or the longest time is reached.
          FloatingPointError: training has diverged.
        """
        seconds, cpu_seconds = self.watch.read()
        late = seconds >= 60 * self.job.most_minutes
        if passes % self.job.score_every and not late:
            return
        with self.watch.paused():
            split = self.data.split
            outputs = encode(np.concatenate([split.query, split.database]))
            if not np.isfinite(outputs).all():
                raise FloatingPointError(f"the network's outputs are not finite after {passes} passes")
            query, database = np.split(codes.binarize(outputs), [len(split.query)])
            labels = {f"{part}_labels": array for part, array in self._labels.items()}
            measured = retrieval.measure(query, database, cutoffs=(self.data.map_at,), **labels).map
            point = {"passes": passes, "seconds": seconds, "cpu_seconds": cpu_seconds, "map": float(measured)}
            self.report({"point": point})
        if late or (measured >= self.job.target and not self.job.whole):
            raise Enough


def train_ours(job: Job, watch: Stopwatch, report: Callable[[dict[str, Any]], None]) -> None:
    """Train a method of this project as `adsq_jax.main` does, on all devices, and score it."""
    config = config_of(job)
    host.split_into_devices(batch_size=config.train.batch_size, host_devices=0)
    data = datasets.load(config_module.data_settings(config))
    parallel = data_parallel.devices_for_batch(config.train.batch_size)
    devices = data_parallel.DataParallel(config.parallel, devices=parallel)
    setup = loop.setup_from_config(config, data, devices=devices)
    state, one_pass = rounds.train_label_net(setup, init(setup)), setup.size // setup.batch_size
    points, encoded = Scores(job, data, watch, report), {}

    def encode(rows: np.ndarray) -> np.ndarray:
        for name, net in state.img_nets.items():
            if name not in encoded or encoded[name][0] is not net.params:  # the other network is as it was
                encoded[name] = net.params, setup.encoder(net.variables, rows)
        return np.sum([encoded[name][1] for name in state.img_nets], axis=0)

    for number in range(setup.rounds):
        finished = False
        while not finished:
            state, finished = rounds.train_round(setup, state, number=number, save_every=one_pass)
            jax.block_until_ready([net.params for net in state.img_nets.values()])
            points.add(int(state.step) // one_pass, encode)


def train_peer(job: Job, watch: Stopwatch, report: Callable[[dict[str, Any]], None]) -> None:
    """Train a method of the peer, and score it."""
    with watch.paused():
        config = config_of(job)
        network = models.build(
            config.model.backbone,
            bits=job.bits,
            width=config.model.width,
            features=config.model.features,
            mean=config.model.mean,
            deviation=config.model.deviation,
            image_size=config.data.image_size,
        )
    data = datasets.load(config_module.data_settings(config))
    points = Scores(job, data, watch, report)
    peer_training.train(Peer(Path(job.peer), job.method, job.rate), data, network, seed=job.seed, score=points.add)


def serve(job: Job, *, began: float) -> None:
    """Train in this process, and print each score, and how it ended, as a line of JSON."""
    watch = Stopwatch(wall=time.monotonic(), cpu=sum(os.times()[:4])) if job.peer else Stopwatch(wall=began, cpu=0.0)
    out, sys.stdout = sys.stdout, sys.stderr

    def report(line: dict[str, Any]) -> None:
        print(json.dumps(line), file=out, flush=True)

    try:
        (train_peer if job.peer else train_ours)(job, watch, report)
    except Enough:
        pass
    except InputError as error:
        report({"refused": " ".join(str(error).split())})
        return
    except Exception as error:
        if not job.peer:
            raise
        report({"failed": f"{type(error).__name__}: {' '.join(str(error).split())}"})
        return
    report({"ended": True})


def run(job: Job) -> dict[str, Any]:
    """Train in a process of its own; show each score.

    Returns:
      The run: the job, the curve, and a peer's error.

    Raises:
      InputError: the job can't run, or its process ended.
    """
    variables = {key: value for key, value in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"}
    curve: list[dict[str, float]] = []
    ending: dict[str, Any] = {}
    load, given = os.getloadavg()[0], json.dumps({**asdict(job), "began": time.monotonic()})
    command = [sys.executable, "-m", "benchmarks.speed.time_to_map", f"--job={given}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=variables) as process:
        try:
            for line in process.stdout or ():
                content = json.loads(line)
                if "point" in content:
                    curve.append(content["point"])
                    print(f"{job.name}: {point_text(curve[-1])}", file=sys.stderr, flush=True)
                else:
                    ending = content
        except BaseException:  # also a signal's
            process.terminate()
            raise
    if "refused" in ending:
        raise InputError(ending["refused"])
    if not ending:
        raise InputError(f"{job.name}: its process ended with status {process.returncode}; its output is above")
    about = {**environment.environment(), "machine": f"{os.uname().machine}, {host.cores()} cores", "load_before": load}
    return {**about, "job": recorded(job), "name": job.name, "failed": ending.get("failed"), "curve": curve}


def point_text(point: Mapping[str, float]) -> str:
    """Return a score as text."""
    minutes, cpu = point["seconds"] / 60, point["cpu_seconds"] / 60
    return f"{point['passes']:g} passes, {minutes:.2f} min ({cpu:.2f} CPU min): mAP {point['map']:.4f}"


def crossing(curve: Sequence[Mapping[str, float]], target: float) -> Mapping[str, float] | None:
    """Return the first point of a curve at or above the target; None: there is none."""
    return next((point for point in curve if point["map"] >= target), None)


def recorded(job: Job) -> dict[str, Any]:
    """Return a training's settings for a file, without this machine's paths."""
    path = Path(job.config)
    config = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else job.config
    return {**asdict(job), "config": config, "peer": PEER_NAME if job.peer else ""}


def identity(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return what says that two runs are the same training, however long they were asked to last."""
    training = {key: value for key, value in job.items() if key not in ("target", "most_minutes", "whole", "peer")}
    return dict(json.loads(json.dumps({**training, "peer": bool(job["peer"])})))  # with lists for tuples, as in a file


def is_finished(run: Mapping[str, Any], job: Job) -> bool:
    """Return whether a run says what a job asks: it is the same training, and reached its target, or went on for as long."""
    before = run["job"]
    if run["failed"] or identity(before) != identity(recorded(job)):
        return False
    reached, asked = crossing(run["curve"], job.target) is not None, job.most_minutes
    to_the_end = (before["whole"] or crossing(run["curve"], before["target"]) is None) and before["most_minutes"] >= asked
    return to_the_end or (reached and not job.whole)


def summary(runs: Sequence[Mapping[str, Any]], *, target: float) -> str:
    """Write a table of runs, the fastest first, and how this project's methods compare with the peer's fastest.

    Args:
      runs: what `run` returns, of any seeds; a row has the medians of those that reached the target, if all did.
      target: mAP.

    Returns:
      Aligned lines.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for one in runs:
        groups.setdefault(one["name"], []).append(one)
    minutes, lines = {}, []
    for name, several in groups.items():
        points = [crossing(one["curve"], target) for one in several]
        best = max((point["map"] for one in several for point in one["curve"]), default=0.0)
        failed = next((one["failed"] for one in several if one["failed"]), None)
        if all(points):
            found = {kind: median(point[kind] for point in points if point) for kind in ("seconds", "cpu_seconds", "passes")}
            minutes[name] = {kind: found[kind] / 60 for kind in ("seconds", "cpu_seconds")}
            cells = [f"{minutes[name]['seconds']:.2f}", f"{minutes[name]['cpu_seconds']:.2f}", f"{found['passes']:g}"]
        else:
            last = max((one["curve"][-1]["seconds"] / 60 for one in several if one["curve"]), default=0.0)
            cells = [f"failed: {failed[:60]}" if failed else f"not in {last:.1f}", "-", "-"]
        lines.append([name, *cells, f"{best:.4f}", f"{len(several)}"])
    lines.sort(key=lambda row: minutes.get(row[0], {}).get("seconds", np.inf))
    table = align([["method", f"minutes to mAP {target:g}", "CPU minutes", "passes", "best mAP", "runs"], *lines])
    return "\n".join([table, *against_peer(minutes)])


def against_peer(minutes: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return a line for each method of this project that reached the target: how it compares with the fastest of the peer."""
    peers = {name: found for name, found in minutes.items() if PEER_NAME in name}
    if not peers:
        return []
    best, lines = min(peers, key=lambda name: peers[name]["seconds"]), []
    least_cpu = min(found["cpu_seconds"] for found in peers.values())
    for name, found in minutes.items():
        if name not in peers:
            wall, cpu = (peers[best]["seconds"] / found["seconds"], least_cpu / found["cpu_seconds"])
            lines.append(f"{name}: {wall:.2f} times as fast as {best}; by CPU minutes, {cpu:.2f} times as fast as the least")
    return lines


def plot(runs: Sequence[Mapping[str, Any]], path: Path, *, target: float) -> None:
    """Draw mAP over CPU minutes, a line a run; the peer's are dashed."""
    from matplotlib.figure import Figure

    from benchmarks.methods.plots import finish

    figure = Figure(figsize=(9, 5), layout="constrained")
    panel = figure.subplots()
    colours: dict[str, str] = {}
    for one in runs:
        if one["curve"]:
            minutes, maps = ([point[kind] for point in one["curve"]] for kind in ("cpu_seconds", "map"))
            known = colours.setdefault(one["name"], f"C{len(colours) % 10}")
            label = None if any(one["name"] == line.get_label() for line in panel.lines) else one["name"]
            style = "--" if one["job"]["peer"] else "-"
            panel.plot(np.array(minutes) / 60, maps, style, color=known, label=label, marker=".", markersize=4)
    panel.axhline(target, color="0.6", linewidth=1)
    panel.set(xlabel="CPU minutes of training, scoring left out", ylabel="mAP", xlim=(0, None))
    panel.legend(fontsize=8, loc="lower right")
    finish(figure, path, title=f"mAP by time of training, {runs[0]['job']['bits']} bits; grey: the target, {target:g}")


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=str(ROOT / "configs" / "fashion_mnist.py"), help="a file of configs/")
    parser.add_argument("--target", type=float, default=0.8, help="mAP, above 0 and at most 1")
    parser.add_argument("--methods", type=names, default=("adsq", "greedyhash", "csq"), help="of this project, by commas")
    parser.add_argument("--bits", type=int, default=24)
    parser.add_argument("--seeds", type=numbers, default=(0,), help="separated by commas")
    parser.add_argument("--most-minutes", type=float, default=10.0, help="the longest training of a method, scoring left out")
    parser.add_argument("--score-every", type=int, default=1, help="passes of one network between two scores")
    parser.add_argument("--whole", action="store_true", help="go on after the target, for the plot")
    parser.add_argument("--rounds", type=numbers, help="of this project's runs, by commas, each a run; default: the config's")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a config key of this project's runs")
    parser.add_argument("--peer", type=storage.path, help=f"the folder of your clone of {PEER_NAME}")
    parser.add_argument("--peer-methods", type=names, default=("GreedyHash", "DTSH", "DPSH", "HashNet", "CSQ"))
    parser.add_argument("--peer-rates", default="1,100", help="factors on the peer's learning rates, separated by commas")
    parser.add_argument("--out", type=storage.path, default=ROOT / "benchmarks" / "results" / "time_to_map")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    return parser.parse_args(given)


def jobs_of(asked: argparse.Namespace) -> list[Job]:
    """Return the trainings that are asked for.

    Raises:
      InputError: a number is out of its range, or there is no such method or config key.
    """
    try:
        rates = [float(rate) for rate in asked.peer_rates.split(",")]
    except ValueError:
        rates = [0.0]
    for name, wrong, expected in (
        ("target", not 0 < asked.target <= 1, "above 0 and at most 1"),
        ("most-minutes", not 0 < asked.most_minutes < np.inf, "a number above 0"),
        ("score-every", asked.score_every < 1, "at least 1"),
        ("peer-rates", not all(0 < rate < np.inf for rate in rates), "numbers above 0, separated by commas"),
    ):
        if wrong:
            raise InputError(f"--{name}: expected {expected}, got {getattr(asked, name.replace('-', '_'))}; fix: give such")
    shared: dict[str, Any] = {"config": asked.config, "bits": asked.bits, "target": asked.target, "whole": asked.whole}
    shared |= {"most_minutes": asked.most_minutes, "score_every": asked.score_every}
    settings = dict(map(tasks.read_setting, asked.set))
    lengths = [settings | {"train.rounds": rounds} for rounds in asked.rounds or ()] or [settings]
    ours = [(name, some, seed) for name in asked.methods for some in lengths for seed in asked.seeds]
    wanted = [Job(method=name, seed=seed, settings=some, **shared) for name, some, seed in ours]
    if asked.peer:
        for name in asked.peer_methods:
            some = [(rate, seed) for rate in rates for seed in asked.seeds]
            wanted += [Job(method=name, seed=seed, peer=str(asked.peer), rate=rate, **shared) for rate, seed in some]
    for job in wanted:
        config_of(job)
        if job.peer and not (Path(job.peer) / f"{job.method}.py").is_file():
            raise InputError(f"--peer={job.peer}: expected a clone with {job.method}.py, got none; fix: give its folder")
    return wanted


def read(path: Path) -> list[dict[str, Any]]:
    """Read the runs of earlier calls.

    Raises:
      InputError: the file isn't one that this script wrote.
    """
    try:
        runs = json.loads(path.read_text())["runs"]
        for one in runs:
            identity(one["job"]), crossing(one["curve"], 1.0), one["failed"], one["name"]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{path}: expected results of this script, got {error!r}; fix: give another --out") from error
    return list(runs)


def measure(wanted: Sequence[Job], out: Path) -> str:
    """Train what isn't finished, write results and plot, and return the table of what was asked for.

    Args:
      wanted: trainings of one config and code length.
      out: the folder of the results.

    Raises:
      InputError: as `run` and `read`.
    """
    path = out / f"{tasks.set_name(wanted[0].config)}_{wanted[0].bits}bits.json"
    kept = read(path)
    out.mkdir(parents=True, exist_ok=True)
    for job in wanted:
        if not any(is_finished(one, job) for one in kept):
            made = run(job)
            kept = [one for one in kept if identity(one["job"]) != identity(made["job"])] + [made]
            workdir.write_json(path, {"runs": kept})
    asked = [one for job in wanted for one in kept if identity(one["job"]) == identity(recorded(job))]
    plot(asked, path.with_suffix(".png"), target=wanted[0].target)
    return f"{path}\n{summary(asked, target=wanted[0].target)}"


def main(given: Sequence[str] | None = None) -> None:
    """Measure and print; or run the process of one training."""
    asked = arguments(given)
    if asked.job:
        job = json.loads(asked.job)
        began = job.pop("began")
        serve(Job(**job), began=began)
        return
    print(measure(jobs_of(asked), asked.out))


if __name__ == "__main__":
    run_script(main)
