"""A network's axes: losses, comparisons and samples in their coordinates are those of the rows as they are."""

import dataclasses
import functools
import itertools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from flax import nnx
from jax.experimental import io_callback

from jaxdiff import data, files, noise, runs
from jaxdiff.app import comparison, comparison_subject, run_samples, saving, two_samples
from jaxdiff.app.cli import main
from jaxdiff.app.samplers import PER_DIRECTION
from jaxdiff.curves import Curve, antithetic_errors, loss, loss_curve, principal_axes
from jaxdiff.grids import exponential_then_uniform
from jaxdiff.guarantees.path_kl import path_kl
from jaxdiff.sampling.sample import trajectory
from jaxdiff.scores import denoiser_in_axes, denoiser_of
from jaxdiff.training.networks import ResidualMLP
from jaxdiff.types import Sampler

MEAN, COV = np.array([0.5, -1.0, 2.0]), np.array([[1.0, 0.6, -0.2], [0.6, 0.5, 0.1], [-0.2, 0.1, 3.0]])
ENDS = {"horizon": 3.0, "early_stop": 0.02, "n_nodes": 5, "n_noises": 3}
N, GROUPS = 50, 32
MATRIX, SHIFT = np.array([[0.6, 0.5, -0.1], [-0.2, 0.3, 0.4], [0.3, -0.5, 0.4]]), np.array([0.3, -0.2, 0.1])
AXES, OTHER = (np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))[0] for seed in (0, 1))
ROWS = np.random.default_rng(2).standard_normal((N, 3)) @ np.linalg.cholesky(COV).T + MEAN
MODEL = {"horizon": 4.0, "early_stop": 0.05, "seed": 3, "image_shape": None}
MODEL["network"] = {"width": 8, "depth": 1, "dropout": 0.0, "seed": 0}


def times(x, matrix):
    return jnp.matmul(x, jnp.asarray(matrix, x.dtype), precision="highest")


def affine(x, t):
    return times(x, MATRIX.T) * jnp.exp(-t) + jnp.asarray(SHIFT, x.dtype)


def affine_in_axes(y, t):
    return times(affine(times(y, AXES.T), t), AXES)


@functools.cache
def by_hand(with_axes):
    """(losses, crosses) (n, levels) and losses along the columns of axes (groups, levels, 3), by NumPy alone."""
    basis = np.array(with_axes)
    key, index, (n, n_noises) = jax.random.key(4), np.arange(N, dtype=np.uint32), (N, ENDS["n_noises"])
    z = np.stack([np.asarray(noise.normal(key, index, repeat, 3, jnp.float64)) for repeat in range(n_noises)])
    u = np.linspace(*(-np.log(np.expm1(2 * ENDS[end])) for end in ("horizon", "early_stop")), ENDS["n_nodes"])
    losses, crosses, along = np.zeros((2, n, len(u))), np.zeros((n, len(u))), np.zeros((GROUPS, len(u), 3))
    for level, snr in enumerate(np.exp(u)):
        t, alpha, sigma = 0.5 * np.log1p(1 / snr), np.sqrt(snr / (1 + snr)), np.sqrt(1 / (1 + snr))
        both = [np.exp(-t) * (alpha * ROWS + sign * sigma * z) @ MATRIX.T + SHIFT for sign in (1, -1)]
        squares = np.mean([((ROWS - one) @ basis) ** 2 for one in both], axis=0).mean(0)
        losses[0, :, level] = snr * np.mean([((ROWS - one) ** 2).sum(-1) for one in both], axis=0).mean(0)
        crosses[:, level] = np.sqrt(snr) * ((both[0] - both[1]) * z).sum(-1).mean(0) / 2
        np.add.at(along, (index % GROUPS, level), snr * squares)
    return losses[0], crosses, along / np.bincount(index % GROUPS)[:, None, None]


def agrees(curve, basis):
    """Whether a curve with three noises of ROWS is that of the affine denoiser."""
    axes = np.eye(3) if basis is None or isinstance(basis, str) else basis
    losses, crosses, along = by_hand(tuple(map(tuple, axes)))
    np.testing.assert_allclose(curve.rows, np.concatenate([losses, crosses], axis=1), rtol=1e-9, atol=1e-11)
    if basis is None:
        assert curve.by_group is None
    else:
        np.testing.assert_allclose(curve.by_group, along, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("given", [None, AXES], ids=["rows", "axes"])
@pytest.mark.parametrize(
    "basis", [None, "coordinates", AXES, OTHER, "pca"], ids=["none", "coordinates", "axes", "other", "pca"]
)
def test_the_loss_in_axes_is_that_of_the_rows(basis, given):
    denoiser = affine if given is None else affine_in_axes
    curve = loss_curve(denoiser, ROWS, jax.random.key(4), **ENDS, basis=basis, axes=given)
    pca = isinstance(basis, str) and basis == "pca"
    assert curve.own_axes == pca
    if pca:
        turned = np.cov(ROWS @ curve.basis, rowvar=False)
        np.testing.assert_allclose(turned, np.diag(np.diag(turned)), atol=1e-12)
        basis = curve.basis
    assert np.array_equal(curve.basis, basis)
    np.testing.assert_allclose(curve.squares, (ROWS**2).sum(1))
    agrees(curve, basis)


@pytest.mark.parametrize("axes", [None, AXES], ids=["rows", "axes"])
@pytest.mark.parametrize(
    ("name", "value"),
    [("ROWS_AT_ONCE", 17), ("ROWS_AT_ONCE", 40), ("ELEMENTS_AT_ONCE", 17 * 3 * 3), ("ELEMENTS_AT_ONCE", 1)],
)
def test_rows_in_chunks_have_the_same_losses_and_groups(axes, name, value, monkeypatch):
    seen = []
    errors = loss.errors
    monkeypatch.setattr(loss, "errors", lambda denoiser, x0, *rest: seen.append(len(x0)) or errors(denoiser, x0, *rest))
    monkeypatch.setattr(loss, name, value)
    denoiser = affine if axes is None else affine_in_axes
    agrees(loss_curve(denoiser, ROWS, jax.random.key(4), **ENDS, basis=OTHER, axes=axes), OTHER)
    chunk = {1: 1, 17: 17, 40: 40, 153: 17}[value] if axes is not None or name == "ROWS_AT_ONCE" else N
    assert sorted(set(seen)) == sorted({chunk, N % chunk or chunk})


@pytest.mark.parametrize(("full", "together"), [(1, 1), (99, 1), (100, 2), (256, 3)])
def test_several_noises_at_once_have_the_losses_of_one_at_a_time(full, together, monkeypatch):
    monkeypatch.setattr(antithetic_errors, "FULL", full)
    assert antithetic_errors.pairs_at_once(affine, ROWS, 3) == together
    for axes, denoiser in ((None, affine), (AXES, affine_in_axes)):
        agrees(loss_curve(denoiser, ROWS, jax.random.key(4), **ENDS, basis="coordinates", axes=axes), "coordinates")


def on_the_host(x, t):
    return np.exp(-t) * np.asarray(x) @ MATRIX.T + SHIFT


def called_back(x, t):
    return jax.pure_callback(on_the_host, jax.ShapeDtypeStruct(x.shape, x.dtype), x, t)


def called_in_order(x, t):
    return io_callback(on_the_host, jax.ShapeDtypeStruct(x.shape, x.dtype), x, t, ordered=True)


@pytest.mark.parametrize("denoiser", [called_back, called_in_order])
def test_a_denoiser_that_calls_the_host_is_asked_for_one_noise_at_a_time(denoiser):
    assert antithetic_errors.pairs_at_once(denoiser, ROWS, 3) == 1
    agrees(loss_curve(denoiser, ROWS, jax.random.key(4), **ENDS, basis=OTHER), OTHER)


@pytest.mark.parametrize("n", [4, 400])
@pytest.mark.parametrize(
    ("denoiser", "message"),
    [(lambda x, t: np.tanh(np.asarray(x)), "written in jax.numpy"), (lambda x, t: "x", "must return one array")],
)
def test_bad_denoisers_are_refused_alike_for_few_rows_and_for_many(denoiser, message, n):
    with pytest.raises(TypeError, match=message):
        loss_curve(denoiser, np.ones((n, 3)), jax.random.key(4), **ENDS)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (1.1 * np.eye(3), r"axes must have orthonormal columns"),
        (np.full((3, 3), np.nan), r"axes must have orthonormal columns"),
        (np.eye(3)[:, :2], r"axes must .* its shape is \(3, 2\)"),
        ("pca", "axes must be an array .*: axes = 'pca'"),
        ("coordinates", "axes must be an array .*: axes = 'coordinates'"),
    ],
)
def test_what_are_no_axes_is_refused(axes, message):
    for basis in (None, axes if isinstance(axes, str) else "coordinates"):
        with pytest.raises(ValueError, match=message):
            loss_curve(affine, ROWS, jax.random.key(4), **ENDS, axes=axes, basis=basis)


def test_products_are_refused_in_axes():
    with pytest.raises(ValueError, match="leave axes= out"):
        loss_curve(affine_in_axes, ROWS, jax.random.key(4), **ENDS, axes=AXES, products=2)


def network_of(scatter):
    """A network of N(MEAN, COV); scatter: of noise on every weight, as layers that start at zero hide the others."""
    network = ResidualMLP(3, mean=MEAN, cov=COV, width=8, depth=1, rngs=nnx.Rngs(0))
    graph, params, rest = nnx.split(network, nnx.Param, ...)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(5), len(leaves))
    noisy = [x + scatter * jax.random.normal(key, x.shape, x.dtype) for x, key in zip(leaves, keys, strict=True)]
    return nnx.merge(graph, jax.tree.unflatten(tree, noisy), rest)


@pytest.fixture(scope="module")
def scattered():
    return network_of(0.3)


@pytest.fixture(scope="module")
def exact():
    """Untrained it is the exact denoiser of N(MEAN, COV)."""
    return network_of(0.0)


called = jax.jit(lambda denoiser, x, t: denoiser(x, t))


@pytest.mark.parametrize("each", [False, True], ids=["one time", "a time each"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_network_in_its_axes_is_the_network_turned(scattered, exact, dtype, each):
    denoiser, axes = denoiser_in_axes(scattered)
    assert axes.dtype == np.float64
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(axes.T @ COV @ axes, np.diag(np.linalg.eigvalsh(COV)), atol=1e-6)
    x = 2 * np.random.default_rng(0).standard_normal((2, 5, 3))
    for t in (4.0, 0.5, 0.02):
        at = jnp.full((2, 5), t, dtype) if each else jnp.asarray(t, dtype)
        out = called(denoiser, jnp.asarray(x @ axes, dtype), at)
        assert out.dtype == dtype
        plain = np.asarray(called(denoiser_of(scattered), jnp.asarray(x, dtype), at), np.float64)
        np.testing.assert_allclose(out, plain @ axes, atol=1e-5)
        assert (
            np.abs(plain - np.asarray(called(denoiser_of(exact), jnp.asarray(x, dtype), at))).max() > 0.05
        )  # the weights do something


def test_the_best_linear_denoiser_in_axes_has_the_closed_form(exact):
    denoiser, axes = denoiser_in_axes(exact)
    mean, v = MEAN @ axes, np.diag(axes.T @ COV @ axes)
    y = np.random.default_rng(0).standard_normal((4, 3))
    for t in (4.0, 0.5, 0.02):
        a, s2 = np.exp(-t), -np.expm1(-2 * t)
        expected = mean + a * v / (a**2 * v + s2) * (y - a * mean)
        np.testing.assert_allclose(called(denoiser, jnp.asarray(y, jnp.float32), jnp.float32(t)), expected, atol=1e-5)


def gaussian_curve(axes):
    """The error of the exact denoiser of N(MEAN, COV), along axes that are its principal ones."""
    v = np.diag(axes.T @ COV @ axes)
    along = lambda snr: v / (1 + v * np.asarray(snr)[..., None])
    integral = lambda snr: np.log1p(v * np.asarray(snr)[..., None]).sum(-1)
    return Curve(lambda snr: along(snr).sum(-1), 3, integral=integral, directions=along, basis=axes)


def draws_of_the_law(n, seed=0):
    rows = np.random.default_rng(seed).standard_normal((n, 3)) @ np.linalg.cholesky(COV).T + MEAN
    return rows.astype(np.float32)


def subject_of(network, rows, *, early_stop=0.05):
    """A subject in the network's axes, and the same as the rows are."""
    in_axes = denoiser_in_axes(network)
    curve = gaussian_curve(in_axes[1])
    plain = comparison_subject.Subject(
        denoiser_of(network), curve, curve, rows, rows, horizon=4.0, early_stop=early_stop
    )
    return dataclasses.replace(plain, in_axes=in_axes), plain


GRID = np.array([4.0, 1.5, 0.6, 0.2, 0.05])


def test_ddim_in_axes_goes_the_paths_of_the_rows(scattered, key):
    in_axes, plain = subject_of(scattered, ROWS)
    axes = in_axes.in_axes[1]
    start = np.random.default_rng(0).standard_normal((40, 3))
    paths = [
        np.asarray(trajectory(subject.kernel("ddim"), jnp.asarray(x, jnp.float32), GRID, key, GRID), np.float64)
        for subject, x in ((in_axes, start @ axes), (plain, start))
    ]
    np.testing.assert_allclose(paths[0] @ axes.T, paths[1], atol=2e-5)
    assert np.abs(paths[0] - paths[1]).max() > 0.5


def chained(grid, axes, along, denoise=False):
    """Mean and covariance at the end of a grid of N(0, I) under the exact score of N(MEAN, COV).

    along: snr -> three variances, those that moment matching sees along the axes; 0 for ancestral steps.
    """
    mean, v, ends = MEAN @ axes, np.diag(axes.T @ COV @ axes), np.repeat([[0.0], [1.0]], 3, axis=1)
    m, variance = np.zeros(3), np.ones(3)
    for t, later in itertools.pairwise(grid):
        score = (np.exp(-t) * mean - ends) / (np.exp(-2 * t) * v - np.expm1(-2 * t))
        image, added = oracles.one_step("moment_matched", t, later, score, ends, along(1 / np.expm1(2 * t)))
        slope = image[1] - image[0]
        m, variance = image[0] + slope * m, slope**2 * variance + added
    if denoise:
        a, s2 = np.exp(-grid[-1]), -np.expm1(-2 * grid[-1])
        slope = a * v / (a**2 * v + s2)
        m, variance = mean + slope * (m - a * mean), slope**2 * variance
    return axes @ m, axes @ np.diag(variance) @ axes.T


def check_law(rows, mean, cov):
    """Mean and covariance of independent normal rows, within five standard errors."""
    n, each = len(rows), np.diag(cov)
    assert (np.abs(rows.mean(0) - mean) < 5 * np.sqrt(each / n)).all()
    assert (np.abs(np.cov(rows.T) - cov) < 5 * np.sqrt((np.outer(each, each) + cov**2) / n)).all()


def apart(curve):
    return lambda snr: curve.directions(np.array(snr))


def alike(curve):
    return lambda snr: np.full(3, curve(np.array(snr)) / 3)


VARIANCES = {
    "ancestral": lambda curve: lambda snr: np.zeros(3),
    "moment_matched": alike,
    PER_DIRECTION: apart,
}


@pytest.mark.parametrize("axes_or_rows", [0, 1], ids=["axes", "rows"])
@pytest.mark.parametrize("name", VARIANCES)
def test_samples_that_are_compared_have_the_law_of_their_kernel(exact, name, axes_or_rows, key):
    subject = subject_of(exact, np.zeros((20_000, 3), np.float32))[axes_or_rows]
    kernel = subject.kernel(name)
    assert kernel.coefficients == subject.kernel(name).coefficients  # another would compile anew
    rows, seconds = two_samples.batch(subject, Sampler(kernel, GRID), key)
    assert (rows.dtype, rows.shape) == (np.float32, (20_000, 3))
    assert seconds > 0
    axes = subject.held_out.basis
    check_law(rows, *chained(GRID, axes, VARIANCES[name](subject.held_out)))


# Its three laws lie so far from one another that the test above tells them apart.
def test_the_laws_of_the_kernels_differ_by_many_standard_errors(exact):
    curve = gaussian_curve(denoiser_in_axes(exact)[1])
    laws = [chained(GRID, curve.basis, of(curve))[1] for of in VARIANCES.values()]
    for one, other in itertools.combinations(laws, 2):
        assert (np.abs(one - other) / np.sqrt(np.outer(np.diag(one), np.diag(one)))).max() > 15 / np.sqrt(20_000)


def sliced(x, y, directions):
    return np.sqrt(np.mean((np.sort(x @ directions, axis=0) - np.sort(y @ directions, axis=0)) ** 2))


# Moment matching for each direction is exact on a Gaussian.
@pytest.mark.parametrize("axes_or_rows", [0, 1], ids=["axes", "rows"])
def test_an_exact_sampler_is_at_the_noise_floor_in_axes_and_without(exact, axes_or_rows, monkeypatch, key):
    n, t = 300, 0.3
    monkeypatch.setattr(
        comparison_subject, "SAMPLERS", ((comparison_subject.PER_DIRECTION, comparison_subject.BENTON),)
    )
    test = draws_of_the_law(n)
    subject = subject_of(exact, test, early_stop=t)[axes_or_rows]
    (row,) = comparison.compare(subject, key, n_steps=(12,))
    rng, root = np.random.default_rng(1), np.linalg.cholesky(np.exp(-2 * t) * COV - np.expm1(-2 * t) * np.eye(3))
    directions = rng.standard_normal((3, 512))
    directions /= np.linalg.norm(directions, axis=0)
    floor = []
    for _ in range(40):
        noised = np.exp(-t) * test + np.sqrt(-np.expm1(-2 * t)) * rng.standard_normal((n, 3))
        batches = (np.exp(-t) * MEAN + rng.standard_normal((n, 3)) @ root.T for _ in range(comparison.BATCHES))
        floor.append(np.mean([sliced(batch, noised, directions) for batch in batches]))
    assert abs(row["sliced_w2"]["value"] - np.mean(floor)) < 5 * np.std(floor, ddof=1)
    assert abs(row["accuracy"]["value"] - 0.5) < 5 * 0.5 / np.sqrt(2 * n)
    assert abs(row["excess"]["value"]) < 1e-6


@pytest.fixture(scope="module")
def dataset():
    """Rows of the law as they are, in units that are not theirs."""
    rows = [draws_of_the_law(n, seed) for seed, n in enumerate((120, 40, 40), 1)]
    return data.Dataset("three", *rows, mean=np.array([7.0, 0.0, -3.0]), scale=np.array([1.0, 2.0, 0.5]), constant=0)


def folder_of(tmp_path_factory, dataset, network):
    folder = tmp_path_factory.mktemp("runs") / "run"
    saving.save(folder, MODEL, dataset, network)
    return folder


@pytest.fixture(scope="module")
def of_scattered(tmp_path_factory, dataset, scattered):
    return folder_of(tmp_path_factory, dataset, scattered)


@pytest.fixture(scope="module")
def of_exact(tmp_path_factory, dataset, exact):
    """A run of the exact denoiser whose held-out curve is in the network's axes."""
    run = runs.load(folder_of(tmp_path_factory, dataset, exact))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(runs, "IN_AXES_FROM", 3)
        patched.setattr(runs, "loss_curve", functools.partial(loss_curve, n_nodes=41))
        runs.keep(run, "held_out", runs.measure(run, "held_out"))
    return run


def test_a_loaded_network_has_the_bits_of_the_saved_one_without_an_eigendecomposition(
    of_scattered, scattered, monkeypatch
):
    monkeypatch.setattr(np.linalg, "eigh", None)
    network = runs.load(of_scattered).network
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 3)), jnp.float32)
    for t in map(jnp.float32, (4.0, 0.5, 0.05)):
        assert np.array_equal(called(denoiser_of(network), x, t), called(denoiser_of(scattered), x, t))
        loaded, saved = (called(denoiser_in_axes(one)[0], x, t) for one in (network, scattered))
        assert np.array_equal(loaded, saved)
    assert np.array_equal(denoiser_in_axes(network)[1], denoiser_in_axes(scattered)[1])


@pytest.mark.parametrize("basis", [None, "coordinates", OTHER, "own"], ids=["none", "coordinates", "other", "own"])
def test_a_run_measures_the_loss_of_its_rows_in_any_basis(of_scattered, basis, monkeypatch):
    run = runs.load(of_scattered)
    axes, grid = denoiser_in_axes(run.network)[1], np.array([3.0, 1.0, 0.3])
    basis = axes.copy() if isinstance(basis, str) and basis == "own" else basis
    ends = {"horizon": 4.0, "early_stop": 0.05, "grid": grid, "n_nodes": 9}
    monkeypatch.setattr(runs, "loss_curve", functools.partial(loss_curve, n_nodes=9))
    for least, own in ((3, axes), (4, principal_axes(run.dataset.train))):
        monkeypatch.setattr(runs, "IN_AXES_FROM", least)
        curve = runs.measure(run, "test", basis=basis, grid=grid)
        expected = own if basis is None else basis
        assert np.array_equal(curve.basis, expected)
        plain = loss_curve(denoiser_of(run.network), run.dataset.test, run.key("test"), basis=expected, **ends)
        np.testing.assert_allclose(curve.rows, plain.rows, rtol=1e-4, atol=1e-4 * np.abs(plain.rows).max())
        np.testing.assert_allclose(curve.by_group, plain.by_group, atol=1e-4 * plain.by_group.max())
        assert not curve.own_axes


def test_a_run_in_its_axes_spares_every_product_with_them(of_scattered, monkeypatch):
    seen = []
    errors = loss.errors
    monkeypatch.setattr(loss, "errors", lambda *given: seen.append(given[5]) or errors(*given))
    monkeypatch.setattr(runs, "IN_AXES_FROM", 3)
    monkeypatch.setattr(runs, "loss_curve", functools.partial(loss_curve, n_nodes=5))
    run = runs.load(of_scattered)
    for basis in (None, denoiser_in_axes(run.network)[1].copy()):
        runs.measure(run, "test", basis=basis)
    assert {turn is None for turn in seen} == {True}


PLAN = {
    "metric": "kl",
    "options": {},
    "kernel": "moment_matched",
    "per_direction": True,
    "evals": 4,
    "grid": GRID,
    "horizon": 4.0,
    "guidance": 1.0,
}


@pytest.mark.parametrize("older", [False, True], ids=["own axes", "other axes"])
def test_a_run_is_certified_in_the_basis_of_its_held_out_curve(of_exact, older, tmp_path, monkeypatch):
    folder = shutil.copytree(of_exact.folder, tmp_path / "run")
    run = runs.load(folder)
    if older:
        runs.keep(run, "held_out", runs.measure(run, "held_out"))
    files.write_json(folder / "plan.json", PLAN | {"grid": GRID.tolist(), "predicted_kl": 0.1, "target_kl": None})
    monkeypatch.setattr(runs, "IN_AXES_FROM", 3)
    monkeypatch.setattr(
        comparison_subject, "SAMPLERS", ((comparison_subject.PER_DIRECTION, comparison_subject.BENTON),)
    )
    monkeypatch.setattr(comparison, "compare", functools.partial(comparison.compare, n_steps=(12,)))
    main(["certify", str(folder)])
    held_out, test = (runs.measured(run, split) for split in ("held_out", "test"))
    expected = principal_axes(run.dataset.train) if older else denoiser_in_axes(run.network)[1]
    assert np.array_equal(held_out.basis, expected)
    assert np.array_equal(test.basis, expected)
    assert (comparison_subject.subject_of(run, held_out, test).in_axes is None) == older
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    row = report["rows"][-1]
    excess = path_kl("moment_matched", test, exponential_then_uniform(4.0, 0.05, 12), matched=held_out, basis=expected)
    assert row["excess"]["value"] == pytest.approx(excess, rel=1e-9)
    certified = {term["name"]: term["value"] for term in report["certificate"]["terms"]}
    planned = path_kl("moment_matched", test, GRID, matched=held_out, basis=expected)
    assert certified["discretisation"] == pytest.approx(planned, rel=1e-9)
    assert row["sliced_w2"]["value"] < 1.0 < np.abs(run.dataset.test.mean(0)).max()  # samples lie where the rows do


def together(run, sampler, n, seed=0, **options):
    return np.concatenate(list(run_samples.parts(run, sampler, n, seed, **options)))


@pytest.fixture
def wide(monkeypatch):
    monkeypatch.setattr(runs, "IN_AXES_FROM", 3)


# An ODE turns with the coordinates.
@pytest.mark.parametrize("name", ["ddim", "heun", "dpm_solver"])
@pytest.mark.parametrize("denoise", [True, False])
def test_samples_of_an_ode_in_axes_are_those_of_the_rows(of_scattered, name, denoise, monkeypatch):
    run, plan = runs.load(of_scattered), dict(PLAN, kernel=name)
    samples = {}
    for least in (3, 4):
        monkeypatch.setattr(runs, "IN_AXES_FROM", least)
        sampler = run_samples.chosen(run, plan)
        assert (sampler.axes is None) == (least == 4)
        samples[least] = together(run, sampler, 11, denoise=denoise)
    np.testing.assert_allclose(samples[3], samples[4], atol=1e-4)


@pytest.mark.parametrize("denoise", [True, False])
@pytest.mark.parametrize("per_direction", [True, False])
def test_samples_in_axes_have_the_law_of_the_plan(of_exact, wide, per_direction, denoise):
    sampler = run_samples.chosen(of_exact, dict(PLAN, per_direction=per_direction))
    axes, curve = denoiser_in_axes(of_exact.network)[1], runs.measured(of_exact, "held_out")
    np.testing.assert_allclose(sampler.axes, axes)
    mean, cov = chained(GRID, axes, (apart if per_direction else alike)(curve), denoise)
    rows = together(of_exact, sampler, 20_000, denoise=denoise, at_once=20_000)
    check_law((rows - of_exact.dataset.mean) / of_exact.dataset.scale, mean, cov)


def test_samples_in_axes_do_not_depend_on_the_parts_they_are_made_in(of_exact, wide):
    sampler = run_samples.chosen(of_exact, PLAN)
    whole = together(of_exact, sampler, 23)
    for n in (23, 9):
        np.testing.assert_allclose(together(of_exact, sampler, n, at_once=5), whole[:n], atol=1e-4)


def test_a_basis_other_than_the_networks_axes_is_sampled_as_the_rows_are(of_exact, wide, monkeypatch):
    other = dataclasses.replace(runs.measured(of_exact, "held_out"), basis=OTHER)
    monkeypatch.setattr(runs, "measured", lambda run, split: other)
    sampler = run_samples.chosen(of_exact, PLAN)
    assert sampler.axes is None
    mean, cov = chained_in(GRID, OTHER, apart(other))
    check_law((together(of_exact, sampler, 20_000, denoise=False) - [7.0, 0.0, -3.0]) / [1.0, 2.0, 0.5], mean, cov)
    assert run_samples.chosen(of_exact, dict(PLAN, per_direction=False)).axes is not None
    assert run_samples.chosen(of_exact, dict(PLAN, kernel="ddim")).axes is not None


def chained_in(grid, basis, along):
    """As `chained`, with variances along a basis that is not the law's own: with matrices."""
    m, cov = np.zeros(3), np.eye(3)
    for t, later in itertools.pairwise(grid):
        a, s2, b, r2 = np.exp(-t), -np.expm1(-2 * t), np.exp(-later), -np.expm1(-2 * later)
        gain = a * COV @ np.linalg.inv(a**2 * COV + s2 * np.eye(3))  # of the denoiser mean + gain (x - a mean)
        c = a / b  # X_t = c X_later + noise of variance s2 - c^2 r2
        keep, pull = c * r2 / s2, b * (1 - c**2 * r2 / s2)
        step = keep * np.eye(3) + pull * gain
        m = step @ m + pull * (MEAN - a * gain @ MEAN)
        added = r2 - keep * c * r2 + pull**2 * along(1 / np.expm1(2 * t))
        cov = step @ cov @ step.T + basis @ np.diag(added) @ basis.T
    return m, cov


class FailsLate(ResidualMLP):
    """A network that returns nan for particles 0.8 from the mean along its first axis, below t = 0.5."""

    def centred(self, y, t, condition=None, key=None):
        right = y[..., :1] > 0.8
        return jnp.where((t < 0.5) & right, jnp.nan, super().centred(y, t, condition, key))


# Untrained, the denoiser acts along each axis by itself.
@pytest.mark.parametrize("seed", range(5))
def test_a_fault_in_axes_is_told_by_sample_and_step(of_exact, wide, seed):
    network = FailsLate(3, mean=MEAN, cov=COV, width=8, depth=1, rngs=nnx.Rngs(0))
    broken = dataclasses.replace(of_exact, network=network)
    grid = np.array([4.0, 2.0, 1.0, 0.4, 0.1, 0.05])
    sampler = run_samples.chosen(broken, dict(PLAN, kernel="ddim", grid=grid, evals=5))
    with pytest.raises(ValueError, match="not finite") as caught:
        together(broken, sampler, 50, seed, at_once=50)
    axis = denoiser_in_axes(network)[1][:, 0]
    mean, v = MEAN @ axis, axis @ COV @ axis
    y = np.asarray(run_samples._start(jax.random.key(seed), 0, 50, 3, np.float32), np.float64) @ axis
    beyond = np.zeros((3, 50), bool)
    for k, (t, later) in enumerate(itertools.pairwise(grid)):
        beyond[max(k - 3, 0)] = (k >= 3) & (y - np.exp(-t) * mean > 0.8)
        a, b, s, r = np.exp(-t), np.exp(-later), np.sqrt(-np.expm1(-2 * t)), np.sqrt(-np.expm1(-2 * later))
        denoised = mean + a * v / (a**2 * v + s**2) * (y - a * mean)
        y = b * denoised + r * (y - a * denoised) / s
    beyond[2] = y - np.exp(-grid[-1]) * mean > 0.8
    failed = beyond.any(0)
    first = int(np.argmax(failed))
    step = 4 + int(np.argmax(beyond[:, first]))
    where = (
        f"from step {step} of 5 on, t = {grid[step - 1]:.4g} to {grid[step]:.4g}" if step < 6 else "in the denoising"
    )
    said = f"{failed.sum()} of 50 samples are not finite, first sample {first}, {where}"
    assert 0 < failed.sum() < 50
    assert str(caught.value).startswith(said)
