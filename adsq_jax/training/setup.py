"""The constants of a run: data, method, networks, compiled steps. The rest of `training` is functions of them and a state."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adsq_jax import methods
from adsq_jax.data import pipeline
from adsq_jax.data.datasets import Dataset, part_labels
from adsq_jax.data.pipeline import ReadOptions
from adsq_jax.devices.data_parallel import ROWS, WHOLE, DataParallel, TrainDevices
from adsq_jax.devices.host import reading_threads
from adsq_jax.errors import InputError
from adsq_jax.inference.encoder import Encoder, HeadEncoder
from adsq_jax.inference.model import Model
from adsq_jax.methods import objective
from adsq_jax.methods.method import Method
from adsq_jax.models.img_net import ImgNet
from adsq_jax.models.label_net import LabelNet
from adsq_jax.models.network import Network, Pretrained, with_axis
from adsq_jax.training import optimizer as optimizers
from adsq_jax.training.frozen_features import Features
from adsq_jax.training.starting_weights import StartingWeights
from adsq_jax.training.state import ImgNetState, Targets, TrainState
from adsq_jax.training.step import apply_label_net, img_net_gradients, img_net_update, label_net_step

_WHOLE: Any = WHOLE  # trees of specs have the shape of trees of arrays
_ROWS: Any = ROWS
TARGET_SPECS = Targets(
    bank=_ROWS,
    codes=_ROWS,
    set_index=_ROWS,
    row_weights=_ROWS,
    sets=_WHOLE,
    progress=_WHOLE,
    guidance=_WHOLE,
)
LABEL_NET_WEIGHTS = {
    "semantic_likelihood": 1.0,
    "likelihood": 1.0,
    "difference": 5.0,
    "quantization": 1.0,
    "regression": 1.0,
    "balance": 1.0,
}


@dataclass(frozen=True)
class LabelNetSettings:
    """LabelNet and its training; the config keys `label_net.*` say more."""

    hidden: int = 4096  # units of the first layer
    steps: int = 300  # Adam updates, each on all pairs of label sets
    learning_rate: float = 1e-3  # Adam's
    cosine_scale: float = 10.0  # s: the logits between semantic features are s cos(a, a')
    weights: Mapping[str, float] = field(default_factory=lambda: dict(LABEL_NET_WEIGHTS))  # of the loss terms


@dataclass(frozen=True, eq=False, repr=False)
class TrainSetup:
    """What stays constant during a run; made by `setup`. The other functions need only this and a state."""

    data: Dataset  # images, labels and their split
    method: Method  # the loss and the discrete step
    img_net: ImgNet  # the complete network
    trained_net: ImgNet  # the part that is trained: without the backbone where the trunk is frozen
    pretrained: Pretrained | None  # the backbone's weights from a file; None: random ones
    backbone: dict[str, Any] | None  # name, width and options; None: a backbone that `models.build` doesn't know
    method_name: str  # for results and messages
    label_net: LabelNet | None  # None where the method has none
    label_net_settings: LabelNetSettings  # how LabelNet is trained
    seed: int  # for weights, order of images and augmentation
    rounds: int  # a round trains each ImgNet and runs the discrete step
    epochs_per_round: int  # passes over the training set, for each ImgNet
    batch_size: int  # on all devices together
    feature_views: int  # frozen trunk: augmented views of each training image; 0: the central crop alone
    eval_batch_size: int  # images encoded at a time
    shard_parameters: bool  # whether each device keeps only a part of a network
    devices: TrainDevices  # that share each batch
    read_options: ReadOptions  # threads and processes that read images
    optimizer: optax.GradientTransformation  # of each ImgNet
    sets: objective.LabelSets  # the distinct label vectors of the training set
    statistics: objective.PairStatistics  # of the training set's pairs
    finished_rounds: tuple[int, ...] = ()  # after which the run had finished before rounds were added to it, ascending
    extensions: tuple[tuple[str, float], ...] = ()  # for each of these the optimiser's schedule and its scale afterwards
    start: StartingWeights | None = None  # another run's; None: those of `pretrained`, or random ones
    features: Features | None = None  # of a frozen trunk, once they are computed
    head_encoder: HeadEncoder | None = None  # encodes from these features

    def __repr__(self) -> str:
        return (
            f"TrainSetup({self.method_name}, {self.bits} bits, networks {', '.join(self.networks)}, {self.size:,} training "
            f"images, {self.total_steps:,} steps of {self.batch_size} images, on {self.devices.describe()})"
        )

    @property
    def networks(self) -> tuple[str, ...]:
        """The ImgNets in the order in which they are trained: ("f", "g"), or ("f",) without a twin."""
        return ("f", "g") if self.method.twin else ("f",)

    @property
    def bits(self) -> int:
        """The code length."""
        return self.img_net.bits

    @property
    def size(self) -> int:
        """The number of training images, n."""
        return len(self.sets.set_index)

    @property
    def local_rows(self) -> slice:
        """The rows of the training set on the devices of this process."""
        return self.devices.local_rows(self.size)

    @property
    def steps_per_half(self) -> int:
        """Updates of one ImgNet per round."""
        return self.epochs_per_round * (self.size // self.batch_size)

    @property
    def steps_per_round(self) -> int:
        """Updates of all ImgNets per round."""
        return len(self.networks) * self.steps_per_half

    @property
    def total_steps(self) -> int:
        """Updates of all ImgNets in all rounds."""
        return self.rounds * self.steps_per_round

    @property
    def start_report(self) -> dict[str, Any] | None:
        """What of another run's weights the run starts from, for `result.json`; None: it starts from none."""
        frozen = self.trained_net.backbone is None
        return None if self.start is None else self.start.report(self.net_shapes, frozen_trunk=frozen)

    def progress(self, step: int) -> float:
        """Return the share of the rounds that are done at a step, in [0, 1]; 1 in rounds that were added to a finished run."""
        return min(1.0, step // self.steps_per_round / (*self.finished_rounds, self.rounds)[0])

    @property
    def encoder(self) -> Encoder | HeadEncoder:
        """Encodes rows of the data set: from their images, or from a frozen trunk's features where there are some."""
        return self.head_encoder or self.image_encoder

    @cached_property
    def image_encoder(self) -> Encoder:
        """Encodes rows of the data set from their images."""
        return Encoder(
            self.img_net,
            self.data.source,
            local=self.devices.local,
            batch_size=self.eval_batch_size,
            preprocessing=self.data.preprocessing,
            read_options=self.read_options,
        )

    @cached_property
    def frequencies(self) -> np.ndarray:
        """The share of the training set with each label set, float32[m]."""
        return (self.sets.counts / self.size).astype(np.float32)

    @cached_property
    def label_net_optimizer(self) -> optax.GradientTransformation:
        """Adam, for LabelNet."""
        return optax.adam(self.label_net_settings.learning_rate)

    @cached_property
    def label_net_apply(self) -> Callable[..., Any]:
        """LabelNet's forward pass, compiled."""
        assert self.label_net is not None
        return jax.jit(partial(apply_label_net, self.label_net))

    @cached_property
    def label_net_step(self) -> Callable[..., Any]:
        """One update of LabelNet, compiled; it reuses the memory of the state that is passed."""
        assert self.label_net is not None
        step = partial(
            label_net_step,
            model=self.label_net,
            optimizer=self.label_net_optimizer,
            statistics=self.statistics,
            cosine_scale=self.label_net_settings.cosine_scale,
            weights=self.label_net_settings.weights,
        )
        return jax.jit(step, donate_argnums=0)

    @cached_property
    def net_shapes(self) -> Any:
        """Shapes and dtypes of an ImgNet's variables that are trained, and of the method's own parameters."""
        inputs = jax.ShapeDtypeStruct(self.input_shape, jnp.float32 if self.trained_net.backbone is None else jnp.uint8)
        init = partial(self.trained_net.init, train=False)
        shapes = {"batch_stats": {}, **jax.eval_shape(init, jax.random.key(0), inputs)}
        make = self.method.parameters
        if make is not None:
            own = jax.eval_shape(lambda key: make(key, self.bits, self.sets.sets.shape[1]), jax.random.key(0))
            shapes["params"] = {**shapes["params"], "method": own}
        return shapes

    @cached_property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input of the trained network: an image, or a frozen trunk's features."""
        side = self.data.preprocessing.image_size
        image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.uint8)
        if self.trained_net.backbone is not None:
            return image.shape
        variables = jax.eval_shape(partial(self.img_net.init, train=False), jax.random.key(0), image)
        trunk = {kind: {"backbone": tree["backbone"]} for kind, tree in variables.items()}
        apply = partial(self.img_net.apply, train=False, method=self.img_net.trunk)
        return tuple(jax.eval_shape(apply, trunk, image).shape)

    @cached_property
    def specs(self) -> TrainState:
        """The PartitionSpec of each part of the state."""
        params: Any = WHOLE
        opt_state: Any = WHOLE
        if self.shard_parameters:
            shapes = self.net_shapes["params"]
            params = self.devices.parameter_specs(shapes)
            opt_state = self.devices.parameter_specs(jax.eval_shape(self.optimizer.init, shapes))
        net = ImgNetState(params=params, batch_stats=_WHOLE, opt_state=opt_state, key=_WHOLE, bank=_ROWS)
        img_nets = dict.fromkeys(self.networks, net)
        return TrainState(step=_WHOLE, label_net=_WHOLE, trunk=_WHOLE, img_nets=img_nets, codes=_ROWS)

    def compile_img_net_step(self, *, donate: bool) -> Callable[..., Any]:
        """Compile one update of an ImgNet; with `donate` the state that is passed can't be used afterwards."""
        gradients = partial(
            img_net_gradients,
            model=self.trained_net,
            loss=self.method.loss,
            statistics=self.statistics,
            seed=self.seed,
            axis_name=self.devices.axis_name,
        )
        update = partial(img_net_update, optimizer=self.optimizer)
        return self.devices.compile_step(gradients, update, state=self.specs.img_nets["f"], targets=TARGET_SPECS, donate=donate)

    @cached_property
    def img_net_step(self) -> Callable[..., Any]:
        """One update of an ImgNet; the state that is passed stays usable."""
        return self.compile_img_net_step(donate=False)

    @cached_property
    def donating_img_net_step(self) -> Callable[..., Any]:
        """One update of an ImgNet; the state that is passed can't be used afterwards."""
        return self.compile_img_net_step(donate=True)

    def model(self, state: TrainState, *, query_net: str | None = None) -> Model:
        """Return the trained model of a state, which encodes any images.

        Args:
          state: a state of this setup.
          query_net: which networks encode: "ff", "gg", "fg" or "sum"; None: "sum" with a twin, else "ff".
        """
        net: Any = self.img_net
        if self.backbone is None:
            raise InputError("the backbone isn't one of adsq_jax.models.BACKBONES: a model of it can't be built again")
        return Model.from_networks(
            jax.tree.map(lambda x: np.asarray(self.devices.local.to_local(x)), state.variables),
            network={
                **self.backbone,
                "features": net.features,
                "mean": list(net.mean),
                "deviation": list(net.deviation),
                "head": net.head,
            },
            bits=self.bits,
            dtype=net.backbone.layers.dtype,
            preprocessing=self.data.preprocessing,
            query_net=query_net or ("sum" if self.method.twin else "ff"),
            batch_size=self.eval_batch_size,
            method=self.method_name,
        )


def setup(
    data: Dataset,
    method: Any,
    network: Network,
    *,
    method_name: str | None = None,
    seed: int = 0,
    rounds: int = 10,
    epochs_per_round: int = 3,
    batch_size: int = 128,
    optimizer: optax.GradientTransformation | None = None,
    label_net: LabelNetSettings | None = None,
    frozen_trunk: bool = False,
    feature_views: int = 0,
    devices: TrainDevices | Sequence[jax.Device] | None = None,
    shard_parameters: bool = False,
    finished_rounds: Sequence[int] = (),
    extensions: Sequence[tuple[str, float]] = (),
    start: StartingWeights | None = None,
    eval_batch_size: int = 512,
    threads: int = 0,
    workers: int = 0,
) -> TrainSetup:
    """Define what a run trains, on which data and devices, and for how long.

    Args:
      data: source, split and preprocessing, for example from `adsq_jax.data.from_arrays`.
      method: a Method, or a recipe, module or name, as in `adsq_jax.methods.as_method`.
      network: from `adsq_jax.models.build`.
      method_name: the method's name in saved models; None: its own.
      seed: seed for weights, order, augmentation and what a loss draws once.
      rounds: the number of rounds; a round trains f, trains g, and updates the codes.
      epochs_per_round: passes over the training set, for each ImgNet and round.
      batch_size: images per batch, over all devices; at most the number of training images.
      optimizer: for each ImgNet; None: `adsq_jax.training.optimizer.build` with its default settings, over all rounds.
      label_net: LabelNet's settings; None: `LabelNetSettings()` with the method's weights. Unused without LabelNet.
      frozen_trunk: whether to train only the heads, on the trunk's features.
      feature_views: with a frozen trunk: augmented views of each training image to train on; 0: its centre alone.
      devices: None: one device, without a mesh. A list of JAX devices: data-parallel by shard_map. Or a
        `adsq_jax.devices.DataParallel`.
      shard_parameters: whether each device keeps a part of parameters and optimiser state between steps.
      finished_rounds: after how many rounds the run had finished before others were added, ascending; `rounds` counts all.
      extensions: for each of these the schedule and the scale of the learning rate afterwards, as `optimizer.build` takes them.
      start: weights of another run that both ImgNets start from, from `adsq_jax.training.read_start`; None: random ones, or the
        pretrained weights of the network.
      eval_batch_size: images encoded at a time.
      threads: threads for reading and decoding images; 0: one per core, and one that waits for the disk.
      workers: processes for reading and decoding; 0: this one.

    Returns:
      The setup; its steps are compiled when they are first called.

    Raises:
      InputError: data, method, network and devices don't fit together.

    Source: this project.
    """
    name, method = method_name or _name_of(method), methods.as_method(method)
    _check_network(network, method, frozen_trunk=frozen_trunk, feature_views=feature_views, name=name)
    devices = _devices(devices)
    train_labels = part_labels(data, "train")  # [n, c]
    _check_data(data, n_train=len(train_labels), batch_size=batch_size, devices=devices)
    sets = objective.label_sets(train_labels)
    img_net = with_axis(network.img_net, head=method.head, axis_name=devices.axis_name)
    settings = label_net or LabelNetSettings(weights={**LABEL_NET_WEIGHTS, **(method.label_net_weights or {})})
    counts = {"batch_size": batch_size, "epochs_per_round": epochs_per_round, "rounds": rounds}
    steps = optimizers.steps(len(train_labels), **counts, finished_rounds=finished_rounds, extensions=extensions)
    return TrainSetup(
        data=data,
        method=method,
        img_net=img_net,
        trained_net=img_net.clone(backbone=None) if frozen_trunk else img_net,
        pretrained=network.pretrained,
        backbone=network.arguments,
        method_name=name,
        label_net=LabelNet(img_net.bits, settings.hidden, img_net.features) if method.label_net else None,
        label_net_settings=settings,
        seed=seed,
        rounds=rounds,
        epochs_per_round=epochs_per_round,
        batch_size=batch_size,
        feature_views=feature_views,
        eval_batch_size=eval_batch_size,
        shard_parameters=shard_parameters,
        finished_rounds=tuple(finished_rounds),
        extensions=tuple(extensions or [("restart", 1.0)] * len(finished_rounds)),
        start=start,
        devices=devices,
        read_options=_read_options(devices, threads=threads, workers=workers),
        optimizer=optimizer or optimizers.build(**steps),
        sets=sets,
        statistics=objective.pair_statistics(sets),
    )


def _check_data(data: Dataset, *, n_train: int, batch_size: int, devices: TrainDevices) -> None:
    if not n_train:
        raise InputError("the training set is empty: expected images to train on; fix: give train=ROWS")
    if batch_size > n_train:
        raise InputError(f"train.batch_size={batch_size} is more than the {n_train} training images; fix: give a smaller one")
    devices.check_batch(batch_size)
    pipeline.resized(data.source, int(data.split.train[0]), data.preprocessing)  # finds out now whether images fit


def _check_network(network: Any, method: Method, *, frozen_trunk: bool, feature_views: int, name: str) -> None:
    if not isinstance(network, Network):
        raise InputError(f"network is a {type(network).__name__}: expected what adsq_jax.models.build returns")
    if method.second_view and frozen_trunk and feature_views < 2:
        raise InputError(
            f"data.feature_views={feature_views}: expected at least 2, since {name} compares two views of each image; fix: "
            "--config.data.feature_views=4, or feature_views=4"
        )


def _read_options(devices: TrainDevices, *, threads: int, workers: int) -> ReadOptions:
    return ReadOptions(threads=reading_threads(threads), workers=workers, process=devices.process, processes=devices.processes)


def _devices(devices: TrainDevices | Sequence[jax.Device] | None) -> TrainDevices:
    if devices is None:
        return TrainDevices()
    return devices if isinstance(devices, TrainDevices) else DataParallel("shard_map", devices=devices)


def _name_of(method: Any) -> str:
    name = method if isinstance(method, str) else getattr(method, "name", None) or getattr(method, "__name__", None)
    return str(name or "own")
