"""Guidance: a conditional score pushed away from an unconditional or weaker one."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.tree_util import Partial

from jaxdiff.arrays import like, wide
from jaxdiff.checks import described, value_of
from jaxdiff.types import Number, Particles, ScoreFn, as_score


def guided(
    conditional: ScoreFn,
    unconditional: ScoreFn,
    weight: Number,
    *,
    interval: Sequence[Number] | None = None,
) -> ScoreFn:
    """The guided score u + weight (c - u) of a conditional score c and an unconditional score u.

    Weight 1 is the conditional score, weight 0 the unconditional one, and weights above 1 guide. The weight w of Ho &
    Salimans is `weight` - 1. With a weaker model of the same law in place of the unconditional score this is
    autoguidance. Two denoisers give the guided denoiser: a score is (alpha D - x)/sigma^2, which is affine in the
    denoiser D, and the factors of c and u add up to 1.

    Samples of a guided score do not have the tilted density p_c^w p_u^(1-w). Noising and tilting do not commute, so the
    guided field is not the score of the noised tilted law at t > 0. Example: laws N(0, C) and N(0, U) on the line. The
    tilted law has variance 1/(w/C + (1 - w)/U). The reverse ODE gives the variance C^w U^(1-w), and the reverse SDE a
    third one. A certificate in W2 compares samples with those of the same guided score in many steps.

    Args:
      conditional: s(x, t) or a denoiser; a pytree, or a plain function.
      unconditional: the same kind of function, score or denoiser, of the same process.
      weight: a number, traced: another weight recompiles nothing. The Python number 1 returns the conditional score
        itself, which costs one evaluation. Any other weight costs two evaluations, a traced 1 too.
      interval: (t_low, t_high), OU times between which the weight applies. Outside, the weight is 1, and for a single
        time t only the conditional score is evaluated. None: at all times.

    Returns:
      A score (a denoiser, from denoisers), a pytree.

    Raises:
      ValueError: the weight is not one finite number, or the interval is not 0 <= t_low < t_high.
      TypeError: conditional or unconditional is not a function of x and t.
    Source: Ho, Salimans 2022, arXiv:2207.12598; interval: Kynkaanniemi et al. 2024, arXiv:2404.07724; autoguidance:
      Karras et al. 2024, arXiv:2406.02507; guided samples are not tilted: Bradley, Nakkiran 2024, arXiv:2408.09000.
    """
    conditional, unconditional = as_score(conditional, "conditional"), as_score(unconditional, "unconditional")
    _check_weight(weight)
    if type(weight) in (int, float) and weight == 1:
        return conditional
    weight = weight if isinstance(weight, Tracer) else np.float64(weight)
    if interval is None:
        return Partial(_guided, conditional, unconditional, weight)
    return Partial(_guided_between, conditional, unconditional, weight, _ends_of(interval))


def _check_weight(weight):
    if isinstance(weight, Tracer) and weight.shape == ():
        return
    if isinstance(weight, Tracer) or np.shape(weight) != () or not np.isfinite(np.asarray(weight, np.float64)):
        raise ValueError(f"weight must be one finite number, such as 1.5: it is {described(weight)}.")


def _ends_of(interval):
    """The ends of the interval as float64 numbers; the upper one may be infinite."""
    ends = np.asarray(interval, np.float64)
    if ends.shape != (2,) or not 0 <= ends[0] < ends[1]:
        raise ValueError(
            f"interval must be two OU times (t_low, t_high) with 0 <= t_low < t_high: interval = {interval!r}."
        )
    return tuple(ends)


def _combined(conditional, unconditional, weight):
    return unconditional + weight * (conditional - unconditional)


def _guided(conditional, unconditional, weight, x: Particles, t) -> Particles:
    c, u = (wide(value_of(one, x, t)) for one in (conditional, unconditional))
    return _combined(c, u, weight=like(weight, x)).astype(x.dtype)


def _guided_between(conditional, unconditional, weight, interval, x: Particles, t) -> Particles:
    """As `_guided`, inside an interval of times. For several times t (batch,) both scores are evaluated."""
    low, high = (like(end, x) for end in interval)
    inside = (like(t, x) >= low) & (like(t, x) <= high)
    if inside.ndim == 0:
        both = lambda x, t: _guided(conditional, unconditional, weight, x, t)
        alone = lambda x, t: value_of(conditional, x, t).astype(x.dtype)
        return lax.cond(inside, both, alone, x, t)
    c, u = (wide(value_of(one, x, t)) for one in (conditional, unconditional))
    inside = inside.reshape(inside.shape + (1,) * (x.ndim - inside.ndim))
    return jnp.where(inside, _combined(c, u, like(weight, x)), c).astype(x.dtype)
