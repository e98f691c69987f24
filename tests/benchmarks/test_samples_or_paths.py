"""The study samples_or_paths: pairs at the floor, certificates over exact values, and a verdict that comes out both
ways."""

import pytest

from benchmarks import samples_or_paths as study


def made(w2, kl, named=(1.0,), floor=0.5, law="a law", distance=study.EXACT, **more):
    """Rows of one law: errors of the three samplers for N = 5, 10, ..."""
    rows = []
    for i, errors in enumerate(zip(w2, kl, [*named] * len(w2), strict=False)):
        for name, value in zip((study.W2_PLAN, study.KL_PLAN, study.BEST_NAMED), errors, strict=True):
            row = {"law": law, "N": 5 * 2**i, "sampler": name, "error": value, "floor": floor, "distance": distance}
            row |= {"part": "case", "certified": 6.0, "gain": 1.5, "path_kl": 0.3, "exact_kl": 0.1}
            rows.append(row | more)
    return rows


def test_errors_below_the_floor_count_as_the_floor():
    assert study.pairs(made([0.1, 0.9], [0.2, 0.3]), study.KL_PLAN) == [(0.5, 0.5), (0.9, 0.5)]


def test_certificates_are_compared_with_exact_values_that_are_not_0():
    w2, kl = study.looseness(made([2.0, 0.4], [1.0, 1.0]))
    assert w2 == [3.0]  # 0.4 is below the floor
    assert kl == pytest.approx([3.0, 3.0])
    assert study.looseness(made([2.0], [1.0], distance=study.SLICED, exact_kl=None)) == ([], [])
    assert study.looseness(made([2.0], [1.0], exact_kl=1e-9))[1] == []


def test_the_verdict_counts_both_ways():
    good = study.verdict(made([0.6, 0.6], [1.0, 1.2]))
    assert "the KL plan the W2 plan has a smaller error in 2 of 2 cases, a larger one in 0" in good
    bad = study.verdict(made([2.0, 1.2], [1.0, 1.0]))
    assert "the KL plan the W2 plan has a smaller error in 0 of 2 cases, a larger one in 2" in bad
    assert "The certificate in W2 is 3 to 5 times the exact value, in 2 cases (median 4)" in bad
    assert "The certificate in path KL is 3 to 3 times the exact value, in 2 cases" in bad
    assert "On the network" not in bad
    assert "planned grids lower the distance 1.50 to 1.50 times" in study.verdict(made([1.0], [1.0], law=study.DIGITS))


@pytest.mark.filterwarnings("ignore")
def test_the_figure_is_drawn(tmp_path):
    rows = made([0.6, 0.6], [1.0, 1.2])
    rows += made([0.6, 0.6], [1.0, 1.2], law=study.DIGITS, distance=study.SLICED, exact_kl=None)
    assert study.draw(rows, tmp_path / "x.png").stat().st_size > 10_000
