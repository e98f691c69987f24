"""Distances of samples from data: sliced Wasserstein-2, energy distance, and the accuracy of a classifier."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, PRNGKeyArray, Real

from jaxdiff import intervals
from jaxdiff.arrays import Whole

FOLDS = 5  # folds of the cross-validation. With k folds the classifier is fitted k times, to (k - 1)/k of the rows.
CLASSIFIER = (
    f"RBF support-vector machine (C = 10, standardised columns, {FOLDS}-fold cross-validation, copies of a row in one "
    f"fold)"
)
"""The classifier of `classifier_accuracy`, in words for reports."""
Rows = Real[Array | np.ndarray, "..."]  # (n, d); the functions raise ValueError for other shapes


class Estimate(NamedTuple):
    """A number and its standard error."""

    value: float
    standard_error: float


def sliced_w2(x: Rows, y: Rows, key: PRNGKeyArray, *, n_projections: Whole = 512) -> Estimate:
    """Sliced Wasserstein-2 distance of two samples, sqrt(E_u W2(u.x, u.y)^2) over random directions u.

    Args:
      x: (n, d). y: (m, d); n and m may differ.
      key: a JAX key for the directions.
      n_projections: number of directions.

    Returns:
      Estimate, in the units of x; the standard error is that of the directions alone. Two samples of the same law have
      a positive distance too, which falls with n and m: compare a result with the distance of two samples of the data.
    Source: Bonneel, Rabin, Peyré, Pfister 2015, J. Math. Imaging Vis. 51.
    """
    x, y = _two_samples(x, y)
    directions = np.asarray(jax.random.normal(key, (x.shape[1], int(n_projections))), np.float64)
    directions = directions / np.linalg.norm(directions, axis=0)
    squares = _w2_squared(np.sort(x @ directions, axis=0), np.sort(y @ directions, axis=0))
    distance = np.sqrt(squares.mean())
    error = squares.std(ddof=1) / np.sqrt(n_projections)
    return Estimate(float(distance), float(error / (2 * distance)) if distance > 0 else 0.0)


def _w2_squared(x, y):
    """W2^2 of each column of sorted samples; quantile functions are constant between the levels i/n and j/m."""
    n, m = len(x), len(y)
    levels = np.union1d(np.arange(n + 1) / n, np.arange(m + 1) / m)
    width, middle = np.diff(levels), (levels[1:] + levels[:-1]) / 2
    return width @ (x[(middle * n).astype(int)] - y[(middle * m).astype(int)]) ** 2


def energy_distance(x: Rows, y: Rows) -> Estimate:
    """Energy distance of two samples, 2 E|X - Y| - E|X - X'| - E|Y - Y'|, unbiased.

    Args:
      x: (n, d). y: (m, d); n and m may differ, 2 rows at least.

    Returns:
      Estimate, in the units of x. The distance is 0 for equal laws, else positive; the estimate may be negative.
      The standard error is the leading term. It vanishes for equal laws, where an error of about E|X - X'|/n remains.
      Rows must be independent. If every row occurs twice, the estimate is too large by
      E|X - X'|/(n - 1) + E|Y - Y'|/(m - 1).
    Source: Székely, Rizzo 2013, J. Statistical Planning and Inference 143.
    """
    x, y = _two_samples(x, y)
    if min(len(x), len(y)) < 2:
        raise ValueError(f"an energy distance needs at least two rows of each sample: they have {len(x)} and {len(y)}.")
    between, of_x, of_y = _distances(x, y), _distances(x, x), _distances(y, y)
    from_x, from_y = 2 * between.mean(1), 2 * between.mean(0)
    inside_x, inside_y = of_x.sum(1) / (len(x) - 1), of_y.sum(1) / (len(y) - 1)
    value = from_x.mean() - inside_x.mean() - inside_y.mean()
    variance = (from_x - 2 * inside_x).var(ddof=1) / len(x) + (from_y - 2 * inside_y).var(ddof=1) / len(y)
    return Estimate(float(value), float(np.sqrt(variance)))


def _distances(x, y):
    """(n, m) distances |x_i - y_j|; if y is x, the diagonal is exactly 0."""
    squares = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T
    if x is y:
        np.fill_diagonal(squares, 0)
    return np.sqrt(np.maximum(squares, 0))


def _two_samples(x, y):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"x and y must be samples (n, d) and (m, d) of one width: they have {x.shape} and {y.shape}.")
    return x, y


def classifier_accuracy(x: Rows, y: Rows, *, seed: Whole = 0, row_ids: Any = None) -> Estimate:
    """Cross-validated accuracy of an RBF support-vector machine that predicts the sample of a row; 0.5 is chance.

    Copies of a row, in one sample or in both, are put into the same fold: a classifier that was trained on a row must
    not be tested on its copy. Two kinds of equal rows do not count as copies. A row that occurs more than sqrt(2 n)
    times is an atom of the law (`intervals.copies`). If one sample has less than half as many independent rows as the
    other, its sampler has collapsed onto a few points, and the classifier is meant to find that difference.

    Args:
      x, y: (n, d) samples of equal size.
      seed: seed of the random folds.
      row_ids: (2 n,) whole numbers, those of x before those of y. Rows with equal numbers are copies, at most sqrt(2 n)
        of a row. Give them if noise was added to the rows: intervals.row_ids of the rows without noise. By default
        equal rows are copies, with the exceptions above.

    Returns:
      Estimate with the binomial standard error for the number of independent rows. Needs scikit-learn (extra `data`).

    Raises:
      ValueError: the samples differ in size, or a sample has fewer than two independent rows.
    Source: Lopez-Paz, Oquab, ICLR 2017, arXiv:1610.06545; Kish 1965, Survey Sampling (the number of independent rows).
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    if len(x) != len(y):
        raise ValueError(
            f"x and y must have equally many rows, so that chance is 0.5: they have {len(x)} and {len(y)} rows."
        )
    rows = np.concatenate([x, y]).astype(np.float64)
    labels = np.repeat([0, 1], [len(x), len(y)])
    units = intervals.copies(np.asarray(row_ids)) if row_ids is not None else _copies(rows)
    units = np.arange(len(rows)) if units is None else units
    of_x, of_y = np.bincount(units[: len(x)]), np.bincount(units[len(x) :])
    fewest = min(int(np.count_nonzero(sizes)) for sizes in (of_x, of_y))
    if fewest < 2:
        raise ValueError(f"the classifier needs at least two independent rows of each sample: one has {fewest}.")
    copied = len(np.unique(units)) < len(rows)
    folds = StratifiedGroupKFold if copied else StratifiedKFold
    folds = folds(min(FOLDS, fewest), shuffle=True, random_state=seed)
    model = make_pipeline(StandardScaler(), SVC(C=10.0))
    right, sizes = [], []
    for train, test in folds.split(rows, labels, units if copied else None):
        seen = labels[train]
        # With many copies a training fold may have rows of one sample only; the prediction is then that sample.
        predicted = model.fit(rows[train], seen).predict(rows[test]) if seen.min() < seen.max() else seen[0]
        right.append(np.mean(predicted == labels[test]))
        sizes.append(len(test))
    accuracy = float(np.average(right, weights=sizes if copied else None))
    return Estimate(accuracy, float(np.sqrt(accuracy * (1 - accuracy) / _independent(units))))


def _copies(rows):
    """A number for each row of the two joined samples, equal for copies; None if no rows count as copies."""
    units = intervals.copies(intervals.row_ids(rows))
    if units is None:
        return None
    fewer, more = sorted(map(_independent, np.split(units, 2)))
    return None if 2 * fewer < more else units


def _independent(units):
    """Kish's number of independent rows, where rows with equal numbers are copies: n/2 if all n rows occur twice."""
    return len(units) ** 2 / np.sum(np.bincount(units).astype(float) ** 2)
