"""The command line: once end to end on a tiny table, and what users get wrong."""

import base64
import contextlib
import functools
import io
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
from itertools import pairwise
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from matplotlib import image

from jaxdiff import data, kernels, runs
from jaxdiff.app import comparison, run_samples
from jaxdiff.app.cli import main
from jaxdiff.guarantees.information import denoised_w2, early_stopping_w2
from jaxdiff.guarantees.path_kl import path_kl
from jaxdiff.training.fit import Fit, Interrupted

ROOT = pathlib.Path(__file__).parents[2]
EARLY_STOP, CONSTANT = 0.002, 7.0  # the default; the table's column that does not vary
STEPS = (10, 20)  # of the report; the demo (test_demo.py) has all of them
TINY = ["--steps", "4", "--batch-size", "16", "--width", "16", "--depth", "1"]


def said(*argv):
    """What a command prints on standard output; it must succeed."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main([str(word) for word in argv])
    assert code == 0, err.getvalue()[-2000:]
    return out.getvalue()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The table, its run folder after train and after plan, and what plan printed."""
    folder = tmp_path_factory.mktemp("cli")
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 120))
    table = np.column_stack([2 * first + 1, np.full(120, CONSTANT), first + second])
    np.savetxt(folder / "table.csv", table, delimiter=",", header="a,b,c", comments="")
    with jax.numpy_dtype_promotion("standard"):  # Optax, see conftest.py
        said("train", folder / "table.csv", "--out", folder / "trained", *TINY)
    shutil.copytree(folder / "trained", folder / "planned")
    printed = said("plan", folder / "planned", "--evals", 5, "--metric", "kl", "--json")
    return SimpleNamespace(
        table=folder / "table.csv", trained=folder / "trained", planned=folder / "planned", plan_said=printed
    )


@pytest.fixture(scope="module")
def run(made):
    """The folder after sample too."""
    folder = shutil.copytree(made.planned, made.planned.parent / "run")
    said("sample", folder, "-n", 20)
    return folder


@pytest.fixture(scope="module")
def certified(run):
    """The folder after all four commands, and what certify printed; samplers are compared at STEPS alone."""
    folder = shutil.copytree(run, run.parent / "certified")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "compare", functools.partial(comparison.compare, n_steps=STEPS))
        patch.setattr(comparison, "quality", functools.partial(comparison.quality, evals=(5,)))
        patch.setattr(comparison, "PARTICLES", 64)
        return SimpleNamespace(folder=folder, certify_said=said("certify", folder))


@pytest.fixture
def copy(made, tmp_path):
    """Stage name -> a copy of the run folder at that stage."""
    return lambda stage: shutil.copytree(getattr(made, stage), tmp_path / "run")


def strict(text):
    """JSON without NaN or Infinity."""

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_every_command_leaves_its_own_files(made, run, certified):
    stages = (made.trained, made.planned, run, certified.folder)
    listed = [{path.name for path in folder.iterdir()} for folder in stages]
    assert listed[0] == {"model.json", "data.npz", "checkpoint", "training", "metrics.jsonl"}
    assert listed[1] - listed[0] == {"plan.json", "loss_curve.png", "grids.png", "held_out_curve.npz"}
    assert listed[2] - listed[1] == {"samples.npy", "samples.png"}
    assert listed[3] - listed[2] == {"report.json", "report.html", "test_curve.npz", "quality.png"}
    for name in ("loss_curve.png", "grids.png", "samples.png"):
        assert image.imread(run / name).size > 100_000
    model = strict((made.trained / "model.json").read_text(encoding="utf-8"))
    known = {"kind": "mlp", "width": 16, "depth": 1, "dropout": 0.1, "seed": 0, "n_classes": None}
    assert model["network"] == known
    assert (model["event_shape"], model["pixels"], model["train_rows"], model["stopped_at"]) == ([3], None, 80, None)
    assert [row["step"] for row in model["history"]] == [1, 2, 3, 4]


def test_plan_prints_the_plan_it_writes_as_json_and_nothing_else(made):
    plan = strict(made.plan_said)
    assert plan == strict((made.planned / "plan.json").read_text(encoding="utf-8"))
    assert {"horizon", "grid", "kernel", "evals", "predicted_kl"} <= plan.keys()
    assert plan["kernel"] in kernels.__all__
    assert len(plan["grid"]) == 1 + plan["evals"] == 6
    assert all(later < earlier for earlier, later in pairwise(plan["grid"]))
    assert (plan["grid"][0], plan["grid"][-1]) == (plan["horizon"], pytest.approx(EARLY_STOP))
    assert plan["horizon"] == pytest.approx(5.0)
    assert plan["predicted_kl"] > 0


def test_samples_are_in_the_units_of_the_file(run):
    samples = np.load(run / "samples.npy", allow_pickle=False)
    assert samples.shape == (20, 3)
    assert np.isfinite(samples).all()
    for column, (mean, deviation) in {0: (1.0, 2.0), 2: (0.0, np.sqrt(2))}.items():
        assert abs(samples[:, column].mean() - mean) < 1.5 * deviation  # 120 rows, 5 steps: units, not quality
        assert deviation / 2 < samples[:, column].std() < 2 * deviation


def test_the_w2_of_the_early_stop_is_stated_without_denoising_too(made, copy):
    told, run = said("sample", copy("planned"), "-n", 20, "--no-denoise"), runs.load(made.planned)
    noised = early_stopping_w2(run.dataset.second_moment("held_out"), 3, EARLY_STOP)
    assert f"within W2 = {noised:.3g} of the data, in standardised columns.\n" in told
    assert "20 samples, 5 evaluations each" in told


def test_samples_of_another_kernel_go_to_a_text_file_with_the_columns_names(made, copy, tmp_path):
    folder, out = copy("planned"), tmp_path / "x.csv"
    before = contents(folder)
    argv = ["--kernel", "ddim", "--evals", 3, "--chunk", 8, "--out", out]
    told = said("sample", folder, "-n", 20, *argv)
    assert contents(folder) == before
    assert out.read_text(encoding="utf-8").startswith("a,b,c\n")
    rows = np.loadtxt(out, delimiter=",", skiprows=1)
    assert rows.shape == (20, 3)
    assert (rows[:, 1] == CONSTANT).all()
    assert f"20 samples, 4 evaluations each: {out}\n" in told
    assert "This is not the sampler of the plan" in told
    run = runs.load(folder)
    assert f"within W2 = {denoised_w2(runs.measured(run, 'held_out'), EARLY_STOP):.3g} of the data" in told


def test_a_constant_column_is_exactly_its_value_in_every_sample(run):
    assert (np.load(run / "samples.npy")[:, 1] == CONSTANT).all()


def test_the_seed_decides_the_samples(run, copy):
    again = copy("planned")
    said("sample", again, "-n", 20, "--seed", 0)
    assert (again / "samples.npy").read_bytes() == (run / "samples.npy").read_bytes()
    said("sample", again, "-n", 20, "--seed", 1)
    other = np.load(again / "samples.npy")
    assert other.shape == (20, 3)
    varies = [0, 2]
    assert not np.isclose(other, np.load(run / "samples.npy"))[:, varies].any()


def test_a_target_kl_is_met_by_the_fewest_steps(made, copy):
    run, target = copy("trained"), 1.5 * strict(made.plan_said)["predicted_kl"]
    met = strict(said("plan", run, "--target-kl", target, "--json"))
    assert met["predicted_kl"] <= target
    assert 2 <= met["evals"] <= 5
    assert strict(said("plan", run, "--metric", "kl", "--evals", met["evals"] - 1, "--json"))["predicted_kl"] > target


def test_the_report_has_six_samplers_at_each_number_of_steps(made, certified):
    report = strict((certified.folder / "report.json").read_text(encoding="utf-8"))
    samplers = [("exponential_euler", "Benton"), ("ancestral", "Benton")]
    apart = "moment_matched_per_direction"
    samplers += [(name, "planned") for name in ("ancestral", "moment_matched", apart, "ddim")]
    rows = report["rows"]
    named = [(row["n_steps"], row["kernel"], row["grid"]) for row in rows]
    planned = [(5, apart, "planned")]  # the plan's own number of steps
    assert named == planned + [(n, *sampler) for n in STEPS for sampler in samplers]
    for row in rows:
        assert {"excess", "sliced_w2", "accuracy", "energy_distance", "evals", "seconds"} <= row.keys()
        assert (row["excess"] is None) == (row["kernel"] == "ddim")
        assert row["excess"] is None or row["excess"]["standard_error"] > 0
        assert row["evals"] == row["n_steps"]
        assert row["seconds"] > 0
        assert row["sliced_w2"]["value"] > 0
        assert 0 <= row["accuracy"]["value"] <= 1
    assert report["plan"]["predicted_kl"] == strict(made.plan_said)["predicted_kl"]
    assert certified.certify_said.count("ancestral, Benton") == len(STEPS)
    ratio = report["step_ratio"]
    assert (ratio["withheld"], ratio["rows"], ratio["ratio"]) == ("few", 20, None)
    assert "20 test rows are too few to estimate how many steps the planned grid saves" in certified.certify_said
    assert "times fewer" not in certified.certify_said


# The path KL of the ancestral kernel is what a left Riemann sum of (1/2) int L dsnr has too much.
def test_the_excess_in_the_report_is_that_of_the_test_rows(certified):
    report = strict((certified.folder / "report.json").read_text(encoding="utf-8"))
    curve = runs.measured(runs.load(certified.folder), "test")
    row = next(row for row in report["rows"] if (row["kernel"], row["grid"]) == ("ancestral", "Benton"))
    uniform, geometric = np.linspace(5.0, 1.0, 6), np.geomspace(1.0, EARLY_STOP, 6)
    snr = 1 / np.expm1(2 * np.concatenate([uniform, geometric[1:]]))
    u = np.linspace(np.log(snr[0]), np.log(snr[-1]), 20_001)
    integral = np.trapezoid(np.exp(u) * curve(np.exp(u)), u)
    expected = (np.sum(np.diff(snr) * curve(snr[:-1])) - integral) / 2
    assert row["excess"]["value"] == pytest.approx(expected, rel=1e-5)


def test_the_certificate_is_that_of_the_plan_on_the_test_rows(certified):
    run = runs.load(certified.folder)
    plan = strict((certified.folder / "plan.json").read_text(encoding="utf-8"))
    test, held_out = (runs.measured(run, split) for split in ("test", "held_out"))
    assert plan["per_direction"] is True
    expected = path_kl(plan["kernel"], test, plan["grid"], matched=held_out, basis=test.basis)
    terms = strict((certified.folder / "report.json").read_text(encoding="utf-8"))["certificate"]["terms"]
    values = {term["name"]: term["value"] for term in terms}
    assert values["discretisation"] == pytest.approx(expected)
    moment = (run.dataset.test.astype(float) ** 2).sum(1).mean()
    initial = (np.exp(-10) * (moment - 3) - 3 * np.log1p(-np.exp(-10))) / 2
    assert values["initialisation"] == pytest.approx(initial, rel=1e-5)


def test_the_summary_states_what_twenty_test_rows_carry(certified):
    report = strict((certified.folder / "report.json").read_text(encoding="utf-8"))
    gains, paired = report["summary"]  # no accuracy was asked for
    assert paired.startswith("On the test rows the path KL of moment matched")
    assert gains == "The test rows are too few or too noisy to give any ratio of excesses at 20 steps."
    for sentence in report["summary"]:
        assert sentence in certified.certify_said
    assert report["certificate_text"] in certified.certify_said


def test_a_target_that_was_asked_for_gets_a_verdict(copy, monkeypatch):
    monkeypatch.setattr(comparison, "compare", lambda *_, **__: [])
    monkeypatch.setattr(comparison, "quality", functools.partial(comparison.quality, evals=()))
    monkeypatch.setattr(comparison, "PARTICLES", 64)
    run = copy("trained")
    plan = strict(said("plan", run, "--target-kl", 0.5, "--json"))
    assert plan["target_kl"] == 0.5
    assert "Target: 0.5 nats; the test rows give " in said("certify", run)


def test_samples_start_from_the_normal_law(copy, monkeypatch):
    started = []

    def caught(sampler, x, **options):
        started.append(x)
        return x

    monkeypatch.setattr(run_samples, "sample", caught)
    said("sample", copy("planned"), "-n", 4000)
    x = np.asarray(started[0])
    assert x.shape == (4000, 3)
    assert np.abs(x.mean(0)).max() < 5 / np.sqrt(4000)
    assert np.abs(np.cov(x.T) - np.eye(3)).max() < 5 * np.sqrt(2 / 4000)


def test_a_new_plan_removes_what_was_made_by_the_old_one(certified, tmp_path):
    folder = shutil.copytree(certified.folder, tmp_path / "run")
    with contextlib.redirect_stderr(io.StringIO()) as told:
        assert main(["plan", str(folder), "--evals", "4", "--metric", "kl"]) == 0
    assert (
        "removed, because they belong to the former plan: samples.npy, samples.png, report.json, report.html, "
        "quality.png" in told.getvalue()
    )
    left = {path.name for path in folder.iterdir()}
    assert not left & {"samples.npy", "samples.png", "report.json", "report.html"}
    assert {"plan.json", "grids.png", "held_out_curve.npz"} <= left


def test_the_page_opens_without_a_network(certified):
    page = (certified.folder / "report.html").read_text(encoding="utf-8")
    sources = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]*)""", page)
    pictures = [base64.b64decode(source.removeprefix("data:image/png;base64,"), validate=True) for source in sources]
    assert pictures == [
        (certified.folder / name).read_bytes() for name in ("samples.png", "quality.png", "loss_curve.png", "grids.png")
    ]
    assert not re.search(r"https?://|url\(|@import|<script", page)
    assert page.count("<tr") == 1 + 1 + 6 * len(STEPS) + 1


# What users get wrong: exit code 2, one sentence that names the value, and the folder as it was.


def contents(folder):
    return {path: path.read_bytes() for path in pathlib.Path(folder).rglob("*") if path.is_file()}


def refused(capsys, folder, *argv, after_work=False):
    """The sentence with which a command refuses, having left the folder as it was."""
    before = contents(folder)
    capsys.readouterr()
    assert main([str(word) for word in argv]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not (after_work and re.search(r"%\|", line))]
    assert len([line for line in lines if line]) == 1, lines
    assert lines[-1].startswith("jaxdiff: ")
    assert contents(folder) == before
    return lines[-1]


def with_nan(rows):
    rows[3, 1] = np.nan
    return rows


UNUSABLE = {
    "missing": (None, "does not exist"),
    "empty": ("", "0 bytes"),
    "header alone": ("a,b\n", "no values"),
    "one-dimensional": (np.arange(60.0), r"shape \(60,\)"),
    "words": (np.array([["red", "blue"]] * 60), "<U4"),
    "words in a csv": ("a,b\n" + "1,red\n" * 60, "row 2, column 2 is 'red'"),
    "nan": (with_nan(np.eye(60)), "nan at row 3, column 1"),
    "constant": (np.ones((60, 2)), "no column varies"),
    "too few": (np.eye(5), "5 rows"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_unusable_data_is_refused(case, tmp_path, capsys):
    content, named = UNUSABLE[case]
    path = tmp_path / ("rows.npy" if isinstance(content, np.ndarray) else "rows.csv")
    if isinstance(content, np.ndarray):
        np.save(path, content)
    elif content is not None:
        path.write_text(content, encoding="utf-8")
    sentence = refused(capsys, tmp_path, "train", path, "--out", tmp_path / "run", *TINY)
    assert str(path) in sentence or path.stem in sentence
    assert re.search(named, sentence)
    assert not (tmp_path / "run").exists()


WHOLE = np.random.default_rng(1).integers(1, 90, (60, 3))
HALVES = WHOLE / 2 + 0.25  # no number is whole
ROWS = "\n".join(",".join(map(str, row)) for row in WHOLE.tolist())
INDEXED = "\n".join(f"{i},{line}" for i, line in enumerate(ROWS.split("\n")))
EUROPEAN = "\n".join(";".join(map(str, row)) for row in HALVES.tolist()).replace(".", ",")
LEFT_OUT = "Column 0, without a name, numbers the rows and is left out (columns= or --columns overrules this)."
OVERRULED = "(header=True or False, --header or --no-header, overrules this)."
TABLES = {  # text, options, the rows that are read, lines on standard error
    "pandas": (",0,1,2\n" + INDEXED, "", WHOLE, [LEFT_OUT]),
    "pandas without an index": (
        "2019,2020,2021\n" + EUROPEAN.replace(",", ".").replace(";", ","),
        "",
        HALVES,
        [f"The first line, 2019,2020,2021, is read as names of columns {OVERRULED}"],
    ),
    "without a header": (INDEXED, "", WHOLE, [LEFT_OUT]),
    "the index wanted": (",a,b,c\n" + INDEXED, "--columns 0,1,2,3", np.c_[np.arange(60), WHOLE], []),
    "names in another order": (",a,b,c\n" + INDEXED, "--columns c,a", WHOLE[:, [2, 0]], []),
    "a name with a comma": ('"a, cm",b,c\n' + ROWS, """--columns '"a, cm",2'""", WHOLE[:, [0, 2]], []),
    "years as a header": ("2019,2020,2021\n" + ROWS, "--header", WHOLE, []),
    "years as a row": ("2019,2020,2021\n" + ROWS, "--no-header", np.r_[[[2019, 2020, 2021]], WHOLE], []),
    "no header over names": ("a,b,c\n" + ROWS, "", WHOLE, []),
    "a spreadsheet in Europe": ("nan;inf;x\n" + EUROPEAN, "", HALVES, []),
}


HISTORY = [{"step": 1, "train_loss": 2.0, "held_out_loss": 1.0}]


@pytest.fixture
def untrained(monkeypatch):
    """Networks are kept as they are initialised: what a run stores of its data is compiled by nobody."""
    kept = lambda network, *_, **__: Fit(network, HISTORY, 10, 2)
    monkeypatch.setattr("jaxdiff.training.fit.fit", kept)


def test_an_interrupted_training_is_kept_and_goes_on_by_resume(made, tmp_path, capsys, monkeypatch):
    def stops(network, *_, **__):
        raise Interrupted(Fit(network, HISTORY, 10, 2), 3, signal.SIGTERM)

    monkeypatch.setattr("jaxdiff.training.fit.fit", stops)
    folder = tmp_path / "run"
    assert main(["train", str(made.table), "--out", str(folder), *TINY]) == 128 + signal.SIGTERM
    told = capsys.readouterr().err
    assert f"interrupted after 3 of 4 steps. {folder} holds a checkpoint: go on with the same command and --res" in told
    model = runs.load(folder).model
    assert (model["history"], model["stopped_at"]) == (HISTORY, 3)
    finished = tmp_path / "finished"
    shutil.copytree(made.trained, finished)
    before = {name: (finished / name).read_bytes() for name in ("model.json", "data.npz")}
    assert main(["train", str(made.table), "--out", str(finished), *TINY, "--seed", "1", "--overwrite"]) == 143
    assert {name: (finished / name).read_bytes() for name in before} == before  # until the new one is finished


def test_an_interrupt_before_anything_was_learned_says_so(made, tmp_path, capsys, monkeypatch):
    def stops(network, *_, **__):
        raise Interrupted(Fit(network, [], 10, 2), 0)

    monkeypatch.setattr("jaxdiff.training.fit.fit", stops)
    assert main(["train", str(made.table), "--out", str(tmp_path / "run"), *TINY]) == 130
    assert "interrupted after 0 of 4 steps" in capsys.readouterr().err


@pytest.mark.parametrize("case", TABLES)
def test_a_table_is_read_as_its_options_say_and_every_assumption_is_printed(case, untrained, tmp_path, capsys, recwarn):
    content, options, rows, lines = TABLES[case]
    table, folder = tmp_path / "table.csv", tmp_path / "run"
    table.write_bytes(content.encode("utf-16" if "Europe" in case else "utf-8"))
    assert main(["train", str(table), "--out", str(folder), *TINY, *shlex.split(options)]) == 0
    told = capsys.readouterr()
    assert told.err.splitlines() == [f"{table}: {line}" for line in lines]
    assert not [one for one in recwarn if str(table) in str(one.message)]  # it is said once
    assert f" rows of {rows.shape[1]} columns\n" in told.out
    assert "residual MLP, " in told.out
    run = runs.load(folder)
    assert run.model["dim"] == run.dataset.dim == rows.shape[1]
    stored = np.concatenate([run.dataset.restore(getattr(run.dataset, split)) for split in runs.SPLITS])
    np.testing.assert_allclose(np.sort(stored, axis=0), np.sort(rows, axis=0), rtol=1e-5, atol=1e-4)
    reading = run.model["reading"]
    again = data.load(table, header=reading["header"], columns=reading["columns"])  # warns of nothing: no assumption
    np.testing.assert_array_equal(again.train, run.dataset.train)
    assert reading["notes"] == lines


def test_an_array_of_an_archive_is_chosen_by_its_key(untrained, tmp_path, capsys):
    np.savez(tmp_path / "x.npz", rows=WHOLE, labels=np.arange(60))
    argv = ["train", tmp_path / "x.npz", "--out", tmp_path / "run", *TINY]
    assert "2 arrays ['rows', 'labels']: choose one with key, --key NAME" in refused(capsys, tmp_path, *argv)
    assert "rows of 2 columns" in said(*argv, "--key", "rows", "--columns", "2,0")
    run = runs.load(tmp_path / "run")
    assert run.model["reading"] == {"header": None, "columns": [2, 0], "key": "rows", "names": None, "notes": []}
    stored = np.concatenate([run.dataset.restore(getattr(run.dataset, split)) for split in runs.SPLITS])
    np.testing.assert_array_equal(np.sort(stored.round(3), axis=0), np.sort(WHOLE[:, [2, 0]], axis=0))


@pytest.mark.parametrize(
    ("name", "content", "options", "named"),
    [
        ("x.csv", "2019,2020,2021\n" + ROWS, "", r"2019,2020,2021, can be names or a row: .*--header, --no-header"),
        ("x.csv", "a,b,c\n" + ROWS, "--no-header", r"row 1, column 1 is 'a', .* say header=True, --header"),
        ("x.csv", "a,b,c\n" + ROWS, "--columns a,d", r"no column 'd': its columns are a,b,c; positions .* 0 to 2"),
        ("x.csv", "a,b,c\n" + ROWS, "--columns ''", "or none: give each once"),
        ("x.csv", "a,b,c\n" + ROWS, "--key a", "without key, but key = 'a' was given"),
        ("x.csv", ",b,c\n" + ROWS, "", "column 0 has no name and does not number the rows: .*--columns"),
        ("x.npy", WHOLE, "--header", "without header, but header = True was given"),
        ("digits", None, "--columns 1", "digits is read without columns"),
    ],
)
def test_an_option_that_does_not_fit_the_file_is_refused(name, content, options, named, tmp_path, capsys):
    path = tmp_path / name
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    elif content is not None:
        np.save(path, content)
    source = path if path.exists() else name
    argv = ["train", source, "--out", tmp_path / "run", *TINY, *shlex.split(options)]
    assert re.search(named, refused(capsys, tmp_path, *argv))


def test_a_run_folder_that_cannot_be_made_is_refused_before_training(made, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    sentence = refused(capsys, tmp_path, "train", made.table, "--out", tmp_path / "file" / "run", *TINY)
    assert f"{tmp_path / 'file'} is a file" in sentence


def test_more_samples_than_memory_are_refused(copy, capsys, monkeypatch):
    def exhausted(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 5120000000000 bytes.")

    run = copy("planned")
    monkeypatch.setattr(run_samples, "sample", exhausted)
    assert "not enough memory: choose a smaller --batch-size, --width or --chunk" in refused(capsys, run, "sample", run)


@pytest.mark.parametrize(
    "error",
    [
        jax.errors.JaxRuntimeError("INTERNAL: a compiler's fault"),
        ModuleNotFoundError("No module named 'jaxdiff.gone'", name="jaxdiff.gone"),
        ImportError("cannot import name 'gone' from 'jaxdiff'"),
        RuntimeError("a fault of ours"),
        TypeError("a fault of ours"),
    ],
)
def test_faults_that_are_not_the_users_keep_their_traceback(error, copy, monkeypatch):
    def failing(*_, **__):
        raise error

    monkeypatch.setattr(run_samples, "sample", failing)
    with pytest.raises(type(error), match=re.escape(str(error))):
        main(["sample", str(copy("planned"))])


def test_a_missing_library_is_not_called_a_damaged_checkpoint(copy, capsys, monkeypatch):
    run = copy("planned")
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    assert "orbax.checkpoint is not installed: pip install 'jaxdiff[all]'" in refused(capsys, run, "sample", run)


def test_an_unknown_data_name_is_refused_with_the_names_there_are(tmp_path, capsys):
    sentence = refused(capsys, tmp_path, "train", "digitz", "--out", tmp_path / "run")
    assert "digitz" in sentence
    assert "digits" in sentence


BAD_TRAINING = """
--horizon 50        --seed -1           --seed 100000000000    --early-stop 1e-30
--early-stop 7      --early-stop 5    --early-stop 0     --early-stop nan
--steps 0           --batch-size 0    --batch-size -1    --width 0          --width -1        --depth -1
--learning-rate nan --learning-rate -1 --learning-rate 0 --dropout 1.5     --dropout -0.1     --dropout nan
"""


@pytest.mark.loose_promotion
@pytest.mark.parametrize(("option", "value"), re.findall(r"(--[a-z-]+) (\S+)", BAD_TRAINING))
def test_a_bad_training_option_is_refused_by_name_and_value(option, value, made, tmp_path, capsys):
    sentence = refused(capsys, tmp_path, "train", made.table, "--out", tmp_path / "run", *TINY, option, value)
    assert option.strip("-").replace("-", "_") in sentence.replace("-", "_").replace(" ", "_")
    assert value in sentence


@pytest.mark.parametrize("command", ["plan", "sample", "certify"])
def test_a_run_folder_that_does_not_exist_is_refused(command, tmp_path, capsys):
    sentence = refused(capsys, tmp_path, command, tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in sentence
    assert "jaxdiff train" in sentence


def test_the_name_of_a_run_is_answered_with_its_folder(made, tmp_path, capsys, monkeypatch):
    shutil.copytree(made.trained, tmp_path / "runs" / "table")
    monkeypatch.chdir(tmp_path)
    assert "did you mean runs/table?" in refused(capsys, tmp_path, "plan", "table")


@pytest.mark.parametrize("command", ["sample", "certify"])
def test_a_command_before_its_plan_is_refused_with_the_command_to_run(command, copy, capsys):
    run = copy("trained")
    assert f"jaxdiff plan {run}" in refused(capsys, run, command, run)


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        ("plan --evals 0", "evals = 0"),
        ("plan --evals -3", "evals = -3"),
        ("plan --evals 5 --target-kl 1", "evals.*target.kl|target.kl.*evals"),
        ("plan --target-kl 0", "target.kl = 0"),
        ("plan --target-kl nan", "target.kl = nan"),
        ("plan --evals 20000", "evals = 20000"),
        ("plan --dim 3", "one of a run folder, --dim and --model"),
        ("plan --second-moment 3", "--second-moment"),
        ("sample -n 0", "n = 0"),
        ("sample --seed -5", "seed = -5"),
    ],
)
def test_a_bad_budget_is_refused_before_any_work(argv, named, copy, capsys):
    (command, *options), run = argv.split(), copy("trained" if argv.startswith("plan") else "planned")
    assert re.search(named, refused(capsys, run, command, run, *options))


def test_an_accuracy_out_of_reach_is_refused_with_the_cost_of_the_start(copy, capsys):
    run = copy("trained")
    sentence = refused(capsys, run, "plan", run, "--target-kl", "1e-9", after_work=True)
    assert re.search(r"target.kl = 1e-09", sentence)


def test_an_early_stop_that_is_not_the_runs_is_refused(copy, capsys):
    run = copy("trained")
    sentence = refused(capsys, run, "plan", run, "--metric", "kl", "--early-stop", "0.3", after_work=True)
    assert re.search(rf"measured with early_stop = {EARLY_STOP:g}, not 0\.3", sentence)
    sentence = refused(capsys, run, "plan", run, "--early-stop", "0.3")
    assert f"--early-stop must be that of the run, {EARLY_STOP:g}: it is 0.3" in sentence


def test_a_plan_from_dimension_alone_says_so_and_leaves_its_picture(tmp_path):
    asked = ("--dim", 16, "--second-moment", 4.0, "--target-kl", 0.5, "--early-stop", 0.01)
    record = strict(said("plan", *asked, "--json", "--out", tmp_path / "all"))
    assert {"horizon", "grid", "kernel", "evals", "predicted_kl"} <= record.keys()
    assert record["kernel"] == "ancestral"
    assert record["predicted_kl"] <= 0.5
    assert record == strict((tmp_path / "all" / "plan.json").read_text(encoding="utf-8"))
    assert (tmp_path / "all" / "grids.png").read_bytes().startswith(b"\x89PNG")
    text = said("plan", *asked)
    assert f"{record['evals']} evaluations a sample" in text
    assert "nothing else is assumed of them" in text
    assert "by bounds.benton2024.theorem1" in text


def test_a_plan_is_for_a_run_or_for_a_dimension_not_for_both_or_neither(copy, capsys):
    assert "one of a run folder, --dim and --model" in refused(capsys, copy("trained"), "plan")


DAMAGED = {"torn": '{"grid": [5.0,', "empty": "", "a list": "[]", "without keys": "{}"}


@pytest.mark.parametrize("command", ["sample", "certify"])
@pytest.mark.parametrize("damage", [*DAMAGED, "unknown kernel", "no path", "rising grid"])
def test_a_damaged_plan_is_refused_by_the_name_of_its_file(command, damage, made, copy, capsys):
    changes = {"unknown kernel": {"kernel": "bogus"}, "no path": {"kernel": "langevin"}}
    changed = (changes | {"rising grid": {"grid": [1.0, 2.0]}}).get(damage, {})
    run = copy("planned")
    (run / "plan.json").write_text(DAMAGED.get(damage, json.dumps(strict(made.plan_said) | changed)))
    sentence = refused(capsys, run, command, run)
    assert "bogus" in sentence or "plan.json" in sentence


def in_a_shell(*argv):
    """A new interpreter with default JAX settings, this checkout first on the path."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment = plain | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *argv], capture_output=True, text=True, env=environment, timeout=120)


def test_the_program_exits_with_2_and_one_line_without_a_traceback(tmp_path):
    done = in_a_shell("-m", "jaxdiff", "sample", str(tmp_path / "nowhere"))
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"jaxdiff: .*nowhere.*\n", done.stderr)


def test_help_answers_without_the_heavy_libraries():
    code = """
import sys
from jaxdiff.app.cli import main
try:
    main(["--help"])
except SystemExit as done:
    print("code", done.code, [name for name in ("flax", "optax", "matplotlib", "sklearn") if name in sys.modules])
"""
    done = in_a_shell("-c", code)
    for command in ("train", "plan", "sample", "certify", "report", "sweep"):
        assert re.search(rf"^ +{command} ", done.stdout, flags=re.MULTILINE)
    assert done.stdout.splitlines()[-1] == "code 0 []"
