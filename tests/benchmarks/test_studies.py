"""The records of all studies; of prediction-correction: laws on the line against closed forms, distances, verdicts."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from benchmarks import (
    bound_tightness,
    corrector,
    dimension_sweep,
    inpainting,
    interval_coverage,
    localization,
    loss_weighting,
    lsi_constant,
    peers,
    posterior,
    reverse_ode_schemes,
    samples_or_paths,
    schedules,
    score_error,
    simulated_sweep,
    t1_t2_tradeoff,
    training_step,
    truncation,
)
from benchmarks.harness import places, records, studies
from benchmarks.laws import line, wrong_scores
from benchmarks.oracles import assignment, finite_horizon
from jaxdiff import grids, kernels, sample, targets

TIMED = (lsi_constant.STUDY, corrector.STUDY, t1_t2_tradeoff.STUDY, truncation.STUDY)  # seconds beside evaluations
STUDIES = (
    *TIMED,
    bound_tightness.STUDY,
    dimension_sweep.STUDY,
    inpainting.STUDY,
    interval_coverage.STUDY,
    localization.STUDY,
    loss_weighting.STUDY,
    peers.STUDY,
    posterior.STUDY,
    reverse_ode_schemes.STUDY,
    samples_or_paths.STUDY,
    schedules.STUDY,
    score_error.STUDY,
    simulated_sweep.STUDY,
    training_step.STUDY,
)
BUMPS = line.Law([0.3, 0.7], [-1.0, 1.0], [0.05, 0.1])


def test_quantiles_of_one_component_are_those_of_a_normal_law():
    law, t = line.Law([1.0], [2.0], [0.25]), 0.3
    expected = norm.ppf(line.LEVELS_AT, np.exp(-t) * 2, np.sqrt(np.exp(-2 * t) * 0.25 - np.expm1(-2 * t)))
    np.testing.assert_allclose(law.quantiles(line.LEVELS_AT, t), expected, rtol=1e-10, atol=1e-10)


def test_quantiles_undo_the_distribution_function_of_a_mixture():
    np.testing.assert_allclose(BUMPS.cdf(BUMPS.quantiles(line.LEVELS_AT, 0.2), 0.2), line.LEVELS_AT, rtol=1e-10)


@pytest.mark.parametrize("n_steps", [0, 1, 7, 60])
def test_langevin_on_the_line_is_the_recursion_of_mean_and_variance(n_steps):
    law, t, h = line.Law([1.0], [1.0], [0.25]), 0.4, 0.05
    mean, v = np.exp(-t), np.exp(-2 * t) * 0.25 - np.expm1(-2 * t)
    m, var = 0.2, 0.81
    for _ in range(n_steps):
        m, var = m + h * (mean - m) / v, (1 - h / v) ** 2 * var + 2 * h
    found = line.after_langevin(law, law.score, t, (0.2, 0.9), h, n_steps)
    spacing = line.FINE * np.sqrt(2 * h)
    cut = 1e-12 if n_steps == 0 else spacing**2 / 4  # mass is spread over cells, whose variance is spacing^2/12
    assert line.w2(found, line.normal(m, np.sqrt(var))) < cut


def test_the_exact_ode_on_the_line_is_where_fine_steps_lead():
    x = BUMPS.quantiles(line.LEVELS_AT, 1.0) * 1.1 - 0.1
    fine = sample(kernels.rk4(BUMPS.score), jnp.asarray(x)[:, None], grids.log_snr(1.0, 0.01, 2000), jax.random.key(0))
    np.testing.assert_allclose(line.through_the_ode(BUMPS, x, 1.0, 0.01), np.asarray(fine)[:, 0], atol=1e-7)


def test_the_matched_start_has_the_moments_of_the_noised_law():
    t, levels = 0.5, BUMPS.quantiles(line.LEVELS_AT, 0.5)
    mean, deviation = line.gaussian_start(BUMPS, t, matched=True)
    assert mean == pytest.approx(np.exp(-t) * 0.4, rel=1e-12)  # 0.7 - 0.3
    assert deviation**2 == pytest.approx(np.exp(-2 * t) * (1 - 0.4**2 + 0.3 * 0.05 + 0.7 * 0.1) - np.expm1(-2 * t))
    assert abs(levels.mean() - mean) < (levels[1] - levels[0]) / line.LEVELS  # of a middle sum over levels


def test_w2_on_the_line_is_the_shift_of_a_shifted_law():
    x = BUMPS.quantiles(line.LEVELS_AT, 0.2)
    assert line.w2(x, x) == 0
    assert line.w2(x + 0.3, x) == pytest.approx(0.3, rel=1e-12)
    assert line.w2(-1 * line.normal(), line.normal()) == pytest.approx(0, abs=1e-12)  # order does not matter


def test_an_assignment_is_the_best_of_all_permutations():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 5, 3))
    best = min(np.mean(np.sum((x - y[list(order)]) ** 2, 1)) for order in itertools.permutations(range(5)))
    assert assignment.assignment_w2(x, y) == pytest.approx(np.sqrt(best), rel=1e-12)


def test_a_shifted_score_is_off_by_its_size_at_later_times_alone():
    score = wrong_scores.shifted(lambda x, t: -x, 0.3, 1.0)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(4, 3)))
    error = np.asarray(score(x, jnp.asarray(2.0)) + x)
    np.testing.assert_allclose(np.linalg.norm(error, axis=1), 0.3, rtol=1e-12)
    np.testing.assert_array_equal(score(x, jnp.asarray(0.9)), -x)


# Down the exact ODE a coordinate N(m, v) of the start goes to the mean of the data plus its distance from that of q_T,
# times the ratio of deviations.
def test_the_gaussian_subject_is_the_affine_flow():
    subject, t = corrector.gaussian(), 0.8
    mean, variance = np.ones(8), np.geomspace(0.01, 4, 8)
    of = lambda t: np.sqrt(np.exp(-2 * t) * variance - np.expm1(-2 * t))
    ratio, end = of(corrector.EARLY_STOP) / of(t), of(corrector.EARLY_STOP)
    expected = np.hypot(np.linalg.norm(ratio * np.exp(-t) * mean), np.linalg.norm(ratio - end))
    run = corrector.Pipeline(t, "N(0, I)", 0, 0.1, 400)
    assert subject.w2(subject.score, run) == pytest.approx(expected, rel=1e-5)
    assert subject.w2(subject.score, run._replace(start="matched Gaussian")) < 1e-5
    long = run._replace(n_steps=4000, step_size=1e-3)  # of variances too large by h/(2v), at most
    noised = of(t) ** 2
    bias = np.linalg.norm(end * (np.sqrt(1 / (1 - 1e-3 / (2 * noised))) - 1))
    left = np.linalg.norm(ratio * np.exp(-t) * mean * (1 - 1e-3 / noised) ** 4000)
    assert subject.w2(subject.score, long) <= (bias + 2 * left) * 1.01


def test_students_log_density_is_the_convolution():
    t = 0.7
    c, sigma = np.exp(-t), np.sqrt(-np.expm1(-2 * t))
    z, w = np.polynomial.hermite_e.hermegauss(200)
    density = lambda y: (1 + y**2 / 3) ** -2  # of three degrees, up to a constant
    x = np.array([0.0, 0.5, 2.0, 6.0])
    expected = np.log([np.sum(w * density((at - sigma * z) / c)) for at in x])
    found = lsi_constant.student_log_density(t)(x[:, None])
    np.testing.assert_allclose(found - found[0], expected - expected[0], atol=1e-6)


def test_what_is_needed_on_points_is_where_the_exact_flow_reaches_the_goal(monkeypatch):
    monkeypatch.setattr(t1_t2_tradeoff, "NEEDED_DIMS", np.array([1]))
    t = t1_t2_tradeoff.needed(quick=True)[0]["product_w2"]
    law = finite_horizon.points(1.0)
    for time, sign in ((t * 0.999, 1), (t * 1.001, -1)):
        assert sign * (finite_horizon.from_noise(law, time) - t1_t2_tradeoff.GOAL) > 0


@pytest.mark.parametrize("n_steps", [0, 20])
def test_across_u_the_law_is_what_samples_of_a_normal_law_become(n_steps):
    h, n, grid = 0.3, 200_000, grids.log_snr(1.5, 1e-3, 4)
    z = np.random.default_rng(0).normal(size=n)
    for w in np.random.default_rng(1).normal(size=(n_steps, n)):
        z = (1 - h) * z + np.sqrt(2 * h) * w
    end = sample(kernels.unipc(lambda x, t: -x, 2), jnp.asarray(z)[:, None], grid, jax.random.key(0))
    error = np.std(end) / np.sqrt(2 * n)
    assert abs(abs(float(np.std(end)) - 1) - finite_horizon.across(grid, h, n_steps)) < 5 * error


def test_the_push_has_the_l2_error_asked_for_and_lies_outside_the_circle():
    law = targets.point_masses(truncation.points())
    noised = jnp.asarray(np.random.default_rng(0).normal(size=(20_000, 2)))
    pushed = truncation.pushed_out(law.score, 0.2, noised)
    error = np.asarray(pushed(noised, 1.0) - law.score(noised, 1.0))
    size, outwards = np.linalg.norm(error, axis=1), np.sum(error * np.asarray(noised), axis=1)
    assert np.mean(size > 0) == pytest.approx(truncation.FAR, rel=1e-9)
    assert np.sqrt(np.mean(size**2)) == pytest.approx(0.2, rel=1e-9)
    assert (outwards[size > 0] > 0).all()


def test_a_constant_above_the_gap_is_shouted():
    rows = [
        {"law": "a", "time": 3.0, "proven": True, "formula": 0.9, "curvature": 0.9, "gap": gap} for gap in (0.8, 1.0)
    ] + [{"law": lsi_constant.STUDENT, "time": 3.0, "gap": 0.1}]
    assert "ABOVE the gap in 1 cases" in lsi_constant.verdict(rows)
    assert "never above" in lsi_constant.verdict(rows[1:])


def test_a_tie_is_no_win_of_langevin():
    base = {"law": "a", "score": "exact", "horizon": 1.0, "seconds": 1.0, "tried": 5, "floor": 0.0}
    floor = [base | {"part": "horizons", "evals_langevin": n, "w2": 1.0 / (1 + n)} for n in corrector.LANGEVIN]
    pair = lambda w2: [base | {"part": "equal evaluations", "w2": value} for value in (1.0, w2)]
    said = corrector.verdict([*floor, *pair(1.0), *pair(0.95), *pair(0.5)])
    assert "in 1 of 3 cases" in said
    assert "does not pay in 1;" in said
    assert "15 settings without and 15 with it searched" in said


def test_slopes_are_fitted_against_half_the_logarithm_of_d():
    rows = [{"part": "needed", "d": d, "column": 3 + 0.7 * np.log(d) / 2} for d in (16, 64, 4096)]
    assert t1_t2_tradeoff.slope([*rows, {"part": "needed", "d": 1, "column": 50.0}], "column") == pytest.approx(0.7)


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_the_record_says_what_its_rows_do_and_can_be_drawn(study, tmp_path):
    record = records.read(places.RESULTS / f"{study.name}-cpu.json")
    assert record["question"] == study.question
    assert record["verdict"] == study.verdict(record["rows"])
    study.draw(record["rows"], tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes()[1:4] == b"PNG"
    assert all(np.isfinite(row.get("w2") or 0) for row in record["rows"])
    if study in TIMED:
        assert all("seconds" in row for row in record["rows"] if row.get("evals"))
    else:
        assert record["environment"]["seed"] == study.seed


# A row has the losses of the denoiser c x at X_0 and the pair +-Z: |X_0 - c (alpha X_0 + sigma Z)|^2, averaged.
def test_rows_of_interval_coverage_are_losses_of_the_linear_denoiser():
    square, noise, v = 2.3, 0.7, 1.7
    row = interval_coverage.rows_of(np.array([square]), np.array([noise]), v)[0]
    for i in (0, 40, 100):
        snr = np.exp(interval_coverage.U[i])
        alpha, sigma = np.sqrt(snr / (1 + snr)), 1 / np.sqrt(1 + snr)
        c = alpha * v / (alpha**2 * v + sigma**2)
        x, z = np.sqrt(square), np.sqrt(noise) * np.array([1, -1])
        denoised = c * (alpha * x + sigma * z)
        assert row[i] == pytest.approx(snr * np.mean((x - denoised) ** 2), rel=1e-12)
        assert row[101 + i] == pytest.approx(np.sqrt(snr) * np.mean(denoised * z), rel=1e-12)


def test_interval_coverage_counts_what_covers():
    cell = lambda **values: {"law": "normal", "n": 24, "kernel": "ancestral", "repetitions": 100, **values}
    good, poor = cell(certificate=0.95, student=0.8, warned=0.0), cell(certificate=0.5, student=0.4, warned=0.7)
    assert "1 of 2 cells cover 95% within two standard errors, Student's 0." in interval_coverage.verdict([good, poor])
    assert "least coverage is 0.50" in interval_coverage.verdict([good, poor])
    assert "warns in 70%" in interval_coverage.verdict([good, poor])
    assert interval_coverage.verdict([good]).endswith("Student's 0.")


def test_a_quick_study_leaves_record_and_figure_and_a_verdict(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(places, "QUICK", tmp_path)
    rows = [{"part": "long", "value": 1.0}, {"part": "short", "value": 2.0}]
    draw = lambda rows, path: path.write_bytes(b"drawn") and path
    say = lambda rows: f"{len(rows)} rows."
    study = studies.Study("which", "Which?", lambda quick, repeats: rows, ("part",), say, draw, ("long",))
    studies.main(study, ["--quick"])
    assert json.loads((tmp_path / "which.json").read_text())["rows"] == rows
    assert (tmp_path / "which.png").read_bytes() == b"drawn"
    printed = capsys.readouterr().out
    assert "2 rows." in printed
    assert "short" in printed
    assert "long" not in printed
