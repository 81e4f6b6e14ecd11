"""Train a config to the end and measure its codes.

adsq train --config=digits --workdir=DIR
"""

import contextlib
import importlib.util
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from adsq_jax import command_line, config_check, storage
from adsq_jax import config as config_module
from adsq_jax.devices import compiled_programs, data_parallel, host, processes
from adsq_jax.devices.sharded_database import ShardedDatabase
from adsq_jax.errors import InputError, Stopped, first_line, is_out_of_memory, is_system_error, remedy
from adsq_jax.inference import evaluation
from adsq_jax.inference.loading import BEST
from adsq_jax.inference.model import Model
from adsq_jax.report import figures
from adsq_jax.run import (
    config_files,
    environment,
    experiment_trackers,
    history,
    library_log,
    startup,
    tables,
    terminal,
    workdir,
)
from adsq_jax.run.experiment_trackers import Trackers
from adsq_jax.run.history import Finished
from adsq_jax.training import loop
from adsq_jax.training import sweep as trainings
from adsq_jax.training.setup import TrainSetup
from adsq_jax.training.state import TrainState
from adsq_jax.training.validation import Validation

_ROUNDS = "train.rounds"  # where a folder's config.json has the number of rounds
_LEAST_ADDRESS_SPACE = 5 << 29  # bytes; a run of the smallest network on two cores takes 2.7 GB


def main(arguments: Sequence[str]) -> None:
    """Read the flags, train, and print the result."""
    began = time.monotonic()
    flags = command_line.Flags(arguments, description=__doc__)
    _define(flags)
    given = flags.parse()
    terminal.outlive_reader()
    if not isinstance(given.config, ConfigDict) or not given.workdir:
        raise InputError("expected --workdir=DIR and a config: --config=NAME, or --config=FILE.py")
    config, directory, from_run = given.config, storage.path(given.workdir), getattr(given, "from")
    config_check.check(config)
    _check_processes(given)
    experiment_trackers.check(given.log)
    limit = startup.limits_problem(_LEAST_ADDRESS_SPACE)
    if limit is not None:
        raise InputError(limit)
    if given.sweep is not None:
        _sweep_command(arguments, given, directory)
        return
    changed = workdir.check(directory, json.loads(config.to_json()), **_may_differ(config, directory))
    if _is_finished(config, directory):
        _check_start(config, directory, from_run)
        print(f"The run in {directory} is finished.\n{_finished_text(directory)}")
        return
    for line in changed:
        print(f"changed since the run began: {line}", file=sys.stderr)
    host.split_into_devices(batch_size=config.train.batch_size, host_devices=config.host_devices)
    processes.connect(coordinator=given.coordinator, processes=given.processes, process=given.process)
    try:
        with _machine_errors(directory):
            result = train(config, directory, from_run=from_run, log_to=given.log, began=began)
    except (Stopped, KeyboardInterrupt) as error:
        _report_stopped(directory)
        if isinstance(error, KeyboardInterrupt):
            processes.hard_exit_if_several(130)
        processes.disconnect()  # all stop at the same step
        sys.exit(0 if error.args and error.args[0] == signal.SIGTERM else 130)
    if processes.leads():
        print(_text(result, directory))
    processes.disconnect()


def _define(flags: command_line.Flags) -> None:
    flags.config(
        "config",
        f"A config by name ({', '.join(config_files.names())}) or FILE.py; its argument follows a colon: digits:bits=48.",
        describe_keys=config_module.help_text,
    )
    flags.text("workdir", "The run's folder; the same command continues what is there.")
    flags.texts("log", "wandb or mlflow: send the metrics there, too; may be given twice. In the extras of these names.")
    flags.text("from", "A finished run, or a folder with its model: both ImgNets start from its weights.")
    flags.text("sweep", "One run for each combination of values, in folders of --workdir: 'bits=12,24;seed=0,1'.")
    flags.text("coordinator", "HOST:PORT of process 0, for several processes; not needed on Cloud TPU, Slurm and MPI.")
    flags.integer("processes", "How many processes train together; with --coordinator.", low=-(2**31))
    flags.integer("process", "Which of them this is, from 0; with --coordinator.", low=-(2**31))


def _may_differ(config: ConfigDict, directory: Path) -> dict[str, Any]:
    """Return what `workdir` needs to know about keys that may differ from those of an earlier call."""
    may_change = [*config_module.MAY_CHANGE]
    before = history.planned_before(directory, key=_ROUNDS)
    if before is not None and _finished(config, directory).rounds and before < config.train.rounds:
        may_change += config_module.MAY_CHANGE_WITH_ROUNDS
    return {"may_change": may_change, "added": config_module.added_defaults()}


def _finished(config: ConfigDict, directory: Path) -> Finished:
    """Return what the run had finished before rounds were added; raise InputError if none can be added."""
    return history.finished(directory, planned=config.train.rounds, key=_ROUNDS)


def _check_start(config: ConfigDict, directory: Path, from_run: str | Path | None) -> None:
    """Raise InputError if a finished run didn't start from the run that is given now."""
    if from_run is None:
        return
    given = loop.read_start(from_run, backbone=config.model.backbone, width=config.model.width)
    result = workdir.read_json(directory / "result.json")
    start = result.get("from") if isinstance(result, dict) else None
    if not isinstance(start, dict) or start.get("sha256") != given.sha256:
        raise InputError(
            f"the run in {directory} has finished, and didn't start from {from_run}; fix: leave out --from, or give another "
            "--workdir"
        )


def _is_finished(config: ConfigDict, directory: Path) -> bool:
    """Return whether the folder has the result of all rounds; that of fewer stays until rounds that were added are done."""
    path = directory / "result.json"
    if not storage.is_file(path):
        return False
    result = workdir.read_json(path)
    try:
        return bool(result["config"]["train"]["rounds"] >= config.train.rounds)
    except (LookupError, TypeError):
        return True  # whatever it is, it isn't overwritten


@contextlib.contextmanager
def _machine_errors(directory: Path) -> Iterator[None]:
    """Raise what the machine refuses or lacks during a training in a folder as an InputError."""
    try:
        yield
    except (OSError, MemoryError, RuntimeError) as error:
        problem = _machine_problem(error, directory)
        if problem is None:
            raise
        raise problem from error


def _machine_problem(error: Exception, directory: Path) -> InputError | None:
    """Return what the machine refused or lacks, as one line for the user; None for a defect."""
    if is_out_of_memory(error):
        return InputError(
            f"training needs more memory than there is ({first_line(error)}); fix: lower --config.train.batch_size or "
            "--config.data.image_size, or set --config.model.dtype=bfloat16, in a new --workdir; if only measuring needs it, "
            f"lower --config.eval.batch_size and repeat the command; or {remedy(error)}"
        )
    if isinstance(error, OSError) and is_system_error(error):
        place = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else directory
        return InputError(f"{place} can't be used ({error.strerror}); fix: {remedy(error)}, then run the same command again")
    return None


def _text(result: dict[str, Any], directory: Path) -> str:
    """Return a result's table, with what its rows mean where there are two networks, and what to do next."""
    several = len(result["map_by_query_net"]) > 1
    return "\n".join(
        [tables.result_table(result), *([tables.QUERY_NETS] if several else []), tables.next_steps(str(directory))]
    )


def _finished_text(directory: Path) -> str:
    path = directory / "result.json"
    try:
        return _text(workdir.read_json(path), directory)
    except InputError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is not a result of a run; fix: restore it, or train in another folder") from error


def _check_processes(given: SimpleNamespace) -> None:
    are_given = [value is not None for value in (given.coordinator, given.processes, given.process)]
    if any(are_given) and not all(are_given):
        raise InputError("--coordinator=HOST:PORT, --processes=N and --process=I go together; fix: give all of them, or none")
    address = re.fullmatch(r"\S+:(\d{1,5})", given.coordinator or "")
    if given.coordinator is not None and not (address and 0 < int(address[1]) < 2**16):
        raise InputError(f"--coordinator={given.coordinator}: expected HOST:PORT, of process 0")
    if given.processes is not None and not 0 <= given.process < given.processes:
        raise InputError(f"--process={given.process} and --processes={given.processes}: expected a number from 0 to N - 1")


def train(
    config: ConfigDict,
    directory: Path,
    *,
    from_run: str | Path | None = None,
    log_to: Collection[str] = (),
    began: float | None = None,
) -> dict[str, Any]:
    """Train a config in a folder, evaluate, and write the codes, the model and `result.json`.

    With several processes, every process must call this. Calling it again resumes the run; with more `train.rounds` it goes on
    from where the run had finished.

    Args:
      config: from a file of configs/, or `adsq_jax.config.default()`.
      directory: the run's folder; made if it isn't there.
      from_run: the folder of a finished run, or a `model/`: both ImgNets start from its weights. None: from random ones, or
        from `model.pretrained`.
      log_to: "wandb", "mlflow" or both: experiment trackers that get the metrics, too.
      began: `time.monotonic()` when the work began, for the result's seconds; None: now.

    Returns:
      The content of `result.json`, in every process.

    Raises:
      InputError: the config is wrong, the data are missing, the folder is another run's, or a loss term is not finite.
      Stopped: SIGINT or SIGTERM ended training early; the state is saved.
    """
    began = time.monotonic() if began is None else began
    config_check.check(config)
    content = json.loads(config.to_json())
    if processes.count() > 1:
        print(f"{processes.name()}: running on {ShardedDatabase().describe()}", file=sys.stderr, flush=True)
    processes.check_same(config=config_module.sha256(config), code=environment.code_sha256())
    finished = _finished(config, directory)
    processes.check_same(finished_rounds=str(finished))
    setup = processes.run_on_all(
        lambda: loop.load_setup(
            config,
            config_module.data_settings(config),
            data_parallel.devices_for_batch(config.train.batch_size),
            finished=finished,
            from_run=from_run,
        )
    )
    processes.check_same(split=setup.data.split_sha256, weights_at_the_start=loop.weights_sha256(setup) or "")
    with contextlib.ExitStack() as claim:
        processes.run_on_leader(lambda: claim.enter_context(_claim(config, directory, content, finished=finished)))
        _check_shared(directory)
        claim.enter_context(library_log.writing(directory))
        trackers = processes.run_on_leader(lambda: claim.enter_context(experiment_trackers.start(log_to, directory, content)))
        return train_and_evaluate(setup, config, directory, trackers=trackers, began=began)


def _claim(config: ConfigDict, directory: Path, content: dict[str, Any], *, finished: Finished) -> contextlib.ExitStack:
    may_differ = _may_differ(config, directory)
    workdir.check(directory, content, **may_differ)
    history.keep(directory, planned=config.train.rounds, key=_ROUNDS)  # before config.json has the new number
    with contextlib.ExitStack() as claim:
        claim.enter_context(workdir.claim(directory, content, **may_differ))
        if _finished(config, directory) != finished:
            raise InputError(f"--workdir={directory} was extended by another run meanwhile; fix: run the same command again")
        return claim.pop_all()


def sweep(
    make_config: Callable[..., ConfigDict],
    values: Mapping[str, Sequence[Any]],
    directory: Path,
    *,
    from_run: str | Path | None = None,
    log_to: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Train one run for each combination of some values, in folders of `directory`; call it again to continue.

    Runs that have finished are not trained again. A frozen backbone's features are computed once, for all runs that can share
    them. Writes `sweep.json` and, where matplotlib is installed, the plot `sweep.png`.

    Args:
      make_config: called with a value for each key; returns the config.
      values: by key, for instance {"bits": [12, 24], "seed": [0, 1]}.
      directory: the folder for all of them.
      from_run: as in `train`, for all runs.
      log_to: as in `train`.

    Returns:
      For each run its values, its folder's name, and the mAP and other facts of its result, or the error that ended it.

    Raises:
      InputError: a config is wrong, or the folder can't be used. A run that fails later doesn't stop the others.
      Stopped: SIGINT or SIGTERM ended training early; the state is saved.
    """
    runs = trainings.combinations(values)
    configs = {trainings.folder_name(of): make_config(**of).copy_and_resolve_references() for of in runs}
    trainings.check_different({name: config_module.sha256(config) for name, config in configs.items()}, count=len(runs))
    for config in configs.values():
        config_check.check(config)
        if not (config.optim.trunk_lr_scale or config.data.feature_cache or storage.is_remote(directory)):
            config.data.feature_cache = str(directory / "features")

    def train_one(of: Mapping[str, Any], folder: Path) -> Any:
        config = configs[trainings.folder_name(of)]
        workdir.check(folder, json.loads(config.to_json()), **_may_differ(config, folder))
        if _is_finished(config, folder):
            _check_start(config, folder, from_run)
            return workdir.read_json(folder / "result.json")
        try:
            with _machine_errors(folder):
                return train(config, folder, from_run=from_run, log_to=log_to)
        finally:
            compiled_programs.forget()  # the next run compiles its own

    rows = trainings.train_each(runs, train_one, directory, say=lambda text: print(text, file=sys.stderr, flush=True))
    found = trainings.means(rows)
    if found and importlib.util.find_spec("matplotlib"):
        workdir.write_bytes(directory / "sweep.png", figures.sweep(found))
    return rows


def _sweep_command(arguments: Sequence[str], given: SimpleNamespace, directory: Path) -> None:
    """Train the runs of --sweep, and print their table."""
    values = trainings.parse(given.sweep)
    host.split_into_devices(batch_size=given.config.train.batch_size, host_devices=given.config.host_devices)
    if given.coordinator is not None:
        raise InputError("--sweep trains in one process; fix: leave out --coordinator, or start each run by itself")
    processes.connect(coordinator=None, processes=None, process=None)  # finds those that Slurm or MPI have started
    if processes.count() > 1:
        raise InputError("--sweep trains in one process; fix: start only one, or each run by itself")
    try:
        start = getattr(given, "from")
        rows = sweep(lambda **of: _config_of(arguments, of), values, directory, from_run=start, log_to=given.log)
    except (Stopped, KeyboardInterrupt) as error:
        _report_stopped(directory)
        sys.exit(0 if error.args and error.args[0] == signal.SIGTERM else 130)
    has_plot = trainings.means(rows) and importlib.util.find_spec("matplotlib")
    shown = str(directory / "sweep.png") if has_plot else "none; for one, finish a run, and pip install 'adsq_jax[report]'"
    print(f"{trainings.table(rows)}\nplot: {shown}")
    if any("error" in row for row in rows):
        raise InputError(f"{sum('error' in row for row in rows)} of {len(rows)} runs failed: see above")


def _config_of(arguments: Sequence[str], values: Mapping[str, str]) -> ConfigDict:
    """Return the config of a command's arguments with other values: what can follow the file's colon goes there."""
    flags = command_line.Flags(command_line.with_values(arguments, values), description=None)
    _define(flags)
    config: ConfigDict = flags.parse().config
    return config


def _check_shared(directory: Path) -> None:
    """Raise InputError if some process sees another folder of the same name."""
    if processes.count() == 1:
        return
    token = processes.broadcast_from_0(np.random.default_rng().integers(2**31, size=4, dtype=np.int32)).tolist()
    path = directory / ".token.json"
    processes.run_on_leader(lambda: workdir.write_json(path, token))

    def wait_for_token() -> None:
        for _ in range(100):  # disks that several machines share show new files late
            if storage.is_file(path) and workdir.read_json(path) == token:
                return
            time.sleep(0.1)
        raise InputError(f"--workdir={directory} is another folder than process 0's; fix: give one that all processes see")

    processes.run_on_all(wait_for_token)


def train_and_evaluate(
    setup: TrainSetup, config: ConfigDict, directory: Path, *, trackers: Trackers | None = None, began: float
) -> dict[str, Any]:
    """Like `train`, for a setup that is already built and a folder that is already claimed."""
    folder = workdir.Identity(directory)
    validation = _validation(config, directory, folder) if config.data.validation else None
    setup, state, seconds = loop.train(
        setup,
        directory=directory,
        features=loop.feature_directory(config, directory),
        saving=loop.saving_from_config(config),
        origin=loop.origin(setup, json.loads(config.to_json())),
        began=began,
        validation=validation,
        trackers=trackers,
    )
    trained = time.monotonic()
    processes.run_on_leader(folder.check)
    model = _save_model(config, directory, setup, state)  # measuring it may need more memory or time than there is
    with command_line.stoppable(first=partial(_exit_if_one_of_several, directory)):  # nothing is left to save
        measures = _measure(config, setup, state, directory)
    result = {
        **measures,
        **environment.environment(),
        "method": config.method,
        "model_sha256": model.sha256,
        "pretrained": None if setup.pretrained is None else setup.pretrained.report,
        "from": setup.start_report,
        "best": _best(setup, validation),
        "seed": config.seed,
        "config": json.loads(config.to_json()),
        "config_sha256": config_module.sha256(config),
        "seconds": seconds + time.monotonic() - trained,
        "seconds_train": seconds,
        "machine": setup.devices.describe(),
    }
    processes.run_on_leader(folder.check)
    if processes.leads():
        done, taken = int(state.step) // setup.steps_per_round, result["seconds"]
        result["history"] = loop.add_to_history(setup, directory, rounds=done, seconds=taken, mean_ap=result["map"])
        workdir.write_json(directory / "result.json", result)
    if trackers is not None:
        trackers.set_result(result)
    return result


def _measure(config: ConfigDict, setup: TrainSetup, state: TrainState, codes_directory: Path | None = None) -> dict[str, Any]:
    """Measure a state's codes, and write them into a folder if there is one."""
    return evaluation.evaluate(
        setup.encoder,
        state.variables,
        setup.data,
        bits=config.bits,
        query_net=config.eval.query_net,
        directory=codes_directory,
        devices=ShardedDatabase(),
    )


def _validation(config: ConfigDict, directory: Path, folder: workdir.Identity) -> Validation:
    """Score states on the held-out images, and keep the best one's model in the run's folder, unless that was moved."""

    def save(setup: TrainSetup, state: TrainState) -> None:
        processes.run_on_leader(folder.check)
        _save_model(config, directory / BEST, setup, state)

    return Validation(
        lambda setup, state: float(_measure(config, setup, state)["map"]),
        save=save,
        directory=directory / BEST,
        patience=config.train.stop_after_rounds_without_gain,
    )


def _save_model(config: ConfigDict, directory: Path, setup: TrainSetup, state: TrainState) -> Model:
    """Write a state's model into a folder, and return it."""
    model = setup.model(state, query_net=config.eval.query_net)  # by all processes
    if processes.leads():
        model.save(directory)
    return model


def _best(setup: TrainSetup, validation: Validation | None) -> dict[str, Any] | None:
    """Return round and mAP of the model that is kept as the best on held-out images; None where there is none."""
    if validation is None or validation.best is None:
        return None
    step, measured = validation.best
    return {"round": step / setup.steps_per_round, "map": measured}


def _report_stopped(directory: Path) -> None:
    print(f"stopped: what is saved is in {directory}; resume with the same command", file=sys.stderr, flush=True)


def _exit_if_one_of_several(directory: Path) -> None:
    """If there are several processes, exit immediately: each gets its own signal, and the others may be waiting."""
    if processes.count() > 1:
        _report_stopped(directory)
        processes.hard_exit_if_several(0)


if __name__ == "__main__":
    command_line.run(main)
