"""The best grids of a curve, by closed forms and by searches that remember nothing; what is remembered."""

import dataclasses
import gc
import weakref

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import grids
from jaxdiff.curves import Curve
from jaxdiff.guarantees.step_cost import cost_of, step_cost
from jaxdiff.planning import best_grid as search
from jaxdiff.planning.best_grid import best, fewest_steps


def gaussian(variance):
    """The mmse of N(0, variance), a new curve each time, with nothing but NumPy in it."""
    value = lambda snr: variance / (1 + snr * variance)
    return Curve(value, 1, integral=lambda snr: np.log1p(snr * variance))


# Ancestral sampling of N(0, v) costs (r - 1 - log r)/2 a step, r = (1 + v snr_next)/(1 + v snr), convex in log r.
def best_of_gaussian(variance, horizon, early_stop, n_steps):
    """The optimal grid, geometric in 1 + v snr."""
    widening = np.geomspace(*(1 + variance / np.expm1(2 * np.array([horizon, early_stop]))), n_steps + 1)
    return np.log1p(variance / (widening - 1)) / 2


@pytest.fixture
def searches(monkeypatch):
    """The options of every search that is made, among few candidates."""
    asked, original = [], search.optimal
    monkeypatch.setattr(search, "CANDIDATES", 60)
    monkeypatch.setattr(search, "optimal", lambda *args, **more: asked.append(more) or original(*args, **more))
    return asked


# Newton's method stops where the cost falls by less than 1e-10 of itself, so nodes are known to about 1e-5.
CLOSE = {"rtol": 1e-4}


def test_a_grid_is_looked_for_once_and_is_that_of_the_closed_form(searches):
    curve = gaussian(0.4)
    first, again = (best(cost_of("ancestral"), curve, 3.0, 0.01, 6) for _ in range(2))
    assert len(searches) == 1
    np.testing.assert_allclose(first, best_of_gaussian(0.4, 3.0, 0.01, 6), **CLOSE)
    np.testing.assert_array_equal(again, first)
    for request in ((3.0, 0.01, 7), (4.0, 0.01, 6), (3.0, 0.02, 6)):
        for _ in range(2):
            found = best(cost_of("ancestral"), curve, *request)
            np.testing.assert_allclose(found, best_of_gaussian(0.4, *request), **CLOSE)
    assert len(searches) == 4


def test_curves_share_no_grid_nor_does_a_copy_with_another_value(searches):
    one, other = gaussian(0.4), gaussian(30.0)
    changed = dataclasses.replace(one, value=other.value, integral=other.integral)
    for _ in range(2):
        for curve, variance in ((one, 0.4), (other, 30.0), (changed, 30.0)):
            found = best(cost_of("ancestral"), curve, 3.0, 0.01, 5)
            np.testing.assert_allclose(found, best_of_gaussian(variance, 3.0, 0.01, 5), **CLOSE)
    assert len(searches) == 3
    shared = best_of_gaussian(0.4, 3.0, 0.01, 5) / best_of_gaussian(30.0, 3.0, 0.01, 5)
    assert np.abs(shared - 1).max() > 0.1  # so a grid of the other curve would have been seen


# A search that remembers nothing is `optimal` itself.
def test_what_is_remembered_is_told_apart_by_kernel_basis_start_and_candidates(searches, monkeypatch):
    rate = np.array([0.3, 4.0])
    along = lambda snr: rate * np.exp(-rate * np.asarray(snr)[..., None])
    curve = Curve(
        lambda snr: along(snr).sum(-1),
        2,
        integral=lambda snr: -np.exp(-rate * np.asarray(snr)[..., None]).sum(-1),
        log_det=lambda snr, h: np.log1p(h[..., None] * along(snr)).sum(-1),
        directions=along,
        basis="coordinates",
    )
    request = (3.0, 0.01, 5)
    start = lambda t: (t - 1) ** 2
    samplers = [("ancestral", None), ("moment_matched", None), ("moment_matched", curve.basis)]
    found = []
    for n_candidates in (60, 12):
        monkeypatch.setattr(search, "CANDIDATES", n_candidates)
        for kernel, basis in (*samplers, ("covariance_matched", None)):
            options = {"n_candidates": n_candidates, "longest": grids.longest_step()}
            if kernel == "covariance_matched":
                options |= {"n_candidates": search.FEW_CANDIDATES, "polish": False}
            cost = step_cost(kernel, curve, basis=basis)
            for start_cost in (None, start):
                fresh = grids.optimal(cost, *request, start_cost=start_cost, **options)
                if kernel == "covariance_matched":
                    fresh = grids.optimal(cost, *request, start_cost=start_cost, around=fresh, **options)
                for _ in range(2):
                    got = best(cost_of(kernel, basis=basis), curve, *request, start_cost)
                    np.testing.assert_array_equal(got, fresh)
                found.append(fresh)
    unlike = [np.abs(one - other).max() for i, one in enumerate(found[:8]) for other in found[:i]]
    assert min(unlike) > 1e-3  # so the grid of another sampler or start would have been seen


@pytest.mark.parametrize(
    ("kernel", "basis", "message"),
    [
        ("moment_matched", np.eye(2)[::-1], "the one that the curve was measured in"),
        ("moment_matched", "coordinates", "the one that the curve was measured in"),
        ("ancestral", np.eye(2), "option of moment_matched alone"),
        ("ddim", None, "ddim"),
    ],
)
def test_a_wrong_sampler_is_refused_where_grids_of_the_curve_are_known(kernel, basis, message, searches):
    own = np.eye(2)
    along = lambda snr: 1 / (1 + np.asarray(snr)[..., None] * np.array([1.0, 3.0]))
    curve = Curve(lambda snr: along(snr).sum(-1), 2, directions=along, basis=own)
    for name, directions in (("moment_matched", own), ("ancestral", None)):
        best(cost_of(name, basis=directions), curve, 3.0, 0.01, 3)
    with pytest.raises(ValueError, match=message):
        best(cost_of(kernel, basis=basis), curve, 3.0, 0.01, 3)


def test_what_a_caller_does_to_a_grid_is_not_seen_by_the_next(searches):
    curve, kept = gaussian(1.0), best_of_gaussian(1.0, 3.0, 0.01, 4)
    for _ in range(3):
        grid = best(cost_of("ancestral"), curve, 3.0, 0.01, 4)
        np.testing.assert_allclose(grid, kept, **CLOSE)
        grid *= 2
    assert len(searches) == 1


def test_grids_that_are_remembered_keep_no_curve_alive(searches):
    curve = gaussian(1.0)
    best(cost_of("ancestral"), curve, 3.0, 0.01, 4)
    fewest_steps(cost_of("ancestral"), curve, 3.0, 0.01, 1.0)
    gc.collect()
    alive, known = weakref.ref(curve), len(search.FOUND)
    del curve
    gc.collect()
    assert alive() is None
    assert len(search.FOUND) == known - 1


def test_a_search_that_fails_is_not_remembered(searches):
    broken = [True]
    value = lambda snr: np.full_like(snr, np.nan) if broken else 1 / (1 + snr)
    curve = Curve(value, 1, integral=np.log1p)
    for _ in range(2):
        with pytest.raises(ValueError, match="nan"):
            best(cost_of("ancestral"), curve, 3.0, 0.01, 4)
    broken.clear()
    found = best(cost_of("ancestral"), curve, 3.0, 0.01, 4)
    np.testing.assert_allclose(found, best_of_gaussian(1.0, 3.0, 0.01, 4), **CLOSE)


@pytest.mark.parametrize("number", [np.asarray, jnp.asarray, np.float64])
def test_ends_and_steps_may_be_arrays_of_no_axes(number, searches):
    curve = gaussian(1.0)
    for n_steps in (4, np.int64(4), jnp.asarray(4)):
        found = best(cost_of("ancestral"), curve, number(3.0), number(0.01), n_steps)
        np.testing.assert_allclose(found, best_of_gaussian(1.0, 3.0, 0.01, 4), **CLOSE)
    assert len(searches) == 1


@pytest.mark.parametrize("n_steps", [4.0, True, 0])
def test_steps_that_are_no_whole_number_are_refused_though_equal_to_a_known_one(n_steps, searches):
    curve = gaussian(1.0)
    for known in (1, 4):
        best(cost_of("ancestral"), curve, 3.0, 0.01, known)
    with pytest.raises(ValueError, match=f"n_steps = {n_steps}"):
        best(cost_of("ancestral"), curve, 3.0, 0.01, n_steps)
