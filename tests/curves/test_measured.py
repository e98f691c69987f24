"""Measured loss curves: values and standard errors against closed forms, chunks, bad denoisers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import targets
from jaxdiff.curves import loss, loss_curve
from jaxdiff.guarantees.path_kl import path_kl, path_kl_error
from jaxdiff.processes import denoiser_from_score, ou

ENDS = {"horizon": 3.0, "early_stop": 0.02}


def test_loss_curve_of_the_exact_denoiser_is_the_mmse_within_its_error(key):
    law = targets.gaussian(np.zeros(3), [0.3, 1.0, 2.0])
    curve = loss_curve(denoiser_from_score(law.score), law.sample(key, 5000), jax.random.key(4), **ENDS)
    snr = ou.snr(np.geomspace(0.02, 3, 17))
    assert (np.abs(curve(snr) - law.mmse(snr)) < 5 * curve.standard_error(snr)).all()
    assert (curve.standard_error(snr) < 0.05 * law.mmse(snr)).all()
    # Stein: the exact denoiser has E<D - X_0, Z> = sqrt(snr) V
    spread = curve.rows[:, len(curve.losses) :].std(0, ddof=1) / np.sqrt(5000)
    crosses = spread / np.sqrt(np.exp(curve.spline.u))
    error = np.interp(np.log(snr), curve.spline.u, crosses)
    assert (np.abs(curve.cross(snr) - np.sqrt(snr) * law.mmse(snr)) < 5 * error).all()


def test_loss_curve_of_a_useless_denoiser_is_the_second_moment(key):
    data = np.asarray(jax.random.normal(key, (400, 2)))
    curve = loss_curve(lambda x, t: jnp.zeros_like(x), data, key, **ENDS, n_nodes=9, n_noises=1)
    per_row = (data**2).sum(1)
    node = np.exp(curve.spline.u)
    np.testing.assert_allclose(curve(node), per_row.mean(), rtol=1e-12)
    np.testing.assert_allclose(curve.standard_error(node), per_row.std(ddof=1) / 20, rtol=1e-12)
    assert np.abs(curve.crosses).max() == 0


def test_whole_numbers_have_the_loss_curve_of_the_same_floats(key):
    data = np.random.default_rng(0).integers(-3, 4, (40, 2))
    denoiser = lambda x, t: 0.5 * x
    whole, floats = (loss_curve(denoiser, rows, key, **ENDS, n_nodes=9) for rows in (data, data.astype(np.float32)))
    np.testing.assert_array_equal(whole.losses, floats.losses)


@pytest.mark.parametrize("options", [{"horizon": 0.01, "early_stop": 1.0}, {"n_nodes": 4}, {"n_noises": 0}])
def test_impossible_levels_are_refused(options, key):
    with pytest.raises(ValueError, match=r"early_stop = 1|n_nodes = 4|n_noises = 0"):
        loss_curve(lambda x, t: x, np.ones((5, 2)), key, **(ENDS | options))


def test_loss_curve_does_not_depend_on_how_rows_are_chunked(key, monkeypatch):
    law = targets.gaussian(np.zeros(2), [0.3, 1.0])
    data, denoiser = law.sample(key, 50), denoiser_from_score(law.score)
    options = ENDS | {"n_nodes": 11, "basis": "pca"}
    whole = loss_curve(denoiser, data, key, **options)
    monkeypatch.setattr(loss, "ROWS_AT_ONCE", 17)
    parts = loss_curve(denoiser, data, key, **options)
    np.testing.assert_allclose(parts.rows, whole.rows, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(parts.by_group, whole.by_group, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("denoiser", "data", "message"),
    [
        (lambda x, t: x * jnp.nan, np.ones((5, 2)), "not finite, first at t = 3"),
        (lambda x, t: x[:, :1], np.ones((5, 2)), "shape"),
        (lambda x, t: x, np.array([[1.0], [np.nan], [2.0]]), "data are not finite, first in row 1"),
        (lambda x, t: x, np.ones((1, 2)), "n >= 2"),
        (lambda x, t: x, np.ones(5), r"\(n, d\)"),
    ],
)
def test_bad_denoisers_and_data_are_refused(denoiser, data, message, key):
    with pytest.raises(ValueError, match=message):
        loss_curve(denoiser, data, key, **ENDS, n_nodes=9)


def test_losses_at_the_nodes_of_a_grid_are_those_of_the_rows_there(key):
    data = np.asarray(jax.random.normal(key, (64, 2)))
    jump = lambda x, t: jnp.where(t > 0.5, 0.0, 1.0) * x
    grid = np.array([3.0, 0.5001, 0.4999, 0.02])
    plain, own = (loss_curve(jump, data, key, **ENDS, n_nodes=9, grid=g, basis="coordinates") for g in (None, grid))
    assert len(own.spline.levels) == 9 + 2
    np.testing.assert_array_equal(own.rows.reshape(64, 2, -1)[..., :9], plain.rows.reshape(64, 2, -1))
    for half in (own, *own.halves):
        at = half(ou.snr(grid[1:3]))
        assert at[0] == pytest.approx(half.squares.mean(), rel=1e-6)  # the denoiser is 0 there
        np.testing.assert_allclose(half.directions(ou.snr(grid)).sum(-1), half(ou.snr(grid)), rtol=1e-9)
    assert own(ou.snr(0.4999)) < 0.9 * own(ou.snr(0.5001))


def test_a_grid_beyond_the_curves_ends_is_refused(key):
    with pytest.raises(ValueError, match=r"the grid runs from 4 to 0\.1, the curve from 3 to 0\.02"):
        loss_curve(lambda x, t: x, np.ones((5, 2)), key, **ENDS, n_nodes=9, grid=[4.0, 0.1])


COV = np.array([[1.0, 0.4, 0.0], [0.4, 0.8, -0.2], [0.0, -0.2, 0.3]])
MATRIX = np.array([[0.6, 0.5, -0.1], [-0.2, 0.3, 0.4], [0.3, -0.5, 0.4]])
AXES = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]


def linear(x, t):
    return jnp.matmul(x, jnp.asarray(MATRIX, x.dtype).T, precision="highest")


def rows_of(n, seed=0):
    return np.random.default_rng(seed).standard_normal((n, 3)) @ np.linalg.cholesky(COV).T


@pytest.mark.parametrize("basis", ["pca", "coordinates", AXES], ids=["pca", "coordinates", "array"])
def test_losses_along_directions_have_the_closed_form_and_add_up_to_the_loss(basis, key):
    data = rows_of(6000)
    curve = loss_curve(linear, data, key, **ENDS, basis=basis, n_nodes=41, n_noises=1)
    snr = np.array([0.01, 0.3, 2.0, 15.0])
    along = curve.directions(snr)
    assert along.shape == (4, 3)
    np.testing.assert_allclose(along.sum(-1), curve(snr), rtol=1e-10)
    axes = np.eye(3) if isinstance(basis, str) and basis == "coordinates" else np.asarray(curve.basis, np.float64)
    if isinstance(basis, np.ndarray):
        np.testing.assert_array_equal(curve.basis, basis)
    elif basis == "pca":
        turned = np.cov(data @ axes, rowvar=False)
        np.testing.assert_allclose(turned, np.diag(np.diag(turned)), atol=1e-12)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)
    for k, level in enumerate(snr):
        alpha, sigma2 = np.sqrt(level / (1 + level)), 1 / (1 + level)
        left = np.eye(3) - alpha * MATRIX
        residual = left @ COV @ left.T + sigma2 * MATRIX @ MATRIX.T
        groups = np.array([one.directions(level[None])[0] for one in curve.replicates])
        error = groups.std(0, ddof=1) / np.sqrt(len(groups))
        assert (np.abs(along[k] - np.diag(axes.T @ residual @ axes)) < 5 * error).all()
        assert (error < 0.06 * along[k]).all()


@pytest.mark.parametrize("n", [64, 50, 5])
def test_groups_of_rows_average_to_the_losses_along_directions(n, key):
    curve = loss_curve(linear, rows_of(n), key, **ENDS, basis="pca", n_nodes=9, n_noises=1)
    groups, snr = min(n, 32), np.array([0.1, 3.0])
    values = np.array([one.directions(snr) for one in curve.replicates])
    assert len(values) == groups
    np.testing.assert_allclose(
        np.tensordot(np.bincount(np.arange(n) % groups) / n, values, 1), curve.directions(snr), rtol=1e-10
    )
    np.testing.assert_allclose(values.sum(-1), [one(snr) for one in curve.replicates], rtol=1e-10)


@pytest.mark.parametrize(
    ("basis", "message"),
    [
        (1.1 * np.eye(3), "orthonormal columns"),
        (np.full((3, 3), np.nan), "orthonormal columns"),
        (np.eye(2), r"shape \(3, 3\): its shape is \(2, 2\)"),
        (np.eye(3)[:, :2], r"its shape is \(3, 2\)"),
        ("axes", "basis = 'axes'"),
    ],
)
def test_what_is_no_basis_is_refused(basis, message, key):
    with pytest.raises(ValueError, match=message):
        loss_curve(linear, rows_of(9), key, **ENDS, basis=basis, n_nodes=9)


def test_a_basis_that_is_not_the_curves_is_refused(key):
    grid = np.array([2.0, 0.5, 0.1])
    turned, plain = (loss_curve(linear, rows_of(9), key, **ENDS, basis=b, n_nodes=9) for b in (AXES, None))
    assert np.isfinite(path_kl("moment_matched", turned, grid, basis=AXES))
    for basis in (AXES[:, ::-1], np.eye(3), "coordinates", np.eye(2)):
        with pytest.raises(ValueError, match=r"basis=curve\.basis"):
            path_kl("moment_matched", turned, grid, basis=basis)
    with pytest.raises(ValueError, match=r"basis=curve\.basis"):  # the curve that sets the variances has its own
        path_kl("moment_matched", turned, grid, basis=AXES, matched=targets.gaussian(np.zeros(3), COV).mmse)
    with pytest.raises(ValueError, match="has no errors along directions"):
        path_kl("moment_matched", plain, grid, basis="coordinates")
    with pytest.raises(ValueError, match="moment_matched alone"):
        path_kl("ancestral", turned, grid, basis=AXES)


# With variances set from other data a path KL is linear in the losses, and the spread of groups is unbiased.
def test_the_error_of_a_path_kl_by_directions_is_its_spread_over_repeated_data():
    law, grid = targets.gaussian([0.0, 0.0], [0.3, 1.5]), np.array([2.0, 0.9, 0.3])
    denoiser, options = denoiser_from_score(law.score), {"matched": law.mmse, "basis": "coordinates"}
    ends = {"horizon": 2.0, "early_stop": 0.3, "n_nodes": 15, "n_noises": 1, "basis": "coordinates"}
    values, errors = [], []
    for i in range(60):
        curve = loss_curve(denoiser, law.sample(jax.random.key(i), 320), jax.random.key(500 + i), **ends)
        values.append(path_kl("moment_matched", curve, grid, **options))
        errors.append(path_kl_error("moment_matched", curve, grid, **options))
    ratio = np.std(values, ddof=1) / np.sqrt(np.mean(np.square(errors)))
    assert abs(ratio - 1) < 5 * np.sqrt(1 / (2 * 59))
    assert abs(np.mean(values)) < 5 * np.std(values, ddof=1) / np.sqrt(60)  # nothing, on a Gaussian in its eigenbasis
