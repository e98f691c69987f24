"""Particles of any shape: equal to runs of rows with a matrix in place of the operation on images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import events, grids, kernels, noise, plan, predict_correct, sample, trajectory
from jaxdiff.curves.loss import loss_curve
from jaxdiff.guarantees.certify_w2 import certify_w2
from jaxdiff.sampling.sample import sample_in_turn
from jaxdiff.types import Sampler

EVENT, N = (3, 4, 2), 10
D = 24
KEY = jax.random.key(3)
GRID = grids.log_snr(5.0, 0.01, 8)
# The image moved by one pixel along its second axis: a permutation of the coordinates, written out by hand.
MOVED = np.zeros((D, D), np.float32)
for row in range(3):
    for column in range(4):
        for channel in range(2):
            MOVED[(row * 4 + column) * 2 + channel, (row * 4 + (column - 1) % 4) * 2 + channel] = 1


def of_images(x, t):
    assert x.shape[-3:] == EVENT
    return -x + 0.25 * jnp.roll(x, 1, axis=-2)


def of_rows(x, t):
    return -x + 0.25 * x @ MOVED.T


def images(n=N):
    return noise.initial(KEY, jnp.arange(n), EVENT)


def rows(n=N):
    return noise.initial(KEY, jnp.arange(n), D)


def near(found, expected):
    np.testing.assert_allclose(np.reshape(found, np.shape(expected)), expected, rtol=2e-5, atol=2e-5)


def test_noise_of_an_event_is_that_of_its_coordinates_in_order():
    for draw in (noise.initial, lambda key, index, dim: noise.normal(key, index, 5, dim)):
        assert (draw(KEY, jnp.arange(4), EVENT).reshape(4, D) == draw(KEY, jnp.arange(4), D)).all()


@pytest.mark.parametrize("name", ["ancestral", "unipc", "heun", "seeds", "langevin"])
@pytest.mark.parametrize("options", [{}, {"chunk": 3}, {"progress": True}], ids=["whole", "chunks", "bar"])
def test_images_end_where_their_rows_do(name, options):
    make, grid = getattr(kernels, name), np.linspace(0.5, 0, 6) if name == "langevin" else GRID
    made = [make(score, 1.0) if name == "langevin" else make(score) for score in (of_images, of_rows)]
    found = sample(made[0], images(), grid, KEY, **options)
    assert found.shape == (N, *EVENT)
    near(found, sample(made[1], rows(), grid, KEY))


def test_every_way_of_running_takes_images():
    ours, theirs = kernels.ancestral(of_images), kernels.ancestral(of_rows)
    near(sample(ours, images(), GRID, KEY, denoise=True), sample(theirs, rows(), GRID, KEY, denoise=True))
    saved = trajectory(ours, images(), GRID, KEY, GRID[[2, 8]])
    assert saved.shape == (2, N, *EVENT)
    near(saved, trajectory(theirs, rows(), GRID, KEY, GRID[[2, 8]]))
    assert trajectory(ours, images(), GRID, KEY, ()).shape == (0, N, *EVENT)
    stages = [[(one, GRID[:5]), (one, GRID[4:])] for one in (ours, theirs)]
    near(sample_in_turn(stages[0], images(), KEY), sample_in_turn(stages[1], rows(), KEY))
    options = {"horizon": 1.0, "langevin_time": 0.2}
    near(predict_correct(of_images, images(), KEY, **options), predict_correct(of_rows, rows(), KEY, **options))
    inside = jax.jit(lambda x: sample(ours, x, GRID, KEY))(images())
    near(inside, sample(theirs, rows(), GRID, KEY))


@pytest.mark.parametrize("run", [sample, lambda kernel, x, grid, key, **options: sample_in_turn(
    [(kernel, grid[:5]), (kernel, grid[4:])], x, key, **options)], ids=["sample", "in turn"])  # fmt: skip
def test_a_donated_image_is_deleted(run):
    x = images()
    expected = run(kernels.ddim(of_images), x, GRID, KEY)
    given = jnp.copy(x)
    found = run(kernels.ddim(of_images), given, GRID, KEY, donate=True)
    assert given.is_deleted()
    assert not x.is_deleted()
    assert (found == expected).all()


def test_the_certificate_of_images_is_that_of_their_rows():
    data = np.random.default_rng(0).normal(size=(32, D)).astype(np.float32)
    options = {"particles": 32, "reference_steps": 16}
    scale = np.linspace(0.5, 2, D)
    ours = certify_w2(
        Sampler(kernels.ddim(of_images), GRID),
        KEY,
        rows=data.reshape(32, *EVENT),
        scale=scale.reshape(EVENT),
        **options,
    )
    theirs = certify_w2(Sampler(kernels.ddim(of_rows), GRID), KEY, rows=data, scale=scale, **options)
    for one, other in zip(ours.terms, theirs.terms, strict=True):
        assert one.name == other.name
        np.testing.assert_allclose([one.value, one.standard_error], [other.value, other.standard_error], rtol=1e-3)
    known = certify_w2(Sampler(kernels.ddim(of_images), GRID), KEY, dim=EVENT, **options)
    assert known.dim == D


def test_the_loss_curve_of_images_is_that_of_their_rows():
    data = np.random.default_rng(0).normal(size=(12, D)).astype(np.float32)
    ends = {"horizon": 3.0, "early_stop": 0.1, "n_nodes": 7, "products": 3, "basis": "coordinates"}
    ours = loss_curve(lambda x, t: x + of_images(x, t), data.reshape(12, *EVENT), KEY, **ends)
    theirs = loss_curve(lambda x, t: x + of_rows(x, t), data, KEY, **ends)
    snr = np.geomspace(0.01, 4, 9)
    np.testing.assert_allclose(ours(snr), theirs(snr), rtol=1e-5)
    assert ours.dim == D


def test_a_plan_for_images_samples_images():
    data = np.random.default_rng(0).normal(size=(32, *EVENT)).astype(np.float32)
    options = {"evals": 4, "metric": "w2", "kernel": "ddim"}
    ours, theirs = plan(score=of_images, rows=data, **options), plan(score=of_rows, rows=data.reshape(32, D), **options)
    found = sample(ours.sampler(of_images), images(), key=KEY)
    assert found.shape == (N, *EVENT)
    near(found, sample(theirs.sampler(of_rows), rows(), key=KEY))


def test_a_score_that_returns_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"returns shape \(10, 24\) for x of shape \(10, 3, 4, 2\)"):
        sample(kernels.ddim(lambda x, t: -x.reshape(len(x), -1)), images(), GRID, KEY)
    with pytest.raises(ValueError, match=r"the denoiser returns shape"):
        loss_curve(lambda x, t: x[..., 0], np.zeros((8, *EVENT), np.float32), KEY, horizon=3.0, early_stop=0.1)


def test_a_row_is_left_alone():
    assert events.on_rows(of_rows, (D,)) is of_rows
    assert events.rows_of(rows()).shape == (N, D)
