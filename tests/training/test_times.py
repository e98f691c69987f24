"""Times of training: their spacing, and that importance sampling keeps the expected loss and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.processes import ou
from jaxdiff.training import times

ENDS = 5.0, 1e-3


def fractions(t):
    low, high = np.log(ou.snr(np.array(ENDS)))
    return (np.log(ou.snr(np.asarray(t))) - low) / (high - low)


def test_low_discrepancy_times_are_equally_spaced_with_one_uniform_offset(key):
    drawn = [np.sort(fractions(times.low_discrepancy_times(k, 50, *ENDS))) for k in jax.random.split(key, 200)]
    for one in drawn:
        np.testing.assert_allclose(np.diff(one), 1 / 50, atol=1e-6)
    offsets = np.array([one[0] for one in drawn]) * 50
    assert abs(offsets.mean() - 0.5) < 5 / np.sqrt(12 * 200)
    # The fourth central moment of a uniform number is 1/80, so its variance has this standard error.
    assert abs(offsets.var() - 1 / 12) < 5 * np.sqrt((1 / 80 - 1 / 144) / 200)


def uneven():
    """A state in which the loss rises a thousandfold, with cells that have never been seen."""
    squares = jnp.asarray(np.geomspace(1, 1e6, times.BINS), jnp.float32)
    return squares, jnp.asarray(np.arange(times.BINS) % 7 > 0, jnp.float32)


@pytest.mark.parametrize("power", [0, 1, 3])
def test_importance_sampling_leaves_means_over_log_snr_as_they_are(key, power):
    # A loss and its gradient are means over the fraction u of the way in log snr. The mean of u^power is 1/(power + 1).
    sampler = times.times_of("importance", *ENDS)
    n = 100_000
    t, factors = jax.jit(lambda state: sampler.draw(state, key, n))(uneven())
    values = fractions(t) ** power * np.asarray(factors, np.float64)
    plain = fractions(t) ** power
    error = values.std(ddof=1) / np.sqrt(n)  # of independent times; the stratified ones vary less
    assert abs(values.mean() - 1 / (power + 1)) < 5 * error
    assert error < 0.02
    if power:
        assert abs(plain.mean() - 1 / (power + 1)) > 20 * error


def test_the_chances_are_the_measured_sizes_with_a_floor(key):
    chances = np.asarray(times.probabilities(uneven()), np.float64)
    assert chances.sum() == pytest.approx(1, rel=1e-5)
    assert chances.min() >= times.FLOOR / times.BINS
    above = chances - times.FLOOR / times.BINS
    assert above[4] / above[2] == pytest.approx(np.sqrt(1e6 ** (2 / (times.BINS - 1))), rel=1e-4)
    start = times.times_of("importance", *ENDS).start
    np.testing.assert_allclose(times.probabilities(start), 1 / times.BINS, rtol=1e-6)


def test_the_measured_loss_converges_to_its_mean_square(key):
    sampler = times.times_of("importance", *ENDS)

    def body(state, key):
        t, _ = sampler.draw(state, key, 256)
        return sampler.learn(state, t, 2 + jnp.log(ou.snr(t)) ** 2), None

    (squares, seen), _ = jax.jit(lambda keys: jax.lax.scan(body, sampler.start, keys))(jax.random.split(key, 300))
    edges = np.linspace(*np.log(ou.snr(np.array(ENDS))), times.BINS + 1)
    u = edges[:-1, None] + np.diff(edges)[:, None] * (np.arange(64) + 0.5) / 64
    np.testing.assert_allclose(squares, np.mean((2 + u**2) ** 2, 1), rtol=0.05)
    assert np.asarray(seen).min() > 100


def test_times_without_a_name_are_refused():
    with pytest.raises(ValueError, match="times = 'cosine'"):
        times.times_of("cosine", *ENDS)
