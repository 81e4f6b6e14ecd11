"""Compare methods: the same nets, data, epochs, tuning and metric for all.

    python -m benchmarks.methods.compare --config=configs/stamps.py --methods=csq,greedyhash --against=csq --trials=0 \\
        --bits=12,24 --seeds=2
    python -m benchmarks.methods.compare --config=configs/stamps.py --validation=200 --methods=all --bits=12,24,48

It tunes each method by up to four trials, two learning rates by the two choices in the method's TUNING_GRID, on training images
held out, at 24 bits and seed 0; with --trials=0 the methods keep their default settings. Then it trains each method with the
best trial's settings at each code length and seed, on the whole training set, measures it on the protocol's queries, and prints
a table of what was asked for. Each trial and each run adds a line to OUT/SET/runs.jsonl, from which
`python -m benchmarks.methods.report` makes pages of them. Finished runs are skipped: the command can be stopped and repeated at
any time, and repeated with more methods, bits or seeds. `benchmarks/methods/compare.sh` has the commands of docs/results/.
"""

import argparse
import contextlib
import multiprocessing
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from tqdm import tqdm

from adsq_jax import config as config_module
from adsq_jax import methods, storage
from adsq_jax.data import datasets
from adsq_jax.errors import InputError
from adsq_jax.run.tables import align
from benchmarks.methods import conditions, one_run, run_file, scores, tables, tasks
from benchmarks.methods.tasks import ADSQ, BUDGETS, TRIAL_BITS, TRIAL_SEED, TRIALS, Options, Task

HELD_OUT = 0.2  # of the training set, without --validation and --held-out


def arguments(given: Sequence[str] | None) -> dict[str, Any]:
    """Read the command line: the named arguments of `compare` that it gives."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, argument_default=argparse.SUPPRESS
    )
    parser.add_argument("--config", required=True, help="a file of configs/, maybe with :protocol=...; it names the data set")
    parser.add_argument("--methods", type=names, help="all, or names separated by commas; a dotted name is a module of yours")
    parser.add_argument("--against", help="one of the methods: the table has each other one's difference to it")
    parser.add_argument("--bits", type=numbers, help="code lengths separated by commas; default: 12,24,48")
    parser.add_argument(
        "--seeds", type=seeds, help="how many, 0 upwards: 2 is 0 and 1; or a list: 0,3, and 5, with a comma for one"
    )
    parser.add_argument("--trials", type=int, help=f"how many of the {TRIALS} trials; 0: the methods' default settings")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--conditions", type=names, help=f"harder data: {', '.join(conditions.NAMES)}")
    instead.add_argument("--variants", type=names, help="all, or names of benchmarks/methods/variants.py: changed ADSQs")
    instead.add_argument(
        "--budget", type=names, dest="budgets", help=f"all, or some of {', '.join(BUDGETS)}, for one-network methods"
    )
    parser.add_argument("--set", action="append", dest="settings", metavar="KEY=VALUE", help="a config key of all runs")
    parser.add_argument("--validation", type=int, help="training images held out in trials; default: a fifth")
    parser.add_argument(
        "--held-out",
        action="append",
        metavar="KEY=VALUE",
        help="in place of --validation: a config key of the trials' own split, for instance data.lists=FOLDER, for images "
        "that a random draw must not separate; a key that is given again begins a further split, the others stay: a trial's "
        "score is the mean over the splits",
    )
    parser.add_argument("--jobs", type=int, help="runs at a time, each on its part of the cores; default: 1")
    parser.add_argument("--out", type=storage.path, help=f"the folder of the results; default: {Options.out}")
    parser.add_argument(
        "--work", type=storage.path, help=f"the folder of runs in progress and of features; default: {Options.work}"
    )
    asked = vars(parser.parse_args(given))
    settings = {key: list(map(tasks.read_setting, asked[key])) for key in ("settings", "held_out") if key in asked}
    read = {"settings": dict, "held_out": tasks.read_folds}
    return asked | {key: read[key](pairs) for key, pairs in settings.items()}


def names(text: str) -> tuple[str, ...]:
    """Parse `noise20,few20`; each name comes once."""
    return tuple(dict.fromkeys(text.split(",")))


def numbers(text: str) -> tuple[int, ...]:
    """Parse `12,24,48` or `12,`; each number comes once."""
    return tuple(dict.fromkeys(int(number) for number in text.removesuffix(",").split(",")))


def seeds(text: str) -> tuple[int, ...]:
    """Parse how many seeds, `3`, or which, `0,1` or `5,`."""
    return numbers(text) if "," in text else tuple(range(int(text)))


def compare(
    config: str,
    *,
    methods: Sequence[str] = Options.methods,
    against: str = Options.against,
    bits: Sequence[int] = Options.bits,
    seeds: int | Sequence[int] = Options.seeds,
    trials: int = Options.trials,
    conditions: Sequence[str] = Options.conditions,
    variants: Sequence[str] = Options.variants,
    budgets: Sequence[str] = Options.budgets,
    settings: Mapping[str, Any] | None = None,
    validation: int = Options.validation,
    held_out: Mapping[str, Any] | Sequence[Mapping[str, Any]] = Options.held_out,
    jobs: int = Options.jobs,
    out: Path = Options.out,
    work: Path = Options.work,
) -> str:
    """Tune, train and measure what isn't finished, and return the table of what was asked for.

    A script that calls this needs `if __name__ == "__main__":`, since the runs are processes of their own.

    Args:
      config: a file of configs/, maybe with its argument after a colon.
      methods: names of METHODS, dotted names of modules with a method, or "all".
      against: one of the methods: each other row's difference to it is added, with its interval.
      bits: code lengths, 1 to 256.
      seeds: how many, from 0 on, or which.
      trials: how many of a method's four trials choose its settings; 0: its default settings.
      conditions: names of `conditions.NAMES`: train on harder data.
      variants: names of `variants.VARIANTS`, or "all": train changed ADSQs.
      budgets: names of `tasks.BUDGETS`, or "all": train one-network methods for longer, or two of their networks.
      settings: config keys of all runs.
      validation: training images held out in trials, an even number; 0: a fifth.
      held_out: in place of `validation`, config keys of the trials' own split, or of several: a trial's score is their mean.
      jobs: runs at a time, each on its part of the cores.
      out: the folder of the results.
      work: the folder of runs in progress and of features.

    Returns:
      A row a method, or a variant or budget of one, under each condition: mAP at each code length, mean ± standard deviation
      over the seeds.

    Raises:
      InputError: an option isn't valid, or a finished run has another config.
    """
    options = Options(
        config=config,
        methods=methods,
        against=against,
        bits=bits,
        seeds=range(seeds) if isinstance(seeds, int) else seeds,
        trials=trials,
        conditions=conditions,
        variants=variants,
        budgets=budgets,
        settings=settings or {},
        validation=validation,
        held_out=[held_out] if isinstance(held_out, Mapping) else held_out,
        jobs=jobs,
        out=out,
        work=work,
    )
    return table(options, run(options))


def run(options: Options) -> list[Task]:
    """Do everything that is asked for and not finished: trials, then runs, or runs of conditions, variants or budgets.

    Returns:
      The runs that were asked for, without the trials.

    Raises:
      InputError: a method, code length or config is not valid, or a finished run has another config.
    """
    path = results_path(options)
    check(options)
    best = {method: Task(method, TRIAL_BITS, TRIAL_SEED, {}) for method in options.methods}
    if options.trials:
        folds = folds_of(options)
        trials = {method: tasks.trials(method, folds=folds, count=options.trials) for method in options.methods}
        work([task for several in trials.values() for task in several], path, options)
        finished = read_finished(path)
        best = {method: tasks.best_trial(several, finished) for method, several in trials.items()}
    if options.variants:
        wanted = tasks.variant_runs(best[ADSQ], options)
    else:
        wanted = [
            task
            for condition in options.conditions or [""]
            for budget in options.budgets or [""]
            for task in tasks.runs(best, options, condition=condition, budget=budget)
        ]
    work(wanted, path, options)
    return wanted


def results_path(options: Options) -> Path:
    """Return the file of the data set's runs."""
    return options.out / tasks.set_name(options.config) / run_file.NAME


def table(options: Options, wanted: list[Task]) -> str:
    """Write a table of finished runs: mean and spread, and with --against the differences.

    Args:
      options: what was asked for.
      wanted: the runs.

    Returns:
      Aligned lines of text.
    """
    rivals = [task._replace(method=options.against, variant="", budget="") for task in wanted if options.against]
    path, asked = results_path(options), {task.name for task in (*wanted, *rivals)}
    lines = [scores.check_line(line, path.parent.name) for line in run_file.read(path) if run_file.name_of(line) in asked]
    rows, rival = [], scores.BOTH if options.against == ADSQ else scores.display_name(options.against)
    head = ["method", *(f"{bits} bits" for bits in options.bits)]
    head += [f"minus {rival}, {bits} bits" for bits in options.bits] if options.against else []
    for condition in dict.fromkeys(task.condition for task in wanted):
        cells = scores.table_of(line for line in lines if line["condition"] == condition)
        for name, row in cells.items():
            texts = [tables.cell_text(row.get(bits), seeds=len(options.seeds)) for bits in options.bits]
            if options.against:
                texts += [tables.against_text(cells, name, rival, bits) for bits in options.bits]
            rows.append([", ".join(filter(None, (name, condition))), *texts])
    about = f"{path}: mAP, mean ± standard deviation over {tables.count(len(options.seeds), 'seed')}"
    return f"{about}{f'; {tables.INTERVAL}' if options.against else ''}\n{align([head, *rows])}"


def check(options: Options) -> None:
    """Check what is asked for before the first run.

    Raises:
      InputError: as `run`.
    """
    if options.jobs < 1:
        raise InputError(f"--jobs={options.jobs} must be at least 1")
    if not 0 <= options.trials <= TRIALS:
        raise InputError(f"--trials={options.trials}: expected 0 to {TRIALS}")
    if (options.held_out or options.validation) and not options.trials:
        raise InputError("--validation and --held-out are for trials, and --trials=0 asks for none: leave them out")
    tuned = {
        key
        for method in options.methods
        for task in tasks.trials(method, folds=[tasks.Fold(0)], count=options.trials)
        for key in task.changes
    }
    wrong = [key for key in options.settings if key in tuned.union(tasks.TASK_KEYS)]
    if wrong:
        raise InputError(
            f"--set {wrong[0]}: it differs between runs: leave it to --methods, --bits, --seeds, --validation and the trials"
        )
    others = [key for fold in options.held_out for key in fold if not key.startswith("data.")]
    if others:
        raise InputError(f"--held-out {others[0]}: expected a key of config.data, as data.lists=FOLDER")
    if any(fold in options.held_out[:number] for number, fold in enumerate(options.held_out)):
        raise InputError("--held-out: expected different splits, got one twice; fix: leave one of them out")
    if options.held_out and options.validation:
        raise InputError("--validation and --held-out both say what the trials hold out: give one")
    for name in options.conditions:
        conditions.check(name)
    if options.variants and ADSQ not in options.methods:
        raise InputError(f"--variants are changed ADSQs: give --methods={ADSQ} with them")
    twins = [method for method in options.methods if options.budgets and methods.find(method, allow_import=True)().twin]
    if twins:
        raise InputError(
            f"--budget is for methods of one network, and {', '.join(twins)} trains two: leave it out of --methods"
        )
    for method in options.methods:
        for bits in options.bits:
            tasks.config_of(Task(method, bits, TRIAL_SEED, {}), options)
    for seed in options.seeds:
        tasks.config_of(Task(options.methods[0], TRIAL_BITS, seed, {}), options)


def folds_of(options: Options) -> list[tasks.Fold]:
    """Return the splits that the trials are tuned on.

    Raises:
      InputError: --validation isn't an even number of training images, --held-out has other images than training images or
        holds out none, or the data can't be read.
    """
    task = Task(options.methods[0], TRIAL_BITS, TRIAL_SEED, {})
    dataset = datasets.load(config_module.data_settings(tasks.config_of(task, options)))
    n_train = len(dataset.split.train)
    if options.held_out:
        known = {dataset.source.name(int(row)) for row in dataset.split.train}
        return [own_fold(fold, task, options, known=known) for fold in options.held_out]
    validation = options.validation or int(HELD_OUT * n_train) // 2 * 2
    if validation % 2 or not 2 <= validation < n_train:
        raise InputError(
            f"--validation={validation} must be an even number, at least 2 and below the {n_train} training images"
        )
    return [tasks.Fold(validation)]


def own_fold(keys: Mapping[str, Any], task: Task, options: Options, *, known: set[str]) -> tasks.Fold:
    """Check a fold of --held-out against the names of the training images.

    Raises:
      InputError: as `folds_of`.
    """
    tuning = datasets.load(config_module.data_settings(tasks.config_of(task._replace(held_out=keys), options)))
    others = {tuning.source.name(int(row)) for rows in tuning.split for row in rows} - known
    if others:
        raise InputError(f"--held-out: {min(others)} is no training image of {options.config}: give a split of these alone")
    if len(tuning.split.train) >= len(known):
        raise InputError(f"--held-out: it trains on all {len(known)} training images: leave some of them for validation")
    return tasks.Fold(len(known) - len(tuning.split.train), keys)


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


def work(wanted: list[Task], path: Path, options: Options) -> None:
    """Run the tasks that have no line in a data set's file, and add their lines.

    Raises:
      InputError: a line has another config, a folder can't be written, or a run failed.
    """
    finished, missing = read_finished(path), []
    for task in wanted:
        config_sha256 = tasks.fingerprint(tasks.config_of(task, options))
        if task.name in finished:
            run_file.check_config(finished[task.name], config_sha256)
        else:
            missing.append(task)
    if not missing:
        return
    try:
        options.work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{error.filename} can't be made ({error.strerror}): give another --work") from error
    context = multiprocessing.get_context("spawn")
    cores = context.Queue()
    for number in range(options.jobs):
        cores.put(number)
    with ProcessPoolExecutor(
        options.jobs, mp_context=context, initializer=one_run.start_worker, initargs=(cores, options)
    ) as pool:
        running: dict[Future[dict[str, Any]], Task] = {}
        try:
            with ignored_interrupts():
                running |= {pool.submit(one_run.train, task, options): task for task in missing}
            for done in tqdm(as_completed(running), total=len(missing), unit=" runs", dynamic_ncols=True):
                task = running.pop(done)
                line = outcome(done, task)
                run_file.append(path, line)
                tqdm.write(f"{task.name}: mAP {line['map']:.4f}", file=sys.stderr)
        except BaseException as error:
            failed = isinstance(error, Exception)
            pool.shutdown(wait=failed, cancel_futures=True)
            if not failed:
                end_workers(options.work)
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


def run_script(main: Callable[[], None]) -> None:
    """Run a script that can be repeated after a stop; what it started ends with it."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # what it started ends too
    try:
        main()
    except InputError as problem:
        sys.stderr.write(f"error: {' '.join(str(problem).split())}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("stopped: repeat the command to go on\n")
        sys.exit(130)


if __name__ == "__main__":
    run_script(lambda: print(compare(**arguments(None))))
