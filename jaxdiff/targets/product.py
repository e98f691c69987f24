"""Independent blocks of coordinates: a law that is a product of laws."""

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from scipy.linalg import block_diag

from jaxdiff.curves import Curve
from jaxdiff.curves.panels import integrated
from jaxdiff.targets.target import Target
from jaxdiff.types import Particles

# The largest dimension of a product law whose basis is built where it differs from the coordinates: the matrix (d, d)
# then takes 32 MiB.
MOST_COORDINATES = 2048


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Layout:
    """Which coordinates belong to which factor: (copies, dimension of one) for every run of equal factors."""

    runs: tuple[tuple[int, int], ...]

    @property
    def dim(self) -> int:
        """d, the sum of all dimensions."""
        return sum(copies * dim for copies, dim in self.runs)

    def blocks(self, x: Particles) -> Iterator[Any]:
        """x (..., d) -> an array (..., copies, dimension) for every run."""
        if x.shape[-1] != self.dim:
            raise ValueError(
                f"x has width {x.shape[-1]}, this target has dimension {self.dim}: pass x of shape (..., {self.dim})."
            )
        start = 0
        for copies, dim in self.runs:
            yield x[..., start : start + copies * dim].reshape(*x.shape[:-1], copies, dim)
            start += copies * dim


def product(factors: Iterable[Any]) -> Target:
    """The law of independent blocks of coordinates, one for each of `factors`, a sequence of Targets; d their sum.

    The same object several times in a row, as in [coin] * 64, is evaluated in one call, and its curve once. The mmse is
    the sum of the factors', and exact if theirs are. Where they are Monte Carlo averages, the r-th replicates are
    added, and the spread of the sums gives the standard error.

    Raises:
      ValueError: there are no factors.
      TypeError: a factor is not a Target.
    """
    factors = tuple(factors)
    if not factors:
        raise ValueError("a product needs factors: pass at least one Target.")
    for factor in factors:
        if not isinstance(factor, Target):
            raise TypeError(
                f"the factors of a product must be Targets, as targets.gaussian makes them: not {factor!r}."
            )
    grouped = [list(same) for _, same in groupby(factors, id)]
    runs = tuple((same[0], len(same)) for same in grouped)
    layout = Layout(tuple((copies, one.dim) for one, copies in runs))
    ones = tuple(one for one, _ in runs)
    return Target(
        name="product",
        dim=layout.dim,
        second_moment=math.fsum(one.second_moment for one in factors),
        score=Partial(_score, layout, tuple(one.score for one in ones)),
        sample=functools.partial(_sample, layout, tuple(one.sample for one in ones)),
        log_density=functools.partial(_log_density, layout, tuple(one.log_density for one in ones)),
        mmse=_sum_of(tuple((one.mmse, copies) for one, copies in runs)),
        smoothing_kl=lambda t: math.fsum(copies * one.smoothing_kl(t) for one, copies in runs),
        mean=_whole([one.mean for one in factors], np.concatenate),
        total_variance=_whole([one.total_variance for one in factors], math.fsum),
        cov=_whole([one.cov for one in factors], _joint),
    )


def _joint(covs):
    """The covariance of independent normal laws: (d,) if all of them are diagonals, else (d, d)."""
    if all(cov.ndim == 1 for cov in covs):
        return np.concatenate(covs)
    return np.asarray(block_diag(*(np.diag(cov) if cov.ndim == 1 else cov for cov in covs)))


def _whole(parts, join):
    """All parts joined; None where one of them is not known."""
    return None if any(part is None for part in parts) else join(parts)


def _score(layout, scores, x, t):
    parts = [score(block, t) for score, block in zip(scores, layout.blocks(x), strict=True)]
    return jnp.concatenate([part.reshape(*x.shape[:-1], -1) for part in parts], axis=-1)


def _log_density(layout, log_densities, x, t=0.0):
    parts = zip(log_densities, layout.blocks(x), strict=True)
    return sum(jnp.sum(log_density(block, t), axis=-1) for log_density, block in parts)


def _sample(layout, samples, key, n, dtype=None):
    """(n, d) exact draws; dtype defaults to JAX's float."""
    asked = {} if dtype is None else {"dtype": dtype}
    parts = zip(jax.random.split(key, len(samples)), samples, layout.runs, strict=True)
    return jnp.concatenate([one(key, n * copies, **asked).reshape(n, -1) for key, one, (copies, _) in parts], axis=-1)


def _sum_of(runs) -> Curve:
    """The mmse of independent blocks: runs of (curve, copies); a curve in several runs is evaluated once."""
    curves = tuple({id(curve): curve for curve, _ in runs}.values())
    counts = [sum(copies for one, copies in runs if one is curve) for curve in curves]
    total = lambda functions, *at: sum(
        count * np.asarray(function(*at)) for function, count in zip(functions, counts, strict=True)
    )
    added = tuple(map(integrated, curves))
    integrals = [curve.integral for curve in added]
    errors = [curve.integral_error or (lambda snr: 0.0) for curve in added]
    log_dets = [curve.log_det for curve in curves]
    replicates = tuple(_sum_of(one) for one in _replicates(runs))
    basis = _basis([(curve.basis, curve.dim, copies) for curve, copies in runs])
    return Curve(
        lambda snr: total(curves, snr),
        sum(copies * curve.dim for curve, copies in runs),
        standard_error=lambda snr: _standard_error(curves, counts, replicates, snr),
        integral=lambda snr: total(integrals, snr),
        integral_error=lambda snr: float(total(errors, snr)),
        log_det=None if None in log_dets else lambda snr, h: total(log_dets, snr, h),
        directions=None if basis is None else lambda snr: _directions(runs, curves, snr),
        basis=basis,
        replicates=replicates,
    )


def _replicates(runs):
    """For each r, the r-th replicates of all curves with their counts; a curve without replicates stands for itself."""
    least = min((len(curve.replicates) for curve, _ in runs if curve.replicates), default=0)
    return [tuple((curve.replicates[r] if curve.replicates else curve, n) for curve, n in runs) for r in range(least)]


# The r-th replicates of different curves may come from the same draws. The spread of their sums includes that
# correlation; adding variances would not.
def _standard_error(curves, counts, replicates, snr):
    alone = [
        (n * curve.standard_error(snr)) ** 2 for curve, n in zip(curves, counts, strict=True) if not curve.replicates
    ]
    together = np.var([one(snr) for one in replicates], axis=0, ddof=1) / len(replicates) if replicates else 0.0
    return np.sqrt(sum(alone) + together)


def _directions(runs, curves, snr):
    of = {id(curve): np.asarray(curve.directions(snr)) for curve in curves}
    return np.concatenate([of[id(curve)] for curve, copies in runs for _ in range(copies)], axis=-1)


def _basis(parts):
    """The basis of all blocks: "coordinates" if each one's is, else block diagonal, (d, d).

    None where a block has no basis, or where there are more than MOST_COORDINATES coordinates.
    """
    if all(isinstance(basis, str) for basis, *_ in parts):
        return "coordinates"
    d = sum(copies * dim for _, dim, copies in parts)
    if d > MOST_COORDINATES or any(basis is None for basis, *_ in parts):
        return None
    whole, start = np.zeros((d, d)), 0
    for basis, dim, copies in parts:
        for _ in range(copies):
            block = slice(start, start + dim)
            whole[block, block], start = np.eye(dim) if isinstance(basis, str) else basis, start + dim
    return whole
