"""The samplers of a trained network by name: kernel, path cost, and the coordinates that the network computes in."""

import dataclasses
import functools
import inspect
from typing import Any

import numpy as np

from jaxdiff import kernels
from jaxdiff.app import run_folder
from jaxdiff.processes import score_from_denoiser
from jaxdiff.scores import denoiser_in_axes
from jaxdiff.types import Kernel

MATCHED = "moment_matched"
PER_DIRECTION = "moment_matched_per_direction"


def label_of(name: str) -> str:
    """A sampler's name in words."""
    return {"exponential_euler": "exponential Euler", "ddim": "DDIM"}.get(name, name.replace("_", " "))


def planned_name(kernel, per_direction):
    """The name of the sampler that a plan's kernel is, with a variance for each direction or one for all."""
    return PER_DIRECTION if kernel == MATCHED and per_direction else kernel


def path_cost_of(name, curve) -> Any:
    """The PathCost of a sampler in the basis of a curve; None for a kernel without a path KL."""
    if name == PER_DIRECTION:
        return dataclasses.replace(kernels.PATH_COSTS[MATCHED], basis=curve.basis)
    return kernels.PATH_COSTS.get(name)


def kernel_of(name, denoiser, curve) -> Kernel:
    """The kernel of a sampler; moment matching sets its variance from the curve, the others need the denoiser alone.

    Raises:
      ValueError: there is no such kernel, or the kernel needs more than a score.
    """
    score = score_from_denoiser(denoiser)
    if name in (MATCHED, PER_DIRECTION):
        return kernels.moment_matched(score, curve, basis=curve.basis if name == PER_DIRECTION else None)
    if name not in kernels_of_a_score():
        raise ValueError(f"kernel is one of {', '.join(sorted([*kernels_of_a_score(), MATCHED]))}: it is {name}.")
    return getattr(kernels, name)(score)


@functools.cache
def kernels_of_a_score():
    """Names of the kernels that need a score alone and run on OU times."""
    others = {"langevin"}  # runs at one time, on a clock of its own
    required = lambda name: [
        one for one in inspect.signature(getattr(kernels, name)).parameters.values() if one.default is one.empty
    ]
    return tuple(name for name in kernels.__all__ if len(required(name)) == 1 and name not in others)


def in_axes(run, basis=None):
    """The denoiser in the coordinates of the network's principal axes, and the axes; None where rows serve as well.

    They do for few columns. A basis other than the network's axes leaves the rows as they are.
    """
    if run.dataset.dim < run_folder.IN_AXES_FROM:
        return None
    denoiser, axes = denoiser_in_axes(run.network)
    return None if basis is not None and not np.array_equal(axes, basis) else (denoiser, axes)
