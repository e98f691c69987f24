"""Pilot particles, on which a plan for the samples compares samplers: how far they end from a fine reference."""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdiff import kernels, noise
from jaxdiff.conditions import of_particles
from jaxdiff.grids import log_snr
from jaxdiff.guarantees.end_point_distances import SETTLED, halving, no_end_points, rounding_of
from jaxdiff.processes import ou
from jaxdiff.sampling import compiled
from jaxdiff.sampling.storing import score_of_step
from jaxdiff.types import Grid, Kernel, Particles, Scalar

STEPS = 512  # of the reference, equal in log snr. No sampler that is compared has more.
NUMBERS = 2**25  # the most numbers of a Brownian path that is kept, 128 MiB in float32


class Reference(NamedTuple):
    """What samplers are compared with.

    Attributes:
      x: (n, d) float64, end points in STEPS steps.
      error: a bound on their own error in W2; inf where a halving of the steps shows no convergence.
      gain: the factor by which a halving of the steps lowers the distance.
    """

    x: np.ndarray
    error: float
    gain: float


# Each kernel is compiled once, for grids of up to STEPS steps: coefficients are padded to STEPS rows. Kernels with
# noise take their increments from one Brownian path. It is stored at the nodes of the fine grid, so their grids have
# nodes of the fine grid only.
@dataclasses.dataclass(frozen=True, eq=False)
class Pilots:
    """Particles at the horizon, the fine grid, and the key of their Brownian path.

    Attributes:
      x: (n, d) draws of N(0, I).
      fine: (STEPS + 1,) OU times.
      key: a JAX key.
    """

    x: Particles
    fine: Grid
    key: Any

    @functools.cached_property
    def path(self) -> Any:
        """(STEPS + 1, m, d) of Brownian motion at the snr of the fine grid, for the first m particles."""
        x = self.x[: max(1, NUMBERS // (self.x.shape[1] * (STEPS + 1)))]
        return _path(self.key, jnp.asarray(np.sqrt(np.diff(ou.snr(self.fine))), x.dtype), x)

    def ends(self, kernel: Kernel, grid: Grid, places: Any = None) -> np.ndarray:
        """(n, d) float64 end points of a kernel down a grid; a kernel with noise needs `places` from `on_fine`."""
        n = len(grid) - 1
        padded = lambda column: np.concatenate([column, np.repeat(column[-1:], STEPS - n, 0)]).astype(self.x.dtype)
        per_increment = 1 / np.sqrt(np.diff(ou.snr(grid)))
        rows = jax.tree.map(padded, (kernel.coefficients(grid), per_increment))
        path, index = None, np.zeros(STEPS + 1, np.int32)
        if kernel.noises_per_step:
            path, index[: n + 1] = self.path, places
        static = kernel.init, kernel.step, kernel.position, kernel.evals_per_step
        x = self.x if path is None else self.x[: path.shape[1]]
        score = of_particles(kernel.score, np.arange(len(x)))
        return np.asarray(compiled.recent(_run, static, (score, rows, np.int32(n), index, path, x)), np.float64)

    def squares(self, kernel: Kernel, grid: Grid, reference: Reference, places: Any = None) -> np.ndarray:
        """(n,) squared distances of end points from those of the reference; inf where they are not finite."""
        squares = np.sum((self.ends(kernel, grid, places) - reference.x) ** 2, axis=1)
        return np.where(np.isfinite(squares), squares, np.inf)

    def reference(self, kernel: Kernel) -> Reference:
        """The reference of a kernel: the same kernel if it has noise, else UniPC of order 3.

        Raises:
          ValueError: its end points are not finite; with the time and the share of particles.
        """
        kernel = kernel if kernel.noises_per_step else kernels.unipc(kernel.score)
        places = np.arange(STEPS + 1)
        fine, half, quarter = (self.ends(kernel, self.fine[::k], places[::k]) for k in (1, 2, 4))
        if not np.isfinite(fine).all():
            raise no_end_points(kernel, self.fine, self.x, self.key)
        away = lambda a, b: np.sum((a - b) ** 2, axis=1)
        gain = halving(away(fine, half), away(half, quarter), rounding_of(fine, STEPS, self.x.dtype))
        error = math.sqrt(np.mean(away(fine, half))) / min(1.0, gain - 1) if gain > SETTLED else math.inf
        return Reference(fine, error, gain)

    def on_fine(self, grid: Grid) -> tuple[Grid, np.ndarray] | None:
        """The grid with each node moved to the nearest of the fine grid, and their places; None where two coincide."""
        level, fine = np.log(ou.snr(grid)), np.log(ou.snr(self.fine))
        places = np.rint((level - fine[0]) / (fine[-1] - fine[0]) * STEPS).astype(np.int32)
        return (self.fine[places], places) if np.diff(places).min() > 0 else None


def pilots_of(x: Particles, horizon: Scalar, early_stop: Scalar, key: Any) -> Pilots:
    """Pilots that start at x (n, d) and run from the horizon to the early stop."""
    return Pilots(x, log_snr(horizon, early_stop, STEPS), key)


def _run(static, arguments, _):
    init, step, position, evals = static
    score, (rows, per_increment), n_steps, index, path, x = arguments

    def one(k, state):
        row = jax.tree.map(lambda column: column[k], rows)
        z = None if path is None else (path[index[k + 1]] - path[index[k]]) * per_increment[k]
        return step(score_of_step(score, state, evals, k), state, row, z)

    return position(lax.fori_loop(0, n_steps, one, init(x)))


@jax.jit
def _path(key, widths, x):
    particles = jnp.arange(len(x), dtype=jnp.uint32)

    def add(w, step):
        k, width = step
        w = w + width * noise.normal(key, particles, k, x.shape[1], x.dtype)
        return w, w

    _, path = lax.scan(add, jnp.zeros_like(x), (jnp.arange(len(widths), dtype=jnp.uint32), widths))
    return jnp.concatenate([jnp.zeros_like(x)[None], path])
