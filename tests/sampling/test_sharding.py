"""Many devices and several processes: the same bits as on one device, and nothing exchanged between steps."""

import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxdiff import grids, kernels, noise, targets
from jaxdiff.sampling.sample import sample

WORKER = pathlib.Path(__file__).parents[1] / "one_of_several_processes.py"
MESHES = """
import jax, jax.numpy as jnp, numpy as np
import jaxdiff
from jaxdiff import grids, kernels, noise, targets

assert jax.device_count() == 4
grid, key = grids.exponential_then_uniform(3, 0.05, 3), jax.random.key(0)
gaussian = targets.gaussian(np.zeros(3), [0.5, 1.0, 2.0])
mixture = targets.mixture([0.5, 0.5], [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]], np.full((2, 3), 0.2))
kinds = jax.sharding.AxisType
meshes = [jax.make_mesh((4,), ("p",), axis_types=(kind,)) for kind in (kinds.Auto, kinds.Explicit)]
meshes.append(jax.make_mesh((2, 2), ("a", "b")))
every = kernels.exponential_euler(gaussian.score), kernels.ddim(gaussian.score), kernels.ancestral(mixture.score)
for n, kernel, over in (
    (1003, every[0], meshes),
    (5, every[0], meshes[:1]),
    (1003, every[1], meshes[:1]),
    (1003, every[2], meshes[:1]),
):
    x = noise.initial(key, jnp.arange(n), 3)
    one = jaxdiff.sample(kernel, x, grid, key)
    for mesh in over:
        many = jaxdiff.sample(kernel, x, grid, key, mesh=mesh)
        np.testing.assert_array_equal(many, one)
        assert len(many.sharding.device_set) == 4
mesh = meshes[0]
x = noise.initial(key, jnp.arange(1000), 3)
spread = jax.device_put(x, jax.NamedSharding(mesh, jax.P("p")))
ways = (
    lambda kernel: jaxdiff.sample(kernel, spread, grid, key),
    lambda kernel: jaxdiff.sample(kernel, spread, grid, key, chunk=37),
    lambda kernel: jaxdiff.sample(kernel, spread, grid, key, progress=True),
    lambda kernel: jaxdiff.trajectory(kernel, spread, grid, key, grid[[0, -1]])[1],
)
for kernel, chosen in ((every[0], ways), (every[2], ways[1:2])):
    one = jaxdiff.sample(kernel, x, grid, key)
    for way in chosen:
        result = way(kernel)
        np.testing.assert_array_equal(result, one)
        assert not result.sharding.is_fully_replicated
    inside = jax.jit(lambda x: jaxdiff.sample(kernel, x, grid, key, mesh=mesh)).lower(spread).compile()
    np.testing.assert_allclose(inside(spread), one, rtol=0, atol=1e-5)
    text = inside.as_text()
    assert not any(word in text for word in ("all-reduce", "all-gather", "collective", "all-to-all")), text
x = noise.initial(key, jnp.arange(1003), 3, jnp.bfloat16)
one = jaxdiff.sample(every[0], x, grid, key)
many = jaxdiff.sample(every[0], x, grid, key, mesh=meshes[0])
assert many.dtype == jnp.bfloat16
np.testing.assert_array_equal(many.astype(jnp.float32), one.astype(jnp.float32))
labels = jnp.arange(1003) % 3
to_label = lambda x, t, label: label.reshape(-1, 1, 1).astype(x.dtype) - x
kernel = kernels.ancestral(jaxdiff.scores.conditioned(to_label, labels))
x = noise.initial(key, jnp.arange(1003), (2, 3))
one = jaxdiff.sample(kernel, x, grid, key)
for mesh in meshes:
    for options in ({}, {"chunk": 100}, {"progress": True}):
        many = jaxdiff.sample(kernel, x, grid, key, mesh=mesh, **options)
        assert many.shape == (1003, 2, 3)
        np.testing.assert_allclose(many, one, rtol=1e-5, atol=1e-5)
spread = jax.device_put(x[:1000], jax.NamedSharding(meshes[0], jax.P("p")))
cut = kernels.ancestral(jaxdiff.scores.conditioned(to_label, labels[:1000]))
result = jaxdiff.sample(cut, spread, grid, key)
np.testing.assert_allclose(result, one[:1000], rtol=1e-5, atol=1e-5)
assert not result.sharding.is_fully_replicated
inside = jax.jit(lambda x, labels: jaxdiff.sample(
    kernels.ancestral(jaxdiff.scores.conditioned(to_label, labels)), x, grid, key, mesh=meshes[0]
)).lower(spread, labels[:1000]).compile()
np.testing.assert_allclose(inside(spread, labels[:1000]), one[:1000], rtol=0, atol=1e-5)
table = jnp.linspace(0, 1, 1000)[:, None]
by_row = kernels.ancestral(lambda x, t: table[jnp.arange(len(x))] - x)
try:
    jaxdiff.sample(by_row, noise.initial(key, jnp.arange(1000), 3), grid, key, mesh=meshes[0])
except ValueError as error:
    assert "cut across 4 devices" in str(error)
else:
    raise AssertionError("rows of a share are not those of all particles")
across = jax.device_put(jnp.ones((8, 4)), jax.NamedSharding(meshes[0], jax.P(None, "p")))
try:
    jaxdiff.sample(every[0], across, grid, key)
except ValueError as error:
    assert "first axis" in str(error)
else:
    raise AssertionError("coordinates may not be spread")
"""


def run(*arguments, flags=""):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    command = [sys.executable, *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_any_mesh_gives_the_bits_of_one_device_without_communication():
    process = run("-c", MESHES, flags="--xla_force_host_platform_device_count=4")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


@pytest.mark.slow
def test_two_processes_give_the_rows_of_one(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    results = [tmp_path / f"{rank}.npz" for rank in range(2)]
    processes = [
        run(str(WORKER), str(port), "2", str(rank), str(out), str(tmp_path / "rows.jsonl"))
        for rank, out in enumerate(results)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output
    law, key, grid = targets.gaussian([0.0, 1.0, 2.0], [0.5, 1.0, 2.0]), jax.random.key(3), grids.log_snr(3, 0.01, 7)
    alone = sample(kernels.ancestral(law.score), noise.initial(key, np.arange(12), 3), grid, key)
    assert alone.dtype == np.float32
    rows = [np.load(out) for out in results]
    assert sorted(np.concatenate([part["rows"] for part in rows])) == list(range(12))
    keys = [jax.random.fold_in(jax.random.key(seed), d) for d in (1, 2, 3) for seed in range(3)]
    sums = [float(noise.normal(key, 0, 0, d).sum()) for key, d in zip(keys, np.repeat([1, 2, 3], 3), strict=True)]
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 9  # one process writes
    for part in rows:
        np.testing.assert_allclose(part["swept"], sums, rtol=1e-6)
        for name in ("sharded", "mesh", "watched"):
            np.testing.assert_array_equal(part[name], alone[part["rows"]])
