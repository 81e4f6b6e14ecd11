"""Compare the methods: the same nets, data, budget, tuning and metric for all.

    python -m benchmarks.methods.compare --config=configs/stamps.py --validation=200 --methods=all --bits=12,24,48 --seeds=0,1,2
    python -m benchmarks.methods.report --write

First it tunes each method: four trials, two learning rates by the two choices in the method's TUNING_GRID, on training images
held out, at 24 bits and seed 0. Then it trains the method with the best trial's settings at each code length and seed, on the
whole training set, and measures it on the protocol's queries. Each trial and each run adds a line to OUT/SET/runs.jsonl.
Finished runs are skipped: the command can be stopped and repeated at any time, and repeated with more methods, bits or seeds.
`benchmarks/methods/compare.sh` has the commands of RESULTS.md.
"""

import argparse
import contextlib
import multiprocessing
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from tqdm import tqdm

from adsq_jax import config as config_module
from adsq_jax import storage
from adsq_jax.data import datasets
from adsq_jax.errors import InputError
from benchmarks.methods import conditions, one_run, run_file, tasks
from benchmarks.methods.tasks import ADSQ, TRIAL_BITS, TRIAL_SEED, Task

OUT = Path("benchmarks/results/compare")
WORK = Path("runs/compare")
HELD_OUT = 0.2  # of the training set, without --validation and --held-out


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="a file of configs/, maybe with :protocol=...; it names the data set")
    parser.add_argument("--methods", default="all", help="all, or names separated by commas")
    parser.add_argument("--bits", type=numbers, default=(12, 24, 48))
    parser.add_argument("--seeds", type=numbers, default=(0, 1, 2))
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--beyond", type=tasks.names, default=(), help=f"conditions: {', '.join(conditions.NAMES)}")
    instead.add_argument("--variants", default="", help="all, or names of benchmarks/methods/variants.py: changed ADSQs")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a config key of all runs")
    parser.add_argument("--validation", type=int, default=0, help="training images held out in trials; default: a fifth")
    parser.add_argument(
        "--held-out",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="in place of --validation: a config key of the trials' own split, for instance data.lists=FOLDER, for images "
        "that a random draw must not separate",
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each on its part of the cores")
    parser.add_argument("--out", type=storage.path, default=OUT, help="the folder of the results")
    parser.add_argument(
        "--work", type=storage.path, default=WORK, help="the folder of runs in progress and of frozen trunks' features"
    )
    return parser.parse_args(given)


def numbers(text: str) -> tuple[int, ...]:
    """Parse `12,24,48`; each number comes once."""
    return tuple(dict.fromkeys(int(number) for number in text.split(",")))


def run(given: argparse.Namespace) -> None:
    """Do everything that is asked for and not finished: trials, then runs, or runs under conditions, or variants.

    Raises:
      InputError: a method, code length or config is not valid, or a finished run has another config.
    """
    path = given.out / tasks.set_name(given.config) / run_file.NAME
    methods = tasks.chosen_methods(given.methods)
    check(given, methods)
    split = dict(map(tasks.read_setting, given.held_out))
    validation = held_out(given, methods[0], split=split)
    trials = {method: tasks.trials(method, validation=validation, split=split) for method in methods}
    work([task for several in trials.values() for task in several], path, given)
    finished = read_finished(path)
    best = {
        method: max(several, key=lambda task: finished[task.name]["map"])._replace(validation=0, held_out={})
        for method, several in trials.items()
    }
    if given.beyond:
        wanted = [task for name in given.beyond for task in tasks.runs(best, given, condition=name)]
    elif given.variants:
        wanted = tasks.variant_runs(best[ADSQ], given)
    else:
        wanted = tasks.runs(best, given)
    work(wanted, path, given)


def check(given: argparse.Namespace, methods: list[str]) -> None:
    """Check the command line before the first run.

    Raises:
      InputError: as `run`.
    """
    if given.jobs < 1:
        raise InputError(f"--jobs={given.jobs} must be at least 1")
    tuned = {key for method in methods for task in tasks.trials(method, validation=0, split={}) for key in task.changes}
    wrong = [key for key, _ in map(tasks.read_setting, given.set) if key in tuned.union(tasks.TASK_KEYS)]
    if wrong:
        raise InputError(
            f"--set {wrong[0]}: it differs between runs: leave it to --methods, --bits, --seeds, --validation and the trials"
        )
    others = [key for key, _ in map(tasks.read_setting, given.held_out) if not key.startswith("data.")]
    if others:
        raise InputError(f"--held-out {others[0]}: expected a key of config.data, as data.lists=FOLDER")
    if given.held_out and given.validation:
        raise InputError("--validation and --held-out both say what the trials hold out: give one")
    for name in given.beyond:
        conditions.check(name)
    if given.variants:
        tasks.chosen_variants(given.variants)
        if ADSQ not in methods:
            raise InputError(f"--variants are changed ADSQs: give --methods={ADSQ} with them")
    for method in methods:
        for bits in given.bits:
            tasks.config_of(Task(method, bits, TRIAL_SEED, {}), given)
    for seed in given.seeds:
        tasks.config_of(Task(methods[0], TRIAL_BITS, seed, {}), given)


def held_out(given: argparse.Namespace, method: str, *, split: dict[str, Any]) -> int:
    """Return the number of training images that the trials hold out.

    Raises:
      InputError: --validation isn't an even number of training images, --held-out has other images than training images or
        holds out none, or the data can't be read.
    """
    task = Task(method, TRIAL_BITS, TRIAL_SEED, {})
    dataset = datasets.load(config_module.data_settings(tasks.config_of(task, given)))
    n_train = len(dataset.split.train)
    if split:
        config = tasks.config_of(task._replace(held_out=split), given)
        tuning = datasets.load(config_module.data_settings(config))
        known = {dataset.source.name(int(row)) for row in dataset.split.train}
        others = {tuning.source.name(int(row)) for rows in tuning.split for row in rows} - known
        if others:
            raise InputError(f"--held-out: {min(others)} is no training image of {given.config}: give a split of these alone")
        if len(tuning.split.train) >= n_train:
            raise InputError(f"--held-out: it trains on all {n_train} training images: leave some of them for validation")
        return n_train - len(tuning.split.train)
    validation = given.validation or int(HELD_OUT * n_train) // 2 * 2
    if validation % 2 or not 2 <= validation < n_train:
        raise InputError(
            f"--validation={validation} must be an even number, at least 2 and below the {n_train} training images"
        )
    return validation


def read_finished(path: Path) -> dict[str, dict[str, Any]]:
    """Read a data set's finished runs by name.

    Raises:
      InputError: a line is no run's, or two lines are the same run's.
    """
    finished: dict[str, dict[str, Any]] = {}
    for line in run_file.read(path):
        try:
            name = run_file.name_of(line)
            line |= {"map": float(line["map"]), "config_sha256": str(line["config_sha256"])}
        except (LookupError, TypeError, ValueError) as error:
            raise InputError(f"{line['where']} is no result of a run: remove the line, or give another --out") from error
        if name in finished:
            raise InputError(f"{line['where']} and {finished[name]['where']} are of the same run ({name}): remove one line")
        finished[name] = line
    return finished


def work(wanted: list[Task], path: Path, given: argparse.Namespace) -> None:
    """Run the tasks that have no line in a data set's file, and add their lines.

    Raises:
      InputError: a line has another config, a folder can't be written, or a run failed.
    """
    finished, missing = read_finished(path), []
    for task in wanted:
        config_sha256 = tasks.fingerprint(tasks.config_of(task, given))
        if task.name not in finished:
            missing.append(task)
        elif finished[task.name]["config_sha256"] != config_sha256:
            where = finished[task.name]["where"]
            raise InputError(f"{where} ({task.name}) is of another config: remove the line, or give another --out")
    if not missing:
        return
    try:
        given.work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{error.filename} can't be made ({error.strerror}): give another --work") from error
    context = multiprocessing.get_context("spawn")
    numbers = context.Queue()
    for number in range(given.jobs):
        numbers.put(number)
    with ProcessPoolExecutor(
        given.jobs, mp_context=context, initializer=one_run.start_worker, initargs=(numbers, given)
    ) as pool:
        running: dict[Future[dict[str, Any]], Task] = {}
        try:
            with ignored_interrupts():
                running |= {pool.submit(one_run.train, task, given): task for task in missing}
            for done in tqdm(as_completed(running), total=len(missing), unit=" runs", dynamic_ncols=True):
                task = running.pop(done)
                line = outcome(done, task)
                run_file.append(path, line)
                tqdm.write(f"{task.name}: mAP {line['map']:.4f}", file=sys.stderr)
        except BaseException as error:
            failed = isinstance(error, Exception)
            pool.shutdown(wait=failed, cancel_futures=True)
            if not failed:
                end_workers(given.work)
            for done in running:  # what was running beside a failed run is finished by now
                if done.done() and not done.cancelled() and done.exception() is None:
                    run_file.append(path, done.result())
            raise


def outcome(done: Future[dict[str, Any]], task: Task) -> dict[str, Any]:
    """Return the line of a run that has ended.

    Raises:
      InputError: the run failed.
    """
    try:
        return done.result()
    except InputError as error:
        raise InputError(f"{task.name}: {error}") from error
    except BrokenProcessPool as error:
        raise InputError(f"{task.name}, or a run beside it, was killed, maybe for its memory: give fewer --jobs") from error


@contextlib.contextmanager
def ignored_interrupts() -> Iterator[None]:
    """Have processes that start meanwhile ignore Ctrl-C, which a terminal sends to all of them; this process ends them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def end_workers(folder: Path) -> None:
    """Kill this process's workers, and remove the folders of their runs."""
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()
        for run_folder in folder.glob(f"*_{worker.pid}_????????"):
            shutil.rmtree(run_folder, ignore_errors=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # the workers end too
    try:
        run(arguments(None))
    except InputError as problem:
        sys.stderr.write(f"error: {' '.join(str(problem).split())}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("stopped: repeat the command to go on\n")
        sys.exit(130)
