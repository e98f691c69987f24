"""Checkpoints and resume: the bits of a run that was not stopped, other runs are refused, signals, explosions."""

import functools
import os
import signal

import jax
import numpy as np
import pytest
from flax import nnx
from small_networks import InMemory, Plain

from jaxdiff import train
from jaxdiff.training import loop
from jaxdiff.training.batches import batch_rows
from jaxdiff.training.checkpoints import Checkpoints
from jaxdiff.training.resume import first_difference

pytestmark = pytest.mark.loose_promotion
ROWS = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
OPTIONS = {"steps": 60, "batch_size": 8, "held_out": ROWS[:20], "times": "importance", "learning_rate": 1e-2}


def fit(checkpoints=None, resume=False, rows=ROWS, seed=2, width=3, **changed):
    options = OPTIONS | changed
    network = Plain(width, nnx.Rngs(0))
    return train.fit(network, rows, jax.random.key(seed), checkpoints=checkpoints, resume=resume, **options)


@functools.cache
def plain():
    """A run without checkpoints."""
    return fit()


@functools.cache
def finished():
    """The checkpoint of a finished run."""
    kept = InMemory()
    fit(kept)
    return kept


def same(one, other):
    assert one.history == other.history
    jax.tree.map(np.testing.assert_array_equal, nnx.state(one.network), nnx.state(other.network))


@pytest.fixture
def every_block(monkeypatch):
    """Blocks of one step, and a checkpoint after each."""
    monkeypatch.setattr(loop, "BLOCK_SECONDS", 1e-9)
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)


def test_a_resumed_run_has_the_bits_of_a_whole_one(every_block):
    kept = InMemory()
    whole = fit(kept)
    same(whole, plain())
    assert kept.steps() == list(range(1, 61))
    for step in (3, 31):  # measurements lie at multiples of 3
        cut = InMemory()
        cut.kept = {at: kept.kept[at] for at in kept.steps() if at <= step}
        same(fit(cut, resume=True), whole)


def test_a_run_resumed_from_files_has_the_bits_of_a_whole_one(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "BLOCK_SECONDS", 1e-9)

    def press(measured, network):
        if measured["step"] == 12:
            os.kill(os.getpid(), signal.SIGTERM)

    with Checkpoints(tmp_path) as checkpoints, pytest.raises(train.Interrupted, match="after 12 steps"):
        fit(checkpoints, on_measure=press)
    assert Checkpoints(tmp_path).steps() == [12]
    with Checkpoints(tmp_path) as checkpoints:
        same(fit(checkpoints, resume=True), plain())
        checkpoints.wait()
        assert checkpoints.steps() == [12, 60]
    with pytest.raises(ValueError, match=r"belongs to another run: settings\.learning_rate was 0\.01, is 0\.02"):
        fit(Checkpoints(tmp_path), resume=True, learning_rate=0.02)


def test_checkpoints_of_a_folder_are_refused_to_several_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    checkpoints = Checkpoints(tmp_path)
    message = "Checkpoints is for a program of one process, and this one has 2"
    with pytest.raises(ValueError, match=message):  # before the first step
        fit(checkpoints, on_measure=lambda measured, network: pytest.fail("it trained"))
    with pytest.raises(ValueError, match=message):
        checkpoints.save(1, {"a": np.ones(2)})
    with pytest.raises(ValueError, match=message):
        checkpoints.restore({"a": np.ones(2)})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_first_and_the_resumed_run_has_the_bits_of_a_whole_one(monkeypatch, number):
    monkeypatch.setattr(loop, "BLOCK_SECONDS", 1e-9)
    kept, seen = InMemory(), []

    def press(measured, network):
        seen.append(measured)
        if measured["step"] == 12:
            os.kill(os.getpid(), number)

    with pytest.raises(train.Interrupted, match="after 12 steps") as caught:
        fit(kept, on_measure=press)
    assert caught.value.signal == number
    assert kept.steps() == [12]
    same(fit(kept, resume=True), plain())
    assert [row["step"] for row in seen] == [3, 6, 9, 12]
    assert all(row["steps_per_second"] > 0 and row["held_out_loss"] > 0 for row in seen)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"learning_rate": 2e-2}, "settings.learning_rate was 0.01, is 0.02"),
        ({"times": "log_snr"}, "settings.times was importance, is log_snr"),
        ({"rows": ROWS + 1}, "data.sha256"),
        ({"held_out": ROWS[20:40]}, "data.sha256"),
        ({"seed": 3}, r"key was \[0, 2\], is \[0, 3\]"),
        ({"rows": ROWS[:, :2], "held_out": ROWS[:20, :2], "width": 2}, "data.shape"),
        ({"resume": False}, "checkpoints of an earlier run, the last of step 60"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_with_the_difference(changed, says):
    with pytest.raises(ValueError, match=says):
        fit(finished(), **({"resume": True} | changed))


def test_another_network_is_refused():
    kept = InMemory()
    state, about, loss = finished().kept[60]
    kept.kept[60] = state, about | {"network": about["network"] | {"more": "float32[3]"}}, loss
    with pytest.raises(ValueError, match=r"network.more was float32\[3\], is None"):
        fit(kept, resume=True)
    with pytest.raises(ValueError, match="resume=True needs checkpoints="):
        fit(resume=True)


def test_differences_name_the_place():
    assert first_difference({"a": {"b": 1}, "c": 2}, {"a": {"b": 1}, "c": 2}) == ""
    assert first_difference({"a": {"b": 1}}, {"a": {"b": 3}}) == "a.b was 1, is 3"


def test_a_loss_that_explodes_names_step_batch_and_last_checkpoint(every_block):
    rows = ROWS.copy()
    key, bad = jax.random.key(2), None
    batches = [np.asarray(batch_rows(key, step, 50, 8)) for step in range(60)]
    for row in range(50):  # a row that first comes late
        first = next((step for step, batch in enumerate(batches) if row in batch), 0)
        bad = max(bad or (0, 0), (first, row))
    rows[bad[1]] = 1e30
    kept = InMemory()
    with pytest.raises(
        train.Exploded, match=rf"at step {bad[0]} of key \[0, 2\].* checkpoint is that of step {bad[0]}\."
    ):
        fit(kept, rows=rows)
    assert kept.steps()[-1] == bad[0] > 3
