"""The training loop: fits a Gaussian's score, is reproducible, keeps the best average, reloads."""

import contextlib
import functools
import itertools
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from jaxdiff import kernels, targets, train
from jaxdiff import losses as losses_module
from jaxdiff.sampling.sample import sample
from jaxdiff.scores import from_network
from jaxdiff.training import loop
from jaxdiff.training.networks import ResidualMLP
from jaxdiff.training.validation_loss import STEP_COST, HeldOutLoss

pytestmark = pytest.mark.loose_promotion
DTYPE = np.float32


def network(seed=0, **options):
    return ResidualMLP(2, width=32, depth=1, rngs=nnx.Rngs(seed), **options)


ROWS = np.asarray(jax.random.normal(jax.random.key(2), (100, 2), DTYPE))
SHORT = {"steps": 60, "held_out": ROWS, "batch_size": 16}


@functools.cache
def usual():
    """A short run on ROWS."""
    return train.fit(network(), ROWS, jax.random.key(2), **SHORT)


def test_training_fits_the_score_of_a_gaussian_to_a_tenth(key):
    # The network is told mean 0 and covariance I, so that all of the difference has to be learned.
    law = targets.gaussian([0.5, -0.5], [[1.0, 0.7], [0.7, 0.8]])
    data = law.sample(key, 8000, DTYPE)
    fitted = train.fit(network(), data, key, steps=800, batch_size=256, horizon=4.0, early_stop=0.05)
    learned, test = from_network(fitted.network), law.sample(jax.random.key(5), 4000, DTYPE)

    @jax.jit
    def share(score, x, t):
        exact = law.score(x, t)
        return jnp.mean(jnp.sum((score(x, t) - exact) ** 2, 1)) / jnp.mean(jnp.sum(exact**2, 1))

    for t in (1.0, 0.3, 0.1):
        z = jax.random.normal(jax.random.key(6), test.shape, DTYPE)
        x = (np.exp(-t) * test + np.sqrt(-np.expm1(-2 * t)) * z).astype(DTYPE)
        assert float(share(learned, x, t)) < 0.1**2
    assert float(share(from_network(network()), x, t)) > 0.3**2


def test_training_is_reproducible_leaves_its_input_alone_and_uses_the_key():
    start = network()
    before = jax.tree.map(np.array, nnx.state(start))
    again, other = (train.fit(start, ROWS, jax.random.key(seed), **SHORT) for seed in (2, 3))
    assert again.history == usual().history
    assert other.history != usual().history
    jax.tree.map(np.testing.assert_array_equal, before, nnx.state(start))
    assert again.history[-1]["step"] == 60


def test_held_out_rows_choose_the_average_of_least_loss(key):
    # Eight rows are memorised: the held-out loss rises again, and the returned average is that of its minimum.
    data, held_out = (np.asarray(jax.random.normal(k, (n, 2), DTYPE)) for k, n in zip(jax.random.split(key), (8, 400)))  # noqa: B905
    options = {"steps": 1200, "batch_size": 64, "learning_rate": 1e-2, "ema_decay": 0.9, "weight_decay": 0.0}
    fitted = train.fit(network(), data, key, held_out=held_out, **options)
    losses = [row["held_out_loss"] for row in fitted.history]
    assert min(losses) < 0.9 * losses[-1]
    # 0.15 * 1200 * 64/25 = 460 rows times levels are a tenth of the work, 7 pieces of 57 rows are 399.
    assert (fitted.held_out_rows, fitted.held_out_levels) == (399, 1)
    # The loss of a check is an estimate of the same mean over rows, times and noise as any other draw of it.
    loss = jax.jit(lambda key: losses_module.denoising(fitted.network, jnp.asarray(held_out), key))
    draws = [loss(k) for k in jax.random.split(jax.random.key(9), 40)]
    mean, spread = float(np.mean(draws)), float(np.std(draws, ddof=1))
    assert abs(min(losses) - mean) < 4 * spread


def test_held_out_checks_use_a_stated_sample_of_the_rows_and_a_tenth_of_the_work():
    options = {"weight": train.path_kl_weight, "horizon": 5.0, "early_stop": 1e-3}
    for n, steps, batch in ((10_000, 100, 256), (10_000, 100_000, 256), (300, 4000, 256), (300, 10, 16), (7, 40, 3)):
        check = HeldOutLoss(np.arange(2.0 * n).reshape(n, 2), 2, steps, batch, options)
        work = min(25, steps) * check.rows * check.levels / (STEP_COST * steps * batch)  # in training steps
        assert check.rows * check.levels <= 2**15
        assert work <= 0.1 or (check.rows, check.levels) == (1, 1)
        assert work > 0.04 or check.rows * check.levels > 2**14 or check.levels == 64
        assert check.pieces.shape[1] <= batch
        assert check.pieces.shape[0] * check.pieces.shape[1] == check.rows <= n
        firsts = np.asarray(check.pieces)[..., 0].ravel()
        assert len(np.unique(firsts)) == check.rows  # no row twice
        if n > 2 * check.rows > 100:  # and not the first ones of a file that is sorted
            assert abs(np.median(firsts) / (2 * n) - 0.5) < 3 * 0.5 / np.sqrt(check.rows)


def test_a_check_is_the_mean_of_the_losses_of_its_pieces():
    options = {"weight": lambda t: 1.0 + 0 * t, "horizon": 5.0, "early_stop": 1e-3}
    rows = np.linspace(1, 2, 8, dtype=DTYPE).reshape(4, 2)
    check = HeldOutLoss(rows, 2, 1000, 3, options)
    assert check.pieces.shape == (2, 2, 2)
    # The denoiser 0 loses |X_0|^2 at every time and noise.
    loss = check.of(lambda x, t: 0 * x, check.pieces)
    assert float(loss) == pytest.approx(np.mean(np.sum(rows.astype(float) ** 2, 1)), rel=1e-6)


@pytest.mark.parametrize("blocks", ["short", "long"])
def test_the_result_does_not_depend_on_the_speed_of_the_machine(monkeypatch, blocks):
    one = usual()
    monkeypatch.setattr(loop, "BLOCK_SECONDS", {"short": 1e-9, "long": 1e9}[blocks])
    other = train.fit(network(), ROWS, jax.random.key(2), **SHORT)
    assert other.history == one.history
    assert [row["step"] for row in one.history] == [*range(3, 61, 3)]
    jax.tree.map(np.testing.assert_array_equal, nnx.state(other.network), nnx.state(one.network))


@pytest.fixture
def press(monkeypatch):
    """step -> Ctrl-C is pressed once so many steps are done."""

    def at(step):
        @contextlib.contextmanager
        def counter(total, description, *, enabled):
            done = itertools.count(1)
            yield lambda count, note="": os.kill(os.getpid(), signal.SIGINT) if next(done) == step else None

        monkeypatch.setattr(loop, "counter", counter)
        monkeypatch.setattr(loop, "BLOCK_SECONDS", 1e-9)  # blocks of one step

    return at


def test_an_interrupt_ends_training_with_what_a_shorter_look_at_the_same_run_has(press):
    whole = usual()
    press(11)
    with pytest.raises(train.Interrupted, match="after 11 steps") as caught:
        train.fit(network(), ROWS, jax.random.key(2), **SHORT)
    stopped = caught.value
    assert isinstance(stopped, KeyboardInterrupt)
    assert stopped.step == 11
    assert stopped.fit.history[:3] == whole.history[:3]  # after 3, 6 and 9 steps
    assert [row["step"] for row in stopped.fit.history] == [3, 6, 9, 11]
    best = min(stopped.fit.history, key=lambda row: row["held_out_loss"])
    check = HeldOutLoss(ROWS, 2, 60, 16, {"weight": train.path_kl_weight, "horizon": 5.0, "early_stop": 1e-3})
    assert float(check.of(stopped.fit.network, check.pieces)) == pytest.approx(best["held_out_loss"], rel=1e-5)


def test_an_interrupt_passes_as_an_ordinary_one_where_nobody_asks_for_the_fit(key, press):
    press(1)
    with pytest.raises(KeyboardInterrupt):
        train.fit(network(), np.ones((10, 2), DTYPE), key, steps=5, batch_size=4)


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
    from jaxdiff.sampling.compiled import recent

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
    ones = np.ones((10, 2), DTYPE)
    with pytest.raises(ValueError, match="steps = 0"):
        train.fit(network(), ones, key, steps=0)
    with pytest.raises(ValueError, match="early_stop must lie below"):
        train.fit(network(), ones, key, steps=1, horizon=1.0, early_stop=2.0)
    with pytest.raises(ValueError, match="lower learning_rate"):
        train.fit(network(), 1e30 * ones, key, steps=3)
    with pytest.raises(ValueError, match="held-out rows; lower learning_rate"):
        train.fit(network(), ones, key, steps=3, held_out=1e30 * ones)


BAD_ROWS = {
    "nan": (np.array([[1, 2], [3, np.nan]], DTYPE), "1 values that are not finite, first nan at row 1, column 1"),
    "a vector": (np.ones(10, DTYPE), r"must be rows \(n, d\) or arrays \(n, \*event\): its shape is \(10,\).$"),
    "no rows": (np.ones((0, 2), DTYPE), "no values"),
    "no columns": (np.ones((4, 0), DTYPE), "no values"),
    "words": (np.array([["a", "b"]]), "must hold real numbers: its dtype is <U1"),
    "complex": (np.ones((4, 2), complex), "must hold real numbers: its dtype is complex128"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_rows_that_cannot_be_trained_on_are_refused(key, case):
    rows, says = BAD_ROWS[case]
    with pytest.raises(ValueError, match=says):
        train.fit(network(), rows, key, steps=1)
    with pytest.raises(ValueError, match=says.replace("data", "held_out")):
        train.fit(network(), np.ones((10, 2), DTYPE), key, steps=1, held_out=rows)


def test_held_out_rows_of_another_width_are_refused(key):
    with pytest.raises(ValueError, match="held_out has 3 columns, data 2"):
        train.fit(network(), np.ones((10, 2), DTYPE), key, steps=1, held_out=np.ones((4, 3)))


def test_whole_numbers_are_trained_on_as_float32(key):
    rows = np.random.default_rng(0).integers(0, 9, (50, 2))
    fits = [
        train.fit(network(), kind, key, steps=3, batch_size=8) for kind in (rows.astype(np.uint8), rows.astype(DTYPE))
    ]
    assert fits[0].history[0]["train_loss"] == fits[1].history[0]["train_loss"]


class OfLinen(linen.Module):
    """A module of Flax's older interface."""

    @linen.compact
    def __call__(self, x, t):
        return linen.Dense(2)(x)


@pytest.mark.parametrize(("module", "says"), [(OfLinen(), "Linen module"), (lambda x, t: x, "it is a function")])
def test_what_is_no_nnx_module_is_refused(key, module, says):
    with pytest.raises(TypeError, match=says):
        train.fit(module, np.ones((10, 2), DTYPE), key, steps=1)
