"""A run folder: what is saved comes back, and nothing old survives a retraining."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdiff import data, runs
from jaxdiff.curves import loss_curve
from jaxdiff.scores import denoiser_of

NETWORK = {"width": 8, "depth": 2, "dropout": 0.1, "seed": 3}
MODEL = {"horizon": 4.0, "early_stop": 0.01, "seed": 3, "network": NETWORK, "image_shape": None}
STALE = ("plan.json", "report.json", "report.html", "samples.npy", "held_out_curve.npz", "test_curve.npz")
PICTURES = ("samples.png", "loss_curve.png", "grids.png")


def scattered(network):
    """The network with noise on every weight: layers that start at zero would hide the others."""
    graph, params, rest = nnx.split(network, nnx.Param, ...)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(5), len(leaves))
    noisy = [x + 0.3 * jax.random.normal(key, x.shape, x.dtype) for x, key in zip(leaves, keys, strict=True)]
    return nnx.merge(graph, jax.tree.unflatten(tree, noisy), rest)


@pytest.fixture(scope="module")
def dataset():
    rows = np.random.default_rng(0).normal(size=(48, 3)) @ np.array([[1.0, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    return data.split(rows + 7.0, name="three", seed=1)


@pytest.fixture(scope="module")
def network(dataset):
    return scattered(runs.build(dataset, NETWORK))


@pytest.fixture
def folder(tmp_path, dataset, network):
    runs.save(tmp_path / "run", MODEL, dataset, network)
    return tmp_path / "run"


def test_the_reloaded_network_gives_the_same_bits(folder, dataset, network):
    loaded = denoiser_of(runs.load(folder).network)
    for t in (0.01, 0.5, 4.0):
        x = jax.random.normal(jax.random.key(1), (5, 3), jnp.float32)
        expected = np.asarray(denoiser_of(network)(x, t))
        assert np.array_equal(np.asarray(loaded(x, t)), expected)
        assert np.abs(expected - np.asarray(runs.build(dataset, NETWORK)(x, jnp.float32(t)))).max() > 1e-2


def test_the_reloaded_run_has_the_same_rows_units_and_times(folder, dataset):
    run = runs.load(folder)
    for name in (*runs.SPLITS, "mean", "scale"):
        kept, given = getattr(run.dataset, name), getattr(dataset, name)
        assert kept.dtype == given.dtype
        assert np.array_equal(kept, given)
    assert (run.dataset.name, run.dataset.constant) == ("three", 1)
    assert (run.horizon, run.early_stop, run.model["network"]) == (4.0, 0.01, NETWORK)


def test_retraining_into_a_folder_removes_what_the_older_model_left(folder, dataset, network):
    for name in STALE:
        (folder / name).write_text("of the older model")
    runs.save(folder, MODEL | {"horizon": 3.0}, dataset, network)
    assert [name for name in STALE if (folder / name).exists()] == []
    assert runs.load(folder).horizon == 3.0


def test_retraining_removes_the_older_models_pictures_too(folder, dataset, network):
    for name in PICTURES:
        (folder / name).write_text("of the older model")
    runs.save(folder, MODEL, dataset, network)
    assert [name for name in PICTURES if (folder / name).exists()] == []


def test_an_interrupted_retraining_leaves_the_older_run_as_it_was(folder, dataset, network, monkeypatch):
    def interrupted(network, path):
        path.mkdir()
        raise KeyboardInterrupt

    (folder / "samples.npy").write_text("of the older model")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(runs, "save_network", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runs.save(folder, MODEL | {"horizon": 3.0}, dataset, network)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert runs.load(folder).horizon == 4.0


def test_a_run_cut_off_between_two_of_its_parts_is_refused(folder, dataset, network, monkeypatch):
    def cut_off(folder, names):
        discard(folder, names)
        raise KeyboardInterrupt

    discard = runs.discard
    monkeypatch.setattr(runs, "discard", cut_off)
    with pytest.raises(KeyboardInterrupt):
        runs.save(folder, MODEL | {"horizon": 3.0}, dataset, network)
    with pytest.raises(runs.RunError, match=r"model\.json does not exist: make it with jaxdiff train"):
        runs.load(folder)
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("name", ["model.json", "data.npz", "checkpoint"])
def test_an_incomplete_run_is_refused_by_the_name_of_what_it_lacks(folder, name):
    (folder / name).rename(folder.parent / "elsewhere")
    with pytest.raises(runs.RunError, match=rf"{name} does not exist: make it with jaxdiff train"):
        runs.load(folder)


def test_a_key_is_fixed_by_seed_and_purpose_and_differs_in_both(folder):
    run = runs.load(folder)
    other = runs.Run(run.folder, run.model | {"seed": 4}, run.dataset, run.network)
    words = lambda key: tuple(np.asarray(jax.random.key_data(key)).tolist())
    purposes = ("held_out", "test", "compare")
    keys = {words(a.key(purpose)) for a in (run, other) for purpose in purposes}
    assert len(keys | {words(jax.random.key(3))}) == 7
    assert words(run.key("test")) == words(runs.load(folder).key("test"))


def test_a_measured_curve_is_kept_under_its_split_and_comes_back_whole(folder):
    run = runs.load(folder)
    with pytest.raises(runs.RunError, match=r"held_out_curve\.npz does not exist: make it with jaxdiff plan"):
        runs.measured(run, "held_out")
    made = runs.measure(run, "held_out", grid=[3.0, 0.5, 0.02])
    runs.keep(run, "held_out", made)
    kept = runs.measured(run, "held_out")
    np.testing.assert_allclose(np.exp(kept.spline.extra), 1 / np.expm1(2 * np.array([3.0, 0.5, 0.02])))
    assert not (folder / "test_curve.npz").exists()
    for name in ("rows", "by_group", "basis"):
        assert np.array_equal(getattr(kept, name), getattr(made, name))
    snr = np.array([0.01, 1.0, 20.0])
    assert np.array_equal(kept(snr), made(snr))
    assert (kept.n, kept.dim) == (len(run.dataset.held_out), 3)
    ends = 1 / np.expm1(2 * np.array([4.0, 0.01]))
    assert np.exp(kept.spline.u[[0, -1]]) == pytest.approx(ends)
    nodes, path = len(made.spline.u), folder / "held_out_curve.npz"
    np.savez(
        path,
        u=made.spline.u,
        rows=made.rows.reshape(kept.n, 2, -1)[..., :nodes].reshape(kept.n, -1),
        by_group=made.by_group[:, :nodes],
        basis=made.basis,
        squares=made.squares,
    )  # without further levels
    older = runs.measured(run, "held_out")
    np.testing.assert_allclose(older.losses, made.losses[:nodes], rtol=1e-12)


def test_each_split_is_measured_on_its_own_rows_with_its_own_noise(folder):
    run = runs.load(folder)
    for split in runs.SPLITS:
        rows, made = getattr(run.dataset, split), runs.measure(run, split)
        ends = {"horizon": 4.0, "early_stop": 0.01}
        expected = loss_curve(denoiser_of(run.network), rows, run.key(split), **ends)
        np.testing.assert_allclose(made.losses, expected.losses, rtol=1e-5)  # in other axes, float32
        assert made.n == len(rows)
    assert not np.isclose(runs.measure(run, "test").losses, runs.measure(run, "held_out").losses).any()


def torn(path):
    path.write_bytes(path.read_bytes()[:-200])


def of_another_width(path):
    with np.load(path) as arrays:
        parts = {name: arrays[name][..., :2] for name in arrays.files}
    np.savez(path, **parts)


def emptied(path):
    for inner in list(path.rglob("*")):
        if inner.is_file():
            inner.unlink()


def cut(path):
    """Its largest file, the chunks of the parameters, by half."""
    largest = max((inner for inner in path.rglob("*") if inner.is_file()), key=lambda inner: inner.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.json", lambda path: path.write_text(path.read_text().replace('"width"', '"wide"'))),
        ("checkpoint", cut),
        ("model.json", lambda path: path.write_text("{}")),
        ("model.json", lambda path: path.write_text("[]")),
        ("model.json", lambda path: path.write_text("{")),
        ("data.npz", torn),
        ("data.npz", of_another_width),
        ("checkpoint", emptied),
    ],
)
def test_a_damaged_run_is_refused_by_the_name_of_the_file_in_one_line(folder, name, damage):
    damage(folder / name)
    with pytest.raises(runs.RunError, match=rf"{name} is damaged \(.*make it again with jaxdiff train") as caught:
        runs.load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"junk"])
def test_a_damaged_curve_is_refused_by_the_name_of_its_file(folder, content):
    (folder / "held_out_curve.npz").write_bytes(content)
    with pytest.raises(runs.RunError, match=r"held_out_curve\.npz is damaged"):
        runs.measured(runs.load(folder), "held_out")
