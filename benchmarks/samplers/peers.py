"""Samplers of jaxdiff and of other libraries as functions: the same start, OU times and score.

The score of a normal mixture is one formula for NumPy, JAX or PyTorch arrays. Every library gets the nodes of the grid
as times of its own clock, so that methods of the same name make the same steps:

- diffrax: the ODE as dy/dv = predicted noise, y = x/alpha, v = sigma/alpha, where Euler is DDIM and Heun is EDM's; the
  SDE in OU time, with StepTo.
- diffusionjax: a VP process of N equal steps whose beta at step k is 2 N h_k.
- diffusers: a table of N + 1 betas, one for each node. The product of 1 - beta up to a node is alpha^2 there. diffusers
  keeps the table in float32, as it keeps all its tables.
- azula: a Schedule that looks up alpha and sigma at N + 1 equally spaced times.

PyTorch runs the score eagerly, or compiled by torch.compile (COMPILED); the loops of its libraries run in Python. Its
threads must not wait actively between two runs, because they would take the processor from the method that runs next.
"""

import functools
import importlib.util
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

import jaxdiff
from jaxdiff import grids, information, kernels
from jaxdiff.processes import ou

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when PyTorch is imported
NEEDS = {  # libraries by name, and the packages that each needs
    "diffrax": ("diffrax",),
    "diffusionjax": ("diffusionjax",),
    "diffusers": ("torch", "diffusers"),
    "azula": ("torch", "azula"),
}
DDIM, HEUN, DPM, EULER_MARUYAMA, ANCESTRAL = "DDIM", "Heun in v", "DPM-Solver++ 2M", "Euler-Maruyama", "ancestral"
COMPILED = ", compiled"  # behind the name of a library of PyTorch whose score is compiled
TSIT5_EVALS = 6  # a step; the last stage is the first of the next step


class Mixture(NamedTuple):
    """Logarithms of weights (K,), means and variances (K, d) of normal laws: arrays of any package."""

    log_weights: Any
    means: Any
    variances: Any


def score_of(mixture, x, alpha, noise, log, softmax):
    """The noised score at x (..., d): alpha and the noise's variance are numbers, softmax is over the last axis."""
    variances = alpha**2 * mixture.variances + noise
    residual = alpha * mixture.means - x[..., None, :]
    logits = mixture.log_weights - (residual**2 / variances + log(variances)).sum(-1) / 2
    return (softmax(logits)[..., None] * residual / variances).sum(-2)


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


def _torch_score(mixture, x, alpha, noise):
    import torch

    return score_of(mixture, x, alpha, noise, torch.log, functools.partial(torch.softmax, dim=-1))


@functools.cache
def _compiled_score():
    """The score in PyTorch, compiled once for every shape."""
    import torch

    return torch.compile(_torch_score)


def _in_torch(problem, *, compiled=False):
    """The score s(x, alpha, noise's variance) and the start, in PyTorch."""
    import torch

    mixture = Mixture(*(torch.tensor(array, dtype=torch.float32) for array in problem.mixture))
    score = _compiled_score() if compiled else _torch_score
    return lambda x, *times: score(mixture, x, *map(torch.as_tensor, times)), torch.tensor(problem.x)


def betas_of(grid):
    """(N + 1,) betas of DDPM, from the last node of the grid to the first; alpha^2 is the product of 1 - beta."""
    return -np.expm1(-2 * np.diff(grid[::-1], prepend=0.0))


def with_diffusers(problem, name, grid, *, eta=None, compiled=False, **options):
    """A scheduler of diffusers, from table entry N to entry 0; eta is DDIM's."""
    import diffusers
    import torch

    score, x = _in_torch(problem, compiled=compiled)
    n, alpha, noise = len(grid) - 1, ou.alpha(grid), ou.sigma(grid) ** 2
    given = {"num_train_timesteps": n + 1, "trained_betas": betas_of(grid).tolist()} | options
    extra = {} if eta is None else {"eta": eta}

    @torch.no_grad()
    def run():
        torch.manual_seed(problem.seed)
        scheduler = getattr(diffusers, name)(**given)
        if name == "DDIMScheduler":
            scheduler.set_timesteps(n)
        else:
            scheduler.set_timesteps(timesteps=list(range(n, 0, -1)))
        state = x
        for k, entry in enumerate(scheduler.timesteps):
            predicted = -float(np.sqrt(noise[k])) * score(state, float(alpha[k]), float(noise[k]))
            state = scheduler.step(predicted, entry, state, return_dict=False, **extra)[0]
        return state

    return run


def diffusers_ddim(problem, grid, eta, *, compiled=False):
    """diffusers' DDIM, or with eta 1 its DDPM."""
    options = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1, "timestep_spacing": "leading"}
    return with_diffusers(problem, "DDIMScheduler", grid, eta=eta, compiled=compiled, **options)


def diffusers_dpm(problem, grid, *, compiled=False):
    """diffusers' DPM-Solver++ 2M, of second order to the end."""
    options = {"final_sigmas_type": "sigma_min", "lower_order_final": False}
    return with_diffusers(problem, "DPMSolverMultistepScheduler", grid, compiled=compiled, **options)


def with_azula(problem, name, grid, *, compiled=False):
    """A sampler of azula."""
    import torch
    from azula import denoise, noise, sample

    score, x = _in_torch(problem, compiled=compiled)
    n = len(grid) - 1
    table = [torch.tensor(array, dtype=torch.float32) for array in (ou.alpha(grid), ou.sigma(grid))]

    class OnNodes(noise.Schedule):
        def __call__(self, t):
            k = int(torch.round((1 - t) * n))
            return tuple(column[k] for column in table)

    class Mean(denoise.Denoiser):
        schedule = OnNodes()

        def forward(self, x_t, t):
            alpha, sigma = self.schedule(t)
            return denoise.DiracPosterior((x_t + sigma**2 * score(x_t, alpha, sigma**2)) / alpha)

    sampler = getattr(sample, name)(Mean(), steps=n, silent=True)

    def run():
        torch.manual_seed(problem.seed)
        return sampler(x)

    return run


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
