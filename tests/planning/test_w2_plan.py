"""Plans in W2: pilots against closed forms, the choice against every named grid, goals, and what is refused."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import Sampler, certify_w2, grids, kernels, noise, plan, processes, sample, targets
from jaxdiff.planning import w2_plan
from jaxdiff.planning.grid_shapes import NAMED, first_coefficients, resampled, shaped
from jaxdiff.planning.pilots import STEPS, pilots_of
from jaxdiff.planning.w2_candidates import contenders, least, named

MEAN, VARIANCE = np.array([0.5, -1.0]), np.array([0.3, 2.0])
LAW = targets.gaussian(MEAN, VARIANCE)
ENDS = 3.0, 0.01
KEY = jax.random.key(5)
X = noise.initial(KEY, jnp.arange(64), 2, jnp.float64)
PILOTS = pilots_of(X, *ENDS, KEY)
NAN_BELOW = lambda x, t: jnp.where(t < 0.1, jnp.nan, -x)


def affine(t):
    """alpha, sigma and the variances of q_t."""
    return np.exp(-t), np.sqrt(-np.expm1(-2 * t)), np.exp(-2 * t) * VARIANCE - np.expm1(-2 * t)


def ddim_ends(grid):
    """X after DDIM down a grid, from the Gaussian's own predicted noise."""
    x = np.asarray(X)
    for t, t_next in itertools.pairwise(grid):
        (alpha, sigma, variance), (alpha_next, sigma_next, _) = affine(t), affine(t_next)
        predicted = sigma * (x - alpha * MEAN) / variance
        x = alpha_next * (x - sigma * predicted) / alpha + sigma_next * predicted
    return x


def flow_ends():
    """X after the probability-flow ODE, which keeps (x - alpha mean)/deviation."""
    (alpha, _, variance), (alpha_end, _, variance_end) = affine(ENDS[0]), affine(ENDS[1])
    return alpha_end * MEAN + np.sqrt(variance_end / variance) * (np.asarray(X) - alpha * MEAN)


@pytest.mark.parametrize("n", [1, 6, 40])
def test_pilots_measure_the_distance_of_an_ode_kernel_from_the_flow(n):
    kernel, grid = kernels.ddim(LAW.score), grids.karras(*ENDS, n)
    reference = PILOTS.reference(kernel)
    np.testing.assert_allclose(reference.x, flow_ends(), atol=1e-6)
    assert reference.error < 1e-6
    found = PILOTS.squares(kernel, grid, reference)
    np.testing.assert_allclose(found, np.sum((ddim_ends(grid) - flow_ends()) ** 2, axis=1), atol=1e-5)


@pytest.mark.parametrize("kernel", [kernels.unipc(LAW.score, 3), kernels.heun(LAW.score)])
def test_pilots_end_where_samples_do(kernel):
    grid = grids.log_snr(*ENDS, 9)
    np.testing.assert_allclose(PILOTS.ends(kernel, grid), sample(kernel, X, grid, key=KEY), atol=1e-10)


# The denoiser of a point mass is constant, and one ancestral step is any number of shorter ones on the same path.
def test_steps_of_a_kernel_with_noise_follow_one_brownian_path():
    kernel = kernels.ancestral(targets.gaussian([0.7, 0.1], [0.0, 0.0]).score)
    grid, places = PILOTS.on_fine(grids.geometric(*ENDS, 5))
    assert (grid[0], grid[-1]) == pytest.approx(ENDS, rel=1e-12)
    reference = PILOTS.reference(kernel)
    assert PILOTS.squares(kernel, grid, reference, places).max() < 1e-18
    ended = PILOTS.ends(kernel, grid, places)
    spread = np.sqrt(-np.expm1(-2 * ENDS[1]))  # of the law at the early stop
    # (n - 1) s^2/spread^2 has the chi-square law of n - 1 degrees of freedom, with the deviation sqrt(2 (n - 1)).
    scaled = (len(X) - 1) * np.var(ended, axis=0, ddof=1) / spread**2
    assert (np.abs(scaled - (len(X) - 1)) < 5 * np.sqrt(2 * (len(X) - 1))).all()


def test_nodes_are_moved_to_the_nearest_of_the_fine_grid_or_not_at_all():
    grid, places = PILOTS.on_fine(grids.karras(*ENDS, 8))
    np.testing.assert_array_equal(grid, PILOTS.fine[places])
    width = np.diff(np.log(processes.ou.snr(PILOTS.fine)))[0]
    moved = np.log(processes.ou.snr(grid)) - np.log(processes.ou.snr(grids.karras(*ENDS, 8)))
    assert np.abs(moved).max() <= width / 2 * (1 + 1e-9)
    assert PILOTS.on_fine(np.array([3.0, 2.9999, 0.01])) is None
    assert len(PILOTS.fine) == STEPS + 1


def test_the_nearest_contender_comes_first_and_one_without_a_limit_last():
    found = contenders(LAW.score, None, PILOTS, None)
    assert [one.name for one in found].count("unipc") == 4
    every = [one for contender in found for one in named(contender, 8, PILOTS)]
    ranked = least(every)
    assert [one.distance for one in ranked] == sorted(one.distance for one in ranked)
    assert ranked[0].distance == min(one.distance for one in every)
    assert len(ranked) == len(found)
    heun = next(one for one in ranked if one.contender.name == "heun")
    assert (len(heun.grid) - 1, heun.evals) == (4, 8)
    assert named(heun.contender, 1, PILOTS) == []


def test_shapes_of_grids():
    for make in NAMED:
        grid = make(*ENDS, 7)
        np.testing.assert_allclose(resampled(grid, 7), grid, rtol=1e-9)
    np.testing.assert_allclose(resampled(grids.log_snr(*ENDS, 8), 5), grids.log_snr(*ENDS, 5), rtol=1e-9)
    np.testing.assert_allclose(resampled(np.array(ENDS), 5), grids.log_snr(*ENDS, 5), rtol=1e-9)
    np.testing.assert_allclose(shaped(np.zeros(4), *ENDS, 6), grids.log_snr(*ENDS, 6), rtol=1e-9)
    first = first_coefficients(*ENDS, 6, 4, 16, 0)
    assert np.abs(first[0]).max() < 1e-6  # the first named grid is uniform in log snr
    assert first.shape == (16, 4)


@pytest.fixture
def few(monkeypatch):
    """Fewer particles and shorter searches."""
    monkeypatch.setattr(w2_plan, "PILOTS", 64)
    monkeypatch.setattr(w2_plan, "CERTIFYING", 256)
    monkeypatch.setattr("jaxdiff.planning.w2_candidates.GENERATIONS", 4)


def test_the_planned_sampler_is_closer_than_any_kernel_on_any_named_grid(few):
    made = plan(evals=6, metric="w2", target=LAW, horizon=ENDS[0], early_stop=ENDS[1], key=KEY)
    assert (made.metric, made.evals, made.predicted_kl) == ("w2", 6, None)
    assert made.predicted_w2 == made.certificate.known
    key = jax.random.key(77)
    of = lambda sampler: certify_w2(sampler, key, target=LAW, particles=256)["discretisation"].value
    ours = of(made.sampler(LAW.score))
    for make in NAMED:
        grid = make(*ENDS, 6)
        others = kernels.unipc(LAW.score, 2), kernels.unipc(LAW.score, 3), kernels.dpm_solver(LAW.score)
        assert ours <= 1.05 * min(of(Sampler(kernel, grid)) for kernel in (*others, kernels.ddim(LAW.score)))
    assert "W2" in str(made)
    assert "metric='kl'" in str(made)
    distances = [row["w2"] for row in made.alternatives]
    assert distances == sorted(distances)


def test_particles_that_certify_neither_fitted_nor_chose(few):
    made = plan(evals=3, metric="w2", target=LAW, horizon=ENDS[0], early_stop=ENDS[1], key=KEY, kernel="ddim")
    own = jax.random.fold_in(KEY, w2_plan.PROVING)
    again = certify_w2(made.sampler(LAW.score), own, target=LAW, particles=256)
    assert made.certificate.terms == again.terms
    draws = [noise.initial(jax.random.fold_in(KEY, one), jnp.arange(64), 2) for one in (101, 102, 103)]
    for one, other in itertools.combinations(draws, 2):
        assert abs(np.corrcoef(np.ravel(one), np.ravel(other))[0, 1]) < 0.4


def test_a_target_is_met_with_confidence_and_not_by_half_the_evaluations(few):
    ends = {"horizon": 5.0, "early_stop": ENDS[1]}
    goal = 0.5  # early stopping costs 0.2
    made = plan(target_w2=goal, target=LAW, key=KEY, kernel="ddim", **ends)
    assert made.certificate.known_upper <= goal
    assert made.evals > 2
    fewer = plan(evals=made.evals // 2, metric="w2", target=LAW, key=KEY, kernel="ddim", **ends)
    assert fewer.certificate.known_upper > goal


def test_moment_matching_takes_part_where_there_is_a_curve(few):
    made = plan(evals=4, metric="w2", target=LAW, curve=LAW.mmse, early_stop=0.01, kernel="moment_matched", key=KEY)
    assert made.kernel == "moment_matched"
    assert made.curve is LAW.mmse
    assert made.sampler(LAW.score).kernel.name == "moment_matched"


def test_the_horizon_grows_with_the_size_of_the_data_and_ends_with_the_model(few):
    far = targets.gaussian([30.0, 0.0], [1.0, 1.0])
    made = plan(evals=2, metric="w2", target=far, kernel="ddim", key=KEY)
    assert made.horizon == pytest.approx(5 + math.log(math.sqrt((900 + 2) / 2)), abs=0.05)
    model = processes.model_from_score(LAW.score, processes.flow, "flow")
    score = processes.score_from_model(model, processes.ddpm(), "noise")
    made = plan(evals=2, metric="w2", score=score, dim=2, kernel="ddim", key=KEY)
    assert processes.ou_ends(processes.ddpm())[0] >= made.horizon == 5.0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"target_w2": 0.05, "target": LAW}, r"not above 0\.\d+, which early stopping at 0\.001 alone costs: take an"),
        ({"target_w2": 0.3, "target": LAW, "metric": "kl"}, "target_w2= needs metric='w2': metric = 'kl'"),
        ({"metric": "w2", "evals": 5}, "it needs score="),
        ({"metric": "w3", "evals": 5, "target": LAW}, r"metric must be 'kl' .*: metric = 'w3'"),
        ({"evals": 3, "target": LAW, "rows": np.ones((20, 2))}, "rows= is for a plan in W2"),
        ({"metric": "w2", "target_kl": 1.0, "target": LAW}, "does not take target_kl=: target_kl = 1.0"),
        ({"metric": "w2", "evals": 5, "target": LAW, "center": True}, "does not take center="),
        ({"metric": "w2", "target": LAW}, "exactly one of target_w2"),
        ({"metric": "w2", "evals": 5, "target": LAW, "kernel": "ancestral"}, "kernel must be one of unipc"),
        ({"metric": "w2", "evals": 5, "target": LAW, "kernel": "moment_matched"}, "needs curve="),
        ({"metric": "w2", "evals": 5, "score": NAN_BELOW, "dim": 2}, r"100% of the particles .* t = 0\.\d+ to 0\.09"),
        ({"metric": "w2", "evals": 5, "score": LAW.score, "rows": np.ones((5, 2))}, "at least 8 rows"),
        ({"metric": "w2", "evals": 1, "target": LAW, "kernel": "heun"}, "no kernel makes a step with evals = 1"),
        ({"target_w2": 1e-9, "score": LAW.score, "dim": 2, "kernel": "ddim"}, "takes more than 256 evaluations"),
    ],
)
def test_what_cannot_be_planned_is_refused(few, arguments, told):
    with pytest.raises(ValueError, match=told):
        plan(**arguments)


def test_a_model_is_not_planned_for_outside_its_own_times(few):
    score = processes.score_from_model(lambda y, t: -y, processes.ddpm(), "noise")
    with pytest.raises(ValueError, match=r"early_stop must lie between 5\.0\d*e-05 and 5\.0"):
        plan(evals=2, metric="w2", score=score, dim=2, early_stop=1e-9)


# A score that jumps back and forth in time faster than any step: no halving brings end points closer.
def test_a_reference_that_does_not_converge_is_told_with_its_factor(few):
    rough = lambda x, t: -x * (1 + 40 * jnp.sign(jnp.sin(1e6 * t)))
    with pytest.raises(ValueError, match=r"no reference of 512 steps converges: .*: ddim 0\.\d"):
        plan(evals=4, metric="w2", score=rough, dim=2, kernel="ddim", horizon=1.0, early_stop=0.5)
