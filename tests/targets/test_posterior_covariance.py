"""Posterior covariances against Bayes component by component, with inverses and SciPy's densities."""

import numpy as np
import pytest
from scipy import special, stats

from jaxdiff.targets import components, distinct_covariances
from jaxdiff.targets.components import Components, axes_of_mixture
from jaxdiff.targets.posterior_covariance import Distinct, Shared, form_of

RNG = np.random.default_rng(0)


def _laws():
    """name -> Components: every form, with fewer and with more components than coordinates."""
    for k, d in ((3, 5), (7, 2), (40, 6)):
        weights, means, wide = RNG.dirichlet(np.ones(k)), 2 + RNG.normal(size=(k, d)), RNG.uniform(0.05, 1, (k, d))
        axes = np.linalg.qr(RNG.normal(size=(k, d, d)))[0]
        for name, variances, turns in (
            ("points", np.zeros((1, d)), None),
            ("balls", np.full((1, d), 0.2), None),
            ("balls, turned", np.full((1, d), 0.2), axes[:1]),
            ("shared", wide[:1], None),
            ("shared, turned", wide[:1], axes[:1]),
            ("distinct", wide, None),
            ("distinct, turned", wide, axes),
        ):
            yield f"{name} {k} in {d}", Components(np.log(weights), means, variances, turns)


LAWS = dict(_laws())


def _full(c):
    d = c.means.shape[1]
    axes = np.eye(d)[None] if c.axes is None else c.axes
    covs = np.einsum("kde,ke,kfe->kdf", np.broadcast_to(axes, (len(c.variances), d, d)), c.variances, axes)
    return np.broadcast_to(covs, (len(c.means), d, d))


def _posterior(c, y, snr):
    """Weights (K,), means (K, d) and covariances (K, d, d) of the components given one row."""
    d = len(y)
    seen = [cov + np.eye(d) / snr for cov in _full(c)]
    log_share = c.log_weights + [
        stats.multivariate_normal(m, cov).logpdf(y) for m, cov in zip(c.means, seen, strict=True)
    ]
    share = np.exp(log_share - special.logsumexp(log_share))
    gains = [cov @ np.linalg.inv(total) for cov, total in zip(_full(c), seen, strict=True)]
    means = np.array([m + g @ (y - m) for m, g in zip(c.means, gains, strict=True)])
    return share, means, np.array([cov - g @ cov for cov, g in zip(_full(c), gains, strict=True)])


def _bayes(c, y, snr):
    """Cov(X_0 | y) of one row, (d, d)."""
    share, means, own = _posterior(c, y, snr)
    away = means - share @ means
    return np.einsum("k,kde->de", share, own) + np.einsum("k,kd,ke->de", share, away, away)


def _coordinates(form, basis):
    """(d, r): the coordinates in which a form observes, in columns."""
    if isinstance(form, Distinct):
        return np.eye(len(basis))
    return basis[:, : form.width] if form.to_axes is None else basis @ form.to_axes.T


@pytest.mark.parametrize("c", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("snr", [0.03, 1.0, 60.0])
def test_a_posterior_covariance_is_that_of_bayes(c, snr):
    basis = axes_of_mixture(c)
    form, n = form_of(c, basis), 6
    y = form.noised(RNG.integers(len(c.means), size=n), RNG.normal(size=(n, form.width)), snr)
    rows = np.exp(c.log_weights) @ c.means + y @ _coordinates(form, basis).T
    want = np.array([_bayes(c, row, snr) for row in rows])
    np.testing.assert_allclose(form.trace(y, snr), np.trace(want, axis1=1, axis2=2), rtol=1e-9, atol=1e-13)
    along = np.einsum("di,nde,ei->ni", basis, want, basis)
    np.testing.assert_allclose(form.along(y, snr), along, rtol=1e-8, atol=1e-13)
    theta = form.eigenvalues(y, snr)
    assert theta.shape == (n, len(form.multiplicity))
    assert form.multiplicity.sum() == c.means.shape[1]
    for h in (0.1, 30.0):
        log_det = np.linalg.slogdet(np.eye(len(basis)) + h * want)[1]
        np.testing.assert_allclose(np.log1p(h * theta) @ form.multiplicity, log_det, rtol=1e-9, atol=1e-12)


# Near one component the others' share is 1e-4 to 1e-13. The spread taken pair by pair has all its digits.
@pytest.mark.parametrize("name", ["points", "needles", "needles, turned", "distinct"])
def test_a_posterior_that_is_all_but_certain_keeps_the_digits_of_its_spread(name):
    k, d = 7, 10
    widths = {"points": np.zeros((1, 1)), "distinct": np.arange(1.0, k + 1)[:, None]}.get(name, np.ones((1, 1)))
    variances = widths * np.append(np.zeros(d - 1), 1e-14)
    axes = np.linalg.qr(RNG.normal(size=(1, d, d)))[0] if name.endswith("turned") else None
    c = Components(np.log(RNG.dirichlet(np.full(k, 9))), 2 + 3 * np.eye(k, d), variances, axes)
    basis, mean = axes_of_mixture(c), np.exp(c.log_weights) @ c.means
    form, apart = form_of(c, basis), c.means[1] - c.means[0]
    snr, rows = 60 / np.sum(apart**2), c.means[0] + np.array([[0.35], [0.2], [0.0]]) * apart
    want = []
    for row in rows:
        share, means, own = _posterior(c, row, snr)
        gaps = means[:, None] - means
        want.append(np.einsum("k,kde->de", share, own) + np.einsum("k,l,kld,kle->de", share, share, gaps, gaps) / 2)
    y, total = (rows - mean) @ _coordinates(form, basis), np.trace(want, axis1=1, axis2=2)
    assert total[-1] < 1e-8 < total[0]
    np.testing.assert_allclose(form.trace(y, snr), total, rtol=1e-9)
    each = np.einsum("di,nde,ei->ni", basis, want, basis)
    np.testing.assert_allclose(form.along(y, snr) / total[:, None], each / total[:, None], rtol=1e-9, atol=1e-12)
    theta, values = form.eigenvalues(y, snr) / total[:, None], np.linalg.eigvalsh(want) / total[:, None]
    np.testing.assert_allclose(np.log1p(theta) @ form.multiplicity, np.log1p(values).sum(-1), rtol=1e-9)


# mmse_{c X}(snr) = c^2 mmse_X(c^2 snr), observation by observation.
@pytest.mark.parametrize("name", LAWS)
def test_moments_of_a_law_in_other_units_are_those_of_the_law(name):
    c = LAWS[name]
    basis, label = axes_of_mixture(c), np.arange(len(c.means))
    form = form_of(c, basis)
    z = RNG.normal(size=(len(label), form.width))
    for unit in (1e-6, 1e6):
        other = form_of(c._replace(means=unit * c.means, variances=unit**2 * c.variances), basis)
        for snr in (0.7, 1e4):
            y = unit * form.noised(label, z, snr)
            np.testing.assert_allclose(other.noised(label, z, snr / unit**2), y, rtol=1e-9, atol=1e-12 * unit)
            for found in ("trace", "along", "eigenvalues"):
                want = getattr(form, found)(y / unit, snr)
                got = getattr(other, found)(y, snr / unit**2) / unit**2
                np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-13 * want.max())


@pytest.mark.parametrize("name", [name for name in LAWS if name.endswith("40 in 6")])
def test_rows_and_components_may_be_gone_through_a_few_at_a_time(name, monkeypatch):
    form = form_of(LAWS[name], axes_of_mixture(LAWS[name]))
    y = form.noised(np.arange(40), RNG.normal(size=(40, 6)), 0.7)
    whole = form.trace(y, 0.7), form.along(y, 0.7), form.eigenvalues(y, 0.7)
    monkeypatch.setattr(components, "ELEMENTS_AT_ONCE", 50)
    monkeypatch.setattr(components, "LEAST_ROWS", 7)
    for got, want in zip((form.trace(y, 0.7), form.along(y, 0.7), form.eigenvalues(y, 0.7)), whole, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10)


@pytest.mark.parametrize("name", LAWS)
def test_an_observation_is_the_component_and_noise_of_its_covariance(name):
    c = LAWS[name]
    basis = axes_of_mixture(c)
    form, snr, label = form_of(c, basis), 2.0, len(c.means) - 1
    to = _coordinates(form, basis)
    each = form.noised(np.full(form.width, label), np.eye(form.width), snr)
    mean = form.noised(np.array([label]), np.zeros((1, form.width)), snr)
    np.testing.assert_allclose(mean[0], (c.means[label] - np.exp(c.log_weights) @ c.means) @ to, atol=1e-12)
    root = each - mean
    np.testing.assert_allclose(root.T @ root, to.T @ (_full(c)[label] + np.eye(len(basis)) / snr) @ to, atol=1e-12)


def test_one_covariance_for_all_takes_matrix_products_and_few_points_their_own_span():
    for name, c in LAWS.items():
        form = form_of(c, axes_of_mixture(c))
        assert isinstance(form, Distinct if name.startswith("distinct") else Shared)
    assert form_of(LAWS["points 3 in 5"], axes_of_mixture(LAWS["points 3 in 5"])).width == 2
    c = LAWS["balls 3 in 5"]
    without, within = form_of(c, None), form_of(c, axes_of_mixture(c))  # the span from the points alone
    assert without.width == 2
    y = np.zeros((1, 2))
    np.testing.assert_allclose(without.trace(y, 0.7), within.trace(y, 0.7), rtol=1e-12)
    np.testing.assert_allclose(without.eigenvalues(y, 0.7), within.eigenvalues(y, 0.7), rtol=1e-9)
    assert form_of(LAWS["points 7 in 2"], None).width == 2


@pytest.mark.parametrize("snr", [0.7, 1e6, 1e14])  # in units of 1e6 what is 100 becomes 1e14
def test_many_components_without_axes_agree_with_few(snr):
    c = LAWS["distinct 40 in 6"]
    form = form_of(c, axes_of_mixture(c))
    y = form.noised(np.arange(40), RNG.normal(size=(40, 6)), snr)
    few = form.along(y, snr).sum(-1)
    assert c.means.size > distinct_covariances.FEW
    np.testing.assert_allclose(form.trace(y, snr), few, rtol=1e-12)
