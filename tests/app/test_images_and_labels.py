"""Images, labels and guidance through the four commands."""

import functools
import json
import re
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from matplotlib import image

import jaxdiff
from jaxdiff import data, runs
from jaxdiff.app import comparison, networks, run_samples
from jaxdiff.app.cli import main
from jaxdiff.planning import w2_plan

TRAINING = ["--steps", "12", "--batch-size", "16", "--width", "16", "--depth", "1", "--watch-every", "6"]
DIT = ["--network", "dit"]  # it is compiled in a third of the time of a U-Net
CLASSES = ("dark", "light", "mixed")


def made_smaller(monkeypatch):
    """Fewer particles, samplers and searches."""
    monkeypatch.setattr(w2_plan, "PILOTS", 16)
    monkeypatch.setattr(w2_plan, "CERTIFYING", 16)
    monkeypatch.setattr(w2_plan, "FITTED_KERNELS", 1)
    monkeypatch.setattr(comparison, "PARTICLES", 24)
    monkeypatch.setattr(comparison, "compare", lambda *_, **__: [])
    monkeypatch.setattr(comparison, "quality", functools.partial(comparison.quality, evals=()))
    monkeypatch.setattr("jaxdiff.app.quality.REFERENCE_STEPS", 40)
    for name, value in {"GENERATIONS": 1, "KERNELS": (("unipc", {"order": 2}),)}.items():
        monkeypatch.setattr(f"jaxdiff.planning.w2_candidates.{name}", value)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    made_smaller(monkeypatch)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of PNG images of three classes, 8 x 8 pixels in colour."""
    from PIL import Image

    folder, rng = tmp_path_factory.mktemp("images") / "squares", np.random.default_rng(0)
    for name, (low, high) in zip(CLASSES, ((0, 90), (150, 255), (0, 255)), strict=True):
        (folder / name).mkdir(parents=True)
        for i in range(24):
            pixels = rng.integers(low, high, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:02d}.png")
    return folder


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "squares"
    with jax.numpy_dtype_promotion("standard"):
        assert main(["train", str(images), "--out", str(folder), *TRAINING, *DIT]) == 0
    return folder


@pytest.fixture(scope="module")
def planned(trained, tmp_path_factory):
    folder = shutil.copytree(trained, tmp_path_factory.mktemp("planned") / "squares")
    with pytest.MonkeyPatch.context() as patch:
        made_smaller(patch)
        assert main(["plan", str(folder), "--evals", "4", "--guidance", "1.5"]) == 0
    return folder


@pytest.fixture
def run(planned, tmp_path):
    return shutil.copytree(planned, tmp_path / "run")


def said(capsys, *argv):
    capsys.readouterr()
    assert main([str(word) for word in argv]) == 0, capsys.readouterr().err[-2000:]
    return capsys.readouterr().out


def refused(capsys, *argv):
    capsys.readouterr()
    assert main([str(word) for word in argv]) == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_a_folder_of_images_has_its_subfolders_as_classes(trained):
    run = runs.load(trained)
    assert type(run.network).__name__ == "DiT"
    assert (run.event_shape, run.classes) == ((8, 8, 3), CLASSES)
    assert run.model["pixels"] == {"low": 0.0, "high": 255.0, "dtype": "uint8", "channel_added": False}
    assert run.dataset.train.shape == (48, 192)
    assert np.abs(run.dataset.train).max() <= 1
    picture = image.imread(next((trained / "training").glob("samples_*.png")))
    assert np.ptp(picture[..., :3], axis=-1).max() > 0.2  # in colour


@pytest.mark.parametrize(
    ("shape", "multipliers"),
    [((8, 8, 3), [1, 2]), ((32, 32, 1), [1, 2, 2, 2]), ((6, 8, 1), [1]), ((12, 20, 3), [1, 2])],
)
def test_images_get_a_unet_whose_lowest_level_has_four_pixels_or_more(shape, multipliers):
    images = data.load(np.random.default_rng(0).random((30, *shape)), labels=np.arange(30) % 3)
    options = SimpleNamespace(no_labels=False, network=None, dropout=0.0, seed=0, width=8, depth=None)
    record = networks.record_of(options, images)
    assert (record["kind"], record["multipliers"], record["n_classes"]) == ("unet", multipliers, 3)
    network = networks.build(images, record)
    again = networks.build(images, record, shape=shape, moments=False)  # as of a checkpoint
    of = lambda one: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), nnx.state(one))
    assert jax.tree.leaves(of(network)) == jax.tree.leaves(of(again))


def test_the_plan_is_that_of_the_guided_denoiser(planned):
    run, plan = runs.load(planned), json.loads((planned / "plan.json").read_text())
    assert plan["guidance"] == 1.5
    kept, plain = runs.measured(run, "held_out"), runs.measure(run, "held_out")
    guided = runs.measure(run, "held_out", guidance=1.5)
    apart = lambda one: np.abs(one.losses / guided.losses - 1).max()
    assert apart(plain) > 1e-4  # after twelve steps labels have little effect
    assert apart(kept) < 0.01 * apart(plain)


# u + w (c - u) at the same rows and labels, by two calls of the network.
def test_a_guided_denoiser_of_a_run_is_the_formula(trained):
    run = runs.load(trained)
    rows, labels = jnp.asarray(run.dataset.test), run.labels("test")
    events = rows.reshape(-1, 8, 8, 3)
    found = run.denoiser(labels, 1.5)(rows, 0.4)
    both = [run.network(events, np.float32(0.4), own).reshape(rows.shape) for own in (labels, None)]
    np.testing.assert_allclose(found, both[1] + 1.5 * (both[0] - both[1]), atol=2e-5)
    np.testing.assert_allclose(run.denoiser(labels)(rows, 0.4), both[0], atol=2e-5)


def test_samples_are_images_of_the_files_type_and_have_their_labels(run, capsys):
    told = said(capsys, "sample", run, "-n", 40)
    assert "40 samples, 5 evaluations of two networks each" in told
    samples, labels = np.load(run / "samples.npy"), np.load(run / "samples_labels.npy")
    assert (samples.shape, samples.dtype) == ((40, 8, 8, 3), np.uint8)
    counts = np.array([np.sum(labels == name) for name in CLASSES])
    assert np.abs(counts - 40 / 3).max() < 2.5  # as many train rows of each class, to a few
    assert (run / "samples.png").stat().st_size > 10_000
    one = said(capsys, "sample", run, "-n", 6, "--label", "light", "--guidance", 1, "--out", run.parent / "x.npy")
    assert "6 samples, 5 evaluations each" in one
    assert "This is not the sampler of the plan" in one
    assert np.load(run.parent / "x_labels.npy").tolist() == ["light"] * 6
    assert "samples are images of shape (8, 8, 3): give a .npy file" in refused(
        capsys, "sample", run, "--out", run.parent / "x.csv"
    )


def test_a_sample_does_not_depend_on_the_parts_or_on_other_labels(run):
    found, plan = runs.load(run), runs.load_plan(runs.load(run))
    chosen, labels = run_samples.chosen(found, plan), run_samples.labels_of(found)
    drawn = lambda n, at_once: np.concatenate(
        list(run_samples.parts(found, chosen, n, 0, labels=labels, at_once=at_once))
    ).astype(int)
    whole = drawn(10, 10)
    assert np.abs(drawn(10, 4) - whole).max() <= 1  # of 255
    assert np.abs(drawn(7, 7) - whole[:7]).max() <= 1


def test_labels_that_were_never_seen_and_guidance_without_labels_are_refused(run, tmp_path, capsys):
    told = refused(capsys, "sample", run, "--label", "purple")
    assert "label must be one of the 3 classes dark, light, mixed: it is purple" in told
    assert "guidance = nan" in refused(capsys, "sample", run, "--guidance", "nan")
    with jax.numpy_dtype_promotion("standard"):
        rows = tmp_path / "rows.npy"
        np.save(rows, np.random.default_rng(0).normal(size=(60, 2)))
        assert main(["train", str(rows), "--out", str(tmp_path / "rows"), *TRAINING]) == 0
    unlabelled = tmp_path / "rows"
    assert "guidance = 2 needs a network that takes labels" in refused(capsys, "plan", unlabelled, "--guidance", 2)
    said(capsys, "plan", unlabelled, "--metric", "kl", "--evals", 3)
    assert "--label a needs a network that takes labels" in refused(capsys, "sample", unlabelled, "--label", "a")
    assert "--guidance needs a run folder" in refused(capsys, "plan", "--dim", 3, "--evals", 4, "--guidance", 2)


def test_the_report_says_how_many_samples_have_the_label_asked_for(run, capsys):
    said(capsys, "sample", run, "-n", 40)
    told = said(capsys, "certify", run)
    report = json.loads((run / "report.json").read_text())
    share = report["labels"]
    assert 0 <= share["asked"] <= 1
    assert share["test_rows"] > 0.6  # dark, light and mixed squares are easily told apart
    assert f"gives {share['asked']:.1%} ± " in told
    assert report["plan"]["guidance"] == 1.5
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.count("<img") == 4
    said(capsys, "report", run)
    again = (run / "report.html").read_text(encoding="utf-8")
    assert again.count("<img") == 4 + 3
    assert "<h2>Training</h2>" in again


def test_load_gives_the_functions_of_images_and_of_labels(trained):
    model = jaxdiff.load(trained)
    run = runs.load(trained)
    images = jnp.asarray(run.dataset.test[:4].reshape(-1, 8, 8, 3))
    labels = run.labels("test")[:4]
    assert model.class_names == CLASSES
    np.testing.assert_allclose(model.denoiser(images, 0.3), run.network(images, np.float32(0.3)), atol=1e-6)
    conditional = run.network(images, np.float32(0.3), labels)
    np.testing.assert_allclose(model.conditional(labels).denoiser(images, 0.3), conditional, atol=1e-6)
    pixels = model.undo(images)
    np.testing.assert_allclose(pixels, 127.5 + 127.5 * np.asarray(images), atol=1e-3)
    np.testing.assert_allclose(model.standardise(pixels), images, atol=1e-5)


@pytest.mark.slow
def test_a_second_real_data_set_goes_through_the_four_commands(tmp_path, capsys, monkeypatch):
    monkeypatch.undo()  # nothing is made smaller
    monkeypatch.chdir(tmp_path)
    with jax.numpy_dtype_promotion("standard"):
        told = said(capsys, "train", "wine", "--steps", 400, "--batch-size", 64)
    assert "119 train, 29 held-out, 30 test rows of 13 columns" in told
    assert "conditional on 3 classes" in told
    said(capsys, "plan", "runs/wine", "--evals", 6)
    said(capsys, "sample", "runs/wine", "-n", 300)
    samples, labels = np.load("runs/wine/samples.npy"), np.load("runs/wine/samples_labels.npy")
    assert samples.shape == (300, 13)
    assert set(labels) == {"class_0", "class_1", "class_2"}
    from sklearn import datasets

    rows = datasets.load_wine().data
    assert np.abs((samples.mean(0) - rows.mean(0)) / rows.std(0)).max() < 0.5
    told = said(capsys, "certify", "runs/wine")
    assert re.search(r"A logistic regression of train rows gives \d", told)
    page = tmp_path / "runs" / "wine" / "report.html"
    assert page.stat().st_size > 100_000
