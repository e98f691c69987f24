"""The study samples_or_paths: pairs at the floor, looseness where the error is clear, and a verdict that comes out both
ways."""

import numpy as np
import pytest

from benchmarks import samples_or_paths as study


def made(w2, kl, named=(1.0,), floor=0.5, law="a law", **more):
    """Rows of one law: sliced W2 of the three samplers for N = 5, 10, ..."""
    rows = []
    for i, sliced in enumerate(zip(w2, kl, [*named] * len(w2), strict=False)):
        for name, value in zip((study.W2_PLAN, study.KL_PLAN, study.BEST_NAMED), sliced, strict=True):
            row = {"law": law, "N": 5 * 2**i, "sampler": name, "sliced_w2": value, "floor": floor, "part": "case"}
            rows.append(row | {"w2_at_least": 2.0, "certified": 6.0, "gain": 1.5} | more)
    return rows


def test_errors_below_the_floor_count_as_the_floor():
    np.testing.assert_allclose(study.pairs(made([0.1, 0.9], [0.2, 0.3]), study.KL_PLAN), [(0.5, 0.5), (0.9, 0.5)])


def test_certificates_are_compared_where_the_error_is_clear():
    assert study.looseness(made([0.7, 0.8], [1.0, 1.0])) == [3.0]  # 0.7 is below 1.5 times the floor
    assert study.looseness(made([0.7], [1.0])) == []


def test_the_verdict_counts_both_ways():
    good = study.verdict(made([0.6, 0.6], [1.0, 1.2]))
    assert "less sliced W2 in 2 of 2 cases, more in 0" in good
    bad = study.verdict(made([1.3, 1.2], [1.0, 1.0]))
    assert "less sliced W2 in 0 of 2 cases, more in 2" in bad
    assert "is 3 to 3 times a lower bound on the truth" in bad
    assert "On the network" not in bad
    assert "planned grids lower the distance 1.50 to 1.50 times" in study.verdict(made([1.0], [1.0], law=study.DIGITS))


@pytest.mark.filterwarnings("ignore")
def test_the_figure_is_drawn(tmp_path):
    rows = made([0.6, 0.6], [1.0, 1.2]) + made([0.6, 0.6], [1.0, 1.2], law=study.DIGITS)
    assert study.draw(rows, tmp_path / "x.png").stat().st_size > 10_000
