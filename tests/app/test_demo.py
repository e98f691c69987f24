"""The main job on the digits, by the commands of `make demo`, under default JAX settings."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The run folder after the four commands."""
    folder = tmp_path_factory.mktemp("demo") / "digits"
    plain = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment = plain | {"PYTHONPATH": str(ROOT)}
    for words in (["train", "digits", "--out", folder], ["plan", folder], ["sample", folder], ["certify", folder]):
        command = [sys.executable, "-m", "jaxdiff", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
        assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.mark.slow
def test_the_demo_leaves_its_files_and_reaches_its_targets(run):
    names = {path.name for path in run.iterdir()}
    pictures = {"samples.png", "quality.png", "loss_curve.png", "grids.png"}
    assert names >= pictures | {"checkpoint", "samples.npy", "report.json", "report.html"}
    assert np.load(run / "samples.npy", allow_pickle=False).shape == (1000, 64)
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    (evals, *planned), *named = [(row["n_steps"], row["kernel"], row["grid"]) for row in report["rows"]]
    assert (evals, planned) == (8, ["moment_matched_per_direction", "planned"])  # of least path KL
    samplers = [named_as for _, *named_as in named[:6]]
    assert [tuple(row) for row in named] == [(n, *sampler) for n in (10, 20, 50, 200) for sampler in samplers]
    rows = {(row["kernel"], row["grid"], row["n_steps"]): row for row in report["rows"]}
    excess = lambda *sampler: rows[sampler]["excess"]["value"]
    assert excess("ancestral", "planned", 20) <= 0.6 * excess("ancestral", "Benton", 20)
    assert excess("moment_matched", "planned", 20) <= excess("exponential_euler", "Benton", 20) / 20
    apart = "moment_matched_per_direction"
    assert excess(apart, "planned", 20) <= excess("exponential_euler", "Benton", 20) / 25
    assert all(excess(apart, "planned", n) < excess("moment_matched", "planned", n) for n in (10, 20, 50, 200))
    assert report["step_ratio"]["ratio"] >= 25
    worst = report["noise_floor"]["accuracy"]["value"] + 0.25  # the samples are digits, not noise: noise is told at 1.0
    assert rows["moment_matched", "planned", 200]["accuracy"]["value"] < worst
    in_quality = {(row["sampler"], row["evals"]): row for row in report["quality"]}
    ours, reference = in_quality["the plan", 8], in_quality["unipc", 1000]
    for measure in ("sliced_w2", "accuracy", "energy_distance"):
        error = np.hypot(ours[measure]["standard_error"], reference[measure]["standard_error"])
        assert ours[measure]["value"] <= reference[measure]["value"] + error
        assert ours[measure]["value"] < in_quality["DDIM, log snr grid", 8][measure]["value"]
    terms = {term["name"]: term["value"] for term in report["certificate_w2"]["terms"]}
    assert terms["reference"] < 0.1 * terms["discretisation"]
    assert terms["discretisation"] < 1
