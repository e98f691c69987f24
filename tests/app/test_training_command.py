"""jaxdiff train: what it refuses to replace, what it resumes, what it shows while it runs, and own networks."""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from flax import nnx

from jaxdiff import networks, runs
from jaxdiff.app import watching
from jaxdiff.app.cli import main
from jaxdiff.app.training_folder import TrainingFolder, read_metrics
from jaxdiff.training.checkpoints import Checkpoints
from jaxdiff.training.fit import fit

pytestmark = pytest.mark.loose_promotion

ROOT = pathlib.Path(__file__).parents[2]
TINY = ["--batch-size", "16", "--width", "16", "--depth", "1", "--watch-every", "0"]
OF_SIGTERM = 143  # 128 + 15, by the convention of shells
OWN = '''
from flax import nnx

class Shrinking(nnx.Module):
    """D(x, t) = s x with one number s."""

    def __init__(self, shape, rngs):
        self.scale = nnx.Param(0.5 * nnx.initializers.ones_init()(rngs.params(), ()))

    def __call__(self, x, t):
        return self.scale[...] * x

def nothing(shape):
    return 3

def needs(shape, colour):
    return 3
'''


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "rows.npy"
    np.save(path, np.random.default_rng(0).normal(size=(120, 3)))
    return path


def trained(capsys, *argv):
    """The exit code and the last line on standard error."""
    capsys.readouterr()
    code = main(["train", *map(str, argv)])
    lines = [line for line in capsys.readouterr().err.splitlines() if line and "%|" not in line]
    return code, lines[-1] if lines else ""


@pytest.fixture(scope="module")
def finished(table, tmp_path_factory):
    """A run of 50 steps."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with jax.numpy_dtype_promotion("standard"):
        assert main(["train", str(table), "--out", str(folder), "--steps", "50", *TINY]) == 0
    return folder


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_is_not_replaced_unless_that_is_asked_for(run, table, capsys):
    before = contents(run)
    code, told = trained(capsys, table, "--out", run, "--steps", 50, *TINY)
    assert code == 2
    assert f"{run} holds a run: go on with it by --resume, replace it by --overwrite, or choose another" in told
    assert contents(run) == before


def test_resume_with_other_settings_names_the_first_difference(run, table, capsys):
    before = contents(run)
    code, told = trained(capsys, table, "--out", run, "--steps", 60, *TINY, "--resume")
    assert code == 2
    assert "was trained with other settings: steps was 50, is 60. Give the same arguments to resume" in told
    assert contents(run) == before


def test_a_finished_run_is_left_as_it_is_by_resume(run, table, capsys):
    before = contents(run)
    assert main(["train", str(table), "--out", str(run), "--steps", "50", *TINY, "--resume"]) == 0
    assert f"{run} is finished: its 50 steps are done" in capsys.readouterr().out
    assert contents(run) == before


def test_a_run_of_an_earlier_version_is_not_resumed(run, table, capsys):
    shutil.rmtree(run / "training")
    code, told = trained(capsys, table, "--out", run, "--steps", 50, *TINY, "--resume")
    assert (code, "of an earlier version, which cannot be resumed: replace it by --overwrite" in told) == (2, True)


def test_damaged_settings_are_named(run, table, capsys):
    (run / "training" / "settings.json").write_text("{")
    code, told = trained(capsys, table, "--out", run, "--steps", 50, *TINY, "--resume")
    assert (code, "settings.json is damaged" in told) == (2, True)


def test_overwrite_gives_the_run_of_a_new_folder(run, table, capsys):
    assert trained(capsys, table, "--out", run, "--steps", 25, *TINY, "--seed", 3, "--overwrite")[0] == 0
    fresh = run.parent / "fresh"
    assert trained(capsys, table, "--out", fresh, "--steps", 25, *TINY, "--seed", 3)[0] == 0
    assert runs.load(run).model == runs.load(fresh).model
    assert [row["step"] for row in read_metrics(run)] == list(range(1, 26))


def leaves(folder):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(runs.load(folder).network))]


def test_a_training_that_was_stopped_goes_on_to_the_same_bits(finished, table, tmp_path, capsys, monkeypatch):
    """The loop asks whether a signal came after every block; it is told so once, at a step in the middle."""
    folder, asked = tmp_path / "run", []

    def once(*_, **__):
        asked.append(1)
        return signal.SIGTERM if len(asked) > 20 else False

    class Deferred:
        def __enter__(self):
            return once

        def __exit__(self, *_):
            return None

    monkeypatch.setattr("jaxdiff.interrupts.deferred", lambda **_: Deferred())
    argv = [table, "--out", folder, "--steps", 50, *TINY]
    code, told = trained(capsys, *argv)
    monkeypatch.undo()
    assert (code, "go on with the same command and --resume" in told) == (OF_SIGTERM, True)
    stopped = runs.load(folder).model["stopped_at"]
    assert 0 < stopped < 50
    with (folder / "metrics.jsonl").open("a") as stream:  # of a step beyond the checkpoint, and cut off
        stream.write(json.dumps({"step": stopped + 3, "train_loss": 7.0}) + '\\n{"step": 5')
    assert trained(capsys, *argv)[0] == 2  # without --resume
    assert trained(capsys, *argv, "--resume")[0] == 0
    assert runs.load(folder).model["stopped_at"] is None
    assert runs.load(folder).model["history"] == runs.load(finished).model["history"]
    assert all(map(np.array_equal, leaves(folder), leaves(finished)))
    steps = [row["step"] for row in read_metrics(folder)]
    assert steps == sorted(set(steps))
    assert steps[-1] == 50


def test_lines_of_metrics_have_the_losses_of_the_history(finished):
    rows = read_metrics(finished)
    for row, measured in zip(rows, runs.load(finished).model["history"], strict=True):
        assert {name: row[name] for name in measured} == measured
        assert row["steps_per_second"] > 0


def test_the_settings_are_kept_without_what_changes_no_bit(finished):
    settings = json.loads((finished / "training" / "settings.json").read_text())
    assert settings["steps"] == 50
    assert not {"out", "resume", "overwrite", "watch_every"} & settings.keys()
    assert Checkpoints(finished / "training" / "checkpoints").steps()[-1] == 50


def test_fit_with_checkpoints_resumes_to_the_same_bits(tmp_path, monkeypatch):
    rows = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
    network = lambda: networks.ResidualMLP(2, width=8, depth=1, rngs=nnx.Rngs(0))
    known = {"steps": 30, "batch_size": 8, "held_out": rows[:16]}
    whole = fit(network(), rows, jax.random.key(1), **known).network

    class Stop(Exception):
        pass

    def stops(measured, _):
        if measured["step"] > 10:
            raise Stop

    monkeypatch.setattr("jaxdiff.training.loop.SAVE_SECONDS", 0.0)
    with Checkpoints(tmp_path / "c") as checkpoints, pytest.raises(Stop):
        fit(network(), rows, jax.random.key(1), **known, checkpoints=checkpoints, on_measure=stops)
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert 0 < checkpoints.steps()[-1] < 30
        resumed = fit(network(), rows, jax.random.key(1), **known, checkpoints=checkpoints, resume=True).network
    of = lambda network: jax.tree.leaves(nnx.state(network))
    assert all(np.array_equal(a, b) for a, b in zip(of(whole), of(resumed), strict=True))


def test_pictures_are_drawn_every_so_many_steps_and_the_page_shows_the_last(table, tmp_path, capsys):
    folder = tmp_path / "run"
    argv = [table, "--out", folder, "--steps", 50, *TINY[:-1], 20]
    assert trained(capsys, *argv)[0] == 0
    names = sorted(path.name for path in (folder / "training").glob("*.png"))
    assert names == [f"{name}0000000{step}.png" for name in ("loss_curve_", "samples_") for step in (20, 40)]
    assert watching.newest(folder / "training", "samples_").name == "samples_000000040.png"
    for name in ("model.json", "data.npz"):  # as of a training that still runs
        (folder / name).unlink()
    assert main(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<img") == 3
    assert "The last measurement is at step 50 of 50" in page
    assert not list(folder.glob("training.png"))


def test_a_page_needs_a_training_or_a_report(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "has no metrics.jsonl and no report.json: make them with jaxdiff train" in capsys.readouterr().err


def test_a_network_of_the_user_goes_through_training_and_loading(table, tmp_path, capsys):
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")
    own, folder = f"{tmp_path / 'own.py'}:Shrinking", tmp_path / "run"
    argv = [table, "--out", folder, "--steps", 30, "--batch-size", 16, "--watch-every", 0]
    assert trained(capsys, *argv, "--network", own)[0] == 0
    assert "Shrinking, 1 parameters" in _described(folder, table, own, capsys)
    found = runs.load(folder).network
    assert found.scale[...].shape == ()
    (tmp_path / "own.py").rename(tmp_path / "moved.py")
    assert main(["plan", str(folder)]) == 2
    assert "own.py does not exist: give the file of the network by --network FILE.py:NAME" in capsys.readouterr().err
    moved = runs.load(folder, network=f"{tmp_path / 'moved.py'}:Shrinking").network
    assert np.array_equal(moved.scale[...], found.scale[...])
    for name, said in {
        "nothing": "must build a flax.nnx.Module",
        "needs": "Give its other arguments defaults",
        "absent": "has no function absent",
    }.items():
        bad = f"{tmp_path / 'moved.py'}:{name}"
        code, told = trained(capsys, table, "--out", tmp_path / name, "--network", bad)
        assert (code, said in told) == (2, True), told


def _described(folder, table, own, capsys):
    """What the command prints about the network."""
    capsys.readouterr()
    assert main(["train", str(table), "--out", f"{folder}2", "--steps", "2", "--network", own]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--network cnn", "--network must be one of mlp, unet, dit, or FILE.py:NAME: it is cnn"),
        ("--network unet", "--network unet is for images, and the data are rows of 3 columns: use mlp"),
        ("--watch-every -1", "watch_every = -1"),
        ("--network gone.py:f", "gone.py does not exist"),
        ("--network gone.py:f --width 3", "--width is for mlp, unet, dit"),
        ("--accumulate 0", "accumulate = 0"),
        ("--weight heavy", "heavy"),
        ("--ema-decay 2", "ema_decay = 2"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_a_sentence(words, said, table, tmp_path, capsys):
    code, told = trained(capsys, table, "--out", tmp_path / "run", "--steps", 4, *words.split())
    assert code == 2, told
    assert said in told


def test_a_batch_that_the_devices_do_not_divide_is_refused(table, tmp_path):
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
    command = [
        sys.executable,
        "-m",
        "jaxdiff",
        "train",
        str(table),
        "--out",
        str(tmp_path / "run"),
        "--batch-size",
        "6",
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment() | {"XLA_FLAGS": flags}, timeout=200
    )
    assert done.returncode == 2, done.stderr[-2000:]
    assert "the 4 devices of axis 'batch' do not divide batch_size = 6: use a multiple of 4, such as 8." in done.stderr


def environment():
    plain = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    return plain | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}


def newest(folder):
    """The step of the last checkpoint of a run; 0 if there is none."""
    names = (folder / "training" / "checkpoints").glob("step_*")
    return max((int(path.name.removeprefix("step_")) for path in names), default=0)


def signalled(command, folder, number, wait, when):
    """Start a command, wait until `when(folder)` and then `wait` seconds, send a signal; returns the exit code."""
    limit = time.monotonic() + 200
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()) as process:
        while not when(folder) and process.poll() is None:
            assert time.monotonic() < limit, "the training did not start"
            time.sleep(0.01)
        time.sleep(wait)
        process.send_signal(number)
    return process.returncode


OFTEN = "import sys; from jaxdiff.training import loop; loop.SAVE_SECONDS = 0.1; from jaxdiff.app.cli import program; "


@pytest.fixture(scope="module")
def long_run(table, tmp_path_factory):
    """The command of a training of 4,000 steps that saves ten times a second, and its result when it is left alone."""
    folder = tmp_path_factory.mktemp("long") / "run"

    def command(folder):
        argv = ["jaxdiff", "train", str(table), "--out", str(folder), "--steps", "4000", *TINY, "--resume"]
        return [sys.executable, "-c", f"{OFTEN}sys.argv = {argv!r}; program()"]

    done = subprocess.run(command(folder), capture_output=True, text=True, env=environment(), timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return command, folder


# Ten kills at random moments: before the first checkpoint, while one is written, and while the run itself is written.
@pytest.mark.slow
def test_kill_9_at_ten_random_moments_changes_no_bit_of_the_run(long_run, tmp_path):
    command, whole = long_run
    moments, folder, codes = random.Random(2), tmp_path / "run", []
    for _ in range(10):
        before = newest(folder)
        started = lambda folder, before=before: newest(folder) > before
        codes.append(signalled(command(folder), folder, signal.SIGKILL, 0.3 * moments.random(), started))
    assert codes.count(-signal.SIGKILL) >= 5  # the others had finished
    done = subprocess.run(command(folder), capture_output=True, text=True, env=environment(), timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert all(map(np.array_equal, leaves(folder), leaves(whole)))
    assert runs.load(folder).model["history"] == runs.load(whole).model["history"]


@pytest.mark.slow
def test_sigterm_saves_first_and_exits_with_143(long_run, tmp_path):
    command, whole = long_run
    folder = tmp_path / "run"
    code = signalled(command(folder), folder, signal.SIGTERM, 0.1, lambda folder: newest(folder) > 0)
    assert code == OF_SIGTERM
    stopped = runs.load(folder).model["stopped_at"]
    assert newest(folder) == stopped
    done = subprocess.run(command(folder), capture_output=True, text=True, env=environment(), timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert all(map(np.array_equal, leaves(folder), leaves(whole)))


def test_numbers_that_are_not_finite_are_null_in_the_metrics(tmp_path):
    folder = TrainingFolder(tmp_path, {})
    folder.add_metrics({"step": 1, "train_loss": 2.0, "held_out_loss": float("nan"), "other": float("inf")})
    assert read_metrics(tmp_path) == [{"step": 1, "train_loss": 2.0, "held_out_loss": None, "other": None}]
