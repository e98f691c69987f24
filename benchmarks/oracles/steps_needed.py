"""The least number of steps with which a sampler meets a target path KL, from exact path KLs.

On Benton's grid N = 1 to 16 are tried one by one, because the path KL was seen to rise with N up to 13. Then N grows by
factors of four until the target is met, and the bracket is narrowed until KL(N) <= eps^2 < KL(N - 1). An optimal grid
is a polished shortest path up to 512 steps (128 for covariance matching). A longer one has its nodes from the density
that is optimal for N -> infinity, and a few of them uniformly in log snr; its path KL is within 1 % (3 %) of a polished
grid's. The KL of the end points of a normal law on Benton's grid follows from a recursion of variances from N(0, I) at
the horizon.
"""

import functools
import math

import numpy as np

from benchmarks.laws.by_dimension import GAUSSIAN, law_of
from jaxdiff import grids, information, kernels
from jaxdiff.app.samplers import label_of
from jaxdiff.guarantees.bounds import benton2024
from jaxdiff.processes import ou

HORIZON = 7.0
MOST = {"quick": 10**5, "full": 10**6}  # the most steps whose path KL is computed
MOST_COVARIANCE = 4096
IN_TURN, GROWTH, SECANTS = 16, 4, 6
BENTON, OPTIMAL = "Benton", "optimal"
EULER, ANCESTRAL, MOMENT, COVARIANCE = "exponential_euler", "ancestral", "moment_matched", "covariance_matched"
ORDER = {EULER: 1, ANCESTRAL: 1, MOMENT: 1, COVARIANCE: 2}  # path KL falls as N^-order
CELLS = 4000  # on which the density of many nodes is computed
SPREAD = {1: 8, 2: 2}  # nodes that are spread uniformly, by order
POLISHED = {1: 512, 2: 128}  # the most steps of a polished grid, by order
CANDIDATES = {1: 257, 2: 129}  # candidate times, by order: a log det is slow


def sampler(kernel, grid):
    """The name of a sampler in rows."""
    return f"{label_of(kernel)}, {grid}"


SAMPLERS = {sampler(kernel, grid): (kernel, grid) for kernel in ORDER for grid in (BENTON, OPTIMAL)}
WORST = sampler(EULER, BENTON)


class Sampling:
    """The path KL of a kernel on one kind of grid and one law, for every number of steps."""

    def __init__(self, law, name, delta):
        self.law, self.delta, (self.kernel, self.kind) = law, delta, SAMPLERS[name]
        self.order, self.in_turn = ORDER[self.kernel], IN_TURN if self.kind == BENTON else 0
        self.cost = information.step_cost(self.kernel, law.mmse)
        self.kl = functools.cache(lambda n: self.total(self.grid(n)))

    def total(self, grid):
        """The path KL of a grid; values below 0 by rounding are 0."""
        return max(float(np.sum(self.cost(grid[:-1], grid[1:]))), 0.0)

    def grid(self, n):
        """The grid of n steps."""
        if self.kind == BENTON:
            return grids.exponential_then_uniform(HORIZON, self.delta, n)
        if n > POLISHED[self.order]:
            return self.continuum(n)
        options = {"n_candidates": CANDIDATES[self.order], "around": self.continuum(CELLS)}
        polished = grids.optimal(self.cost, HORIZON, self.delta, n, **options)
        return min((polished, self.continuum(n)), key=self.total)

    @functools.cached_property
    def density(self):
        """Log snr, and the fraction of all nodes up to it: a cell of cost c ~ width^p has a part c^(1/p)."""
        fine = grids.log_snr(HORIZON, self.delta, CELLS)
        each = np.maximum(self.cost(fine[:-1], fine[1:]), 0) ** (1 / (1 + self.order))
        whole = np.append(0, np.cumsum(each))
        return np.log(ou.snr(fine)), whole / whole[-1] if whole[-1] > 0 else np.linspace(0, 1, CELLS + 1)

    def continuum(self, n):
        """A grid of n steps from the density that is optimal for many steps, with a few uniform nodes.

        The density vanishes where a discrete law is almost known; the nodes uniform in log snr are for these times.
        """
        u, share = self.density
        few = min(0.5, SPREAD[self.order] / n)
        share = (1 - few) * share + few * np.linspace(0, 1, len(u))
        grid = ou.time(np.exp(np.interp(np.linspace(0, 1, n + 1), share, u)))
        grid[0], grid[-1] = HORIZON, self.delta
        return grids.check_grid(grid)


def least_steps(kl, target, most, in_turn=0):
    """The least N with kl(N) <= target, for a kl that falls beyond N = in_turn; None if it is more than most."""
    for n in range(1, in_turn + 1):
        if kl(n) <= target:
            return n
    low, high = in_turn, in_turn + 1
    while kl(high) > target:
        if high == most:
            return None
        low, high = high, min(GROWTH * high, most)
    tries = 0
    while high - low > 1:
        n = (low + high) // 2
        if tries < SECANTS and low > 0 and kl(high) > 0:
            n = math.ceil(_crossing(low, kl(low), high, kl(high), target))
        n = min(max(n, low + 1), high - 1)
        low, high = (low, n) if kl(n) <= target else (n, high)
        tries += 1
    return high


def _crossing(low, kl_low, high, kl_high, target):
    """Where log KL, linear in log N between two N, is that of the target."""
    share = np.log(kl_low / target) / np.log(kl_low / max(kl_high, 1e-300))
    return float(low * (high / low) ** share)


def needed(kl, target, most, order, in_turn=0):
    """Columns: the least N, its interpolated real value, and the KL at N, or at `most` if N is extrapolated."""
    n = least_steps(kl, target, most, in_turn)
    if n is None:
        real = most * (kl(most) / target) ** (1 / order)
        return {"steps": math.ceil(real), "real": real, "path_kl": kl(most), "extrapolated": True}
    return {"steps": n, "real": _crossing(n - 1, kl(n - 1), n, kl(n), target) if n > 1 else 1.0, "path_kl": kl(n)}


@functools.lru_cache(maxsize=1)
def sampling(law, dim, name, delta, stride):
    """The Sampling of a row, cached because rows of the same law, dimension, sampler and early stop are adjacent."""
    return Sampling(law_of(law, dim, stride), name, delta)


def steps_needed(dim, law, sampler, delta, eps2, most=MOST["full"], stride=1):
    """A row of the sweep: steps for path KL <= eps2, Theorem 1's bound at them, and steps for the marginal KL."""
    one = sampling(law, dim, sampler, delta, stride)
    most = min(most, MOST_COVARIANCE) if one.kernel == COVARIANCE else most
    row = needed(one.kl, eps2, most, one.order, one.in_turn)
    if sampler == WORST:
        row |= bound(one, min(row["steps"], most), row["path_kl"])
    if law in GAUSSIAN and one.kind == BENTON and one.kernel != COVARIANCE:
        row["marginal"] = least_steps(functools.cache(lambda n: marginal_kl(one, n)), eps2, most, IN_TURN)
    return {name: rounded(value) for name, value in row.items()}


def rounded(value):
    """A float with six digits; other values as they are."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def bound(one, n, path_kl):
    """Theorem 1 at n steps, initial KL included, and its ratio to the exact initial KL plus path KL."""
    law = one.law
    terms = benton2024.theorem1(one.grid(n), law.dim, second_moment=law.second_moment).terms
    initial = information.initial_kl(law.second_moment, law.dim, HORIZON)
    exact = max(float(initial) - information.mutual_information(law.mmse, HORIZON), 0.0) + path_kl
    value = math.fsum(term.value for term in terms)
    return {"bound": value, "ratio": value / exact}


def marginal_kl(one, n):
    """KL(q_delta || samples) from N(0, I) on a normal law of variances 0 and 1, by its recursion of variances."""
    grid = one.grid(n)
    extra = (one.law.mmse,) if one.kernel == MOMENT else ()
    rows = getattr(kernels, one.kernel)(one.law.score, *extra).coefficients(grid)
    rank = round(one.law.second_moment)
    each = {variance: gaussian_kl(rows, grid, variance) for variance in (0.0, 1.0)}
    return rank * each[1.0] + (one.law.dim - rank) * each[0.0]


def gaussian_kl(rows, grid, variance):
    """The KL of one coordinate of N(0, variance)."""
    noised = ou.alpha(grid) ** 2 * variance + ou.sigma(grid) ** 2
    keep = rows.keep - rows.gain / noised[:-1]
    after = np.append(np.cumprod(keep[:0:-1])[::-1], 1.0) ** 2  # how later steps scale the variance of a step's noise
    ratio = noised[-1] / (np.prod(keep) ** 2 + np.sum(after * rows.spread**2))
    return float(ratio - 1 - np.log(ratio)) / 2
