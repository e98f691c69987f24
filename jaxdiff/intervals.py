"""Intervals for the mean of independent rows: Student's, corrected for skewness, and one for rows in a known range.

Copies among the rows and heavy tails make such an interval wrong. Both are found and described here too.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float64, Int, Num

Samples = Num[np.ndarray, " _"]  # of independent rows, real numbers
Ids = Int[np.ndarray, " _"]  # whole numbers, equal where rows are equal

# |skewness|/sqrt(n) above which an interval carries a warning. Squares of 200 normal rows exceed it in 3 % of samples,
# squares of rows of Student's law with 3 degrees of freedom in 50 %.
SKEWED = 0.3
ONE_SIDED = 1.645  # standard errors: the normal quantile of a one-sided 95 % interval for a tail index
FEW_COPIES = 0.01  # of all rows; no warning up to this fraction, which is common in published image data sets
BISECTIONS = 40  # for an end of a bounded interval, which is then exact to 2^-40 of the range


# Peter Hall 1992, J. R. Statist. Soc. B 54, 221: T = sqrt(n) (mean - mu)/s of samples of skewness g has
#   P(t(T) <= x) = Phi(x) + O(1/n),  t(T) = T + w T^2/3 + w^2 T^3/27 + w/6,  w = g/sqrt(n).
# The cubic t is increasing, so it has an inverse.
def unskewed(x: float, w: float) -> float:
    """The inverse of Hall's cubic transformation, increasing in x; x itself at w = 0."""
    z = w * (x - w / 6)
    root = math.expm1(math.log1p(z) / 3) if z > -1 else -math.cbrt(-1 - z) - 1
    return 3 * root / w if w != 0 else x


def student_quantile(probability: Any, degrees: Any) -> float:
    """The quantile of Student's t law; with infinitely many degrees of freedom it is the normal quantile."""
    from scipy import special  # here, because its import would take a quarter of that of jaxdiff

    return float(special.stdtrit(degrees, probability))


def row_ids(rows: Any) -> Ids:
    """(n,) whole numbers, equal where rows (n, d) are equal in every entry; 0.0 and -0.0 are equal."""
    rows = np.ascontiguousarray(np.asarray(rows) + 0)
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(row.tobytes(), len(first)) for row in rows])


def copies(ids: Ids | None) -> Ids | None:
    """(n,) the number of each row's independent unit, from 0 on; None where every row is a unit of its own.

    At most sqrt(n) equal rows are taken for copies of one draw and form one unit. A row that occurs more often is an
    atom of the law, as a side of a coin or the zeros of sparse data. Independent draws repeat an atom, so each of them
    is a unit of its own.
    """
    if ids is None:
        return None
    _, unit, count = np.unique(ids, return_inverse=True, return_counts=True)
    copied = (count[unit] > 1) & (count[unit] ** 2 <= len(unit))
    if not copied.any():
        return None
    return np.unique(np.where(copied, unit, len(unit) + np.arange(len(unit))), return_inverse=True)[1]


def independent(samples: Samples, ids: Ids | None) -> Num[np.ndarray, " units"]:
    """(units,) one value for each unit of `copies`, with the same mean as samples (n,).

    A unit's value is the mean plus units/n times the sum of its rows' deviations. The standard error of these values is
    the cluster-robust standard error of the mean: deviations of copies add up and do not average out.
    """
    unit = copies(ids)
    if unit is None:
        return samples
    mean, units = np.mean(samples), unit.max() + 1
    return mean + units / len(samples) * np.bincount(unit, weights=samples - mean, minlength=units)


def skewness(samples: Samples) -> float:
    """Third central moment over the 3/2 power of the second; 0 for fewer than three samples or where all are equal."""
    deviations = np.asarray(samples, np.float64) - np.mean(samples)
    largest = np.abs(deviations).max(initial=0.0)
    if len(deviations) < 3 or largest <= 8 * np.finfo(float).eps * np.abs(samples).max():
        return 0.0
    deviations /= largest
    return float(np.mean(deviations**3) / np.mean(deviations**2) ** 1.5)


def hill_index(logs: Float64[np.ndarray, " n"]) -> tuple[Any, int]:
    """Hill's tail index of the values exp(logs), logs (n,) decreasing, and k = sqrt(n), the number of values used.

    The index is computed from the k largest values. A law has no mean where the index is at most 1, and no variance
    where it is at most 2. The standard error is index/sqrt(k). The index is inf where the largest values are equal.
    Source: Hill 1975, Ann. Stat. 3.
    """
    k = int(np.sqrt(len(logs)))
    above = logs[:k].mean() - logs[k]
    tied = not above > 8 * np.finfo(float).eps * abs(logs[0])
    return (np.inf if tied else 1 / above), k


def copied(ids: Ids | None) -> tuple[str, ...]:
    """A tuple of one sentence that counts the copies, where they are more than 1 % of the rows; else ()."""
    unit = copies(ids)
    if unit is None or (distinct := unit.max() + 1) > (1 - FEW_COPIES) * len(unit):
        return ()
    return (
        f"of {len(unit)} rows {len(unit) - distinct} are copies of others, which leaves {distinct} independent ones: "
        f"drop the copies",
    )


def doubts(samples: Samples) -> tuple[str, ...]:
    """Reasons, each a sentence, why an asymptotic interval for the mean of samples (n,) may not cover; () for none."""
    found, samples = [], np.asarray(samples, np.float64)
    sizes = np.sort(np.abs(samples - np.mean(samples)))[::-1]
    n, fraction = len(samples), sizes[0] ** 2 / max(np.sum(sizes**2), np.finfo(float).tiny)
    remedy = "take more rows, or bound them by radius= (with a clipped denoiser)"
    if abs(skewness(samples)) > SKEWED * math.sqrt(n):
        found.append(
            f"the interval may cover less than it says: the rows' skewness is {skewness(samples):.3g}, and the largest "
            f"of {n} rows makes up {fraction:.0%} of their variance; {remedy}"
        )
    if (sizes[: int(np.sqrt(n)) + 1] > 0).all():
        index, k = hill_index(np.log(sizes))
        if index * (1 + ONE_SIDED / math.sqrt(k)) <= 2:
            found.append(
                f"the interval may cover less than it says: Hill's tail index of the rows is {index:.3g}, from the {k} "
                f"largest, and a law with an index below 2 has no variance; {remedy}"
            )
    return tuple(found)


def bounded(samples: Samples, low: float, high: float, confidence: Any) -> tuple[float, float]:
    """An interval for the mean of independent samples in [low, high], valid at any n: its lengths below and above.

    Both lengths are measured from the sample mean. For x in [0, 1] with mean m, 1 + l (x - m) is not negative and has
    mean 1, for every l in [-1/(1 - m), 1/m]. The product over the rows is the wealth of a bet against m: by Markov's
    inequality it stays below 1/p with probability 1 - p. The wealth here is the average over l = 2^-j/m, j = 0 to
    log2 sqrt(n), and for the other side over l = -2^-j/(1 - m). Each side has p = (1 - confidence)/2. The result does
    not depend on the order of the rows.
    Source: betting confidence intervals, Waudby-Smith and Ramdas, arXiv:2010.09686.
    """
    x = np.clip((np.asarray(samples, np.float64) - low) / (high - low), 0, 1)
    needed, centre = math.log(2 / (1 - confidence)), float(x.mean())
    below = centre - _least_mean(x, needed)
    above = 1 - centre - _least_mean(1 - x, needed)
    return below * (high - low), above * (high - low)


def _least_mean(x, needed):
    """The least m for which bets on "the mean is above m" end with a wealth below e^needed; x (n,) in [0, 1]."""
    stakes = 0.5 ** np.arange(math.ceil(math.log2(len(x)) / 2) + 1)[:, None]

    def wealth(m):
        with np.errstate(divide="ignore"):
            each = np.log(1 - stakes + stakes * x / m).sum(1)
        return np.logaddexp.reduce(each) - math.log(len(stakes))

    low, high = 0.0, float(x.mean())
    for _ in range(BISECTIONS):  # the wealth falls as m grows, and is at most 1 at the sample mean
        middle = (low + high) / 2
        low, high = (middle, high) if middle == 0 or wealth(middle) >= needed else (low, middle)
    return low


def with_interval(value: float | int, low: float | int, high: float | int) -> str:
    """A number and its interval, rounded to a third of the half width: "42 (25 to 70)"; an exact number alone."""
    if not high > low:
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    power = math.floor(math.log10((high - low) / 6))
    unit, places = 10.0**power, max(0, -power)
    ends = (round(value / unit), math.floor(low / unit + 1e-9), math.ceil(high / unit - 1e-9))
    middle, below, above = (f"{end * unit:,.{places}f}" for end in ends)
    return f"{middle} ({below} to {above})"


def rows_needed(n: int | np.integer, half_width: float | int, wanted: float | int) -> int:
    """The number of rows with which a half width that n rows give shrinks to the one wanted; two digits, rounded up."""
    needed = n * (half_width / wanted) ** 2
    unit = 10.0 ** max(0, math.floor(math.log10(needed)) - 1)
    return int(math.ceil(needed / unit - 1e-9) * unit)
