"""The study of hidden pixels: coverage of exchangeable draws, the linear predictor, and verdicts of both kinds."""

import numpy as np
import pytest

from benchmarks import inpainting as study
from benchmarks.samplers.inverse_problems import DPS, MMPS, TMPD

HALF = np.arange(64) < 32


@pytest.mark.parametrize("levels", [None, 2])  # values that differ, and pixels that are black or white, with many ties
def test_a_truth_that_is_exchangeable_with_the_draws_is_covered_in_80_percent(levels):
    rng = np.random.default_rng(0)
    values = rng.uniform(-1, 1, (3000, study.DRAWS + 1, 4))
    values = values if levels is None else np.where(values < 0.5, -1.0, 1.0)
    inside = study.covered(values[:, 1:], values[:, 0], rng)
    assert np.mean(inside) == pytest.approx(0.8, abs=5 * np.sqrt(0.16 / inside.size))


def test_intervals_notice_draws_that_are_too_narrow_and_too_wide():
    rng = np.random.default_rng(1)
    truth = rng.normal(0, 0.3, (2000, 4))
    for scale, low, high in ((0.15, 0.4, 0.6), (0.6, 0.95, 1.0)):
        assert low < np.mean(study.covered(rng.normal(0, scale, (2000, study.DRAWS, 4)), truth, rng)) < high


def test_the_linear_predictor_has_the_moments_of_regression_on_the_seen_pixels():
    rng = np.random.default_rng(2)
    root = rng.normal(size=(64, 64)) / 16
    mean, cov = rng.normal(size=64) / 4, root @ root.T + 0.01 * np.eye(64)
    truth = mean + rng.multivariate_normal(np.zeros(64), cov, 400)
    y = truth + study.NOISE_STD * rng.normal(size=truth.shape)
    x = study.linear_completions((mean, cov), HALF, y, rng)
    gain = np.linalg.lstsq((cov + 0.01 * np.eye(64))[HALF][:, HALF], cov[HALF], rcond=None)[0]
    expected = mean + (y - mean)[:, HALF] @ gain
    left = np.diag(cov - cov[:, HALF] @ gain)
    np.testing.assert_allclose((x.mean(1) - expected).std(0), np.sqrt(left / study.DRAWS), rtol=0.2)
    np.testing.assert_allclose(x.var(1, ddof=1).mean(0), left, rtol=0.15)
    found = study.judged(x, truth, y, HALF, np.ones(64, bool), rng)
    assert found["residual"] == pytest.approx(1, abs=0.02)  # exact draws
    hidden = left[~HALF]
    assert found["rms"] == pytest.approx(np.sqrt(hidden.mean() * (1 + 1 / study.DRAWS)), rel=0.05)
    assert found["spread"] == pytest.approx(np.sqrt(hidden.mean()), rel=0.05)
    assert found["coverage"] == pytest.approx(0.8, abs=5 * found["coverage_error"])


def test_pixels_that_are_not_counted_change_nothing_and_bursts_are_counted_alone():
    rng = np.random.default_rng(3)
    truth, x = rng.uniform(-1, 1, (6, 64)), rng.uniform(-1, 1, (6, study.DRAWS, 64))
    counted = np.arange(64) < 60
    of = lambda x: study.judged(x, truth, truth, HALF, counted, np.random.default_rng(4))
    moved = x.copy()
    moved[..., 60:] += 1.0
    assert of(moved) == of(x)
    moved[..., 59] += 1.0
    assert of(moved)["rms"] != of(x)["rms"]
    x[2, 5, 0], x[3, 0, 63] = 7.0, np.nan
    assert of(x) == {"digits": 6, "burst": pytest.approx(2 / (6 * study.DRAWS))}


def test_a_picture_leaves_out_what_is_hidden():
    images = np.where(HALF, np.zeros((10, 64)), np.nan)
    row = study.picture("lower half", "observed", images)
    assert row["images"] == [[0.0] * 32 + [None] * 32] * len(study.SHOWN)


def made(rms, coverage, burst=()):
    """Rows of the linear predictor, MMPS and TMPD for one mask, by both samplers."""
    rows = [{"part": "errors", "mask": "half", "method": study.LINEAR, "burst": 0.0, "residual": 1.0, "rms": 0.5}]
    rows[0] |= {"rms_error": 0.01, "coverage": 0.7, "coverage_error": 0.01}
    for method, value, share in zip((MMPS, TMPD), rms, coverage, strict=True):
        for sampler in study.KERNELS:
            row = {"part": "errors", "mask": "half", "method": method, "sampler": sampler, "residual": 0.9}
            row |= {"rms": value, "rms_error": 0.01, "coverage": share, "coverage_error": 0.01}
            rows.append(row | {"burst": 0.1 if (method, sampler) in burst else 0.0})
    return rows


def test_the_verdict_comes_out_both_ways():
    good = study.verdict(made((0.4, 0.6), (0.81, 0.6)))
    assert "half: MMPS has the least error on hidden pixels, 0.400, below the linear predictor's 0.500" in good
    assert "80 % intervals cover 0.60 to 0.81 (0.70 of the linear predictor), and MMPS within two standard" in good
    assert "by ancestral burst with no method. Some completions by UniPC burst with no method." in good
    bad = study.verdict(made((0.7, 0.6), (0.5, 0.6), {(TMPD, study.UNIPC), (MMPS, study.UNIPC)}))
    assert "half: TMPD has the least error on hidden pixels, 0.600, above the linear predictor's" in bad
    assert "and none within two standard errors" in bad
    assert "by UniPC burst with MMPS, TMPD." in bad
    assert "0.510, within two standard errors of the linear" in study.verdict(made((0.51, 0.6), (0.5, 0.6)))
    lost = study.verdict(made((0.4, 0.5), (0.8, 0.8), {(MMPS, study.ANCESTRAL), (TMPD, study.ANCESTRAL)}))
    assert lost.startswith("half: every method burst.")


def test_the_figure_is_drawn_where_a_method_burst(tmp_path):
    rows, image = made((0.4, 0.6), (0.81, 0.6)), np.zeros((10, 64))
    rows.append({"part": "errors", "mask": "half", "method": DPS, "burst": 1.0})
    for of in ("truth", DPS, DPS, DPS):
        rows.append(study.picture("half", of, image if of == "truth" else image + 9))
    assert study.draw(rows, tmp_path / "x.png").stat().st_size > 5000
