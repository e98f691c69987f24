"""The harness of the benchmarks on functions whose times are known; the cases and the verdict of step_throughput."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from benchmarks import __main__ as contents
from benchmarks import step_throughput, work_precision
from benchmarks.harness import command_line, environment, places, records, timing
from benchmarks.laws import throughput as throughput_laws
from benchmarks.laws.mixtures import LAWS
from benchmarks.oracles import flat_gaussian
from benchmarks.oracles import work_precision_tables as work_tables
from benchmarks.samplers import padded_tables
from benchmarks.samplers import throughput as throughput_runs
from jaxdiff import grids, kernels, sample


class Clock:
    """A clock that stands still until a function of known length runs; it notes their order."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def __call__(self):
        return self.now

    def function(self, name, seconds):
        seconds = iter(seconds)

        def call():
            self.calls.append(name)
            self.now += next(seconds)
            return jnp.zeros(1)

        return call


def test_functions_take_turns_and_the_first_call_is_kept_apart():
    clock = Clock()
    functions = {"a": clock.function("a", [100, 4, 1, 2, 8]), "b": clock.function("b", [50, 3, 3, 3, 3])}
    timings = timing.interleaved(functions, 4, clock)
    assert clock.calls == ["a", "b"] * 5
    # Of 1, 2, 4, 8 the median is 3; the quartiles, between order statistics, are 1.75 and 5.
    assert timings["a"] == timing.Timing(100, 3, 3.25)
    assert timings["b"] == timing.Timing(50, 3, 0)


def test_a_timing_waits_for_the_result(monkeypatch):
    waited = []
    monkeypatch.setattr(timing.jax, "block_until_ready", waited.append)
    timing.interleaved({"a": lambda: "result"}, 2)
    assert waited == ["result"] * 3


def test_an_environment_names_what_a_number_depends_on():
    about = environment.environment(["scipy", "no-such-package"])
    keys = "date commit versions platform device devices cpu cores load"
    assert set(keys.split()) <= set(about) <= {*keys.split(), "XLA_FLAGS"}
    assert set(about["versions"]) == {"python", "jax", "jaxlib", "numpy", "jaxdiff", "scipy", "no-such-package"}
    assert about["versions"]["python"] == sys.version.split()[0]
    assert about["versions"]["no-such-package"] is None
    json.dumps(about, allow_nan=False)


@pytest.mark.parametrize(("changes", "commit"), [("", "abc1234"), (" M jaxdiff/sample.py", "abc1234+")])
def test_a_commit_says_when_the_tree_is_not_it(monkeypatch, changes, commit):
    monkeypatch.setattr(environment, "_git", lambda command, *_: {"rev-parse": "abc1234", "status": changes}[command])
    assert environment.environment()["commit"] == commit


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert environment.environment()["commit"] is None


@pytest.mark.parametrize(
    ("arguments", "quick", "repeats"),
    [([], False, 7), (["--quick"], True, 3), (["--full", "--repeats", "2"], False, 2)],
)
def test_the_options_of_every_benchmark(arguments, quick, repeats):
    given = command_line.parsed(command_line.parser("How fast?"), arguments)
    assert (given.quick, given.repeats, given.json) == (quick, repeats, None)


@pytest.mark.parametrize("arguments", [["--quick", "--full"], ["--repeats", "0"]])
def test_options_that_make_no_sense_are_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        command_line.parsed(command_line.parser("How fast?"), arguments)
    assert "error" in capsys.readouterr().err


@pytest.mark.parametrize("make", throughput_laws.LAWS)
def test_every_score_has_its_cases(make, key):
    law = make(2)
    names = list(throughput_runs.functions(law, jnp.zeros((4, 2), jnp.float32), key, ["diffrax"]))
    assert names[0] == "jaxdiff"
    assert {"plain scan", "diffrax", "score alone", "noise alone"} <= set(names)
    assert ("jaxdiff, plain function" in names) == (law.name != "mlp")


def rows(name, milliseconds, peaks=None):
    """The rows of a law with d = 64 and 10 particles, of given medians; every first call takes a second."""
    timings = {method: timing.Timing(1.0, ms / 1e3, 0.0) for method, ms in milliseconds.items()}
    law = throughput_laws.Law(name, None, None, 1000 if name == "mlp" else None)
    return step_throughput.rows_of(law, 64, 10, timings, 3, peaks)


def test_a_row_is_compared_with_the_plain_scan_and_with_its_parts():
    ours, *_ = rows(
        "gaussian", {"jaxdiff": 2, "plain scan": 14, "score alone": 0.5, "without noise": 0.75, "noise alone": 1.5}
    )
    assert ours["mega_steps_per_s"] == pytest.approx(10 * 64 * 50 / 2e-3 / 1e6)
    assert (ours["speedup"], ours["over_parts"], ours["over_score"]) == pytest.approx((7, 1, 4))


def test_the_verdict_names_what_was_missed_and_what_was_not_measured():
    fast = {"jaxdiff": 2, "plain scan": 14, "score alone": 0.5, "without noise": 0.75, "noise alone": 1.5}
    assert step_throughput.verdict_of(rows("gaussian", fast | {"diffrax": 13})) == "4 of 4 requirements met."
    assert step_throughput.verdict_of(rows("gaussian", fast | {"jaxdiff": 3})) == (
        "1 of 3 requirements met; missed: gaussian d=64 4.67 times plain scan (at least 6); "
        "gaussian d=64 over_parts 1.5 (at most 1.15); not measured: gaussian d=64 against diffrax."
    )


def test_shares_of_an_accelerators_peaks():
    milliseconds = {"jaxdiff": 2, "plain scan": 14, "score alone": 0.5, "without noise": 0.75, "noise alone": 1.5}
    ours, scan, *_ = rows("mlp", milliseconds, (1e9, 1e9))
    assert ours["share_of_memory"] == pytest.approx(8 * 10 * 64 * 50 / 2e-3 / 1e9)
    assert ours["share_of_flops"] == pytest.approx(1000 * 10 * 50 / 2e-3 / 1e9)
    assert "gb_per_s" not in scan
    assert rows("mlp", milliseconds, (None, None))[0]["share_of_memory"] == "peak unknown"


def measured(kernel, grid, errors, law="ring", kind="ODE", metric="error"):
    return work_precision.row(law, kind, kernel, grid, {b: {metric: e} for b, e in errors.items()})


def test_the_verdict_on_precision_names_what_was_missed():
    good = [
        measured("unipc 2", "log_snr", {10: 9e-3, 20: 9e-4}),
        measured("unipc 3", "fitted", {10: 2.9e-3, 20: 4e-4}),
        measured("sa_solver", "log_snr", {10: 9e-3, 20: 9e-6}, kind="SDE", metric="kl"),
        measured("covariance_matched", "log_snr", {10: 1e-20, 20: 1e-20}, kind="SDE", metric="kl"),
    ]
    assert work_precision.verdict(good, (10, 20)) == "All figures asked for are reached."
    bad = [
        measured("unipc 2", "log_snr", {10: 2e-2, 20: 9e-4}),
        measured("unipc 3", "fitted", {10: 1.5e-2, 20: 1e-3}),
        measured("sa_solver", "log_snr", {10: 9e-3, 20: 2e-5}, kind="SDE", metric="kl"),
        measured("covariance_matched", "log_snr", {10: 1e-20, 20: 1e-20}, kind="SDE", metric="kl"),
    ]
    assert work_precision.verdict(bad, (10, 20)) == (
        "Missed: ODE at 10: 0.02 (0.01 asked); fitted at 10: 1.3 times less (3 asked); KL at 20: 2e-05 (1e-05 asked); "
        "peers at 10: beaten by 2 on 0 laws (4 asked); peers at 20: beaten by 2 on 0 laws (4 asked)."
    )


def test_means_are_geometric_over_the_laws_that_all_have_and_diverged_runs_are_worst():
    found = [
        measured("ddim", "karras", {5: 1e-2, 10: 1e-3}, law="a"),
        measured("ddim", "karras", {5: 1e-4}, law="b"),
        measured("heun", "karras", {5: np.inf}, law="a"),
        measured("heun", "karras", {5: 1.0}, law="b"),
    ]
    assert found[2]["error"] == [None]
    table = work_tables.over_laws(found, "ODE", "error")
    assert table["ddim", "karras"] == {5: pytest.approx(1e-3)}
    assert work_tables.best(table, 5) == (pytest.approx(1e-3), "ddim", "karras")
    assert table["heun", "karras"][5] == np.inf


def test_the_floor_is_reached_where_it_is_never_left_again():
    floor = work_precision.row("ring", "floor", "exact", "", {0: {"energy": 1.0, "sliced_w2": 1.0}})
    near = lambda *energies: {b: {"energy": e, "sliced_w2": 0.5} for b, e in zip((5, 10, 20), energies, strict=True)}
    found = [
        work_precision.row("ring", "SDE", "a", "karras", near(0.5, 2.0, 0.5)),
        work_precision.row("ring", "SDE", "a", "log_snr", near(2.0, 0.5, 0.5)),
        work_precision.row("ring", "SDE", "b", "karras", near(np.inf, np.inf, 2.0)),
    ]
    assert work_tables.reaching_the_floor([floor, *found]) == [
        {"kernel": "a", "ring": 10},
        {"kernel": "b", "ring": None},
    ]


def test_a_recommendation_is_the_best_pair_in_its_own_column():
    found = [
        measured("unipc 2", "log_snr", {10: 2e-2, 50: 9e-4}),
        measured("ddim", "karras", {10: 3e-2, 50: 9e-3}),
        measured("unipc 2", "fitted", {10: 1e-3}),
        measured("sa_solver", "cosine", {10: 5e-3, 50: 2e-5}, kind="SDE", metric="kl"),
    ]
    assert work_tables.recommendations(found, (10, 50)) == [
        {
            "evals": 10,
            "ODE, median error": "`unipc 2`, log_snr: 0.02",
            "ODE, grid fitted": "`unipc 2`: 0.001",
            "SDE, KL on the flat Gaussian": "`sa_solver`, cosine: 0.005",
        },
        {
            "evals": 50,
            "ODE, median error": "`unipc 2`, log_snr: 0.0009",
            "SDE, KL on the flat Gaussian": "`sa_solver`, cosine: 2e-05",
        },
    ]


# On N(0, 1) directions exponential Euler's variances are THEORY's recursion; counted with the directions, so is the KL.
def test_the_flat_gaussians_kl_is_that_of_the_recursion():
    flat, grid = flat_gaussian.Spectrum.of_flat(), grids.exponential_then_uniform(5.0, 1e-3, 12)
    kl = 0.0
    for variance, count in ((1.0, 8), (0.0, 248)):
        _, got = oracles.chain_law("exponential_euler", grid, 0.0, variance, 0.0, 1.0)
        want = np.exp(-2e-3) * variance - np.expm1(-2e-3)
        kl += count * oracles.gaussian_kl(0, want, 0, got)
    assert flat.kl(flat.kernel("exponential_euler"), grid) == pytest.approx(kl, rel=1e-9)


def test_walking_a_padded_table_is_sampling():
    law, grid = LAWS["ring of 8"](), grids.log_snr(5.0, 1e-3, 6)
    x, key = jnp.ones((4, 2)), jax.random.key(3)
    for kernel, draw in (
        (kernels.unipc(law.score), padded_tables.silence),
        (kernels.seeds(law.score), padded_tables.fresh),
    ):
        walked = padded_tables.run(kernel, grid, x, key=key, draw=draw)
        np.testing.assert_allclose(walked, sample(kernel, x, grid, key), rtol=1e-10)


def test_every_benchmark_opens_with_its_question():
    asked = contents.questions()
    assert {"planning", "corrector", "step_throughput"} <= set(asked)
    assert [name for name, question in asked.items() if not question.endswith("?")] == []


def test_the_contents_show_every_record_with_where_it_was_made(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "RESULTS", tmp_path / "kept")
    monkeypatch.setattr(places, "QUICK", tmp_path / "quick")
    about = {"device": "a machine", "date": "2026-01-02", "commit": "abc"}
    records.write_rows("planning", [], "?", "All of it.", about)
    records.write_rows("corrector", [], "?", "A little.", about, tmp_path / "quick" / "corrector.json")
    said = "\n".join(contents.listing())
    assert "  > All of it. (a machine, 2026-01-02, commit abc)\n" in said
    assert "  > A little. (a machine, 2026-01-02, commit abc, --quick)\n" in said
    assert said.count("no record here") == len(contents.questions()) - 2
