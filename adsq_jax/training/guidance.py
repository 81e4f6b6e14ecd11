"""LabelNet's outputs for each label set, which guide the ImgNets and the discrete step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adsq_jax.methods.objective import Guidance
from adsq_jax.training.metrics_buffer import NotFinite
from adsq_jax.training.setup import TrainSetup
from adsq_jax.training.state import TrainState


def guidance(setup: TrainSetup, state: TrainState) -> Guidance | None:
    """Compute LabelNet's semantic features and codes by label set; None without LabelNet.

    Raises:
      NotFinite: LabelNet diverged in its last update.
    """
    if state.label_net is None:
        return None
    semantic, relaxed_codes = label_net_outputs(setup, state.label_net.params)
    separated = state.label_net.separated
    codes = relaxed_codes if separated is None else jnp.asarray(separated, jnp.float32)
    return Guidance(semantic, codes, frequencies=jnp.asarray(setup.frequencies))


def label_net_outputs(setup: TrainSetup, params: Any) -> tuple[jax.Array, jax.Array]:
    """Return LabelNet's semantic features, float32[m, d], and relaxed codes, float32[m, bits], by label set.

    Raises:
      NotFinite: LabelNet diverged in its last update.
    """
    semantic, relaxed_codes, _ = setup.label_net_apply({"params": params}, setup.sets.sets)
    if not np.isfinite(relaxed_codes).all():
        raise NotFinite("LabelNet, after its last step: relaxed codes not finite")
    return semantic, relaxed_codes
