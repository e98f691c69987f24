"""Functions of symmetric operators: by eigenvalues, and by Lanczos' method on many operators at once.

Lanczos' method gives b^T f(A) b and f(A) b from a few products with A. Both ways have derivative rules of their own:
where eigenvalues coincide, eigenvectors have no derivative, but f(A) has one.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jaxtyping import Array, Float, Float64


class SpectralFunction(NamedTuple):
    """A function f of eigenvalues.

    Attributes:
      value: l -> f(l), elementwise.
      divided: (a, b) -> (f(a) - f(b))/(a - b), elementwise, and f'(a) where a = b.
    """

    value: Callable[..., Any]
    divided: Callable[..., Any]

    def slopes(self, values: Float[Array, "*batch m"]) -> Float[Array, "*batch m m"]:
        """The divided differences of all pairs: values (..., m) -> (..., m, m)."""
        return self.divided(values[..., :, None], values[..., None, :])


# The derivative of f(A) along E is E_ij f[l_i, l_j] in A's eigenbasis (Daleckii and Krein 1965). This differentiates no
# eigenvector, so equal eigenvalues do no harm.
@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def applied_in_full(
    function: SpectralFunction, matrix: Float[Array, "*batch d d"], b: Float[Array, "*batch d"]
) -> Float[Array, "*batch d"]:
    """f(A) b, (..., d), from the eigenvalues of symmetric matrices (..., d, d); `function` is a SpectralFunction.

    First derivatives exist in forward and reverse mode for every A.
    """
    values, axes = jnp.linalg.eigh(matrix)
    return _in_eigenbasis(function, values, axes, b)


@applied_in_full.defjvp
def _applied_in_full_jvp(function, primals, tangents):
    (matrix, b), (along, db) = primals, tangents
    values, axes = jnp.linalg.eigh(matrix)
    moved = _moved(function, values, axes, along, jnp.einsum("...ij,...i->...j", axes, b))
    return _in_eigenbasis(function, values, axes, b), moved + _in_eigenbasis(function, values, axes, db)


def _in_eigenbasis(function, values, axes, b):
    image = function.value(values) * jnp.einsum("...ij,...i->...j", axes, b)
    return jnp.einsum("...ij,...j->...i", axes, image)


def _moved(function, values, axes, along, coordinates):
    """The derivative of f(A) along a matrix, times a vector that is given by its coordinates in A's eigenbasis."""
    symmetric = (along + jnp.swapaxes(along, -1, -2)) / 2
    inside = jnp.einsum("...ki,...kl,...lj->...ij", axes, symmetric, axes)
    return jnp.einsum("...ij,...jk,...k->...i", axes, function.slopes(values) * inside, coordinates)


def tridiagonal(
    apply: Callable[..., Any], b: Float[Array, "n d"], n_products: int
) -> tuple[Float[Array, "n m m"], Float[Array, "m n d"]]:
    """Each row's operator in the Krylov space of b, by m <= d products and full reorthogonalisation.

    Returns the tridiagonal matrices (n, m, m) and the space's orthonormal basis (m, n, d).

    Args:
      apply: (n, d) -> (n, d), a symmetric operator on every row.
      b: (n, d), the first vector of each row's Krylov space.
      n_products: m.
    """
    return _krylov(apply, b, n_products)[:2]


def _krylov(apply, b, n_products):
    """What `tridiagonal` returns, and the remainder (n, d) of the product at which a space is complete before m.

    The remainder is that product's part outside of the space: 0 up to rounding. Its derivative tells how a change of
    the operator leads out of the space.
    """
    tiny, size = jnp.finfo(b.dtype).tiny, _norm(b)
    q = b / jnp.where(size > 0, jnp.maximum(size, tiny), 1)[:, None]

    def step(carried, k):
        basis, q, remainder = carried
        basis = lax.dynamic_update_index_in_dim(basis, q, k, 0)
        w = apply(q)
        diagonal = jnp.sum(w * q, -1)
        for _ in range(2):  # orthogonalising twice is enough (Kahan and Parlett)
            w = w - jnp.einsum("mnd,mn->nd", basis, jnp.einsum("mnd,nd->mn", basis, w))
        square, going_on = jnp.sum(w**2, -1), jnp.any(q != 0, -1)
        beside = lax.stop_gradient(jnp.sqrt(square))
        complete = beside <= jnp.finfo(b.dtype).eps ** 0.75 * (jnp.abs(diagonal) + beside + tiny)
        ends = complete & going_on & (k < n_products - 1)
        remainder = jnp.where(ends[:, None], w, remainder)
        beside = jnp.where(complete, 0, jnp.sqrt(jnp.where(complete, 1, square)))  # no root is differentiated at 0
        q = jnp.where(complete[:, None], 0, w / jnp.where(complete, 1, jnp.maximum(beside, tiny))[:, None])
        return (basis, q, remainder), (diagonal, beside)

    empty = jnp.zeros((n_products, *b.shape), b.dtype)
    (basis, _, remainder), (diagonal, beside) = lax.scan(step, (empty, q, jnp.zeros_like(b)), jnp.arange(n_products))
    matrix = jax.vmap(jnp.diag, 1)(diagonal)
    off = jax.vmap(lambda one: jnp.diag(one, 1), 1)(beside[:-1])
    return matrix + off + jnp.swapaxes(off, -1, -2), basis, remainder


def _norm(b):
    """|b| of every row, with derivative 0 at b = 0."""
    square = jnp.sum(b**2, -1)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def applied(
    function: SpectralFunction, apply: Callable[..., Any], b: Float[Array, "n d"], n_products: int
) -> Float[Array, "n d"]:
    """f(A) b, (n, d), by `n_products` products; the other arguments are as for `tridiagonal`.

    The result is exact if n_products is d, or if the Krylov space of b is complete. First derivatives, in forward and
    reverse mode, are those of the computed approximation. Where a Krylov space is complete after fewer than n_products
    products, they include changes of A that lead out of the space. That part assumes that all eigenvalues of A occur in
    the space, which is true for almost every b. At b = 0 the derivative with respect to b is taken as 0.
    """
    matrix, basis, remainder = _krylov(apply, b, n_products)
    size = _norm(b)[:, None]
    out = size * jnp.einsum("mnd,nm->nd", basis, _first_column(function, matrix))
    apply, constants = _opened(apply, b)
    return out + _remainder_term(function, apply, constants, matrix, size * remainder)


def _opened(apply, b):
    """The operator as a function of a vector and of all arrays that it closes over, and these arrays."""
    # jax.closure_convert would leave integers in the closure, such as the pivots of a linear solve.
    closed = jax.make_jaxpr(apply)(b)
    return lambda v, *constants: jaxpr_as_fun(ClosedJaxpr(closed.jaxpr, constants))(v)[0], closed.consts


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _first_column(function, matrix):
    """The first column of f(T), (n, m)."""
    nodes, vectors = jnp.linalg.eigh(matrix)
    return jnp.einsum("nij,nj,nj->ni", vectors, function.value(nodes), vectors[:, 0])


@_first_column.defjvp
def _first_column_jvp(function, primals, tangents):
    nodes, vectors = jnp.linalg.eigh(primals[0])
    column = jnp.einsum("nij,nj,nj->ni", vectors, function.value(nodes), vectors[:, 0])
    return column, _moved(function, nodes, vectors, tangents[0], vectors[:, 0])


# Let a space with basis Q = (q_1 ... q_k) be complete: A Q = Q T. For a changed operator A' the algorithm finds Q', T'
# and a remainder w with A' Q' = Q' T' + w e_k^T: A' couples q_k to the complement of the space by the small vector w.
# So, to first order, f(A') b is |b| Q' f(T') e_1 plus
#   |b| sum_ij f[l_i, l_j] S_1j S_kj P_i w,   T = S diag(l) S^T,   P_i the projection onto A's eigenspace of l_i.
# The polynomials p_j of Lanczos' recurrence, q_(j+1) = p_j(A) q_1, have the values S_(j+1)i/S_1i at l_i. So the
# polynomial in A with the values g_i = sum_j f[l_i, l_j] S_1j S_kj at l_i is sum_j c_j p_j(A), c = S (S_1 g).
@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _remainder_term(function, apply, constants, matrix, remainder):
    """Zeros (n, d), whose derivative is the part of the derivative of f(A) b that comes from the remainder."""
    return jnp.zeros_like(remainder)


@_remainder_term.defjvp
def _remainder_term_jvp(function, apply, primals, tangents):
    constants, matrix, remainder = primals
    moved = tangents[2]
    nodes, vectors = jnp.linalg.eigh(matrix)
    diagonal = jnp.diagonal(matrix, axis1=-2, axis2=-1)
    beside = jnp.pad(jnp.diagonal(matrix, 1, -2, -1), ((0, 0), (0, 1)))
    last = jnp.take_along_axis(vectors, jnp.sum(beside != 0, -1)[:, None, None], 1)[:, 0]
    wanted = jnp.einsum("nij,nj,nj->ni", function.slopes(nodes), vectors[:, 0], last)
    coefficients = jnp.einsum("nji,ni,ni->jn", vectors, vectors[:, 0], wanted)

    def step(carried, row):
        total, v, before = carried
        coefficient, diagonal, beside, beside_before = (one[:, None] for one in row)
        beyond = apply(v, *constants) - diagonal * v - beside_before * before
        beyond = jnp.where(beside > 0, beyond / jnp.where(beside > 0, beside, 1), 0)
        return (total + coefficient * v, beyond, v), None

    rows = coefficients, diagonal.T, beside.T, jnp.pad(beside, ((0, 0), (1, 0)))[:, :-1].T
    (total, _, _), _ = lax.scan(step, (jnp.zeros_like(moved), moved, jnp.zeros_like(moved)), rows)
    return jnp.zeros_like(remainder), total


def quadrature(matrix: Any, square: Any) -> tuple[Float64[np.ndarray, "*batch m"], Float64[np.ndarray, "*batch m"]]:
    """Nodes and weights (..., m) with sum_j weight_j f(node_j) ~ b^T f(A) b, from `tridiagonal` or a leading corner.

    The rule is exact for polynomials f of degree 2 m - 1, and for every f if m is d. `square` is |b|^2. NumPy.
    Source: Golub and Welsch 1969; Ubaru, Chen and Saad 2017 (stochastic Lanczos quadrature).
    """
    nodes, vectors = np.linalg.eigh(np.asarray(matrix, np.float64))
    return nodes, vectors[..., 0, :] ** 2 * np.asarray(square, np.float64)[..., None]
