"""Theorem 1 of Benton, De Bortoli, Doucet, Deligiannidis, ICLR 2024, arXiv:2308.03686: with constants, as printed."""

from typing import NamedTuple

import numpy as np

from jaxdiff.certificate import CONFIDENCE, DISCRETISATION, Certificate, Term
from jaxdiff.grids import check_grid
from jaxdiff.guarantees.bounds.brackets import OURS, check_dim
from jaxdiff.guarantees.information import initial_kl
from jaxdiff.types import Number, Numbers, Whole

PAPER = "Benton et al. 2024, Theorem 1"
NOT_A_BOUND = "an order, not a bound: the paper leaves out a constant factor that it does not state"


class Order(NamedTuple):
    """Horizon and number of steps as the paper's corollary prints them: an order, not a bound."""

    horizon: float
    n_steps: float


def kappa(grid: Numbers) -> float:
    """The smallest kappa with t_k - t_{k+1} <= kappa min(1, t_{k+1}) along a grid of OU times."""
    grid = check_grid(grid)
    return float(np.max(-np.diff(grid) / np.minimum(1, grid[1:])))


# Derivation of the constants. Let J = E|s_t|^2, a = s_v(X_v) - s_k(X_k) for v in a step from t_k, b = s_k - s_theta at
# X_k. The KL is at most KL_init + sum int E|a + b|^2 dv. As e^-t s_t is a martingale for falling t, with I = e^-2t J
#   E|a|^2 = e^2v (I_v - I_k) + (e^t_k - e^v)^2 I_k,      E<a, b> = (e^(v - t_k) - 1) E<s_k, b>.
# E|a|^2, first part: int over the step is int (-I') (e^2u - e^2t_{k+1})/2 du <= kappa int (-I') e^2u min(1, u) du, and
#   by parts over [delta, T] kappa [delta J(delta) - J(T) + int J (2 min(1, u) + 1_{u<1}) du]. For total variance d or
#   less d <= J <= d/(1 - e^-2u). The difference from (1/2) log(1/delta) + 2T decreases in delta, from
#   1/2 - 1 + (1/2) log((e^2 - 1)/2) + int_0^1 2u/(1 - e^-2u) du - log(e^2 - 1) = -0.1669 at 0.
# Second part: J_k int_0^g (1 - e^-u)^2 du <= J_k g^3/3, and J_k g^2 <= kappa^2 d/(1 - e^-2); 1/(3 (1 - e^-2)) is
#   0.38551.
# Cross term: 2 (g - 1 + e^-g) <= g^2, Cauchy-Schwarz, and again J_k g^2: (1 - e^-2)^(-1/2) = 1.0754.
FIRST, SECOND, CROSS = -0.166, 0.3856, 1.08


def theorem1(
    grid: Numbers, dim: Whole, *, second_moment: Number | None = None, score_error: Number = 0.0
) -> Certificate:
    """Theorem 1 with explicit constants: the terms add up to an upper bound on KL(q_delta || samples), in nats.

      KL_init + eps^2 + 1.08 kappa eps sqrt(d T)
      + kappa d [(1/2) log(1/delta) + 2T - 0.166] + 0.3856 kappa^2 d (T - delta),
    for exponential Euler from N(0, I), and data of total variance d or less, as normalised to Cov = I.

    Args:
      grid: (n_steps + 1,) OU times from T >= 1 to delta <= 1.
      dim: d.
      second_moment: E|X_0|^2 of the data or more; default d, the value of normalised data.
      score_error: eps^2 = sum g_k E|s_theta - s|^2 at (X_{t_k}, t_k), the start of each step.

    Raises:
      ValueError: T < 1, delta > 1, a grid or dim that is not valid, or a negative second_moment or score_error.
    """
    grid, horizon, early_stop = _checked(grid, dim, score_error)
    second_moment = dim if second_moment is None else second_moment
    _not_negative("second_moment", second_moment)
    mesh, bound = kappa(grid), lambda name, value: _term(name, value, "bound", f"{PAPER}, {OURS}")
    start = f"KL(q_T || N(0, I)) from E|X_0|^2, {OURS}"
    terms = (
        _term("initialisation", initial_kl(second_moment, dim, horizon), "bound", start),
        _term("score error", score_error, "assumed", "eps^2 = sum g_k E|s_theta - s|^2, as given"),
        bound("score x step", CROSS * mesh * np.sqrt(score_error * dim * horizon)),
        bound(DISCRETISATION, mesh * dim * (0.5 * np.log(1 / early_stop) + 2 * horizon + FIRST)),
        bound("second order", SECOND * mesh**2 * dim * (horizon - early_stop)),
    )
    assumptions = (
        f"the data have total variance {dim} at most, as normalised to Cov = I",
        f"the data have E|X_0|^2 = {second_moment:.6g} at most",
        "exponential Euler, started from N(0, I)",
    )
    return Certificate(f"KL(q_{early_stop:g} || exponential_euler), at most", terms, CONFIDENCE, assumptions)


def theorem1_as_printed(grid: Numbers, dim: Whole, *, score_error: Number = 0.0) -> Certificate:
    """The paper's expression eps^2 + kappa^2 d N + kappa d T + d e^-2T: an order, *not a bound*.

    The theorem holds up to a constant factor that the paper does not state. Arguments and errors are as for theorem1.
    Every term has the status "assumed".
    """
    grid, horizon, _ = _checked(grid, dim, score_error)
    mesh, printed = kappa(grid), f"{PAPER}, up to a constant not stated"
    terms = (
        _term("score error", score_error, "assumed", printed),
        _term("kappa^2 d N", mesh**2 * dim * (len(grid) - 1), "assumed", printed),
        _term("kappa d T", mesh * dim * horizon, "assumed", printed),
        _term("d e^-2T", dim * np.exp(-2 * horizon), "assumed", printed),
    )
    assumptions = (NOT_A_BOUND, "the data are normalised to Cov = I", "exponential Euler, started from N(0, I)")
    return Certificate("order of the KL of exponential_euler, not a bound", terms, CONFIDENCE, assumptions)


def corollary(target_kl: Number, dim: Whole, early_stop: Number) -> Order:
    """The paper's T = (1/2) log(d/eps^2) and N = d (T + log(1/delta))^2/eps^2 for target_kl = eps^2.

    An order, *not a bound*: N is printed up to a constant factor and is no promise that the target is reached.

    Raises:
      ValueError: target_kl is not in (0, dim), early_stop not in (0, 1], or dim is not a whole number from 1.
    """
    check_dim(dim)
    if not 0 < target_kl < dim:
        raise ValueError(f"target_kl must lie between 0 and dim = {dim}, or T is not positive: it is {target_kl:g}.")
    if not 0 < early_stop <= 1:
        raise ValueError(f"early_stop must lie in (0, 1]: early_stop = {early_stop:g}. Take 1e-3, say.")
    horizon = 0.5 * np.log(dim / target_kl)
    return Order(float(horizon), float(dim * (horizon + np.log(1 / early_stop)) ** 2 / target_kl))


def _checked(grid, dim, score_error):
    """The grid as an array, T and delta, after a check of the theorem's conditions."""
    check_dim(dim)
    grid = check_grid(grid)
    horizon, early_stop = float(grid[0]), float(grid[-1])
    if horizon < 1 or early_stop > 1:
        raise ValueError(
            f"the theorem needs a horizon of 1 or more and an early stop of 1 or less: the grid runs from {horizon:g} "
            f"to {early_stop:g}. Change its ends, or take bounds.any_grid.upper."
        )
    _not_negative("score_error", score_error)
    return grid, horizon, early_stop


def _not_negative(name, value):
    if not 0 <= value < np.inf:
        raise ValueError(f"{name} is a mean of squares, finite and not negative: {name} = {value:g}.")


def _term(name, value, status, source):
    return Term(name, float(value), 0.0, status, source)
