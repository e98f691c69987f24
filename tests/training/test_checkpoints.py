"""Checkpoints: what is saved comes back, damage is refused by name, a killed process costs at most its last save."""

import errno
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.training.checkpoints import Checkpoints

ROOT = pathlib.Path(__file__).parents[2]


def state_of(step):
    """A state of every kind of leaf. It is a function of the step alone, by NumPy's generator."""
    draw = np.random.default_rng(step)
    return {
        "network": {"kernel": jnp.asarray(draw.normal(size=(5, 3)), jnp.float32), "none": {}},
        "half": jnp.asarray(draw.normal(size=7), jnp.bfloat16),
        "count": jnp.asarray(step, jnp.int32),
        "key": jax.random.key(step),
        "old_key": jnp.asarray(draw.integers(0, 2**32, 2), jnp.uint32),
        "losses": (draw.normal(size=4), None, []),
        "empty": jnp.zeros((0, 3), jnp.float32),
        "flag": bool(step % 2),
        "step": step,
        "loss": step / 3,
    }


def same(one, other):
    """Whether two states have one tree, the same types of leaves, and the same bits."""
    if jax.tree.structure(one) != jax.tree.structure(other):
        return False
    return all(map(same_leaf, jax.tree.leaves(one), jax.tree.leaves(other)))


def same_leaf(one, other):
    if type(one) is not type(other):
        return False
    if not hasattr(one, "dtype"):
        return one == other
    if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
        one, other = jax.random.key_data(one), jax.random.key_data(other)
    one, other = np.asarray(one), np.asarray(other)
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A folder with the checkpoints 10, 20, 30, which no test changes."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    with Checkpoints(folder) as checkpoints:
        for step in (10, 20, 30):
            checkpoints.save(step, state_of(step), about={"rate": step / 7})
    return folder


@pytest.fixture
def folder(kept, tmp_path):
    return shutil.copytree(kept, tmp_path / "checkpoints")


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_kind_of_leaf_comes_back_with_its_bits_and_type(kept):
    checkpoints = Checkpoints(kept)
    assert checkpoints.steps() == [10, 20, 30]
    for step in (10, 20, 30):
        assert checkpoints.about(step) == {"rate": step / 7}
        found, state = checkpoints.restore(state_of(1), step)
        assert found == step
        assert same(state, state_of(step))
    assert checkpoints.restore(state_of(1))[0] == 30
    assert not same(state_of(10), state_of(20))


def test_leaves_take_the_precision_and_the_device_of_the_given_state(kept):
    like = state_of(1)
    like["half"], like["network"]["kernel"] = like["half"].astype(jnp.float32), np.zeros((5, 3))
    sharding = jax.sharding.NamedSharding(jax.make_mesh((1,), ("x",)), jax.sharding.PartitionSpec("x"))
    like["old_key"] = jax.device_put(like["old_key"], sharding)
    state = Checkpoints(kept).restore(like, 20)[1]
    assert state["half"].dtype == jnp.float32
    assert np.array_equal(np.asarray(state["half"]), np.asarray(state_of(20)["half"]).astype(np.float32))
    assert isinstance(state["network"]["kernel"], np.ndarray)
    assert state["network"]["kernel"].dtype == np.float64
    assert state["old_key"].sharding == sharding


def test_arrays_may_be_donated_and_overwritten_once_save_returns(tmp_path):
    overwrite = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    device, host = jnp.arange(500_000, dtype=jnp.float32), np.arange(500_000.0)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"device": device, "host": host})
        after = overwrite(device)
        host[:] = -1
        assert after[3] == -1
    assert device.is_deleted()
    state = checkpoints.restore({"device": after, "host": host})[1]
    assert np.array_equal(np.asarray(state["device"]), np.arange(500_000, dtype=np.float32))
    assert np.array_equal(state["host"], np.arange(500_000.0))


def test_the_last_three_and_the_best_are_kept(tmp_path):
    losses = {1: 0.5, 2: 0.2, 3: float("nan"), 4: 0.2, 5: 0.9, 6: 0.8, 7: 0.7}
    with Checkpoints(tmp_path / "a") as checkpoints:
        assert (checkpoints.steps(), checkpoints.best()) == ([], None)
        for step, loss in losses.items():
            checkpoints.save(step, {"x": np.ones(2)}, held_out_loss=loss)
        checkpoints.wait()
        assert (checkpoints.steps(), checkpoints.best()) == ([2, 5, 6, 7], 2)
        checkpoints.save(8, {"x": np.ones(2)}, held_out_loss=0.1)
        checkpoints.wait()
        assert (checkpoints.steps(), checkpoints.best()) == ([6, 7, 8], 8)
    with Checkpoints(tmp_path / "b", keep=1) as checkpoints:
        for step in (4, 2):
            checkpoints.save(step, {"x": np.full(2, step)})
    assert checkpoints.steps() == [2, 4], "a checkpoint that was just saved is never removed"
    assert not list(tmp_path.rglob(".*"))


def test_a_step_that_is_saved_again_replaces_the_older_checkpoint(folder):
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(20, {"other": np.arange(3)}, about={"new": True})
    assert checkpoints.steps() == [10, 20, 30]
    assert np.array_equal(checkpoints.restore({"other": np.zeros(3, int)}, 20)[1]["other"], np.arange(3))


def truncated(path):
    path.write_bytes(path.read_bytes()[:-1])


def flipped(path):
    old = bytearray(path.read_bytes())
    old[len(old) // 2] ^= 1
    path.write_bytes(old)


@pytest.mark.parametrize("damage", [truncated, flipped, pathlib.Path.unlink])
def test_damage_to_any_file_is_refused_by_name_and_the_step_before_is_offered(folder, damage):
    last = folder / "step_000000030"
    names = [path for path in contents(last) if (last / path).stat().st_size]
    assert len(names) > 4
    checkpoints = Checkpoints(folder)
    for name in names:
        before = (last / name).read_bytes()
        damage(last / name)
        with pytest.raises(ValueError, match="because its file") as caught:
            checkpoints.restore(state_of(1))
        assert f"checkpoint 30 in {folder} cannot be used" in str(caught.value), name
        assert "Checkpoint 20 is good: use step=20." in str(caught.value), name
        with pytest.raises(ValueError, match="checkpoint 30 in"):
            checkpoints.about(30)
        (last / name).write_bytes(before)
    assert same(checkpoints.restore(state_of(1))[1], state_of(30))


def test_the_offer_passes_over_damaged_checkpoints(folder):
    checkpoints = Checkpoints(folder)
    for step in (20, 30):
        flipped(folder / f"step_{step:09d}" / "record.json")
    with pytest.raises(
        ValueError, match=r"checkpoint 30 .* Checkpoint 10 is good: use step=10\. Or leave resume= out\.$"
    ):
        checkpoints.restore(state_of(1))
    flipped(folder / "step_000000010" / "sha256")
    with pytest.raises(ValueError, match=r"No other checkpoint there is usable\. Or leave resume= out\.$"):
        checkpoints.restore(state_of(1))


def altered(**changes):
    return state_of(1) | changes


@pytest.mark.parametrize(
    ("told", "like"),
    [
        ("half has shape (7,) in the checkpoint, (8,) is expected", altered(half=jnp.zeros(8))),
        ("count holds int32 in the checkpoint, float32 is expected", altered(count=jnp.zeros((), jnp.float32))),
        ("leaf zz is missing in the checkpoint", altered(zz=1)),
        ("leaf count of the checkpoint is where cold is expected", altered(cold=1)),
        ("leaf step of the checkpoint is not expected", {k: v for k, v in state_of(1).items() if k != "step"}),
        ("key holds key<fry> in the checkpoint, key<rbg> is expected", altered(key=jax.random.key(0, impl="rbg"))),
    ],
)
def test_a_foreign_checkpoint_is_refused_by_its_first_different_leaf(kept, told, like):
    with pytest.raises(ValueError, match=re.escape(f"cannot be used, because {told}. No other checkpoint")):
        Checkpoints(kept).restore(like)


def test_what_is_not_there_or_cannot_be_saved_is_told(kept, tmp_path):
    for step, told in ((15, "no checkpoint of step 15: those of steps 10, 20, 30 are there."),):
        with pytest.raises(ValueError, match=re.escape(f"{kept} holds {told}")):
            Checkpoints(kept).restore(state_of(1), step)
    with pytest.raises(ValueError, match="holds no checkpoint: start the training without"):
        Checkpoints(tmp_path / "none").restore(state_of(1))
    with pytest.raises(ValueError, match="keep must be at least 1, the last checkpoint: keep = 0"):
        Checkpoints(tmp_path, keep=0)
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(ValueError, match=r"a\.b is a str: a checkpoint holds arrays, JAX keys and numbers"):
            checkpoints.save(1, {"a": {"b": "text"}})
        with pytest.raises(ValueError, match="step must be at least 0: step = -1"):
            checkpoints.save(-1, {})
        with pytest.raises(ValueError, match=r"about\.rate is nan"):
            checkpoints.save(1, {}, about={"rate": float("nan")})
    assert checkpoints.steps() == []


# 100 bytes stop Orbax's first file, 12,000 its data.
@pytest.mark.parametrize("limit", [100, 12_000])
def test_a_disk_that_fills_up_costs_no_older_checkpoint(folder, limit, capfd):
    before, large = contents(folder), {"x": np.random.default_rng(0).normal(size=20_000)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    checkpoints = Checkpoints(folder)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        checkpoints.save(40, large)
        with pytest.raises(OSError, match=r"step_000000040\S* cannot be written: File too large\.$"):
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert contents(folder) == before
    assert not list(folder.glob(".*"))
    assert same(checkpoints.restore(state_of(1))[1], state_of(30))
    checkpoints.save(40, state_of(40))
    checkpoints.close()
    assert checkpoints.steps() == [20, 30, 40]
    assert "Traceback" not in capfd.readouterr().err


# Root may write into every folder, so the system's refusal is raised where the draft is made.
def test_a_folder_that_cannot_be_written_to_keeps_its_checkpoints(folder, monkeypatch):
    def refused(*_, dir=None, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(dir))

    before, checkpoints = contents(folder), Checkpoints(folder)
    monkeypatch.setattr("tempfile.mkdtemp", refused)
    checkpoints.save(40, state_of(40))
    with pytest.raises(OSError, match=r"cannot be written: Permission denied\.$"):
        checkpoints.save(50, state_of(50))  # raises the error of the save before
    assert contents(folder) == before
    assert same(checkpoints.restore(state_of(1))[1], state_of(30))


def test_drafts_of_a_killed_process_are_removed_and_are_no_checkpoints(folder):
    draft = folder / ".checkpoint-abcdefgh"
    shutil.copytree(folder / "step_000000030", draft / "step_000000040")
    assert Checkpoints(folder).steps() == [10, 20, 30]
    assert not draft.exists()


LOOP = """
import sys
sys.path[:0] = [{tests!r}]
from test_checkpoints import Checkpoints, state_of
checkpoints = Checkpoints({folder!r})
step = first = max(checkpoints.steps(), default=0)
while True:
    step += 1
    checkpoints.save(step, state_of(step), held_out_loss=(step * 7 % 11) / 11)
    if step == first + 2:
        print("ready", flush=True)  # the first save is complete
"""


@pytest.mark.slow
def test_kill_9_at_ten_random_moments_leaves_only_whole_checkpoints(tmp_path):
    folder, moments, before = tmp_path / "checkpoints", random.Random(0), 0
    code = LOOP.format(tests=str(ROOT / "tests" / "training"), folder=str(folder))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1"}
    for _ in range(10):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(0.5 * moments.random())
            process.send_signal(signal.SIGKILL)
        checkpoints = Checkpoints(folder)
        steps = checkpoints.steps()
        assert steps[-1] > before
        assert len(steps) <= 5  # three, the best, and one that was to be removed
        for step in steps:
            assert same(checkpoints.restore(state_of(0), step)[1], state_of(step))
        assert not list(folder.glob(".*"))
        before = steps[-1]
