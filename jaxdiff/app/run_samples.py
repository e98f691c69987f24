"""Samples of a trained run, made in parts, so that they need not fit into memory."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import noise
from jaxdiff.app import run_folder
from jaxdiff.app.samplers import MATCHED, PER_DIRECTION, in_axes, kernel_of, path_cost_of, planned_name
from jaxdiff.conditions import with_conditions
from jaxdiff.guarantees import information
from jaxdiff.planning.best_grid import best
from jaxdiff.planning.grid_shapes import resampled
from jaxdiff.progress import bar
from jaxdiff.sampling.sample import sample, trajectory
from jaxdiff.types import Sampler

NUMBERS_AT_ONCE = 2**23  # default limit on rows times columns in a part: 32 MB in float32
GOLDEN = (5**0.5 - 1) / 2


class Chosen(NamedTuple):
    """The sampler that a run is sampled with.

    Attributes:
      sampler: kernel and grid. Where the network takes labels, its score has one, which `labelled` replaces.
      planned: whether kernel, grid and guidance are those of the plan, so that its certificate holds for them.
      axes: (d, d) float32. The kernel works in the coordinates x @ axes of rows x; None: in those of the rows.
    """

    sampler: Sampler
    planned: bool
    axes: np.ndarray | None = None

    def labelled(self, labels: Any) -> Sampler:
        """The sampler of particles with these labels (n,); as it is where labels is None."""
        if labels is None:
            return self.sampler
        score = with_conditions(self.sampler.kernel.score, lambda leaf: jnp.asarray(labels, leaf.dtype))
        return dataclasses.replace(self.sampler, kernel=dataclasses.replace(self.sampler.kernel, score=score))


def chosen(run, plan, kernel=None, evals=None, guidance=None) -> Chosen:
    """The sampler of a plan, or another kernel, or the plan's kernel with another number of evaluations or guidance.

    The planned kernel of a plan in W2 gets the shape of the planned grid with another number of steps. Another kernel
    gets its best grid for the held-out curve, or, where it has no path KL, the best grid of moment matching. If there
    are many columns, the network computes in the coordinates of its principal axes (`samplers.in_axes`).

    Raises:
      ValueError: there is no such kernel, the kernel needs more than a score, evals do not suffice for a step, or the
        network takes no labels and guidance is not 1.
    """
    guidance = plan["guidance"] if guidance is None else guidance
    name = planned_name(plan["kernel"] if kernel is None else kernel, plan["per_direction"])
    same_grid = kernel in (None, plan["kernel"]) and evals in (None, plan["evals"])
    planned = same_grid and guidance == plan["guidance"]
    matching = planned_name(MATCHED, plan["per_direction"])
    curve = run_folder.measured(run, "held_out") if not same_grid or name == matching else None
    labels = None if run.classes is None else np.zeros(1, np.int32)
    found = in_axes(run, None if curve is None or name != PER_DIRECTION else curve.basis, labels, guidance)
    denoiser, axes = (run.denoiser(labels, guidance), None) if found is None else found
    axes = None if axes is None else axes.astype(np.float32)
    options = plan["options"] if kernel in (None, plan["kernel"]) else {}
    if curve is None:
        return Chosen(Sampler(kernel_of(name, denoiser, None, options), plan["grid"]), planned, axes)
    in_coordinates = axes is not None and name == PER_DIRECTION  # then the axes are the basis of the curve
    own = dataclasses.replace(curve, basis="coordinates") if in_coordinates else curve
    built = kernel_of(name, denoiser, own, options)
    if same_grid:
        return Chosen(Sampler(built, plan["grid"]), planned, axes)
    return Chosen(Sampler(built, _another_grid(run, plan, curve, built, name, kernel, evals)), False, axes)


def _another_grid(run, plan, curve, built, name, kernel, evals):
    """The grid of another kernel than the planned one, or of another number of evaluations."""
    evals = plan["evals"] if evals is None else evals
    if evals < built.evals_per_step:
        raise ValueError(
            f"a step of {name} takes {built.evals_per_step} evaluations: evals = {evals}. Give at least as many."
        )
    n_steps = evals // built.evals_per_step
    if plan["metric"] == "w2" and kernel in (None, plan["kernel"]):
        return resampled(plan["grid"], n_steps)
    cost = path_cost_of(name, curve)
    if cost is None or cost.uses == "log_det":
        cost = path_cost_of(planned_name(MATCHED, plan["per_direction"]), curve)
    return best(cost, curve, run.horizon, run.early_stop, n_steps)


def labels_of(run, label=None) -> Callable[[Any], np.ndarray] | None:
    """A function from the numbers of samples (m,) to their labels (m,) int32; None where the network takes none.

    label: the name of the class of all samples. Without it the classes have the shares of the train rows: sample i has
      the class in which the fractional part of (i + 1/2) times the golden ratio falls. The shares of any n samples in
      a row then differ from those of the train rows by about log(n)/n.

    Raises:
      ValueError: there is no class of this name, or the network takes no labels.
    """
    classes = run.classes
    if label is not None and classes is None:
        raise ValueError(
            f"--label {label} needs a network that takes labels, and that of {run.folder} takes none: leave --label "
            f"out, or train on data with labels."
        )
    if classes is None:
        return None
    if label is not None:
        if label not in classes:
            shown = ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else "")
            raise ValueError(f"label must be one of the {len(classes)} classes {shown}: it is {label}.")
        return lambda index: np.full(len(index), classes.index(label), np.int32)
    counts = np.bincount(run.labels("train"), minlength=len(classes))
    ends = np.cumsum(counts)[:-1] / counts.sum()
    return lambda index: np.searchsorted(ends, (index + 0.5) * GOLDEN % 1, side="right").astype(np.int32)


def parts(run, chosen: Chosen, n, seed, *, labels=None, at_once=None, denoise=True, rounded=False, progress=False):
    """Yield n samples in the units of the data, in parts (at_once, d) of float64; images as they are in the file.

    Sample i depends only on the seed and on i, up to the rounding of matrix products. It does not depend on n or
    at_once.

    Args:
      run: the trained run.
      chosen: its sampler, from `chosen`.
      n: the number of samples.
      seed: seed of the starting positions and of the noise.
      labels: from `labels_of`; it must be given where the network takes labels.
      at_once: rows in a part; by default a part has at most 2^23 numbers.
      denoise: as in `sample`.
      rounded: round the columns that hold only whole numbers in the data.
      progress: show a bar.

    Raises:
      ValueError: a sample is not finite. The message has the number of the sample and the step.
    """
    dim, key, axes = run.dataset.dim, jax.random.key(seed), chosen.axes
    back = None if axes is None else axes.T
    at_once = min(n, max(1, NUMBERS_AT_ONCE // dim) if at_once is None else at_once)
    many = at_once < n
    for first in bar(range(0, n, at_once), "sample", enabled=progress and many):
        x = _rotated(_start(key, first, at_once, dim, run.dataset.train.dtype), axes)
        own = None if labels is None else labels(first + np.arange(at_once))
        # The last part is run as long as the others, so that nothing is compiled for its length, and cut afterwards.
        options = {"first_particle": first, "denoise": denoise, "progress": progress and not many}
        drawn = _rotated(sample(chosen.labelled(own), x, key=key, **options), back)
        drawn = np.asarray(drawn)[: n - first]
        if not np.isfinite(drawn).all():
            raise ValueError(_fault(chosen, own, x, key, first, drawn))
        yield run.restore(drawn, rounded=rounded)


def _start(key, first, n, dim, dtype):
    """Draws of N(0, I) for the particles first, ..., first + n - 1."""
    return noise.initial(key, jnp.asarray(np.arange(first, first + n).astype(np.uint32)), dim, dtype)


def _rotated(x, axes):
    return x if axes is None else jnp.matmul(x, axes, precision="highest")


def _fault(chosen, labels, x, key, first, drawn):
    """A sentence on the step at which the first non-finite sample stops being finite; that sample is run again."""
    place = int(np.argmin(np.isfinite(drawn).all(axis=1)))
    count = int(np.count_nonzero(~np.isfinite(drawn).all(axis=1)))
    sampler = chosen.labelled(None if labels is None else labels[place : place + 1])
    grid, n_steps = sampler.grid, sampler.n_steps
    again = {"first_particle": first + place}
    path = np.asarray(trajectory(sampler, x[place : place + 1], key=key, save_at=grid[1:], **again))[:, 0]
    finite = np.isfinite(path).all(axis=1)
    where = "in the denoising step"
    if not finite.all():
        k = int(np.argmin(finite))
        where = f"from step {k + 1} of {n_steps} on, t = {grid[k]:.4g} to {grid[k + 1]:.4g}"
    return (
        f"{count} of {len(drawn)} samples are not finite, first sample {first + place}, {where}: nothing was written. "
        f"Check the network at these times, or train again."
    )


def early_stopping(run, *, denoise):
    """A sentence on the W2 distance to the data of the law that the samples approximate, from the held-out rows."""
    t, moment = run.early_stop, run.dataset.second_moment("held_out")
    units = "in standardised columns" if run.dataset.pixels is None else "in pixels from -1 to 1"
    noised = information.early_stopping_w2(moment, run.dataset.dim, t)
    if not denoise:
        return f"The law that samples approximate is within W2 = {noised:.3g} of the data, {units}."
    denoised = information.denoised_w2(run_folder.measured(run, "held_out"), t)
    return (
        f"The law that samples approximate is within W2 = {denoised:.3g} of the data, {units} "
        f"(from the loss on the held-out rows at t = {t:g}). Without the denoising step it is within {noised:.3g}."
    )
