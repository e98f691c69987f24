"""The exponential moment of a score's error e at one time, log E exp(|e|^2/alpha): estimate, doubts and bound."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.arrays import Scalar, like
from jaxdiff.intervals import ONE_SIDED, hill_index
from jaxdiff.processes import ou
from jaxdiff.processes.ball_projection import truncated
from jaxdiff.processes.default_times import EARLIEST, LATEST
from jaxdiff.types import Numbers, Rows, ScoreFn, as_score

# Effective samples. With fewer, the relative error 1/sqrt(samples) of the mean exceeds a tenth, and the estimate gets
# a warning.
FEW = 100.0
# The fewest positions from which a tail index is estimated. Hill's estimator takes the 4 largest of 20 positions.
LEAST = 20


class ExponentialMoment(NamedTuple):
    """An estimate of eps_MGF = log E exp(|e|^2/alpha), e = s_theta - s, in nats, from n positions.

    Attributes:
      value, standard_error: log of the mean of Y = exp(|e|^2/alpha), and its standard error by the delta method.
      l2, l2_error: mean of |e|^2, and its standard error.
      effective_samples: (sum Y)^2/sum Y^2.
      hill_index, hill_error: tail index of Y by Hill's estimator, and its standard error. Y has no mean where the index
        is below 1, and no variance where it is below 2. The index is inf where the largest Y are equal.
      doubts: reasons to doubt the estimate, each a sentence. Without any the estimate can still be wrong.
      bound: where a radius was given, an upper bound on the value for the *truncated* score, from the mean of its
        |e|^2 over the same positions; else nan.
    """

    value: float
    standard_error: float
    l2: float
    l2_error: float
    effective_samples: float
    hill_index: float
    hill_error: float
    doubts: tuple[str, ...]
    bound: float

    @property
    def trusted(self) -> bool:
        """True if there are no doubts."""
        return not self.doubts


def exponential_moment(
    score: ScoreFn, truth: ScoreFn, x: Rows, time: Scalar, *, alpha: Scalar, radius: Scalar | None = None
) -> ExponentialMoment:
    """Estimates eps_MGF = log E exp(|s_theta - s|^2/alpha) at one OU time, and says whether to believe the estimate.

    Args:
      score, truth: s_theta and s; shapes (..., d), () -> (..., d). The error e needs the true score; data alone cannot
        give it.
      x: (n, d) draws of q_time.
      time: T_1, an OU time.
      alpha: > 0, the constant of a log-Sobolev inequality of q_time, `bounds.pedrotti2023.lsi_constant`.
      radius: R with |X_0| <= R, for the bound.

    Returns:
      An ExponentialMoment in float64, from errors in the dtype of x. The largest terms dominate the mean of
      exp(|e|^2/alpha). Where its tail is heavy the sample mean is too small with high probability; `doubts` then says
      so.

    Raises:
      ValueError: there are fewer than 20 positions, an error e is not finite, or alpha or radius is not positive.
    Source: Pedrotti, Maas, Mondelli, arXiv:2305.14164; constants of `bounds.pedrotti2023`. Hill 1975, Ann. Stat. 3.
    """
    squares = _squares(as_score(score), as_score(truth), jnp.asarray(x), time)
    found = of_squares(squares, alpha)
    if radius is None:
        return found
    of_truncated = _squares(truncated(score, radius), as_score(truth), jnp.asarray(x), time)
    return found._replace(bound=moment_bound(of_truncated.mean(), time, radius, alpha))


def of_squares(squares: Numbers, alpha: Scalar) -> ExponentialMoment:
    """The estimate of `exponential_moment` from (n,) values of |e|^2, without a bound."""
    squares = np.asarray(squares, np.float64)
    if squares.ndim != 1 or len(squares) < LEAST:
        raise ValueError(f"squares must be (n,) numbers |e|^2, n >= {LEAST}: their shape is {squares.shape}.")
    if not (np.isfinite(squares) & (squares >= 0)).all():
        raise ValueError(
            f"squares |e|^2 must be finite and not negative: they run from {squares.min()} to {squares.max()}."
        )
    if not 0 < alpha < np.inf:
        raise ValueError(f"alpha, the constant of a log-Sobolev inequality, must be positive: alpha = {alpha:g}.")
    w, n = np.sort(squares / alpha)[::-1], len(squares)
    y = np.exp(w - w[0])
    index, k = hill_index(w)
    relative = y.std(ddof=1) / y.mean() / np.sqrt(n)
    effective = y.sum() ** 2 / (y**2).sum()
    doubts = _doubts(effective, index, index * (1 - ONE_SIDED / np.sqrt(k)), k)
    return ExponentialMoment(
        float(w[0] + np.log(y.mean())),
        float(relative),
        float(squares.mean()),
        float(squares.std(ddof=1) / np.sqrt(n)),
        float(effective),
        float(index),
        float(index / np.sqrt(k)),
        doubts,
        float("nan"),
    )


def _doubts(effective, index, least, k):
    """Reasons to doubt an estimate; `least` is the lower end of the interval of Hill's index."""
    found = []
    if effective < FEW * (1 - 1e-9):
        found.append(f"the estimate has {effective:.3g} effective samples, fewer than {FEW:g}")
    if least <= 2:
        missing = "no mean" if index <= 1 else "no variance" if index <= 2 else "perhaps no variance"
        found.append(f"exp(|e|^2/alpha) has {missing}: its Hill tail index is {index:.3g}, from the {k} largest values")
    return tuple(found)


def moment_bound(l2: Any, time: Any, radius: Any, alpha: Any) -> float:
    """An upper bound on eps_MGF for a truncated score with E|e|^2 = l2: log(1 + l2 (e^(b^2/alpha) - 1)/b^2).

    Both scores lie in a ball of diameter b = 2 alpha_T R/sigma_T^2, so |e| <= b. The bound follows because exp is
    convex, and so lies below its chord on [0, b^2/alpha].

    Raises:
      ValueError: radius or alpha is not positive and finite, time is not an OU time, or l2 is negative or not finite.
    """
    for name, value in (("radius", radius), ("alpha", alpha)):
        if not 0 < value < np.inf:
            raise ValueError(f"{name} must be positive and finite: {name} = {value:g}.")
    if not EARLIEST <= time <= LATEST:
        raise ValueError(f"time must be an OU time in [{EARLIEST:g}, {LATEST:g}]: time = {time:g}.")
    if not 0 <= l2 < np.inf:
        raise ValueError(f"l2, a mean square, must be finite and not negative: l2 = {l2:g}.")
    b = 2 * ou.alpha(time) * radius / ou.sigma(time) ** 2
    if l2 == 0:
        return 0.0
    largest = b**2 / alpha  # the largest exponent
    log_chord = np.log(np.expm1(largest)) if largest < 1 else largest + np.log1p(-np.exp(-largest))
    return float(np.logaddexp(0, np.log(l2) - 2 * np.log(b) + log_chord))


@jax.jit
def _squared_error(score, truth, x, t):
    return jnp.sum((score(x, t) - truth(x, t)) ** 2, axis=-1)


def _squares(score, truth, x, time):
    return np.asarray(_squared_error(score, truth, x, like(time, x)), np.float64)
