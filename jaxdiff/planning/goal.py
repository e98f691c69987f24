"""The goal of a plan: one of an accuracy and a budget, that can be reached, and the steps that reach it."""

import math

import numpy as np

MOST_EVALS = 10_000  # that a grid is planned for: the search of a longer one takes minutes
STALLED, LEAST_GAIN = 2, 0.02  # a search ends where so many times the steps gain less than this part


def check_goal(target_kl, evals):
    """Refuse all but one positive goal: target_kl in nats, or evals a sample."""
    if (target_kl is None) == (evals is None):
        raise ValueError("give exactly one of target_kl (nats) and evals (score evaluations).")
    if target_kl is not None and not 0 < target_kl < np.inf:
        raise ValueError(f"target_kl must be positive and finite, in nats: target_kl = {target_kl:g}.")
    if evals is not None and (not 1 <= evals <= MOST_EVALS or evals != int(evals)):
        raise ValueError(f"evals must be a whole number from 1 to {MOST_EVALS}: evals = {evals}.")


def check_reachable(target_kl, start, horizons, early_stop):
    """Refuse a target_kl that no start reaches, and one that the start itself reaches.

    `start` maps an array of times to the KL of q_t from the start's law, or a bound on it, falling in t;
    `horizons` are those that may be chosen.
    """
    if target_kl is None:
        return
    at_horizons = np.broadcast_to(start(horizons), horizons.shape)
    if at_horizons.min() >= target_kl:
        raise ValueError(
            f"target_kl = {target_kl:g} is less than the initialisation costs at horizon {horizons.max():g}, "
            f"{at_horizons.min():.3g} nats: ask for more than that, or take a longer horizon."
        )
    if float(start(np.array([early_stop]))[0]) <= target_kl:
        times = np.geomspace(1e-12, early_stop, 200)
        beyond = times[start(times) > target_kl]
        earlier = f"an early_stop below {beyond.max():.3g}, or fewer nats" if len(beyond) else "fewer nats"
        raise ValueError(
            f"the normal law of the start is itself within target_kl = {target_kl:g} nats of the law at early_stop = "
            f"{early_stop:g}: there is nothing to sample. Take {earlier}."
        )


def steps_to_reach(goal, cost, *, most=100_000):
    """The fewest steps n with cost(n) <= goal, for a cost that falls with n; None beyond `most`."""
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


def enough_steps(certified, n, kernel, target_kl, confidence, hint):
    """Steps and certificate, from n steps on until the certificate reaches target_kl, at its upper end if asked to.

    `certified` maps a number of steps to a certificate. More steps lower the discretisation, but not the width that the
    number of rows gives to the interval: the search ends where STALLED times the steps gain less than LEAST_GAIN.
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
            raise out_of_reach(target_kl, MOST_EVALS, kernel, reached, hint)


def _too_few_rows(target_kl, n, certificate, confidence):
    value, remedy = f"{certificate.known:.3g} nats with {n} steps", "more rows"
    if confidence is not None:
        value = f"{certificate.known_upper:.3g} nats at the upper end of the {confidence:g} interval with {n} steps"
        remedy = "more rows, lower confidence="
    return ValueError(
        f"target_kl = {target_kl:g} is out of reach of these rows: {value}, and more steps hardly lower that. Take "
        f"{remedy}, or ask for more nats."
    )


def out_of_reach(target_kl, most, kernel, least, hint):
    """The error of a target_kl that so many steps do not reach; the hint ends the message."""
    return ValueError(
        f"target_kl = {target_kl:g} takes more than {most} steps of {kernel}, good for about {least:.3g} nats: ask for "
        f"more than that." + (f" Or: {hint}." if hint else "")
    )
