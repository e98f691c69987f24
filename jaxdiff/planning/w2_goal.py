"""The times and the goal of a plan in W2, and the errors for goals that cannot be reached."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxdiff.certificate import UNKNOWN, Term
from jaxdiff.checks import check_number
from jaxdiff.guarantees.certify_w2 import early_stopping_term
from jaxdiff.guarantees.end_point_distances import SETTLED, Starts
from jaxdiff.guarantees.information import early_stopping_w2
from jaxdiff.planning.pilots import STEPS
from jaxdiff.planning.w2_candidates import Measured
from jaxdiff.processes.default_times import EARLY_STOP, check_ends
from jaxdiff.processes.models import range_of
from jaxdiff.types import ScoreFn

HORIZON = 5.0  # OU time at which standardised data are within 0.7 % of noise
MOST = STEPS // 2  # evaluations a sample. A reference of STEPS steps can be compared with no finer sampler.


def ends_of(score: ScoreFn, starts: Starts, horizon: Any, early_stop: Any) -> tuple[float, float]:
    """The times between which the plan runs: those that are given, else those of the model, else defaults."""
    latest, earliest = range_of(score) or (math.inf, 0.0)
    if horizon is None:
        far = 0.0 if starts.x0 is None else math.log(max(1.0, float(np.sqrt(np.mean(np.square(starts.x0))))))
        horizon = min(HORIZON + far, latest)
    early_stop = max(EARLY_STOP, earliest) if early_stop is None else early_stop
    check_ends(horizon, early_stop)
    for name, value in (("horizon", horizon), ("early_stop", early_stop)):
        if not earliest * (1 - 1e-3) <= value <= latest * (1 + 1e-3):
            raise ValueError(
                f"{name} must lie between {earliest:.6g} and {latest:.6g}, the OU times of the model's process: "
                f"{name} = {value:.6g}."
            )
    return float(horizon), float(early_stop)


def check_feasible(target_w2: Any, starts: Starts, early_stop: float, confidence: Any) -> None:
    """Raise ValueError where early stopping alone costs as much as the target."""
    check_number(target_w2, "target_w2", "in units of W2")
    term = early_stopping_term(starts, early_stop, 1.0)
    costs = upper(term, confidence)
    if costs < target_w2:
        return
    dim, moment = starts.x0.shape[1], float(np.mean(np.sum(np.square(np.asarray(starts.x0, np.float64)), axis=1)))
    times = np.geomspace(1e-12, early_stop, 1000)
    possible = [t for t in times if early_stopping_w2(moment, dim, t) * costs / max(term.value, 1e-300) < target_w2 / 2]
    remedy = f"an early_stop of {possible[-1]:.2g}, or " if possible else ""
    raise ValueError(
        f"target_w2 = {target_w2:g} is not above {costs:.3g}, which early stopping at {early_stop:g} alone costs: take "
        f"{remedy}more than {2 * costs:.2g}."
    )


def upper(term: Term, confidence: Any) -> float:
    """The upper end of a term at a confidence; 0 where it is unknown, as it is then in no sum of known terms."""
    return 0.0 if term.status == UNKNOWN else float(term.value + term.half_width_above(confidence))


def bisected(low: int, high: int, holds: Callable[[int], bool]) -> tuple[int, int]:
    """The neighbours low < high with holds(high), given that it holds at high and not at low."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return low, high


def unmeasured(ranked: Sequence[Measured], evals: int) -> ValueError:
    """The error for evaluations with which no sampler can be compared."""
    if not ranked:
        return ValueError(f"no kernel makes a step with evals = {evals}: take more evaluations.")
    gains = ", ".join(f"{one.contender.name} {one.contender.reference.gain:.3g}" for one in ranked)
    return ValueError(
        f"no reference of {STEPS} steps converges: a halving of its steps must lower the distance by a factor of more "
        f"than {SETTLED}, and the factors are: {gains}. Take a later early_stop=, or check the score."
    )


def unreached(target_w2: float, one: Measured, others: float) -> ValueError:
    """The error for a target that MOST evaluations do not reach; one: the nearest sampler, others: further terms."""
    return ValueError(
        f"target_w2 = {target_w2:g} takes more than {MOST} evaluations: {one.contender.name} is then "
        f"{one.distance:.3g} from its reference, and the other known terms cost {others:.3g}. Ask for more than "
        f"{1.2 * (one.distance + others):.2g}."
    )
