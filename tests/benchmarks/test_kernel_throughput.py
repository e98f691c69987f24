"""The study kernel_throughput: the kernels it covers, their requirements, and a verdict that comes out both ways."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import kernel_throughput as study
from benchmarks.harness.timing import Timing
from benchmarks.laws.throughput import gaussian
from jaxdiff import kernels


def row(kind="stages", ratio=1.2, noises=0.0, parts=1.2, law="mixture"):
    own = {"kernel": "one", "kind": kind, "noises": noises, "over_ddim": ratio, "over_parts": parts, "later_s": 0.2}
    return own | {"part": "kernel", "score": law, "d": 64}


@pytest.mark.parametrize("d", [2, 64])
def test_every_kernel_of_the_package_is_timed(d):
    assert set(study.made(gaussian(d), d)) | {"covariance_matched"} == set(kernels.__all__)


def test_kernels_are_told_apart_by_evaluations_and_by_what_they_keep():
    found = {name: study.kind(kernel) for name, kernel in study.made(gaussian(2), 2).items()}
    assert {name for name, kind in found.items() if kind == "multistep"} == {
        "deis",
        "dpm_solver",
        "exponential_adams",
        "sa_solver",
        "unipc",
    }
    assert {"heun", "rk4", "seeds", "randomized_midpoint"} <= {name for name, kind in found.items() if kind == "stages"}
    assert found["ddim"] == found["ancestral"] == "one evaluation"


def test_covariance_matching_is_timed_over_ddim():
    (one,) = study.product_rows(gaussian(3), 3, 8, 1)
    assert one["kernel"] == "covariance_matched, dense"
    assert one["over_ddim"] > 0


def test_grids_take_as_many_evaluations():
    for name, kernel in study.made(gaussian(2), 2).items():
        evals = (len(study.grid_of(kernel)) - 1) * kernel.evals_per_step
        assert study.EVALS - kernel.evals_per_step < evals <= study.EVALS, name


# Two evaluations of heun in 3 s where DDIM takes 1 s for one: 1.5 times. With 24 increments of 0.25 s beside 48
# evaluations of 1 s, a run of 108 s is twice its parts.
def test_ratios_are_times_for_an_evaluation():
    law = gaussian(2)
    timed = lambda seconds: Timing(seconds, seconds, 0.0)
    timings = {"heun": timed(72.0), "seeds": timed(120.0), "ddim": timed(48.0)}
    of = lambda name: study._row(law, 2, 10, name, getattr(kernels, name)(law.score), timings, 0.5, 0.75, 70.0)
    assert of("heun")["over_ddim"] == pytest.approx(1.5)
    assert of("heun")["over_score"] == pytest.approx(3.0)
    assert of("heun")["later_s"] == pytest.approx(2.0)
    assert of("seeds")["noises"] == 1.0
    assert of("seeds")["over_parts"] == pytest.approx(120 / (48 * 0.5 + 48 * 0.75))


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (row(ratio=1.29), True),
        (row(ratio=1.31), False),
        (row("multistep", 1.49), True),
        (row("multistep", 1.51), False),
        (row(ratio=9.0, noises=1.0, parts=1.29), True),
        (row("multistep", 1.0, noises=1.0, parts=1.51), False),
        (row("one evaluation", 9.0), None),
    ],
)
def test_requirements_are_of_evaluations_or_of_parts(made, expected):
    assert study.met(made) is expected


def test_the_verdict_counts_what_is_missed():
    good = study.verdict([row(), row()])
    assert good.startswith("2 of 2 requirements on the time of an evaluation are met, and 2 of 2 on the first call.")
    assert good.endswith("mixture: ratios of 1.20 to 1.20, median 1.20.")
    bad = study.verdict([row(), row(ratio=4.0), row(law="network") | {"later_s": 0.4}, {"part": "call"}])
    assert bad.startswith("2 of 3 requirements on the time of an evaluation are met, and 2 of 3 on the first call.")
    assert "mixture: ratios of 1.20 to 4.00, median 2.60, 1 missed." in bad


@pytest.mark.parametrize("name", ["heun", "ancestral", "seeds", "unipc"])
def test_a_plain_scan_of_the_steps_has_a_first_call(name):
    kernel = getattr(kernels, name)(gaussian(3).score)
    assert study.first_of_plain_scan(kernel, jnp.ones((5, 3), jnp.float32), jax.random.key(0)) > 0


@pytest.mark.filterwarnings("ignore")
def test_the_figure_is_drawn(tmp_path):
    assert study.draw([row(), row(ratio=4.0) | {"kernel": "other"}], tmp_path / "x.png").stat().st_size > 10_000


def test_particles_of_a_case_are_at_least_one():
    assert study.particles(gaussian(2), 2, 1) == 1
    assert jnp.zeros(study.particles(gaussian(2), 2, 8)).shape == (4,)
