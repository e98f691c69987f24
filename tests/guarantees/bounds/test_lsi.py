"""Curvature and spectral gap against closed forms, a Galerkin method and variances."""

import jax
import numpy as np
import pytest
from oracles import mixture_density
from scipy.linalg import eigh

from jaxdiff import targets
from jaxdiff.guarantees.bounds import lsi
from jaxdiff.guarantees.bounds.pedrotti2023 import lsi_constant

LINE, PLANE = 1e-6, 1e-3  # the documented relative errors for a Gaussian


def gaussian(precision, mean=0.0):
    precision = np.atleast_2d(precision)
    return lambda x: -np.einsum("ni,ij,nj->n", x - mean, precision, x - mean) / 2


def flat(x):
    return np.zeros(len(x))


def uneven(x):
    """Two clouds of different weights and widths, a box away from 0."""
    return np.log(mixture_density(([0.3, 0.7], [-1.0, 0.8], [0.3, 0.15]), x[:, 0], 0.1))


@pytest.mark.parametrize("variance", [1e-4, 0.3, 1.0, 50.0])
@pytest.mark.parametrize("mean", [0.0, 3.0])
def test_the_gap_of_a_gaussian_on_the_line_is_one_over_its_variance(variance, mean):
    reach = 8 * np.sqrt(variance)
    got = lsi.spectral_gap(gaussian(1 / variance, mean), ((mean - reach, mean + reach),))
    assert got == pytest.approx(1 / variance, rel=LINE)


@pytest.mark.parametrize("length", [0.2, 1.0, 7.0])
def test_the_gap_of_a_uniform_law_is_that_of_reflecting_walls(length):
    assert lsi.spectral_gap(flat, ((-1, length - 1),)) == pytest.approx(np.pi**2 / length**2, rel=LINE)
    for n in (2, 7, 50):  # of n cells, cos(pi k (i + 1/2)/n)
        exact = (2 - 2 * np.cos(np.pi / n)) * (n / length) ** 2
        assert lsi.spectral_gap(flat, ((0, length),), cells=n) == pytest.approx(exact, rel=1e-11)


def test_the_gap_of_a_rectangle_is_that_of_its_longer_side():
    exact = (2 - 2 * np.cos(np.pi / 40)) * (40 / 3) ** 2
    assert lsi.spectral_gap(flat, ((0, 1), (-1, 2)), cells=40) == pytest.approx(exact, rel=1e-8)
    assert lsi.spectral_gap(flat, ((-1, 2), (0, 1)), cells=40) == pytest.approx(exact, rel=1e-8)


# f = e^(r x/2) g turns f'' - r f' = -gap f into g'' = (r^2/4 - gap) g, whose first g is a sine.
@pytest.mark.parametrize("rate", [-2.0, 0.5, 3.0])
def test_the_gap_of_an_exponential_law_on_an_interval_is_known(rate):
    got = lsi.spectral_gap(lambda x: -rate * x[:, 0], ((0, 5),))
    assert got == pytest.approx(rate**2 / 4 + (np.pi / 5) ** 2, rel=1e-5)  # r^2 h^2 of a cell


# The least of int q f'^2 / int q f^2 over polynomials f without a mean: it falls to the gap at the speed of a series.
def galerkin(log_density, low, high, degree=40):
    nodes, weights = np.polynomial.legendre.leggauss(150)
    x = (low + high) / 2 + (high - low) / 2 * nodes
    q = weights * np.exp(log_density(x[:, None]))
    values = np.polynomial.legendre.legvander(nodes, degree)
    slopes = np.polynomial.legendre.legval(nodes, np.polynomial.legendre.legder(np.eye(degree + 1))).T
    slopes *= 2 / (high - low)
    return eigh((slopes * q[:, None]).T @ slopes, (values * q[:, None]).T @ values, eigvals_only=True)[1]


@pytest.mark.parametrize("box", [(-1.5, 1.5), (-2.0, 1.0), (-1.2, 2.0)])
def test_the_gap_of_two_clouds_is_that_of_a_galerkin_method(box):
    want = galerkin(uneven, *box)
    assert want == pytest.approx(galerkin(uneven, *box, degree=36), rel=1e-7)  # has converged
    assert lsi.spectral_gap(uneven, (box,)) == pytest.approx(want, rel=3e-6)
    assert want < 0.9 * lsi.spectral_gap(gaussian(1 / 0.8), (box,))  # two clouds are slower than one


@pytest.mark.parametrize("correlation", [0.0, 0.6, -0.8])
def test_the_gap_of_a_gaussian_in_the_plane_is_one_over_its_largest_variance(correlation):
    cov = np.array([[1.0, correlation * np.sqrt(0.5)], [correlation * np.sqrt(0.5), 0.5]])
    box = [(-7 * scale, 7 * scale) for scale in np.sqrt(np.diag(cov))]
    got = lsi.spectral_gap(gaussian(np.linalg.inv(cov)), box)
    assert got == pytest.approx(1 / np.linalg.eigvalsh(cov)[-1], rel=PLANE)


# error = a/n^2 + b/n^4 + ...: the ratio at n and 2n is 4 + 3 b/(a n^2), and comes four times as close at 2n and 4n.
@pytest.mark.parametrize(
    ("law", "box", "exact", "cells"),
    [
        (lambda x: -x[:, 0], ((0, 4),), 1 / 4 + (np.pi / 4) ** 2, 20),
        (flat, ((0, 1),), np.pi**2, 20),
        (lambda x: -x[:, 0] + x[:, 1] / 2, ((0, 4), (0, 5)), 1 / 16 + (np.pi / 5) ** 2, 20),
    ],
)
def test_the_gap_converges_with_the_square_of_the_cells(law, box, exact, cells):
    errors = np.array([lsi.spectral_gap(law, box, cells=n) - exact for n in (cells, 2 * cells, 4 * cells)])
    off = errors[:-1] / errors[1:] - 4
    assert abs(off[1]) < 0.01
    assert abs(off[0] / off[1] - 4) < 0.4


def test_the_cells_are_4000_on_the_line_and_160_in_the_plane():
    for box, cells in ((((0, 1),), 4000), (((0, 1), (0, 2)), 160)):
        assert lsi.spectral_gap(flat, box) == lsi.spectral_gap(flat, box, cells=cells)
        length = box[-1][1]
        exact = (2 - 2 * np.cos(np.pi / cells)) * (cells / length) ** 2
        assert lsi.spectral_gap(flat, box) == pytest.approx(exact, rel=2e-8)  # off from pi^2/length^2 by 5e-8 or more


# Of a product the generators add up, cell by cell too: its eigenvalues are the sums.
def test_the_gap_of_a_product_is_the_least_of_its_factors():
    one, other = (-1.5, 1.5), (-4.0, 5.0)
    narrow = gaussian(1 / 0.6)
    gaps = [lsi.spectral_gap(uneven, (one,), cells=60), lsi.spectral_gap(narrow, (other,), cells=60)]
    together = lambda x: uneven(x[:, :1]) + narrow(x[:, 1:])
    assert lsi.spectral_gap(together, (one, other), cells=60) == pytest.approx(min(gaps), rel=1e-8)
    turned = lambda x: uneven(x[:, 1:]) + narrow(x[:, :1])
    assert lsi.spectral_gap(turned, (other, one), cells=60) == pytest.approx(min(gaps), rel=1e-8)


@pytest.mark.parametrize("shift", [-700.0, 0.0, 700.0])
def test_a_density_counts_up_to_a_constant_only(shift):
    got = [lsi.spectral_gap(lambda x, s=s: uneven(x) + s, ((-1.5, 1.5),), cells=200) for s in (0.0, shift)]
    assert got[1] == pytest.approx(got[0], rel=1e-7)


@pytest.mark.parametrize(("radius", "t"), [(1.0, 1.0), (3.0, 1.5), (3.0, 2.0), (0.4, 0.3), (2.0, 0.9)])
def test_the_gap_of_two_points_is_no_less_than_the_constant_which_is_their_curvature_at_0(radius, t):
    law, at_0 = targets.point_masses([[-radius], [radius]]), np.zeros((1, 1))
    claimed = float(lsi_constant(t, radius))
    log_density = jax.jit(lambda x: law.log_density(x, t))
    box = lsi.box_of(log_density, np.linspace(-radius, radius, 9)[:, None])
    assert claimed > 0
    assert lsi.spectral_gap(log_density, box) >= claimed
    assert lsi.least_curvature(law.score, at_0, t) == pytest.approx(claimed, rel=1e-9)
    assert lsi.least_curvature(law.score, np.linspace(-5, 5, 301)[:, None], t) == pytest.approx(claimed, rel=1e-9)


def test_a_gap_below_a_claimed_constant_is_found():
    log_density = jax.jit(lambda x: targets.point_masses([[-2.0], [2.0]]).log_density(x, 0.1))
    assert float(lsi_constant(0.1, 2.0)) < 0
    gap = lsi.spectral_gap(log_density, lsi.box_of(log_density, np.array([[-2.0], [2.0]])))
    assert 0 < gap < 0.01 < float(lsi_constant(0.1, 0.3))  # a radius that these points do not have


@pytest.mark.parametrize("depth", [20.0, 40.0])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_box_ends_where_the_density_has_fallen_by_its_depth(depth, scale):
    law = ([0.2, 0.5, 0.3], np.array([-4.0, 0.0, 7.0]) * scale, np.array([0.2, 0.1, 1.0]) * scale**2)

    def log_density(x):
        x = x[:, 0] / scale
        parts = [np.log(w) - (x - m / scale) ** 2 / (2 * v / scale**2) - np.log(v / scale**2) / 2
                 for w, m, v in zip(*law, strict=True)]  # fmt: skip
        return np.logaddexp.reduce(parts, axis=0)

    points = np.array([-4.0, 0.0, 7.0])[:, None] * scale
    ((low, high),) = lsi.box_of(log_density, points, depth=depth)
    highest = log_density(points).max()
    beyond = np.array([[low, low - scale], [high, high + scale]])
    assert (log_density(beyond.reshape(-1, 1)) <= highest - depth).all()
    assert low < -4 * scale < 7 * scale < high < 100 * scale
    assert -100 * scale < low


def test_a_box_in_the_plane_holds_the_mass_of_a_gaussian():
    cov = np.array([[1.0, 0.5], [0.5, 2.0]])
    x = np.random.default_rng(0).multivariate_normal([3.0, -1.0], cov, 500)
    box = lsi.box_of(gaussian(np.linalg.inv(cov), np.array([3.0, -1.0])), x)
    for (low, high), mean, variance in zip(box, [3.0, -1.0], [1.0, 2.0], strict=True):
        assert low < mean - 7 * np.sqrt(variance)
        assert high > mean + 7 * np.sqrt(variance)
    assert lsi.spectral_gap(gaussian(np.linalg.inv(cov), np.array([3.0, -1.0])), box) == pytest.approx(
        1 / np.linalg.eigvalsh(cov)[-1], rel=3 * PLANE
    )


def test_the_one_sided_constant_of_a_linear_score_is_the_largest_eigenvalue_of_its_symmetric_part():
    rng = np.random.default_rng(1)
    for d in (1, 2, 5):
        matrix, x = rng.normal(size=(d, d)), rng.normal(size=(7, d))
        want = np.linalg.eigvalsh((matrix + matrix.T) / 2)[-1]
        assert lsi.one_sided(lambda x, t, m=matrix: x @ m.T * t, x, 2.0) == pytest.approx(2 * want, rel=1e-12)
        # <x - y, s(x) - s(y)> <= L |x - y|^2, as it is used
        gaps = rng.normal(size=(1000, d))
        assert (np.einsum("ni,ij,nj->n", gaps, matrix, gaps) <= want * np.sum(gaps**2, 1) + 1e-12).all()


def test_the_one_sided_constant_is_the_largest_over_the_points():
    score = lambda x, t: x**3
    assert lsi.one_sided(score, np.array([[0.1], [-2.0], [1.0]]), 0.5) == pytest.approx(12.0, rel=1e-12)
    assert lsi.least_curvature(score, np.array([[0.1], [1.0]]), 0.5) == pytest.approx(-3.0, rel=1e-12)


def test_the_least_curvature_of_a_gaussian_is_one_over_its_largest_variance():
    root, t = np.random.default_rng(2).normal(size=(3, 3)), 0.4
    law = targets.gaussian(np.ones(3), root @ root.T)
    noised = np.exp(-2 * t) * np.linalg.eigvalsh(root @ root.T)[-1] - np.expm1(-2 * t)
    for dtype, rtol in ((np.float64, 1e-10), (np.float32, 1e-4)):
        x = np.random.default_rng(3).normal(size=(20, 3)).astype(dtype)
        assert lsi.least_curvature(law.score, x, t) == pytest.approx(1 / noised, rel=rtol)


# The gap is at most E f'^2/Var f for all f, 1/Var for f = x; of a law without a variance it falls to 0 with the box.
@pytest.mark.parametrize("freedom", [1.0, 2.0])
def test_the_gap_of_a_heavy_tail_shrinks_as_the_box_grows(freedom):
    student = lambda x: -(freedom + 1) / 2 * np.log1p(x[:, 0] ** 2 / freedom)
    gaps = []
    for reach in (5.0, 20.0, 80.0, 320.0):
        x = np.linspace(-reach, reach, 200_001)
        q = np.exp(student(x[:, None]))
        gaps.append(lsi.spectral_gap(student, ((-reach, reach),)))
        assert gaps[-1] <= np.sum(q) / np.sum(q * x**2) * (1 + 1e-4)
    assert (np.array(gaps[1:]) < 0.5 * np.array(gaps[:-1])).all()


@pytest.mark.parametrize(
    "box", [(0.0, 1.0), ((1.0, 0.0),), ((0.0, 0.0),), ((0.0, 1.0),) * 3, ((0.0, np.nan),), ((0.0, 1.0, 2.0),), ()]
)
def test_a_box_that_is_none_is_refused(box):
    with pytest.raises(ValueError, match=r"box must be \(\(low, high\),\) for d = 1, two of those for d = 2"):
        lsi.spectral_gap(flat, box)


@pytest.mark.parametrize(("correlation", "cells", "error"), [(0.9, 160, 3 * PLANE), (0.99, 400, 5 * PLANE)])
def test_the_box_of_a_correlated_law_holds_its_ridge(correlation, cells, error):
    cov = np.array([[1.0, correlation], [correlation, 1.0]])
    log_density = gaussian(np.linalg.inv(cov))
    x = np.random.default_rng(0).multivariate_normal(np.zeros(2), cov, size=500)
    box = lsi.box_of(log_density, x)
    gap = lsi.spectral_gap(log_density, box, cells=cells)
    assert gap == pytest.approx(1 / (1 + correlation), rel=error)


def test_the_box_holds_narrow_modes_far_apart():
    log_density = lambda x: np.logaddexp(-(x[:, 0] ** 2) / 2e-6, -((x[:, 0] - 5) ** 2) / 2e-6)
    ((low, high),) = lsi.box_of(log_density, np.array([[0.0]] * 9 + [[5.0]]))
    assert low < 0
    assert high > 5
    ((low, high),) = lsi.box_of(lambda x: -(x[:, 0] ** 2) / 2e-10, np.zeros((3, 1)))
    assert low < 0 < high


@pytest.mark.parametrize(
    ("log_density", "cells", "match"),
    [
        (lambda x: np.zeros(len(x)), 1, "cells = 1"),
        (lambda x: np.where(x[:, 0] > 0, 0.0, -np.inf), 10, "finite all over the box"),
    ],
)
def test_a_gap_that_cannot_be_found_is_refused(log_density, cells, match):
    with pytest.raises(ValueError, match=match):
        lsi.spectral_gap(log_density, ((-1, 1),), cells=cells)


def test_a_density_in_float32_finds_the_gap_to_its_own_precision():
    single = lambda x: (-(x.astype(np.float32)[:, 0] ** 2) / 2).astype(np.float32)
    assert lsi.spectral_gap(single, ((-8, 8),)) == pytest.approx(1.0, rel=1e-4)


def test_a_box_of_a_density_that_does_not_fall_is_refused():
    with pytest.raises(ValueError, match="does not fall along axis 0"):
        lsi.box_of(lambda x: np.zeros(len(x)), np.linspace(-1, 1, 5)[:, None])
    with pytest.raises(ValueError, match="finite at the points"):
        lsi.box_of(lambda x: np.full(len(x), np.nan), np.linspace(-1, 1, 5)[:, None])
