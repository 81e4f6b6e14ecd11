"""ImgNet: from images to semantic features and relaxed codes. ADSQ trains two, with the same layers and different weights."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from adsq_jax.errors import InputError

# How the hash layer's outputs become relaxed codes. "tanh": tanh of them; "linear": the outputs themselves; "batch_norm":
# normalised bit by bit over the batch, unbounded; "layer_norm": normalised over an image's bits, then tanh.
HEADS = ("tanh", "linear", "batch_norm", "layer_norm")


class ImgNet(nn.Module):
    """A trunk (normalisation of the images, and a backbone), a semantic layer, and a hash layer.

    The images' mean and deviation are part of the network because pretrained weights expect their own.
    Source: ADSQ's abstract, arXiv 1903.12493; semantic and hash layer follow DSEH's ImgNet, Li et al., IJCAI 2018.
    """

    backbone: nn.Module | None  # float32[batch, h, w, 3] -> float32[batch, n], with a keyword `train`; None: only the heads
    bits: int  # the code length
    features: int  # size of the semantic features, the same as LabelNet's; 0: no semantic layer, the trunk's features instead
    mean: Sequence[float]  # of the three channels, in [0, 1]
    deviation: Sequence[float]  # standard deviation, as `mean`
    head: str  # one of HEADS
    axis_name: str | None = None  # the mapped axis of devices, over which the head's BatchNorm averages; None: one device

    def setup(self) -> None:
        """Make the semantic layer and the hash layer."""
        self.semantic = nn.Dense(self.features) if self.features else None
        self.hash = nn.Dense(self.bits, use_bias=self.head != "batch_norm")  # which would take a bias away again
        if self.head == "batch_norm":
            # It always learns its statistics, also where those of a pretrained backbone are frozen: it starts without any.
            self.hash_norm = nn.BatchNorm(momentum=0.9, epsilon=1e-5, axis_name=self.axis_name)
        elif self.head == "layer_norm":
            self.hash_norm = nn.LayerNorm(epsilon=1e-5)

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
          Semantic features float32[batch, features] (without a semantic layer, the trunk's), and relaxed codes
          float32[batch, bits], in [-1, 1] by the heads "tanh" and "layer_norm", any numbers by the others.

        Raises:
          InputError: the images don't have three channels.
        """
        semantic = self.trunk(inputs, train=train)  # [batch, n]
        if self.semantic is None:
            outputs = self.hash(semantic)  # [batch, bits]
        else:
            semantic = self.semantic(semantic)  # [batch, features]
            outputs = self.hash(nn.relu(semantic))  # [batch, bits]
        if self.head == "batch_norm":
            outputs = self.hash_norm(outputs, use_running_average=not train)
        elif self.head == "layer_norm":
            outputs = self.hash_norm(outputs)
        return semantic, jnp.tanh(outputs) if self.head in ("tanh", "layer_norm") else outputs
