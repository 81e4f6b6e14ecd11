"""Vision Transformer."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from adsq_jax.models.layers import LayerNorm, Layers

_EPSILON = 1e-6  # of the layer norms, in all published weights


class ViT(nn.Module):
    """Patches and a class token through a transformer; the features are the class token's output.

    Source: Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021, without dropout.
    """

    patch: int  # side of a patch in pixels
    width: int
    depth: int  # blocks
    heads: int
    hidden: int  # units of a block's fully-connected layer
    approximate_gelu: bool = False  # by tanh, as Google's weights in .npz files were trained; torch's weren't
    layers: Layers = Layers()
    classes: int | None = None  # of the published classifier; None: return the features

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Map float32[batch, h, w, 3] to features float32[batch, width], or logits float32[batch, classes]."""
        conv = self.layers.conv(self.width, self.patch, self.patch, padding=0, use_bias=True, name="patches")
        x = conv(x).reshape(x.shape[0], -1, self.width)  # [batch, tokens, width]
        token = self.param("class_token", nn.initializers.zeros, (1, 1, self.width), jnp.float32)
        x = jnp.concatenate([jnp.broadcast_to(token.astype(x.dtype), (x.shape[0], 1, self.width)), x], axis=1)
        positions = self.param("positions", nn.initializers.normal(0.02), (1, x.shape[1], self.width), jnp.float32)
        x = x + positions.astype(x.dtype)
        for number in range(self.depth):
            block = _Block(self.heads, self.hidden, self.approximate_gelu, self.layers, name=f"block{number}")
            x = block(x)
        x = LayerNorm(epsilon=_EPSILON, output_dtype=self.layers.dtype, name="norm")(x[:, 0])
        return self.layers.output(x, self.classes)


class _Block(nn.Module):
    heads: int
    hidden: int
    approximate_gelu: bool
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width, dense = x.shape[-1], self.layers.dense
        y = LayerNorm(epsilon=_EPSILON, output_dtype=self.layers.dtype, name="norm1")(x)
        split = (*y.shape[:2], self.heads, width // self.heads)
        query, key, value = (dense(width, name=name)(y).reshape(split) for name in ("query", "key", "value"))
        y = _attend(query, key, value).reshape(x.shape)
        x = x + dense(width, name="out")(y)
        y = LayerNorm(epsilon=_EPSILON, output_dtype=self.layers.dtype, name="norm2")(x)
        y = nn.gelu(dense(self.hidden, name="mlp1")(y), approximate=self.approximate_gelu)
        return x + dense(width, name="mlp2")(y)


def _attend(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Return the attention of all tokens to all, [batch, tokens, heads, d] each; the softmax is in float32."""
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key).astype(jnp.float32) / query.shape[3] ** 0.5
    return jnp.einsum("bhqk,bkhd->bqhd", nn.softmax(logits).astype(value.dtype), value)
