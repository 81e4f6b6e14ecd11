"""Training: a frozen `TrainSetup`, a `TrainState`, and functions of the two.

By hand: `setup`, `init`, `train_label_net`; then, for each round and network, `step` over batches and `refresh_bank`; and
`update_codes`. `train_round` trains one round, and `adsq_jax.fit` all rounds.
"""

from adsq_jax import errors as _errors

with _errors.needing(__name__):
    from adsq_jax.training import optimizer
    from adsq_jax.training.fit import Run, fit
    from adsq_jax.training.init import init
    from adsq_jax.training.metrics_buffer import NotFinite
    from adsq_jax.training.rounds import (
        compute_features,
        refresh_bank,
        step,
        targets,
        train_label_net,
        train_round,
        update_codes,
    )
    from adsq_jax.training.setup import LabelNetSettings, TrainSetup, setup
    from adsq_jax.training.starting_weights import StartingWeights, read_start
    from adsq_jax.training.state import ImgNetState, LabelNetState, Targets, TrainState

__all__ = [
    "ImgNetState",
    "LabelNetSettings",
    "LabelNetState",
    "NotFinite",
    "Run",
    "StartingWeights",
    "Targets",
    "TrainSetup",
    "TrainState",
    "compute_features",
    "fit",
    "init",
    "optimizer",
    "read_start",
    "refresh_bank",
    "setup",
    "step",
    "targets",
    "train_label_net",
    "train_round",
    "update_codes",
]
