"""jaxdiff.load: the functions of a trained run."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxdiff
from jaxdiff import data, runs
from jaxdiff.app import saving

NETWORK = {"width": 8, "depth": 1, "dropout": 0.1, "seed": 3}
RECORD = {"horizon": 4.0, "early_stop": 0.01, "seed": 3, "network": NETWORK, "image_shape": None, "history": []}


@pytest.fixture(scope="module")
def rows():
    mixed = np.random.default_rng(0).normal(size=(48, 3)) @ np.array([[3.0, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0] * 3])
    return mixed + np.array([7.0, -2.0, 5.0])  # the last column is constant


@pytest.fixture(scope="module")
def network(rows):
    graph, params, rest = nnx.split(runs.build(data.split(rows, name="three"), NETWORK), nnx.Param, ...)
    draw = np.random.default_rng(1)
    noisy = jax.tree.map(lambda x: x + jnp.asarray(draw.normal(size=x.shape), x.dtype), params)
    return nnx.merge(graph, noisy, rest)


@pytest.fixture(scope="module")
def folder(rows, network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    saving.save(folder, RECORD, data.split(rows, name="three"), network)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return jaxdiff.load(folder)


@pytest.fixture(scope="module")
def x():
    return jnp.asarray(np.random.default_rng(2).normal(size=(6, 3)), jnp.float32)


@pytest.mark.parametrize("t", [0.01, 0.4, 4.0])
def test_score_and_denoiser_are_those_of_the_trained_network(model, network, x, t):
    denoised = np.asarray(model.denoiser(x, t))
    assert np.array_equal(denoised, np.asarray(network(x, jnp.float32(t))))
    expected = (np.exp(-t) * denoised - np.asarray(x)) / -np.expm1(-2 * t)
    assert np.allclose(np.asarray(model.score(x, t)), expected, rtol=1e-5, atol=1e-5)


def test_the_functions_work_under_jit_and_vmap(model, x):
    for function in (model.score, model.denoiser):
        expected = np.asarray(function(x, 0.4))
        for found in (
            jax.jit(function)(x, 0.4),
            jax.jit(lambda function, x: function(x, 0.4))(function, x),
            jax.vmap(lambda row, function=function: function(row, 0.4))(x),
            jax.jit(jax.vmap(function))(x, jnp.full(6, 0.4, jnp.float32)),
        ):
            assert np.allclose(np.asarray(found), expected, rtol=1e-4, atol=1e-4)
    for function in (model.standardise, model.undo):
        expected = np.asarray(function(x))
        assert np.allclose(np.asarray(jax.jit(function)(x)), expected, rtol=1e-6, atol=1e-6)
        assert np.allclose(np.asarray(jax.jit(jax.vmap(function))(x)), expected, rtol=1e-6, atol=1e-6)
    assert np.allclose(np.asarray(jax.jit(lambda scaling: scaling.undo(x))(model.scaling)), np.asarray(model.undo(x)))


def test_the_scaling_is_that_of_the_train_rows(model, rows, folder):
    assert np.allclose(np.asarray(model.undo(model.standardise(rows))), rows, rtol=1e-6, atol=1e-6)
    train = runs.load(folder).dataset.train
    raw = np.asarray(model.undo(train))
    kept = rows[(np.abs(rows[:, None] - raw[None]).max(-1) < 1e-4).any(1)]
    assert len(kept) == len(train) == 32
    expected = (rows[:, :2] - kept[:, :2].mean(0)) / kept[:, :2].std(0)
    assert np.allclose(np.asarray(model.standardise(rows))[:, :2], expected, rtol=1e-5, atol=1e-5)
    assert np.array_equal(np.asarray(model.undo(np.full((2, 3), 9.0)))[:, 2], [5.0, 5.0])
    assert model.standardise(np.zeros((2, 3), np.float32)).dtype == jnp.float32
    assert np.allclose(model.undo([1, 2, 3]), model.undo(np.array([1.0, 2.0, 3.0])))


def test_samples_of_the_model_can_be_drawn(model, key):
    grid = jaxdiff.grids.log_snr(model.horizon, model.early_stop, 4)
    start = jaxdiff.noise.initial(key, jnp.arange(5), 3).astype(jnp.float32)
    samples = model.undo(jaxdiff.sample(jaxdiff.kernels.ddim(model.score), start, grid, key))
    assert samples.shape == (5, 3)
    assert np.isfinite(np.asarray(samples)).all()


def test_the_record_is_the_one_of_the_run(model, folder):
    assert model.folder == folder
    assert (model.horizon, model.early_stop, model.record["network"]["width"]) == (4.0, 0.01, 8)
    assert model.process is jaxdiff.processes.ou
    assert model.class_names is None  # these rows have no labels
    assert isinstance(model.network, jaxdiff.networks.ResidualMLP)
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.score = None


def test_a_folder_without_a_model_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"none/model.json does not exist: make it with jaxdiff train DATA --out"):
        jaxdiff.load(tmp_path / "none")
    (tmp_path / "model.json").write_text('{"of": "another program"}')
    with pytest.raises(ValueError, match=r"model\.json is damaged"):
        jaxdiff.load(tmp_path)
