"""The embedding of class labels, with a null class for rows without a label; and a vector for time and label."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jaxtyping import Array, Float

from jaxdiff.training.networks.time_features import FREQUENCIES, time_features

Condition = Any  # None, or whole numbers () or (batch,); `ClassEmbedding` checks them itself


class ClassEmbedding(nnx.Module):
    """A trained vector for each of the classes 0, ..., n_classes - 1 and for the null class, whose label is n_classes.

    Args:
      n_classes: the number of classes, without the null class.
      features: numbers in a vector.
      dtype: of the vectors; the parameters are float32.
      rngs: nnx.Rngs for the initial vectors.

    Raises:
      ValueError: n_classes is less than 1; or a label, of an array whose values are known, is not in 0, ..., n_classes.
      TypeError: the labels are not whole numbers.

    Call it with labels (...). It returns vectors (..., features). None stands for the null class and gives the vector
    (features,). Inside jax.jit the values of labels are unknown. There a label out of range gives a vector of nan, and
    the network's output for this row is nan.
    """

    def __init__(self, n_classes: int, features: int, *, dtype: Any = jnp.float32, rngs: nnx.Rngs) -> None:
        """Draw the vectors."""
        if n_classes < 1:
            raise ValueError(f"n_classes must be at least 1, or None for a network without labels: it is {n_classes}.")
        self.n_classes = int(n_classes)
        self.table = nnx.Embed(self.n_classes + 1, features, dtype=dtype, rngs=rngs)

    def __call__(self, condition: Condition = None) -> Float[Array, "*rows features"]:
        """One vector for each label, (...) -> (..., features). Without labels, the vector of the null class."""
        if condition is None:
            return self.table(jnp.int32(self.n_classes))
        labels = self._checked(condition)
        valid = (labels >= 0) & (labels <= self.n_classes)
        # nnx.Embed gives nan for an index beyond the table, but the last row for the index -1.
        return self.table(jnp.where(valid, labels, self.n_classes + 1))

    def _checked(self, condition):
        """The labels as int32; raise where they are known and not labels."""
        known = not isinstance(condition, Tracer)
        labels: Any = np.asarray(condition) if known else condition
        if not jnp.issubdtype(labels.dtype, jnp.integer):
            raise TypeError(f"labels must be whole numbers, of an integer dtype: condition has dtype {labels.dtype}.")
        if known:
            bad = labels[(labels < 0) | (labels > self.n_classes)]
            if bad.size:
                raise ValueError(
                    f"the label {bad.flat[0]} is not a class: give labels from 0 to {self.n_classes - 1}, or "
                    f"{self.n_classes} for a row without a label."
                )
        # Out of range of int32 a label would wrap around to a valid one.
        return jnp.asarray(jnp.clip(labels, -1, self.n_classes + 1), jnp.int32)


def check_condition(condition: Condition, n_classes: int | None) -> None:
    """Raise ValueError for labels that are given to a network without classes."""
    if condition is not None and n_classes is None:
        raise ValueError(
            "this network was built without classes: leave out condition, or build the network with n_classes=."
        )


class Conditioning(nnx.Module):
    """A vector for the OU time and the label, with which the blocks of a network shift and scale their features.

    Args:
      features: numbers in the vector.
      n_classes: the number of classes; None for a network without labels.
      dtype: of the vector; the parameters are float32.
      rngs: nnx.Rngs for the initial weights.

    Call it with times (batch,) and labels (batch,), or None for the null class. It returns (batch, features).
    """

    def __init__(self, features: int, n_classes: int | None, *, dtype: Any, rngs: nnx.Rngs) -> None:
        """Draw the weights."""
        self.dtype = dtype
        self.enter = nnx.Linear(2 * FREQUENCIES, features, dtype=dtype, rngs=rngs)
        self.leave = nnx.Linear(features, features, dtype=dtype, rngs=rngs)
        self.label = None if n_classes is None else ClassEmbedding(n_classes, features, dtype=dtype, rngs=rngs)

    def __call__(self, t: Float[Array, " batch"], condition: Condition = None) -> Float[Array, "batch features"]:
        """The vectors of times (batch,) and labels (batch,) or None."""
        vector = self.leave(nnx.silu(self.enter(time_features(t).astype(self.dtype))))
        return nnx.silu(vector if self.label is None else vector + self.label(condition))
