"""One of several processes on loopback; test_sharding runs it with arguments PORT COUNT RANK OUT ROWS.

The import comes before the initialisation on purpose: importing jaxdiff must touch no backend.
"""

import sys

import jax
import numpy as np

import jaxdiff
from jaxdiff import grids, kernels, noise, sweeps, targets

port, count, rank, out, kept = sys.argv[1:]
jax.distributed.initialize(f"localhost:{port}", int(count), int(rank), initialization_timeout=60)
assert jax.device_count() == int(count)

law = targets.gaussian([0.0, 1.0, 2.0], [0.5, 1.0, 2.0])
n, grid, key = 12, grids.log_snr(3, 0.01, 7), jax.random.key(3)
mesh = jax.make_mesh((jax.device_count(),), ("particles",))
start = np.asarray(noise.initial(key, np.arange(n), 3))
spread = jax.make_array_from_callback((n, 3), jax.NamedSharding(mesh, jax.P("particles")), lambda index: start[index])
results = {
    "sharded": jaxdiff.sample(kernels.ancestral(law.score), spread, grid, key),
    "mesh": jaxdiff.sample(kernels.ancestral(law.score), start, grid, key, mesh=mesh),
    "watched": jaxdiff.sample(kernels.ancestral(law.score), spread, grid, key, progress=True),
}
local = {name: np.concatenate([shard.data for shard in result.addressable_shards]) for name, result in results.items()}
options = {"dims": [1, 2, 3], "seeds": range(3), "batch": 4, "resume": kept}
sums = lambda mask, key: (jax.numpy.where(mask, noise.normal(key, 0, 0, 3), 0)).sum()
swept = [row["value"] for row in sweeps.run(sums, **options)]
assert swept == [row["value"] for row in sweeps.run(sums, **options)]
np.savez(
    out,
    swept=swept,
    rows=np.concatenate([np.arange(n)[shard.index[0]] for shard in spread.addressable_shards]),
    **local,
)
