"""A pure function apply(params, x, t) as a network, so that `fit` trains it."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxdiff.noise import KeyLike
from jaxdiff.training.networks.class_embedding import Condition
from jaxdiff.training.networks.preconditioning import Statistic


class PureNetwork(nnx.Module):
    """A denoiser apply(params, x, t) or apply(params, x, t, condition), with a pytree of parameters, as an NNX module.

        network = PureNetwork(apply, params)
        trained = fit(network, rows, key, steps=1000).network
        params = trained.params

    Args:
      apply: a pure function of params, x (batch, *event) and t () or (batch,) -> (batch, *event). If it has a fourth
        positional argument, it gets the labels, or None. If it has an argument `key`, it gets the key of dropout, or
        None. It is called as it is, without preconditioning.
      params: a pytree of arrays. Arrays of a float dtype are trained; others are kept.

    Raises:
      TypeError: apply is not a function of three or four positional arguments.
      ValueError: labels are given, and apply takes none.
    """

    title = "pure function"

    def __init__(self, apply: Any, params: Any) -> None:
        """Take the arrays of the parameters."""
        self.apply, self.takes_condition, self.takes_key = apply, *_taken(apply)
        leaves, self.structure = jax.tree.flatten(params)
        arrays = [jnp.asarray(leaf) for leaf in leaves]
        floats = [jnp.issubdtype(array.dtype, jnp.floating) for array in arrays]
        self.leaves = nnx.List([nnx.Param(a) if f else Statistic(a) for a, f in zip(arrays, floats, strict=True)])

    @property
    def params(self) -> Any:
        """The pytree of parameters, as `apply` takes it."""
        return jax.tree.unflatten(self.structure, [leaf[...] for leaf in self.leaves])

    def __call__(self, x: Any, t: Any, condition: Condition = None, *, key: KeyLike = None) -> Any:
        """apply(params, x, t), with the labels and the key if apply takes them."""
        if condition is not None and not self.takes_condition:
            raise ValueError(
                "this function takes no labels: leave condition= out, or write apply(params, x, t, condition)."
            )
        given = (x, t, condition) if self.takes_condition else (x, t)
        return self.apply(self.params, *given, **({"key": key} if self.takes_key else {}))


def _taken(apply):
    """Whether apply takes labels, and whether it takes a key."""
    if not callable(apply):
        raise TypeError(f"apply must be a function apply(params, x, t): it is a {type(apply).__name__}.")
    signature = inspect.signature(apply)
    key = "key" in signature.parameters
    positional = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    count = sum(p.kind in positional and p.name != "key" for p in signature.parameters.values())
    for arguments in (4, 3) if count > 3 else (3,):
        try:
            signature.bind(*[None] * arguments, **({"key": None} if key else {}))
        except TypeError:
            continue
        return arguments == 4, key
    raise TypeError(
        f"apply must be called as apply(params, x, t) or apply(params, x, t, condition): it is apply{signature}."
    )
