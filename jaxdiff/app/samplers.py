"""The samplers of a trained network by name: kernels, path costs, and the coordinates that the network computes in."""

import dataclasses
import functools
import inspect
from typing import Any

import numpy as np

from jaxdiff import kernels
from jaxdiff.processes import score_from_denoiser
from jaxdiff.types import Kernel

# Names of samplers: moment matching with one variance for all directions, and with one for each.
MATCHED = "moment_matched"
PER_DIRECTION = "moment_matched_per_direction"

IN_WORDS = {
    "exponential_euler": "exponential Euler",
    "ddim": "DDIM",
    "unipc": "UniPC",
    "dpm_solver": "DPM-Solver++",
    "sa_solver": "SA-Solver",
    "heun": "Heun",
}


def label_of(name: str) -> str:
    """A sampler's name in words."""
    return IN_WORDS.get(name, name.replace("_", " "))


def planned_label(name: str, options: dict[str, Any]) -> str:
    """A planned kernel and its options in words, as "unipc, order 2"."""
    said = (f"{option} {value}" if value is not True else option for option, value in options.items())
    return ", ".join(one.replace("_", " ") for one in (label_of(name), *said))


def planned_name(kernel, per_direction):
    """The name of a plan's sampler; moment matching has two, for one variance or one in each direction."""
    return PER_DIRECTION if kernel == MATCHED and per_direction else kernel


def path_cost_of(name, curve) -> Any:
    """The PathCost of a sampler in the basis of a curve; None for a kernel without a path KL."""
    if name == PER_DIRECTION:
        return dataclasses.replace(kernels.PATH_COSTS[MATCHED], basis=curve.basis)
    return kernels.PATH_COSTS.get(name)


def kernel_of(name, denoiser, curve, options=None) -> Kernel:
    """The kernel of a sampler. Moment matching sets its variance from the curve; the others need only the denoiser.

    options: keyword arguments of the kernel's constructor.

    Raises:
      ValueError: there is no such kernel, or the kernel needs more than a score.
    """
    score = score_from_denoiser(denoiser)
    if name in (MATCHED, PER_DIRECTION):
        return kernels.moment_matched(score, curve, basis=curve.basis if name == PER_DIRECTION else None)
    if name not in kernels_of_a_score():
        raise ValueError(f"kernel must be one of {', '.join(sorted([*kernels_of_a_score(), MATCHED]))}: it is {name}.")
    return getattr(kernels, name)(score, **(options or {}))


@functools.cache
def kernels_of_a_score():
    """Names of the kernels that need only a score and run in OU time."""
    others = {"langevin"}  # its grid is its own running time
    required = lambda name: [
        one for one in inspect.signature(getattr(kernels, name)).parameters.values() if one.default is one.empty
    ]
    return tuple(name for name in kernels.__all__ if len(required(name)) == 1 and name not in others)


def in_axes(run, basis=None, labels=None, guidance=1.0):
    """The denoiser of a run in the coordinates of the network's principal axes, and the axes, as `Run.in_axes`.

    None if the run has no such denoiser, or if `basis` is given and is not the network's axes.
    """
    found = run.in_axes(labels, guidance)
    return None if found is None or (basis is not None and not np.array_equal(found[1], basis)) else found
