"""Short trainings on mock data, which many tests share."""

import copy
import json
import signal
import time
import weakref

import jax
import numpy as np

from adsq_jax import config as config_module
from adsq_jax import main
from adsq_jax.devices.data_parallel import DataParallel
from adsq_jax.run import history
from adsq_jax.training import loop, rounds
from support import mock_data

_CONFIGS = weakref.WeakKeyDictionary()  # of each setup
_COMPILED = {"image_encoder", "label_net_step", "img_net_step", "donating_img_net_step"}  # a setup's functions that take time
_MOST_SETUPS = 8
_setups = {}  # by config, data and devices: tests that train the same trace and compile it once


def make_setup(config, data=None, *, devices=1, finished_rounds=(), **kwargs):
    """The setup of a config on mock data, on so many devices; the same arguments share what is compiled."""
    if data is not None or config.model.pretrained:  # files may have changed
        setup = _new_setup(config, data, devices=devices, finished_rounds=finished_rounds, **kwargs)
    else:
        key = (config.to_json(), devices, finished_rounds, tuple(kwargs.items()))
        if key not in _setups:
            if len(_setups) == _MOST_SETUPS:
                del _setups[next(iter(_setups))]
            _setups[key] = _new_setup(config, data, devices=devices, finished_rounds=finished_rounds, **kwargs)
            for name in _COMPILED if _setups[key].label_net is not None else _COMPILED - {"label_net_step"}:
                getattr(_setups[key], name)
        setup = copy.copy(_setups[key])  # a test may change it
        vars(setup).update({name: copy.copy(vars(setup)[name]) for name in ("devices", "image_encoder")})
    _CONFIGS[setup] = copy.deepcopy(config)
    return setup


def _new_setup(config, data, *, devices, finished_rounds, **kwargs):
    data = mock_data.dataset(image_size=config.data.image_size, **kwargs) if data is None else data
    data = data._replace(preprocessing=config_module.data_settings(config).preprocessing)
    parallel = DataParallel(config.parallel, devices=jax.devices()[:devices])
    return loop.setup_from_config(config, data, devices=parallel, finished=history.Finished(finished_rounds))


def train(setup, *, directory):
    """Train a setup in a folder; the setup with a frozen trunk's features, and the last state."""
    config = _CONFIGS[setup]
    return loop.train(
        setup,
        directory=directory,
        features=loop.feature_directory(config, directory),
        saving=loop.saving_from_config(config),
        origin=loop.origin(setup, json.loads(config.to_json())),
        began=time.monotonic(),
    )[:2]


def run(setup, directory):
    """Train and measure in a folder as the command does; the result."""
    config = _CONFIGS[setup]
    finished = main._finished(config, directory)
    main._claim(config, directory, json.loads(config.to_json()), finished=finished).close()
    return main.train_and_evaluate(setup, config, directory, began=time.monotonic())


def same(a, b):
    """Whether two trees hold the same numbers."""
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def on_devices(setup, state, *, net="f"):
    """A network's state and its targets as a compiled step takes them."""
    network = setup.devices.to_devices(state.img_nets[net], setup.specs.img_nets[net])
    return network, rounds.targets(setup, state, net=net)


def stop_at_batch(at, setup, monkeypatch):
    """Send this process SIGTERM when training takes its batch number `at`; the list of batches taken."""
    split, calls = setup.devices.split_batch, []

    def counting(batch):
        calls.append(1)
        if len(calls) == at:
            signal.raise_signal(signal.SIGTERM)
        return split(batch)

    monkeypatch.setattr(setup.devices, "split_batch", counting)
    return calls
