"""Self-attention between the tokens of an image, or between its pixels."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class SelfAttention(nnx.Module):
    """Multi-head self-attention by jax.nn.dot_product_attention.

    Queries and keys have no bias, because a bias of the keys cancels in the softmax.

    Args:
      features: numbers in a token.
      heads: the number of heads, which divides features.
      zero: whether the last map starts at zero.
      dtype: of the computation; the parameters are float32.
      rngs: nnx.Rngs for the initial weights.

    Raises:
      ValueError: heads does not divide features.

    Call it with tokens (batch, n, features). It returns the same shape. A permutation of the tokens
    permutes the output.
    """

    def __init__(self, features: int, heads: int, *, zero: bool = False, dtype: Any, rngs: nnx.Rngs) -> None:
        """Draw the weights."""
        if heads < 1 or features % heads:
            raise ValueError(f"the heads must divide the features: {heads} heads, {features} features.")
        self.heads = heads
        init = nnx.initializers.zeros_init() if zero else nnx.initializers.lecun_normal()
        self.enter = nnx.Linear(features, 3 * features, use_bias=False, dtype=dtype, rngs=rngs)
        self.leave = nnx.Linear(features, features, kernel_init=init, dtype=dtype, rngs=rngs)

    def __call__(self, tokens: Float[Array, "batch n features"]) -> Float[Array, "batch n features"]:
        """The tokens after attention."""
        batch, n, features = tokens.shape
        three = self.enter(tokens).reshape(batch, n, 3, self.heads, features // self.heads)
        with jax.numpy_dtype_promotion("standard"):  # JAX computes the softmax of bfloat16 in float32
            mixed = jax.nn.dot_product_attention(*jnp.moveaxis(three, 2, 0))
        return self.leave(mixed.reshape(batch, n, features))
