"""How far samples are from data: sliced Wasserstein-2, energy distance, a classifier told to separate the two."""

from typing import NamedTuple

import jax
import numpy as np

from jaxdiff import intervals

FOLDS = 5
CLASSIFIER = (
    f"RBF support-vector machine (C = 10, standardised columns, {FOLDS}-fold cross-validation, copies of a row in one "
    f"fold)"
)


class Estimate(NamedTuple):
    """A number and its standard error."""

    value: float
    standard_error: float


def sliced_w2(x, y, key, *, n_projections=512) -> Estimate:
    """Sliced Wasserstein-2 distance of two samples, sqrt(E_u W2(u.x, u.y)^2) over directions u of the sphere.

    Args:
      x: (n, d). y: (m, d); n and m may differ.
      key: for the directions.
      n_projections: directions.

    Returns:
      Estimate, in the units of x; the standard error is that of the directions alone. Two samples of one law are at a
      positive distance that falls with n and m: compare with such a floor.
    Source: Bonneel, Rabin, Peyré, Pfister 2015, J. Math. Imaging Vis. 51.
    """
    x, y = _two_samples(x, y)
    directions = np.asarray(jax.random.normal(key, (x.shape[1], n_projections)), np.float64)
    directions = directions / np.linalg.norm(directions, axis=0)
    squares = _w2_squared(np.sort(x @ directions, axis=0), np.sort(y @ directions, axis=0))
    distance = np.sqrt(squares.mean())
    spread = squares.std(ddof=1) / np.sqrt(n_projections)
    return Estimate(float(distance), float(spread / (2 * distance)) if distance > 0 else 0.0)


def _w2_squared(x, y):
    """Columnwise W2^2 of sorted samples: both quantile functions are constant between the levels i/n and j/m."""
    n, m = len(x), len(y)
    levels = np.union1d(np.arange(n + 1) / n, np.arange(m + 1) / m)
    width, middle = np.diff(levels), (levels[1:] + levels[:-1]) / 2
    return width @ (x[(middle * n).astype(int)] - y[(middle * m).astype(int)]) ** 2


def energy_distance(x, y) -> Estimate:
    """Energy distance of two samples, 2 E|X - Y| - E|X - X'| - E|Y - Y'|, unbiased.

    Args:
      x: (n, d). y: (m, d); n and m may differ, 2 rows at least.

    Returns:
      Estimate, in the units of x; 0 for one law and positive otherwise, though the estimate may be negative. The
      standard error is the leading one: for samples of nearly one law, where it vanishes, about E|X - X'|/n is left.
      Rows are taken for independent. If every row occurs twice, the estimate is too large by
      E|X - X'|/(n - 1) + E|Y - Y'|/(m - 1).
    Source: Székely, Rizzo 2013, J. Statistical Planning and Inference 143.
    """
    x, y = _two_samples(x, y)
    if min(len(x), len(y)) < 2:
        raise ValueError(f"an energy distance needs two rows or more a sample: they have {len(x)} and {len(y)}.")
    between, of_x, of_y = _distances(x, y), _distances(x, x), _distances(y, y)
    from_x, from_y = 2 * between.mean(1), 2 * between.mean(0)
    inside_x, inside_y = of_x.sum(1) / (len(x) - 1), of_y.sum(1) / (len(y) - 1)
    value = from_x.mean() - inside_x.mean() - inside_y.mean()
    variance = (from_x - 2 * inside_x).var(ddof=1) / len(x) + (from_y - 2 * inside_y).var(ddof=1) / len(y)
    return Estimate(float(value), float(np.sqrt(variance)))


def _distances(x, y):
    """(n, m) of |x_i - y_j|, an x_i's distance from itself exactly 0."""
    squares = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T
    if x is y:
        np.fill_diagonal(squares, 0)
    return np.sqrt(np.maximum(squares, 0))


def _two_samples(x, y):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"two samples (n, d) and (m, d) of one width are compared: they have {x.shape} and {y.shape}.")
    return x, y


def classifier_accuracy(x, y, *, seed=0, row_ids=None) -> Estimate:
    """Cross-validated accuracy of an RBF support-vector machine told to separate two samples; 0.5 is chance.

    Copies of a row, in one sample or in both, fall into the same fold: a classifier that has seen a row must not be
    asked about its copy. Not all equal rows are copies. A row that occurs more than sqrt(2 n) times is an atom of the
    law (`intervals.copies`). Where one sample has less than half as many independent rows as the other, as that of a
    sampler that collapsed onto a few points, its repetitions are a difference that the classifier may see.

    Args:
      x, y: (n, d) samples of equal size.
      seed: of the folds.
      row_ids: (2 n,) whole numbers, those of x before those of y, equal where rows are known to be copies, up to
        sqrt(2 n) of a row. Give them where noise was added to the rows: intervals.row_ids of the rows before. By
        default equal rows are copies, in the sense above.

    Returns:
      Estimate with the binomial standard error of the independent rows. Needs scikit-learn (extra `data`).

    Raises:
      ValueError: the samples differ in size, or a sample has fewer than two independent rows.
    Source: Lopez-Paz, Oquab, ICLR 2017, arXiv:1610.06545; Kish 1965, Survey Sampling (the number of independent rows).
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    if len(x) != len(y):
        raise ValueError(f"samples of equal size make chance 0.5: they have {len(x)} and {len(y)} rows.")
    rows = np.concatenate([x, y]).astype(np.float64)
    labels = np.repeat([0, 1], [len(x), len(y)])
    units = intervals.copies(row_ids) if row_ids is not None else _copies(rows)
    units = np.arange(len(rows)) if units is None else units
    of_x, of_y = np.bincount(units[: len(x)]), np.bincount(units[len(x) :])
    fewest = min(int(np.count_nonzero(sizes)) for sizes in (of_x, of_y))
    if fewest < 2:
        raise ValueError(f"a classifier is cross-validated on two independent rows or more a sample: one has {fewest}.")
    copied = len(np.unique(units)) < len(rows)
    folds = StratifiedGroupKFold if copied else StratifiedKFold
    folds = folds(min(FOLDS, fewest), shuffle=True, random_state=seed)
    model = make_pipeline(StandardScaler(), SVC(C=10.0))
    right, sizes = [], []
    for train, test in folds.split(rows, labels, units if copied else None):
        seen = labels[train]
        # Few copied rows may leave one sample alone to train on, of which a machine makes nothing.
        told = model.fit(rows[train], seen).predict(rows[test]) if seen.min() < seen.max() else seen[0]
        right.append(np.mean(told == labels[test]))
        sizes.append(len(test))
    accuracy = float(np.average(right, weights=sizes if copied else None))
    return Estimate(accuracy, float(np.sqrt(accuracy * (1 - accuracy) / _independent(units))))


def _copies(rows):
    """The unit of each row of two samples, one after the other, or None where no rows count as copies."""
    units = intervals.copies(intervals.row_ids(rows))
    if units is None:
        return None
    fewer, more = sorted(map(_independent, np.split(units, 2)))
    return None if 2 * fewer < more else units


def _independent(units):
    """Kish's number of independent rows among rows of these units: of n rows that all occur twice n/2."""
    return len(units) ** 2 / np.sum(np.bincount(units).astype(float) ** 2)
