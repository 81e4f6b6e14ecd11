"""One run of a method: its parts built from the config, step 1, and the alternation of step 2.

The order of a round of ADSQ: f trains against g's bank and the codes, and its own bank is refreshed in evaluation mode; g does
the same against f's new bank; the B-step renews the codes from both. Banks and codes start as LabelNet's codes. A baseline
leaves out what it doesn't have of these.
"""

import contextlib
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from adsq_jax import codes, methods, storage
from adsq_jax.data import pipeline
from adsq_jax.data.datasets import Dataset, part_labels
from adsq_jax.devices import processes
from adsq_jax.devices.data_parallel import DataParallel, Place
from adsq_jax.devices.host import reading_threads
from adsq_jax.devices.mesh import AXIS
from adsq_jax.errors import InputError, Stopped
from adsq_jax.inference.encoder import Encoder, HeadEncoder
from adsq_jax.methods import adsq, objective
from adsq_jax.methods.method import Method, UpdateCodes
from adsq_jax.models import build
from adsq_jax.models.label_net import LabelNet
from adsq_jax.run.metrics_log import MetricsLog, format_metrics
from adsq_jax.training import frozen_features, optimizer
from adsq_jax.training.frozen_features import Features
from adsq_jax.training.state import ImgNetState, LabelNetState, Targets, TrainState
from adsq_jax.training.step import img_net_gradients, img_net_update, label_net_step

_SAME: Any = Place.SAME  # trees of places have the shape of trees of arrays
_ROWS: Any = Place.ROWS
TARGET_PLACES = Targets(
    bank=_ROWS,
    codes=_ROWS,
    set_index=_ROWS,
    shares=_ROWS,
    sets=_SAME,
    similar_sets=_SAME,
    progress=_SAME,
    guidance=_SAME,
)


class NotFinite(InputError):
    """A loss term, the gradient, or a relaxed code is NaN or infinite."""


class Trainer:
    """One run: the config unpacked into models, optimisers, compiled steps, and what the training set fixes."""

    def __init__(self, config: ConfigDict, dataset: Dataset, *, parallel: DataParallel):
        """Builds everything but the state.

        Args:
          config: checked.
          dataset: source and split.
          parallel: the devices.

        Raises:
          InputError: the config doesn't fit the data or the devices.
        """
        parallel.check_batch(config.train.batch_size)
        self.config, self.dataset, self.parallel = config, dataset, parallel
        self.method = _method(config)
        labels = part_labels(dataset, "train")  # [n, c]
        self.size = len(labels)  # n
        self.own = parallel.share(self.size)  # rows of the training set that this process sees to
        self.sets = objective.label_sets(labels)
        self._similar_sets = np.asarray(
            objective.similarity(jnp.asarray(self.sets.sets), jnp.asarray(self.sets.sets))
        )  # [m, m]
        self.statistics = objective.pair_statistics(self.sets)
        self.frequencies = (self.sets.counts / self.size).astype(np.float32)  # [m]
        data = config.data
        self.preprocessing = pipeline.Preprocessing(data.resize, data.image_size, data.crop_padding, data.flip, data.erase)
        self.read_options = pipeline.ReadOptions(
            threads=reading_threads(data.threads),
            workers=data.workers,
            process=parallel.process,
            processes=parallel.processes,
        )
        self.names = ("f", "g") if self.method.twin else ("f",)
        self.steps_per_half = self._steps_per_half()
        self.steps_per_round = len(self.names) * self.steps_per_half
        self.total_steps = config.train.rounds * self.steps_per_round
        if self.method.label_net:
            self.label_net, self.label_net_optimizer, self.label_net_step = self._build_label_net()
            self._label_net_apply = jax.jit(self.label_net.apply)
        self.whole_net, self.pretrained = build.build(config, bounded=self.method.bounded, axis_name=AXIS)
        self.frozen = config.optim.trunk_lr_scale == 0
        self.img_net = self.whole_net.clone(backbone=None) if self.frozen else self.whole_net  # what is trained
        kept: Any = Place.PARTS if config.shard_parameters else Place.SAME
        net = ImgNetState(params=kept, batch_stats=_SAME, opt_state=kept, key=_SAME, bank=_ROWS)
        nets = dict.fromkeys(self.names, net)
        self.places = TrainState(step=_SAME, label_net=_SAME, trunk=_SAME, img_nets=nets, codes=_ROWS)
        self.img_net_optimizer, self.img_net_step = self._build_img_net_step()
        self._of_images = Encoder(
            self.whole_net,
            dataset.source,
            local=parallel.local,
            batch_size=config.eval.batch_size,
            preprocessing=self.preprocessing,
            read_options=self.read_options,
        )
        self.encoder: Encoder | HeadEncoder = self._of_images
        self._features: Features | None = None  # of a frozen trunk, after `prepare`

    def _steps_per_half(self) -> int:
        config, rows = self.config, self.dataset.split.train
        pipeline.resized(self.dataset.source, int(rows[0]), self.preprocessing)  # finds out before step 1 whether images fit
        if config.train.batch_size > len(rows):
            raise InputError(
                f"train.batch_size={config.train.batch_size} is more than the {len(rows)} training images: give less"
            )
        return config.train.epochs_per_round * (len(rows) // config.train.batch_size)

    def _build_label_net(self) -> tuple[LabelNet, optax.GradientTransformation, Callable[..., Any]]:
        config = self.config
        weights = config.label_net.weights.to_dict()
        if config.method == "adsq" and not config.objective.difference:
            weights["difference"] = 0.0
        model = LabelNet(bits=config.bits, hidden=config.label_net.hidden, features=config.model.features)
        tx = optax.adam(config.label_net.learning_rate)
        step = partial(
            label_net_step,
            model=model,
            optimizer=tx,
            statistics=self.statistics,
            cosine_scale=config.label_net.cosine_scale,
            weights=weights,
        )
        return model, tx, jax.jit(step, donate_argnums=0)

    def _build_img_net_step(self) -> tuple[optax.GradientTransformation, Callable[..., Any]]:
        config = self.config
        updates = config.train.rounds * self.steps_per_half  # of each ImgNet
        tx = optimizer.build(
            config.optim.name,
            arguments=config.optim.arguments.to_dict(),
            learning_rate=config.optim.learning_rate,
            schedule=config.optim.schedule,
            warmup_steps=round(config.optim.warmup * updates),
            total_steps=updates,
            weight_decay=config.optim.weight_decay,
            clip_norm=config.optim.clip_norm,
            trunk_lr_scale=config.optim.trunk_lr_scale or 1.0,  # a frozen trunk isn't among the parameters
        )
        gradients = partial(
            img_net_gradients,
            model=self.img_net,
            loss=self.method.loss,
            statistics=self.statistics,
            seed=config.seed,
            axis_name=AXIS,
        )
        step = self.parallel.step(
            gradients, partial(img_net_update, optimizer=tx), state=self.places.img_nets["f"], targets=TARGET_PLACES
        )
        return tx, step

    def init(self) -> TrainState:
        """The state before step 1; banks are 0 and codes +1 until `step_1`."""
        config = self.config
        # rbg: the default generator takes XLA seconds to compile for each shape of kernel
        keys = jax.random.split(jax.random.key(config.seed, impl="rbg"), 3)
        label_net = None
        if self.method.label_net:
            params = jax.jit(self.label_net.init)(keys[0], self.sets.sets)["params"]
            label_net = LabelNetState(params=params, opt_state=self.label_net_optimizer.init(params))
        given: dict[str, Any] = {}  # the trunk's variables that a file has
        if self.pretrained is not None:
            given = {kind: {"backbone": tree} for kind, tree in self.pretrained.variables.items()}
        trunk = (given or self._random_trunk(keys[1])) if self.frozen else None
        inputs = self._images if trunk is None else self._features_of(trunk)
        init = jax.jit(partial(self.img_net.init, train=False))
        img_nets = {}
        for number, (name, key) in enumerate(zip(self.names, keys[1:], strict=False)):
            variables = {"batch_stats": {}, **init(key, inputs)}
            if trunk is None:
                variables = {kind: {**tree, **given.get(kind, {})} for kind, tree in variables.items()}
            if self.method.parameters is not None:
                own = self.method.parameters(jax.random.fold_in(key, 1), config.bits, self.sets.sets.shape[1])
                variables["params"] = {**variables["params"], "method": own}
            img_nets[name] = ImgNetState(
                params=variables["params"],
                batch_stats=variables["batch_stats"],
                opt_state=self.img_net_optimizer.init(variables["params"]),
                key=jnp.array([config.seed, number], jnp.uint32),
                bank=self._rows(np.zeros((self._n_own, config.bits), np.float32)),
            )
        return TrainState(
            step=np.array(0, np.int64),
            label_net=label_net,
            trunk=trunk,
            img_nets=img_nets,
            codes=self._rows(np.ones((self._n_own, config.bits), np.int8)),
        )

    @property
    def _n_own(self) -> int:
        return self.own.stop - self.own.start

    def _rows(self, own: np.ndarray) -> jax.Array:
        """One array of every process's rows of the training set."""
        return self.parallel.of_own_rows(own, size=self.size)

    def own_rows(self, rows: Any) -> np.ndarray:
        """This process's rows of an array of the training set, without a filling."""
        return self.parallel.own_rows(rows, size=self.size)

    @property
    def _images(self) -> jax.Array:
        side = self.config.data.image_size
        return jnp.zeros((1, side, side, 3), jnp.uint8)

    def _random_trunk(self, key: jax.Array) -> dict[str, Any]:
        """Variables of a trunk that both networks share."""
        found = jax.jit(partial(self.whole_net.init, train=False))(key, self._images)
        return {kind: {"backbone": tree["backbone"]} for kind, tree in found.items()}

    def _features_of(self, trunk: dict[str, Any]) -> jax.Array:
        """Something of the shape of a trunk's features."""
        apply = partial(self.whole_net.apply, train=False, method=self.whole_net.trunk)
        return jnp.zeros(jax.eval_shape(apply, trunk, self._images).shape, jnp.float32)

    def prepare(self, state: TrainState, *, directory: Path, stop: Callable[[], bool]) -> None:
        """Runs a frozen trunk over all images of the split, unless its features are on the disk.

        Args:
          state: from `init`, or a checkpoint.
          directory: the run's folder.
          stop: asked after each batch.

        Raises:
          InputError: the features can't be kept.
          Stopped: `stop` said so; what is done is kept.
        """
        if state.trunk is None:
            return
        data, net = self.config.data, self.whole_net
        self._features = frozen_features.compute(
            self._of_images,
            state.trunk,
            self.dataset,
            views=data.feature_views,
            identity=[repr(net.backbone), net.mean, net.deviation, self.preprocessing],
            directory=storage.path(data.feature_cache) if data.feature_cache else directory / "features",
            stop=stop,
        )
        self.encoder = HeadEncoder(
            self.img_net, self._features.of_rows, local=self.parallel.local, batch_size=self.config.eval.batch_size
        )

    def guidance(self, state: TrainState) -> tuple[objective.Guidance | None, np.ndarray | None]:
        """LabelNet's semantic features for the ImgNets, and its relaxed codes by label set, float32[m, bits]."""
        if state.label_net is None:
            return None, None
        semantic, relaxed_codes, _ = self._label_net_apply({"params": state.label_net.params}, self.sets.sets)
        if not np.isfinite(relaxed_codes).all():
            raise NotFinite("LabelNet, after its last step: relaxed codes not finite")
        guidance = objective.Guidance(semantic, relaxed_codes, frequencies=jnp.asarray(self.frequencies))
        return guidance, np.asarray(relaxed_codes)

    def step_1(self, state: TrainState, *, progress: MetricsLog, stop: Callable[[], bool]) -> TrainState:
        """LabelNet alone, then codes and banks before the first round.

        Without LabelNet they are what the untrained ImgNets give, after a discrete step.

        Args:
          state: from `init`; its buffers are used up.
          progress: where metrics go.
          stop: asked before each update.

        Returns:
          The state before the first round.

        Raises:
          Stopped: `stop` said so; nothing of step 1 is kept.
          NotFinite: LabelNet broke.
        """
        if state.label_net is not None:
            label_net = self._train_label_net(state.label_net, progress=progress, stop=stop)
            state = replace(state, label_net=processes.broadcast_from_0(label_net))
        _, label_codes = self.guidance(state)
        if label_codes is not None:
            relaxed = label_codes[self.sets.set_index[self.own]]  # [n, bits]
            nets = {name: replace(net, bank=self._rows(relaxed)) for name, net in state.img_nets.items()}
            return replace(state, img_nets=nets, codes=self._rows(codes.binarize(relaxed)))
        if self.method.update_codes is None:
            return state
        for name in self.names:
            state = self.refresh_bank(state, name)
        both = np.sum([self.own_rows(net.bank) for net in state.img_nets.values()], axis=0)
        state = replace(state, codes=self._rows(codes.binarize(both)))
        return self.update_codes(state, progress, step=self.method.update_codes)

    def _train_label_net(self, label_net: LabelNetState, *, progress: MetricsLog, stop: Callable[[], bool]) -> LabelNetState:
        pending, steps = _Pending(self.config.train.log_every), self.config.label_net.steps
        for step in range(1, steps + 1):
            if stop():
                raise Stopped
            label_net, metrics = self.label_net_step(label_net, self.sets.sets, self.frequencies)
            means = pending.add(step, metrics, last=step == steps, where="LabelNet")
            if means is not None:
                progress.record("label_net", step, means, labels={})
                if step == steps or step % 100 < self.config.train.log_every:
                    progress.say(f"LabelNet step {step}/{steps} {format_metrics(means)}")
        return label_net

    def refresh_bank(self, state: TrainState, name: str) -> TrainState:
        """A network's bank, anew, in evaluation mode.

        Raises:
          NotFinite: the last update, which no loss has seen yet, broke the network.
        """
        net = state.img_nets[name]
        bank = self.encoder(net, self.dataset.split.train[self.own])
        if processes.total(not np.isfinite(bank).all()):
            raise NotFinite(f"network {name}, after step {int(state.step)}: relaxed codes not finite")
        return replace(state, img_nets={**state.img_nets, name: replace(net, bank=self._rows(bank))})

    def update_codes(self, state: TrainState, progress: MetricsLog, *, step: UpdateCodes) -> TrainState:
        """The discrete step."""
        _, label_codes = self.guidance(state)
        before = self.own_rows(state.codes)
        update = step(
            before,
            [self.own_rows(net.bank) for net in state.img_nets.values()],
            label_codes=label_codes,
            label_sets=self.sets.sets,
            set_index=self.sets.set_index[self.own],
            ratio=self.statistics.ratio,
            size=self.size,
            total=processes.total,
        )
        values = {
            "sweeps": update.sweeps,
            "objective_before": update.objectives[0],
            "objective_after": update.objectives[-1],
            "changed_share": float(processes.total(np.sum(update.codes != before)) / (self.size * self.config.bits)),
            "difference_share": update.difference_share,
        }
        progress.record("codes", int(state.step), values, labels={})
        return replace(state, codes=self._rows(update.codes))

    def round(
        self, state: TrainState, *, number: int, progress: MetricsLog, stop: Callable[[], bool]
    ) -> tuple[TrainState, bool]:
        """One round: f, then g, then the B-step; what of it is done already is not done again.

        Args:
          state: where to begin, maybe in the middle of the round.
          number: of the round, from 0.
          progress: where metrics go.
          stop: asked after each update.

        Returns:
          The state, and whether the round is finished; not if `stop` said so before, or it is time for a checkpoint.
        """
        for position, name in enumerate(self.names, start=1):
            end = number * self.steps_per_round + position * self.steps_per_half
            if int(state.step) >= end:
                continue
            if not stop():
                state = self.half_round(state, name, end=end, progress=progress, stop=stop)
            if int(state.step) < end or (self._time_to_save(end) and position < len(self.names)):
                return state, False
        step = self.method.update_codes
        return (self.update_codes(state, progress, step=step) if step and self.method.every_round else state), True

    def _time_to_save(self, step: int) -> bool:
        every = self.config.checkpoint.every_steps
        return every > 0 and step % every == 0

    def half_round(
        self, state: TrainState, name: str, *, end: int, progress: MetricsLog, stop: Callable[[], bool]
    ) -> TrainState:
        """Trains one ImgNet until step `end`, against what is fixed meanwhile, then refreshes its bank.

        Args:
          state: where to begin, maybe in the middle of the half-round; its buffers are used up.
          name: "f" or "g".
          end: the step at which the half-round ends.
          progress: where metrics go.
          stop: asked after each step.

        Returns:
          The state at `end`, or earlier if `stop` said so, or at a multiple of `checkpoint.every_steps`.
        """
        step, config = int(state.step), self.config
        net = self.parallel.enter(state.img_nets[name], self.places.img_nets[name])
        targets = self.parallel.enter(self.targets(state, name), TARGET_PLACES)
        pending = _Pending(config.train.log_every)
        label = f"round {-(-end // self.steps_per_round)}/{config.train.rounds} {name}"
        began, first = time.monotonic(), step
        with contextlib.closing(_Timed(self._batches(name, step=step))) as batches:
            for batch in batches:
                net, metrics = self.img_net_step(net, targets, self.split(batch))
                step += 1
                stopping = stop() or self._time_to_save(step)
                means = pending.add(step, metrics, last=step == end or stopping, where=label)
                if means is not None:
                    seconds = time.monotonic() - began
                    speed = (step - first) * config.train.batch_size / seconds
                    pace = {"images_per_second": speed, "input_share": batches.waited / seconds}
                    progress.record("img_net", step, {**means, **pace}, labels={"net": name})
                    progress.show(step, means, label=label, images_per_second=speed)
                if step == end or stopping:
                    break
        nets = {**state.img_nets, name: self.parallel.leave(net, self.places.img_nets[name])}
        state = replace(state, step=np.array(step, np.int64), img_nets=nets)
        return self.refresh_bank(state, name) if step == end else state

    def targets(self, state: TrainState, name: str) -> Targets:
        """What is fixed while a network trains."""
        others = [net.bank for other, net in state.img_nets.items() if other != name]
        guidance, _ = self.guidance(state)
        arrays: dict[str, Any] = {
            "set_index": self.sets.set_index,
            "shares": np.full(self.size, 1 / self.size, np.float32),
            "sets": self.sets.sets,
            "similar_sets": self._similar_sets,
            "progress": np.float32(int(state.step) // self.steps_per_round / self.config.train.rounds),
        }
        return Targets(bank=others[0] if others else None, codes=state.codes, guidance=guidance, **arrays)

    def outside(self, state: TrainState) -> TrainState:
        """The state as a checkpoint takes it."""
        return self.parallel.outside(state, self.places)

    def split(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """This process's share of a batch, as the step takes it: with each image's label set."""
        return self.parallel.split({**batch, "label_set": self.sets.set_index[batch["index"]]})

    def _batches(self, name: str, *, step: int) -> Generator[dict[str, np.ndarray]]:
        """Batches of one network from a step on; what it gets depends on seed, network, and its own count of updates."""
        done, within = divmod(step, self.steps_per_half)
        seed = np.random.SeedSequence([self.config.seed, self.names.index(name)]).generate_state(1)[0]
        order = {
            "batch_size": self.config.train.batch_size,
            "seed": int(seed),
            "start": done // len(self.names) * self.steps_per_half + within,
            "reading": self.read_options,
        }
        rows = self.dataset.split.train
        if self._features is not None:
            return pipeline.train_feature_batches(self._features.views or [self._features.of_rows(rows)], **order)
        return pipeline.train_batches(self.dataset.source, rows, preprocessing=self.preprocessing, **order)


def _method(config: ConfigDict) -> Method:
    if config.method == "adsq":
        return adsq.method(**config.objective.to_dict())
    return methods.METHODS[config.method].method(**config.baseline.to_dict())


class _Timed:
    """Batches, and the seconds that were spent waiting for them."""

    def __init__(self, batches: Generator[dict[str, np.ndarray]]):
        self._batches, self.waited = batches, 0.0

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        asked = time.monotonic()
        batch = next(self._batches)
        self.waited += time.monotonic() - asked
        return batch

    def close(self) -> None:
        self._batches.close()


class _Pending:
    """Metrics that wait on the device, so that the loop need not wait for them, until it is time to look at them."""

    def __init__(self, every: int):
        self._every = every
        self._steps: list[tuple[int, dict[str, jax.Array]]] = []

    def add(self, step: int, metrics: dict[str, jax.Array], *, last: bool, where: str) -> dict[str, float] | None:
        """Takes one step's metrics; at multiples of `every`, and at the last, returns the means since then.

        Raises:
          NotFinite: a step's are not finite; says which step and which of them.
        """
        self._steps.append((step, metrics))
        if step % self._every and not last:
            return None
        fetched = [(at, {name: np.mean(x) for name, x in jax.device_get(found).items()}) for at, found in self._steps]
        self._steps.clear()
        for at, found in fetched:
            bad = [name for name, value in found.items() if not np.isfinite(value)]
            if bad:
                terms = [name for name in bad if name not in ("loss", "grad_norm")] or bad
                raise NotFinite(f"{where}, step {at}: {', '.join(terms)} not finite")
        return {name: float(np.mean([found[name] for _, found in fetched])) for name in fetched[0][1]}
