"""LabelNet: from label vectors to semantic features and relaxed codes."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class LabelNet(nn.Module):
    """Three fully-connected layers over the label vector, and a linear head that predicts the labels.

    Source: DSEH's LabNet, Li et al., IJCAI 2018; ADSQ's abstract, arXiv 1903.12493. Layer sizes: this project.
    """

    bits: int  # the code length
    hidden: int  # units of the first layer
    features: int  # units of the second layer, the semantic features

    @nn.compact
    def __call__(self, labels: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Map label vectors to semantic features, relaxed codes and label logits.

        Args:
          labels: uint8[m, c] in {0, 1}.

        Returns:
          Semantic features float32[m, features], relaxed codes float32[m, bits] in [-1, 1], label logits float32[m, c].
        """
        x = nn.relu(nn.Dense(self.hidden, name="hidden_layer")(labels.astype(jnp.float32)))  # [m, hidden]
        semantic = nn.Dense(self.features, name="semantic")(x)  # [m, features]
        relaxed_codes = jnp.tanh(nn.Dense(self.bits, name="hash")(nn.relu(semantic)))  # [m, bits]
        label_logits = nn.Dense(labels.shape[-1], name="labels")(relaxed_codes)  # [m, c]
        return semantic, relaxed_codes, label_logits
