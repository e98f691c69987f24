"""Samples of a run: independent of the parts they are made in, written as they come, and refused when not finite."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from flax import nnx

from jaxdiff import data, kernels, runs
from jaxdiff.app import run_samples, sample_files, samplers, saving
from jaxdiff.grids import exponential_then_uniform
from jaxdiff.guarantees import path_kl as path_costs

N, CONSTANT = 240, 7.0
MODEL = {"horizon": 4.0, "early_stop": 0.01, "seed": 3, "image_shape": None}
MODEL["network"] = {"width": 8, "depth": 1, "dropout": 0.0, "seed": 0}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose network is untrained, and so the exact denoiser of a normal law; with its held-out curve."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, N))
    table = np.column_stack([2 * first + 1, np.full(N, CONSTANT), rng.integers(0, 50, N), first + second])
    dataset = data.split(table, name="four", seed=1)
    folder = tmp_path_factory.mktemp("runs") / "run"
    saving.save(folder, MODEL, dataset, runs.build(dataset, MODEL["network"]))
    run = runs.load(folder)
    runs.keep(run, "held_out", runs.measure(run, "held_out"))
    return run


@pytest.fixture(scope="module")
def plan():
    grid = exponential_then_uniform(4.0, 0.01, 6)
    return {
        "metric": "kl",
        "options": {},
        "kernel": "moment_matched",
        "per_direction": True,
        "evals": 6,
        "grid": grid,
        "horizon": 4.0,
        "guidance": 1.0,
    }


def together(run, sampler, n, seed=0, **options):
    return np.concatenate(list(run_samples.parts(run, sampler, n, seed, **options)))


def test_samples_do_not_depend_on_the_parts_they_are_made_in(run, plan):
    sampler = run_samples.chosen(run, plan)
    whole = together(run, sampler, 23)
    assert whole.shape == (23, 4)
    for at_once in (5, 22, 23, 100):
        parts = list(run_samples.parts(run, sampler, 23, 0, at_once=at_once))
        assert [len(part) for part in parts[:-1]] == [at_once] * (len(parts) - 1)
        np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-4)
    np.testing.assert_allclose(together(run, sampler, 9), whole[:9], atol=1e-4)
    assert np.abs(together(run, sampler, 23, seed=1) - whole)[:, [0, 2, 3]].min() > 1e-6


# The network's correction is 0 before training, so that it is the exact denoiser of N(mean, cov) of the train rows. A
# grid of many steps then samples that law noised to the early stop, which the denoiser shrinks towards the mean.
def test_samples_of_an_exact_denoiser_have_the_law_of_the_rows_denoised_or_noised(run, plan):
    n, fine = 20_000, dict(plan, grid=exponential_then_uniform(4.0, 0.3, 60), evals=60)
    sampler = run_samples.chosen(run, fine)
    cov = data.covariance(run.dataset.train)
    a2, s2 = np.exp(-0.6), -np.expm1(-0.6)
    units = run.dataset.scale
    denoised, noised = (together(run, sampler, n, denoise=each, at_once=n) for each in (True, False))
    known = {True: a2 * cov @ np.linalg.pinv(a2 * cov + s2 * np.eye(4)) @ cov, False: a2 * cov + s2 * np.eye(4)}
    varies = [0, 2, 3]
    for rows, each in ((denoised, True), (noised, False)):
        expected = known[each] * np.outer(units, units)
        error = np.abs(np.cov(rows.T) - expected)[np.ix_(varies, varies)]
        size = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))[np.ix_(varies, varies)]
        assert (error / size).max() < 5 * np.sqrt(2 / n) + 0.01  # sixty steps
        assert (rows[:, 1] == CONSTANT).all()
    assert np.trace(known[False]) > 1.5 * np.trace(known[True])


def test_whole_numbers_are_rounded_on_request(run, plan):
    sampler = run_samples.chosen(run, plan)
    plain, rounded = together(run, sampler, 23), together(run, sampler, 23, rounded=True)
    np.testing.assert_array_equal(rounded[:, 2], np.rint(plain[:, 2]))
    np.testing.assert_array_equal(rounded[:, [0, 1, 3]], plain[:, [0, 1, 3]])


def test_the_plans_sampler_has_the_plans_grid(run, plan):
    sampler = run_samples.chosen(run, plan)
    assert (sampler.planned, sampler.sampler.evals, sampler.sampler.kernel.name) == (True, 6, "moment_matched")
    np.testing.assert_array_equal(sampler.sampler.grid, plan["grid"])
    assert run_samples.chosen(run, plan, "moment_matched", 6).planned


@pytest.mark.parametrize("name", samplers.kernels_of_a_score())
def test_any_kernel_of_a_score_runs_with_as_many_evaluations(run, plan, name):
    each = getattr(kernels, name)(lambda x, t: x).evals_per_step
    sampler = run_samples.chosen(run, plan, name, 4 * each)
    assert (sampler.planned, sampler.sampler.evals, sampler.sampler.kernel.name) == (False, 4 * each, name)
    assert sampler.sampler.grid[[0, -1]] == pytest.approx([4.0, 0.01])
    assert np.diff(sampler.sampler.grid).max() < 0


def test_a_kernel_with_a_path_kl_gets_its_own_best_grid(run, plan):
    curve = runs.measured(run, "held_out")
    for name in ("ancestral", "exponential_euler"):
        own, other = (run_samples.chosen(run, plan, kernel, 8).sampler.grid for kernel in (name, "ddim"))
        assert path_costs.path_kl(name, curve, own) < path_costs.path_kl(name, curve, other)


def test_kernels_that_cannot_be_run_so_are_refused(run, plan):
    for name in ("langevin", "predictor_corrector", "nonsense"):
        with pytest.raises(ValueError, match=f"kernel must be one of ancestral, .* it is {name}"):
            run_samples.chosen(run, plan, name)
    with pytest.raises(ValueError, match="a step of rk4 takes 4 evaluations: evals = 3"):
        run_samples.chosen(run, plan, "rk4", 3)


class FailsLate(nnx.Module):
    """A network that returns nan for particles right of 1 below t = 0.5."""

    def __call__(self, x, t):
        return jax.numpy.where((t < 0.5) & (x[..., :1] > 1.0), jax.numpy.nan, 0.9 * x)


def test_the_step_and_the_sample_at_which_nan_began_are_named(run, plan):
    broken = dataclasses.replace(run, network=FailsLate())
    grid = np.array([4.0, 2.0, 1.0, 0.4, 0.1, 0.01])
    sampler = run_samples.chosen(broken, dict(plan, kernel="ddim", grid=grid, evals=5))
    with pytest.raises(ValueError, match="not finite") as caught:
        together(broken, sampler, 50, at_once=50)
    # DDIM with denoiser 0.9 x multiplies x at every step. The network is asked below t = 0.5 at 0.4, 0.1 and 0.01.
    x = np.asarray(run_samples._start(jax.random.key(0), 0, 50, 4, np.float32), np.float64)[:, 0]
    beyond = np.zeros((3, 50), bool)
    for k, (t, later) in enumerate(itertools.pairwise(grid)):
        a, b, s, r = np.exp(-t), np.exp(-later), np.sqrt(-np.expm1(-2 * t)), np.sqrt(-np.expm1(-2 * later))
        x = b * 0.9 * x + r * (x - a * 0.9 * x) / s
        beyond[max(k - 2, 0)] = (k >= 2) & (x > 1)
    failed = beyond.any(0)
    first = int(np.argmax(failed))
    step = 4 + int(np.argmax(beyond[:, first]))
    said = (
        f"{failed.sum()} of 50 samples are not finite, first sample {first}, from step {step} of 5 on, t = 0.4 to 0.1:"
    )
    assert str(caught.value).startswith(said)


class FailsAtTheEnd(nnx.Module):
    """A network that returns nan below t = 0.05, where only the denoising step asks it."""

    def __call__(self, x, t):
        return jax.numpy.where(t < 0.05, jax.numpy.nan, 0.9 * x)


def test_nan_of_the_denoising_step_is_told_from_nan_of_the_grid(run, plan):
    broken = dataclasses.replace(run, network=FailsAtTheEnd())
    sampler = run_samples.chosen(broken, dict(plan, kernel="ddim", grid=np.array([4.0, 1.0, 0.1, 0.01]), evals=3))
    assert np.isfinite(together(broken, sampler, 5, denoise=False)).all()
    with pytest.raises(ValueError, match="first sample 0, in the denoising step"):
        together(broken, sampler, 5)


ROWS = np.array([[1.0, -0.1, 1e300], [2.0, 1 / 3, 7.0], [3.0, -0.0, 5e-324]])


@pytest.mark.parametrize("cut", [1, 2])
@pytest.mark.parametrize("ending", [".npy", ".csv", ".tsv"])
def test_files_hold_every_bit_of_the_rows_in_order(tmp_path, ending, cut):
    path = tmp_path / f"rows{ending}"
    first = sample_files.write(path, iter([ROWS[:cut], ROWS[cut:]]), 3, ("a", "b,c", 'd"'))
    np.testing.assert_array_equal(first, ROWS[:cut])
    if ending == ".npy":
        read = np.load(path)
        assert read.dtype == np.float64
    else:
        separator = {".csv": ",", ".tsv": "\t"}[ending]
        head, *lines = path.read_text(encoding="utf-8").splitlines()
        assert head == separator.join(["a", '"b,c"' if ending == ".csv" else "b,c", '"d"""'])
        read = np.array([[float(x) for x in line.split(separator)] for line in lines])
        assert lines[0].startswith(f"1{separator}-0.1")
    np.testing.assert_array_equal(read, ROWS)


def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    with pytest.raises(ValueError, match=r"ends in \.txt: samples are written to \.npy, \.csv, \.tsv"):
        sample_files.check_room(tmp_path / "rows.txt", 1, (1,))
    with pytest.raises(ValueError, match="between 1 and 4294967296: n = 1000000000000"):
        sample_files.check_room(tmp_path / "rows.npy", 10**12, (4,))
    with pytest.raises(ValueError, match="between 1 and 4294967296: n = 0"):
        sample_files.check_room(tmp_path / "rows.npy", 0, (4,))
    with pytest.raises(
        ValueError, match=r"2147483648 samples of 100000 columns take 1,718 TB at least, and .* are free"
    ):
        sample_files.check_room(tmp_path / "rows.npy", 2**31, (10**5,))
    sample_files.check_room(tmp_path / "not" / "yet" / "rows.npy", 10, (4,))
