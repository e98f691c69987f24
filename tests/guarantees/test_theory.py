"""THEORY's inequalities on random laws and grids, and the figures that the package promises."""

import functools
import itertools

import numpy as np
import oracles
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxdiff import certify, grids, targets
from jaxdiff.guarantees.bounds import any_grid, from_nodes
from jaxdiff.guarantees.path_kl import path_kl
from jaxdiff.guarantees.step_cost import step_cost
from jaxdiff.processes import ou

NAMES = ["exponential_euler", "ancestral", "moment_matched"]
NAMED_GRIDS = (grids.exponential_then_uniform, grids.karras, grids.log_snr, grids.uniform)
COIN = targets.point_masses([[-1.0], [1.0]])
POOL = 40  # mixtures on the line: a curve is tabulated once a law
thorough = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@functools.cache
def pooled(number):
    """A mixture on the line of two or three components, some of them atoms: its arrays and its Target."""
    rng = np.random.default_rng(number)
    k = int(rng.integers(2, 4))
    weights, means = rng.dirichlet(2 * np.ones(k)), rng.uniform(-2, 2, k)
    variances = np.where(rng.uniform(size=k) < 0.4, 0.0, rng.uniform(0.02, 1.5, k))
    return (weights, means, variances), targets.mixture(weights, means[:, None], variances[:, None])


def variance_of(law):
    weights, means, variances = law
    return weights @ (variances + means**2) - (weights @ means) ** 2


random_variances = st.one_of(st.just(0.0), st.floats(1e-6, 9.0))


def diagonal_gaussian(coordinates):
    means, variances = zip(*coordinates, strict=True)
    return targets.gaussian(means, variances), sum(variances)


def turned_gaussian(dim, rank, variance, seed):
    """A full covariance: isotropic, or of a rank below d."""
    axes = np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, dim)))[0]
    variances = np.full(dim, variance)
    if rank < dim:
        variances = np.where(np.arange(dim) < rank, variance * np.linspace(1, 0.1, dim), 0.0)
    return targets.gaussian(np.zeros(dim), (axes * variances) @ axes.T), float(np.sum(variances))


def mixture(number):
    law, target = pooled(number)
    return target, float(variance_of(law))


def product(coins, number, variance):
    """So many coins, and a mixture of the pool and a Gaussian where they are not None."""
    factors, total = [COIN] * coins, float(coins)
    if number is not None:
        factors, total = [*factors, pooled(number)[1]], total + variance_of(pooled(number)[0])
    if variance is not None:
        factors, total = [targets.gaussian([0.0], [variance]), *factors], total + variance
    return targets.product(factors), float(total)


# Laws are built by the tests: in a strategy Hypothesis objects to the random numbers that beartype draws.
def of(make, *arguments):
    return st.tuples(st.just(make), *arguments)


coordinates = lambda most: st.lists(st.tuples(st.floats(-2, 2), random_variances), min_size=1, max_size=most)
pool = st.integers(0, POOL - 1)
laws = st.one_of(
    of(diagonal_gaussian, coordinates(4)),
    of(turned_gaussian, st.integers(2, 4), st.integers(0, 4), random_variances, st.integers(0, 999)),
    of(mixture, pool),
    of(product, st.integers(1, 5), st.none() | pool, st.none() | random_variances),
)


@st.composite
def ragged_grids(draw):
    """3 to 9 nodes."""
    gaps = draw(st.lists(st.floats(0.003, 1.0), min_size=2, max_size=8))
    return draw(st.floats(0.005, 0.5)) + np.cumsum([0.0, *gaps])[::-1]


def rounding(grid, dim):
    """Of a path KL, in which d log snr range cancels."""
    return 1e-10 * dim * (1 + np.log(ou.snr(grid[-1]) / ou.snr(grid[0])))


def value(certificate):
    return certificate["discretisation"].value


@thorough
@given(laws, ragged_grids())
def test_bounds_enclose_the_path_kl_of_every_law_on_every_grid(case, grid):
    make, *arguments = case
    law, variance = make(*arguments)
    for name in NAMES:
        chain = [
            value(any_grid.lower(name, grid, law.dim, variance)),
            value(from_nodes.lower(name, law.mmse, grid)),
            path_kl(name, law.mmse, grid),
            value(from_nodes.upper(name, law.mmse, grid)),
            value(any_grid.upper(name, grid, law.dim, variance, cells=60)),
        ]
        assert (np.diff(chain) >= -rounding(grid, law.dim)).all(), (name, chain)


# Jensen and Hadamard: E log det(I + h S) <= E sum log(1 + h S_ii) <= sum log(1 + h E S_ii) <= d log(1 + h V/d).
@thorough
@given(laws, ragged_grids())
def test_matching_more_of_the_innovation_never_costs_more(case, grid):
    make, *arguments = case
    law, _ = make(*arguments)
    euler, ancestral, matched = (path_kl(name, law.mmse, grid) for name in NAMES)
    by_direction = path_kl("moment_matched", law.mmse, grid, basis=law.mmse.basis)
    by_covariance = path_kl("covariance_matched", law.mmse, grid)
    chain = [0.0, by_covariance, by_direction, matched, min(ancestral, euler)]
    assert (np.diff(chain) >= -rounding(grid, law.dim)).all(), chain


def euler_law(grid, noised):
    """Mean and variance of exponential Euler's output from N(0, 1): x' = e^g x + 2 (e^g - 1) s + sqrt(e^2g - 1) Z."""
    mean, variance = 0.0, 1.0
    for t, g in zip(grid[:-1], -np.diff(grid), strict=True):
        centre, spread = noised(t)
        slope = np.exp(g) - 2 * np.expm1(g) / spread
        mean, variance = slope * mean + 2 * np.expm1(g) * centre / spread, slope**2 * variance + np.expm1(2 * g)
    return mean, variance


def chain_of(name, grid, mean, variance):
    """KL of N(mean, variance)'s q_delta to the output of the chain from N(0, 1), and of q_T to N(0, 1)."""
    noised = lambda t: (np.exp(-t) * mean, np.exp(-2 * t) * variance - np.expm1(-2 * t))
    output = euler_law(grid, noised) if name == NAMES[0] else oracles.chain_law(name, grid, mean, variance, 0.0, 1.0)
    return oracles.gaussian_kl(*noised(grid[-1]), *output), oracles.gaussian_kl(*noised(grid[0]), 0.0, 1.0)


@thorough
@given(coordinates(2), ragged_grids())
def test_path_and_initial_kl_and_the_certificate_bound_the_kl_of_gaussian_samples(moments, grid):
    law, _ = diagonal_gaussian(moments)
    for name in NAMES:  # with more coordinates the moment-matched variance is one in each of them
        basis = "coordinates" if name == "moment_matched" else None
        each = [chain_of(name, grid, mean, variance) for mean, variance in moments]
        exact, initial = np.sum(each, axis=0)
        assert exact <= path_kl(name, law.mmse, grid, basis=basis) + initial + rounding(grid, law.dim)
        assert exact <= certify(name, grid, target=law, basis=basis).upper + rounding(grid, law.dim)


# The law of the chain's output on a lattice, by Chapman and Kolmogorov.
@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("name", NAMES)
def test_a_certificate_bounds_the_kl_of_samples_of_a_mixture(name, number):
    law, target = pooled(number)
    grid = np.array([1.2, 0.7, 0.4, 0.25, 0.15])
    x = np.linspace(-8, 8, 1201)
    cell, density = x[1] - x[0], np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    for t, t_next in itertools.pairwise(grid):
        spread = oracles.mixture_mmse(law, 1 / np.expm1(2 * t))
        mean, noise = oracles.one_step(name, t, t_next, oracles.mixture_score(law, x, t), x, spread)
        density = cell * np.exp(-((x[:, None] - mean) ** 2) / (2 * noise)) @ density / np.sqrt(2 * np.pi * noise)
    exact = oracles.mixture_density(law, x, grid[-1])
    inside = exact > 1e-200
    kl = cell * np.sum(exact[inside] * np.log(exact[inside] / density[inside]))
    assert cell * density.sum() == pytest.approx(1, abs=1e-4)  # what leaves the lattice only adds to the KL
    certificate = certify(name, grid, target=target)
    assert 0 < kl <= certificate.upper < 100 * kl + 2
    initial = oracles.mixture_density(law, x, grid[0])
    start = cell * np.sum(initial * (np.log(initial) + x**2 / 2 + np.log(2 * np.pi) / 2))
    assert certificate["initialisation"].value == pytest.approx(start, rel=1e-7)


def forty_laws():
    rng = np.random.default_rng(0)
    for number in range(20):
        yield pooled(number)[1]
    for _ in range(12):
        yield targets.gaussian(np.zeros(3), rng.uniform(0, 9, 3) ** rng.integers(1, 3) * (rng.uniform(size=3) < 0.8))
    for dim in (2, 3, 4, 5):
        root = rng.standard_normal((dim, 2))
        yield targets.gaussian(np.zeros(dim), root @ root.T)
        yield targets.product([COIN] * dim + [pooled(dim)[1]])


FORTY = tuple(forty_laws())


@pytest.mark.parametrize("name", [*NAMES, "covariance_matched"])
def test_an_optimal_grid_costs_no_more_than_any_named_grid(name):
    rng = np.random.default_rng(1)
    for law in FORTY if name in NAMES else FORTY[::4]:  # a log det at each of 19,900 pairs of times takes longer
        n_steps, horizon, early_stop = int(rng.integers(2, 12)), rng.uniform(1, 4), rng.uniform(0.005, 0.2)
        cost = step_cost(name, law.mmse)
        total = lambda grid, cost=cost: float(np.sum(cost(grid[:-1], grid[1:])))
        best = grids.optimal(cost, horizon, early_stop, n_steps, n_candidates=200)
        assert len(best) == n_steps + 1
        for make in NAMED_GRIDS:
            named = make(horizon, early_stop, n_steps)
            assert total(best) <= total(named) + rounding(named, law.dim), make


def steps_of(law, name, n_steps=50, horizon=5, early_stop=1e-3, **options):
    """The path KL of a kernel on its optimal grid."""
    cost = step_cost(name, law.mmse)
    return path_kl(name, law.mmse, grids.optimal(cost, horizon, early_stop, n_steps, **options))


BENTON = grids.exponential_then_uniform(5, 1e-3, 50)
LOW_RANK = np.repeat([1.0, 1e-6], [8, 56])
RANDOM_ROOT = np.random.default_rng(0).standard_normal((4, 4))
PROMISED = {  # (law, ancestral on its optimal grid, exponential Euler on Benton's, their ratio at least)
    "N(0, 1)": (targets.gaussian([0.0], [1.0]), (0.2014254, 5e-8), (0.7366, 5e-5), 3.6),
    "N(0, .01)": (targets.gaussian([0.0], [0.01]), (0.0162303, 5e-8), (1.0837, 6e-5), 60),
    "8 of 64": (targets.gaussian(np.zeros(64), LOW_RANK), (1.611, 5e-4), (75.85, 5e-3), 45),
}


@pytest.mark.parametrize("name", PROMISED)
def test_fifty_steps_cost_what_is_promised_against_bentons(name):
    law, (ours, ours_close), (bentons, bentons_close), ratio = PROMISED[name]
    best, euler = steps_of(law, "ancestral"), path_kl("exponential_euler", law.mmse, BENTON)
    assert best == pytest.approx(ours, abs=ours_close)
    assert euler == pytest.approx(bentons, abs=bentons_close)
    assert euler / best >= ratio


def test_matching_directions_or_covariance_costs_nothing_on_any_gaussian():
    full = targets.gaussian(np.zeros(4), RANDOM_ROOT @ RANDOM_ROOT.T)
    for law in (*(law for law, *_ in PROMISED.values()), full):
        assert path_kl("moment_matched", law.mmse, BENTON, basis=law.mmse.basis) == pytest.approx(0, abs=1e-10)
        assert path_kl("covariance_matched", law.mmse, BENTON) == pytest.approx(0, abs=1e-10)
    for law in (PROMISED["8 of 64"][0], full):  # neither is free for one variance in all directions
        assert path_kl("moment_matched", law.mmse, BENTON) > 0.1


def test_twenty_steps_of_covariance_matching_on_two_points_beat_two_thousand_of_bentons():
    cost = steps_of(COIN, "covariance_matched", 20, 3, 0.01, n_candidates=241)
    assert 0.9 * 0.00786 < cost < 0.008
    euler = path_kl("exponential_euler", COIN.mmse, grids.exponential_then_uniform(3, 0.01, 2000))
    assert euler > 0.008
