"""The study loss_weighting: weights on one scale, theory's factor, bands of snr, exact errors, a verdict both ways."""

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import loss_weighting as study
from benchmarks.harness import cells
from benchmarks.laws import loss_weights
from benchmarks.oracles import weighted_networks as networks
from jaxdiff import targets
from jaxdiff.processes import denoiser_from_score, ou

HIGHEST, LOWEST = 1 / np.expm1(2 * loss_weights.EARLY_STOP), 1 / np.expm1(2 * loss_weights.HORIZON)  # snr


def test_only_theorem_1_has_the_factor_1():
    factors = {name: loss_weights.spread(name) for name in loss_weights.WEIGHTS}
    assert factors.pop(loss_weights.THEOREM) == pytest.approx(1, rel=1e-5)
    assert min(factors.values()) > 30
    assert factors["uniform"] == pytest.approx(HIGHEST / LOWEST, rel=1e-4)  # r = 1/snr
    assert factors["likelihood"] == pytest.approx((1 + HIGHEST) / (1 + LOWEST), rel=1e-4)  # r = 2/sigma^2
    assert factors["EDM"] == pytest.approx((1 + 1 / LOWEST) / (1 + 1 / HIGHEST), rel=1e-4)
    assert factors["min-snr-5"] == pytest.approx(HIGHEST / 5, rel=1e-4)
    assert factors["sigmoid"] == pytest.approx((1 + HIGHEST / np.e**2) / (1 + LOWEST / np.e**2), rel=1e-4)


# The times of EDM are log s from N(-1.2, 1.2^2), drawn here, for data of deviation 0.5.
def test_edm_times_are_those_of_its_paper():
    s = np.exp(np.random.default_rng(0).normal(-1.2, 1.2, size=400_000)) / 0.5
    drawn, ends = np.histogram(-2 * np.log(s), bins=np.linspace(-6, 8, 15))
    middle = (ends[1:] + ends[:-1]) / 2
    weight = loss_weights.WEIGHTS["EDM and its times"].function
    density = loss_weights.values(weight, middle) / (np.exp(middle) + 1)
    assert density / density.sum() == pytest.approx(drawn / drawn.sum(), abs=4e-3)


@pytest.mark.parametrize("name", loss_weights.WEIGHTS)
def test_all_weights_have_the_same_loss_at_the_best_linear_denoiser(name):
    variances = np.array([0.0, 0.3, 2.0])
    u = np.linspace(np.log(LOWEST), np.log(HIGHEST), 4001)
    linear = np.sum(variances / (1 + np.exp(u)[:, None] * variances), axis=1)
    mean = lambda function: np.mean(loss_weights.values(function, u) * linear)
    expected = mean(lambda t: ou.snr(t) + 0.1)
    assert mean(loss_weights.scaled(name, variances)) == pytest.approx(expected, rel=0.01)


# Of the losses 1/(1 + snr) of N(0, 1), the path KL (1/2) int dsnr/(1 + snr) is (1/2) log(1 + snr) between the ends.
def test_bands_add_up_to_the_path_kl():
    means, nats = loss_weights.in_bands(1 / (1 + np.exp(loss_weights.LEVELS)))
    assert nats.sum() == pytest.approx(np.log((1 + HIGHEST) / (1 + LOWEST)) / 2, rel=1e-3)
    assert nats[-1] == pytest.approx(np.log((1 + HIGHEST) / 11) / 2, rel=0.05)
    assert means[0] == pytest.approx(1, rel=0.02)
    assert means.shape == nats.shape == (4,)


def test_the_exact_error_is_the_distance_from_the_exact_denoiser():
    law = targets.gaussian(np.zeros(2), np.array([0.5, 2.0]))
    case = networks.Problem("", None, None, np.ones((8, 2), np.float32), None, None, 0.0, law)
    exact = denoiser_from_score(law.score)
    error = networks.exact_errors(case, lambda x, t: exact(x, t) + jnp.array([0.3, 0.4], x.dtype))
    np.testing.assert_allclose(error, 0.25, rtol=1e-4)


def test_the_mixture_has_the_mean_covariance_and_radius_that_networks_are_told():
    case = networks.problem(networks.MIXTURE)
    assert np.abs(case.train.mean(0) - case.mean).max() < 5 / np.sqrt(len(case.train))
    np.testing.assert_allclose(np.cov(case.train.T), case.cov, atol=0.1)
    assert case.radius == pytest.approx(np.linalg.norm(case.train, axis=1).max(), abs=7 * networks.SPREAD)


def test_a_stopped_run_goes_on_where_it_ended(tmp_path):
    path, made = tmp_path / "new" / "rows.jsonl", []

    def make(name, seed):
        made.append((name, seed))
        if (name, seed) == ("b", 0) and made.count(("b", 0)) == 1:
            raise KeyboardInterrupt
        return {"value": f"{name}{seed}"}

    asked = [("a", 0), ("b", 0), ("a", 1)]
    with pytest.raises(KeyboardInterrupt):
        list(cells.rows_of(asked, make, path))
    path.write_text(path.read_text() + '[["b", 0], {"val')  # killed while it wrote
    assert [row["value"] for row in cells.rows_of(asked, make, path)] == ["a0", "b0", "a1"]
    assert made == [("a", 0), ("b", 0), ("b", 0), ("a", 1)]
    assert [row["value"] for row in cells.rows_of(asked, make, path)] == ["a0", "b0", "a1"]
    assert len(made) == 4


def made(kl, accuracy, data="data"):
    """Rows of three seeds of each weight; kl and accuracy: {weight: mean}. Seeds differ alike for all weights."""
    found = []
    for name, value in kl.items():
        for seed, shift in enumerate((-1.0, 0.0, 1.0)):
            row = {"part": "network", "data": data, "weight": name, "seed": seed, "loss": [1.0, 2.0, 3.0, 4.0]}
            row |= {"path_kl": value + shift, "w2": 1.0 + value, "sliced_w2": 0.1, "accuracy": accuracy[name]}
            found.append(row)
    return found


def test_differences_are_paired_by_seed():
    rows = made({study.THEOREM: 10.0, "uniform": 10.5}, {study.THEOREM: 0.6, "uniform": 0.5})
    assert study.ranked(rows, "data", "path_kl")["uniform"] == pytest.approx((10.5, 0.5, 0.0))
    assert study.as_good(rows, "data", "path_kl") == [study.THEOREM]
    assert study.as_good(rows, "data", "accuracy") == ["uniform"]
    assert study.as_good(rows, "data", "sliced_w2") == [study.THEOREM, "uniform"]
    assert ("data", "moment") not in study.cases(rows)


def test_the_verdict_comes_out_both_ways():
    same = {study.THEOREM: 0.5, "uniform": 0.5}
    good = study.verdict(made({study.THEOREM: 10.0, "uniform": 12.0}, same))
    assert f"on the data {study.THEOREM} has the least, 10 nats, uniform the most, 2 more" in good
    assert f"most of the 4 cases: {study.THEOREM}, 4; others: uniform 2" in good
    assert "with theory's factor: 1.00." in good
    bad = study.verdict(made({study.THEOREM: 12.0, "uniform": 10.0}, same))
    assert f"uniform has the least, 10 nats, {study.THEOREM} 2 ± 0 more" in bad
    assert f"cases: uniform, 4; others: {study.THEOREM} 2" in bad
    assert "with theory's factor: -1.00." in bad


@pytest.mark.filterwarnings("ignore")
def test_the_figure_is_drawn(tmp_path):
    rows = made({study.THEOREM: 10.0, "uniform": 12.0}, {study.THEOREM: 0.5, "uniform": 0.6})
    rows += [{"part": "floor", "data": "data", "sliced_w2": 0.1, "accuracy": 0.5}, *study.summaries(rows)]
    assert study.draw(rows, tmp_path / "x.png").stat().st_size > 10_000
