"""Three scores whose steps are timed: a Gaussian's, a mixture's and a network's."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxdiff import targets
from jaxdiff.types import as_score

COMPONENTS, WIDTH, HIDDEN = 8, 256, 3  # of the mixture; of the network


class Law(NamedTuple):
    """A score as jaxdiff has it and as a plain function; the two may be the same object.

    flops: operations a particle-step in matrix products, or None.
    """

    name: str
    score: Callable
    plain: Callable
    flops: int | None


def gaussian(d):
    rng = np.random.default_rng(0)
    mean, variance = rng.normal(size=d), rng.uniform(0.5, 2, d)
    m, v = jnp.asarray(mean, jnp.float32), jnp.asarray(variance, jnp.float32)

    def plain(x, t):
        alpha, noise = jnp.exp(-t), -jnp.expm1(-2 * t)
        return -(x - alpha * m) / (alpha**2 * v + noise)

    return Law("gaussian", targets.gaussian(mean, variance).score, as_score(plain), None)


def mixture(d):
    rng = np.random.default_rng(1)
    weights, means = np.full(COMPONENTS, 1 / COMPONENTS), 2 * rng.normal(size=(COMPONENTS, d))
    variances = rng.uniform(0.2, 1, (COMPONENTS, d))
    log_w, m, v = (jnp.asarray(array, jnp.float32) for array in (np.log(weights), means, variances))

    def plain(x, t):
        alpha, noise = jnp.exp(-t), -jnp.expm1(-2 * t)
        mean, inverse = alpha * m, 1 / (alpha**2 * v + noise)
        constant = log_w - 0.5 * jnp.sum(mean**2 * inverse - jnp.log(inverse), axis=-1)
        share = jax.nn.softmax(-(x**2) @ inverse.T / 2 + x @ (mean * inverse).T + constant)
        return share @ (mean * inverse) - (share @ inverse) * x

    return Law("mixture", targets.mixture(weights, means, variances).score, as_score(plain), None)


def mlp(d):
    rng = np.random.default_rng(2)
    widths = [d + 1, *[WIDTH] * HIDDEN, d]
    shapes = list(itertools.pairwise(widths))
    weights = [jnp.asarray(rng.normal(size=shape) / np.sqrt(shape[0]), jnp.float32) for shape in shapes]
    score = Partial(network, [(w, jnp.zeros(w.shape[1], w.dtype)) for w in weights])
    return Law("mlp", score, score, 2 * sum(rows * columns for rows, columns in shapes))


def network(layers, x, t):
    """A multilayer perceptron with SiLU, time being one more input."""
    h = jnp.concatenate([x, jnp.broadcast_to(t, (*x.shape[:-1], 1))], axis=-1)
    for weight, bias in layers[:-1]:
        h = jax.nn.silu(h @ weight + bias)
    weight, bias = layers[-1]
    return h @ weight + bias


LAWS = (gaussian, mixture, mlp)
