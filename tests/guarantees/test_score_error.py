"""The lower bound on the error of a score: closed forms of Gaussians, coverage, and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import certify_score_error, information, processes

VARIANCE, ENDS = 0.8, (1.5, 0.05)


def shrinking(factor):
    """factor alpha x: the exact denoiser of N(0, v) has the factor v/(alpha^2 v + sigma^2) in place of a constant."""
    return lambda x, t: factor * processes.ou.alpha(t) * x


def exact(x, t):
    alpha2 = processes.ou.alpha(t) ** 2
    return VARIANCE / (1 + alpha2 * (VARIANCE - 1)) * processes.ou.alpha(t) * x


def loss(factor, alpha2):
    """E|X_0 - f alpha X_t|^2 for f a number or a function of alpha^2."""
    return (1 - factor * alpha2) ** 2 * VARIANCE + factor**2 * alpha2 * (1 - alpha2)


def gap(first, second):
    """(1/2) int (L - L_other) dsnr by quadrature, snr = alpha^2/(1 - alpha^2)."""
    u = np.linspace(*(-np.log(np.expm1(2 * np.array(ENDS)))), 20_001)
    alpha2 = np.exp(u) / (1 + np.exp(u))
    best = VARIANCE / (1 + alpha2 * (VARIANCE - 1))
    of = lambda factor: loss(best if factor is None else factor, alpha2)
    return np.trapezoid((of(first) - of(second)) * np.exp(u), u) / 2


def curve_of(denoiser, seed=0, n=500):
    rows = np.sqrt(VARIANCE) * jax.random.normal(jax.random.key(seed), (n, 1), jnp.float64)
    options = {"horizon": ENDS[0], "early_stop": ENDS[1]}
    return information.loss_curve(denoiser, rows, jax.random.key(seed + 1000), **options)


@pytest.mark.parametrize(("first", "second"), [(0.5, None), (0.5, 0.8), (0.8, 0.5)])
def test_the_difference_of_losses_is_the_closed_form(first, second):
    denoisers = [exact if factor is None else shrinking(factor) for factor in (first, second)]
    term = certify_score_error(*map(curve_of, denoisers))["score error, at least"]
    assert abs(term.value - gap(first, second)) < 5 * term.standard_error
    assert term.standard_error < abs(gap(first, second)) / 5


# A worse denoiser proves nothing: the interval then lies below 0. A better one proves at most the true error.
def test_only_a_better_denoiser_proves_an_error_and_never_more_than_there_is():
    wrong, better = curve_of(shrinking(0.5)), curve_of(shrinking(0.8))
    low, high = certify_score_error(wrong, better).interval("score error, at least")
    assert 0 < low < high
    assert low < gap(0.5, None)
    assert certify_score_error(better, wrong).interval("score error, at least")[1] < 0
    certificate = certify_score_error(wrong, better)
    assert certificate.upper == np.inf  # a lower bound is no part of a sum
    assert "score error, at least" in str(certificate)


def test_the_lower_end_covers_as_often_as_it_says():
    held = 0
    for seed in range(60):
        term = certify_score_error(curve_of(shrinking(0.5), seed, 60), curve_of(exact, seed, 60)).terms[0]
        held += term.value - term.half_width_below(0.95) <= gap(0.5, None)
    assert held >= 51  # of 60: below 51 of a binomial with probability 0.95 has probability 0.1 %


def test_curves_that_cannot_be_paired_are_refused():
    one = curve_of(exact)
    with pytest.raises(ValueError, match="same rows"):
        certify_score_error(one, curve_of(exact, n=40))
    with pytest.raises(ValueError, match="two measured curves"):
        certify_score_error(one, lambda snr: snr)
    with pytest.raises(ValueError, match="confidence"):
        certify_score_error(one, one, confidence=2)
