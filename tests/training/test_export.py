"""Safetensors: a round trip keeps every bit, the file builds its network, and a tensor that does not fit is named."""

import json
import re
import struct
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from jaxdiff import networks
from jaxdiff.training.export import export_safetensors, import_safetensors, load_safetensors

ABOUT = {"dim": 3, "width": 8, "depth": 2, "dropout": 0.1}


def drawn(seed, **changes):
    """A network with random numbers in every variable: layers that start at zero would hide the others."""
    graph, state = nnx.split(networks.ResidualMLP(**ABOUT | changes, rngs=nnx.Rngs(seed)))
    draw = np.random.default_rng(seed)
    return nnx.merge(graph, jax.tree.map(lambda x: jnp.asarray(draw.uniform(1, 2, x.shape), x.dtype), state))


@pytest.fixture
def file(tmp_path):
    export_safetensors(drawn(1), tmp_path / "network.safetensors", ABOUT)
    return tmp_path / "network.safetensors"


def test_the_round_trip_keeps_every_bit(file):
    network = drawn(1)
    for read in (import_safetensors(drawn(2), file), load_safetensors(file)):
        one, other = (jax.tree.leaves(nnx.state(each)) for each in (network, read))
        assert len(one) == len(other) == 3 + 3 * 2 + 2 * 6  # statistics, layers, blocks
        assert all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in zip(one, other, strict=True))
        x = jax.random.normal(jax.random.key(1), (5, 3), jnp.float32)
        expected = np.asarray(network(x, jnp.float32(0.5)))
        assert np.array_equal(np.asarray(read(x, jnp.float32(0.5))), expected)
        assert np.abs(expected - np.asarray(drawn(2)(x, jnp.float32(0.5)))).max() > 1e-3


# The layout of a file is documented: the length of the header in 8 bytes, the header as JSON, the tensors.
def test_any_reader_finds_the_tensors_under_their_paths(file):
    network, found = drawn(1), load_file(file)
    assert np.array_equal(found["enter.kernel"], np.asarray(network.enter.kernel[...]))
    assert np.array_equal(found["blocks.1.down.bias"], np.asarray(network.blocks[1].down.bias[...]))
    assert np.array_equal(found["variances"], np.asarray(network.variances[...]))
    raw = file.read_bytes()
    header = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])
    assert header["enter.kernel"]["shape"] == [3, 8]
    assert json.loads(header["__metadata__"]["about"]) == ABOUT
    assert header["__metadata__"]["class"] == "jaxdiff.training.networks.residual_mlp.ResidualMLP"


def transposed(tensors):
    return tensors | {"enter.kernel": np.ascontiguousarray(tensors["enter.kernel"].T)}


ALTERED = {
    "lacks the tensor enter.kernel": lambda tensors: {k: v for k, v in tensors.items() if k != "enter.kernel"},
    "has, and this network lacks, the tensor more": lambda tensors: tensors | {"more": np.zeros(2)},
    "enter.kernel has shape (8, 3) in": transposed,
    "mean has dtype float64 in": lambda tensors: tensors | {"mean": tensors["mean"].astype(np.float64)},
}


@pytest.mark.parametrize("told", ALTERED)
def test_a_tensor_that_does_not_fit_is_named(file, told):
    save_file(ALTERED[told](load_file(file)), file)
    with pytest.raises(ValueError, match=re.escape(told)):
        import_safetensors(drawn(2), file)


@pytest.mark.parametrize("wanted", [{"width": 9}, {"depth": 1}, {"depth": 3}, {"dim": 4}])
def test_another_network_is_refused(file, wanted):
    with pytest.raises(ValueError, match="network"):
        import_safetensors(drawn(2, **wanted), file)


def test_a_file_that_is_no_network_is_refused(file, tmp_path):
    with pytest.raises(FileNotFoundError, match="none is no file"):
        load_safetensors(tmp_path / "none")
    raw = file.read_bytes()
    for cut in (0, 4, 100, len(raw) - 1):
        file.write_bytes(raw[:cut])
        with pytest.raises(ValueError, match="is damaged, or no safetensors file"):
            import_safetensors(drawn(2), file)
    save_file({"x": np.ones(1)}, file)
    with pytest.raises(ValueError, match=r"holds no network of jaxdiff \(class 'unknown'\)"):
        load_safetensors(file)
    # The class in a file is data of a stranger: no other code may run.
    for name in ("os.system", "jaxdiff.training.networks.residual_mlp.Block", "jaxdiff.training.networks.nnx.List"):
        save_file({"x": np.ones(1)}, file, metadata={"class": name, "about": '{"command": "true"}'})
        with pytest.raises(ValueError, match="holds no network of jaxdiff"):
            load_safetensors(file)
    export_safetensors(drawn(1), file, {"width": 8})
    with pytest.raises(ValueError, match="does not say how to build its ResidualMLP"):
        load_safetensors(file)


def test_what_cannot_be_exported_is_told_and_writes_nothing(tmp_path, monkeypatch):
    path, network = tmp_path / "network.safetensors", drawn(1)
    with pytest.raises(ValueError, match="rate is nan"):
        export_safetensors(network, path, {"rate": float("nan")})
    with pytest.raises(ValueError, match="about must be JSON data"):
        export_safetensors(network, path, {"rngs": object()})
    network.mean = nnx.Param(jnp.zeros(3, jnp.bfloat16))
    with pytest.raises(ValueError, match="mean holds bfloat16"):
        export_safetensors(network, path, ABOUT)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="network cannot be written: File exists"):
        export_safetensors(drawn(1), tmp_path / "file" / "network", ABOUT)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'jaxdiff[export]'")):
        export_safetensors(drawn(1), path, ABOUT)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
