"""Samplers of the libraries of PyTorch as functions: the same start, OU times and score as those of peers.py.

- diffusers: a table of N + 1 betas, one for each node. The product of 1 - beta up to a node is alpha^2 there. diffusers
  keeps the table in float32, as it keeps all its tables.
- azula: a Schedule that looks up alpha and sigma at N + 1 equally spaced times.

The score runs eagerly, or compiled by torch.compile; the loops of the libraries run in Python. Threads of PyTorch must
not wait actively between two runs, because they would take the processor from the method that runs next.
"""

import functools
import os

import numpy as np

from benchmarks.laws.mixture_score import Mixture, score_of
from jaxdiff.processes import ou

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when PyTorch is imported


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
