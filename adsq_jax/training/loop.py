"""A run in a folder: restore, train, save, stop. Only this module of `training` reads configs."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from adsq_jax import methods, models, storage
from adsq_jax.data import datasets
from adsq_jax.data.datasets import Dataset
from adsq_jax.devices import processes
from adsq_jax.devices.data_parallel import DataParallel, TrainDevices
from adsq_jax.errors import InputError, Stopped
from adsq_jax.models.network import format_report
from adsq_jax.run import history
from adsq_jax.run.checkpoint import Checkpoints
from adsq_jax.run.experiment_trackers import Trackers
from adsq_jax.run.history import Finished
from adsq_jax.run.metrics_log import MetricsLog, SilentLog
from adsq_jax.training import optimizer as optimizers
from adsq_jax.training import rounds
from adsq_jax.training.init import init
from adsq_jax.training.metrics_buffer import NotFinite
from adsq_jax.training.setup import LabelNetSettings, TrainSetup, setup
from adsq_jax.training.starting_weights import StartingWeights, network_options, read_start
from adsq_jax.training.state import TrainState
from adsq_jax.training.validation import Validation


def setup_from_config(
    config: ConfigDict,
    data: Dataset,
    *,
    devices: TrainDevices,
    finished: Finished | None = None,
    start: StartingWeights | None = None,
) -> TrainSetup:
    """Build the setup that a checked config describes.

    Args:
      config: from a file of configs/.
      data: what its `data` names.
      devices: where to train.
      finished: what the run had finished before rounds were added; None: nothing.
      start: weights of another run to start from.

    Raises:
      InputError: the config doesn't fit the data or the devices.
    """
    devices.check_batch(config.train.batch_size)
    model, optim, frozen = config.model, config.optim, config.optim.trunk_lr_scale == 0
    network = models.build(
        model.backbone,
        bits=config.bits,
        width=model.width,
        features=model.features,
        **network_options(start, pretrained=model.pretrained, mean=model.mean, deviation=model.deviation),
        image_size=config.data.image_size,
        batch_norm=model.batch_norm,
        dropout=model.dropout,
        dtype=model.dtype,
    )
    finished = finished or Finished()
    newest = [(optim.extension, optim.extension_scale)] if finished.rounds else []
    extensions = [*finished.extensions, *newest]
    counts = {key: config.train[key] for key in ("rounds", "epochs_per_round", "batch_size")}
    return setup(
        data,
        method_from_config(config),
        network,
        method_name=config.method,
        seed=config.seed,
        **counts,
        optimizer=optimizers.build(
            optim.name,
            **optimizers.steps(len(data.split.train), **counts, finished_rounds=finished.rounds, extensions=extensions),
            arguments=optim.arguments.to_dict(),
            learning_rate=optim.learning_rate,
            schedule=optim.schedule,
            warmup=optim.warmup,
            weight_decay=optim.weight_decay,
            clip_norm=optim.clip_norm,
            trunk_lr_scale=optim.trunk_lr_scale or 1.0,  # a frozen trunk isn't among the parameters
        ),
        label_net=_label_net_settings(config),
        frozen_trunk=frozen,
        feature_views=config.data.feature_views,
        finished_rounds=finished.rounds,
        extensions=extensions,
        start=start,
        devices=devices,
        shard_parameters=config.shard_parameters,
        eval_batch_size=config.eval.batch_size,
        threads=config.data.threads,
        workers=config.data.workers,
    )


def method_from_config(config: ConfigDict) -> methods.Method:
    """Return the method of a config, with its settings."""
    settings = config.objective if config.method == "adsq" else config.baseline
    return methods.find(config.method, allow_import=True)(**settings.to_dict())


def _label_net_settings(config: ConfigDict) -> LabelNetSettings | None:
    if "label_net" not in config:
        return None
    weights = config.label_net.weights.to_dict()
    if config.method == "adsq" and not config.objective.difference:
        weights["difference"] = 0.0
    settings = {key: config.label_net[key] for key in ("hidden", "steps", "learning_rate", "cosine_scale")}
    return LabelNetSettings(**settings, weights=weights)


def load_setup(
    config: ConfigDict,
    settings: datasets.Settings,
    devices: list[Any],
    *,
    finished: Finished | None = None,
    from_run: str | Path | None = None,
) -> TrainSetup:
    """Load the data of a checked config, and the run to start from, and build the config's setup for some devices.

    Raises:
      InputError: the config doesn't fit the data, the devices or the run to start from.
    """
    start = None
    if from_run is not None:
        start = read_start(from_run, backbone=config.model.backbone, width=config.model.width)
        if config.optim.trunk_lr_scale == 0:
            start.shared_trunk()  # raises here, before the run's folder is made
    parallel = DataParallel(config.parallel, devices=devices)
    return setup_from_config(config, datasets.load(settings), devices=parallel, finished=finished, start=start)


def feature_directory(config: ConfigDict, directory: Path) -> Path:
    """Return where a run keeps a frozen trunk's features."""
    return storage.path(config.data.feature_cache) if config.data.feature_cache else directory / "features"


@dataclass(frozen=True)
class Saving:
    """How often a run saves, and logs; the config keys `checkpoint.*` and `train.log_every`."""

    every_rounds: int = 1
    every_steps: int = 0
    keep: int = 2
    keep_finished: int = 1
    log_every: int = 20


def saving_from_config(config: ConfigDict) -> Saving:
    """Return how often a run of a config saves and logs."""
    return Saving(**config.checkpoint.to_dict(), log_every=config.train.log_every)


def train(
    setup: TrainSetup,
    *,
    directory: Path,
    features: Path,
    saving: Saving,
    origin: dict[str, Any],
    began: float,
    validation: Validation | None = None,
    log: MetricsLog | None = None,
    trackers: Trackers | None = None,
) -> tuple[TrainSetup, TrainState, float]:
    """Train to the end, from the last checkpoint if there is one. Every process of a run calls it.

    Args:
      setup: from `setup`.
      directory: the run's folder, claimed.
      features: where a frozen trunk's features are kept.
      saving: how often to save and to log.
      origin: the config, data and weights that checkpoints come from, JSON-serialisable; saved with each.
      began: `time.monotonic()` when this process started.
      validation: scores states on held-out images; the best checkpoint is kept. None: no images are held out.
      log: where metrics go; None: into the folder, and to the terminal.
      trackers: get all metrics, too; None in all processes but the first.

    Returns:
      The setup, with the features of a frozen trunk; the final state; and its seconds, including earlier interrupted runs.

    Raises:
      InputError: a loss term is not finite, a checkpoint can't be written, or it comes from other data.
      Stopped: a signal arrived (its number is the argument). The state is saved, unless LabelNet was still training.
    """
    checkpoints = Checkpoints(directory / "checkpoints", keep=saving.keep, rows=setup.size)
    state = init(setup)
    restored = checkpoints.restore(setup.devices.to_host(state, setup.specs))
    before = 0.0
    if restored is None and setup.finished_rounds:
        raise InputError(
            f"{directory} has no checkpoint of the {setup.finished_rounds[-1]} rounds that had finished: it can't go on; fix: "
            f"restore its checkpoints, or start from its weights, by --from={directory} and another --workdir"
        )
    if restored is not None:
        state, info = restored
        if validation is not None:
            validation.resume(step=int(state.step))
        before = _check_origin(info, origin, directory, weights=_weights_of(setup))
    log = _open_log(log, directory, start=None if restored is None else int(state.step), trackers=trackers)
    for line in _beginnings(setup):
        log.say(line)

    def save(setup: TrainSetup, state: TrainState) -> None:
        measured = None if validation is None else validation.score(setup, state)
        if measured is not None:
            log.record("validation", int(state.step), {"map": measured}, labels={})
            log.say(f"validation, step {int(state.step)}: mAP {measured:.4f}")
        info = {"seconds": before + time.monotonic() - began, **origin}
        checkpoints.save(int(state.step), setup.devices.to_host(state, setup.specs), info=info, measured=measured)

    try:
        with _closing(checkpoints, log), _stop_on_signal() as stop:
            # One process may have more of the features to compute than others, so they can't agree on when to stop.
            alone = processes.count() == 1
            setup = rounds.compute_features(setup, state, directory=features, stop=stop if alone else lambda: False)
            if restored is not None:
                log.say(f"continuing from step {int(state.step)} of {setup.total_steps}")
            else:
                state = rounds.train_label_net(setup, state, log=log, log_every=saving.log_every, stop=stop)
                save(setup, state)
            state = _train_rounds(setup, state, saving=saving, log=log, stop=stop, save=save, validation=validation)
            checkpoints.delete_old(keep=saving.keep_finished)
    except NotFinite as error:
        steps = checkpoints.steps()
        good = f"the last good checkpoint, step {steps[-1]}, is kept" if steps else "there is no checkpoint yet"
        raise InputError(
            f"{error}; {good}; fix: lower the learning rate (--config.optim.learning_rate, --config.label_net.learning_rate) "
            "or the term's weight, and give a new --workdir"
        ) from error
    seconds, done = before + time.monotonic() - began, int(state.step) // setup.steps_per_round
    processes.run_on_leader(lambda: add_to_history(setup, directory, rounds=done, seconds=seconds))
    return setup, state, seconds


def add_to_history(
    setup: TrainSetup, directory: Path, *, rounds: int, seconds: float, mean_ap: float | None = None
) -> list[dict[str, Any]]:
    """Write down that a run has finished, and return its history, as `history.add` does."""
    extension = setup.extensions[-1] if setup.extensions else None
    return history.add(directory, rounds=rounds, planned=setup.rounds, seconds=seconds, extension=extension, mean_ap=mean_ap)


def _open_log(log: MetricsLog | None, directory: Path, *, start: int | None, trackers: Trackers | None) -> MetricsLog:
    """Return where a run's metrics go: only process 0 writes them, and trackers follow what it writes."""
    if not processes.leads():
        log = SilentLog()
    log = log or MetricsLog(directory, start=start)
    return log if trackers is None else trackers.following(log)


def _weights_of(setup: TrainSetup) -> str:
    """Return where the weights that a run begins with are from."""
    if setup.start is not None:
        return f"those of {setup.start.source}"
    return "random weights" if setup.pretrained is None else str(setup.pretrained.report["source"])


def _beginnings(setup: TrainSetup) -> list[str]:
    """Return what a run says about its devices, its data, its weights and rounds that were added."""
    lines = [f"running on {setup.devices.describe()}", *datasets.notes(setup.data)]
    if setup.pretrained is not None:
        lines.append(format_report(setup.pretrained.report))
    start = setup.start_report
    if start is not None:
        new = f"; new: {', '.join(start['new'])}" if start["new"] else ""
        lines.append(f"weights of {start['source']}: {', '.join(start['taken'])}{new}")
    if setup.finished_rounds:
        rounds = setup.finished_rounds[-1]
        lines.append(f"this run had finished after round {rounds}; it goes on to round {setup.rounds}")
    return lines


@contextlib.contextmanager
def _closing(*parts: Checkpoints | MetricsLog) -> Iterator[None]:
    """Close the parts, the last first. After an error, whatever closing raises is lost: the first error says more."""
    with contextlib.ExitStack() as closing:
        for part in parts:
            closing.callback(part.close)
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):  # on a full disk nothing can be closed
                closing.close()
            raise


def _train_rounds(
    setup: TrainSetup,
    state: TrainState,
    *,
    saving: Saving,
    log: MetricsLog,
    stop: Callable[[], bool],
    save: Callable[[TrainSetup, TrainState], None],
    validation: Validation | None,
) -> TrainState:
    """Train the remaining rounds, until there is no gain any more. Save when it is time, and before stopping."""
    if int(state.step) < setup.total_steps:
        log.phase("training", total=setup.total_steps, start=int(state.step))
    for number in range(setup.rounds):
        if int(state.step) >= (number + 1) * setup.steps_per_round:
            continue
        if validation is not None and validation.exhausted(setup, state):
            log.say(f"no gain in {validation.patience} rounds: training ends after round {number}")
            break
        finished = False
        while not finished:
            state, finished = rounds.train_round(
                setup,
                state,
                number=number,
                log=log,
                log_every=saving.log_every,
                save_every=saving.every_steps,
                stop=stop,
            )
            stopping = stop()
            patient = validation is not None and validation.patience > 0  # then each round is scored
            if not finished or stopping or patient or number + 1 == setup.rounds or (number + 1) % saving.every_rounds == 0:
                save(setup, state)
            if stopping:
                raise Stopped
    return state


def origin(setup: TrainSetup, config: dict[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint's numbers come from: the config as JSON can hold it, data and weights."""
    return {"config": config, "data": datasets.facts(setup.data), "pretrained_sha256": weights_sha256(setup)}


def weights_sha256(setup: TrainSetup) -> str | None:
    """Return the hash of the weights that a run begins with; None where they are random."""
    if setup.start is not None:
        return setup.start.sha256
    return None if setup.pretrained is None else str(setup.pretrained.report["sha256"])


def _check_origin(info: dict[str, Any], now: dict[str, Any], directory: Path, *, weights: str) -> float:
    """Return the seconds that a checkpoint took; raise InputError if it comes from other data or weights."""
    try:
        seconds = float(info["seconds"])
        theirs, weights_then = info["data"]["split_sha256"], info["pretrained_sha256"]
    except (LookupError, TypeError) as error:
        raise InputError(
            f"the checkpoint in {directory} doesn't name its data; fix: continue with the version of adsq_jax that wrote it, "
            "or give a new --workdir"
        ) from error
    ours = now["data"]["split_sha256"]
    if theirs != ours:
        raise InputError(
            f"the checkpoint in {directory} is from split {theirs[:12]}, the data now give {ours[:12]}; fix: restore the "
            "data, or give a new --workdir"
        )
    if weights_then != now["pretrained_sha256"]:
        raise InputError(
            f"the checkpoint in {directory} began with other weights than those given now ({weights}); fix: restore their "
            "file, give --from=RUN as before, or a new --workdir"
        )
    return seconds


@contextlib.contextmanager
def _stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns True once SIGINT or SIGTERM has arrived; a second SIGINT stops immediately."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # Python lets no other thread handle signals
        yield processes.agreed_stop(lambda: False)
        return

    def handler(number: int, frame: Any) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)
        processes.propagate_signal()

    previous = {number: signal.signal(number, handler) for number in processes.SIGNALS if not processes.jax_handles(number)}
    try:
        yield processes.agreed_stop(lambda: bool(received))
    except Stopped as error:
        raise Stopped(received[0] if received else signal.SIGTERM) from error
    except RuntimeError as error:
        if received and "Worker process" in str(error):  # a signal to the process group ended a worker
            raise Stopped(received[0]) from error
        raise
    finally:
        for number, old in previous.items():
            signal.signal(number, old)
