"""Checks of a log-Sobolev inequality: curvature at given points, and the spectral gap in one or two dimensions.

Let alpha be the best constant of KL(rho || q) <= I(rho || q)/(2 alpha). The least curvature of -log q over all space is
at most alpha (Bakry and Emery), and the spectral gap is at least alpha (Rothaus). So a gap below a claimed constant
refutes the claim. Neither check proves it: the least curvature at given points can exceed that over all space.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.arrays import like
from jaxdiff.types import Number, Numbers, ScoreFn, Whole, as_score

DEPTH = 40.0  # nats by which the log density falls from its maximum to a box's walls; e^-40 changes no gap in float64
GROWTH, FARTHEST = 1.05, 1e12  # a box grows in steps that lengthen by this factor; beyond this distance it is given up
CELLS = {1: 4000, 2: 160}  # along each axis of a box, by dimension: the gap takes seconds; errors are in `spectral_gap`


def one_sided(score: ScoreFn, x: Numbers, time: Numbers) -> float:
    """The largest eigenvalue of the score's symmetrised Jacobian over points x (n, d): a lower bound on L(t).

    Its negative is the least curvature of -log q_t at these points. It takes d Jacobian products and a dense eigenvalue
    problem for each point.
    """
    return float(np.max(_largest(as_score(score), jnp.asarray(x), like(time, jnp.asarray(x)))))


def least_curvature(score: ScoreFn, x: Numbers, time: Numbers) -> float:
    """The least eigenvalue of the Hessian of -log q_t over points x (n, d); elsewhere it can be less."""
    return -one_sided(score, x, time)


@jax.jit
def _largest(score, x, t):
    def at(point):
        jacobian = jax.jacfwd(lambda p: score(p, t))(point)
        return (jacobian + jacobian.T) / 2

    return jnp.linalg.eigvalsh(jax.vmap(at)(x))[:, -1]


def spectral_gap(log_density: Callable[..., Any], box: Numbers, *, cells: Whole | None = None) -> float:
    """The least positive eigenvalue of -(Laplace + grad log q . grad) on a box, for d = 1 or 2: at least alpha.

    Args:
      log_density: (n, d) -> (n,), up to a constant; jax or numpy.
      box: ((low, high),) or two such pairs, with reflecting walls. `box_of` finds one for a law with Gaussian tails.
      cells: along each axis; default 4,000, or 160 in two dimensions.

    Returns:
      The gap, with an error of order 1/cells^2. For a Gaussian the relative error is below 1e-6, in two dimensions
      1e-3; it is 1e-4 where the density is computed in float32. A gap below 1e-15 of the largest eigenvalue, which is
      about 4/(width of a cell)^2, is rounding.

    Raises:
      ValueError: the box is not one of one or two dimensions, there are fewer than 2 cells, or the density is 0 or not
        finite in one of them.
    Source: finite volumes, symmetric in sqrt(q); SciPy's tridiagonal and shift-invert Lanczos solvers.
    """
    box = np.asarray(box, np.float64)
    if box.ndim != 2 or box.shape[0] not in (1, 2) or box.shape[1] != 2 or not (box[:, 0] < box[:, 1]).all():
        raise ValueError(f"box must be ((low, high),) for d = 1, two of those for d = 2: it has shape {box.shape}.")
    cells = CELLS[len(box)] if cells is None else cells
    if cells < 2:
        raise ValueError(f"a gap needs 2 cells or more along an axis: cells = {cells}.")
    edges = [np.linspace(low, high, cells + 1) for low, high in box]
    centres = [(edge[1:] + edge[:-1]) / 2 for edge in edges]
    points = lambda axes: np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))
    log_q = lambda axes: np.asarray(log_density(points(axes)), np.float64)
    middle = log_q(centres).reshape([cells] * len(box))
    faces = [
        log_q(
            [edge[1:-1] if axis == i else centre for i, (edge, centre) in enumerate(zip(edges, centres, strict=True))]
        )
        for axis in range(len(box))
    ]
    if not all(np.isfinite(part).all() for part in (middle, *faces)):
        raise ValueError("log_density must be finite all over the box: it is not. Take a smaller box.")
    if len(box) == 1:
        return _gap_on_the_line(middle, faces[0], edges[0][1] - edges[0][0])
    return _gap_in_the_plane(middle, faces, [edge[1] - edge[0] for edge in edges])


def box_of(log_density: Callable[..., Any], x: Numbers, *, depth: Number = DEPTH) -> tuple[tuple[float, float], ...]:
    """A box around points x (n, d) of a law, outside of which the density is at most e^-depth of the largest at x.

    The box grows until every point, moved along an axis to one of its walls, has a density below that. It misses modes
    that are far from all points.

    Raises:
      ValueError: the density at the points is not finite, or does not fall.
    """
    x = np.asarray(x, np.float64)
    level = float(np.max(np.asarray(log_density(x)))) - depth
    if not np.isfinite(level):
        raise ValueError("log_density must be finite at the points: it is not.")
    return tuple(
        (_wall(log_density, x, axis, -1, level), _wall(log_density, x, axis, 1, level)) for axis in range(x.shape[1])
    )


def _wall(log_density, x, axis, side, level):
    far = side * np.max(side * x[:, axis])
    step = max(1e-3, 0.1 * float(x[:, axis].std()))
    moved = x.copy()
    while True:
        moved[:, axis] = far
        if abs(far) > FARTHEST:
            raise ValueError(f"the density does not fall along axis {axis}: there is no box. Give one.")
        if not np.max(np.asarray(log_density(moved))) > level:
            return float(far)
        far, step = far + side * step, GROWTH * step


# The negative generator maps f to -sum over faces q_face (f_other - f_own)/(q_own h^2). Conjugated with sqrt(q) it is a
# symmetric matrix with the same eigenvalues.
def _gap_on_the_line(middle, face, h):
    from scipy.linalg import eigh_tridiagonal

    out, back = np.exp(face - middle[:-1]), np.exp(face - middle[1:])
    diagonal = np.append(out, 0) + np.append(0, back)
    beside = -np.exp(face - (middle[:-1] + middle[1:]) / 2)
    return float(eigh_tridiagonal(diagonal, beside, select="i", select_range=(1, 1))[0][0] / h**2)


def _gap_in_the_plane(middle, faces, widths):
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import eigsh

    index, n = np.arange(middle.size).reshape(middle.shape), middle.size
    entries = []
    for axis, (face, h) in enumerate(zip(faces, widths, strict=True)):
        face = np.moveaxis(face.reshape([m - (i == axis) for i, m in enumerate(middle.shape)]), axis, 0)
        log_q, place = np.moveaxis(middle, axis, 0), np.moveaxis(index, axis, 0)
        low, high, a, b = log_q[:-1], log_q[1:], place[:-1].ravel(), place[1:].ravel()
        beside = -np.exp(face - (low + high) / 2).ravel() / h**2
        entries += [(a, a, np.exp(face - low).ravel() / h**2), (b, b, np.exp(face - high).ravel() / h**2)]
        entries += [(a, b, beside), (b, a, beside)]
    rows, columns, values = (np.concatenate(part) for part in zip(*entries, strict=True))
    matrix = coo_array((values, (rows, columns)), shape=(n, n)).tocsc()
    # The shift sigma lies below 0, where the matrix is singular. The first of the two eigenvectors is sqrt(q).
    found = eigsh(matrix, k=2, sigma=-1e-3, which="LM", v0=np.exp((middle - middle.max()) / 2).ravel() + 1e-3)[0]
    return float(np.sort(found)[1])
