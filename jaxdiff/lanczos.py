"""Lanczos' method on many symmetric operators at once: b^T f(A) b and f(A) b from a few products with A."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def tridiagonal(apply, b, n_products):
    """Each row's operator in the Krylov space of b, by m <= d products and full reorthogonalisation.

    Returns the tridiagonal matrices (n, m, m) and the space's orthonormal basis (m, n, d).

    Args:
      apply: (n, d) -> (n, d), a symmetric operator on every row.
      b: (n, d) where each row's Krylov space starts.
      n_products: m.
    """
    tiny = jnp.finfo(b.dtype).tiny
    size = jnp.sqrt(jnp.sum(b**2, -1))
    q = b / jnp.maximum(size, tiny)[:, None]

    def step(carried, k):
        basis, q = carried
        basis = lax.dynamic_update_index_in_dim(basis, q, k, 0)
        w = apply(q)
        diagonal = jnp.sum(w * q, -1)
        for _ in range(2):  # twice is enough
            w = w - jnp.einsum("mnd,mn->nd", basis, jnp.einsum("mnd,nd->mn", basis, w))
        beside = jnp.sqrt(jnp.sum(w**2, -1))
        complete = beside <= jnp.finfo(b.dtype).eps ** 0.75 * (jnp.abs(diagonal) + beside + tiny)
        beside = jnp.where(complete, 0, beside)
        q = jnp.where(complete[:, None], 0, w / jnp.maximum(beside, tiny)[:, None])
        return (basis, q), (diagonal, beside)

    empty = jnp.zeros((n_products, *b.shape), b.dtype)
    (basis, _), (diagonal, beside) = lax.scan(step, (empty, q), jnp.arange(n_products))
    matrix = jax.vmap(jnp.diag, 1)(diagonal)
    off = jax.vmap(lambda one: jnp.diag(one, 1), 1)(beside[:-1])
    return matrix + off + jnp.swapaxes(off, -1, -2), basis


def applied(function, apply, b, n_products):
    """f(A) b, (n, d), for a function of eigenvalues; arguments as for `tridiagonal`. Exact once n_products is d."""
    matrix, basis = tridiagonal(apply, b, n_products)
    nodes, vectors = jnp.linalg.eigh(matrix)
    inside = jnp.einsum("nij,nj,nj->ni", vectors, function(nodes), vectors[:, 0])
    return jnp.sqrt(jnp.sum(b**2, -1, keepdims=True)) * jnp.einsum("mnd,nm->nd", basis, inside)


def quadrature(matrix, square):
    """Nodes and weights (..., m) with sum_j weight_j f(node_j) ~ b^T f(A) b, from `tridiagonal` or its corners; NumPy.

    Exact for polynomials f of degree 2 m - 1, and for every f once m is d. `square` is |b|^2.
    Source: Golub and Welsch 1969; Ubaru, Chen and Saad 2017 (stochastic Lanczos quadrature).
    """
    nodes, vectors = np.linalg.eigh(np.asarray(matrix, np.float64))
    return nodes, vectors[..., 0, :] ** 2 * np.asarray(square, np.float64)[..., None]
