"""jaxdiff plan in W2: for a run, whose plan sample and certify then use, and for a model from elsewhere."""

import functools
import json
import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxdiff import data, kernels, processes, runs
from jaxdiff.app import comparison, run_samples, saving
from jaxdiff.app.cli import main
from jaxdiff.planning import w2_plan

MODEL = """
import jax.numpy as jnp

def noise(y, t):  # N(0, 1) in two dimensions under EDM's clock: X_t has the variance 1 + t^2
    return t * y / (1 + t**2)

def wide(y, t):
    return y * jnp.ones(3)
"""


@pytest.fixture
def few(monkeypatch):
    """Fewer particles and shorter searches."""
    monkeypatch.setattr(w2_plan, "PILOTS", 32)
    monkeypatch.setattr(w2_plan, "CERTIFYING", 32)
    monkeypatch.setattr(w2_plan, "FITTED_KERNELS", 1)
    monkeypatch.setattr(comparison, "PARTICLES", 40)
    for name, value in {"GENERATIONS": 1, "KERNELS": (("unipc", {"order": 2}), ("moment_matched", {}))}.items():
        monkeypatch.setattr(f"jaxdiff.planning.w2_candidates.{name}", value)


@pytest.fixture
def trained(tmp_path):
    """A run of an untrained network of three columns."""
    dataset = data.split(np.random.default_rng(0).normal(size=(120, 3)), name="rows")
    network = {"width": 16, "depth": 1, "dropout": 0.0, "seed": 0}
    model = {"horizon": 4.0, "early_stop": 0.01, "seed": 3, "image_shape": None, "network": network, "history": []}
    saving.save(tmp_path / "run", model, dataset, runs.build(dataset, network))
    return tmp_path / "run"


def said(capsys, *argv):
    capsys.readouterr()
    assert main([str(word) for word in argv]) == 0
    return capsys.readouterr().out


def test_a_run_is_planned_for_its_samples_and_certified_both_ways(few, trained, capsys, monkeypatch):
    monkeypatch.setattr(comparison, "compare", lambda *_, **__: [])
    monkeypatch.setattr(comparison, "quality", functools.partial(comparison.quality, evals=(3,)))
    plan = json.loads(said(capsys, "plan", trained, "--evals", 4, "--json"))
    assert (plan["metric"], plan["kernel"], plan["options"], plan["evals"]) == ("w2", "unipc", {"order": 2}, 4)
    assert plan["predicted_kl"] is None
    assert plan["predicted_w2"] > 0.1  # early stopping alone costs sqrt(2 * 0.01 * 3)
    assert plan["path_kl_plan"]["kernel"] == "moment_matched"
    assert plan["path_kl_plan"]["evals"] == 4
    assert "20 samples, 5 evaluations each" in said(capsys, "sample", trained, "-n", 20)
    other = said(capsys, "sample", trained, "-n", 20, "--evals", 7, "--out", trained.parent / "x.npy")
    assert "20 samples, 8 evaluations each" in other
    run = runs.load(trained)
    kernel = run_samples.chosen(run, runs.load_plan(run)).sampler.kernel
    orders = [kernels.unipc(kernel.score, order) for order in (2, 3)]
    grid = np.array(plan["grid"])
    agree = [all(map(np.array_equal, kernel.coefficients(grid), one.coefficients(grid))) for one in orders]
    assert agree == [True, False]
    told = said(capsys, "certify", trained)
    report = json.loads((trained / "report.json").read_text(encoding="utf-8"))
    assert "W2(data, unipc in 4 steps), W2" in told
    assert "KL(q_0.01 || moment_matched), nats" in told
    found = {(row["sampler"], row["evals"]) for row in report["quality"]}
    plans = {(name, n) for n in (3, 4) for name in ("the plan", "least path KL")}
    assert plans | {("unipc", 1000), ("ancestral", 1000)} <= found
    page = (trained / "report.html").read_text(encoding="utf-8")
    assert page.index("Certificate of the samples in W2") < page.index("Path KL")
    assert page.count("<img") == 4
    units = re.search(r"In the units of the data the known terms of the W2 distance are (\S+) together", told)
    assert float(units[1]) > 0


def test_the_certificate_in_the_datas_units_is_that_of_scaled_columns(few, trained, monkeypatch):
    run = runs.load(trained)
    said_twice = []
    monkeypatch.setattr(comparison, "certificates_w2", lambda *_, **known: said_twice.append(known["scales"]))
    subject = SimpleNamespace(of_plan=lambda: None)
    monkeypatch.setattr(comparison.dataclasses, "replace", lambda *_, **__: subject)
    comparison._in_w2(run, None, 0.95)
    one, scale = said_twice[0]
    assert one == 1.0
    np.testing.assert_array_equal(scale, run.dataset.scale)


@pytest.fixture
def model(tmp_path):
    (tmp_path / "model.py").write_text(MODEL, encoding="utf-8")
    return f"{tmp_path / 'model.py'}:noise"


# On N(0, I) the sampler's law is exact up to discretisation, and sigmas run from noise to data.
def test_a_model_from_elsewhere_gets_its_grid_in_its_own_times(few, model, tmp_path, capsys):
    np.save(tmp_path / "rows.npy", np.random.default_rng(1).normal(size=(30, 2)))
    argv = ["plan", "--model", model, "--clock", "edm", "--predicts", "noise", "--dim", 2, "--evals", 4]
    told = said(capsys, *argv, "--data", tmp_path / "rows.npy", "--out", tmp_path / "out")
    record = json.loads((tmp_path / "out" / "plan.json").read_text(encoding="utf-8"))
    np.testing.assert_allclose(record["times"], np.sqrt(np.expm1(2 * np.array(record["grid"]))), rtol=1e-6)
    assert "times of edm, from noise to data: [" in told
    assert "rounding to whole rows" not in told


def test_rows_of_a_table_are_whole_and_the_cost_of_rounding_is_told(few, tmp_path, capsys):
    table = "import jax.numpy as jnp\nfrom jaxdiff import processes\n"
    table += "f = processes.model_from_score(lambda x, t: -x, processes.ddpm(), 'noise')\n"
    (tmp_path / "table.py").write_text(table, encoding="utf-8")
    argv = ["plan", "--model", f"{tmp_path}/table.py:f", "--clock", "ddpm", "--predicts", "noise", "--dim", 2]
    told = said(capsys, *argv, "--evals", 3)
    rows = json.loads(re.search(r"from noise to data: (\[.*\])", told)[1])
    assert all(isinstance(row, int) for row in rows)
    assert len(rows) == 4
    assert re.search(r"rounding to whole rows: the distance from the reference was \S+ before, and is \S+ after", told)


def test_velocity_is_what_rectified_flow_predicts(few, tmp_path, capsys):
    (tmp_path / "flow.py").write_text("u = lambda y, t: (2 * t - 1) / (t**2 + (1 - t) ** 2) * y\n", encoding="utf-8")
    argv = ["plan", "--model", f"{tmp_path}/flow.py:u", "--clock", "flow", "--predicts", "velocity", "--dim", 2]
    plan = json.loads(said(capsys, *argv, "--evals", 6, "--json"))
    terms = {term["name"]: term["value"] for term in plan["certificate"]["terms"]}
    assert terms["discretisation"] < 0.02  # this velocity is that of N(0, I), which every flow keeps
    assert plan["clock"] == "flow"
    assert max(plan["times"]) < 1
    assert jax.numpy.all(jax.numpy.diff(jax.numpy.asarray(plan["times"])) < 0)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--model {model} --clock edm --dim 2", "a plan for --model needs --predicts"),
        ("--model {model} --dim 2", "needs --clock and --predicts"),
        ("--clock edm --dim 2 --evals 4", "--clock needs --model"),
        ("--model {model} --clock edm --predicts noise --dim 2 --metric kl", "leave --metric kl out"),
        ("--model {model} --clock edm --predicts noise --dim 2 --target-kl 1", "takes no --target-kl"),
        ("--model {model}x --clock edm --predicts noise --dim 2", "has no function noisex"),
        ("--model {wide} --clock edm --predicts noise --dim 2", "cannot be evaluated at y of shape (n, 2)"),
        ("--model {model} --clock edm --predicts noise --dim 2 --data {rows}", "must hold rows (n, 2)"),
        ("--model {model} --clock ddpm --predicts noise --dim 2 --early-stop 1e-9", "early_stop must lie between"),
        ("--dim 2 --evals 4 --metric w2", "a plan in W2 runs samplers"),
        ("{run} --target-w2 1 --metric kl", "--target-w2 needs --metric w2"),
        ("{run} --target-w2 0.01", "target_w2 = 0.01 is not above"),
        ("{run} --model {model}", "leave"),
    ],
)
def test_what_cannot_be_planned_is_told_in_one_sentence(few, words, told, model, trained, tmp_path, capsys):
    np.save(tmp_path / "rows.npy", np.zeros((20, 5)))
    places = {"model": model, "wide": model.replace(":noise", ":wide"), "rows": tmp_path / "rows.npy", "run": trained}
    assert main(["plan", *words.format(**places).split()]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "%|" not in line]
    assert told in lines[-1]
    assert not (trained / "plan.json").exists()
    assert processes.edm.name == "edm"
