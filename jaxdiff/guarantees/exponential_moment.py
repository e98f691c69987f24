"""The exponential moment of a score's error at one time, log E exp(|e|^2/alpha): an estimate, doubts, and a bound."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.arrays import like
from jaxdiff.intervals import ONE_SIDED, hill_index
from jaxdiff.processes import ou
from jaxdiff.processes.ball_projection import truncated
from jaxdiff.processes.ou import EARLIEST, LATEST
from jaxdiff.types import ScoreFn, as_score

FEW = 100.0  # effective samples below which an estimate is doubted: its relative error then exceeds a tenth or so


class ExponentialMoment(NamedTuple):
    """An estimate of eps_MGF = log E exp(|e|^2/alpha), e = s_theta - s, in nats, from n positions.

    Attributes:
      value, standard_error: log of the mean of Y = exp(|e|^2/alpha), and its error by the delta method.
      l2, l2_error: mean of |e|^2, and its standard error.
      effective_samples: (sum Y)^2/sum Y^2.
      hill_index, hill_error: tail index of Y by Hill's estimator, and its standard error. Y has no mean where the index
        is below 1, and no variance where it is below 2. The index is inf where the largest Y are equal.
      doubts: sentences, each a reason to doubt the estimate; () if there are none, which does not prove the estimate.
      bound: with a radius, an upper bound on the value of the *truncated* score, from its own L2 loss in this sample;
        else nan.
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
    def trusted(self):
        """Whether there are no doubts."""
        return not self.doubts


def exponential_moment(score: ScoreFn, truth: ScoreFn, x, time, *, alpha, radius=None) -> ExponentialMoment:
    """Estimate eps_MGF = log E exp(|s_theta - s|^2/alpha) at one OU time, and say whether to believe it.

    Args:
      score, truth: s_theta and s; shapes (..., d), () -> (..., d). The error e needs the true score; data alone cannot
        give it.
      x: (n, d) draws of q_time.
      time: T_1, an OU time.
      alpha: > 0, the constant of a log-Sobolev inequality of q_time, `bounds.pedrotti2023.lsi_constant`.
      radius: R with |X_0| <= R, for the bound.

    Returns:
      An ExponentialMoment, float64 from errors in the dtype of x. The largest terms dominate the mean of
      exp(|e|^2/alpha). Where its tail is heavy the mean is too small with high probability; `doubts` then says so.

    Raises:
      ValueError: fewer than 20 positions, an error that is not finite, or alpha or radius is not positive.
    Source: Pedrotti, Maas, Mondelli, arXiv:2305.14164; constants of `bounds.pedrotti2023`. Hill 1975, Ann. Stat. 3.
    """
    squares = _squares(as_score(score), as_score(truth), jnp.asarray(x), time)
    found = of_squares(squares, alpha)
    if radius is None:
        return found
    of_truncated = _squares(truncated(score, radius), as_score(truth), jnp.asarray(x), time)
    return found._replace(bound=moment_bound(of_truncated.mean(), time, radius, alpha))


def of_squares(squares, alpha) -> ExponentialMoment:
    """The estimate of `exponential_moment` from (n,) values of |e|^2, without a bound."""
    squares = np.asarray(squares, np.float64)
    if squares.ndim != 1 or len(squares) < 20:
        raise ValueError(f"squares are (n,) numbers |e|^2, 20 or more: they have shape {squares.shape}.")
    if not (np.isfinite(squares) & (squares >= 0)).all():
        raise ValueError(
            f"squares |e|^2 are finite and not negative: they run from {squares.min()} to {squares.max()}."
        )
    if not 0 < alpha < np.inf:
        raise ValueError(f"alpha is the constant of a log-Sobolev inequality, positive: alpha = {alpha:g}.")
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
    found = []
    if effective < FEW * (1 - 1e-9):
        found.append(f"it rests on {effective:.3g} effective samples, fewer than {FEW:g}")
    if least <= 2:
        missing = "no mean" if index <= 1 else "no variance" if index <= 2 else "perhaps no variance"
        found.append(f"Hill's tail index of its terms is {index:.3g}, from the {k} largest: they have {missing}")
    return tuple(found)


def moment_bound(l2, time, radius, alpha):
    """An upper bound on eps_MGF for a truncated score with E|e|^2 = l2: log(1 + l2 (e^(b^2/alpha) - 1)/b^2).

    b = 2 alpha_T R/sigma_T^2 is the diameter of the ball that contains both scores, so |e| <= b. On [0, b^2/alpha] the
    convex function exp lies below its chord.
    """
    for name, value in (("radius", radius), ("alpha", alpha)):
        if not 0 < value < np.inf:
            raise ValueError(f"{name} must be positive and finite: {name} = {value:g}.")
    if not EARLIEST <= time <= LATEST:
        raise ValueError(f"time is an OU time in [{EARLIEST:g}, {LATEST:g}]: time = {time:g}.")
    if not 0 <= l2 < np.inf:
        raise ValueError(f"l2 is a mean square, finite and not negative: l2 = {l2:g}.")
    b = 2 * ou.alpha(time) * radius / ou.sigma(time) ** 2
    if l2 == 0:
        return 0.0
    largest = b**2 / alpha  # of the exponent
    log_chord = np.log(np.expm1(largest)) if largest < 1 else largest + np.log1p(-np.exp(-largest))
    return float(np.logaddexp(0, np.log(l2) - 2 * np.log(b) + log_chord))


@jax.jit
def _squared_error(score, truth, x, t):
    return jnp.sum((score(x, t) - truth(x, t)) ** 2, axis=-1)


def _squares(score, truth, x, time):
    return np.asarray(_squared_error(score, truth, x, like(time, x)), np.float64)
