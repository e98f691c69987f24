"""Measured loss curves: values and standard errors against closed forms, chunks, bad denoisers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import curves, targets
from jaxdiff.curves import loss_curve
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
    monkeypatch.setattr(curves, "ROWS_AT_ONCE", 17)
    parts = loss_curve(denoiser, data, key, **options)
    np.testing.assert_allclose(parts.rows, whole.rows, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(parts.by_group, whole.by_group, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("denoiser", "data", "message"),
    [
        (lambda x, t: x * jnp.nan, np.ones((5, 2)), "not finite, first at t = 3"),
        (lambda x, t: x[:, :1], np.ones((5, 2)), "shape"),
        (lambda x, t: x, np.ones((1, 2)), "n >= 2"),
        (lambda x, t: x, np.ones(5), r"\(n, d\)"),
    ],
)
def test_bad_denoisers_and_data_are_refused(denoiser, data, message, key):
    with pytest.raises(ValueError, match=message):
        loss_curve(denoiser, data, key, **ENDS, n_nodes=9)
