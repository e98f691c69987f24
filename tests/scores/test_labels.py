"""From labelled rows to samples of a label: training, conditions and guidance together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdiff import grids, kernels, noise, processes, sample, scores
from jaxdiff.training.fit import fit
from jaxdiff.training.networks import ResidualMLP

pytestmark = pytest.mark.loose_promotion

KEY = jax.random.key(2)
MEANS, DEVIATION = np.array([-1.5, 0.5, 2.0]), 0.25


@pytest.fixture(scope="module")
def network():
    """A network trained on three bumps on the line, whose number is the label."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 1500)
    rows = (MEANS[labels, None] + DEVIATION * rng.normal(size=(1500, 1))).astype(np.float32)
    untrained = ResidualMLP(
        1, mean=rows.mean(0), cov=np.cov(rows.T).reshape(1, 1), width=48, depth=2, n_classes=3, rngs=nnx.Rngs(0)
    )
    with jax.numpy_dtype_promotion("standard"):  # as Optax needs; a fixture of a module runs before the mark is seen
        return fit(untrained, rows, KEY, labels=labels, steps=600, batch_size=128, drop_labels=0.2).network


def drawn(score, n=600):
    x = noise.initial(KEY, jnp.arange(n), 1)
    return np.asarray(sample(kernels.unipc(score), x, grids.log_snr(5.0, 0.003, 20), KEY, chunk=250))[:, 0]


# A bump of deviation 0.25 has a mean known to 0.02 from 200 draws. The network is allowed three times a tenth of that.
def test_each_label_gives_its_bump(network):
    found = drawn(scores.from_network(network, jnp.arange(600) % 3))
    for label, mean in enumerate(MEANS):
        own = found[label::3]
        assert abs(own.mean() - mean) < 0.12
        assert 0.6 * DEVIATION < own.std() < 1.4 * DEVIATION


def test_without_labels_all_bumps_come(network):
    found = drawn(scores.from_network(network))
    nearest = np.abs(found[:, None] - MEANS).argmin(1)
    assert (np.bincount(nearest, minlength=3) > 100).all()  # 200 each, 11 apart


def test_guidance_moves_away_from_the_other_bumps(network):
    labels = jnp.full(600, 1)  # the bump in the middle, whose neighbours lie at -1.5 and 2
    plain = drawn(scores.from_network(network, labels))
    one = drawn(scores.guided(scores.from_network(network, labels), scores.from_network(network), 1))
    np.testing.assert_array_equal(plain, one)
    strong = drawn(scores.guided(scores.from_network(network, labels), scores.from_network(network), 3.0))
    assert strong.std() < 0.9 * plain.std()


def test_a_number_is_the_label_of_all_particles(network):
    same = drawn(scores.from_network(network, jnp.full(600, 2)))
    np.testing.assert_allclose(drawn(scores.from_network(network, 2)), same, rtol=1e-4, atol=1e-4)


def test_the_denoiser_of_a_label_is_the_networks(network):
    x, labels = jnp.linspace(-3, 3, 7)[:, None], jnp.array([0, 1, 2, 0, 1, 2, 0])
    np.testing.assert_array_equal(scores.denoiser_of(network, labels)(x, 0.4), network(x, 0.4, labels))
    at = processes.score_from_denoiser(scores.denoiser_of(network, labels))(x, 0.4)
    np.testing.assert_array_equal(scores.from_network(network, labels)(x, 0.4), at)
