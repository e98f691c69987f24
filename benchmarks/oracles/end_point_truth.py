"""Exact distances of a sampler's end points from q_t: W2, and KL(q_t || samples).

Normal laws stay normal under every kernel. On the line, an ODE kernel maps quantiles, and a kernel with affine steps
and noise has its density on a lattice. For a product of equal coordinates this is computed for one of them.
"""

import dataclasses
import math

import numpy as np
from jax.tree_util import Partial
from scipy.interpolate import CubicSpline

from benchmarks.oracles import exact_values as exactly
from jaxdiff.guarantees.exact_w2 import Normal, end_law, exact_w2
from jaxdiff.processes import ou

LEVELS = 2**20  # quantiles of a density on a lattice: mass of 1e-6 that goes to another mode is seen
FINER = 64  # points for each of a lattice, between which its distribution function is linear


def end_w2(case, sampler, t):
    """W2 of the end points from q_t; None where it is not known."""
    kernel, grid = sampler
    if case.line is None or case.normal is not None:
        return exact_w2(kernel, grid, case.law, t)
    if kernel.noises_per_step == 0:
        one = dataclasses.replace(kernel, score=Partial(case.line.score))
        return math.sqrt(case.copies) * exact_w2(one, grid, case.line.target, t)
    if not has_lattice(kernel):
        return None
    levels = (np.arange(LEVELS) + 0.5) / LEVELS
    apart = lattice_quantiles(exactly.chain(case.line, kernel, grid), levels) - case.line.target.quantiles(levels, t)
    return math.sqrt(case.copies * np.mean(apart**2))


def end_kl(case, sampler, t):
    """KL(q_t || law of the end points); None where it is not known."""
    kernel, grid = sampler
    if case.normal is not None or case.law.cov is not None:
        found = end_law(kernel, grid, case.law.dim)
        return None if found is None else normal_kl(noised(case.law, t), found)
    if case.line is None or not has_lattice(kernel):
        return None
    return case.copies * exactly.chain(case.line, kernel, grid).against(case.line, t)[0]


def has_lattice(kernel):
    """Whether each step is keep x + gain score + spread z."""
    return kernel.noises_per_step == 1 and kernel.path_cost is not None


def lattice_quantiles(lattice, levels):
    """The quantiles of a density on a lattice."""
    y = np.linspace(lattice.y[0], lattice.y[-1], FINER * len(lattice.y))
    mass = CubicSpline(lattice.y, lattice.p).antiderivative()(y)
    return np.interp(levels, np.maximum.accumulate(mass) / mass[-1], y)


def noised(law, t):
    """The normal law of X_t for a normal law of X_0."""
    cov = np.diag(law.cov) if law.cov.ndim == 1 else law.cov
    return Normal(ou.alpha(t) * law.mean, ou.alpha(t) ** 2 * cov + ou.sigma(t) ** 2 * np.eye(law.dim))


def normal_kl(q, p):
    """KL(q || p) of two normal laws."""
    apart = q.mean - p.mean
    ratio = np.linalg.solve(p.cov, q.cov)
    sizes = np.linalg.eigvals(ratio).real  # of a matrix that is similar to a symmetric one
    return float(np.sum(sizes - 1 - np.log(sizes)) + apart @ np.linalg.solve(p.cov, apart)) / 2
