"""What an update of an ImgNet sends between devices, read from the compiled program: all of it, and nothing else.

Nothing is executed. The reader of programs is that of benchmarks/speed/scaling.py.
"""

import functools

import jax
import numpy as np
import pytest
from support import mock_data

from adsq_jax.devices.data_parallel import DataParallel
from adsq_jax.training import loop
from benchmarks.speed import scaling

DEVICES, BATCH, BITS, TERMS = 4, 16, 12, 6


@pytest.fixture(scope="module")
def program():
    """A function from a run's settings to the shapes that its update takes and what the compiled update sends."""

    @functools.cache
    def build(*, width=4, twin=True, shard_parameters=False, images=64, neighbours=0.0):
        config = mock_data.small_config()
        config.model.width, config.shard_parameters = width, shard_parameters
        config.objective.weights.neighbours = neighbours
        config.objective.twin = twin
        config.eval.query_net = "fg" if twin else "ff"
        devices = jax.devices()[:DEVICES]
        setup = loop.setup_from_config(config, mock_data.dataset(), devices=DataParallel("shard_map", devices=devices))
        shapes = scaling.arguments(setup, images=images)
        return shapes, scaling.collectives(setup.donating_img_net_step.lower(*shapes).compile().as_text())

    return build


def size(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


def expected(net, *, width):
    """Bytes by purpose of small_cnn's update.

    The residual block's last norm and the norm beside it are added, so that their biases have one gradient; it travels once.
    """
    channels = size(net.batch_stats) // 2
    return {
        "gradients and loss terms": 4 * (size(net.params) - 4 * width + TERMS),
        "BatchNorm, forward": 4 * 2 * channels,  # each layer's means and mean squares
        "BatchNorm, backward": 4 * 2 * channels,
        "codes": 4 * BATCH * BITS,
        "gradient of the codes": 4 * BATCH * BITS,
        "indices": 4 * BATCH,
        "label sets": 4 * BATCH,
    }


@pytest.mark.parametrize("twin", [True, False])
def test_an_update_sends_gradients_once_and_the_batchs_codes_and_statistics(program, twin):
    """Every byte has a purpose, and each purpose the bytes that it needs; with a twin or without."""
    (net, *_), sent = program(twin=twin)
    assert scaling.by_purpose(sent) == expected(net, width=4)
    kinds = {purpose: {x.kind for x in sent if x.purpose == purpose} for purpose in expected(net, width=4)}
    assert kinds["codes"] == kinds["indices"] == kinds["label sets"] == {"all-gather"}
    assert kinds["gradient of the codes"] == {"reduce-scatter"}
    assert sum(x.purpose.startswith("BatchNorm") for x in sent) == 2 * len(jax.tree.leaves(net.batch_stats)) // 2


# Compiles the step for four devices, twice.
def test_the_neighbours_likelihood_sends_two_sums_an_image(program):
    """Beside what else is sent, and its loss term: two numbers an image of the batch, and their gradient; whatever n is."""
    (net, *_), sent = program(neighbours=0.5)
    usual = expected(net, width=4)
    usual["gradients and loss terms"] += 4
    assert scaling.by_purpose(sent) == {**usual, "neighbours": 2 * 4 * 2 * BATCH}
    assert sorted(program(neighbours=0.5, images=640)[1]) == sorted(sent)


@pytest.mark.parametrize("twin", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_nothing_that_is_sent_grows_with_the_training_set(program, twin):
    """Ten times the rows, and some that don't divide evenly: the same arrays, of the same bytes, for the same purposes."""
    (net, *_), sent = program(twin=twin)
    (larger, *_), of_larger = program(twin=twin, images=643)
    assert (len(net.bank.sharding.device_set), net.bank.shape[0], larger.bank.shape[0]) == (DEVICES, 64, 644)
    assert sorted(of_larger) == sorted(sent)


# Compiles the step for four devices, not from the cache.
@pytest.mark.slow
def test_parted_parameters_are_gathered_once(program):
    """Beside what else is sent: each parted array's whole, once, and nothing of the optimiser's state; whatever n is."""
    (net, *_), sent = program(width=32, shard_parameters=True)
    parted = [x for x in jax.tree.leaves(net.params) if x.sharding.shard_shape(x.shape) != x.shape]
    assert len(parted) == 3
    assert any(x.sharding.shard_shape(x.shape) != x.shape for x in jax.tree.leaves(net.opt_state))
    assert scaling.by_purpose(sent) == {**expected(net, width=32), "parameters": 4 * size(parted)}
    gathered = [np.prod(x.shape) for x in sent if x.purpose == "parameters"]
    assert sorted(gathered) == sorted(x.size for x in parted)
    assert sorted(program(width=32, shard_parameters=True, images=640)[1]) == sorted(sent)


HLO = """
  %ar = (f32[2,16]{1,0}, /*index=1*/bf16[8]{0:T(8,128)}) all-reduce-start(%a, %b), replica_groups={{0,1},{2,3}}, to_apply=%add
  %done = (f32[2,16]{1,0}, bf16[8]{0}) all-reduce-done(%ar)
  %x = f32[2,16]{1,0} get-tuple-element(%done), index=0, metadata={op_name="jit(run)/shard_map/psum"}
  %y = bf16[8]{0} get-tuple-element(%done), index=1, metadata={op_name="jit(run)/elsewhere"}
  %ag = (s32[4], s32[16]) all-gather-start(%i), replica_groups=[1,4]<=[4], metadata={op_name="jit(run)/shard_map/all_gather"}
  %got = s32[16]{0} all-gather-done(%ag)
  %rs = f32[4,12]{1,0} reduce-scatter(%c), replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}
  ROOT %cp = (pred[3]{0}, pred[3]{0}, u32[], u32[]) collective-permute-start(%p), source_target_pairs={{0,1},{1,0}}
  %all = (u8[5]{0}, u8[5]{0}) all-to-all(%q, %r), replica_groups={{0,1}}
  %alone = f32[100]{0} all-reduce(%s), replica_groups={{0},{1}}, to_apply=%add
  %no = f32[100]{0} fusion(%all-reduce.1), kind=kLoop, calls=%all-reduce
"""


def test_every_form_of_a_collective_is_read():
    """Started ones and tuples of arrays, each array once; a reduce-scatter's bytes are of what goes in; none unexplained."""
    found = [(x.kind, x.dtype, x.shape, x.bytes, x.purpose) for x in scaling.collectives(HLO)]
    assert found == [
        ("all-reduce", "f32", (2, 16), 128, "gradients and loss terms"),
        ("all-reduce", "bf16", (8,), 16, "unexplained"),
        ("all-gather", "s32", (16,), 64, "indices"),
        ("reduce-scatter", "f32", (4, 12), 768, "unexplained"),
        ("collective-permute", "pred", (3,), 3, "unexplained"),
        ("all-to-all", "u8", (5,), 5, "unexplained"),
        ("all-to-all", "u8", (5,), 5, "unexplained"),
    ]
