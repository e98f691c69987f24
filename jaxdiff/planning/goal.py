"""Checks the goal of a plan, an accuracy or a budget, and finds the number of steps that reaches it."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxdiff.arrays import Scalar
from jaxdiff.certificate import Certificate

MOST_EVALS = 10_000  # evaluations a sample. The search of a grid with more steps takes minutes.
# The search for enough steps gives up where STALLED times as many steps lower the certified nats by less than the
# fraction LEAST_GAIN. Twice the steps about halve the discretisation, so what remains is due to the number of rows. A
# larger fraction gives up earlier, and may refuse a target that more steps would reach.
STALLED, LEAST_GAIN = 2, 0.02
TIMES = 200  # times at which the initialisation is computed, to say in a message which early stop would be possible


def check_goal(target: Any, evals: Any, name: str = "target_kl", unit: str = "nats") -> None:
    """Raise ValueError unless exactly one goal is given: a positive accuracy, or a whole number of evals.

    name, unit: of the accuracy.
    """
    if (target is None) == (evals is None):
        raise ValueError(f"give exactly one of {name} ({unit}) and evals (score evaluations).")
    if target is not None and not 0 < target < np.inf:
        raise ValueError(f"{name} must be positive and finite, in {unit}: {name} = {target:g}.")
    if evals is not None and (not 1 <= evals <= MOST_EVALS or evals != int(evals)):
        raise ValueError(f"evals must be a whole number from 1 to {MOST_EVALS}: evals = {evals}.")


def check_reachable(
    target_kl: Scalar | None, start: Callable[[Any], Any], horizons: np.ndarray, early_stop: Scalar
) -> None:
    """Raise ValueError if no horizon reaches target_kl, or if the start's law meets it without a step.

    Args:
      target_kl: nats; None: nothing is checked.
      start: maps an array of times t to KL(q_t || start's law) or to a bound on it, which falls with t.
      horizons: the horizons that may be chosen.
      early_stop: the last time of the run.
    """
    if target_kl is None:
        return
    at_horizons = np.broadcast_to(start(horizons), horizons.shape)
    if at_horizons.min() >= target_kl:
        raise ValueError(
            f"target_kl = {target_kl:g} is less than the initialisation costs at horizon {horizons.max():g}, "
            f"{at_horizons.min():.3g} nats: ask for more nats than that, or take a longer horizon."
        )
    if float(start(np.array([early_stop]))[0]) <= target_kl:
        times = np.geomspace(1e-12, early_stop, TIMES)
        beyond = times[start(times) > target_kl]
        earlier = f"an early_stop below {beyond.max():.3g}, or fewer nats" if len(beyond) else "fewer nats"
        raise ValueError(
            f"the normal law that the run starts from is already within target_kl = {target_kl:g} nats of the law at "
            f"early_stop = {early_stop:g}: there is nothing to sample. Take {earlier}."
        )


def steps_to_reach(goal: Any, cost: Callable[[int], Any], *, most: int = 100_000) -> int | None:
    """The fewest steps n with cost(n) <= goal, for a cost that falls with n; None where `most` steps are too few."""
    high = 1
    while cost(high) > goal:
        if high >= most:
            return None
        high = min(2 * high, most)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if cost(middle) <= goal else (middle, high)
    return high


def enough_steps(
    certified: Callable[[int], Certificate],
    n: int,
    kernel: str,
    target_kl: Scalar | None,
    confidence: float | int | None,
    hint: str,
) -> tuple[int, Certificate]:
    """The number of steps, n or more, with which the certificate meets target_kl, and that certificate.

    More steps lower the discretisation, but not the part of the interval's width that is due to the number of rows. So
    the search ends where STALLED times as many steps gain less than LEAST_GAIN.

    Args:
      certified: maps a number of steps to a certificate.
      n: the first number of steps that is tried.
      kernel: the kernel's name, for messages.
      target_kl: nats; None: n steps are enough.
      confidence: None: target_kl is compared with the measured value, else with the upper end of its interval.
      hint: advice that ends the message of an error, or "".

    Raises:
      ValueError: the rows are too few for target_kl, or it takes more than MOST_EVALS steps.
    """
    at, before = n, math.inf
    while True:
        certificate = certified(n)
        reached = certificate.known if confidence is None else certificate.known_upper
        if target_kl is None or reached <= target_kl:
            return n, certificate
        if before == math.inf or n >= STALLED * at:
            if reached > (1 - LEAST_GAIN) * before:
                raise _too_few_rows(target_kl, n, certificate, confidence)
            at, before = n, reached
        n += max(1, math.ceil(n * min(reached / target_kl - 1, 1) / 2))
        if n > MOST_EVALS:
            raise too_many_steps(target_kl, MOST_EVALS, kernel, reached, hint)


def _too_few_rows(target_kl, n, certificate, confidence):
    value, remedy = f"{certificate.known:.3g} nats with {n} steps", "more rows"
    if confidence is not None:
        value = f"{certificate.known_upper:.3g} nats at the upper end of the {confidence:g} interval with {n} steps"
        remedy = "more rows, lower confidence="
    return ValueError(
        f"target_kl = {target_kl:g} is not reached with these rows: {value}, and more steps hardly lower that. Take "
        f"{remedy}, or ask for more nats."
    )


def too_many_steps(target_kl: Scalar, most: int, kernel: str, least: Scalar, hint: str) -> ValueError:
    """The error for a target_kl that `most` steps do not reach; `hint` ends its message."""
    return ValueError(
        f"target_kl = {target_kl:g} takes more than {most} steps of {kernel}, which cost about {least:.3g} nats: ask "
        f"for more nats than that." + (f" Or: {hint}." if hint else "")
    )
