"""ImgNet: from images to semantic features and relaxed codes. ADSQ trains two, with the same layers and different weights."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from adsq_jax.errors import InputError


class ImgNet(nn.Module):
    """A trunk (normalisation of the images, and a backbone), a semantic layer, and a hash layer.

    The images' mean and deviation are part of the network because pretrained weights expect their own.
    Source: ADSQ's abstract, arXiv 1903.12493; the heads follow DSEH's ImgNet, Li et al., IJCAI 2018.
    """

    backbone: nn.Module | None  # float32[batch, h, w, 3] -> float32[batch, n], with a keyword `train`; None: only the heads
    bits: int  # the code length
    features: int  # size of the semantic features, the same as LabelNet's
    mean: Sequence[float]  # of the three channels, in [0, 1]
    deviation: Sequence[float]
    bounded: bool  # whether relaxed codes go through tanh

    def setup(self) -> None:
        """Make the heads."""
        self.semantic = nn.Dense(self.features)
        self.hash = nn.Dense(self.bits)

    def trunk(self, inputs: jax.Array, *, train: bool) -> jax.Array:
        """Return the backbone's features, float32[batch, n]; arguments and errors as in `__call__`."""
        if self.backbone is None:
            return inputs
        if inputs.ndim != 4 or inputs.shape[3] != 3:
            shape = list(inputs.shape)
            raise InputError(f"expected images [batch, h, w, 3], got {shape}; fix: give a grey image three equal channels")
        x = inputs.astype(jnp.float32) / 255  # [batch, h, w, 3]
        mean, deviation = (jnp.array(channels, jnp.float32)[None, None, None] for channels in (self.mean, self.deviation))
        return self.backbone((x - mean) / deviation, train=train)

    def __call__(self, inputs: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        """Map images to semantic features and relaxed codes.

        Args:
          inputs: images uint8[batch, h, w, 3]; without a backbone, features of one, float32[batch, n].
          train: whether BatchNorm uses and updates statistics of this batch, or uses the running averages.

        Returns:
          Semantic features float32[batch, features], and relaxed codes float32[batch, bits], in [-1, 1] if bounded.

        Raises:
          InputError: the images don't have three channels.
        """
        semantic = self.semantic(self.trunk(inputs, train=train))  # [batch, features]
        outputs = self.hash(nn.relu(semantic))  # [batch, bits]
        return semantic, jnp.tanh(outputs) if self.bounded else outputs
