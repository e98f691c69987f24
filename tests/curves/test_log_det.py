"""Quadratures in the eigenvalue against the sums over all eigenvalues that they stand for."""

import numpy as np
import pytest

from jaxdiff.curves.log_det import compress, log_det_of_spectra

RNG = np.random.default_rng(0)
SPECTRA = {
    "uniform": RNG.uniform(size=(3, 500)),
    "forty decades": 10.0 ** RNG.uniform(-40, 0, size=(2, 800)),
    "lognormal": 1e-5 * np.exp(4 * RNG.normal(size=(2, 500))),
    "one value": np.full((1, 7), 0.3),
    "mostly zeros": np.concatenate([np.zeros((2, 20)), [[1.0, 1e-3, 1e-17], [1e-2, 1e-3, 1e-4]]], axis=1),
}


@pytest.mark.parametrize("values", SPECTRA.values(), ids=SPECTRA)
def test_log_det_of_every_h_is_that_of_all_the_eigenvalues(values):
    mass = RNG.uniform(size=values.shape[1])
    nodes, weights = compress(values, mass)
    assert len(nodes) <= 16 * 19
    for h in np.geomspace(1e-3, 1e8, 23) / values.max():
        np.testing.assert_allclose(np.log1p(h * nodes) @ weights, np.log1p(h * values) @ mass, rtol=1e-12)


def test_no_eigenvalue_but_zero_has_no_log_det():
    nodes, weights = compress(np.zeros((2, 5)), np.ones(5))
    np.testing.assert_array_equal(np.log1p(3 * nodes) @ weights, [0, 0])


def test_log_det_broadcasts_and_asks_for_each_level_once():
    asked = []

    def spectrum(snr):  # two groups: one eigenvalue 1/snr, two of 2/snr
        asked.append(snr)
        return np.array([1.0, 2.0]) / snr, np.array([[1.0, 0.0], [0.0, 2.0]])

    snr, h = np.array([4.0, 0.5, 4.0]), np.array([[0.1], [3.0]])
    got = log_det_of_spectra(spectrum)(snr, h)
    np.testing.assert_allclose(got, np.stack([np.log1p(h / snr), 2 * np.log1p(2 * h / snr)], axis=-1), rtol=1e-14)
    assert sorted(asked) == [0.5, 4.0]
    assert log_det_of_spectra(spectrum)(1.0, 2.0).shape == (2,)
