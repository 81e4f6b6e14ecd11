"""The state before the first update."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adsq_jax.training.setup import TrainSetup
from adsq_jax.training.state import ImgNetState, LabelNetState, TrainState


def init(setup: TrainSetup, *, seed: int | None = None) -> TrainState:
    """Draw the state before the first update; banks are 0 and codes +1.

    Args:
      setup: from `setup`.
      seed: seed for weights and dropout; None: the setup's.

    Returns:
      The state.

    Source: this project.
    """
    seed = setup.seed if seed is None else seed
    # rbg: XLA takes seconds to compile the default generator for each shape of kernel
    keys = jax.random.split(jax.random.key(seed, impl="rbg"), 3)
    label_net = None
    if setup.label_net is not None:
        params = jax.jit(setup.label_net.init)(keys[0], setup.sets.sets)["params"]
        separated = jnp.zeros((len(setup.sets.sets), setup.bits), jnp.int8) if setup.method.separate else None
        label_net = LabelNetState(params=params, opt_state=setup.label_net_optimizer.init(params), separated=separated)
    given: dict[str, Any] = {}  # the trunk's variables that a file of weights holds
    if setup.pretrained is not None:
        given = {kind: {"backbone": tree} for kind, tree in setup.pretrained.variables.items()}
    is_frozen = setup.trained_net.backbone is None
    if setup.start is not None and is_frozen:
        given = setup.start.shared_trunk()
    trunk = (given or _random_trunk(setup, keys[1])) if is_frozen else None
    inputs = jnp.zeros(setup.input_shape, jnp.float32 if is_frozen else jnp.uint8)
    net_init = jax.jit(partial(setup.trained_net.init, train=False))
    n_local = len(range(*setup.local_rows.indices(setup.size)))
    img_nets = {}
    for number, (name, key) in enumerate(zip(setup.networks, keys[1:], strict=False)):
        variables = {"batch_stats": {}, **net_init(key, inputs)}
        if not is_frozen:
            variables = {kind: {**tree, **given.get(kind, {})} for kind, tree in variables.items()}
        if setup.start is not None:
            variables, _ = setup.start.replace(name, variables, with_trunk=not is_frozen)
        if setup.method.parameters is not None:
            own = setup.method.parameters(jax.random.fold_in(key, 1), setup.bits, setup.sets.sets.shape[1])
            variables["params"] = {**variables["params"], "method": own}
        img_nets[name] = ImgNetState(
            params=variables["params"],
            batch_stats=variables["batch_stats"],
            opt_state=setup.optimizer.init(variables["params"]),
            key=jnp.array([seed, number], jnp.uint32),
            bank=global_rows(setup, np.zeros((n_local, setup.bits), np.float32)),
        )
    return TrainState(
        step=np.array(0, np.int64),
        label_net=label_net,
        trunk=trunk,
        img_nets=img_nets,
        codes=global_rows(setup, np.ones((n_local, setup.bits), np.int8)),
    )


def _random_trunk(setup: TrainSetup, key: jax.Array) -> dict[str, Any]:
    side = setup.data.preprocessing.image_size
    variables = jax.jit(partial(setup.img_net.init, train=False))(key, jnp.zeros((1, side, side, 3), jnp.uint8))
    return {kind: {"backbone": tree["backbone"]} for kind, tree in variables.items()}


def global_rows(setup: TrainSetup, rows: np.ndarray) -> jax.Array:
    """Make one global array of the rows of the training set that each process has."""
    return setup.devices.from_local_rows(rows, size=setup.size)


def to_local_rows(setup: TrainSetup, rows: Any) -> np.ndarray:
    """Return this process's rows of a global array of the training set, without padding."""
    return setup.devices.to_local_rows(rows, size=setup.size)
