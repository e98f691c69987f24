"""Two-sample distances of a reference: those of runs from noise, beside the distance of equal laws."""

import jax
import numpy as np
import pytest

from jaxdiff.guarantees.end_point_distances import Ends, Starts
from jaxdiff.guarantees.two_sample import two_sample_terms

GRID = np.array([3.0, 0.01])
ROWS = np.random.default_rng(0).normal(size=(100, 2))


def terms_of(limit, reference, scale=1.0):
    ends = Ends(reference, reference, reference, reference, reference, limit, "the reference", 0.0)
    starts = Starts(np.zeros((300, 2), np.float32), None, np.tile(ROWS, (3, 1)).astype(np.float32), 100)
    return two_sample_terms(ends, starts, GRID, jax.random.key(0), scale)


def floor_of(term):
    return float(term.source.split("of equal laws ")[1].split(",")[0])


# Every noised row is shifted by (3, 4), so W2 along a direction u is |u . (3, 4)|. The noise in the rows and the 128
# directions are drawn here again.
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_sliced_w2_of_shifted_rows_is_the_length_of_the_shift_along_the_directions(scale):
    key, t = jax.random.key(0), GRID[-1]
    z = np.asarray(jax.random.normal(jax.random.fold_in(key, 2), ROWS.shape, np.float32))
    shifted = np.exp(-t) * ROWS + np.sqrt(-np.expm1(-2 * t)) * z + np.array([3.0, 4.0])
    u = np.asarray(jax.random.normal(jax.random.fold_in(key, 3), (2, 128)))
    along = np.array([3.0, 4.0]) @ (u / np.linalg.norm(u, axis=0))
    sliced, _ = terms_of(np.tile(shifted, (3, 1)), None, scale)
    assert sliced.value == pytest.approx(scale * np.sqrt(np.mean(along**2)), rel=1e-5)  # rows are float32
    assert sliced.unit == "sliced W2"  # no part of a sum in W2


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_shifted_reference_is_far_and_equal_laws_are_at_the_floor(scale):
    equal = np.random.default_rng(1).normal(size=(300, 2))
    far = equal + np.array([3.0, 4.0])
    for term in terms_of(equal, far, scale):  # runs from noised rows are not compared with these rows
        assert abs(term.value - floor_of(term)) < 0.25 * scale
    _, energy = terms_of(far, equal, scale)
    assert energy.value > 10 * abs(floor_of(energy))


def test_without_rows_there_is_nothing_to_compare():
    equal = np.zeros((300, 2))
    assert terms_of(None, equal) == []
