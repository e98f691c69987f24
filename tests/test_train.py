"""The training loop: fits a Gaussian's score, is reproducible, keeps the best average, reloads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdiff import kernels, targets, train
from jaxdiff.networks import ResidualMLP
from jaxdiff.sample import sample
from jaxdiff.scores import from_network

pytestmark = pytest.mark.loose_promotion
DTYPE = np.float32


def network(seed=0, **options):
    return ResidualMLP(2, width=32, depth=1, rngs=nnx.Rngs(seed), **options)


def test_training_fits_the_score_of_a_gaussian_to_a_tenth(key):
    # The network is told mean 0 and covariance I, so that all of the difference has to be learned.
    law = targets.gaussian([0.5, -0.5], [[1.0, 0.7], [0.7, 0.8]])
    data = law.sample(key, 8000, DTYPE)
    fitted = train.fit(network(), data, key, steps=1500, batch_size=256, horizon=4.0, early_stop=0.05)
    learned, test = from_network(fitted.network), law.sample(jax.random.key(5), 4000, DTYPE)
    for t in (1.0, 0.3, 0.1):
        z = jax.random.normal(jax.random.key(6), test.shape, DTYPE)
        x = (np.exp(-t) * test + np.sqrt(-np.expm1(-2 * t)) * z).astype(DTYPE)
        exact = law.score(x, t)
        error = jnp.mean(jnp.sum((learned(x, t) - exact) ** 2, 1)) / jnp.mean(jnp.sum(exact**2, 1))
        assert float(error) < 0.1**2
    before = from_network(network())(x, t)
    assert float(jnp.mean(jnp.sum((before - exact) ** 2, 1)) / jnp.mean(jnp.sum(exact**2, 1))) > 0.3**2


def test_training_is_reproducible_leaves_its_input_alone_and_uses_the_key(key):
    data, start = np.asarray(jax.random.normal(key, (100, 2), DTYPE)), network()
    before = jax.tree.map(np.array, nnx.state(start))
    runs = [train.fit(start, data, jax.random.key(i), steps=20, held_out=data) for i in (0, 0, 1)]
    assert runs[0].history == runs[1].history
    assert runs[0].history != runs[2].history
    jax.tree.map(np.testing.assert_array_equal, before, nnx.state(start))
    assert runs[0].history[-1]["step"] == 20


def test_held_out_rows_choose_the_average_of_least_loss(key):
    # Eight rows are memorised: the held-out loss rises again, and the returned average is that of its minimum.
    data, held_out = (np.asarray(jax.random.normal(k, (n, 2), DTYPE)) for k, n in zip(jax.random.split(key), (8, 400)))  # noqa: B905
    options = {"steps": 1200, "batch_size": 64, "learning_rate": 1e-2, "ema_decay": 0.9, "weight_decay": 0.0}
    fitted = train.fit(network(), data, key, held_out=held_out, **options)
    losses = [row["held_out_loss"] for row in fitted.history]
    assert min(losses) < 0.9 * losses[-1]
    again = train._held_out_loss(fitted.network, jnp.asarray(held_out), train.path_kl_weight, 5.0, 1e-3)
    assert float(again) == pytest.approx(min(losses), rel=1e-4)


def test_what_is_returned_is_the_average_not_the_last_parameters(key):
    data = np.asarray(jax.random.normal(key, (50, 2), DTYPE)) + 3
    options = {"steps": 2, "batch_size": 16, "learning_rate": 0.1}  # the first step has learning rate 0
    start, averaged, last = (
        nnx.state(net, nnx.Param)
        for net in (
            network(),
            train.fit(network(), data, key, **options).network,
            train.fit(network(), data, key, ema_decay=0.0, **options).network,
        )
    )
    mean = jax.tree.map(lambda first, second: 2 / 11 * first + 9 / 11 * second, start, last)  # decay (1 + 1)/(10 + 1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), averaged, mean)
    assert float(jnp.abs(last["leave"]["bias"][...] - start["leave"]["bias"][...]).max()) > 0.01


def test_dropout_is_on_in_training(key):
    data = np.asarray(jax.random.normal(key, (50, 2), DTYPE)) + 3
    losses = [
        [row["train_loss"] for row in train.fit(network(dropout=rate), data, key, steps=8).history]
        for rate in (0.0, 0.9)
    ]
    assert losses[0][0] == losses[1][0]  # the blocks start as the identity
    assert losses[0][-1] != losses[1][-1]


def test_new_parameters_in_the_same_network_do_not_recompile_sample_and_gradients_reach_them(key):
    from jaxdiff.programs import recent

    x, grid = jnp.ones((5, 2), DTYPE), [1.0, 0.5, 0.2]
    sample(kernels.ancestral(from_network(network(0))), x, grid, key)
    compiled = recent.compiled()
    sample(kernels.ancestral(from_network(network(1))), x, grid, key)
    assert recent.compiled() == compiled
    graph, params, rest = nnx.split(network(), nnx.Param, ...)

    def mean_square(params):
        return jnp.mean(sample(kernels.ancestral(from_network(nnx.merge(graph, params, rest))), x, grid, key) ** 2)

    gradient = jax.grad(mean_square)(params)
    bias = gradient["leave"]["bias"][...]
    direction = jnp.array([1.0, 0.0], DTYPE)
    h = 1.0  # the last layer starts at zero, so x is affine in its bias: the difference quotient of a square is exact

    def moved(by):
        shifted = jax.tree.map(lambda leaf: leaf, params)
        shifted["leave"]["bias"][...] = params["leave"]["bias"][...] + by * direction
        return float(mean_square(shifted))

    assert float(bias @ direction) == pytest.approx((moved(h) - moved(-h)) / (2 * h), rel=1e-5)


def test_a_saved_network_reloads_bit_for_bit(key, tmp_path):
    first = network(0, mean=np.array([1.0, 2.0]), cov=np.array([[2.0, 0.3], [0.3, 1.0]]))
    train.save_network(first, tmp_path / "checkpoint")
    second = train.load_network(network(7), tmp_path / "checkpoint")
    x = jax.random.normal(key, (5, 2), DTYPE)
    np.testing.assert_array_equal(first(x, 0.4), second(x, 0.4))


@pytest.mark.parametrize("damage", ["flipped", "missing", "added"])
def test_a_checkpoint_whose_files_are_not_those_written_is_refused_before_it_is_read(tmp_path, damage):
    path = tmp_path / "checkpoint"
    train.save_network(network(0), path)
    largest = max((one for one in path.rglob("*") if one.is_file()), key=lambda one: one.stat().st_size)
    if damage == "flipped":
        data = bytearray(largest.read_bytes())
        data[len(data) // 2] ^= 1
        largest.write_bytes(data)
    elif damage == "missing":
        largest.unlink()
    else:
        (largest.parent / "more").write_bytes(b"")
    with pytest.raises(ValueError, match="not those that were written"):
        train.load_network(network(7), path)


def test_a_fault_while_a_checkpoint_is_read_is_no_damage(tmp_path, monkeypatch):
    import orbax.checkpoint as ocp

    train.save_network(network(0), tmp_path / "checkpoint")

    def faulty(*args, **options):
        raise Exception("out of file handles")

    monkeypatch.setattr(ocp.StandardCheckpointer, "restore", faulty)
    with pytest.raises(Exception, match="out of file handles") as caught:
        train.load_network(network(7), tmp_path / "checkpoint")
    assert type(caught.value) is Exception


def test_bad_settings_are_refused(key):
    with pytest.raises(ValueError, match="steps = 0"):
        train.fit(network(), np.ones((10, 2), DTYPE), key, steps=0)
    with pytest.raises(ValueError, match="early_stop must lie below"):
        train.fit(network(), np.ones((10, 2), DTYPE), key, steps=1, horizon=1.0, early_stop=2.0)
    with pytest.raises(ValueError, match="lower learning_rate"):
        train.fit(network(), np.ones((10, 2), DTYPE), key, steps=3, held_out=np.full((5, 2), np.nan, DTYPE))
    with pytest.raises(ValueError, match="lower learning_rate"):
        train.fit(network(), 1e30 * np.ones((10, 2), DTYPE), key, steps=3)
