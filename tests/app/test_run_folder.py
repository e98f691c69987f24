"""A run folder: what is saved comes back, nothing old survives a retraining, nothing that cannot be is read."""

import dataclasses
import errno
import gc
import json
import os
import re
import resource
import shutil
import sys
import threading
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdiff import data, files, plots, runs
from jaxdiff.app import comparison, comparison_subject, page, saving
from jaxdiff.app.cli import main
from jaxdiff.app.records import check_model
from jaxdiff.curves import loss_curve, measured_curve
from jaxdiff.scores import denoiser_of

plan_module = sys.modules["jaxdiff.planning.plan"]  # jaxdiff.plan is the function

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


@pytest.fixture(scope="module")
def kept(tmp_path_factory, dataset, network):
    """A folder that no test changes."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    saving.save(folder, MODEL, dataset, network)
    return folder


@pytest.fixture(scope="module")
def kept_run(kept):
    return runs.load(kept)


@pytest.fixture
def folder(kept, tmp_path):
    return shutil.copytree(kept, tmp_path / "run")


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
    assert (run.horizon, run.early_stop, run.model["network"]) == (
        4.0,
        0.01,
        {"kind": "mlp", "n_classes": None} | NETWORK,
    )


def test_retraining_into_a_folder_removes_what_the_older_model_left(folder, dataset, network):
    for name in STALE:
        (folder / name).write_text("of the older model")
    saving.save(folder, MODEL | {"horizon": 3.0}, dataset, network)
    assert [name for name in STALE if (folder / name).exists()] == []
    assert runs.load(folder).horizon == 3.0


def test_retraining_removes_the_older_models_pictures_too(folder, dataset, network):
    for name in PICTURES:
        (folder / name).write_text("of the older model")
    saving.save(folder, MODEL, dataset, network)
    assert [name for name in PICTURES if (folder / name).exists()] == []


def test_an_interrupted_retraining_leaves_the_older_run_as_it_was(folder, dataset, network, monkeypatch):
    def interrupted(network, path):
        path.mkdir()
        raise KeyboardInterrupt

    (folder / "samples.npy").write_text("of the older model")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(saving, "save_network", interrupted)
    with pytest.raises(KeyboardInterrupt):
        saving.save(folder, MODEL | {"horizon": 3.0}, dataset, network)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert runs.load(folder).horizon == 4.0


def test_a_run_cut_off_between_two_of_its_parts_is_refused(folder, dataset, network, monkeypatch):
    def cut_off(folder, names):
        discard(folder, names)
        raise KeyboardInterrupt

    discard = saving.discard
    monkeypatch.setattr(saving, "discard", cut_off)
    with pytest.raises(KeyboardInterrupt):
        saving.save(folder, MODEL | {"horizon": 3.0}, dataset, network)
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


def altered(**changes):
    """A function that gives a record other values; a name with a dot is one of its network's."""

    def alter(record):
        for name, value in changes.items():
            inner, name = (record["network"], name[8:]) if name.startswith("network_") else (record, name)
            if value is ...:
                del inner[name]
            else:
                inner[name] = value
        return record

    return alter


BAD_MODELS = [
    ("data is 3, not a name", {"data": 3}),
    ("dim is missing", {"dim": ...}),
    ('dim is "3", not a whole number, at least 1', {"dim": "3"}),
    ("dim is true, not a whole number", {"dim": True}),
    ("dim is 3.0, not a whole number", {"dim": 3.0}),
    ("constant_columns is -1,", {"constant_columns": -1}),
    ("constant_columns is 4, more than dim = 3", {"constant_columns": 4}),
    ("horizon is NaN, not a finite number", {"horizon": np.nan}),
    ("horizon is true,", {"horizon": True}),
    ("horizon is 1000000", {"horizon": 10**400}),
    ("early_stop must lie below the horizon: early_stop = 5, horizon = 4", {"early_stop": 5}),
    ('early_stop is "soon", not a finite number', {"early_stop": "soon"}),
    ("seed is -1, not a whole number from 0 to 4294967295", {"seed": -1}),
    ("seed is 4294967296,", {"seed": 2**32}),
    ('image_shape is "abc", not null or two or three positive whole numbers', {"image_shape": "abc"}),
    ("image_shape is [3], not", {"image_shape": [3]}),
    ("image_shape is [-1, -3], not", {"image_shape": [-1, -3]}),
    ("image_shape is [true, 3], not", {"image_shape": [True, 3]}),
    ("image_shape is [2, 2], which does not make dim = 3 pixels", {"image_shape": [2, 2]}),
    ("image_shape is [2, 2, 2, 2], not", {"image_shape": [2, 2, 2, 2]}),
    ("event_shape is [2, 2], which does not make dim = 3 values", {"event_shape": [2, 2]}),
    ("event_shape is [], not null or one to three positive whole numbers", {"event_shape": []}),
    ("pixels is 255, not null or a record", {"pixels": 255}),
    ("the record of the pixels is {'low': 0}, which lacks a field or a type", {"pixels": {"low": 0}}),
    ('stopped_at is "soon", not null or a whole number', {"stopped_at": "soon"}),
    ("network is [8, 2], not a record", {"network": [8, 2]}),
    ('network.kind is "cnn", not one of mlp, unet, dit or FILE.py:NAME', {"network_kind": "cnn"}),
    ("network.n_classes is 1, not null or a whole number, at least 2", {"network_n_classes": 1}),
    ("network.n_classes is 3, not the number of classes", {"network_n_classes": 3}),
    ("network.multipliers is missing", {"network_kind": "unet"}),
    ('network.width is "big", not a whole number, at least 1', {"network_width": "big"}),
    ("network.width is 0,", {"network_width": 0}),
    ("network.depth is -1,", {"network_depth": -1}),
    ("network.dropout is 1.0, not a number in [0, 1)", {"network_dropout": 1.0}),
    ("network.seed is null,", {"network_seed": None}),
    ("history is [1], not a list of records", {"history": [1]}),
]


def refused(path, told, maker, read):
    """Reading says that the file is damaged, how, and what makes it again."""
    with pytest.raises(runs.RunError) as caught:
        read()
    assert str(caught.value).startswith(f"{path} is damaged ({told}")
    assert str(caught.value).endswith(f"): make it again with {maker}.")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("told", "changes"), BAD_MODELS)
def test_a_value_in_a_models_record_that_cannot_be_is_refused_by_name(kept, tmp_path, told, changes):
    record = json.loads((kept / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(altered(**changes)(record)))
    maker = f"jaxdiff train DATA --out {tmp_path}"
    refused(tmp_path / "model.json", told, maker, lambda: runs.load(tmp_path))


def test_a_model_may_be_an_image_and_without_hidden_blocks(folder):
    record = json.loads((folder / "model.json").read_text())
    check_model(altered(image_shape=[1, 3], network_depth=0, horizon=4, seed=2**32 - 1, history=[{"step": 1}])(record))


def scaled(name, factor):
    return lambda parts: parts | {name: factor * parts[name]}


def given(name, value):
    return lambda parts: parts | {name: np.asarray(value)}


def lacking(name):
    return lambda parts: {one: value for one, value in parts.items() if one != name}


def changed(path, alter):
    """The archive with other arrays."""
    with np.load(path) as arrays:
        parts = alter(dict(arrays))
    np.savez(path, **parts)


@pytest.mark.parametrize(
    ("told", "alter"),
    [
        ("train is not finite", scaled("train", np.nan)),
        ("test has no rows", given("test", np.zeros((0, 3), np.float32))),
        ("held_out is missing", lacking("held_out")),
        ("held_out has shape (8, 2), not (rows, 3)", given("held_out", np.ones((8, 2)))),
        ("train holds int64, not floating-point numbers", given("train", np.ones((9, 3), np.int64))),
        ("train holds float16,", given("train", np.ones((9, 3), np.float16))),
        ("train holds <U1,", given("train", [["a"] * 3] * 9)),
        ("mean has shape (1,), not (3)", given("mean", [0.0])),
        ("mean is not finite", given("mean", [0.0, np.inf, 0.0])),
        ("scale is not positive", given("scale", [1.0, 0.0, 1.0])),
        ("scale is not positive", scaled("scale", -1)),
    ],
)
def test_data_that_cannot_be_are_refused_by_the_name_of_the_array(kept, tmp_path, told, alter):
    for name in ("model.json", "data.npz"):
        shutil.copy(kept / name, tmp_path)
    changed(tmp_path / "data.npz", alter)
    refused(tmp_path / "data.npz", told, f"jaxdiff train DATA --out {tmp_path}", lambda: runs.load(tmp_path))


def test_parameters_that_are_not_finite_are_refused(folder, dataset, network):
    graph, state = nnx.split(nnx.clone(network))  # a split shares the arrays
    state["enter"]["bias"][...] = state["enter"]["bias"][...].at[2].set(jnp.nan)
    saving.save(folder, MODEL, dataset, nnx.merge(graph, state))
    maker = f"jaxdiff train DATA --out {folder}"
    refused(folder / "checkpoint", "enter.bias is not finite", maker, lambda: runs.load(folder))


PLAN = {
    "horizon": 4.0,
    "grid": [4.0, 1, 0.1, 0.01],
    "kernel": "moment_matched",
    "evals": 3,
    "per_direction": True,
    "predicted_kl": 0.5,
    "target_kl": None,
    "certificate": {"terms": []},
}


@pytest.fixture
def here(kept_run, tmp_path):
    """The run in an empty folder of its own, with the record of its model."""
    shutil.copy(kept_run.folder / "model.json", tmp_path)
    return dataclasses.replace(kept_run, folder=tmp_path)


def plan_in(run, **changes):
    (run.folder / "plan.json").write_text(json.dumps(altered(**changes)(dict(PLAN))))


@pytest.mark.parametrize(
    ("told", "changes"),
    [
        ('evals is "lots", not a whole number, at least 1', {"evals": "lots"}),
        ("evals is 4, and the grid has 3 steps", {"evals": 4}),
        ("evals is true,", {"evals": True}),
        ('grid is "fine", not a list of finite numbers', {"grid": "fine"}),
        ("grid is [4.0, true, 0.01], not", {"grid": [4.0, True, 0.01]}),
        ("grid is [4.0, NaN, 0.01], not", {"grid": [4.0, np.nan, 0.01]}),
        ("grid must decrease", {"grid": [4.0, 0.1, 1.0, 0.01]}),
        ("grid runs from 3 to 0.01, the model from 4 to 0.01", {"grid": [3.0, 0.5, 0.1, 0.01]}),
        ("grid runs from 4 to 0.02, the model from 4 to 0.01", {"grid": [4.0, 0.5, 0.1, 0.02]}),
        ("horizon is 5, not the grid's", {"horizon": 5.0}),
        ('kernel is ["moment_matched"], not one of ', {"kernel": ["moment_matched"]}),
        ('kernel is "euler", not one of exponential_euler, ', {"kernel": "euler"}),
        (
            'options is {"order": 4}, which unipc lacks',
            {"kernel": "unipc", "options": {"order": 4}, "per_direction": False},
        ),
        ("evals is 3, and the grid has 3 steps", {"kernel": "heun", "per_direction": False}),
        ("options is [2], not a record of", {"options": [2]}),
        ('metric is "w3", not kl or w2', {"metric": "w3"}),
        ("target_w2 is Infinity, not a finite number or null", {"target_w2": np.inf}),
        ("per_direction is 1, not true or false", {"per_direction": 1}),
        ("per_direction is true of ancestral", {"kernel": "ancestral"}),
        ("per_direction is missing", {"per_direction": ...}),
        ('predicted_kl is "small", not a finite number or null', {"predicted_kl": "small"}),
        ("target_kl is Infinity, not a finite number or null", {"target_kl": np.inf}),
        ("target_kl is missing", {"target_kl": ...}),
    ],
)
def test_a_value_in_a_plan_that_cannot_be_is_refused_by_name(here, told, changes):
    plan_in(here, **changes)
    path = here.folder / "plan.json"
    refused(path, told, f"jaxdiff plan {here.folder}", lambda: runs.load_plan(here))


def test_a_plan_comes_back_as_it_can_be_run(here):
    plan_in(here)
    plan = runs.load_plan(here)
    assert plan.pop("grid").tolist() == PLAN["grid"]
    earlier = {"metric": "kl", "options": {}, "predicted_w2": None, "target_w2": None, "path_kl_plan": None}
    earlier |= {"guidance": 1.0}
    assert plan == {name: (earlier | PLAN)[name] for name in plan}  # a plan of an earlier version lacks these
    plan_in(here, grid=[4.0 * (1 + 1e-12), 1, 0.1, 0.01])  # times as another form of them gives them back
    runs.load_plan(here)


@pytest.fixture(scope="module")
def curve(kept_run):
    return runs.measure(kept_run, "held_out", grid=[3.0, 0.5, 0.02])


@pytest.mark.parametrize(
    ("told", "alter"),
    [
        ("u is not finite", scaled("u", np.nan)),
        ("u is not increasing and equidistant", lambda parts: parts | {"u": parts["u"][::-1]}),
        ("u is not increasing and equidistant", lambda parts: parts | {"u": parts["u"] ** 3}),
        ("u has 4 nodes, fewer than five", given("u", np.arange(4.0))),
        ("it was measured from t = ", lambda parts: parts | {"u": parts["u"] + 0.1}),
        ("it was measured from t = ", lambda parts: parts | {"u": 1e3 * parts["u"]}),
        ("extra is not finite", given("extra", [0.0, np.nan, 1.0])),
        ("extra leaves the range of u", given("extra", [0.0, 50.0, 1.0])),
        ("extra has shape (1, 3), not (levels)", given("extra", [[0.0, 1.0, 2.0]])),
        ("rows is not finite", scaled("rows", np.nan)),
        ("rows has negative losses", scaled("rows", -1)),
        ("rows has shape (8, 407), not (rows, 408)", lambda parts: parts | {"rows": parts["rows"][:, :-1]}),
        (
            "it has 1 rows, fewer than two",
            lambda parts: parts | {name: parts[name][:1] for name in ("rows", "squares", "row_ids", "by_group")},
        ),
        ("by_group is not finite", scaled("by_group", np.nan)),
        ("by_group has negative losses", scaled("by_group", -1)),
        ("by_group has shape (8, 204, 2), not (groups, 204, 3)", lambda p: p | {"by_group": p["by_group"][..., :2]}),
        ("by_group has no groups", lambda parts: parts | {"by_group": parts["by_group"][:0]}),
        ("by_group has no groups, or more than", lambda p: p | {"by_group": np.concatenate([p["by_group"]] * 2)}),
        ("the columns of basis are not orthonormal", given("basis", np.full((3, 3), 3.0))),
        ("the columns of basis are not orthonormal", scaled("basis", 1.001)),
        ("basis is not finite", scaled("basis", np.nan)),
        ("basis has shape (2, 2), not (3, 3)", given("basis", np.eye(2))),
        ("basis holds int64,", given("basis", np.eye(3, dtype=np.int64))),
        ("basis is 'pca', not 'coordinates' or an array", given("basis", "pca")),
        ("it has only one of by_group and basis, which belong together", lacking("by_group")),
        ("squares has negative values", scaled("squares", -1)),
        ("squares has shape (2,), not (8)", given("squares", [1.0, 2.0])),
        ("row_ids holds float64, not whole numbers", scaled("row_ids", 1.0)),
        ("row_ids has shape (2,), not (8)", given("row_ids", [1, 2])),
        ("rows is missing", lacking("rows")),
        ("Object arrays", given("squares", None)),
    ],
)
def test_a_curve_that_cannot_be_is_refused_by_the_name_of_the_array(here, curve, told, alter):
    path = here.folder / "held_out_curve.npz"
    runs.keep(here, "held_out", curve)
    changed(path, alter)
    refused(path, told, f"jaxdiff plan {here.folder}", lambda: runs.measured(here, "held_out"))


def test_a_bad_test_curve_names_the_command_that_makes_that_one(here, curve):
    runs.keep(here, "test", curve)
    changed(here.folder / "test_curve.npz", scaled("rows", -1))
    maker = f"jaxdiff certify {here.folder}"
    refused(here.folder / "test_curve.npz", "rows has", maker, lambda: runs.measured(here, "test"))


@pytest.mark.parametrize("basis", ["coordinates", None])
def test_a_curve_without_axes_of_its_own_comes_back(here, curve, basis):
    options = {"basis": basis, "by_group": None if basis is None else curve.by_group}
    made = measured_curve(curve.spline.u, curve.rows, 3, extra=curve.spline.extra, **options)
    runs.keep(here, "held_out", made)
    kept = runs.measured(here, "held_out")
    assert (kept.basis, kept.squares, kept.row_ids) == (basis, None, None)
    assert np.array_equal(kept(np.array([0.5, 2.0])), made(np.array([0.5, 2.0])))


# What commands write while others write too, or while the disk is full.


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def another_model(run):
    record = json.loads((run.folder / "model.json").read_text())
    (run.folder / "model.json").write_text(json.dumps(record | {"seed": 4}))


MEANWHILE = {
    "another model": ("model", another_model),
    "no model": ("model", lambda run: (run.folder / "model.json").unlink()),
    "half a model": ("model", lambda run: (run.folder / "model.json").write_text('{"horizon": ')),
    "another plan": ("plan", lambda run: plan_in(run, grid=[4.0, 1, 0.2, 0.01])),
    "no plan": ("plan", lambda run: (run.folder / "plan.json").unlink()),
    "a bad plan": ("plan", lambda run: plan_in(run, evals="lots")),
}


@pytest.mark.parametrize("case", MEANWHILE)
def test_nothing_is_written_into_a_run_that_was_replaced_meanwhile(here, case):
    what, happens = MEANWHILE[case]
    plan_in(here)
    plan, before = runs.load_plan(here), {}
    (here.folder / "samples.npy").write_text("old")

    def write():
        with saving.writing(here, "samples.npy", plan=plan, instead_of=["samples.npy"]) as drafts:
            (drafts.folder / "samples.npy").write_text("of a model that is gone")
            happens(here)
            before.update(contents(here.folder))

    told = f"the {what} in {here.folder} was replaced while this command ran, and nothing was written: run it again"
    with pytest.raises(runs.RunError, match=re.escape(told)):
        write()
    drafts = [path for path in before if path.parts[0].startswith(".")]
    assert contents(here.folder) == {path: data for path, data in before.items() if path not in drafts}
    assert len(drafts) == 1


def test_a_model_without_its_plan_is_enough_for_what_needs_no_plan(here):
    for name in ("samples.npy", "report.json", "test_curve.npz", "plan.json"):
        (here.folder / name).write_text("old")
    with saving.writing(here, "plan.json", instead_of=runs.OF_THE_PLAN) as drafts:
        (drafts.folder / "plan.json").write_text("new")
        assert drafts.removed == []
        assert (here.folder / "samples.npy").exists()
    assert drafts.removed == ["samples.npy", "report.json"]
    texts = {path.name: path.read_text() for path in here.folder.iterdir() if path.name != "model.json"}
    assert texts == {"plan.json": "new", "test_curve.npz": "old"}


def test_records_go_first_and_come_last(here, monkeypatch):
    steps, put, discard = [], saving.put, saving.discard
    monkeypatch.setattr(saving, "put", lambda draft, path: (steps.append(f"put {path.name}"), put(draft, path)))
    monkeypatch.setattr(saving, "discard", lambda *args: (steps.append(f"discard {args[1]}"), discard(*args))[1])
    for name in ("plan.json", "samples.npy"):
        (here.folder / name).write_text("old")
    with saving.writing(here, "plan.json", instead_of=["samples.npy"]) as drafts:
        for name in ("plan.json", "a.png", "z.png"):
            (drafts.folder / name).write_text("new")
    discarded = ["discard ['plan.json']", "discard ['samples.npy']"]
    assert steps == [*discarded, "put a.png", "put z.png", "put plan.json"]


def in_a_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize("action", ["write", "load", "save"])
def test_who_renames_holds_the_folder(here, folder, dataset, network, action):
    def write():
        with saving.writing(here, "samples.npy") as drafts:
            (drafts.folder / "samples.npy").write_text("new")

    done, actions = [], {"write": (here.folder, write), "load": (folder, lambda: runs.load(folder))}
    actions["save"] = (folder, lambda: saving.save(folder, MODEL | {"seed": 4}, dataset, network))
    locked, act = actions[action]
    before = (locked / "model.json").read_bytes()
    with files.locked(locked):
        thread = in_a_thread(lambda: done.append(act()))
        thread.join(1.5)
        assert thread.is_alive()
        assert done == []
        assert not (locked / "samples.npy").exists()
        assert (locked / "model.json").read_bytes() == before
    thread.join()
    assert len(done) == 1
    assert (locked / "samples.npy").exists() == (action == "write")
    assert ((locked / "model.json").read_bytes() == before) == (action != "save")


def test_the_model_is_compared_after_the_folder_is_held(here):
    def write():
        with pytest.raises(runs.RunError, match="was replaced"), saving.writing(here, "samples.npy") as drafts:
            (drafts.folder / "samples.npy").write_text("new")

    with files.locked(here.folder):
        thread = in_a_thread(write)
        thread.join(0.5)
        another_model(here)
    thread.join()
    assert not (here.folder / "samples.npy").exists()


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# Where each command is when the disk is full. All that takes time is replaced: what is left is the order of the writes.
@pytest.mark.parametrize("argv", ["plan", "certify"])
@pytest.mark.parametrize(
    "place", ["numpy.savez", "jaxdiff.app.plots.grids", "jaxdiff.app.page.write_page", "jaxdiff.app.saving.put"]
)
def test_a_disk_that_fills_up_costs_no_older_file(here, curve, argv, place, monkeypatch, capsys):
    plan_in(here)
    runs.keep(here, "held_out", curve)
    for name in runs.OF_THE_MODEL:
        if not (here.folder / name).exists():
            (here.folder / name).write_text("old")
    before = contents(here.folder)
    made = SimpleNamespace(to_dict=lambda: dict(PLAN), evals=3, kernel="unipc", options={}, grid=np.array(PLAN["grid"]))
    monkeypatch.setattr(runs, "load", lambda folder, **_: here)
    monkeypatch.setattr(runs, "measure", lambda *args, **options: curve)
    monkeypatch.setattr(plan_module, "plan", lambda *args, **options: made)
    monkeypatch.setattr(
        comparison, "certified", lambda *args, **options: {"rows": [], "quality": [], "noise_floor": {}}
    )
    monkeypatch.setattr(comparison_subject, "subject_of", lambda *args: SimpleNamespace(samplers=[]))
    for module in (plots, page):
        for name in ("loss_curve", "grids", "quality", "write_page"):
            if hasattr(module, name):
                draw = lambda path, *args, **options: path.write_text("new")
                monkeypatch.setattr(module, name, draw)
    monkeypatch.setattr(place, full)
    code = main([argv, str(here.folder), "--json"])
    hit = place == "numpy.savez" or place.endswith({"plan": "grids", "certify": "write_page"}[argv])
    if place == "jaxdiff.app.saving.put":  # the records are gone then, and nothing stands for what is not there
        assert code == 2
        assert (here.folder / "plan.json").exists() == (argv == "certify")
        return
    assert code == (2 if hit else 0)
    if not hit:
        assert contents(here.folder) != before
        return
    told = capsys.readouterr().err
    assert re.fullmatch(
        rf"jaxdiff: {re.escape(str(here.folder))}/\S+ cannot be written: No space left on device\.\n", told
    )
    assert contents(here.folder) == before


@pytest.mark.parametrize("limit", [1000, 12_000])
def test_a_checkpoint_that_does_not_fit_is_told_in_one_sentence(folder, dataset, limit, capfd):
    large = runs.build(dataset, NETWORK | {"width": 64})
    before = contents(folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OSError, match=r"checkpoint cannot be written: File too large\.$") as caught:
            saving.save(folder, MODEL, dataset, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(caught.value).startswith(str(folder / "checkpoint"))
    assert contents(folder) == before
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    del caught
    gc.collect()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["checkpoint", "samples.npy", "plan.json", "model.json"])
def test_drafts_of_a_killed_process_are_removed_by_the_next_command(here, name):
    left_behind = here.folder / f".{name}-abcdefgh"
    left_behind.mkdir()
    (left_behind / name).write_text("half")
    with files.draft_folder(here.folder, name) as alive:
        with saving.writing(here, "report.json") as drafts:
            assert not left_behind.exists()
            (drafts.folder / "report.json").write_text("new")
        assert alive.exists()
    assert sorted(path.name for path in here.folder.iterdir()) == ["model.json", "report.json"]


def test_a_training_removes_what_a_killed_one_left(folder, dataset, network):
    (folder / ".checkpoint-abcdefgh" / "checkpoint").mkdir(parents=True)
    saving.save(folder, MODEL, dataset, network)
    assert not (folder / ".checkpoint-abcdefgh").exists()
