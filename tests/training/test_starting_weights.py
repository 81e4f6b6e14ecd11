"""A run that starts from another one's weights: which layers are taken, with which options, and what is refused."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from support import mock_data
from support.runs import make_setup, run, same

from adsq_jax import main, models
from adsq_jax.devices.data_parallel import TrainDevices
from adsq_jax.errors import InputError
from adsq_jax.inference.loading import load
from adsq_jax.models import backbones
from adsq_jax.models.img_net import HEADS
from adsq_jax.training import StartingWeights, init, loop, read_start


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    """The folder of a run of small_cnn with two networks, 12 bits."""
    folder = tmp_path_factory.mktemp("twin")
    run(make_setup(mock_data.small_config()), folder)
    return folder


def started(config, folder):
    """The setup and the first state of a config that starts from a run."""
    start = read_start(folder, backbone=config.model.backbone, width=config.model.width)
    setup = loop.setup_from_config(config, mock_data.dataset(), devices=TrainDevices(), start=start)
    return setup, init(setup)


def test_the_same_config_starts_from_both_networks(twin):
    """All layers are taken: the first state encodes as the finished run does, with new optimisers and another order."""
    setup, state = started(mock_data.small_config(), twin)
    theirs = load(twin).variables
    for name in ("f", "g"):
        assert same(state.img_nets[name].params, theirs[name]["params"])
        assert same(state.img_nets[name].batch_stats, theirs[name]["batch_stats"])
    assert setup.start_report["taken"] == ["backbone", "hash", "semantic"]
    assert setup.start_report["new"] == []
    assert setup.start_report["sha256"] == load(twin / "model").sha256


def test_another_code_length_has_a_new_hash_layer(twin):
    """24 bits and another method of one network: backbone and semantic layer of f are taken, the hash layer is drawn."""
    config = mock_data.small_config(bits=24, method="dpsh")
    setup, state = started(config, twin)
    theirs, ours = load(twin).variables["f"]["params"], state.img_nets["f"].params
    assert same(ours["backbone"], theirs["backbone"])
    assert same(ours["semantic"], theirs["semantic"])
    assert ours["hash"]["kernel"].shape == (16, 24)
    assert setup.start_report["new"] == ["hash"]


@pytest.mark.parametrize(
    ("name", "head"),
    [
        *((name, "tanh") for name in backbones.NAMES if name[-5:] not in ("lite1", "lite2")),
        *(("small_cnn", head) for head in HEADS[1:]),
    ],
)
def test_every_backbone_is_taken_by_another_code_length(name, head):
    """Shapes alone: from 12 to 24 bits backbone and semantic layer are taken; the layers of the hash codes are new."""

    def variables(bits):
        net = models.build(name, bits=bits, head=head).img_net
        images = jax.ShapeDtypeStruct((1, 224, 224, 3), np.uint8)
        init = functools.partial(net.init, train=False)
        return {"batch_stats": {}, **jax.eval_shape(init, jax.random.key(0), images)}

    start = StartingWeights("run", "0" * 64, {"backbone": name}, {"f": jax.tree.map(zeros, variables(12))})
    for bits, new in ((12, set()), (24, {"hash", "hash_norm"})):
        wanted = variables(bits)
        taken, names = start.replace("g", wanted, with_trunk=True)
        assert jax.tree.map(np.shape, taken) == jax.tree.map(np.shape, wanted)
        assert set(names) == set(wanted["params"]) - new


def zeros(x):
    """An array of a shape that takes no memory."""
    return np.broadcast_to(np.zeros((), x.dtype), x.shape)


def test_one_network_starts_both(tmp_path):
    """A run of a method without a twin: f and g begin alike, and the images' mean is that of the run."""
    config = mock_data.small_config(method="dpsh")
    config.model.mean, config.model.deviation = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    run(make_setup(config), tmp_path)
    setup, state = started(mock_data.small_config(), tmp_path)
    f, g = (state.img_nets[name].params for name in ("f", "g"))
    assert same(f["backbone"], g["backbone"])
    assert setup.img_net.mean == (0.1, 0.2, 0.3)
    assert setup.img_net.deviation == (0.5, 0.6, 0.7)


def test_a_frozen_backbone_is_one(twin, tmp_path):
    """Two trained backbones can't both be the frozen one; the frozen one of a run is taken, also to train it."""
    frozen = mock_data.small_config()
    frozen.optim.trunk_lr_scale = 0.0
    with pytest.raises(InputError, match=r"two backbones, .*fix: train it, as with --config\.optim\.trunk_lr_scale=0\.1"):
        started(frozen, twin)
    run(make_setup(frozen), tmp_path)
    theirs = load(tmp_path).variables["trunk"]["params"]["backbone"]
    _, state = started(frozen, tmp_path)
    assert same(state.trunk["params"]["backbone"], theirs)
    _, state = started(mock_data.small_config(), tmp_path)
    for name in ("f", "g"):
        assert same(state.img_nets[name].params["backbone"], theirs)


def test_two_backbones_are_refused_before_the_folder_is_made(twin, tmp_path):
    """A refused start leaves no folder behind, which would then belong to a run of this config."""
    frozen = mock_data.small_config()
    frozen.optim.trunk_lr_scale = 0.0
    with pytest.raises(InputError, match="two backbones"):
        main.train(frozen, tmp_path / "run", from_run=twin)
    assert not (tmp_path / "run").exists()


def test_what_does_not_fit_is_one_line(twin, tmp_path):
    """Another backbone or width, pretrained weights besides, and a folder without a model."""
    config = mock_data.small_config()
    config.model.width = 8
    with pytest.raises(InputError, match=r"width 4, got small_cnn of width 8; fix: .*--config\.model\.width=4"):
        started(config, twin)
    config = mock_data.small_config()
    config.model.pretrained = "weights.npz"
    with pytest.raises(InputError, match="weights of one origin"):
        started(config, twin)
    with pytest.raises(InputError, match="holds no trained model"):
        read_start(tmp_path, backbone="small_cnn")


def test_the_start_is_part_of_the_result_and_of_checkpoints(twin, tmp_path):
    """result.json names the start; a run that began with it doesn't go on without it."""
    config = mock_data.small_config()
    start = read_start(twin, backbone="small_cnn", width=4)
    setup = dataclasses.replace(make_setup(config), start=start)
    begun = loop.origin(setup, {})
    assert begun["pretrained_sha256"] == load(twin).sha256
    assert loop.origin(make_setup(config), {})["pretrained_sha256"] is None
