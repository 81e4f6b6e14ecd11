"""LabelNet's training, steps of an ImgNet, bank refresh, code update, and rounds: functions of a setup and a state.

ADSQ first trains LabelNet, whose codes become the first hash codes and banks. Then, in each round, f trains against g's bank
and the codes; then f's bank is refreshed. g does the same against f's new bank, and the discrete step updates the codes from
both banks. Other methods skip the parts they lack.
"""

import contextlib
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adsq_jax import codes
from adsq_jax.data import pipeline
from adsq_jax.data.preprocessing import Preprocessing
from adsq_jax.devices import processes
from adsq_jax.errors import InputError, Stopped
from adsq_jax.inference.encoder import HeadEncoder
from adsq_jax.methods import separation
from adsq_jax.models.img_net import ImgNet
from adsq_jax.run.metrics_log import MetricsLog, SilentLog
from adsq_jax.training import frozen_features
from adsq_jax.training.guidance import guidance, label_net_outputs
from adsq_jax.training.init import global_rows, to_local_rows
from adsq_jax.training.metrics_buffer import MetricsBuffer, NotFinite, TimedBatches
from adsq_jax.training.setup import TARGET_SPECS, TrainSetup
from adsq_jax.training.state import LabelNetState, Targets, TrainState
from adsq_jax.training.step import Metrics


def _never() -> bool:
    return False


def train_label_net(
    setup: TrainSetup,
    state: TrainState,
    *,
    log: MetricsLog | None = None,
    log_every: int = 20,
    stop: Callable[[], bool] = _never,
) -> TrainState:
    """Train LabelNet, and start hash codes and banks from its codes.

    Without LabelNet, the method's discrete step makes the codes from the untrained ImgNets' banks. Without such a step either,
    the state is returned unchanged.

    Args:
      setup: from `setup`.
      state: from `init`.
      log: where metrics go; None: nowhere.
      log_every: updates between two records.
      stop: asked before each update.

    Returns:
      The state before the first round.

    Raises:
      Stopped: `stop` returned True; LabelNet's updates are lost.
      NotFinite: LabelNet diverged.

    Source: DSEH, Li et al., IJCAI 2018; this project's reconstruction of ADSQ.
    """
    log = log or SilentLog()
    if state.label_net is not None:
        label_net = _train_label_net(setup, state.label_net, log=log, log_every=log_every, stop=stop)
        label_net = _separate(setup, label_net, log=log)
        state = replace(state, label_net=processes.broadcast_from_0(label_net))
    guide = guidance(setup, state)
    if guide is not None:
        relaxed = np.asarray(guide.codes)[setup.sets.set_index[setup.local_rows]]  # [n, bits]
        nets = {name: replace(net, bank=global_rows(setup, relaxed)) for name, net in state.img_nets.items()}
        return replace(state, img_nets=nets, codes=global_rows(setup, codes.binarize(relaxed)))
    if setup.method.update_codes is None:
        return state
    for name in setup.networks:
        state = refresh_bank(setup, state, net=name)
    both = np.sum([to_local_rows(setup, net.bank) for net in state.img_nets.values()], axis=0)
    state = replace(state, codes=global_rows(setup, codes.binarize(both)))
    return update_codes(setup, state, refresh=False, log=log)


def _train_label_net(
    setup: TrainSetup, label_net: LabelNetState, *, log: MetricsLog, log_every: int, stop: Callable[[], bool]
) -> LabelNetState:
    buffer, steps = MetricsBuffer(log_every), setup.label_net_settings.steps
    log.phase("LabelNet", total=steps)
    label_net = jax.tree.map(jnp.array, label_net)  # a copy, whose memory the steps reuse: the caller's state stays usable
    for step in range(1, steps + 1):
        if stop():
            raise Stopped
        label_net, metrics = setup.label_net_step(label_net, setup.sets.sets, setup.frequencies)
        means = buffer.add(step, metrics, last=step == steps, where="LabelNet")
        if means is not None:
            log.record("label_net", step, means, labels={})
            log.show(step, means, label="LabelNet")
    return label_net


def _separate(setup: TrainSetup, label_net: LabelNetState, *, log: MetricsLog) -> LabelNetState:
    if not setup.method.separate:
        return label_net
    sets, relaxed = setup.sets.sets, np.asarray(label_net_outputs(setup, label_net.params)[1])
    hash_codes = separation.separated(relaxed, sets=sets)
    before = separation.smallest_distance(codes.binarize(relaxed), sets=sets)
    after = separation.smallest_distance(hash_codes, sets=sets)
    log.say(
        f"LabelNet's codes: at least {after} of {setup.bits} bits between label sets without a common label ({before} before)"
    )
    return replace(label_net, separated=jnp.asarray(hash_codes))


def targets(setup: TrainSetup, state: TrainState, *, net: str) -> Targets:
    """Return what an ImgNet is trained against during a half-round, for `step`.

    Args:
      setup: from `setup`.
      state: at the beginning of the half-round.
      net: "f" or "g".

    Returns:
      The targets, on the setup's devices.

    Raises:
      InputError: there is no such network, or the state is another setup's.
    """
    check_state(setup, state, net=net)
    return _targets(setup, state, net=net)


def _targets(setup: TrainSetup, state: TrainState, *, net: str) -> Targets:
    others = [other.bank for name, other in state.img_nets.items() if name != net]
    arrays: dict[str, Any] = {
        "set_index": setup.sets.set_index,
        "row_weights": np.full(setup.size, 1 / setup.size, np.float32),
        "sets": setup.sets.sets,
        "progress": np.float32(setup.progress(int(state.step))),
    }
    unplaced = Targets(bank=others[0] if others else None, codes=state.codes, guidance=guidance(setup, state), **arrays)
    return setup.devices.to_devices(unplaced, TARGET_SPECS)


def check_state(setup: TrainSetup, state: TrainState, *, net: str) -> None:
    """Raise InputError if there is no such network, or the state is another setup's."""
    if net not in setup.networks:
        raise InputError(f"net={net!r}: expected one of {', '.join(setup.networks)}")
    rows, bits = state.codes.shape
    known = state.img_nets.get(net)
    if bits != setup.bits or rows < setup.size or rows - setup.size >= len(setup.devices.devices) or known is None:
        raise InputError(
            f"the state has networks {', '.join(state.img_nets)} and codes [{rows}, {bits}]: expected a state of this setup, "
            f"{', '.join(setup.networks)} and [{setup.size}, {setup.bits}]; fix: make it by init(setup)"
        )
    ours, theirs = jax.tree.map(np.shape, setup.net_shapes["params"]), jax.tree.map(np.shape, known.params)
    if ours != theirs:
        raise InputError("the state's parameters have other names or shapes than this setup's; fix: make it by init(setup)")


def step(
    setup: TrainSetup, state: TrainState, batch: dict[str, Any], *, net: str, fixed: Targets | None = None
) -> tuple[TrainState, Metrics]:
    """Update one ImgNet on one batch, by `training/step.py`. The state that is passed stays usable.

    Args:
      setup: from `setup`.
      state: the current state.
      batch: inputs uint8[batch, h, w, 3] and index int[batch], rows of the training set without repetition, as
        `adsq_jax.data.batches` gives them; with several processes, this process's part. For a method with a second view
        also second_inputs, like inputs.
      net: "f" or "g".
      fixed: from `targets`, computed once per half-round to save time; None: computed here.

    Returns:
      The new state, and each loss term times its weight, their sum `loss` and `grad_norm`, float32[].

    Raises:
      InputError: the batch, the network's name or the state don't fit the setup.

    Source: this project; each loss term names its source.
    """
    placed = targets(setup, state, net=net) if fixed is None else fixed
    specs = setup.specs.img_nets[net]
    network = setup.devices.to_devices(state.img_nets[net], specs)
    network, metrics = setup.img_net_step(network, placed, split_batch(setup, _checked_batch(setup, batch)))
    nets = {**state.img_nets, net: setup.devices.from_devices(network, specs)}
    return replace(state, step=np.array(int(state.step) + 1, np.int64), img_nets=nets), metrics


def _checked_batch(setup: TrainSetup, batch: dict[str, Any]) -> dict[str, np.ndarray]:
    views = pipeline.view_names(second_view=setup.method.second_view)
    if not isinstance(batch, dict) or set(batch) != {*views, "index"}:
        fields = ", ".join(f"{name!r}: ..." for name in (*views, "index"))
        call = "adsq_jax.data.batches" + (" with second_view=True" if setup.method.second_view else "")
        raise InputError(f"expected a batch {{{fields}}}; fix: take it from {call}")
    inputs, index = {name: np.asarray(batch[name]) for name in views}, np.asarray(batch["index"])
    size, shape = len(index), setup.input_shape[1:]
    kind = np.float32 if setup.trained_net.backbone is None else np.uint8
    for name, x in inputs.items():
        if x.shape != (size, *shape) or x.dtype != kind:
            raise InputError(f"{name} are {x.dtype}{list(x.shape)}: expected {np.dtype(kind)}[{size}, {str(shape)[1:-1]}]")
    if index.ndim != 1 or index.dtype.kind not in "iu" or not size or len(set(index.tolist())) < size:
        raise InputError(f"index is {index.dtype}{list(index.shape)}: expected int[batch], each row of the training set once")
    if index.min() < 0 or index.max() >= setup.size:
        raise InputError(
            f"index has rows {index.min()} to {index.max()}: expected rows of the training set, 0 to {setup.size - 1}"
        )
    setup.devices.check_batch(size * setup.devices.processes)
    return {**inputs, "index": index.astype(np.int32)}


def split_batch(setup: TrainSetup, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Place a batch on the devices, with each image's label set."""
    return setup.devices.split_batch({**batch, "label_set": setup.sets.set_index[batch["index"]]})


def compute_features(setup: TrainSetup, state: TrainState, *, directory: Path, stop: Callable[[], bool] = _never) -> TrainSetup:
    """Run a frozen trunk over all images of the split, unless its features are on the disk.

    Args:
      setup: with a frozen trunk; any other is returned as it is.
      state: from `init`, or a checkpoint.
      directory: where the features are kept; runs of the same trunk and images may share it.
      stop: asked after each batch.

    Returns:
      The setup with the features, from which it trains and encodes.

    Raises:
      InputError: the folder can't be used.
      Stopped: `stop` returned True; what is computed is kept.
    """
    if state.trunk is None:
        return setup
    features = frozen_features.compute(
        setup.image_encoder,
        state.trunk,
        setup.data,
        views=setup.feature_views,
        identity=feature_identity(setup.img_net, setup.data.preprocessing),
        directory=directory,
        stop=stop,
    )
    encoder = HeadEncoder(
        setup.trained_net, features.of_rows, local=setup.devices.local, batch_size=setup.image_encoder.batch_size
    )
    return replace(setup, features=features, head_encoder=encoder)


def feature_identity(img_net: ImgNet, preprocessing: Preprocessing) -> list[Any]:
    """Return what a frozen trunk's features depend on beside its weights and the pictures, for JSON."""
    return [repr(img_net.backbone), img_net.mean, img_net.deviation, view(preprocessing)]


def view(preprocessing: Preprocessing) -> list[Any]:
    """Return how images are read, for JSON; without a bit depth as before there was one, so that older runs fit."""
    *others, bit_depth = preprocessing
    return [*others, bit_depth] if bit_depth else others


def refresh_bank(setup: TrainSetup, state: TrainState, *, net: str) -> TrainState:
    """Encode the training set with one ImgNet in evaluation mode, and store the codes in its bank.

    Args:
      setup: the run's constants.
      state: the state after the network's updates.
      net: the network, "f" or "g".

    Returns:
      The state with the new bank.

    Raises:
      NotFinite: the network's outputs are not finite after the last update.
    """
    network = state.img_nets[net]
    bank = setup.encoder(network.variables, setup.data.split.train[setup.local_rows])
    if processes.total(not np.isfinite(bank).all()):
        raise NotFinite(f"network {net}, after step {int(state.step)}: relaxed codes not finite")
    return replace(state, img_nets={**state.img_nets, net: replace(network, bank=global_rows(setup, bank))})


def update_codes(setup: TrainSetup, state: TrainState, *, refresh: bool = True, log: MetricsLog | None = None) -> TrainState:
    """Update the hash codes of the training set with the method's discrete step.

    Args:
      setup: from `setup`.
      state: after a round.
      refresh: whether to refresh the banks of all networks first; False: they are fresh.
      log: where metrics go; None: nowhere.

    Returns:
      The state with refreshed banks and new codes; without a discrete step the codes stay as they are.

    Raises:
      NotFinite: a network's outputs are not finite after the last update.
    """
    for net in setup.networks if refresh else ():
        state = refresh_bank(setup, state, net=net)
    if setup.method.update_codes is None:
        return state
    guide = guidance(setup, state)
    before = to_local_rows(setup, state.codes)
    update = setup.method.update_codes(
        before,
        [to_local_rows(setup, net.bank) for net in state.img_nets.values()],
        label_codes=None if guide is None else np.asarray(guide.codes),
        label_sets=setup.sets.sets,
        set_index=setup.sets.set_index[setup.local_rows],
        ratio=setup.statistics.ratio,
        size=setup.size,
        sum_over_processes=processes.total,
    )
    values = {
        "sweeps": update.sweeps,
        "objective_before": update.objectives[0],
        "objective_after": update.objectives[-1],
        "changed_share": float(processes.total(np.sum(update.codes != before)) / (setup.size * setup.bits)),
        "difference_share": update.difference_share,
    }
    (log or SilentLog()).record("codes", int(state.step), values, labels={})
    return replace(state, codes=global_rows(setup, update.codes))


def train_round(
    setup: TrainSetup,
    state: TrainState,
    *,
    number: int,
    log: MetricsLog | None = None,
    log_every: int = 20,
    save_every: int = 0,
    stop: Callable[[], bool] = _never,
) -> tuple[TrainState, bool]:
    """Train one round: f, then g, then the discrete step. Skip the parts that are finished.

    Args:
      setup: from `setup`.
      state: where to begin, maybe in the middle of the round; its buffers can't be used afterwards.
      number: round number, from 0.
      log: where metrics go; None: nowhere.
      log_every: updates between two records.
      save_every: return every `save_every` updates, so that the caller can save; 0: only at the end.
      stop: asked before each half-round and after each update.

    Returns:
      The state, and whether the round is finished. It isn't if `stop` returned True or it is time to save.

    Raises:
      NotFinite: a loss term or a relaxed code is not finite.
    """
    log = log or SilentLog()
    for position, net in enumerate(setup.networks, start=1):
        end = number * setup.steps_per_round + position * setup.steps_per_half
        if int(state.step) >= end:
            continue
        if not stop():
            state = half_round(setup, state, net=net, end=end, log=log, log_every=log_every, save_every=save_every, stop=stop)
        if int(state.step) < end or (_time_to_save(end, save_every) and position < len(setup.networks)):
            return state, False
    if setup.method.every_round:
        state = update_codes(setup, state, refresh=False, log=log)
    return state, True


def _time_to_save(step: int, save_every: int) -> bool:
    return save_every > 0 and step % save_every == 0


def half_round(
    setup: TrainSetup,
    state: TrainState,
    *,
    net: str,
    end: int,
    log: MetricsLog,
    log_every: int,
    save_every: int,
    stop: Callable[[], bool],
) -> TrainState:
    """Train one ImgNet until step `end` against fixed targets, then refresh its bank.

    Returns:
      The state at `end`, or earlier if `stop` returned True or it is time to save.
    """
    step = first = int(state.step)
    specs = setup.specs.img_nets[net]
    network = setup.devices.to_devices(state.img_nets[net], specs)
    fixed = _targets(setup, state, net=net)
    buffer, began = MetricsBuffer(log_every), time.monotonic()
    label = f"round {-(-end // setup.steps_per_round)}/{setup.rounds} {net}"
    with contextlib.closing(TimedBatches(train_batches(setup, net=net, step=step))) as batches:
        for batch in batches:
            network, metrics = setup.donating_img_net_step(network, fixed, split_batch(setup, batch))
            step += 1
            leaving = stop() or _time_to_save(step, save_every) or step == end
            means = buffer.add(step, metrics, last=leaving, where=label)
            if means is not None:
                seconds = time.monotonic() - began
                pace = (step - first) * setup.batch_size / seconds
                shares = {"images_per_second": pace, "input_share": batches.waited / seconds}
                log.record("img_net", step, {**means, **shares}, labels={"net": net})
                log.show(step, means, label=label, images_per_second=pace)
            if leaving:
                break
    nets = {**state.img_nets, net: setup.devices.from_devices(network, specs)}
    state = replace(state, step=np.array(step, np.int64), img_nets=nets)
    return refresh_bank(setup, state, net=net) if step == end else state


def train_batches(setup: TrainSetup, *, net: str, step: int) -> Generator[dict[str, np.ndarray]]:
    """Yield one network's batches, endlessly, starting at a step.

    They depend on the seed, the network, and the network's own count of updates. With a frozen trunk they hold its features,
    and with a method that has a second view two views of each image.
    """
    finished_halves, within = divmod(step, setup.steps_per_half)
    seed = np.random.SeedSequence([setup.seed, setup.networks.index(net)]).generate_state(1)[0]
    order: dict[str, Any] = {
        "batch_size": setup.batch_size,
        "seed": int(seed),
        "start": finished_halves // len(setup.networks) * setup.steps_per_half + within,
        "read_options": setup.read_options,
        "second_view": setup.method.second_view,
    }
    data, rows = setup.data, setup.data.split.train
    if setup.features is not None:
        views = setup.features.views or [setup.features.of_rows(rows)]
        return pipeline.train_feature_batches(views, **order)
    return pipeline.train_batches(data.source, rows, preprocessing=data.preprocessing, **order)
