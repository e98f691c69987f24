"""Training on several devices and in several processes against one device."""

import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import nnx
from small_networks import Plain

from jaxdiff import train
from jaxdiff.training.sharding import layout_of

pytestmark = pytest.mark.loose_promotion
HERE = pathlib.Path(__file__).parent
WORKER = """
import sys
rank, count, port, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
import jax, numpy as np
if count > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", count, rank, initialization_timeout=60)
assert jax.device_count() == 2
from flax import nnx
from small_networks import Plain
from jaxdiff import train
from jaxdiff.training import batches
from jaxdiff.training.sharding import layout_of

rows = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
mesh = jax.make_mesh((2,), ("batch",))
placed = layout_of(mesh, True, 16).state({"a": np.zeros((3, 8)), "b": np.zeros(3)})
assert placed["a"].sharding.shard_shape((3, 8)) == (3, 4)
assert placed["b"].sharding.is_fully_replicated
options = {"steps": 40, "batch_size": 16, "held_out": rows[:20], "learning_rate": 1e-2}
run = lambda **more: train.fit(Plain(4, nnx.Rngs(0)), rows, jax.random.key(2), **options, **more)
alone = run() if count == 1 else None
ways = {"batch": {}, "parameters": {"spread_parameters": True}, "parts": {"accumulate": 2}}
fits = {name: run(mesh=mesh, **more) for name, more in ways.items()}
batches.RESIDENT_BYTES = 10
fits["streamed"] = run(mesh=mesh)
found = {}
for name, fitted in (fits | ({"alone": alone} if alone else {})).items():
    found |= {f"{name} {at}": np.asarray(leaf) for at, leaf in enumerate(jax.tree.leaves(nnx.state(fitted.network)))}
    found[f"{name} losses"] = np.array([row["train_loss"] for row in fitted.history])
if rank == 0:
    np.savez(out, **found)
"""


def start(tmp_path, rank, count, port, flags=""):
    places = os.pathsep.join([str(HERE.parents[1]), str(HERE.parent)])
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": places}
    command = [sys.executable, "-c", WORKER, str(rank), str(count), str(port), str(tmp_path / f"{count}.npz")]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def results(tmp_path, count, flags=""):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = [start(tmp_path, rank, count, port, flags) for rank in range(count)]
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output[-3000:]
    return np.load(tmp_path / f"{count}.npz")


def agree(found, expected, name):
    for part in ("0", "1", "2", "3", "losses"):
        np.testing.assert_allclose(found[f"{name} {part}"], expected[part], rtol=2e-3, atol=1e-4)


def alone(**more):
    rows = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    options = {"steps": 40, "batch_size": 16, "held_out": rows[:20], "learning_rate": 1e-2} | more
    fitted = train.fit(Plain(4, nnx.Rngs(0)), rows, jax.random.key(2), **options)
    found = {str(at): np.asarray(leaf) for at, leaf in enumerate(jax.tree.leaves(nnx.state(fitted.network)))}
    return found | {"losses": np.array([row["train_loss"] for row in fitted.history])}


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_two_devices_and_two_processes_train_as_one_device(tmp_path, count):
    flags = "--xla_force_host_platform_device_count=2" if count == 1 else ""
    found = results(tmp_path, count, flags)
    with jax.enable_x64(False):
        one, parts = alone(), alone(accumulate=2)
    for name in ("batch", "parameters", "streamed"):
        agree(found, one, name)
    agree(found, parts, "parts")
    if count == 1:
        agree(found, one, "alone")


def test_a_batch_that_the_devices_do_not_divide_and_parameters_without_a_mesh_are_refused():
    with pytest.raises(ValueError, match="needs a mesh"):
        layout_of(None, True, 16)

    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=3", "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = str(HERE.parents[1])
    code = "import jax; from jaxdiff.training.sharding import layout_of as f; f(jax.make_mesh((3,), ('b',)), False, 16)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert "the 3 devices of axis 'b' do not divide batch_size = 16: use a multiple of 3, such as 18." in done.stderr
