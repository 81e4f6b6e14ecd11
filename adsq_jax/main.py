"""Trains one config to the end and measures it: `python -m adsq_jax.main --config=configs/digits.py --workdir=DIR`."""

import errno
import json
import sys
import time
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from adsq_jax import command_line, parallel, results, workdir
from adsq_jax import config as config_module
from adsq_jax.data import datasets
from adsq_jax.errors import InputError, Stopped
from adsq_jax.train import train
from adsq_jax.trainer import Trainer

_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
_CONFIG = config_flags.DEFINE_config_file("config", help_string="A file of configs/, maybe with :bits=48.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; the same command goes on with what is there.")


def main() -> None:
    """Reads the flags, and runs."""
    began = time.monotonic()
    if not isinstance(_CONFIG.value, ConfigDict) or not _WORKDIR.value:
        raise InputError("--config=FILE.py and --workdir=DIR are both needed, and the file must be there")
    config, directory = _CONFIG.value, Path(_WORKDIR.value)
    config_module.check(config)
    content = json.loads(config.to_json())
    workdir.check(directory, content)
    if (directory / "result.json").exists():
        print(f"{directory} is finished.\n{results.table(workdir.read_json(directory / 'result.json'))}")
        return
    parallel.split_host(batch_size=config.train.batch_size, host_devices=config.host_devices)
    try:
        settings = config_module.data_settings(config)
        devices = parallel.sharing(config.train.batch_size)
        trainer = Trainer(config, datasets.load(settings), parallel=parallel.DataParallel(config.parallel, devices=devices))
        with workdir.claim(directory, content):
            result = run(trainer, directory, began=began)
    except (Stopped, KeyboardInterrupt):
        print(f"stopped: the same command goes on from the last checkpoint in {directory}, if there is one", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        raise InputError(
            f"{error.filename or directory} can't be used ({error.strerror}): make room, and give the same command again"
        ) from error
    print(results.table(result))


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
    config = trainer.config
    state, seconds = train(trainer, directory=directory, began=began)
    trained = time.monotonic()
    found = results.evaluate(
        trainer.encoder,
        state.img_nets,
        trainer.dataset,
        bits=config.bits,
        query_net=config.eval.query_net,
        directory=directory,
        spread=parallel.Spread(),
    )
    result = {
        **found,
        **results.environment(),
        "method": config.method,
        "pretrained": None if trainer.pretrained is None else trainer.pretrained.account,
        "seed": config.seed,
        "config": json.loads(config.to_json()),
        "config_sha256": config_module.sha256(config),
        "seconds": seconds + time.monotonic() - trained,
        "seconds_train": seconds,
        "machine": trainer.parallel.describe(),
    }
    workdir.write_json(directory / "result.json", result)
    return result


if __name__ == "__main__":
    command_line.run(main)
