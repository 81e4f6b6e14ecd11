"""The loop: restore, step 1, rounds, is it time to save, to stop."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adsq_jax.data.datasets import facts
from adsq_jax.devices import processes
from adsq_jax.errors import InputError, Stopped
from adsq_jax.models import network
from adsq_jax.run.checkpoint import Checkpoints
from adsq_jax.run.metrics_log import MetricsLog, SilentLog
from adsq_jax.training.rounds import NotFinite, Trainer
from adsq_jax.training.state import TrainState


def train(
    trainer: Trainer, *, directory: Path, began: float, validate: Callable[[TrainState], float] | None
) -> tuple[TrainState, float]:
    """Trains to the end, from the last checkpoint if there is one. Every process of a run calls it.

    Args:
      trainer: the run.
      directory: its folder, claimed.
      began: `time.monotonic()` when this sitting began.
      validate: measures a state on held-out images, for each checkpoint: the best one is kept; None: none is held out.

    Returns:
      The final state, and the seconds up to here, all sittings together.

    Raises:
      InputError: a loss term is not finite, a checkpoint can't be written, or it is of other data.
      Stopped: SIGINT or SIGTERM came, its number is the argument; the state is saved, but nothing of an unfinished step 1.
    """
    checkpoints = Checkpoints(directory / "checkpoints", keep=trainer.config.checkpoint.keep, rows=trainer.size)
    origin = _origin(trainer)
    start = trainer.init()
    restored = checkpoints.restore(trainer.outside(start))
    before = 0.0
    if restored is not None:
        try:
            before = float(restored[1]["seconds"])
            _check_same(restored[1], origin, trainer, directory)
        except (LookupError, TypeError) as error:
            raise InputError(
                f"the checkpoint in {directory} doesn't say what it is of: go on with the version of adsq_jax that wrote it, "
                "or give a new --workdir"
            ) from error
    progress: MetricsLog = SilentLog()
    if processes.leads():
        first = None if restored is None else int(restored[0].step)
        progress = MetricsLog(directory, start=first, total=trainer.total_steps)
    progress.say(f"runs on {trainer.parallel.describe()}")
    if trainer.pretrained is not None:
        progress.say(network.format_account(trainer.pretrained.account))

    def save(state: TrainState) -> None:
        measured = None if validate is None else validate(state)
        if measured is not None:
            progress.record("validation", int(state.step), {"map": measured}, labels={})
            progress.say(f"validation, step {int(state.step)}: mAP {measured:.4f}")
        info = {"seconds": before + time.monotonic() - began, **origin}
        checkpoints.save(int(state.step), trainer.outside(state), info=info, measured=measured)

    try:
        with _stop_on_signal() as stop:
            # One process may have more of the features to compute than others, so they can't agree on when to stop.
            trainer.prepare(
                start if restored is None else restored[0],
                directory=directory,
                stop=stop if processes.count() == 1 else lambda: False,
            )
            if restored is not None:
                state = restored[0]
                progress.say(f"goes on from step {int(state.step)} of {trainer.total_steps}")
            else:
                state = trainer.step_1(start, progress=progress, stop=stop)
                save(state)
            state = _step_2(trainer, state, progress=progress, stop=stop, save=save)
    except NotFinite as error:
        kept = checkpoints.steps()
        good = f"the last good checkpoint, step {kept[-1]}, is kept" if kept else "there is no checkpoint yet"
        raise InputError(
            f"{error}; {good}: lower the learning rate (--config.optim.learning_rate, --config.label_net.learning_rate) or "
            "the term's weight, and give a new --workdir"
        ) from error
    finally:
        progress.close()
        checkpoints.close()
    return state, before + time.monotonic() - began


def _origin(trainer: Trainer) -> dict[str, Any]:
    """What a checkpoint's numbers came from: config, data, and weights."""
    weights = None if trainer.pretrained is None else trainer.pretrained.account["sha256"]
    data = facts(trainer.dataset)
    return {"config": json.loads(trainer.config.to_json()), "data": data, "pretrained_sha256": weights}


def _check_same(info: dict[str, Any], now: dict[str, Any], trainer: Trainer, directory: Path) -> None:
    theirs, ours = info["data"]["split_sha256"], now["data"]["split_sha256"]
    if theirs != ours:
        raise InputError(
            f"the checkpoint in {directory} is of split {theirs[:12]}, the data now give {ours[:12]}: bring the data back as "
            "they were, or give a new --workdir"
        )
    if info["pretrained_sha256"] != now["pretrained_sha256"]:
        raise InputError(
            f"the checkpoint in {directory} began with other weights than {trainer.config.model.pretrained} holds now: bring "
            "the file back as it was, or give a new --workdir"
        )


def _step_2(
    trainer: Trainer,
    state: TrainState,
    *,
    progress: MetricsLog,
    stop: Callable[[], bool],
    save: Callable[[TrainState], None],
) -> TrainState:
    """All rounds that are left; saves where it is time to, and before it stops."""
    rounds, every = trainer.config.train.rounds, trainer.config.checkpoint.every_rounds
    for number in range(rounds):
        if int(state.step) >= (number + 1) * trainer.steps_per_round:
            continue
        finished = False
        while not finished:
            state, finished = trainer.round(state, number=number, progress=progress, stop=stop)
            stopping = stop()
            if not finished or stopping or number + 1 == rounds or (number + 1) % every == 0:
                save(state)
            if stopping:
                raise Stopped
    return state


@contextmanager
def _stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Turns SIGINT and SIGTERM into a question that the loop asks; a second SIGINT ends at once."""
    asked: list[int] = []

    def handler(number: int, frame: Any) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)
        processes.propagate_signal()

    old = {number: signal.signal(number, handler) for number in processes.SIGNALS if not processes.jax_handles(number)}
    try:
        yield processes.agreed_stop(lambda: bool(asked))
    except Stopped as error:
        raise Stopped(asked[0] if asked else signal.SIGTERM) from error
    except RuntimeError as error:
        if asked and "Worker process" in str(error):  # a signal to the whole group ended one before it could ignore it
            raise Stopped(asked[0]) from error
        raise
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)
