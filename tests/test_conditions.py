"""Scores with a condition for each particle: every particle runs as it would alone with its own condition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import conditions, grids, kernels, noise, processes, sample, scores, trajectory
from jaxdiff.curves.loss import loss_curve
from jaxdiff.guarantees.certify_w2 import certify_w2
from jaxdiff.guarantees.end_point_distances import parts_of
from jaxdiff.processes import ou
from jaxdiff.sampling.coupled import end_points, refined
from jaxdiff.types import Sampler

KEY = jax.random.key(5)
GRID = grids.log_snr(5.0, 0.01, 8)
MEANS, DEVIATIONS = np.array([-2.0, 0.0, 3.0], np.float32), np.array([0.3, 1.0, 0.5], np.float32)


def denoiser(x, t, label):
    """E[X_0 | X_t = x] where the coordinates of X_0 are N(mean, deviation^2) with those of the label."""
    shape = (-1,) + (1,) * (x.ndim - 1) if jnp.ndim(label) else ()
    mean, variance = (jnp.asarray(of)[label].reshape(shape) for of in (MEANS, DEVIATIONS**2))
    alpha, sigma = ou.alpha(t), ou.sigma(t)
    return mean + alpha * variance / (alpha**2 * variance + sigma**2) * (x - alpha * mean)


def score(x, t, label):
    return (ou.alpha(t) * denoiser(x, t, label) - x) / ou.sigma(t) ** 2


def alone(kernel, labels, x, **options):
    """Every particle in a run of its own, with its condition as a number."""
    ends = [
        sample(kernel(scores.conditioned(score, labels[i])), x[i : i + 1], GRID, KEY, first_particle=i, **options)
        for i in range(len(x))
    ]
    return np.concatenate(ends)


LABELS = jnp.array([0, 2, 1, 1, 0, 2, 2, 0, 1, 2])


@pytest.mark.parametrize("name", ["ancestral", "unipc", "heun"])
@pytest.mark.parametrize("options", [{}, {"chunk": 3}, {"chunk": 4, "progress": True}], ids=["whole", "chunks", "bar"])
@pytest.mark.parametrize("event", [(2,), (2, 3, 1)], ids=["rows", "images"])
def test_each_particle_runs_with_its_own_condition(name, options, event):
    x, make = noise.initial(KEY, jnp.arange(10), event), getattr(kernels, name)
    found = sample(make(scores.conditioned(score, LABELS)), x, GRID, KEY, **options)
    np.testing.assert_allclose(found, alone(make, LABELS, x), rtol=2e-5, atol=2e-5)


def test_conditions_inside_other_scores_are_found():
    x = noise.initial(KEY, jnp.arange(10), 2)
    inside = processes.score_from_denoiser(scores.conditioned(denoiser, LABELS))
    assert conditions.conditions_of(inside) == 10
    found = sample(kernels.ddim(inside), x, GRID, KEY, chunk=4)
    np.testing.assert_allclose(found, alone(kernels.ddim, LABELS, x), rtol=2e-5, atol=2e-5)


def test_a_trajectory_and_a_jit_take_conditions():
    x = noise.initial(KEY, jnp.arange(10), 2)
    run = lambda labels: sample(kernels.ancestral(scores.conditioned(score, labels)), x, GRID, KEY, chunk=3)
    np.testing.assert_array_equal(jax.jit(run)(LABELS), run(LABELS))
    saved = trajectory(kernels.ancestral(scores.conditioned(score, LABELS)), x, GRID, KEY, GRID[[8]], chunk=3)
    np.testing.assert_allclose(saved[0], run(LABELS), rtol=2e-5, atol=2e-5)
    both = jax.vmap(run)(jnp.stack([LABELS, LABELS[::-1]]))
    np.testing.assert_allclose(both[1], run(LABELS[::-1]), rtol=2e-5, atol=2e-5)


def test_samples_have_the_law_of_their_label():
    n, d = 3 * 4000, 2
    labels, grid = jnp.arange(n) % 3, grids.log_snr(5.0, 0.001, 200)
    x = noise.initial(KEY, jnp.arange(n), d)
    found = np.asarray(sample(kernels.ancestral(scores.conditioned(score, labels)), x, grid, KEY, chunk=1000))
    for label, mean, deviation in zip(range(3), MEANS, DEVIATIONS, strict=True):
        own = found[label::3]
        error = deviation / np.sqrt(own.size)
        assert abs(own.mean() - mean) < 5 * error + 2e-3 * abs(mean)  # the early stop moves a mean by a thousandth
        assert abs(own.std() / deviation - 1) < 5 / np.sqrt(2 * own.size) + 0.02  # and 200 steps the deviation


def test_a_certificate_averages_over_the_conditions():
    labels = jnp.array([0, 2])
    options = {"particles": 40, "reference_steps": 32}
    sampler = Sampler(kernels.ddim(scores.conditioned(score, labels)), GRID)
    found = certify_w2(sampler, KEY, dim=3, **options)
    z = noise.initial(KEY, jnp.arange(40), 3)
    squares = np.zeros(40)
    for i, label in enumerate((0, 2)):
        of = scores.conditioned(score, label)
        fine = refined(GRID, parts_of(GRID, 32))
        ends = end_points(kernels.ddim(of), GRID, z, KEY).x, end_points(kernels.unipc(of), fine, z, KEY).x
        squares[i::2] = np.sum((np.asarray(ends[0], np.float64) - np.asarray(ends[1], np.float64)) ** 2, axis=1)[i::2]
    term = next(term for term in found.terms if term.name == "discretisation")
    np.testing.assert_allclose(term.value, np.sqrt(squares.mean()), rtol=1e-4)


def test_a_loss_curve_uses_the_label_of_each_row():
    n, d = 4500, 2  # more rows than the denoiser gets at once
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, n)
    data = (MEANS[labels, None] + DEVIATIONS[labels, None] * rng.normal(size=(n, d))).astype(np.float32)
    ends = {"horizon": 3.0, "early_stop": 0.05, "n_nodes": 9, "n_noises": 1}
    found = loss_curve(scores.conditioned(denoiser, labels), data, KEY, **ends)
    snr = np.geomspace(0.01, 8, 7)
    variance = DEVIATIONS[labels].astype(np.float64) ** 2
    exact = np.array([np.mean(d * variance / (1 + at * variance)) for at in snr])
    np.testing.assert_allclose(found(snr), exact, rtol=0.05)  # five standard errors of 9,000 squares are 0.07
    wrong = loss_curve(scores.conditioned(denoiser, np.roll(labels, 1)), data, KEY, **ends)
    assert (wrong(snr) > 2 * exact).all()


def test_a_number_is_the_condition_of_all():
    x = noise.initial(KEY, jnp.arange(10), 2)
    found = sample(kernels.ddim(scores.conditioned(score, 2)), x, GRID, KEY, chunk=3)
    same = sample(kernels.ddim(scores.conditioned(score, jnp.full(10, 2))), x, GRID, KEY)
    np.testing.assert_allclose(found, same, rtol=2e-5, atol=2e-5)


def test_a_new_condition_compiles_nothing():
    from jaxdiff.sampling import compiled

    x = noise.initial(KEY, jnp.arange(10), 2)
    run = lambda labels: sample(kernels.ddim(scores.conditioned(score, labels)), x, GRID, KEY)
    run(LABELS)
    before = compiled.recent.compiled()
    run(LABELS[::-1])
    assert compiled.recent.compiled() == before


@pytest.mark.parametrize("count", [1, 9, 11])
def test_another_number_of_conditions_is_refused(count):
    x = noise.initial(KEY, jnp.arange(10), 2)
    with pytest.raises(ValueError, match=f"the score has {count} conditions for 10 particles"):
        sample(kernels.ddim(scores.conditioned(score, jnp.zeros(count, int))), x, GRID, KEY)


def test_conditions_that_disagree_are_refused():
    def both(x, t, condition):
        return score(x, t, condition[0])

    x = noise.initial(KEY, jnp.arange(10), 2)
    with pytest.raises(ValueError, match=r"the same number of rows: they have \[9, 10\]"):
        sample(kernels.ddim(scores.conditioned(both, (LABELS, jnp.zeros((9, 2))))), x, GRID, KEY)


@pytest.mark.parametrize(
    ("given", "condition", "message"),
    [(3, 1, "must be a function"), (score, "three", "must be an array"), (score, None, "must be an array")],
)
def test_what_is_no_score_or_no_condition_is_refused(given, condition, message):
    with pytest.raises(TypeError, match=message):
        scores.conditioned(given, condition)


def test_a_call_with_other_particles_is_refused():
    with pytest.raises(ValueError, match=r"10 conditions, and is called with x of shape \(4, 2\)"):
        scores.conditioned(score, LABELS)(jnp.zeros((4, 2)), 0.5)
