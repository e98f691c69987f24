"""The mean of independent rows: rows that are copies, heavy tails, and an interval for rows in a known range."""

import functools
import math
import statistics

import numpy as np

MANY_DEGREES = 300


# Peter Hall 1992, J. R. Statist. Soc. B 54, 221: T = sqrt(n) (mean - mu)/s of samples of skewness g has
#   P(t(T) <= x) = Phi(x) + O(1/n),  t(T) = T + w T^2/3 + w^2 T^3/27 + w/6,  w = g/sqrt(n):  a cubic with an inverse.
def unskewed(x, w):
    """The inverse of Hall's cubic transformation, increasing in x; x itself at w = 0."""
    z = w * (x - w / 6)
    root = math.expm1(math.log1p(z) / 3) if z > -1 else -math.cbrt(-1 - z) - 1
    return 3 * root / w if w != 0 else x


# From 300 degrees on Cornish and Fisher's expansion about the normal quantile, with a relative error below 1e-8 up to a
# probability of 1 - 1e-6; below, the distribution function is inverted by bisection.
@functools.cache
def student_quantile(probability, degrees):
    """The quantile of Student's t law; `degrees` inf is the normal, below 300 they are whole."""
    z = statistics.NormalDist().inv_cdf(probability)
    if degrees < MANY_DEGREES:
        low, high = -1.0, 1.0
        while student_cdf(high, degrees) < probability:
            high *= 2
        while student_cdf(low, degrees) > probability:
            low *= 2
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if student_cdf(middle, degrees) < probability else (low, middle)
        return (low + high) / 2
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / degrees**power for power, term in enumerate(terms, start=1))


# With x = sqrt(n) tan(a) the density is proportional to cos(a)^(n-1), whose integral from 0 is found by parts.
def student_cdf(x, degrees):
    """Student's distribution function for a whole number of degrees."""
    angle = math.atan(x / math.sqrt(degrees))
    cosine, total, whole = math.cos(angle), 0.0, 0.0
    if degrees % 2:
        total, whole, term, k = angle, math.pi / 2, cosine, 2
    else:
        total, whole, term, k = math.sin(angle), 1.0, cosine**2, 3
    while k < degrees:  # int cos^k = cos^(k-1) sin/k + (k-1)/k int cos^(k-2)
        total = term * math.sin(angle) / k + (k - 1) / k * total
        whole *= (k - 1) / k
        term, k = term * cosine**2, k + 2
    return 0.5 + total / whole / 2


SKEWED = 0.3  # of |skewness|/sqrt(n): squares of 200 normal rows exceed it in 3 % of samples, of Student's t_3 in 50 %
ONE_SIDED = 1.645  # standard errors of 95 %
FEW_COPIES = 0.01  # of the rows, as in image data sets as they are published: nothing is said of these
BISECTIONS = 40  # of a bounded interval: an error of 2^-40 of the range


def row_ids(rows):
    """(n,) whole numbers, equal where rows (n, d) are equal in every entry; 0.0 and -0.0 are equal."""
    rows = np.ascontiguousarray(np.asarray(rows) + 0)
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(row.tobytes(), len(first)) for row in rows])


def copies(ids):
    """(n,) the number of the independent unit of each row, from 0 on, or None where every row is one of its own.

    Rows that are equal are copies of one draw, and one unit, where they are at most sqrt(n). A row that occurs more
    often is an atom of the law (a coin's side, the zeros of sparse data). Independent draws repeat an atom, so each
    of them is a unit.
    """
    if ids is None:
        return None
    _, unit, count = np.unique(ids, return_inverse=True, return_counts=True)
    copied = (count[unit] > 1) & (count[unit] ** 2 <= len(unit))
    if not copied.any():
        return None
    return np.unique(np.where(copied, unit, len(unit) + np.arange(len(unit))), return_inverse=True)[1]


def independent(samples, ids):
    """(units,) values with the mean of samples (n,), one for each unit of `copies`.

    A unit's value is the mean plus units/n times the sum of its rows' deviations. So the standard error of the mean of
    the units is the cluster-robust one: copies add up instead of averaging out.
    """
    unit = copies(ids)
    if unit is None:
        return samples
    mean, units = np.mean(samples), unit.max() + 1
    return mean + units / len(samples) * np.bincount(unit, weights=samples - mean, minlength=units)


def skewness(samples):
    """Third central moment over the 3/2 power of the second; 0 for fewer than three samples and for equal ones."""
    deviations = np.asarray(samples, np.float64) - np.mean(samples)
    largest = np.abs(deviations).max(initial=0.0)
    if len(deviations) < 3 or largest <= 8 * np.finfo(float).eps * np.abs(samples).max():
        return 0.0
    deviations /= largest
    return float(np.mean(deviations**3) / np.mean(deviations**2) ** 1.5)


def hill_index(logs):
    """Hill's tail index of the exponentials of (n,) decreasing numbers, and the k = sqrt(n) largest it is made from.

    A law has no mean where the index is at most 1 and no variance where the index is at most 2. The standard error is
    index/sqrt(k). inf where the largest are equal. Source: Hill 1975, Ann. Stat. 3.
    """
    k = int(np.sqrt(len(logs)))
    above = logs[:k].mean() - logs[k]
    tied = not above > 8 * np.finfo(float).eps * abs(logs[0])
    return (np.inf if tied else 1 / above), k


def copied(ids):
    """A sentence that counts the copies among rows where they are more than 1 % of the rows, in a tuple; else ()."""
    unit = copies(ids)
    if unit is None or (distinct := unit.max() + 1) > (1 - FEW_COPIES) * len(unit):
        return ()
    return (
        f"of {len(unit)} rows {len(unit) - distinct} are copies of others, which leaves {distinct} independent ones: "
        f"drop the copies",
    )


def doubts(samples):
    """Sentences that say why an asymptotic interval of the mean of samples (n,) may not cover; () without a reason."""
    found, samples = [], np.asarray(samples, np.float64)
    sizes = np.sort(np.abs(samples - np.mean(samples)))[::-1]
    n, share = len(samples), sizes[0] ** 2 / max(np.sum(sizes**2), np.finfo(float).tiny)
    remedy = "take more rows, or bound them by radius= (with a clipped denoiser)"
    if abs(skewness(samples)) > SKEWED * math.sqrt(n):
        found.append(
            f"the interval may cover less than it says: the rows' skewness is {skewness(samples):.3g}, and the largest "
            f"of {n} rows makes up {share:.0%} of their variance; {remedy}"
        )
    if (sizes[: int(np.sqrt(n)) + 1] > 0).all():
        index, k = hill_index(np.log(sizes))
        if index * (1 + ONE_SIDED / math.sqrt(k)) <= 2:
            found.append(
                f"the interval may cover less than it says: Hill's tail index of the rows is {index:.3g}, from the {k} "
                f"largest, and below 2 there is no variance; {remedy}"
            )
    return tuple(found)


def bounded(samples, low, high, confidence):
    """How far below and above its sample mean the mean of independent samples in [low, high] may lie, at any n.

    With x in [0, 1] and mean m, 1 + l (x - m) is not negative and has mean 1 for l in [-1/(1 - m), 1/m]. A product of
    them over the rows is a wealth: below 1/p with probability 1 - p, if m is right (Markov). The wealth here is the
    average over l = 2^-j/m, j = 0 to log2 sqrt(n), and for the other side over l = -2^-j/(1 - m). Each side has
    p = (1 - confidence)/2. The result does not depend on the order of the rows.
    Source: betting confidence intervals, Waudby-Smith and Ramdas, arXiv:2010.09686.
    """
    x = np.clip((np.asarray(samples, np.float64) - low) / (high - low), 0, 1)
    needed, centre = math.log(2 / (1 - confidence)), float(x.mean())
    below = centre - _least_mean(x, needed)
    above = 1 - centre - _least_mean(1 - x, needed)
    return below * (high - low), above * (high - low)


def _least_mean(x, needed):
    """The least mean m at which the wealth of bets on "the mean is above m" is below e^needed; x (n,) in [0, 1]."""
    stakes = 0.5 ** np.arange(math.ceil(math.log2(len(x)) / 2) + 1)[:, None]

    def wealth(m):
        with np.errstate(divide="ignore"):
            each = np.log(1 - stakes + stakes * x / m).sum(1)
        return np.logaddexp.reduce(each) - math.log(len(stakes))

    low, high = 0.0, float(x.mean())
    for _ in range(BISECTIONS):  # the wealth falls with m, and is at most 1 at the sample mean
        middle = (low + high) / 2
        low, high = (middle, high) if middle == 0 or wealth(middle) >= needed else (low, middle)
    return low
