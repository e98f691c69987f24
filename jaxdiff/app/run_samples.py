"""Samples of a trained run, made and written in parts, so that they need not fit into memory."""

import csv
import dataclasses
import itertools
import pathlib
import shutil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import noise
from jaxdiff.app import run_folder
from jaxdiff.app.samplers import MATCHED, PER_DIRECTION, in_axes, kernel_of, path_cost_of, planned_name
from jaxdiff.guarantees import information
from jaxdiff.planning.best_grid import best
from jaxdiff.planning.grid_shapes import resampled
from jaxdiff.progress import bar
from jaxdiff.sampling.sample import sample, trajectory
from jaxdiff.scores import denoiser_of
from jaxdiff.types import Sampler

NUMBERS_AT_ONCE = 2**23  # default limit on rows times columns in a part: 32 MB in float32
MOST = 2**32  # limit on the number of samples, because particle indices are 32-bit here
SHOWN = 1000  # the most samples that are kept for the picture
ENDINGS = (".npy", ".csv", ".tsv")
LEAST_BYTES = 2  # least size of a number in a text file: one digit and one separator


class Chosen(NamedTuple):
    """The sampler that a run is sampled with.

    Attributes:
      sampler: kernel and grid.
      planned: whether kernel and grid are those of the plan, so that its certificate holds for them.
      axes: (d, d) float32. The kernel works in the coordinates x @ axes of rows x; None: in those of the rows.
    """

    sampler: Sampler
    planned: bool
    axes: np.ndarray | None = None


def chosen(run, plan, kernel=None, evals=None) -> Chosen:
    """The sampler of a plan, or another kernel, or the plan's kernel with another number of evaluations.

    The planned kernel of a plan in W2 gets the shape of the planned grid with another number of steps. Another kernel
    gets its best grid for the held-out curve, or, where it has no path KL, the best grid of moment matching. If there
    are many columns, the network computes in the coordinates of its principal axes (`samplers.in_axes`).

    Raises:
      ValueError: there is no such kernel, the kernel needs more than a score, or evals do not suffice for a step.
    """
    name = planned_name(plan["kernel"] if kernel is None else kernel, plan["per_direction"])
    planned = kernel in (None, plan["kernel"]) and evals in (None, plan["evals"])
    matching = planned_name(MATCHED, plan["per_direction"])
    curve = run_folder.measured(run, "held_out") if not planned or name == matching else None
    found = in_axes(run, None if curve is None or name != PER_DIRECTION else curve.basis)
    denoiser, axes = (denoiser_of(run.network), None) if found is None else (found[0], found[1].astype(np.float32))
    options = plan["options"] if kernel in (None, plan["kernel"]) else {}
    if curve is None:
        return Chosen(Sampler(kernel_of(name, denoiser, None, options), plan["grid"]), True, axes)
    in_coordinates = axes is not None and name == PER_DIRECTION  # then the axes are the basis of the curve
    own = dataclasses.replace(curve, basis="coordinates") if in_coordinates else curve
    built = kernel_of(name, denoiser, own, options)
    if planned:
        return Chosen(Sampler(built, plan["grid"]), True, axes)
    evals = plan["evals"] if evals is None else evals
    if evals < built.evals_per_step:
        raise ValueError(
            f"a step of {name} takes {built.evals_per_step} evaluations: evals = {evals}. Give at least as many."
        )
    n_steps = evals // built.evals_per_step
    if plan["metric"] == "w2" and kernel in (None, plan["kernel"]):
        return Chosen(Sampler(built, resampled(plan["grid"], n_steps)), False, axes)
    cost = path_cost_of(name, curve)
    if cost is None or cost.uses == "log_det":
        cost = path_cost_of(matching, curve)
    grid = best(cost, curve, run.horizon, run.early_stop, n_steps)
    return Chosen(Sampler(built, grid), False, axes)


def parts(run, chosen: Chosen, n, seed, *, at_once=None, denoise=True, rounded=False, progress=False):
    """Yield n samples in the units of the data, in parts (at_once, d) of float64.

    Sample i depends only on the seed and on i, up to the rounding of matrix products. It does not depend on n or
    at_once.

    Args:
      run: the trained run.
      chosen: its sampler, from `chosen`.
      n: the number of samples.
      seed: seed of the starting positions and of the noise.
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
        # The last part is run as long as the others, so that nothing is compiled for its length, and cut afterwards.
        options = {"first_particle": first, "denoise": denoise, "progress": progress and not many}
        drawn = _rotated(sample(chosen.sampler, x, key=key, **options), back)
        drawn = np.asarray(drawn)[: n - first]
        if not np.isfinite(drawn).all():
            raise ValueError(_fault(chosen.sampler, x, key, first, drawn))
        yield run.dataset.restore(drawn, rounded=rounded)


def _start(key, first, n, dim, dtype):
    """Draws of N(0, I) for the particles first, ..., first + n - 1."""
    return noise.initial(key, jnp.asarray(np.arange(first, first + n).astype(np.uint32)), dim, dtype)


def _rotated(x, axes):
    return x if axes is None else jnp.matmul(x, axes, precision="highest")


def _fault(sampler, x, key, first, drawn):
    """A sentence on the step at which the first non-finite sample stops being finite; that sample is run again."""
    place = int(np.argmin(np.isfinite(drawn).all(axis=1)))
    count = int(np.count_nonzero(~np.isfinite(drawn).all(axis=1)))
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
    noised = information.early_stopping_w2(moment, run.dataset.dim, t)
    if not denoise:
        return f"The law that samples approximate is within W2 = {noised:.3g} of the data, in standardised columns."
    denoised = information.denoised_w2(run_folder.measured(run, "held_out"), t)
    return (
        f"The law that samples approximate is within W2 = {denoised:.3g} of the data, in standardised columns "
        f"(from the loss on the held-out rows at t = {t:g}). Without the denoising step it is within {noised:.3g}."
    )


def write(path, rows, n, dim, names=None):
    """Write n rows, which come in parts, into a .npy, .csv or .tsv file; text files start with the columns' names.

    Args:
      path: a new file.
      rows: the parts, arrays (rows, dim) whose rows are n together.
      n, dim: the shape of the parts together.
      names: the names of the columns, or None.

    Returns:
      The first rows of the first part, 1,000 at most.
    """
    first, rows = _peek(rows)
    if path.suffix == ".npy":
        with path.open("wb") as stream:
            header = {"descr": "<f8", "fortran_order": False, "shape": (n, dim)}
            np.lib.format.write_array_header_1_0(stream, header)
            for part in rows:
                stream.write(np.ascontiguousarray(part, "<f8").data)
        return first
    with path.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, delimiter="\t" if path.suffix == ".tsv" else ",", lineterminator="\n")
        if names:
            table.writerow(names)
        for part in rows:
            table.writerows([[int(x) if x.is_integer() else x for x in row] for row in part.tolist()])
    return first


def _peek(parts):
    """The first rows of the first part, and an iterator over all parts."""
    parts = iter(parts)
    part = next(parts)
    return part[:SHOWN].copy(), itertools.chain([part], parts)


def check_room(path, n, dim):
    """Raise ValueError unless n samples can be written to `path`: its ending is known, and the disk has enough room."""
    path = pathlib.Path(path)
    if not 1 <= n <= MOST:
        raise ValueError(f"the number of samples must lie between 1 and {MOST}: n = {n}.")
    if path.suffix not in ENDINGS:
        raise ValueError(f"{path} ends in {path.suffix or 'nothing'}: samples are written to {', '.join(ENDINGS)}.")
    there = next(folder for folder in path.absolute().parents if folder.exists())
    free, needed = shutil.disk_usage(there).free, n * dim * (8 if path.suffix == ".npy" else LEAST_BYTES)
    if needed > free:
        raise ValueError(
            f"{n} samples of {dim} columns take {_size(needed)} at least, and {_size(free)} are free at {there}: draw "
            f"fewer samples, or choose another place with --out."
        )


def _size(count):
    """A number of bytes as a text with its unit."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:,.4g} TB" if count < 1e6 else f"{count:.1e} TB"
