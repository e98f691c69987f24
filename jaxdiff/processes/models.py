"""Scores from models that were trained on another process, and models of another process from scores."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax.tree_util import Partial

from jaxdiff.arrays import like, wide
from jaxdiff.checks import described, value_of
from jaxdiff.processes.conversion import SAME_END, check_ou_times, inside, ou_ends, rounding_of, to_ou
from jaxdiff.processes.ou import ou
from jaxdiff.processes.process import Process
from jaxdiff.types import Numbers, Particles, ScoreFn, as_score


def process_of(score: Any) -> Process | None:
    """The process of the model from which score_from_model made a score; None where there is none.

    It is also found inside scores that this package has made from such a score: `truncated`, `clipped`, the conversions
    between score, denoiser and noise. It is not found inside a function of yours.
    """
    if not isinstance(score, Partial):
        return None
    if isinstance(score.func, _FromModel):
        return score.func.process
    if isinstance(score.func, _FromScore) or not getattr(score.func, "__module__", "").startswith("jaxdiff."):
        return None
    return next((found for part in score.args if (found := process_of(part)) is not None), None)


def range_of(score: Any) -> tuple[float, float] | None:
    """(horizon, early_stop): the OU times between which a score can be evaluated; None where it can be at any time.

    They are the `ou_ends` of `process_of(score)`.
    """
    process = process_of(score)
    return None if process is None else ou_ends(process)


def check_times(score: Any, times: Numbers) -> None:
    """Raise ValueError where a concrete OU time of (n,) lies outside the range_of a score by more than rounding."""
    process = process_of(score)
    if process is not None:
        check_ou_times(process, times, "the score is asked at")


PREDICTIONS = ("score", "noise", "denoiser", "v", "flow")


# At equal snr the position y on the process and the position x on the OU clock differ by a factor: x = y/sqrt(alpha^2 +
# sigma^2), because alpha^2 + sigma^2 = 1 on the OU clock. From y, models predict the noise n, the denoiser
# m = (y - sigma n)/alpha, the score -n/sigma,
#   v = alpha n - sigma m, so that n = (sigma y + alpha v)/(alpha^2 + sigma^2), or
#   flow u = n - m,        so that n = (y + alpha u)/(alpha + sigma).
@dataclasses.dataclass(frozen=True)
class _FromModel:
    process: Process
    predicts: str

    def __call__(self, model, x: Particles, t) -> Particles:
        rounding = max(SAME_END, rounding_of(t))
        t = like(t, x)
        own = like(self.process.time(ou.snr(t)), x)
        alpha, sigma = like(self.process.alpha(own), x), like(self.process.sigma(own), x)
        y = (jnp.sqrt(alpha**2 + sigma**2) * x.astype(t.dtype)).astype(x.dtype)
        out = value_of(model, y, own, "model").astype(t.dtype)
        x_wide, y = wide(x), wide(y)
        score = {
            "score": lambda: sigma * out / ou.sigma(t),
            "noise": lambda: -out / ou.sigma(t),
            "denoiser": lambda: (ou.alpha(t) * out - x_wide) / ou.sigma(t) ** 2,
            "v": lambda: -(sigma * y + alpha * out) / (alpha**2 + sigma**2) / ou.sigma(t),
            "flow": lambda: -(y + alpha * out) / (alpha + sigma) / ou.sigma(t),
        }[self.predicts]()
        return jnp.where(inside(self.process, t, rounding), score, jnp.nan).astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class _FromScore:
    process: Process
    predicts: str

    def __call__(self, score, y: Particles, t) -> Particles:
        t = like(t, y)
        # x + sigma^2 s equals alpha times the denoiser. Dividing by alpha amplifies rounding by e^t, so t is capped
        # where eps e^t = e^-t.
        at = jnp.minimum(like(to_ou(self.process, t), y), like(-math.log(rounding_of(y)) / 2, y))
        alpha, sigma = like(self.process.alpha(t), y), like(self.process.sigma(t), y)
        x = (y.astype(t.dtype) / jnp.sqrt(alpha**2 + sigma**2)).astype(y.dtype)
        s = value_of(score, x, at).astype(t.dtype)
        x = wide(x)
        noise, denoiser = -ou.sigma(at) * s, (x + ou.sigma(at) ** 2 * s) / ou.alpha(at)
        return {
            "score": lambda: -noise / sigma,
            "noise": lambda: noise,
            "denoiser": lambda: denoiser,
            "v": lambda: alpha * noise - sigma * denoiser,
            "flow": lambda: noise - denoiser,
        }[self.predicts]().astype(y.dtype)


def score_from_model(model: Callable[..., Any], process: Any, predicts: Any) -> ScoreFn:
    """The score on the OU clock from a model that was trained on another process.

    Args:
      model: f(y, t), shapes (..., d), () -> (..., d): y and t the process's own. y has the dtype of x. t has the dtype
        of y, or float32 where y has 16 bits, because bfloat16 rounds different rows of a table of 1,000 to one number.
      process: vp_linear(), vp_cosine(), ve(), edm, flow, ddpm() or a Process of yours. Outside its times, which are
        those between `ou_ends(process)`, the score is nan; `sample` refuses a concrete grid that goes beyond them.
      predicts: "score" of its own law at t, "noise", "denoiser" E[X_0 | y], "v" = alpha noise - sigma denoiser, or
        "flow" = noise - denoiser, the velocity of rectified flow towards the noise.

    Raises:
      ValueError: `predicts` is not one of these.
      TypeError: process is not a Process, but for example a function that makes one.
    """
    _check_model(process, predicts)
    return Partial(_FromModel(process, predicts), as_score(model, "model"))


def model_from_score(score: ScoreFn, process: Any, predicts: Any) -> Callable[..., Any]:
    """The model f(y, t) of another process from a score on the OU clock: the inverse of score_from_model."""
    _check_model(process, predicts)
    return Partial(_FromScore(process, predicts), as_score(score))


def _check_model(process, predicts):
    if not isinstance(process, Process):
        raise TypeError(f"process must be a Process, such as processes.vp_linear(): it is {described(process)}.")
    if not isinstance(predicts, str) or predicts not in PREDICTIONS:
        raise ValueError(f"predicts is one of {PREDICTIONS}: predicts = {predicts!r}.")
