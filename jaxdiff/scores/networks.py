"""Scores and denoisers of trained networks."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from jaxdiff.arrays import like
from jaxdiff.conditions import conditioned
from jaxdiff.processes import ou, score_from_denoiser
from jaxdiff.types import DenoiserFn, ScoreFn

if TYPE_CHECKING:
    import flax.nnx


def from_network(network: "flax.nnx.Module", condition: Any = None) -> ScoreFn:
    """The score of an NNX denoiser network D(x, t), as a pytree: new parameters recompile nothing. Needs Flax.

    condition: labels for a network with classes, as for `conditioned`: one for each particle, or one number for all. By
      default the network gets none, and samples of all classes follow.
    """
    return score_from_denoiser(denoiser_of(network, condition))


def denoiser_of(network: "flax.nnx.Module", condition: Any = None) -> DenoiserFn:
    """The denoiser of an NNX network, as a pytree; condition as for `from_network`. Needs Flax."""
    from flax import nnx

    graph, state = nnx.split(network)
    denoiser = jax.tree_util.Partial(_denoiser, graph, state)
    return denoiser if condition is None else conditioned(denoiser, condition)


def denoiser_in_axes(network: Any, condition: Any = None) -> tuple[DenoiserFn, Float64[np.ndarray, "d d"]]:
    """The denoiser of a ResidualMLP in the coordinates of its principal axes, and the axes (d, d) in float64.

    denoiser(x @ axes, t) equals D(x, t) @ axes. It saves the two products with the axes that D computes. The denoiser
    is a pytree; condition as for `from_network`. Needs Flax.
    """
    from flax import nnx

    graph, state = nnx.split(network)
    axes = np.asarray(network.axes[...], np.float64)
    mean = jnp.asarray(np.asarray(network.mean[...], np.float64) @ axes, jnp.float32)
    denoiser = jax.tree_util.Partial(_denoiser_in_axes, graph, state, mean)
    return denoiser if condition is None else conditioned(denoiser, condition), axes


def _denoiser(graph, state, x, t, *condition):
    """The denoiser of a split network; a pure function, so that its Partial is a pytree."""
    from flax import nnx

    return nnx.merge(graph, state)(x, t, *condition)


def _denoiser_in_axes(graph, state, mean, y, t, *condition):
    """The denoiser of a split network in the coordinates of its axes, in which the data have this mean."""
    from flax import nnx

    centred = y.astype(jnp.float32) - ou.alpha(like(t, y.astype(jnp.float32))[..., None]) * mean
    return (mean + nnx.merge(graph, state).centred(centred, t, *condition)).astype(y.dtype)
