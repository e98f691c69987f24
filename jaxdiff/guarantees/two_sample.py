"""Two-sample distances of a reference to the rows of the data, beside the distances of two equal laws.

They are a number for the error of a learned score. They do not bound this error.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.certificate import Term
from jaxdiff.guarantees.end_point_distances import Ends, Starts
from jaxdiff.metrics import energy_distance, sliced_w2
from jaxdiff.processes import forward
from jaxdiff.types import Grid

SPLITS = 20  # random divisions of the two joined samples, whose mean distance is the floor
SLICED, ENERGY = "sliced W2", "energy distance"


def two_sample_terms(ends: Ends, starts: Starts, grid: Grid, key: Any, scale: Any) -> list[Term]:
    """Terms outside the sum: distances of the reference, started from noise, to the rows noised to the early stop.

    The samples are as large as there are rows. A value is the mean over the batches of the particles, and its standard
    error is their spread. The floor is the mean over random divisions of both samples, joined, into two.
    """
    if ends.limit is None or starts.rows is None:
        return []
    n, scale = starts.rows, np.broadcast_to(np.asarray(scale, np.float64), ends.limit.shape[1])
    z = jax.random.normal(jax.random.fold_in(key, 2), (n, len(scale)), starts.x.dtype)
    noised = scale * np.asarray(forward(jnp.asarray(starts.x0[:n], starts.x.dtype), grid[-1], z), np.float64)
    batches = (scale * ends.limit).reshape(-1, n, len(scale))
    of_slices = lambda x, y: sliced_w2(x, y, jax.random.fold_in(key, 3), n_projections=128).value
    of_energy = lambda x, y: energy_distance(x, y).value
    return [_term(SLICED, of_slices, batches, noised), _term(ENERGY, of_energy, batches, noised)]


def _term(name: str, distance: Callable[..., float], batches: Any, noised: Any) -> Term:
    values = np.array([distance(batch, noised) for batch in batches])
    equal, rng = [], np.random.default_rng(0)
    for i in range(SPLITS):
        joined = rng.permutation(np.concatenate([batches[i % len(batches)], noised]))
        equal.append(distance(*np.split(joined, 2)))
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
    floor = f"of reference and rows; of equal laws {np.mean(equal):.3g}, {np.std(equal, ddof=1):.2g} apart"
    degrees = max(len(values) - 1, 1)
    return Term(name, float(values.mean()), error, "measured", floor, unit=name, degrees=degrees)
