"""How far samples are from data: sliced Wasserstein-2, energy distance, a classifier told to separate the two."""

from typing import NamedTuple

import jax
import numpy as np

from jaxdiff.intervals import row_ids

FOLDS = 5
ATOM = 0.05  # of a sample: a row that makes up more is an atom of the law, no copy; four rows or half of few are none
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
      Rows must be independent. Copies are at distance 0 and make the estimate too large: by 2 E|X - X'|/(n - 1) for two
      samples of one law whose n rows occur twice each, which is 4/(sqrt(pi) (n - 1)) for N(0, 1) on the line and
      2 sqrt(pi)/(n - 1) for N(0, I) in the plane.
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


def classifier_accuracy(x, y, *, seed=0, originals=None) -> Estimate:
    """Cross-validated accuracy of an RBF support-vector machine told to separate two samples; 0.5 is chance.

    Copies of a row stay in one fold: a classifier that has seen the others would know the row again. A row that makes
    up more than 5 % of x or of y is an atom of the law (a spike at zero, a collapsed sampler). Independent draws repeat
    an atom, so its rows go to all folds.

    Args:
      x, y: (n, d) samples of equal size.
      seed: of the folds.
      originals: two arrays of n rows, x and y before noise was added; rows that are equal there are copies. None for
        x and y themselves.

    Returns:
      Estimate with the binomial standard error of n_eff rows, n_eff = (sum g)^2/sum g^2 for g copies of each row: 2n
      without copies, n where every row occurs twice. Needs scikit-learn (extra `data`).
    Source: Lopez-Paz, Oquab, ICLR 2017, arXiv:1610.06545; effective rows: Kish 1965, Survey Sampling.
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    if len(x) != len(y):
        raise ValueError(f"samples of equal size make chance 0.5: they have {len(x)} and {len(y)} rows.")
    if len(x) < 2:
        raise ValueError(f"a classifier is cross-validated on two rows or more a sample: they have {len(x)}.")
    rows = np.concatenate([x, y]).astype(np.float64)
    labels = np.repeat([0, 1], [len(x), len(y)])
    before = rows if originals is None else np.concatenate(originals)
    if len(before) != len(rows):
        raise ValueError(f"originals are the {len(rows)} rows of x and y without noise: they have {len(before)} rows.")
    groups = _copies(before)
    model = make_pipeline(StandardScaler(), SVC(C=10.0))
    right, sizes = [], []
    for train, test in _folds(rows, labels, groups, seed):
        seen = labels[train]
        told = model.fit(rows[train], seen).predict(rows[test]) if seen.min() < seen.max() else seen[0]
        right.append(np.mean(told == labels[test]))
        sizes.append(len(test))
    counts = np.bincount(groups)
    accuracy = float(np.average(right, weights=None if counts.max() == 1 else sizes))
    effective = len(rows) ** 2 / np.sum(counts**2)
    return Estimate(accuracy, float(np.sqrt(accuracy * (1 - accuracy) / effective)))


def _copies(rows):
    """(2n,) numbers of groups from 0 on, equal for copies of a row in two samples (2n, d); an atom's rows differ."""
    ids, n = row_ids(rows), len(rows) // 2
    often = np.maximum(*(np.bincount(part, minlength=ids.max() + 1) for part in (ids[:n], ids[n:])))
    is_atom = often[ids] > max(ATOM * n, min(4, n / 2))
    return np.unique(np.where(is_atom, len(rows) + np.arange(len(rows)), ids), return_inverse=True)[1]


def _folds(rows, labels, groups, seed):
    """Pairs of train and test positions: as many rows of each label in every fold, and groups whole.

    Each sample has two groups or more, because a row that makes up more than half of one is an atom.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    fewest = min(len(np.unique(groups[labels == label])) for label in (0, 1))
    options = {"n_splits": min(FOLDS, fewest), "shuffle": True, "random_state": seed}
    if groups.max() == len(groups) - 1:  # no copies
        return StratifiedKFold(**options).split(rows, labels)
    return StratifiedGroupKFold(**options).split(rows, labels, groups)
