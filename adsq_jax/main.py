"""Train a config to the end and measure its codes.

python -m adsq_jax.main --config=configs/digits.py --workdir=DIR
"""

import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from adsq_jax import command_line, config_check, storage
from adsq_jax import config as config_module
from adsq_jax.devices import data_parallel, host, processes
from adsq_jax.devices.sharded_database import ShardedDatabase
from adsq_jax.errors import InputError, Stopped, first_line, is_out_of_memory, is_system_error, remedy
from adsq_jax.inference import evaluation
from adsq_jax.run import environment, library_log, startup, tables, terminal, workdir
from adsq_jax.training import loop
from adsq_jax.training.setup import TrainSetup
from adsq_jax.training.state import TrainState

_LEAST_ADDRESS_SPACE = 5 << 29  # bytes; a run of the smallest network on two cores takes 2.7 GB


def main(arguments: Sequence[str]) -> None:
    """Read the flags, train, and print the result."""
    began = time.monotonic()
    flags = command_line.Flags(arguments, description=__doc__)
    flags.config("config", "A file of configs/, with its argument after a colon: configs/digits.py:bits=48.")
    flags.text("workdir", "The run's folder; the same command continues what is there.")
    flags.text("coordinator", "HOST:PORT of process 0, for several processes; not needed on Cloud TPU, Slurm and MPI.")
    flags.integer("processes", "How many processes train together; with --coordinator.", low=-(2**31))
    flags.integer("process", "Which of them this is, from 0; with --coordinator.", low=-(2**31))
    given = flags.parse()
    terminal.outlive_reader()
    if not isinstance(given.config, ConfigDict) or not given.workdir:
        raise InputError("--config=FILE.py and --workdir=DIR are both needed, and the file must be there")
    config, directory = given.config, storage.path(given.workdir)
    config_check.check(config)
    _check_processes(given)
    limit = startup.limits_problem(_LEAST_ADDRESS_SPACE)
    if limit is not None:
        raise InputError(limit)
    changed = workdir.check(directory, json.loads(config.to_json()), **_may_differ())
    if storage.is_file(directory / "result.json"):
        print(f"The run in {directory} is finished.\n{_finished_text(directory)}")
        return
    for line in changed:
        print(f"changed since the run began: {line}", file=sys.stderr)
    host.split_into_devices(batch_size=config.train.batch_size, host_devices=config.host_devices)
    processes.connect(coordinator=given.coordinator, processes=given.processes, process=given.process)
    try:
        result = train(config, directory, began=began)
    except (Stopped, KeyboardInterrupt) as error:
        _report_stopped(directory)
        if isinstance(error, KeyboardInterrupt):
            processes.hard_exit_if_several(130)
        processes.disconnect()  # all stop at the same step
        sys.exit(0 if error.args and error.args[0] == signal.SIGTERM else 130)
    except (OSError, MemoryError, RuntimeError) as error:
        problem = _machine_problem(error, directory)
        if problem is None:
            raise
        raise problem from error
    if processes.leads():
        print(_text(result, directory))
    processes.disconnect()


def _may_differ() -> dict[str, Any]:
    """Return what `workdir` needs to know about keys that may differ from those of an earlier sitting."""
    return {"may_change": config_module.MAY_CHANGE, "added": config_module.added_defaults()}


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


def train(config: ConfigDict, directory: Path, *, began: float | None = None) -> dict[str, Any]:
    """Train a config in a folder, evaluate, and write the codes, the model and `result.json`.

    With several processes, every process must call this. Calling it again resumes the run.

    Args:
      config: from a file of configs/, or `adsq_jax.config.default()`.
      directory: the run's folder; made if it isn't there.
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
    setup = processes.run_on_all(
        lambda: loop.load_setup(
            config, config_module.data_settings(config), data_parallel.devices_for_batch(config.train.batch_size)
        )
    )
    weights = setup.pretrained.report["sha256"] if setup.pretrained else ""
    processes.check_same(split=setup.data.split_sha256, pretrained_weights=weights)
    with contextlib.ExitStack() as claim:
        processes.run_on_leader(lambda: claim.enter_context(workdir.claim(directory, content, **_may_differ())))
        _check_shared(directory)
        claim.enter_context(library_log.writing(directory))
        return train_and_evaluate(setup, config, directory, began=began)


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


def train_and_evaluate(setup: TrainSetup, config: ConfigDict, directory: Path, *, began: float) -> dict[str, Any]:
    """Like `train`, for a setup that is already built and a folder that is already claimed."""
    devices, content = ShardedDatabase(), json.loads(config.to_json())
    folder = workdir.Identity(directory)

    def measure(setup: TrainSetup, state: TrainState, codes_directory: Path | None) -> dict[str, Any]:
        return evaluation.evaluate(
            setup.encoder,
            state.variables,
            setup.data,
            bits=config.bits,
            query_net=config.eval.query_net,
            directory=codes_directory,
            devices=devices,
        )

    def validate(setup: TrainSetup, state: TrainState) -> float:
        return measure(setup, state, None)["map"]

    setup, state, seconds = loop.train(
        setup,
        directory=directory,
        features=loop.feature_directory(config, directory),
        saving=loop.Saving(**config.checkpoint.to_dict(), log_every=config.train.log_every),
        origin=loop.origin(setup, content),
        began=began,
        validate=validate if config.data.validation else None,
    )
    trained = time.monotonic()
    processes.run_on_leader(folder.check)
    model = setup.model(state, query_net=config.eval.query_net)
    if processes.leads():
        model.save(directory)  # before it is measured, which may need more memory or time than there is
    with command_line.stoppable(first=partial(_exit_if_one_of_several, directory)):  # nothing is left to save
        measures = measure(setup, state, directory)
    result = {
        **measures,
        **environment.environment(),
        "method": config.method,
        "pretrained": None if setup.pretrained is None else setup.pretrained.report,
        "seed": config.seed,
        "config": content,
        "config_sha256": config_module.sha256(config),
        "seconds": seconds + time.monotonic() - trained,
        "seconds_train": seconds,
        "machine": setup.devices.describe(),
    }
    processes.run_on_leader(folder.check)
    if processes.leads():
        workdir.write_json(directory / "result.json", result)
    return result


def _report_stopped(directory: Path) -> None:
    print(f"stopped: what is saved is in {directory}; resume with the same command", file=sys.stderr, flush=True)


def _exit_if_one_of_several(directory: Path) -> None:
    """If there are several processes, exit immediately: each gets its own signal, and the others may be waiting."""
    if processes.count() > 1:
        _report_stopped(directory)
        processes.hard_exit_if_several(0)


if __name__ == "__main__":
    command_line.run(main)
