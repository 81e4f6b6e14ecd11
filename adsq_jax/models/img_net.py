"""ImgNet: from images to semantic features and relaxed codes. ADSQ has two, with the same layers and different weights."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp


class ImgNet(nn.Module):
    """A trunk, which is a backbone and the normalisation of its images, a semantic layer, and a hash layer.

    The images' mean and deviation belong to the network, since pretrained weights expect their own.
    Source: ADSQ's abstract, arXiv 1903.12493; the heads follow DSEH's ImgNet, Li et al., IJCAI 2018.
    """

    backbone: nn.Module | None  # float32[batch, h, w, 3] -> float32[batch, width], with a keyword `train`; None: heads alone
    bits: int
    features: int  # size of the semantic features, the same as LabelNet's
    mean: Sequence[float]  # of the three channels, in [0, 1]
    deviation: Sequence[float]
    bounded: bool  # whether relaxed codes go through tanh

    def setup(self) -> None:
        """Makes the heads."""
        self.semantic = nn.Dense(self.features)
        self.hash = nn.Dense(self.bits)

    def trunk(self, inputs: jax.Array, *, train: bool) -> jax.Array:
        """Maps images to the backbone's features, float32[batch, width]; arguments and errors as of a call."""
        if self.backbone is None:
            return inputs
        if inputs.ndim != 4 or inputs.shape[3] != 3:
            raise ValueError(
                f"images must be [batch, h, w, 3], got {list(inputs.shape)}: give a grey image three equal channels"
            )
        x = inputs.astype(jnp.float32) / 255  # [batch, h, w, 3]
        mean, deviation = (jnp.array(channels, jnp.float32)[None, None, None] for channels in (self.mean, self.deviation))
        return self.backbone((x - mean) / deviation, train=train)

    def __call__(self, inputs: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        """Maps images to codes.

        Args:
          inputs: images uint8[batch, h, w, 3]; without a backbone, the features of one, float32[batch, width].
          train: whether batch statistics are taken from this batch (and renewed) or from the running averages.

        Returns:
          Semantic features float32[batch, features] and relaxed codes float32[batch, bits], in [-1, 1] if bounded.

        Raises:
          ValueError: the images don't have three channels.
        """
        semantic = self.semantic(self.trunk(inputs, train=train))  # [batch, features]
        outputs = self.hash(nn.relu(semantic))  # [batch, bits]
        return semantic, jnp.tanh(outputs) if self.bounded else outputs
