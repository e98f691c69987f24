"""Inexact Langevin at the horizon: bounds on its KL to q_T1, in nats, and on its W2 distance from there."""

from typing import Any

import numpy as np

from jaxdiff.certificate import CONFIDENCE, Certificate, Term
from jaxdiff.guarantees.bounds.brackets import OURS, check_dim
from jaxdiff.guarantees.bounds.pedrotti2023.log_sobolev import check_horizon, lsi_constant, sufficient_horizon
from jaxdiff.processes import ou
from jaxdiff.targets.components import gaussian_moments
from jaxdiff.types import Number, Numbers, Whole

REPLACEMENT = f"replacement of Theorems 4.1 and 4.2 of Pedrotti et al. 2023, {OURS}"
# Constants of Langevin in steps of length h, each rounded up. With h <= 1/(STEP_LIMIT max(1/sigma^2, L_s)),
#   KL <= e^(-RATE alpha T_2) KL_0 + BIAS L_s^2 d h/alpha + MOMENT log E exp(4.5 |e|^2/alpha).
STEP_LIMIT, RATE, BIAS, MOMENT = 9.0, 0.83, 3.8, 0.6


def start_kl(time: Number, dim: Whole, radius: Number, *, moments: tuple[Numbers, Numbers] | None = None) -> float:
    """Upper bound on KL(start || q_time) in nats; inf where lsi_constant is not positive.

    From N(0, I): (c^2/(2 alpha sigma^4))(R^2 + c^2 d), c = e^-t. From the Gaussian of the data's mean and covariance at
    that time, moments = (mean (d,), cov (d,) or (d, d)) of eigenvalues v:
    (c^2/(2 alpha sigma^4)) ((R + |mean|)^2 + c^2 sum v^2/(c^2 v + sigma^2)).

    Raises:
      ValueError: `time` is not an OU time, or dim, radius or moments are not valid.
    Source: KL <= I/(2 alpha), I the relative Fisher information of the start. Its cross terms have the right sign by
      Stein's identity, because the denoiser's Jacobian is a covariance.
    """
    check_dim(dim)
    check_horizon(time)
    constant, c2, sigma2 = lsi_constant(time, radius), ou.alpha(time) ** 2, ou.sigma(time) ** 2
    if constant <= 0:
        return float("inf")
    if moments is None:
        distance2, width = radius**2, c2 * dim
    else:
        mean, v, _ = gaussian_moments(moments[0], moments[1], dim)
        distance2, width = (radius + np.linalg.norm(mean)) ** 2, c2 * np.sum(v**2 / (c2 * v + sigma2))
    return float(c2 / (2 * constant * sigma2**2) * (distance2 + width))


def langevin(
    horizon: Number,
    langevin_time: Number,
    dim: Whole,
    radius: Number,
    *,
    step_size: Number | None = None,
    moment: Number = 0.0,
    lipschitz: Number | None = None,
    moments: tuple[Numbers, Numbers] | None = None,
) -> Certificate:
    """Upper bounds on KL(rho || q_T1), term by term in nats, and on W2(rho, q_T1), rho the law after Langevin for T_2.

    Continuous time: mixing e^(-alpha T_2/2) KL_0, and score error eps_MGF = log E exp(|e|^2/alpha).
    Plain steps of h: mixing e^(-.83 alpha T_2) KL_0, bias 3.8 L_s^2 d h/alpha, and .6 log E exp(4.5 |e|^2/alpha).

    Args:
      horizon, langevin_time: T_1 and T_2.
      dim, radius: d, and R with |X_0| <= R.
      step_size: h <= 1/(9 max(1/sigma^2, L_s)), or None for continuous time.
      moment: eps_MGF or, with steps, log E exp(4.5 |e|^2/alpha), as `losses.exponential_moment` estimates it with alpha
        or alpha/4.5; 0 for the exact score.
      lipschitz: L_s of s_theta(., T_1); default 1/sigma^2, the exact score's.
      moments: of a start from the data's Gaussian, as for `start_kl`; default N(0, I).

    Raises:
      ValueError: lsi_constant is not positive at T_1, step_size is too long, or an argument is out of range.
    Source: the package's docstring; each constant is rounded up.
    """
    constant = _checked_constant(horizon, langevin_time, dim, radius, moment)
    smooth = float(1 / ou.sigma(horizon) ** 2)
    lipschitz = smooth if lipschitz is None else lipschitz
    if not 0 < lipschitz < np.inf:
        raise ValueError(f"lipschitz is the constant of the score at T1, positive: lipschitz = {lipschitz:g}.")
    kl = start_kl(horizon, dim, radius, moments=moments)
    if step_size is None:
        terms, score_error = [_nats("mixing", np.exp(-constant * langevin_time / 2) * kl)], moment
    else:
        longest = 1 / (STEP_LIMIT * max(smooth, lipschitz))
        if not 0 < step_size <= longest * (1 + 1e-9):
            raise ValueError(f"step_size must be at most {longest:.6g} for the bound: step_size = {step_size:g}.")
        terms = [
            _nats("mixing", np.exp(-RATE * constant * langevin_time) * kl),
            _nats("step bias", BIAS * lipschitz**2 * dim * step_size / constant),
        ]
        score_error = MOMENT * moment
    terms.append(Term("score error at T1", float(score_error), 0.0, "assumed", "exponential moment, as given"))
    distance = np.sqrt(2 * sum(term.value for term in terms) / constant)
    terms.append(w2_term("W2 at T1", distance, assumed_if(moment > 0), "sqrt(2 KL/alpha), Otto and Villani"))
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


def _checked_constant(horizon, langevin_time, dim, radius, moment):
    """The log-Sobolev constant at the horizon, once the arguments of `langevin` are known to be valid."""
    check_dim(dim)
    check_horizon(horizon)
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
    return constant


def assumed_if(given: Any) -> str:
    """The status of a term: "assumed" where it follows from a number that was given, "bound" where from R alone."""
    return "assumed" if given else "bound"


def w2_term(name: str, value: Number, status: str, source: str) -> Term:
    """A term in the data's units, which stands beside the terms in nats."""
    return Term(name, float(value), 0.0, status, source, "W2")


def _nats(name, value):
    return Term(name, float(value), 0.0, "bound", OURS)
