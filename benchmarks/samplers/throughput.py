"""The runs that are timed: jaxdiff, a plain scan, other libraries, and the parts of a step."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
from jax import lax

import jaxdiff
from jaxdiff import grids, kernels

N_STEPS, HORIZON, EARLY_STOP = 50, 5.0, 1e-2
GRID = grids.exponential_then_uniform(HORIZON, EARLY_STOP, N_STEPS)


def particles(law, d, coordinates):
    """The number of particles: fewer for the network, and fewest where d is small, as its work is by particle."""
    share = 1 if law.flops is None else 16 if d < 16 else 4
    return max(1, coordinates // share // d)


@jax.jit
def plain_scan(score, table, x, key):
    """The step of exponential Euler with noise of jax.random, down a table of coefficients."""

    def step(x, row_and_key):
        row, key = row_and_key
        z = jax.random.normal(key, x.shape, x.dtype)
        return row.keep * x + row.gain * score(x, row.t) + row.spread * z, None

    return lax.scan(step, x, (table, jax.random.split(key, len(table.t))))[0]


@jax.jit
def bare_loop(score, table, x):
    """The same without noise."""
    step = lambda x, row: (row.keep * x + row.gain * score(x, row.t), None)
    return lax.scan(step, x, table)[0]


def with_diffrax(law, x, key):
    """dY = (Y + 2 s) du + sqrt(2) dW in the running time u = horizon - t, by Euler at the times of the grid."""
    import diffrax
    import lineax

    @jax.jit
    def run(score, times, x, key):
        drift = lambda u, x, _: x + 2 * score(x, HORIZON - u)
        diffusion = lambda u, x, _: lineax.DiagonalLinearOperator(jnp.sqrt(jnp.asarray(2, x.dtype)))
        path = diffrax.UnsafeBrownianPath(jax.ShapeDtypeStruct(x.shape, x.dtype), key)
        return diffrax.diffeqsolve(
            diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(diffusion, path)),
            diffrax.Euler(),
            times[0],
            times[-1],
            None,
            x,
            saveat=diffrax.SaveAt(t1=True),
            stepsize_controller=diffrax.StepTo(times),
            adjoint=diffrax.ForwardMode(),
            max_steps=N_STEPS,
        ).ys[0]

    times = jnp.asarray(HORIZON - GRID, x.dtype)
    return lambda: run(law.plain, times, x, key)


def with_diffusionjax(law, x, key):
    """diffusionjax' variance-preserving SDE with a constant rate: its time 1 is the OU time HORIZON."""
    from diffusionjax.sde import VP
    from diffusionjax.solvers import EulerMaruyama
    from diffusionjax.utils import get_linear_beta_function, get_sampler

    @jax.jit
    def run(score, times, x, key):
        forward = VP(*get_linear_beta_function(2 * HORIZON, 2 * HORIZON))
        reverse = forward.reverse(lambda x, t: score(x, HORIZON * t[0]))  # it gives every particle the same time
        return get_sampler(x.shape, EulerMaruyama(reverse, times))(key, x)[0]

    times = jnp.linspace(0, 1, N_STEPS + 1, dtype=x.dtype)[1:, None]
    return lambda: run(law.plain, times, x, key)


PEERS = {"diffrax": with_diffrax, "diffusionjax": with_diffusionjax}


def importable():
    """The peers that are installed."""
    return [name for name in PEERS if importlib.util.find_spec(name) is not None]


def functions(law, x, key, peers):
    """The functions that are timed, by name; without the plain function where it is the score itself."""
    run = lambda score, kernel=kernels.exponential_euler: functools.partial(jaxdiff.sample, kernel(score), x, GRID, key)
    table = kernels.exponential_euler(law.score).coefficients(GRID)
    table = jax.tree.map(lambda column: jnp.asarray(column, x.dtype), table)
    scores = {"": law.score} if law.plain is law.score else {"": law.score, ", plain function": law.plain}
    return {
        **{f"jaxdiff{which}": run(score) for which, score in scores.items()},
        "plain scan": functools.partial(plain_scan, law.plain, table, x, key),
        **{name: PEERS[name](law, x, key) for name in peers},
        **{f"score alone{which}": functools.partial(bare_loop, score, table, x) for which, score in scores.items()},
        **{f"without noise{which}": run(score, kernels.ddim) for which, score in scores.items()},
        "noise alone": run(lambda x, t: jnp.zeros_like(x)),  # a new function, so that its first call compiles
    }
