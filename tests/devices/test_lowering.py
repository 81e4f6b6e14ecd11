"""Every step and every encoder can be compiled for NVIDIA GPUs and for TPUs, which no test machine needs to have."""

import jax
import jax.export
import jax.numpy as jnp
import pytest
from support import mock_data
from support.runs import make_setup

from adsq_jax.methods.objective import Guidance
from adsq_jax.models import backbones
from adsq_jax.training import init
from adsq_jax.training.state import Targets

SIDES = {"alexnet": 64, "vgg16": 32, "vit_b16": 32}
PLATFORMS = ("cuda", "tpu")


def shapes(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def build(backbone, *, devices=1, frozen=False, dtype="float32"):
    """A run with a backbone in its published size, and shapes of its state: nothing of that size is computed."""
    side = SIDES.get(backbone, 16)
    config = mock_data.small_config(image_size=side)
    config.model.backbone, config.model.width, config.model.dtype = backbone, 0, dtype
    config.model.dropout = 0.5
    config.optim.trunk_lr_scale = 0.0 if frozen else 1.0
    setup = make_setup(config, devices=devices)
    return setup, jax.eval_shape(lambda: init(setup)), jax.ShapeDtypeStruct((16, side, side, 3), jnp.uint8)


def lowered(function, *arguments):
    exported = jax.export.export(function, platforms=PLATFORMS)(*arguments)
    assert exported.platforms == PLATFORMS
    return exported.mlir_module()


def targets_of(setup, state):
    n, bits = state.codes.shape
    features = jax.ShapeDtypeStruct((len(setup.sets.sets), setup.img_net.features), jnp.float32)
    relaxed_codes = jax.ShapeDtypeStruct((len(setup.sets.sets), bits), jnp.float32)
    return Targets(
        bank=jax.ShapeDtypeStruct((n, bits), jnp.float32),
        codes=state.codes,
        set_index=jax.ShapeDtypeStruct((n,), jnp.int32),
        row_weights=jax.ShapeDtypeStruct((n,), jnp.float32),
        sets=shapes(setup.sets.sets),
        progress=jax.ShapeDtypeStruct((), jnp.float32),
        guidance=Guidance(features=features, codes=relaxed_codes, frequencies=shapes(setup.frequencies)),
    )


def batch_of(inputs):
    rows = jax.ShapeDtypeStruct((16,), jnp.int32)
    return {"inputs": inputs, "index": rows, "label_set": rows}


QUICK = [("small_cnn", "float32"), ("alexnet", "float32"), ("resnet18", "bfloat16"), ("vit_b16", "float32")]
CASES = [*((name, "float32") for name in backbones.NAMES), ("resnet18", "bfloat16"), ("vit_b16", "bfloat16")]


# Two platforms' programs of a whole backbone, forward and backward, are traced: seconds for each.
@pytest.mark.parametrize(
    ("backbone", "dtype"), [case if case in QUICK else pytest.param(*case, marks=pytest.mark.slow) for case in CASES]
)
def test_steps_and_encoders_of_every_backbone(backbone, dtype):
    """The update of an ImgNet, the codes of a whole network, and the features of its trunk."""
    setup, state, images = build(backbone, dtype=dtype)
    net = state.img_nets["f"]
    step = lowered(setup.img_net_step, net, targets_of(setup, state), batch_of(images))
    assert ("bf16" in step) == (dtype == "bfloat16")
    lowered(setup.image_encoder._codes, net.variables, images)
    lowered(setup.image_encoder._trunk, net.variables, images)


@pytest.mark.parametrize("devices", [1, 4])
def test_steps_on_several_devices(devices):
    """The update is one program for all devices."""
    setup, state, images = build("small_cnn", devices=devices)
    batch = batch_of(images)
    assert "all_reduce" in lowered(setup.img_net_step, state.img_nets["f"], targets_of(setup, state), batch)


def test_heads_on_a_frozen_trunk_and_label_net():
    """The update of heads alone, and LabelNet's."""
    setup, state, _ = build("resnet18", frozen=True)
    batch = batch_of(jax.ShapeDtypeStruct((16, 512), jnp.float32))
    lowered(setup.img_net_step, state.img_nets["f"], targets_of(setup, state), batch)
    lowered(setup.label_net_step, state.label_net, shapes(setup.sets.sets), shapes(setup.frequencies))
