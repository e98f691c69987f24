"""The score of peers against the target's and a derivative, clocks that lead back to our nodes, verdicts each way."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp, softmax

import jaxdiff
from benchmarks import peers
from benchmarks.harness import timing
from benchmarks.samplers import peers as peer_samplers
from benchmarks.samplers import torch_peers
from jaxdiff import grids, kernels

LAW = peers.LAWS["8 components, d = 16"]()
MIXTURE = peers.mixture_of(LAW)
START = np.random.default_rng(0).normal(size=(64, 16)).astype(np.float32)
GRID = grids.exponential_then_uniform(3.0, 0.02, 7)


def problem(evals=8):
    """A few particles of the mixture."""
    return peer_samplers.Problem(MIXTURE, LAW, START, evals, 3.0, 0.02)


def in_numpy(x, t, mixture=MIXTURE):
    """The score by NumPy alone."""
    noise = -np.expm1(-2 * t)
    return peer_samplers.score_of(mixture, x, np.exp(-t), noise, np.log, functools.partial(softmax, axis=-1))


@pytest.mark.parametrize("t", [0.01, 0.7, 3.0])
def test_the_score_is_the_derivative_of_the_log_density(t):
    x, step = START[:4].astype(np.float64), 1e-5
    mixture = MIXTURE._replace(variances=MIXTURE.variances * np.linspace(0.5, 2, 8)[:, None])  # of unequal volumes

    def log_density(x):
        v = np.exp(-2 * t) * mixture.variances - np.expm1(-2 * t)
        parts = -((x[:, None] - np.exp(-t) * mixture.means) ** 2 / v + np.log(v)).sum(-1) / 2
        return logsumexp(parts + mixture.log_weights, axis=-1)

    slopes = [(log_density(x + step * e) - log_density(x - step * e)) / (2 * step) for e in np.eye(16)]
    expected = np.stack(slopes, -1)
    np.testing.assert_allclose(
        in_numpy(x, t, mixture), expected, atol=1e-5 * np.abs(expected).max()
    )  # differences of order step^2


@pytest.mark.parametrize("name", peers.LAWS)
def test_the_score_in_jax_is_that_of_the_target_and_of_numpy(name):
    law = peers.LAWS[name]()
    own = peer_samplers.Problem(peers.mixture_of(law), law, START[:, : law.dim], 8, 3.0, 0.02)
    score, exact = jax.jit(own.score), jax.jit(law.score)
    for t in (0.01, 3.0):
        found = np.asarray(score(jnp.asarray(own.x), jnp.float32(t)))
        expected = np.asarray(exact(jnp.asarray(own.x, jnp.float64), t))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("compiled", [False, True])
def test_the_score_in_torch_is_that_of_numpy(compiled):
    torch = pytest.importorskip("torch")
    score, x = torch_peers._in_torch(problem(), compiled=compiled)
    assert x.dtype == torch.float32
    for t in (0.01, 0.5, 3.0):
        expected = in_numpy(START.astype(np.float64), t)
        found = score(x, float(np.exp(-t)), float(-np.expm1(-2 * t))).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_the_beta_table_leads_back_to_alpha_squared_at_the_nodes():
    cumulated = np.cumprod(1 - torch_peers.betas_of(GRID))
    np.testing.assert_allclose(cumulated[::-1], np.exp(-2 * GRID), rtol=1e-13)


def test_the_steps_of_beta_are_those_of_the_grid():
    beta = peer_samplers.steps_of_beta(GRID)
    np.testing.assert_allclose(beta / len(beta) / 2, GRID[:-1] - GRID[1:], rtol=1e-14)  # beta dt = 2 h


def test_evaluations_are_counted_by_the_stages_of_a_step():
    own = problem(20)
    assert [len(own.nodes(each)) - 1 for each in (1, 2, peer_samplers.TSIT5_EVALS)] == [20, 10, 3]
    assert len(problem(4).nodes(6)) == 2


@pytest.mark.parametrize(("solver", "each", "kernel"), [("Euler", 1, "ddim"), ("Heun", 2, "heun")])
def test_diffrax_in_y_and_v_makes_the_steps_of_ours(solver, each, kernel):
    pytest.importorskip("diffrax")
    own = problem()
    expected = np.asarray(peer_samplers.ours(own, kernel, own.nodes(each))())
    np.testing.assert_allclose(peer_samplers.with_diffrax(own, solver, each)(), expected, atol=1e-4)  # float32, 8 steps


def test_ours_is_the_kernel_with_the_score_of_the_target():
    own = problem()
    x, grid = jnp.asarray(START, jnp.float64), own.nodes()
    expected = jaxdiff.sample(kernels.dpm_solver(LAW.score, 2), x, grid, jax.random.key(0))
    np.testing.assert_allclose(peer_samplers.ours(own, "dpm_solver", grid, 2)(), expected, atol=1e-4)


@pytest.mark.parametrize("package", ["diffrax", "diffusionjax"])
def test_their_euler_maruyama_has_the_mean_and_variance_of_the_recursion(package):
    if not peer_samplers.installed(package):
        pytest.skip(f"{package} is not installed")
    law = jaxdiff.targets.gaussian([0.5], [0.3])
    n = 200_000
    x = np.random.default_rng(1).normal(size=(n, 1)).astype(np.float32)
    own = peer_samplers.Problem(peers.mixture_of(law), law, x, 5, 2.0, 0.1)
    end = np.asarray({m.package: m for m in peer_samplers.METHODS if m.name == "Euler-Maruyama"}[package].make(own)())
    mean, variance = 0.0, 1.0
    for t, h in zip(own.noisy_nodes[:-1], -np.diff(own.noisy_nodes), strict=True):
        v = np.exp(-2 * t) * 0.3 - np.expm1(-2 * t)
        mean += h * (mean + 2 * (np.exp(-t) * 0.5 - mean) / v)
        variance = (1 + h - 2 * h / v) ** 2 * variance + 2 * h
    assert abs(end.mean() - mean) < 5 * np.sqrt(variance / n)
    assert abs(end.var() / variance - 1) < 5 * np.sqrt(2 / n)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers makes arrays of tensors
@pytest.mark.parametrize("name", ["DDIM", "Heun in v", "DPM-Solver++ 2M"])
def test_methods_of_one_name_lead_to_the_same_end_points(name):
    chosen = {m.package: m for m in peer_samplers.METHODS if m.name == name}
    theirs = [package for package in ("diffusers", "azula") if package in chosen and peer_samplers.installed(package)]
    if not theirs:
        pytest.skip("neither diffusers nor azula is installed")
    expected = np.asarray(chosen["jaxdiff"].make(problem())())
    for package in theirs:
        np.testing.assert_allclose(np.asarray(chosen[package].make(problem())()), expected, atol=1e-4)


def test_the_normal_law_has_no_kl_from_itself_but_what_finitely_many_samples_leave(monkeypatch):
    for name, small in {"REFERENCE_STEPS": 50, "SAMPLES": 64, "PROJECTIONS": 8, "FLOORS": 1}.items():
        monkeypatch.setattr(peers, name, small)
    law, n = peers.normal(4), 20_000
    x = np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)
    exact = peers.Exact(law, x)
    for found in (exact.floor["kl_floor"], exact.kl(exact.draw(jax.random.key(5), n))):
        assert 0 < found < 3 * 4 * 7 / (4 * n)  # its mean is d (d + 3)/(4n)
    c = peers.mixture_of(law)
    scale = np.exp(-2 * peers.EARLY_STOP) * c.variances[0] - np.expm1(-2 * peers.EARLY_STOP)
    z = np.random.default_rng(2).normal(size=(n, 4))
    wide = np.exp(-peers.EARLY_STOP) * c.means[0] + np.sqrt(2 * scale) * (z + 0.3)
    expected = 4 * (2 - 1 - np.log(2) + 2 * 0.09) / 2
    assert exact.kl(wide) == pytest.approx(expected, abs=5 * np.sqrt(4 / n))


def test_the_fine_solution_is_the_affine_flow_of_a_normal_law():
    law = peers.normal(4)
    exact, c = peers.Exact(law, START[:, :4]), peers.mixture_of(law)
    at = lambda t: (np.exp(-t) * c.means[0], np.sqrt(np.exp(-2 * t) * c.variances[0] - np.expm1(-2 * t)))
    (mean, scale), (end, last) = at(peers.HORIZON), at(peers.EARLY_STOP)
    ends = end + last / scale * (START[:, :4] - mean)
    np.testing.assert_allclose(exact.ends, ends, rtol=1e-6, atol=1e-7)
    away = np.linalg.norm(ends - exact.ends + 0.1, axis=1) / np.linalg.norm(exact.ends, axis=1)
    assert exact.of_ode(ends + 0.1)["distance"] == pytest.approx(np.median(away), rel=1e-9)


def row(package, draws, evals=10, **about):
    """A row of one run."""
    numbers = {"energy": 0.1, "energy_error": 0.01, "energy_floor": 0.01, "sliced_w2": 0.2, "sliced_w2_floor": 0.1}
    columns = numbers if draws else {"distance": 0.1, **({} if package == "jaxdiff" else {"from_ours": 1e-6})}
    name = "Euler-Maruyama" if draws else "DDIM"
    own = {"package": package, "method": name, "law": "a", "evals": evals, "draws": draws, "seconds": 1.0}
    return own | columns | about


def test_the_verdict_says_who_is_faster_and_that_methods_agree():
    rows = [row(package, draws) for package in ("jaxdiff", "diffrax") for draws in (False, True)]
    rows[2] |= {"seconds": 4.0}
    rows[3] |= {"seconds": 0.5}
    said = peers.verdict(rows)
    assert "2 runs of the same method: all agree" in said
    assert "diffrax 2.25 (0.5 to 4, faster than jaxdiff in 1 of 2, by more than 10 % in 1)" in said
    assert "nearer than the peers' best in 0 of 2 cases, theirs in 0" in said


def test_the_verdict_says_who_is_clearly_faster():
    rows = [row("jaxdiff", False), row("diffrax", False, seconds=0.95), row("azula, compiled", False, seconds=0.5)]
    said = peers.verdict(rows)
    assert "diffrax 0.95 (0.95 to 0.95, faster than jaxdiff in 1 of 1)" in said
    assert "azula, compiled 0.5 (0.5 to 0.5, faster than jaxdiff in 1 of 1, by more than 10 % in 1)" in said


def test_the_verdict_shouts_where_methods_disagree():
    rows = [row("jaxdiff", False), row("azula", False, from_ours=0.01), row("jaxdiff", True)]
    rows += [row("diffusionjax", True, energy=0.3), row("diffrax", True, diverged=True)]
    said = peers.verdict(rows)
    assert "DISAGREE in 3: azula DDIM, a, 10; diffusionjax Euler-Maruyama, a, 10; diffrax Euler-Maruyama, a, 10" in said


def test_the_verdict_says_where_a_peer_is_nearer_and_where_we_are():
    rows = [row("jaxdiff", False), row("diffrax", False, method="Tsit5 in v", distance=0.05), row("diffrax", False)]
    rows += [row("jaxdiff", True, energy=0.01), row("diffrax", True, energy=0.5)]
    said = peers.verdict(rows)
    assert "in 1 of 2 cases, theirs in 1: diffrax Tsit5 in v on a at 10." in said
    close = [row("jaxdiff", True), row("diffrax", True, energy=0.09)]  # within the errors
    assert "in 0 of 1 cases, theirs in 0." in peers.verdict(close)


def test_a_peer_that_is_not_installed_is_named():
    rows = [{"package": "azula", "missing": True}, row("jaxdiff", False), row("diffrax", False)]
    assert peers.verdict(rows).endswith("Not installed: azula.")
    assert peers.verdict(rows[:2]) == "No peer to compare with. Not installed: azula."


def test_what_is_missing_or_diverged_leaves_rows_of_plain_json(tmp_path, monkeypatch):
    monkeypatch.setattr(peer_samplers, "installed", lambda package: False)
    monkeypatch.setattr(peers, "PARTICLES", {"quick": 256})
    monkeypatch.setattr(peers, "EVALS", {"quick": (8,)})
    for name, small in {"REFERENCE_STEPS": 50, "SAMPLES": 64, "PROJECTIONS": 8, "FLOORS": 1}.items():
        monkeypatch.setattr(peers, name, small)
    chosen = [m for m in peer_samplers.METHODS if m.name in ("DDIM", "Euler-Maruyama")]
    monkeypatch.setattr(peers, "METHODS", chosen)
    rows = json.loads(json.dumps(peers.rows(True, 1), allow_nan=False))
    assert [one["package"] for one in rows if one.get("missing")] == list(peer_samplers.NEEDS)
    assert [one["package"] for one in rows if "seconds" in one] == ["jaxdiff"] * 2
    assert all(one["first_s"] > 0 for one in rows if "seconds" in one)
    assert "No peer" in peers.verdict(rows)
    spoilt = {one[:2]: np.full((256, 16), np.nan) for one in chosen}
    assert peers._row(chosen[0], timing.Timing(1.0, 1.0, 0.0), spoilt, None)["diverged"]
    peers.draw([*rows, row("diffrax", False, law="normal, d = 16")], tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes()[1:4] == b"PNG"
