"""Samplers of jaxdiff and of other libraries as functions: the same start, OU times and score.

The score of a normal mixture is one formula for NumPy, JAX or PyTorch arrays. Every library gets the nodes of the grid
as times of its own clock, so that methods of the same name make the same steps:

- diffrax: the ODE as dy/dv = predicted noise, y = x/alpha, v = sigma/alpha, where Euler is DDIM and Heun is EDM's; the
  SDE in OU time, with StepTo.
- diffusionjax: a VP process of N equal steps whose beta at step k is 2 N h_k.

The libraries of PyTorch are in torch_peers.py. Their scores run eagerly, or compiled (COMPILED).
"""

import functools
import importlib.util
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

import jaxdiff
from benchmarks.laws.mixture_score import Mixture, score_of
from benchmarks.samplers.torch_peers import diffusers_ddim, diffusers_dpm, with_azula
from jaxdiff import grids, information, kernels
from jaxdiff.processes import ou

NEEDS = {  # libraries by name, and the packages that each needs
    "diffrax": ("diffrax",),
    "diffusionjax": ("diffusionjax",),
    "diffusers": ("torch", "diffusers"),
    "azula": ("torch", "azula"),
}
DDIM, HEUN, DPM, EULER_MARUYAMA, ANCESTRAL = "DDIM", "Heun in v", "DPM-Solver++ 2M", "Euler-Maruyama", "ancestral"
COMPILED = ", compiled"  # behind the name of a library of PyTorch whose score is compiled
TSIT5_EVALS = 6  # a step; the last stage is the first of the next step


def _jax_score(mixture, x, t):
    return score_of(mixture, x, jnp.exp(-t), -jnp.expm1(-2 * t), jnp.log, lambda a: jax.nn.softmax(a, axis=-1))


class Problem(NamedTuple):
    """The input of every sampler: a mixture and its target, a start x (n, d) float32, evaluations, the ends."""

    mixture: Mixture  # NumPy float64
    law: Any
    x: np.ndarray
    evals: int
    horizon: float
    early_stop: float
    seed: int = 1

    @property
    def score(self):
        """s(x, t) in JAX, float32 arrays."""
        return Partial(_jax_score, Mixture(*(jnp.asarray(array, jnp.float32) for array in self.mixture)))

    def nodes(self, each=1):
        """The grid of the ODE for so many evaluations a step: equal steps of log snr."""
        return grids.log_snr(self.horizon, self.early_stop, max(1, self.evals // each))

    @property
    def noisy_nodes(self):
        """The grid of kernels with noise: Benton's."""
        return grids.exponential_then_uniform(self.horizon, self.early_stop, self.evals)


def installed(package):
    """Whether this package can be imported here."""
    return all(importlib.util.find_spec(name) is not None for name in NEEDS.get(library(package), ()))


def library(package):
    """The library of a package's name, which may say that a score is compiled."""
    return package.removesuffix(COMPILED)


def ours(problem, name, grid, *args, **options):
    """A kernel of jaxdiff."""
    kernel = getattr(kernels, name)(problem.score, *args, **options)
    return functools.partial(jaxdiff.sample, kernel, jnp.asarray(problem.x), grid, jax.random.key(problem.seed))


def planned(problem):
    """Moment matching with the law's mmse, down the grid of least path KL."""
    cost = information.step_cost("moment_matched", problem.law.mmse)
    grid = grids.optimal(cost, problem.horizon, problem.early_stop, problem.evals)
    return ours(problem, "moment_matched", grid, problem.law.mmse)


@functools.partial(jax.jit, static_argnames="solver")
def _diffrax_ode(score, nodes, x, solver):
    import diffrax

    def noise_predicted(v, y, _):  # at OU time t the noise is -sigma s, sigma = v alpha
        t = jnp.log1p(v**2) / 2
        alpha = jnp.exp(-t)
        return -v * alpha * score(alpha * y, t)

    term = diffrax.ODETerm(noise_predicted)
    return _solved(term, getattr(diffrax, solver)(), nodes, x)


@jax.jit
def _diffrax_sde(score, nodes, x, key):
    import diffrax
    import lineax

    drift = lambda u, x, _: x + 2 * score(x, -u)
    diffusion = lambda u, x, _: lineax.DiagonalLinearOperator(jnp.full_like(x, np.sqrt(2)))
    path = diffrax.UnsafeBrownianPath(jax.ShapeDtypeStruct(x.shape, x.dtype), key)
    terms = diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(diffusion, path))
    return _solved(terms, diffrax.Euler(), nodes, x)


def _solved(terms, solver, nodes, x):
    """The end of diffrax's integration at exactly these steps."""
    import diffrax

    return diffrax.diffeqsolve(
        terms,
        solver,
        nodes[0],
        nodes[-1],
        None,
        x,
        saveat=diffrax.SaveAt(t1=True),
        stepsize_controller=diffrax.StepTo(nodes),
        adjoint=diffrax.ForwardMode(),
        max_steps=len(nodes),
    ).ys[0]


def with_diffrax(problem, solver, each):
    """The ODE in y and v by a solver with so many evaluations a step."""
    grid = problem.nodes(each)
    v, alpha = (jnp.asarray(array, jnp.float32) for array in (1 / np.sqrt(ou.snr(grid)), ou.alpha(grid)))
    score, x = problem.score, jnp.asarray(problem.x)
    return lambda: alpha[-1] * _diffrax_ode(score, v, x / alpha[0], solver)


def with_diffrax_noise(problem):
    """Euler-Maruyama with fresh increments, in the running time -t."""
    nodes, key = jnp.asarray(-problem.noisy_nodes, jnp.float32), jax.random.key(problem.seed)
    score, x = problem.score, jnp.asarray(problem.x)
    return lambda: _diffrax_sde(score, nodes, x, key)


def steps_of_beta(grid):
    """beta (N,) of a VP process of N equal steps in [0, 1] that makes the steps of a grid, from its start on."""
    return -2 * np.diff(grid) * (len(grid) - 1)


def with_diffusionjax(problem):
    """diffusionjax' Euler-Maruyama for the reversed VP process."""
    from diffusionjax.sde import VP
    from diffusionjax.solvers import EulerMaruyama
    from diffusionjax.utils import get_sampler

    grid, n = problem.noisy_nodes, problem.evals
    beta, times = (jnp.asarray(array, jnp.float32) for array in (steps_of_beta(grid), grid[:-1]))
    step = lambda t: jnp.round((1 - t) * n).astype(jnp.int32)  # its times fall from 1 to 1/n

    @jax.jit
    def run(score, x, key):
        reverse = VP(lambda t: beta[step(t)], None).reverse(lambda x, t: score(x, times[step(t[0])]))
        times_up = jnp.linspace(0, 1, n + 1, dtype=x.dtype)[1:, None]
        return get_sampler(x.shape, EulerMaruyama(reverse, times_up), denoise=False)(key, x)[0]

    score, x, key = problem.score, jnp.asarray(problem.x), jax.random.key(problem.seed)

    def called():
        with jax.enable_x64(False):  # it draws noise of the default dtype
            return run(score, x, key)

    return called


class Method(NamedTuple):
    """A sampler: its package, its name (which two packages may share), whether it draws noise, and how it is made."""

    package: str
    name: str
    draws: bool
    make: Any


def in_torch(package, name, draws, make):
    """A method of a library of PyTorch, with its score run eagerly and compiled."""
    return (
        Method(package, name, draws, make),
        Method(package + COMPILED, name, draws, lambda p: make(p, compiled=True)),
    )


METHODS = (
    Method("jaxdiff", DDIM, False, lambda p: ours(p, "ddim", p.nodes())),
    Method("diffrax", DDIM, False, lambda p: with_diffrax(p, "Euler", 1)),
    *in_torch("diffusers", DDIM, False, lambda p, **how: diffusers_ddim(p, p.nodes(), 0.0, **how)),
    *in_torch("azula", DDIM, False, lambda p, **how: with_azula(p, "DDIMSampler", p.nodes(), **how)),
    Method("jaxdiff", HEUN, False, lambda p: ours(p, "heun", p.nodes(2))),
    Method("diffrax", HEUN, False, lambda p: with_diffrax(p, "Heun", 2)),
    *in_torch("azula", HEUN, False, lambda p, **how: with_azula(p, "HeunSampler", p.nodes(2), **how)),
    Method("jaxdiff", DPM, False, lambda p: ours(p, "dpm_solver", p.nodes(), 2)),
    *in_torch("diffusers", DPM, False, lambda p, **how: diffusers_dpm(p, p.nodes(), **how)),
    Method("diffrax", "Tsit5 in v", False, lambda p: with_diffrax(p, "Tsit5", TSIT5_EVALS)),
    Method("jaxdiff", "UniPC 2", False, lambda p: ours(p, "unipc", p.nodes(), 2)),
    Method("jaxdiff", EULER_MARUYAMA, True, lambda p: ours(p, "euler_maruyama", p.noisy_nodes)),
    Method("diffrax", EULER_MARUYAMA, True, with_diffrax_noise),
    Method("diffusionjax", EULER_MARUYAMA, True, with_diffusionjax),
    Method("jaxdiff", ANCESTRAL, True, lambda p: ours(p, "ancestral", p.noisy_nodes)),
    *in_torch("diffusers", ANCESTRAL, True, lambda p, **how: diffusers_ddim(p, p.noisy_nodes, 1.0, **how)),
    *in_torch("azula", ANCESTRAL, True, lambda p, **how: with_azula(p, "DDPMSampler", p.noisy_nodes, **how)),
    Method("jaxdiff", "moment matched, planned", True, planned),
)
