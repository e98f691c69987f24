"""Linear inverse problems with known posteriors: a normal law in six dimensions, and a mixture in the plane."""

import numpy as np

ROW = np.array([[1.0, 0.3]])  # what is observed of the plane: one number
ACROSS = np.array([-0.3, 1.0]) / np.hypot(1.0, 0.3)  # a unit vector of which ROW sees nothing
PLANE_MIXTURE = (  # weights, means, covariances; given a number near 0 the posterior has two or three modes
    np.array([0.3, 0.4, 0.3]),
    np.array([[-0.9, 0.9], [0.9, 0.7], [0.1, -1.2]]),
    np.array([[[0.12, 0.06], [0.06, 0.1]], [[0.1, -0.05], [-0.05, 0.15]], [[0.3, 0.0], [0.0, 0.06]]]),
)


def six_dimensions():
    """(mean, covariance, A) of a normal law with variances from 0.04 to 1.8 in directions that A (3, 6) mixes.

    The mean variance of a coordinate is 1, as in standardised data.
    """
    rng = np.random.default_rng(0)
    variances, axes = np.geomspace(0.05, 2, 6), np.linalg.qr(rng.normal(size=(6, 6)))[0]
    matrix = rng.normal(size=(3, 6))
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    return rng.normal(size=6) / 2, (axes * variances * 6 / variances.sum()) @ axes.T, matrix
