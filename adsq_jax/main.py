"""Trains one config to the end and measures it: `python -m adsq_jax.main --config=configs/digits.py --workdir=DIR`."""

import contextlib
import errno
import json
import re
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

from adsq_jax import command_line, config_check, storage
from adsq_jax import config as config_module
from adsq_jax.data import datasets
from adsq_jax.devices import data_parallel, host, processes, sharded_database
from adsq_jax.errors import InputError, Stopped
from adsq_jax.inference import evaluation, model
from adsq_jax.run import environment, tables, workdir
from adsq_jax.training.loop import train
from adsq_jax.training.rounds import Trainer
from adsq_jax.training.state import TrainState

_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO} | {
    errno.EEXIST,  # a file where a folder should be, or the other way round
    errno.ENOTDIR,
    errno.EISDIR,
}
_CONFIG = config_flags.DEFINE_config_file("config", help_string="A file of configs/, maybe with :bits=48.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; the same command goes on with what is there.")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0, for several processes; not needed on Cloud TPU, Slurm and MPI."
)
_PROCESSES = flags.DEFINE_integer("processes", None, "How many processes train together; with --coordinator.")
_PROCESS = flags.DEFINE_integer("process", None, "Which of them this is, from 0; with --coordinator.")


def main() -> None:
    """Reads the flags, and runs."""
    began = time.monotonic()
    if not isinstance(_CONFIG.value, ConfigDict) or not _WORKDIR.value:
        raise InputError("--config=FILE.py and --workdir=DIR are both needed, and the file must be there")
    config, directory = _CONFIG.value, workdir.path(_WORKDIR.value)
    config_check.check(config)
    _check_processes()
    content = json.loads(config.to_json())
    workdir.check(directory, content)
    if storage.is_file(directory / "result.json"):
        print(f"{directory} is finished.\n{_table(directory / 'result.json')}")
        return
    host.split_into_devices(batch_size=config.train.batch_size, host_devices=config.host_devices)
    processes.connect(coordinator=_COORDINATOR.value, processes=_PROCESSES.value, process=_PROCESS.value)
    try:
        result = _result(config, directory, content, began=began)
    except (Stopped, KeyboardInterrupt) as error:
        _tell_stopped(directory)
        if isinstance(error, KeyboardInterrupt):
            processes.hard_exit(130)
        processes.disconnect()  # all stop at the same step
        sys.exit(0 if error.args and error.args[0] == signal.SIGTERM else 130)
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        raise InputError(
            f"{error.filename or directory} can't be used ({error.strerror}): put that right, and give the same command again"
        ) from error
    if processes.leads():
        print(tables.result_table(result))
    processes.disconnect()


def _table(path: Path) -> str:
    try:
        return tables.result_table(workdir.read_json(path))
    except InputError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is no result of a run: restore it, or train in another folder") from error


def _check_processes() -> None:
    given = [flag.value is not None for flag in (_COORDINATOR, _PROCESSES, _PROCESS)]
    if any(given) and not all(given):
        raise InputError("--coordinator=HOST:PORT, --processes=N and --process=I go together: give all of them, or none")
    address = re.fullmatch(r"\S+:(\d{1,5})", _COORDINATOR.value or "")
    if _COORDINATOR.value is not None and not (address and 0 < int(address[1]) < 2**16):
        raise InputError(f"--coordinator={_COORDINATOR.value} must be HOST:PORT, of process 0")
    if _PROCESSES.value is not None and not 0 <= _PROCESS.value < _PROCESSES.value:
        raise InputError(f"--process={_PROCESS.value} and --processes={_PROCESSES.value} don't fit: they count from 0 to N - 1")


def _result(config: ConfigDict, directory: Path, content: dict[str, Any], *, began: float) -> dict[str, Any]:
    """The result of a run, in every process."""
    if processes.count() > 1:
        print(f"{processes.name()}: runs on {sharded_database.ShardedDatabase().describe()}", file=sys.stderr, flush=True)
    processes.check_same(config=config_module.sha256(config), code=environment.code_sha256())
    trainer = processes.run_on_all(lambda: _trainer(config))
    pretrained = trainer.pretrained.account["sha256"] if trainer.pretrained else ""
    processes.check_same(split=trainer.dataset.split_sha256, pretrained_weights=pretrained)
    with contextlib.ExitStack() as claimed:
        processes.run_on_all(lambda: claimed.enter_context(workdir.claim(directory, content)) if processes.leads() else None)
        _check_shared(directory)
        return run(trainer, directory, began=began)


def _check_shared(directory: Path) -> None:
    """Says that all processes have the same folder before them, and not one of the same name each."""
    if processes.count() == 1:
        return
    token = processes.broadcast_from_0(np.random.default_rng().integers(2**31, size=4, dtype=np.int32)).tolist()
    path = directory / ".token.json"
    processes.run_on_all(lambda: workdir.write_json(path, token) if processes.leads() else None)

    def seen() -> None:
        for _ in range(100):  # disks that several machines share show late what is new
            if storage.is_file(path) and workdir.read_json(path) == token:
                return
            time.sleep(0.1)
        raise InputError(f"--workdir={directory} is another folder than that of process 0: give one that all processes see")

    processes.run_on_all(seen)


def _trainer(config: ConfigDict) -> Trainer:
    dataset = datasets.load(config_module.data_settings(config))
    devices = data_parallel.devices_for_batch(config.train.batch_size)
    return Trainer(config, dataset, parallel=data_parallel.DataParallel(config.parallel, devices=devices))


def _tell_stopped(directory: Path) -> None:
    print(f"stopped: what is saved is in {directory}; resume with the same command", file=sys.stderr, flush=True)


def _leave_stopped(directory: Path) -> None:
    """Ends this process of several at once: the others have their own signal, and may wait for this one."""
    if processes.count() > 1:
        _tell_stopped(directory)
        processes.hard_exit(0)


def run(trainer: Trainer, directory: Path, *, began: float) -> dict[str, Any]:
    """Trains, evaluates, and writes `result.json`.

    Args:
      trainer: the run.
      directory: its folder, claimed.
      began: `time.monotonic()` when this sitting began.

    Returns:
      What `result.json` holds.

    Raises:
      InputError: a loss term is not finite.
      Stopped: a signal ended training early; the state is saved.
    """
    config, devices = trainer.config, sharded_database.ShardedDatabase()

    def measured(state: TrainState, kept_in: Path | None) -> dict[str, Any]:
        return evaluation.evaluate(
            trainer.encoder,
            state.img_nets,
            trainer.dataset,
            bits=config.bits,
            query_net=config.eval.query_net,
            directory=kept_in,
            devices=devices,
        )

    def validate(state: TrainState) -> float:
        return measured(state, None)["map"]

    state, seconds = train(trainer, directory=directory, began=began, validate=validate if config.data.validation else None)
    trained = time.monotonic()
    with command_line.stoppable(first=partial(_leave_stopped, directory)):  # nothing to save
        found = measured(state, directory)
        trained_state = trainer.outside(state)
    result = {
        **found,
        **environment.environment(),
        "method": config.method,
        "pretrained": None if trainer.pretrained is None else trainer.pretrained.account,
        "seed": config.seed,
        "config": json.loads(config.to_json()),
        "config_sha256": config_module.sha256(config),
        "seconds": seconds + time.monotonic() - trained,
        "seconds_train": seconds,
        "machine": trainer.parallel.describe(),
    }
    if processes.leads():
        options = trainer.pretrained.account["options"] if trainer.pretrained else {}
        model.save(directory, trained_state, config=config, img_net=trainer.whole_net, options=options)
        workdir.write_json(directory / "result.json", result)
    return result


if __name__ == "__main__":
    command_line.run(main)
