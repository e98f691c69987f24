"""The excess of path KL of the compared samplers: differences, ratios and ratios of steps, with their intervals."""

import functools
import math
from typing import NamedTuple

import numpy as np

from jaxdiff.app.comparison_subject import BENTON, PLANNED, Subject
from jaxdiff.app.samplers import MATCHED, PER_DIRECTION, label_of, path_cost_of
from jaxdiff.certificate import CONFIDENCE, Certificate
from jaxdiff.curves import MeasuredCurve
from jaxdiff.guarantees.cross_fit import measured_term, units_of
from jaxdiff.guarantees.difference import DIFFERENCE, difference_of
from jaxdiff.guarantees.path_kl import interpolation_error, path_kl, path_kl_samples
from jaxdiff.intervals import copies, doubts, rows_needed, with_interval
from jaxdiff.planning.alternatives import WIDEST
from jaxdiff.planning.goal import steps_to_reach

HEADLINE_STEPS = 20  # number of steps in the sentences of the report, as in the plan of `make demo`
# The fewest independent test rows for a ratio with its interval. 30 is a rule of thumb for intervals of a mean, which
# may be too short with fewer.
FEWEST_ROWS = 30
MOST_STEPS = 20_000  # the most steps of exponential Euler that are tried, 1,000 times those of the headline
BISECTIONS = 40  # halvings of the bracket around an end of a ratio's interval; they leave 2^-40 = 1e-12 of it


class _Excess(NamedTuple):
    """The excess of a sampler on the test rows.

    Attributes:
      value: in nats.
      samples: one value for each independent row, whose mean is the value.
      bias: a bound on the interpolation error, without that of the integral of the loss.
      bias_of_integral: a bound on the interpolation error of the integral, which is the same for every sampler.
    """

    value: float
    samples: np.ndarray
    bias: float
    bias_of_integral: float


def _excess(subject, name, grid):
    cost = path_cost_of(name, subject.test).with_variance(subject.held_out)
    samples, value = path_kl_samples(cost, subject.test, grid), path_kl(cost, subject.test, grid)
    bias = interpolation_error(cost, subject.test, grid, integral=False)
    without, whole = (interpolation_error("ancestral", subject.test, grid, integral=each) for each in (False, True))
    return _Excess(value, samples, bias, whole - without)


def excesses(subject, n_steps):
    """A function (name, grid name) -> the sampler's _Excess at n_steps. It measures each sampler once."""
    return functools.cache(lambda name, grid_name: _excess(subject, name, subject.grid(name, grid_name, n_steps)))


def _interval(subject, confidence, *weighted):
    """The sum of weight times excess, and the ends of its interval. Excesses are paired by rows or groups of rows."""
    value = sum(weight * one.value for weight, one in weighted)
    if not all(len(one.samples) for _, one in weighted):
        return value, value, value
    samples = difference_of([(weight, one.samples) for weight, one in weighted])
    units = units_of(samples, getattr(subject.test, "row_ids", None))
    bias = sum(abs(weight) * one.bias for weight, one in weighted)
    bias += abs(sum(weight for weight, _ in weighted)) * weighted[0][1].bias_of_integral
    term = measured_term(DIFFERENCE, value, units, "", bias=bias)
    return value, *map(float, Certificate("", (term,), confidence).interval(DIFFERENCE))


def _independent_rows(subject):
    """The number of test rows without copies; None for a curve that is known exactly."""
    if not isinstance(subject.test, MeasuredCurve):
        return None
    unit = copies(subject.test.row_ids)
    return subject.test.n if unit is None else int(unit.max()) + 1


# Fieller's interval: the ratios r for which the interval of first - r second contains 0. It is finite if the interval
# of the second is above 0. The ends are found by bisection.
def _ratio(subject, confidence, first, second):
    """first/second and the ends of its interval; None if the interval of first or second contains 0."""
    n = _independent_rows(subject)
    if n is not None and n < FEWEST_ROWS:
        return None
    if min(_interval(subject, confidence, (1, one))[1] for one in (first, second)) <= 0:
        return None
    end_at = lambda end, r: _interval(subject, confidence, (1, first), (-r, second))[end]
    best, ends = first.value / second.value, []
    for end in (1, 2):
        low, high = 0.0, 2 * best
        while end_at(end, high) > 0:
            low, high = high, 2 * high
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            low, high = (middle, high) if end_at(end, middle) > 0 else (low, middle)
        ends.append(high)
    return best, *ends


def gains(subject, excess, confidence):
    """Sentences with the ratios of excesses at HEADLINE_STEPS and their intervals, if there are enough test rows."""
    moment_matched = [MATCHED, PER_DIRECTION][: 2 if subject.planned == PER_DIRECTION else 1]
    asked = [("ancestral", PLANNED, "ancestral", BENTON)]
    asked += [("exponential_euler", BENTON, name, PLANNED) for name in moment_matched]
    texts = []
    for name, grid_name, reference, reference_grid in asked:
        found = _ratio(subject, confidence, excess(name, grid_name), excess(reference, reference_grid))
        if found is not None:
            whose = "its own excess" if reference == name else f"the excess of {label_of(reference)}"
            texts.append(
                f"the excess of {label_of(name)} on {_grid_of(grid_name)} is {with_interval(*found)} times {whose} on "
                f"{_grid_of(reference_grid)}"
            )
    said = [f"At {HEADLINE_STEPS} steps, {'; '.join(texts)} ({confidence:.0%} intervals)."] if texts else []
    if len(texts) < len(asked):
        other = "other ratio" if texts else "ratio"
        said.append(
            f"The test rows are too few or too noisy to give any {other} of excesses at {HEADLINE_STEPS} steps."
        )
    return " ".join(said)


def _grid_of(grid_name):
    return "Benton's grid" if grid_name == BENTON else "its planned grid"


def difference(subject, excess, confidence):
    """A sentence on the difference in path KL of the planned sampler and exponential Euler on Benton's grid."""
    pair = (1, excess("exponential_euler", BENTON)), (-1, excess(subject.planned, PLANNED))
    value, low, high = _interval(subject, confidence, *pair)
    planned, other = f"{label_of(subject.planned)} on its planned grid", "exponential Euler's on Benton's"
    if low <= 0 <= high:
        return (
            f"The test rows do not show whether the path KL of {planned} is below {other}: the difference, paired by "
            f"rows, is {-value:.3g} nats, {confidence:.0%} [{-high:.4g}, {-low:.4g}]."
        )
    side, ends = ("below", (low, high)) if value > 0 else ("above", (-high, -low))
    return (
        f"On the test rows the path KL of {planned} is {with_interval(abs(value), *ends)} nats {side} {other} "
        f"({confidence:.0%} interval of the difference, paired by rows)."
    )


# The interval holds the numbers of steps n for which the interval of the paired difference of the two excesses contains
# 0: that of exponential Euler in n steps and that of the planned sampler. It has an upper end only if the interval of
# the planned sampler's own excess is above 0.
def step_ratio(subject: Subject, n_steps, *, confidence=CONFIDENCE, excess=None):
    """How many times more steps exponential Euler on Benton's grid needs for the excess of the planned sampler.

    Args:
      subject: the samplers and the data.
      n_steps: number of steps of the planned sampler.
      confidence: confidence level of the intervals.
      excess: (name, grid name) -> excess at n_steps, if it was measured before.

    Returns:
      A dict, JSON data: the planned sampler's excess, exponential_euler_steps and ratio, each with its interval.
      `withheld` is None, or the reason why there is no ratio: "few" (there are fewer than FEWEST_ROWS test rows),
      "zero" (the interval of the excess contains 0), "wide" (the ends of the interval differ by more than a factor of
      WIDEST), "no fewer" (the interval contains a ratio of 1) or "none" (no number of steps tried is enough).
      `rows_needed` is an estimate of the number of test rows that would give a ratio; None if there is no estimate.
      `heavy_tails`: the coverage of the interval may be below its confidence.
    """
    planned = (excess or excesses(subject, n_steps))(subject.planned, PLANNED)
    euler = lambda n: _excess(subject, "exponential_euler", subject.grid("exponential_euler", BENTON, n))
    gap = functools.cache(lambda n: _interval(subject, confidence, (1, euler(n)), (-1, planned)))
    value, low, high = _interval(subject, confidence, (1, planned))
    fewest, needed, most = (
        steps_to_reach(0.0, lambda n, end=end: gap(n)[end], most=MOST_STEPS)
        if of_planned > 0
        else None  # no number of steps has an excess of 0
        for end, of_planned in ((1, high), (0, value), (2, low))
    )
    n, withheld = _independent_rows(subject), None
    if n is not None and n < FEWEST_ROWS:
        withheld = "few"
    elif low <= 0:
        withheld = "zero"
    elif needed is None or fewest is None:
        withheld = "none"
    elif most is None or most > WIDEST * fewest:
        withheld = "wide"
    elif fewest <= n_steps:
        withheld = "no fewer"
    ends = [fewest, most]
    return {
        "n_steps": n_steps,
        "sampler": subject.planned,
        "excess": float(value),
        "excess_interval": [low, high],
        "exponential_euler_steps": None if withheld else needed,
        "exponential_euler_steps_interval": ends,
        "ratio": None if withheld or needed is None else needed / n_steps,
        "ratio_interval": [end and end / n_steps for end in ends],
        "confidence": confidence,
        "withheld": withheld,
        "rows": n,
        "rows_needed": _rows_needed(withheld, n, value, low, ends),
        "heavy_tails": _heavy_tails(subject, n_steps),
    }


def _rows_needed(withheld, n, value, low, ends):
    if n is None or withheld not in ("few", "zero", "wide"):
        return None
    if low <= 0:
        needed = rows_needed(n, value - low, value) if value > 0 else None
    else:
        needed = None if None in ends else rows_needed(n, math.log(ends[1] / ends[0]), math.log(WIDEST))
    return max(needed or 0, FEWEST_ROWS) if withheld == "few" else needed


def _heavy_tails(subject, n_steps):
    """Whether the path KLs of single rows have such heavy tails that an asymptotic interval is doubtful."""
    if not isinstance(subject.test, MeasuredCurve):
        return False
    grid = subject.grid(MATCHED, PLANNED, n_steps)
    samples = path_kl_samples(MATCHED, subject.test, grid, matched=subject.held_out)
    return bool(doubts(units_of(samples, subject.test.row_ids)))
