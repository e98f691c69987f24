"""W2(data, samples) of the whole scheme: the reverse ODE stretches the distance that Langevin leaves at the horizon."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxdiff.certificate import CONFIDENCE, Certificate, Term
from jaxdiff.grids import check_grid
from jaxdiff.guarantees.bounds.pedrotti2023.langevin_kl import assumed_if, langevin, w2_term
from jaxdiff.guarantees.bounds.pedrotti2023.log_sobolev import check_radius
from jaxdiff.guarantees.information import early_stopping_w2
from jaxdiff.processes import ou
from jaxdiff.processes.default_times import check_ends
from jaxdiff.types import Grid, Number, Numbers, Whole

# Cells along the reversal for Simpson's rule, uniform in u = log snr. The relative error stays below that of a
# trapezoid rule, which is of order (range of u/CELLS)^2 (R^2 snr)^2 at the largest snr.
CELLS = 4000
# Times at which a user's function of time is tabulated where it would otherwise be called thousands of times.
TABULATED = 1000


def one_sided_lipschitz(time: Numbers, radius: Number) -> Any:
    """L(t) = -1/sigma^2 + alpha_t^2 R^2/sigma^4: the one-sided Lipschitz constant of the exact score, |X_0| <= R."""
    check_radius(radius)
    time = np.asarray(time, np.float64)
    return (ou.snr(time) * radius**2 - 1) / ou.sigma(time) ** 2


def log_growth(horizon: Number, early_stop: Number, radius: Number) -> float:
    """log G, G = exp int (1 + L) from early_stop to horizon: how much the reverse ODE can stretch, L of radius R."""
    check_ends(horizon, early_stop)
    check_radius(radius)
    return float(_log_growth(horizon, early_stop, radius))


def _log_growth(t, early_stop, radius):
    spread = (np.log(np.expm1(2 * early_stop)) - np.log(np.expm1(2 * t))) / 2
    return t - early_stop + spread + radius**2 / 2 * (ou.snr(early_stop) - ou.snr(t))


def w2(
    horizon: Number,
    langevin_time: Number,
    dim: Whole,
    radius: Number,
    *,
    early_stop: Number | None = None,
    grid: Numbers | None = None,
    step_size: Number | None = None,
    moment: Number = 0.0,
    lipschitz: Number | None = None,
    moments: tuple[Numbers, Numbers] | None = None,
    one_sided: Callable[..., Any] | None = None,
    score_error: Number | Callable[..., Any] = 0.0,
    second_moment: Number | None = None,
) -> Certificate:
    """Upper bound on W2(data, samples), term by term: Langevin at T_1, then the reverse ODE to early_stop.

    The terms in nats are those of `langevin`. Of the terms in W2, "early stopping", "Langevin, after the reversal",
    "score error of the reversal" and "discretisation" add up to "W2 in all".

    Args:
      horizon, langevin_time, dim, radius, step_size, moment, lipschitz, moments: as for `langevin`.
      early_stop: where the reversal ends; the ODE is then taken to be solved exactly. Or
      grid: (n_steps + 1,) OU times from the horizon, for `kernels.ddim`, whose discretisation is bounded too.
      one_sided: L(t), a function of one time, with <x - y, s_theta(x) - s_theta(y)> <= L(t) |x - y|^2: given, or
        measured (`lsi.one_sided`). On a grid the denoiser's Jacobian is then assumed to lie between 0 and
        1 + sigma^2 L. Default `one_sided_lipschitz`, a bound for the exact score.
      score_error: the L2(q_t) error of s_theta, a number or a function of one time.
      second_moment: E|X_0|^2 or more; default R^2.

    Raises:
      ValueError: as for `langevin`; not exactly one of early_stop and grid; a grid that starts elsewhere.
    Source: synchronous coupling along the ODE. A warning says where the bound is vacuous: larger than sqrt(E|X_0|^2),
      the distance of samples that are all 0.
    """
    if (early_stop is None) == (grid is None):
        raise ValueError("give early_stop, for the exact ODE, or the grid of kernels.ddim: one of them.")
    options = {"step_size": step_size, "moment": moment, "lipschitz": lipschitz, "moments": moments}
    at_horizon = langevin(horizon, langevin_time, dim, radius, **options)
    second_moment = checked_second_moment(second_moment, radius)
    error = score_error if callable(score_error) else lambda t: score_error
    reversal = _reversal(horizon, early_stop, grid, dim, radius, one_sided, error)
    stopping = early_stopping_w2(second_moment, dim, reversal.early_stop)
    with np.errstate(over="ignore"):
        after = float(np.exp(reversal.stretch)) * at_horizon["W2 at T1"].value
    together = stopping + after + reversal.score_error + reversal.discretisation.value
    measured = one_sided is not None
    given = measured or moment > 0 or reversal.score_error > 0
    stretch = Term("log G", float(reversal.stretch), 0.0, assumed_if(measured), "stretch of the reversal", "log")
    terms = (
        *at_horizon.terms,
        stretch,
        w2_term("early stopping", stopping, "bound", "from the second moment"),
        w2_term("Langevin, after the reversal", after, assumed_if(measured or moment > 0), "G times W2 at T1"),
        w2_term("score error of the reversal", reversal.score_error, "assumed", "L2 errors as given, stretched"),
        reversal.discretisation,
        w2_term("W2 in all", together, assumed_if(given), "sum of the four before"),
    )
    at_zero, warnings = np.sqrt(second_moment), ()
    if not together <= at_zero:
        warnings = (f"vacuous: samples all at 0 are within W2 {at_zero:.4g}; log G = {reversal.stretch:.4g}",)
    constants = "the function given or measured" if measured else f"|X_0| <= {radius:g}"
    assumptions = (
        *at_horizon.assumptions,
        f"the reversal: {reversal.method}; its one-sided Lipschitz constants from {constants}",
        f"the data have E|X_0|^2 = {second_moment:.6g} at most",
    )
    return Certificate("KL(sampler || q_T1), then W2(data, samples), at most", terms, CONFIDENCE, assumptions, warnings)


class _Reversal(NamedTuple):
    """The reverse ODE from the horizon: where it ends, its method in words, log G, and what it adds to W2."""

    early_stop: float
    method: str
    stretch: float
    score_error: float
    discretisation: Term


def _reversal(horizon, early_stop, grid, dim, radius, one_sided, error):
    """The reversal solved exactly down to early_stop, or by the steps of a grid."""
    if grid is None:
        check_ends(horizon, early_stop)
        stretch, of_score = _along_the_ode(horizon, early_stop, radius, one_sided, error)
        term = w2_term("discretisation", 0.0, "assumed", "the ODE is solved exactly")
        return _Reversal(early_stop, "the reverse ODE, solved exactly", stretch, of_score, term)
    grid = check_grid(grid)
    if abs(grid[0] - horizon) > 1e-9 * horizon:
        raise ValueError(f"the grid must start at the horizon: grid[0] = {grid[0]:g}, horizon = {horizon:g}.")
    stretch, of_score, local = along_a_grid(grid, dim, radius, one_sided, error)
    term = w2_term("discretisation", local, assumed_if(one_sided is not None), "the denoiser's drift along the ODE")
    return _Reversal(float(grid[-1]), f"{len(grid) - 1} steps of ddim", stretch, of_score, term)


# W2(q_delta, out) <= G(T1) W2(q_T1, rho) + int_delta^T1 G(t) eps(t) dt, log G(t) = int_delta^t (1 + L).
def _along_the_ode(horizon, early_stop, radius, one_sided, error):
    """log G at the horizon, and what the score's error adds to W2."""
    from scipy.integrate import cumulative_simpson, simpson

    u = np.linspace(np.log(ou.snr(early_stop)), np.log(ou.snr(horizon)), CELLS + 1)  # decreasing
    t = ou.time(np.exp(u))
    t[0], t[-1] = early_stop, horizon
    dt = ou.sigma(t) ** 2 / 2  # -dt/du
    if one_sided is None:
        growth = _log_growth(t, early_stop, radius)
    else:
        slope = (1 + _values(one_sided, t, "one_sided")) * dt
        growth = cumulative_simpson(slope, x=-u, initial=0)
    errors = _values(error, t, "score_error")
    with np.errstate(over="ignore", invalid="ignore"):
        of_score = simpson(np.where(errors > 0, np.exp(growth) * errors * dt, 0.0), x=-u)
    return float(growth[-1]), float(of_score)


# In y = x/alpha and s = sigma/alpha a step of ddim is y' = r y + (1 - r) m(y), r = s'/s. With 0 <= grad m <= M,
# M = 1 + sigma^2 L, the step stretches by r + (1 - r) M at most. On the exact path m drifts by
#   dm/ds = [E (X - m)|X - m|^2 - Cov (y - m)]/s^3,   of L2 norm R^2 sqrt(d)/s^2 + 2 R^3/s^3 at most,
# and by 2R at most in all, so that with w = 1/s' - 1/s a step adds
#   s' int_s'^s |m(v) - m(s)| dv/v^2 <= s' min(2 R w, R^2 sqrt(d) w^2/2 + R^3 (w^3/3 + w^2/s)).
def along_a_grid(
    grid: Grid, dim: Whole, radius: Number, one_sided: Any, error: Callable[..., Any]
) -> tuple[float, ...]:
    """log of the stretch over the steps of ddim, and what the score's error and the discretisation add to W2."""
    s, alpha, sigma2 = 1 / np.sqrt(ou.snr(grid)), ou.alpha(grid), ou.sigma(grid) ** 2
    if one_sided is None:
        most = (radius / s[:-1]) ** 2
    else:
        most = np.maximum(1 + sigma2[:-1] * _values(one_sided, grid[:-1], "one_sided"), 0)
    errors = _values(error, grid[:-1], "score_error")
    r, w = s[1:] / s[:-1], 1 / s[1:] - 1 / s[:-1]
    smooth = radius**2 * np.sqrt(dim) * w**2 / 2 + radius**3 * (w**3 / 3 + w**2 / s[:-1])
    local = s[1:] * np.minimum(2 * radius * w, smooth)
    of_score = (1 - r) * sigma2[:-1] * errors / alpha[:-1]
    stretch = np.log(r + (1 - r) * most)
    later = np.append(np.cumsum(stretch[::-1])[-2::-1], 0.0)  # over the steps that follow each
    with np.errstate(over="ignore", invalid="ignore"):
        carried = alpha[-1] * np.exp(later)
        at_the_end = [float(np.sum(np.where(part > 0, carried * part, 0.0))) for part in (of_score, local)]
    return float(np.sum(stretch) + np.log(alpha[-1] / alpha[0])), *at_the_end


class Tabulated(NamedTuple):
    """A function of one time, known by its values at many times and linear in log snr between them."""

    log_snr: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, function: Callable[..., Any], first: Number, last: Number) -> "Tabulated":
        """The table of a function between two times."""
        t = np.geomspace(last, first, TABULATED)
        return cls(np.log(ou.snr(t)), _values(function, t, "one_sided"))

    def at(self, times: np.ndarray) -> np.ndarray:
        """The interpolated values at times."""
        return np.interp(np.log(ou.snr(times)), self.log_snr, self.values)


def _values(function, times, name):
    """A function of one time at many times; ValueError where a value is not finite, or an error is negative."""
    if isinstance(function, Tabulated):
        return function.at(times)
    values = np.array([float(function(t)) for t in times])
    wrong = ~np.isfinite(values) | ((values < 0) & (name == "score_error"))
    if wrong.any():
        k = int(np.argmax(wrong))
        raise ValueError(
            f"{name} must be finite, and an error not negative: at t = {times[k]:.4g} it is {values[k]:g}."
        )
    return values


def checked_second_moment(second_moment: Number | None, radius: Number) -> Number:
    """An upper bound on E|X_0|^2: the one given, or R^2."""
    check_radius(radius)
    if second_moment is not None and not 0 <= second_moment < np.inf:
        raise ValueError(f"second_moment is a mean of squares, finite: second_moment = {second_moment:g}.")
    return radius**2 if second_moment is None else second_moment
