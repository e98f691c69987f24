# %% [markdown]
# # 6. On many devices
#
# Particles do not interact, so a run can be spread over devices with one argument, and gives the same samples as on one
# device. This notebook uses two *virtual* CPU devices, which any laptop has; the same code runs on two GPUs, on eight,
# or on a pod. The second half spreads a whole study, over dimensions and seeds.
#
# The first line must come before JAX is imported. It makes JAX split the CPU in two, and changes nothing for a GPU.

# %%
import os

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")

import pathlib
import tempfile

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxdiff
from jaxdiff import grids, kernels, noise, sweeps, tables, targets

SMALL = bool(os.environ.get("JAXDIFF_SMALL"))  # fewer particles and dimensions, for a quick run of the whole file
COUNT, DIMS, SEEDS = (4_000, (2, 8, 32), 2) if SMALL else (40_000, (2, 4, 8, 16, 32, 64, 128, 256), 8)
plt.rcParams["axes.prop_cycle"] = plt.cycler(color=["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"])
plt.rcParams |= {"figure.dpi": 90, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}
print(jax.device_count(), "devices:", jax.devices()[0].platform)

# %% [markdown]
# ## One call, all devices
#
# A *mesh* is JAX's name for devices in a row (or a grid). Give one to `sample`, and the particles are spread over all
# of it. The law is a mixture of three normal laws in the plane; its *score*, the gradient of the log density with noise
# added, is known. The *grid* holds the noise levels from much noise (4) to little (0.01), and the *kernel* says what a
# step does.

# %%
law = targets.mixture([0.5, 0.3, 0.2], [[-1.5, 0.0], [1.5, 1.0], [1.0, -1.5]], [[0.1, 0.1], [0.2, 0.05], [0.5, 0.02]])
kernel, grid, key = kernels.ancestral(law.score), grids.log_snr(4.0, 0.01, 40), jax.random.key(0)
start = noise.initial(key, np.arange(COUNT), 2)
mesh = jax.make_mesh((jax.device_count(),), ("particles",))
spread = jaxdiff.sample(kernel, start, grid, key, mesh=mesh)
for shard in spread.addressable_shards:
    print(f"device {shard.device.id} holds particles {shard.index[0].start or 0} to {shard.index[0].stop or COUNT}")

# %% [markdown]
# Does one device give the same samples? The noise of particle i is a function of the key and of i, and does not depend
# on the device. So the two runs agree, particle by particle. They may differ in the last digits, because this score
# sums over components, where compilers may round differently. Left: particles coloured by device; each device has
# particles everywhere. Right: one run against the other.

# %%
alone, together = (np.asarray(x) for x in (jaxdiff.sample(kernel, start, grid, key), spread))
print("largest difference between one device and all:", np.max(np.abs(alone - together)))
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.8), layout="constrained")
for k, shard in enumerate(spread.addressable_shards):
    left.plot(*np.asarray(shard.data)[:1500].T, ".", ms=1.5, color=f"C{k}", label=f"device {shard.device.id}")
left.set(xlabel="first coordinate", ylabel="second coordinate", aspect="equal")
left.legend(markerscale=6)
right.plot(alone[:2000, 0], together[:2000, 0], ".", ms=2)
right.set(xlabel="first coordinate, one device", ylabel="first coordinate, all devices", aspect="equal")
plt.show()

# %% [markdown]
# The number of particles need not divide evenly, and particles that are already spread over devices need no `mesh`:
# `sample` leaves them where they are.

# %%
print("an odd number:", jaxdiff.sample(kernel, start[:1001], grid, key, mesh=mesh).shape)
already = jax.device_put(start, jax.NamedSharding(mesh, jax.P("particles")))
print("stays spread:", jaxdiff.sample(kernel, already, grid, key).sharding.num_devices, "devices")

# %% [markdown]
# ## A study on all devices
#
# How large is the error of two kernels in the variance of the samples, does it depend on the dimension, and how thin is
# the shell that samples lie on? `sweeps.run` calls a function for every dimension, seed and setting. A function that
# takes a `mask` is compiled once for all dimensions: it works at the width of the largest, and `mask` says which
# coordinates exist. Dimensions and seeds are batched, and the batch is spread over all devices there are.

# %%
steps = grids.log_snr(4.0, 0.01, 10)
particles = np.arange(256)


def measured(mask, key, kernel):
    """Samples of a normal law of variance 1/4: their variance a coordinate, and how their lengths vary."""
    quarter = targets.gaussian(np.zeros(mask.size), np.full(mask.size, 0.25))
    x = noise.initial(key, particles, mask.size)
    x = jaxdiff.sample(kernel(quarter.score), x, steps, key)
    square = jnp.sum(jnp.where(mask, x**2, 0), axis=-1) / jnp.sum(mask)
    return {"variance": jnp.mean(square), "shell": jnp.std(jnp.sqrt(square)) / jnp.mean(jnp.sqrt(square))}


both = {"exponential Euler": kernels.exponential_euler, "ancestral": kernels.ancestral}
rows = sweeps.run(measured, dims=DIMS, seeds=range(SEEDS), kernel=both)
print(len(rows), "rows; the first:", rows[0])

# %% [markdown]
# `over_seeds` takes means over seeds, each with its standard error beside it.

# %%
means = sweeps.over_seeds(rows)
print(tables.table(means))

# %% [markdown]
# Left: with only 10 steps exponential Euler makes too much variance and ancestral sampling too little, whatever the
# dimension; the law's own is the dashed line (a quarter, and the noise left at t = 0.01). Right: the lengths of samples
# vary like d^-1/2, so in many dimensions all samples lie near a sphere.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.5), layout="constrained")
for (name, marker), k in zip((("exponential Euler", "o"), ("ancestral", "s")), range(2), strict=True):
    own = [row for row in means if row["kernel"] == name]
    dims = [row["dim"] for row in own]
    error = [1.96 * row["variance_error"] for row in own]
    left.errorbar(dims, [row["variance"] for row in own], error, fmt=marker + "-", color=f"C{k}", capsize=2, label=name)
    right.plot(dims, [row["shell"] for row in own], marker + "-", color=f"C{k}", label=name)
left.axhline(0.25 * np.exp(-0.02) - np.expm1(-0.02), color="k", ls="--", lw=1, label="law")
right.plot(dims, 1 / np.sqrt(2 * np.array(dims)), "k--", lw=1, label="(2d)^-1/2")
left.set(xscale="log", ylim=(0, 0.65), xlabel="dimension d", ylabel="variance a coordinate")
right.set_yscale("log")
right.set_yticks([0.5, 0.2, 0.1, 0.05], ["0.5", "0.2", "0.1", "0.05"])
right.yaxis.minorticks_off()
right.set(xscale="log", xlabel="dimension d", ylabel="spread of lengths, relative")
for ax in (left, right):
    ax.legend()
plt.show()

# %% [markdown]
# Do the numbers depend on the devices? On one device the rows are the same, up to rounding.

# %%
first = jax.make_mesh((1,), ("rows",), devices=jax.devices()[:1])
on_one = sweeps.run(measured, dims=DIMS, seeds=range(SEEDS), kernel=both, mesh=first)
off = [abs(a["variance"] / b["variance"] - 1) for a, b in zip(on_one, rows, strict=True)]
print(f"largest relative difference of a variance: {max(off):.1g}")

# %% [markdown]
# Long studies are interrupted. With `resume=`, every finished batch of rows is written to a file at once, and rows in
# the file are not run again. Below, the second call finds all of its rows in the file, except those of the new seed.

# %%
with tempfile.TemporaryDirectory() as folder:
    file = pathlib.Path(folder) / "rows.jsonl"
    for seeds in (range(SEEDS), range(SEEDS + 1)):
        before = len(file.read_text().splitlines()) if file.exists() else 0
        sweeps.run(measured, dims=DIMS, seeds=seeds, kernel=kernels.ancestral, resume=file)
        print(f"{before} rows were there, {len(file.read_text().splitlines()) - before} were run")

# %% [markdown]
# ## Several machines
#
# On a pod or a cluster the same file runs in one process on each host, with one line before all others that use JAX:
#
# ```python
# jax.distributed.initialize()  # nothing to say on SLURM, GKE and TPU pods
# ```
#
# (elsewhere `jax.distributed.initialize("host:port", count, rank)`). `jax.device_count()` is then the number of all
# devices of all hosts, so the mesh above spans them. Starting points are the same array in every process, or a global
# one of `jax.make_array_from_process_local_data`. A process sees the particles on its own devices, as
# `addressable_shards` do above; `sweeps.run` gives all rows to every process, and only the first one writes the file.
#
# ## What to remember
#
# - `mesh=jax.make_mesh((jax.device_count(),), ("particles",))` spreads a run over all devices.
# - Particle i is particle i everywhere: results do not depend on how many devices there were.
# - `sweeps.run` spreads dimensions and seeds, compiles once, and continues where it was interrupted.
