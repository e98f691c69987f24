"""The study of posterior samples: its exact posterior against quadrature, and the words of its verdict."""

import numpy as np
import pytest

from benchmarks import posterior
from benchmarks.oracles import normal_mixtures


def test_the_posterior_of_a_mixture_has_the_moments_of_quadrature():
    weights, means, covs, matrix = posterior.laws()["mixture"]
    y, std = np.array([0.4]), 0.3
    side = np.linspace(-5, 5, 801)
    z = np.stack(np.meshgrid(side, side, indexing="ij"), -1)
    density = 0.0
    for weight, mean, cov in zip(weights, means, covs, strict=True):
        form = np.einsum("...i,ij,...j", z - mean, np.linalg.inv(cov), z - mean)
        density = density + weight * np.exp(-form / 2) / np.sqrt(np.linalg.det(cov))
    density = density * np.exp(-((z @ matrix[0] - y[0]) ** 2) / (2 * std**2))
    density /= density.sum()
    mean = np.einsum("ij,ijk->k", density, z)
    cov = np.einsum("ij,ijk,ijl->kl", density, z - mean, z - mean)
    found = normal_mixtures.moments(*normal_mixtures.posterior(weights, means, covs, matrix, y, std))
    np.testing.assert_allclose(found[0], mean, rtol=1e-8)
    np.testing.assert_allclose(found[1], cov, rtol=1e-8)


def test_draws_of_a_mixture_have_its_moments():
    *parts, _ = posterior.laws()["mixture"]
    n = 40_000
    x, (mean, cov) = normal_mixtures.draws(*parts, n, np.random.default_rng(0)), normal_mixtures.moments(*parts)
    np.testing.assert_allclose(x.mean(0), mean, atol=5 * np.sqrt(np.trace(cov) / n))
    np.testing.assert_allclose(np.cov(x.T), cov, atol=0.05)


@pytest.mark.parametrize(("value", "said"), [(None, "diverging"), (1e9, "diverging"), (0.04567, "0.0457")])
def test_the_verdict_names_a_distance_or_divergence(value, said):
    own = {"floor": 0.03, "law": "normal"}
    rows = [own | {"method": "MMPS", "evals": n, "sliced_w2": value} for n in (20, 200)]
    assert (
        f"with 200 evaluations is MMPS {said} (floor 0.03); MMPS with 20 evaluations has {said}"
        in posterior.verdict(rows)
    )
