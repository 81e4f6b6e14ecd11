"""ImgNet: from images to semantic features and relaxed codes. ADSQ has two, with the same layers and different weights."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp


class ImgNet(nn.Module):
    """A backbone, a semantic layer, and a hash layer.

    The images' mean and deviation belong to the network, since pretrained weights expect their own.
    Source: ADSQ's abstract, arXiv 1903.12493; the heads follow DSEH's ImgNet, Li et al., IJCAI 2018.
    """

    backbone: nn.Module  # images float32[batch, h, w, 3] -> float32[batch, width], with a keyword `train`
    bits: int
    features: int  # size of the semantic features, the same as LabelNet's
    mean: Sequence[float]  # of the three channels, in [0, 1]
    deviation: Sequence[float]

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        """Maps images to codes.

        Args:
          images: uint8[batch, h, w, 3].
          train: whether batch statistics are taken from this batch (and renewed) or from the running averages.

        Returns:
          Semantic features float32[batch, features] and relaxed codes float32[batch, bits] in [-1, 1].
        """
        x = images.astype(jnp.float32) / 255  # [batch, h, w, 3]
        mean, deviation = (jnp.array(channels, jnp.float32)[None, None, None] for channels in (self.mean, self.deviation))
        x = self.backbone((x - mean) / deviation, train=train)  # [batch, width]
        semantic = nn.Dense(self.features, name="semantic")(x)  # [batch, features]
        relaxed_codes = jnp.tanh(nn.Dense(self.bits, name="hash")(nn.relu(semantic)))  # [batch, bits]
        return semantic, relaxed_codes
