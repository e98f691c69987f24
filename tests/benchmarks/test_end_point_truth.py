"""Exact distances of end points: lattices against normal laws, products against one coordinate, closed forms of KL."""

import numpy as np
import pytest
from scipy.stats import norm

import jaxdiff
from benchmarks.laws import line
from benchmarks.oracles import end_point_truth as truth
from benchmarks.oracles import exact_values as exactly
from jaxdiff import Sampler, grids, kernels, targets
from jaxdiff.guarantees.exact_w2 import Normal

NORMAL = line.Law([1.0], [0.5], [0.3])
AS_NORMAL = exactly.Case(NORMAL.target, NORMAL, normal=(np.array([0.5]), np.array([0.3])))
AS_LINE = exactly.Case(targets.Target(**{**vars(NORMAL.target), "cov": None}), NORMAL)
GRID = grids.log_snr(3.0, 0.05, 12)
COIN = exactly.cases()["two points"]
PRODUCT = exactly.cases()["product of two points, d = 64"]


@pytest.mark.parametrize("name", ["ancestral", "exponential_euler"])
def test_a_lattice_gives_the_distances_of_normal_laws(name):
    sampler = Sampler(getattr(kernels, name)(NORMAL.score), GRID)
    of_normal, of_line = ((truth.end_w2(case, sampler, 0.05), truth.end_kl(case, sampler, 0.05))
                          for case in (AS_NORMAL, AS_LINE))  # fmt: skip
    np.testing.assert_allclose(of_line, of_normal, rtol=1e-4)
    assert min(of_normal) > 1e-3


def test_a_product_of_equal_coordinates_is_measured_on_one_of_them():
    plan = jaxdiff.plan(evals=4, horizon=3.0, early_stop=0.05, target=PRODUCT.law)
    wide, one = (
        plan.sampler(PRODUCT.law.score),
        Sampler(kernels.moment_matched(COIN.law.score, COIN.law.mmse), plan.grid),
    )
    assert truth.end_w2(PRODUCT, wide, 0.05) == pytest.approx(8 * truth.end_w2(COIN, one, 0.05), rel=1e-6)
    assert truth.end_kl(PRODUCT, wide, 0.05) == pytest.approx(64 * truth.end_kl(COIN, one, 0.05), rel=1e-6)
    ode, of_one = (Sampler(kernels.ddim(case.law.score), plan.grid) for case in (PRODUCT, COIN))
    assert truth.end_w2(PRODUCT, ode, 0.05) == pytest.approx(8 * truth.end_w2(COIN, of_one, 0.05), rel=1e-6)


# The density 2 y on [0, 1] has the quantiles sqrt(level).
def test_quantiles_of_a_lattice():
    y = np.linspace(0, 1, 101)
    levels = np.linspace(0.05, 0.95, 19)
    np.testing.assert_allclose(truth.lattice_quantiles(exactly.Lattice(y, 2 * y), levels), np.sqrt(levels), atol=1e-5)


def test_kl_of_normal_laws_adds_up_along_common_axes():
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    of = lambda mean, v: Normal(turned @ mean, (turned * v) @ turned.T)
    mean, v, other, w = np.array([0.0, 1.0, -2.0]), np.array([1.0, 0.2, 3.0]), np.zeros(3), np.array([2.0, 0.2, 1.0])
    x = np.linspace(-30, 30, 200_001)
    each = [np.sum(norm.pdf(x, a, b**0.5) * (norm.logpdf(x, a, b**0.5) - norm.logpdf(x, c, d**0.5))) * (x[1] - x[0])
            for a, b, c, d in zip(mean, v, other, w, strict=True)]  # fmt: skip
    assert truth.normal_kl(of(mean, v), of(other, w)) == pytest.approx(sum(each), rel=1e-6)


def test_laws_that_are_neither_normal_nor_on_the_line_have_no_exact_distance():
    ring = exactly.cases()["ring of 8, d = 2"]
    sampler = Sampler(kernels.ancestral(ring.law.score), GRID)
    assert (truth.end_w2(ring, sampler, 0.05), truth.end_kl(ring, sampler, 0.05)) == (None, None)
    several = Sampler(kernels.seeds(COIN.law.score), GRID)
    assert truth.end_w2(COIN, several, 0.05) is None
