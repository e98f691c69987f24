"""End points of every kernel of the ODE and of an adaptive method, by number of evaluations."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.samplers.devices import spread
from benchmarks.samplers.methods import ODE
from benchmarks.samplers.padded_tables import run, silence, walk
from jaxdiff import grids, kernels, ode

BUDGETS = (8, 16, 32, 64, 128, 256, 512)
HORIZON = 5.0
SEEDS = 16  # of the randomised midpoint's times
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-6, 1e-8)
GRIDS = {"log_snr": grids.log_snr, "karras": grids.karras}


def outputs(problem, name, grid):
    """{evaluations: end points of one or several runs} of a kernel on a grid, or of the adaptive method."""
    x = spread(problem.x)
    if name == "adaptive":
        solved = (ode.solve(problem.score, x, HORIZON, problem.early_stop, rtol=r, atol=r) for r in TOLERANCES)
        return {float(np.mean(one.evals)): [np.asarray(one.x)] for one in solved}
    kernel = ODE[name].make(problem)
    of = lambda budget: GRIDS[grid](HORIZON, problem.early_stop, budget // kernel.evals_per_step)
    if name != "randomized_midpoint":
        return {n: [np.asarray(run(kernel, of(n), x, draw=silence, most=BUDGETS[-1]))] for n in BUDGETS}
    return {n: list(_with_other_times(kernel, of(n), x)) for n in BUDGETS}


def _with_other_times(kernel, grid, x):
    """End points for every seed of the random times: the tables differ, and the compiled program is the same."""
    pad = lambda column: jnp.asarray(np.pad(column, (0, BUDGETS[-1] - len(column))))
    for seed in range(SEEDS):
        table = kernels.randomized_midpoint(kernel.score, seed).coefficients(grid)
        yield np.asarray(walk(kernel, jax.tree.map(pad, table), len(grid) - 1, x, None, silence))
