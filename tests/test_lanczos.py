"""Lanczos quadratures against matrix functions: exact in full and to degree 2m - 1; low rank, zero starts, float32.

Functions of operators, by Lanczos and by eigenvalues, have the derivatives of the matrix exponential that SciPy gives.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matfree import decomp, funm
from scipy.linalg import expm, expm_frechet, logm

from jaxdiff.lanczos import SpectralFunction, applied, applied_in_full, quadrature, tridiagonal

RNG = np.random.default_rng(0)


def operators(n, d, rank=None):
    """n random symmetric positive semi-definite matrices with eigenvalues from 1e-3 to 10, and starts."""
    axes = np.linalg.qr(RNG.standard_normal((n, d, d)))[0]
    values = 10 ** RNG.uniform(-3, 1, (n, d))
    if rank is not None:
        values[:, rank:] = 0
    return np.einsum("nij,nj,nkj->nik", axes, values, axes), RNG.standard_normal((n, d))


@functools.partial(jax.jit, static_argnames="m")
def run(matrices, b, m):
    return tridiagonal(lambda v: jnp.einsum("nij,nj->ni", matrices, v), b, m)[0]


def rule(matrices, starts, m, dtype=jnp.float64):
    """Nodes and weights, and the tridiagonal matrices."""
    matrices, b = jnp.asarray(matrices, dtype), jnp.asarray(starts, dtype)
    tridiagonals = run(matrices, b, m)
    assert tridiagonals.dtype == dtype
    nodes, weights = quadrature(tridiagonals, jnp.sum(b**2, -1))
    assert nodes.dtype == weights.dtype == np.float64
    return nodes, weights, tridiagonals


def quadratic_form(matrices, starts, function):
    return [b @ function(a) @ b for a, b in zip(matrices, starts, strict=True)]


def log1p_of(matrix):
    return logm(np.eye(len(matrix)) + matrix).real


@pytest.mark.parametrize("d", [1, 8])
def test_d_products_are_exact_for_every_function(d):
    matrices, starts = operators(6, d)
    nodes, weights, _ = rule(matrices, starts, d)
    got = np.sum(weights * np.log1p(nodes), -1)
    np.testing.assert_allclose(got, quadratic_form(matrices, starts, log1p_of), rtol=1e-10)
    np.testing.assert_allclose(np.sort(nodes), np.linalg.eigvalsh(matrices), rtol=1e-8, atol=1e-11)


def test_an_indefinite_operator_keeps_its_negative_eigenvalues():
    matrices = RNG.standard_normal((6, 8, 8))
    matrices += np.swapaxes(matrices, 1, 2)
    nodes, weights, _ = rule(matrices, RNG.standard_normal((6, 8)), 8)
    np.testing.assert_allclose(np.sort(nodes), np.linalg.eigvalsh(matrices), atol=1e-11)
    assert (weights >= 0).all()


@pytest.mark.parametrize("m", [1, 2, 4])
def test_fewer_products_are_exact_to_degree_2m_less_1_and_no_further(m):
    matrices, starts = operators(6, 8)
    matrices = matrices + np.diag(np.arange(8.0))  # eigenvalues well apart
    nodes, weights, _ = rule(matrices, starts, m)
    assert nodes.shape == weights.shape == (6, m)
    moment = lambda power: np.array(quadratic_form(matrices, starts, lambda a: np.linalg.matrix_power(a, power)))
    for power in range(2 * m):
        np.testing.assert_allclose(np.sum(weights * nodes**power, -1), moment(power), rtol=1e-10)
    assert (np.sum(weights * nodes ** (2 * m), -1) < moment(2 * m) * (1 - 1e-8)).all()


# The same Krylov spaces by another implementation: matfree's Lanczos method, with its own reorthogonalisation.
@pytest.mark.parametrize("m", [1, 3, 6])
def test_quadratures_and_functions_of_operators_are_those_of_matfree(m):
    matrices, starts = operators(4, 9)
    nodes, weights, _ = rule(matrices, starts, m)
    log1p = SpectralFunction(jnp.log1p, lambda a, b: jnp.where(a == b, 1 / (1 + a), 0))
    got = applied(log1p, lambda v: jnp.einsum("nij,nj->ni", matrices, v), jnp.asarray(starts), m)
    theirs = funm.dense_funm_sym_eigh(jnp.log1p), decomp.tridiag_sym(m)
    on_rows = lambda function: jax.jit(jax.vmap(lambda a, b: function(*theirs)(lambda v: a @ v, b)))(matrices, starts)
    want = on_rows(funm.monte_carlo_funm_sym)
    np.testing.assert_allclose(np.sum(weights * np.log1p(nodes), -1), want, rtol=1e-9)
    np.testing.assert_allclose(got, on_rows(funm.funm_lanczos_sym), rtol=1e-8, atol=1e-10)


def test_a_leading_corner_is_the_rule_of_fewer_products():
    matrices, starts = operators(6, 8)
    _, _, eight = rule(matrices, starts, 8)
    nodes, weights, four = rule(matrices, starts, 4)
    np.testing.assert_allclose(eight[:, :4, :4], four, atol=1e-12)
    corner_nodes, corner_weights = quadrature(np.asarray(eight)[:, :4, :4], np.sum(starts**2, -1))
    np.testing.assert_allclose(corner_nodes, nodes, atol=1e-12)
    np.testing.assert_allclose(corner_weights, weights, atol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("rank", [0, 1, 3])
def test_a_krylov_space_that_ends_early_does_no_harm(rank, dtype):
    matrices, starts = operators(6, 8, rank)
    nodes, weights, _ = rule(matrices, starts, 8, dtype)
    assert np.isfinite(nodes).all()
    want = quadratic_form(matrices, starts, log1p_of)
    close = 1e-10 if dtype == jnp.float64 else 3e-5
    np.testing.assert_allclose(np.sum(weights * np.log1p(nodes), -1), want, rtol=close, atol=close)
    np.testing.assert_allclose(weights.sum(-1), np.sum(starts**2, -1), rtol=close)
    multiple = np.broadcast_to(3.0 * np.eye(8), (6, 8, 8))  # of which one product says all
    nodes, weights, _ = rule(multiple, np.ones((6, 8)), 8, dtype)
    np.testing.assert_allclose(np.sum(weights * np.log1p(nodes), -1), 8 * np.log(4.0), rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_zero_start_has_no_weight_and_leaves_the_other_rows_alone(dtype):
    matrices, starts = operators(6, 8)
    whole_nodes, whole_weights, _ = rule(matrices, starts, 8, dtype)
    starts[1] = 0
    nodes, weights, _ = rule(matrices, starts, 8, dtype)
    assert np.isfinite(nodes).all()
    assert (weights[1] == 0).all()
    others = [0, 2, 3, 4, 5]
    np.testing.assert_allclose(nodes[others], whole_nodes[others], rtol=1e-6)
    np.testing.assert_allclose(weights[others], whole_weights[others], rtol=1e-6)


def test_float32_is_right_to_its_precision():
    matrices, starts = operators(6, 8)
    nodes, weights, _ = rule(matrices, starts, 8, jnp.float32)
    got = np.sum(weights * np.log1p(nodes), -1)
    np.testing.assert_allclose(got, quadratic_form(matrices, starts, log1p_of), rtol=2e-5)


def _divided(a, b):
    half = (a - b) / 2
    return jnp.exp((a + b) / 2) * jnp.where(half == 0, 1, jnp.sinh(half) / jnp.where(half == 0, 1, half))


EXP = SpectralFunction(jnp.exp, _divided)


def in_full(matrices, b):
    return applied_in_full(EXP, matrices, b)


@functools.cache  # so that a number of products is compiled once
def by_lanczos(m):
    return lambda matrices, b: applied(EXP, lambda v: jnp.einsum("nij,nj->ni", matrices, v), b, m)


def turned(values, n=3):
    """Symmetric matrices with the given eigenvalues in n bases, and the bases."""
    axes = np.linalg.qr(RNG.standard_normal((n, len(values), len(values))))[0]
    return np.einsum("nij,j,nkj->nik", axes, values, axes), axes


def directions(n=3, d=6):
    """A symmetric matrix a row, and a vector."""
    along = RNG.standard_normal((n, d, d))
    return along + np.swapaxes(along, 1, 2), RNG.standard_normal((n, d))


WEIGHTS = np.random.default_rng(1).standard_normal((3, 6))  # of the entries of f(A) b


@functools.partial(jax.jit, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0})
def derivatives(value, matrices, b, along, db):
    """The derivatives of the weighed f(A) b along matrices and along db: in forward and in reverse mode, under vmap."""
    weighed = lambda matrices, b: jnp.sum(WEIGHTS * value(matrices, b))

    @jax.vmap
    def both(along, db):
        forward = jax.jvp(weighed, (matrices, b), (along, db))[1]
        by_matrices, by_b = jax.grad(weighed, argnums=(0, 1))(matrices, b)
        return forward, jnp.sum(by_matrices * along) + jnp.sum(by_b * db)

    return both(jnp.stack([along, jnp.zeros_like(along)]), jnp.stack([jnp.zeros_like(db), db]))


def check_exact(value, matrices, b, along, db):
    """The derivatives are those of the matrix exponential."""
    forward, reverse = derivatives(value, matrices, b, along, db)
    moved = [expm_frechet(a, e, compute_expm=False) @ row for a, e, row in zip(matrices, along, b, strict=True)]
    other = [expm(a) @ row for a, row in zip(matrices, db, strict=True)]
    want = [np.sum(WEIGHTS * moved), np.sum(WEIGHTS * other)]
    np.testing.assert_allclose(forward, want, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(reverse, want, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("values", "products"),
    [
        ([-1.0, -0.7, -0.1, 0.3, 0.5, 1.2], (6,)),
        ([-0.8, -0.8, 0.1, 0.1, 0.9, 0.9], (4, 6)),
        ([0.2, 0.2, 0.2, 0.2, 0.2, 1.0], (4, 6)),
        ([0.4] * 6, (4, 6)),
        ([0.0] * 6, (4, 6)),
    ],
)
def test_derivatives_of_a_function_of_operators_are_exact_where_eigenvalues_coincide(values, products):
    matrices, _ = turned(values)
    if len(set(values)) == 1:
        matrices = np.broadcast_to(values[0] * np.eye(6), matrices.shape)
    b, given = RNG.standard_normal((3, 6)), directions()
    for value in (in_full, *map(by_lanczos, products)):
        check_exact(value, matrices, b, *given)


def test_derivatives_at_a_vector_of_an_invariant_subspace_are_exact():
    matrices, axes = turned([-1.0, -0.7, -0.1, 0.3, 0.5, 1.2])
    b = np.einsum("nij,j->ni", axes, [0.5, -1.0, 0, 0, 0, 0])
    along, db = directions()
    check_exact(in_full, matrices, b, along, db)
    inside = axes[..., :2] @ np.swapaxes(
        axes[..., :2], 1, 2
    )  # Lanczos sees no other eigenvalue than those of the space
    along, db = inside @ along @ inside, np.einsum("nij,nj->ni", inside, db)
    for products in (4, 6):
        check_exact(by_lanczos(products), matrices, b, along, db)


def test_derivatives_at_a_zero_vector_are_finite():
    matrices, _ = turned([-1.0, -0.7, -0.1, 0.3, 0.5, 1.2])
    b, given = np.zeros((3, 6)), directions()
    check_exact(in_full, matrices, b, *given)
    for products in (4, 6):
        forward, reverse = derivatives(by_lanczos(products), matrices, b, *given)
        np.testing.assert_array_equal(forward, 0)
        np.testing.assert_array_equal(reverse, 0)


def test_fewer_products_have_the_derivatives_of_what_they_compute():
    matrices, _ = turned([-1.0, -0.7, -0.1, 0.3, 0.5, 1.2])
    b, (along, db) = RNG.standard_normal((3, 6)), directions()
    forward, reverse = derivatives(by_lanczos(4), matrices, b, along, db)

    def projected(h, k):
        found = []
        for a, row in zip(matrices + h * along, b + k * db, strict=True):
            basis = np.linalg.qr(np.stack([np.linalg.matrix_power(a, j) @ row for j in range(4)], 1))[0]
            found.append(basis @ expm(basis.T @ a @ basis) @ basis.T @ row)
        return np.sum(WEIGHTS * found)

    h = 1e-5
    want = [(projected(h, 0) - projected(-h, 0)) / (2 * h), (projected(0, h) - projected(0, -h)) / (2 * h)]
    np.testing.assert_allclose(forward, want, rtol=1e-7)
    np.testing.assert_allclose(reverse, want, rtol=1e-7)
