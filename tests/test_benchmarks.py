"""The harness of the benchmarks on functions whose times are known; the cases and the verdict of step_throughput."""

import json
import sys

import jax.numpy as jnp
import pytest

from benchmarks import harness, step_throughput


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
    timings = harness.interleaved(functions, 4, clock)
    assert clock.calls == ["a", "b"] * 5
    # Of 1, 2, 4, 8 the median is 3; the quartiles, between order statistics, are 1.75 and 5.
    assert timings["a"] == harness.Timing(100, 3, 3.25)
    assert timings["b"] == harness.Timing(50, 3, 0)


def test_a_timing_waits_for_the_result(monkeypatch):
    waited = []
    monkeypatch.setattr(harness.jax, "block_until_ready", waited.append)
    harness.interleaved({"a": lambda: "result"}, 2)
    assert waited == ["result"] * 3


def test_a_table_is_aligned_with_numbers_to_the_right():
    rows = [{"method": "scan", "median_ms": 1234.5, "n": 7}, {"method": "a", "median_ms": 0.012345, "note": "x"}]
    assert harness.table(rows, ["method", "median_ms", "n", "note"]).splitlines() == [
        "| method | median ms |   n | note |",
        "| ------ | --------: | --: | ---- |",
        "| scan   |      1234 |   7 |      |",
        "| a      |   0.01235 |     | x    |",
    ]


def test_an_environment_names_what_a_number_depends_on():
    about = harness.environment(["scipy", "no-such-package"])
    keys = "date commit versions platform device devices cpu cores load"
    assert set(keys.split()) <= set(about) <= {*keys.split(), "XLA_FLAGS"}
    assert set(about["versions"]) == {"python", "jax", "jaxlib", "numpy", "jaxdiff", "scipy", "no-such-package"}
    assert about["versions"]["python"] == sys.version.split()[0]
    assert about["versions"]["no-such-package"] is None
    json.dumps(about, allow_nan=False)


@pytest.mark.parametrize(("changes", "commit"), [("", "abc1234"), (" M jaxdiff/sample.py", "abc1234+")])
def test_a_commit_says_when_the_tree_is_not_it(monkeypatch, changes, commit):
    monkeypatch.setattr(harness, "_git", lambda command, *_: {"rev-parse": "abc1234", "status": changes}[command])
    assert harness.environment()["commit"] == commit


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert harness.environment()["commit"] is None


def test_a_record_holds_question_verdict_environment_and_rows(tmp_path):
    rows = [{"d": 2, "median_ms": 0.5}]
    path = harness.write_rows("name", rows, "How many?", "Few.", {"cpu": "one"}, tmp_path / "record.json")
    assert json.loads(path.read_text()) == {
        "question": "How many?",
        "verdict": "Few.",
        "environment": {"cpu": "one"},
        "rows": rows,
    }


def test_records_are_named_after_benchmark_and_platform(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(harness, "platform_slug", lambda: "nvidia-h200")
    assert harness.write_rows("speed", [], "How fast?", "Fast.", {"cpu": "one"}) == tmp_path / "speed-nvidia-h200.json"


@pytest.mark.parametrize(
    ("arguments", "quick", "repeats"),
    [([], False, 7), (["--quick"], True, 3), (["--full", "--repeats", "2"], False, 2)],
)
def test_the_options_of_every_benchmark(arguments, quick, repeats):
    given = harness.parsed(harness.parser("How fast?"), arguments)
    assert (given.quick, given.repeats, given.json) == (quick, repeats, None)


@pytest.mark.parametrize("arguments", [["--quick", "--full"], ["--repeats", "0"]])
def test_options_that_make_no_sense_are_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        harness.parsed(harness.parser("How fast?"), arguments)
    assert "error" in capsys.readouterr().err


@pytest.mark.parametrize("make", step_throughput.LAWS)
def test_every_score_has_its_cases(make, key):
    law = make(2)
    names = list(step_throughput.functions(law, jnp.zeros((4, 2), jnp.float32), key, ["diffrax"]))
    assert names[0] == "jaxdiff"
    assert {"plain scan", "diffrax", "score alone", "noise alone"} <= set(names)
    assert ("jaxdiff, plain function" in names) == (law.name != "mlp")


def rows(name, milliseconds, peaks=None):
    """The rows of a law with d = 64 and 10 particles, of given medians; every first call takes a second."""
    timings = {method: harness.Timing(1.0, ms / 1e3, 0.0) for method, ms in milliseconds.items()}
    law = step_throughput.Law(name, None, None, 1000 if name == "mlp" else None)
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
