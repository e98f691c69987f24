"""certify: terms add up for known laws, unknowns stay unknown for learned ones, records print and serialise."""

import json

import numpy as np
import oracles
import pytest

from jaxdiff import certify, grids, kernels, targets
from jaxdiff.curves import loss_curve
from jaxdiff.processes import denoiser_from_score

GRID = grids.exponential_then_uniform(1.5, 0.05, 10)


@pytest.mark.parametrize("name", ["exponential_euler", "ancestral", "moment_matched", "covariance_matched"])
@pytest.mark.parametrize("variance", [0.0, 0.3, 2.0])
def test_certificate_bounds_the_exact_kl_on_gaussians(name, variance):
    law = targets.gaussian([0.8], [variance])
    certificate = certify(name, GRID, target=law)
    oracle = "moment_matched" if name == "covariance_matched" else name  # in one dimension the same on a Gaussian
    mean, var = oracles.chain_law(oracle, GRID, 0.8, variance, 0.0, 1.0)
    exact = oracles.gaussian_kl(np.exp(-0.05) * 0.8, np.exp(-0.1) * variance - np.expm1(-0.1), mean, var)
    assert exact <= sum(term.value for term in certificate.terms)
    assert {term.status for term in certificate.terms} <= {"exact", "bound", "assumed"}
    assert {term.standard_error for term in certificate.terms} == {0.0}


def test_learned_certificate_says_what_is_unknown(key):
    law = targets.gaussian([0.0], [0.5])
    curve = loss_curve(
        denoiser_from_score(law.score), law.sample(key, 300), key, horizon=1.5, early_stop=0.05, n_nodes=31
    )
    certificate = certify("ancestral", GRID, curve=curve)
    assert certificate["score error"].status == "unknown"
    assert certificate["initialisation"].status == "unknown"
    assert certificate["discretisation"].status == "measured"
    low, high = certificate.interval("discretisation")
    assert high - low == pytest.approx(2 * 1.959964 * certificate["discretisation"].standard_error, rel=1e-6)
    assert {certificate[name].standard_error for name in ("score error", "initialisation")} == {0.0}
    record = json.loads(json.dumps(certificate.to_dict(), allow_nan=False))
    assert record["terms"][2]["value"] is None
    assert "unknown" in str(certificate)
    assert "95%" in str(certificate)
    assert certify("ancestral", GRID, curve=curve, second_moment=0.5)["initialisation"].status == "assumed"


def test_a_plain_callable_is_taken_at_its_word_and_says_so():
    certificate = certify("ancestral", GRID, curve=lambda snr: 1 / (1 + snr), dim=1, second_moment=1.0)
    assert certificate["discretisation"].status == "assumed"
    assert certificate.assumptions == ("the data have E|X_0|^2 = 1",)


def test_missing_terms_are_named():
    certificate = certify("ancestral", GRID, target=targets.gaussian([0.0], [0.5]))
    with pytest.raises(KeyError, match="initialisation"):
        certificate["prior"]


def test_bad_requests_are_refused():
    law = targets.gaussian([0.0], [0.5])
    with pytest.raises(ValueError, match="exactly one"):
        certify("ancestral", GRID)
    with pytest.raises(ValueError, match="exactly one"):
        certify("ancestral", GRID, target=law, curve=law.mmse)
    with pytest.raises(ValueError, match="confidence = 95"):
        certify("ancestral", GRID, target=law, confidence=95)
    with pytest.raises(ValueError, match="dimension 1, dim = 3"):
        certify("ancestral", GRID, curve=law.mmse, dim=3)
    with pytest.raises(ValueError, match="ODE has none"):
        certify("ddim", GRID, target=law)
    with pytest.raises(ValueError, match="grid must decrease"):
        certify("ancestral", GRID[::-1], target=law)


def test_every_certified_name_is_a_kernel_constructor():
    for name in ("exponential_euler", "ancestral", "moment_matched"):
        assert name in kernels.__all__
        assert certify(name, GRID, target=targets.gaussian([0.0], [0.5]))["discretisation"].value >= -1e-14
