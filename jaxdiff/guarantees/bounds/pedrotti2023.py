"""Prediction-correction with a finite horizon, after Pedrotti, Maas, Mondelli, arXiv:2305.14164: a replacement.

Theorems 4.1 and 4.2 of the paper were not available in full. What stands here is not them but statements of the same
kind, derived with every constant, for data with |X_0| <= R. KL is of the sampler to q_T1, in nats: the other way round
than the path KL of this package, and never to be added to it.
"""

from typing import NamedTuple

import numpy as np
from scipy.integrate import cumulative_simpson, simpson

from jaxdiff.certificate import CONFIDENCE, Certificate, Term
from jaxdiff.grids import check_grid, log_snr
from jaxdiff.guarantees.bounds.brackets import OURS, check_dim
from jaxdiff.guarantees.information import early_stopping_w2
from jaxdiff.processes import ou
from jaxdiff.processes.ou import EARLIEST, LATEST, check_ends
from jaxdiff.targets.components import gaussian_moments
from jaxdiff.types import Grid

REPLACEMENT = f"replacement of Theorems 4.1 and 4.2 of Pedrotti et al. 2023, {OURS}"
W2, LOG = "W2", "log"
STEP_LIMIT, RATE, BIAS, MOMENT, MOMENT_AT = 9.0, 0.83, 3.8, 0.6, 4.5  # of discrete Langevin
CELLS = 4000  # of the integral along the reversal
SHARE = 1 / 3  # of a target: early stopping, Langevin, the grid
HORIZONS, LAST_HORIZON = 80, 8.0  # that a plan is looked for among, and where they end at least
MOST_STEPS = 2**15  # of a planned grid
LATEST_STOP, TABULATED = 3.0, 1000  # times at which a given one_sided is asked


class FiniteHorizonPlan(NamedTuple):
    """T_1, T_2, Langevin's step, the reversal's grid (by `kernels.ddim`), evaluations at T_1 and in it, the bound."""

    horizon: float
    langevin_time: float
    step_size: float
    grid: Grid
    evals: tuple[int, int]
    certificate: Certificate


def lsi_constant(time, radius):
    """alpha(t) = (1/sigma^2)(1 - alpha_t^2 R^2/sigma^2) of q_t where |X_0| <= R; not positive: nothing is claimed.

    Where it is positive, -log q_t has curvature alpha(t) at least (Bakry and Emery), and two points at distance R from
    0 attain that at 0. Arrays pass.
    """
    _check_radius(radius)
    return (1 - ou.snr(np.asarray(time, np.float64)) * radius**2) / ou.sigma(np.asarray(time, np.float64)) ** 2


def sufficient_horizon(delta, radius) -> float:
    """The smallest time from which on lsi_constant >= 1 - delta; at most `simple_horizon`. Arguments as there.

    With u = e^-2t the condition is (1 - delta) u^2 + (R^2 - 1 + 2 delta) u - delta <= 0.
    """
    _check_delta(delta)
    _check_radius(radius)
    b = radius**2 - 1 + 2 * delta
    root = np.hypot(b, 2 * np.sqrt(delta * (1 - delta)))
    u = 2 * delta / (b + root) if b > 0 else (root - b) / (2 * (1 - delta))
    return float(-np.log(min(u, 1.0)) / 2)


def simple_horizon(delta, radius) -> float:
    """(1/2) log(1 + R^2/delta), a time from which on lsi_constant >= 1 - delta; delta in (0, 1), R >= 0."""
    _check_delta(delta)
    _check_radius(radius)
    return float(np.log1p(radius**2 / delta) / 2)


def start_kl(time, dim, radius, *, moments=None) -> float:
    """KL(start || q_time) at most, in nats; inf where lsi_constant is not positive.

    From N(0, I): (c^2/(2 alpha sigma^4))(R^2 + c^2 d), c = e^-t. From the Gaussian of the data's mean and covariance at
    that time, moments = (mean (d,), cov (d,) or (d, d)) of eigenvalues v:
    (c^2/(2 alpha sigma^4)) ((R + |mean|)^2 + c^2 sum v^2/(c^2 v + sigma^2)).

    Raises:
      ValueError: time is no OU time, or dim, radius or moments are none.
    Source: KL <= I/(2 alpha) and the Fisher information of the start, whose cross terms have the right sign by Stein's
      identity, as the denoiser's Jacobian is a covariance.
    """
    check_dim(dim)
    _check_time(time)
    constant, c2, sigma2 = lsi_constant(time, radius), ou.alpha(time) ** 2, ou.sigma(time) ** 2
    if constant <= 0:
        return float("inf")
    if moments is None:
        reach, width = radius**2, c2 * dim
    else:
        mean, v, _ = gaussian_moments(moments[0], moments[1], dim)
        reach, width = (radius + np.linalg.norm(mean)) ** 2, c2 * np.sum(v**2 / (c2 * v + sigma2))
    return float(c2 / (2 * constant * sigma2**2) * (reach + width))


def langevin(
    horizon, langevin_time, dim, radius, *, step_size=None, moment=0.0, lipschitz=None, moments=None
) -> Certificate:
    """What is at most KL(rho || q_T1), term by term in nats, and W2(rho, q_T1), after inexact Langevin for T_2.

    Continuous time: mixing e^(-alpha T_2/2) KL_0, and score error eps_MGF = log E exp(|e|^2/alpha).
    Plain steps of h: mixing e^(-.83 alpha T_2) KL_0, bias 3.8 L_s^2 d h/alpha, and .6 log E exp(4.5 |e|^2/alpha).

    Args:
      horizon, langevin_time: T_1 and T_2.
      dim, radius: d, and R with |X_0| <= R.
      step_size: h <= 1/(9 max(1/sigma^2, L_s)), or None for continuous time.
      moment: eps_MGF or, with steps, log E exp(4.5 |e|^2/alpha), as `losses.exponential_moment` estimates it with alpha
        or alpha/4.5; 0 for the exact score.
      lipschitz: L_s of s_theta(., T_1); default 1/sigma^2, that of the exact score.
      moments: of a start from the data's Gaussian, as for `start_kl`; default N(0, I).

    Raises:
      ValueError: lsi_constant is not positive at T_1, step_size is too long, or an argument is out of range.
    Source: this module's head; each constant rounded up.
    """
    check_dim(dim)
    _check_time(horizon)
    constant = float(lsi_constant(horizon, radius))
    if constant <= 0:
        least = sufficient_horizon(1 - 1e-9, radius)
        raise ValueError(
            f"no log-Sobolev inequality is known at T_1 = {horizon:g} for radius {radius:g}: the constant is "
            f"{constant:.3g}. Take a horizon above {least:.4g}."
        )
    for name, value in (("langevin_time", langevin_time), ("moment", moment)):
        if not 0 <= value < np.inf:
            raise ValueError(f"{name} must be finite, 0 or more: {name} = {value:g}.")
    smooth = float(1 / ou.sigma(horizon) ** 2)
    lipschitz = smooth if lipschitz is None else lipschitz
    if not 0 < lipschitz < np.inf:
        raise ValueError(f"lipschitz is the constant of the score at T1, positive: lipschitz = {lipschitz:g}.")
    kl = start_kl(horizon, dim, radius, moments=moments)
    terms = []
    if step_size is None:
        terms.append(_nats("mixing", np.exp(-constant * langevin_time / 2) * kl))
        score_error = moment
    else:
        longest = 1 / (STEP_LIMIT * max(smooth, lipschitz))
        if not 0 < step_size <= longest * (1 + 1e-9):
            raise ValueError(f"the bound holds for steps up to {longest:.6g}: step_size = {step_size:g}.")
        terms.append(_nats("mixing", np.exp(-RATE * constant * langevin_time) * kl))
        terms.append(_nats("step bias", BIAS * lipschitz**2 * dim * step_size / constant))
        score_error = MOMENT * moment
    terms.append(Term("score error at T1", float(score_error), 0.0, "assumed", "exponential moment, as given"))
    at_horizon = np.sqrt(2 * sum(term.value for term in terms) / constant)
    terms.append(_w2("W2 at T1", at_horizon, _status(moment > 0), "sqrt(2 KL/alpha), Otto and Villani"))
    kind = "continuous time" if step_size is None else f"plain steps of {step_size:.4g}"
    start = "N(0, I)" if moments is None else "the Gaussian of the data's moments"
    assumptions = (
        REPLACEMENT,
        f"|X_0| <= {radius:g}, so that the law at T1 = {horizon:g} has log-Sobolev constant {constant:.4g}",
        f"Langevin in {kind} for {langevin_time:g} from {start}",
        f"the score at T1 has Lipschitz constant {lipschitz:.4g} at most",
        f"the score's exponential moment is {moment:g} at most",
        "KL of the sampler to q_T1: not to be added to a path KL",
    )
    return Certificate("KL(sampler || q_T1), at most", tuple(terms), CONFIDENCE, assumptions)


def one_sided_lipschitz(time, radius):
    """L(t) = -1/sigma^2 + alpha_t^2 R^2/sigma^4: how fast the exact score can pull apart, for |X_0| <= R."""
    _check_radius(radius)
    time = np.asarray(time, np.float64)
    return (ou.snr(time) * radius**2 - 1) / ou.sigma(time) ** 2


def log_growth(horizon, early_stop, radius) -> float:
    """log G, G = exp int (1 + L) from early_stop to horizon: how much the reverse ODE can stretch, L of radius R."""
    check_ends(horizon, early_stop)
    _check_radius(radius)
    return float(_log_growth(horizon, early_stop, radius))


def _log_growth(t, early_stop, radius):
    spread = (np.log(np.expm1(2 * early_stop)) - np.log(np.expm1(2 * t))) / 2
    return t - early_stop + spread + radius**2 / 2 * (ou.snr(early_stop) - ou.snr(t))


def w2(
    horizon,
    langevin_time,
    dim,
    radius,
    *,
    early_stop=None,
    grid=None,
    step_size=None,
    moment=0.0,
    lipschitz=None,
    moments=None,
    one_sided=None,
    score_error=0.0,
    second_moment=None,
) -> Certificate:
    """W2(data, samples) at most, term by term: Langevin at T_1, then the reverse ODE to early_stop.

    The terms in nats are those of `langevin`. Of those in W2, "early stopping", "Langevin, after the reversal", "score
    error of the reversal" and "discretisation" add up to "W2 in all".

    Args:
      horizon, langevin_time, dim, radius, step_size, moment, lipschitz, moments: as for `langevin`.
      early_stop: where the reversal ends, solved exactly in between; or
      grid: (n_steps + 1,) OU times from the horizon, for `kernels.ddim`, whose discretisation is bounded too.
      one_sided: L(t), a function of one time, with <x - y, s_theta(x) - s_theta(y)> <= L(t) |x - y|^2: given, or
        measured (`lsi.one_sided`). On a grid the denoiser's Jacobian is then assumed to lie between 0 and
        1 + sigma^2 L. Default `one_sided_lipschitz`, a bound for the exact score.
      score_error: the L2(q_t) error of s_theta, a number or a function of one time.
      second_moment: E|X_0|^2 at most; default R^2.

    Raises:
      ValueError: as for `langevin`; not exactly one of early_stop and grid; a grid that starts elsewhere.
    Source: this module's head; synchronous coupling along the ODE. A warning says where the bound is vacuous: larger
      than the distance sqrt(E|X_0|^2) that samples all at 0 keep.
    """
    if (early_stop is None) == (grid is None):
        raise ValueError("give early_stop, for the exact ODE, or the grid of kernels.ddim: one of them.")
    at_horizon = langevin(
        horizon,
        langevin_time,
        dim,
        radius,
        step_size=step_size,
        moment=moment,
        lipschitz=lipschitz,
        moments=moments,
    )
    second_moment = _second_moment(second_moment, radius)
    error = score_error if callable(score_error) else lambda t: score_error
    if grid is None:
        check_ends(horizon, early_stop)
        stretch, of_score = _along_the_ode(horizon, early_stop, radius, one_sided, error)
        discretisation, way = 0.0, "the reverse ODE, solved exactly"
        source = _w2("discretisation", 0.0, "assumed", "the ODE is solved exactly")
    else:
        grid = check_grid(grid)
        if abs(grid[0] - horizon) > 1e-9 * horizon:
            raise ValueError(f"the grid starts at the horizon: grid[0] = {grid[0]:g}, horizon = {horizon:g}.")
        early_stop = float(grid[-1])
        stretch, of_score, discretisation = _down_the_grid(grid, dim, radius, one_sided, error)
        way = f"{len(grid) - 1} steps of ddim"
        status = _status(one_sided is not None)
        source = _w2("discretisation", discretisation, status, "the denoiser's drift along the ODE")
    given = one_sided is not None or moment > 0 or of_score > 0
    stopping = early_stopping_w2(second_moment, dim, early_stop)
    with np.errstate(over="ignore"):
        after = float(np.exp(stretch)) * at_horizon["W2 at T1"].value
    together = stopping + after + of_score + discretisation
    terms = (
        *at_horizon.terms,
        Term("log G", float(stretch), 0.0, _status(one_sided is not None), "stretch of the reversal", LOG),
        _w2("early stopping", stopping, "bound", "from the second moment"),
        _w2("Langevin, after the reversal", after, _status(one_sided is not None or moment > 0), "G times W2 at T1"),
        _w2("score error of the reversal", of_score, "assumed", "L2 errors as given, stretched"),
        source,
        _w2("W2 in all", together, _status(given), "sum of the four before"),
    )
    trivial = np.sqrt(second_moment)
    warnings = ()
    if not together <= trivial:
        warnings = (f"vacuous: samples all at 0 are within W2 {trivial:.4g}; log G = {stretch:.4g}",)
    lipschitz_text = f"|X_0| <= {radius:g}" if one_sided is None else "the function given or measured"
    assumptions = (
        *at_horizon.assumptions,
        f"the reversal: {way}; its one-sided Lipschitz constants from {lipschitz_text}",
        f"the data have E|X_0|^2 = {second_moment:.6g} at most",
    )
    return Certificate("KL(sampler || q_T1), then W2(data, samples), at most", terms, CONFIDENCE, assumptions, warnings)


# W2(q_delta, out) <= G(T1) W2(q_T1, rho) + int_delta^T1 G(t) eps(t) dt, log G(t) = int_delta^t (1 + L).
def _along_the_ode(horizon, early_stop, radius, one_sided, error):
    """log G at the horizon, and the score's share."""
    u = np.linspace(np.log(ou.snr(early_stop)), np.log(ou.snr(horizon)), CELLS + 1)  # falls
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
        share = simpson(np.where(errors > 0, np.exp(growth) * errors * dt, 0.0), x=-u)
    return float(growth[-1]), float(share)


# In y = x/alpha and s = sigma/alpha a step of ddim is y' = r y + (1 - r) m(y), r = s'/s. With 0 <= grad m <= M,
# M = 1 + sigma^2 L, it stretches by r + (1 - r) M at most. On the exact path m drifts by
#   dm/ds = [E (X - m)|X - m|^2 - Cov (y - m)]/s^3,   of L2 norm R^2 sqrt(d)/s^2 + 2 R^3/s^3 at most,
# and by 2R at most in all, so that with w = 1/s' - 1/s a step adds
#   s' int_s'^s |m(v) - m(s)| dv/v^2 <= s' min(2 R w, R^2 sqrt(d) w^2/2 + R^3 (w^3/3 + w^2/s)).
def _down_the_grid(grid, dim, radius, one_sided, error):
    """log of the stretch, the score's share, and the discretisation's, in x at the end."""
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
    later = np.append(np.cumsum(stretch[::-1])[-2::-1], 0.0)  # of the steps after each
    with np.errstate(over="ignore", invalid="ignore"):
        carried = alpha[-1] * np.exp(later)
        shares = [float(np.sum(np.where(part > 0, carried * part, 0.0))) for part in (of_score, local)]
    return float(np.sum(stretch) + np.log(alpha[-1] / alpha[0])), *shares


def plan_w2(target_w2, dim, radius, *, early_stop=None, moments=None, one_sided=None, second_moment=None):
    """T_1, T_2, Langevin's step and the grid of `kernels.ddim`, of least evaluations, for W2(data, samples) <= target.

    Exact score. A third of the target each is given to early stopping, Langevin and the grid. The bound asks for far
    more than is needed, and holds for all data of this radius: without one_sided there is a plan for a target of 1 at
    radius 0.5, and none for 0.3, where log G says why.

    Args:
      target_w2: in the data's units.
      dim, radius, moments, one_sided, second_moment: as for `w2`.
      early_stop: default what a third of the target allows.

    Returns:
      A FiniteHorizonPlan, whose certificate's "W2 in all" is at most the target.

    Raises:
      ValueError: the target is not positive, early_stop alone exceeds its third, or no grid of 32,768 steps is enough:
        the message has log G.
    """
    check_dim(dim)
    if not 0 < target_w2 < np.inf:
        raise ValueError(f"target_w2 is a distance, positive: target_w2 = {target_w2:g}.")
    moment2, share = _second_moment(second_moment, radius), SHARE * target_w2
    if early_stop is None:
        early_stop = _latest_stop(share, moment2, dim)
    elif early_stopping_w2(moment2, dim, early_stop) > share:
        raise ValueError(
            f"stopping at {early_stop:g} alone can cost W2 {early_stopping_w2(moment2, dim, early_stop):.4g}, a third "
            f"of the target is {share:.4g}: stop at {_latest_stop(share, moment2, dim):.4g}."
        )
    least = max(sufficient_horizon(1 - 1e-3, radius), 2 * early_stop)
    best, seen = None, np.inf
    horizons = np.geomspace(least, max(sufficient_horizon(1e-3, radius), LAST_HORIZON), HORIZONS)
    table = None if one_sided is None else _Tabulated.of(one_sided, early_stop, horizons[-1])
    for horizon in horizons:
        n_steps, stretch = _enough_steps(horizon, early_stop, share, dim, radius, table)
        seen = min(seen, stretch)
        if n_steps is None:
            continue
        h, count = _enough_langevin(horizon, stretch, share, dim, radius, moments)
        if best is None or count + n_steps < sum(best[1]):
            best = (float(horizon), (count, n_steps), h)
    if best is None:
        raise ValueError(
            f"no grid of {MOST_STEPS} steps reaches W2 {target_w2:g}: the reversal can stretch by e^{seen:.3g}. The "
            f"bound is too loose for radius {radius:g} down to {early_stop:.3g}; pass one_sided= if you know it better."
        )
    horizon, evals, h = best
    grid = log_snr(horizon, early_stop, evals[1])
    certificate = w2(
        horizon,
        h * evals[0],
        dim,
        radius,
        grid=grid,
        step_size=h if evals[0] else None,
        moments=moments,
        one_sided=one_sided,
        second_moment=second_moment,
    )
    return FiniteHorizonPlan(horizon, h * evals[0], h, grid, evals, certificate)


def _latest_stop(share, second_moment, dim):
    """The latest time at which stopping costs no more than a share, by bisection."""
    low, high = EARLIEST, LATEST_STOP
    if early_stopping_w2(second_moment, dim, low) > share:
        raise ValueError(
            f"a third of the target, {share:.3g}, is less than stopping at {low:g} can cost: ask for more."
        )
    for _ in range(100):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if early_stopping_w2(second_moment, dim, middle) <= share else (low, middle)
    return float(low)


def _enough_steps(horizon, early_stop, share, dim, radius, one_sided):
    """The fewest steps of ddim, a power of 2, that cost no more than a share; None if there are none. And log G."""
    none, n_steps, stretch = lambda t: 0.0, 1, np.inf
    while n_steps <= MOST_STEPS:
        grid = log_snr(horizon, early_stop, n_steps)
        stretch, _, cost = _down_the_grid(grid, dim, radius, one_sided, none)
        if cost <= share:
            return n_steps, stretch
        n_steps *= 2
    return None, stretch


def _enough_langevin(horizon, stretch, share, dim, radius, moments):
    """Step and number of steps after which Langevin costs no more than a share, half of its KL bias."""
    constant, smooth = float(lsi_constant(horizon, radius)), float(1 / ou.sigma(horizon) ** 2)
    goal = constant / 2 * (share * np.exp(-stretch)) ** 2
    kl = start_kl(horizon, dim, radius, moments=moments)
    if kl <= goal:
        return 0.0, 0
    h = min(1 / (STEP_LIMIT * smooth), goal / 2 * constant / (BIAS * smooth**2 * dim))
    return float(h), int(np.ceil(np.log(2 * kl / goal) / (RATE * constant * h)))


def _check_radius(radius):
    if not 0 <= radius < np.inf:
        raise ValueError(f"radius bounds the norm of the data, finite and not negative: radius = {radius:g}.")


def _check_delta(delta):
    if not 0 < delta < 1:
        raise ValueError(f"delta is how far the constant may fall below 1, in (0, 1): delta = {delta:g}.")


def _check_time(time):
    if not EARLIEST <= time <= LATEST:
        raise ValueError(f"the horizon is an OU time in [{EARLIEST:g}, {LATEST:g}]: it is {time:g}.")


class _Tabulated(NamedTuple):
    """A function of one time by its values at many, linear in log snr between them."""

    log_snr: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, function, first, last):
        t = np.geomspace(last, first, TABULATED)
        return cls(np.log(ou.snr(t)), _values(function, t, "one_sided"))

    def at(self, times):
        return np.interp(np.log(ou.snr(times)), self.log_snr, self.values)


def _values(function, times, name):
    """A function of one time, at many; raises ValueError where an error is negative, or anything not finite."""
    if isinstance(function, _Tabulated):
        return function.at(times)
    values = np.array([float(function(t)) for t in times])
    wrong = ~np.isfinite(values) | ((values < 0) & (name == "score_error"))
    if wrong.any():
        k = int(np.argmax(wrong))
        raise ValueError(
            f"{name} must be finite, and an error not negative: at t = {times[k]:.4g} it is {values[k]:g}."
        )
    return values


def _second_moment(second_moment, radius):
    """E|X_0|^2 at most, R^2 where it is not given."""
    _check_radius(radius)
    if second_moment is not None and not 0 <= second_moment < np.inf:
        raise ValueError(f"second_moment is a mean of squares, finite: second_moment = {second_moment:g}.")
    return radius**2 if second_moment is None else second_moment


def _status(given):
    """Of what holds if that holds which was given, or by itself."""
    return "assumed" if given else "bound"


def _nats(name, value):
    return Term(name, float(value), 0.0, "bound", OURS)


def _w2(name, value, status, source):
    return Term(name, float(value), 0.0, status, source, W2)
