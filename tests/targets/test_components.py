"""Principal axes against the covariance written out, smoothing against quadrature and linear algebra."""

import numpy as np
import oracles
import pytest
from scipy import stats
from scipy.integrate import quad

from jaxdiff import targets
from jaxdiff.targets.components import Components, axes_of_mixture, blocks, centred

RNG = np.random.default_rng(0)


def test_blocks_cover_all_rows_once():
    rows = np.concatenate([np.arange(10_000)[some] for some in blocks(10_000, 700)])
    np.testing.assert_array_equal(rows, np.arange(10_000))


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_principal_axes_diagonalise_the_covariance_widest_first(full, shared):
    k, d = 5, 4
    weights, means, variances = RNG.dirichlet(np.ones(k)), 3 + RNG.normal(size=(k, d)), RNG.uniform(size=(k, d))
    axes = np.linalg.qr(RNG.normal(size=(k, d, d)))[0]
    own = slice(0, 1 if shared else k)
    axes_of = axes[own] if full else None
    found = axes_of_mixture(Components(np.log(weights), means, variances[own], axes_of))
    turns = axes if full else np.broadcast_to(np.eye(d), axes.shape)
    index = np.zeros(k, int) if shared else np.arange(k)
    covs = [turns[i] @ np.diag(variances[i]) @ turns[i].T for i in index]
    whole = np.cov(means.T, aweights=weights, ddof=0) + np.einsum("k,kde->de", weights, covs)
    turned = found.T @ whole @ found
    np.testing.assert_allclose(turned, np.diag(np.diag(turned)), atol=1e-13)
    assert (np.diff(np.diag(turned)) < 0).all()
    np.testing.assert_allclose(found.T @ found, np.eye(d), atol=1e-13)


def test_means_about_the_mixtures_in_other_coordinates():
    weights, means, axes = RNG.dirichlet(np.ones(900)), RNG.normal(size=(900, 700)), RNG.normal(size=(700, 2))
    c = Components(np.log(weights), means, np.zeros((1, 700)), None)
    np.testing.assert_allclose(weights @ centred(c), np.zeros(700), atol=1e-12)
    np.testing.assert_allclose(centred(c, axes), (means - np.average(means, axis=0, weights=weights)) @ axes, rtol=1e-9)


def _exact(law, t):
    """KL(q_0 || q_t) of a law on the line, by quadrature."""
    start, end = (lambda x, s=s: oracles.mixture_density(law, x, s) for s in (0.0, t))
    return quad(lambda x: start(x) * np.log(start(x) / end(x)), -9, 9, epsabs=0, epsrel=1e-9, limit=400, points=[0])[0]


@pytest.mark.parametrize("t", [0.003, 0.1, 1.0])
def test_smoothing_of_a_gaussian_is_exact_and_of_a_mixture_a_bound(t):
    line = targets.gaussian([0.7], [0.3])
    assert line.smoothing_kl(t) == pytest.approx(_exact(([1.0], [0.7], [0.3]), t), rel=1e-6)
    law = ([0.3, 0.7], [-1.0, 0.8], [0.05, 0.4])
    bound = targets.mixture(law[0], np.array(law[1])[:, None], np.array(law[2])[:, None]).smoothing_kl(t)
    exact = _exact(law, t)
    assert exact < bound
    far = ([0.3, 0.7], [-4.0, 4.0], [0.05, 0.4])  # apart, the bound is all but the KL while noise keeps them so
    bound = targets.mixture(far[0], np.array(far[1])[:, None], np.array(far[2])[:, None]).smoothing_kl(0.003)
    assert bound == pytest.approx(_exact(far, 0.003), rel=1e-4)


@pytest.mark.parametrize("shared", [False, True])
def test_smoothing_with_full_covariances_is_the_mean_of_matrix_kls(shared):
    k, d, t = 3, 4, 0.2
    weights, means = RNG.dirichlet(np.ones(k)), RNG.normal(size=(k, d))
    covs = [stats.wishart(d + 3, np.eye(d) / d).rvs(random_state=0 if shared else i) for i in range(k)]
    a, noise = np.exp(-t), -np.expm1(-2 * t)

    def kl(mean, cov):
        after = a**2 * cov + noise * np.eye(d)
        away = (1 - a) * mean
        inverse = np.linalg.inv(after)
        gain = np.linalg.slogdet(after)[1] - np.linalg.slogdet(cov)[1]
        return (np.trace(inverse @ cov) - d + away @ inverse @ away + gain) / 2

    want = sum(w * kl(m, c) for w, m, c in zip(weights, means, covs, strict=True))
    assert targets.mixture(weights, means, covs).smoothing_kl(t) == pytest.approx(want, rel=1e-11)
    assert targets.gaussian(means[0], covs[0]).smoothing_kl(t) == pytest.approx(kl(means[0], covs[0]), rel=1e-11)


def test_a_law_without_a_density_has_infinite_smoothing():
    assert targets.point_masses([[0.0], [1.0]]).smoothing_kl(0.1) == np.inf
    assert targets.gaussian([0.0, 0.0], [1.0, 0.0]).smoothing_kl(0.1) == np.inf
    assert targets.gaussian([1.0, 2.0], [1.0, 1.0]).smoothing_kl(0.0) == 0
    assert isinstance(targets.gaussian([1.0], [2.0]).smoothing_kl(np.float64(0.1)), float)
