"""The sweep itself: all cells, without those whose rows are there already."""

import itertools

from jaxdiff.progress import counter
from jaxdiff.sweeps.calls import called, traced
from jaxdiff.sweeps.rows import Rows, lock_of
from jaxdiff.sweeps.settings import choices_of, wanted_by, whole_numbers


def run(function, *, dims=None, seeds=None, resume=None, batch=64, mesh=None, progress=False, **settings):
    """Call a function for every dimension, setting and seed; a row, a dict, for each.

    The function is called by keyword. It names the settings that it takes, and those of the following that it needs:

    - `mask`, (max(dims),) bool: *the function is traced.* Its first d = mask.sum() coordinates exist; sums over
      coordinates must leave out the others. Dimensions, seeds and numbers are batched with vmap and spread over
      devices. The function is compiled once for each combination of the other settings.
    - `dim`, an int: the function is called once a row, with concrete values, on the host.
    - `key`: a JAX key of seed and dimension, random.fold_in(random.key(seed), dim). `seed`: the seed itself.

    Args:
      function: returns a dict of numbers (also strings, bools and None where it is not traced), or one number, which
        becomes the column "value".
      dims: dimensions, for a function with `mask` or `dim`.
      seeds: whole numbers, for a function with `key` or `seed`.
      resume: a file of JSON lines. Every finished row or batch is added to it at once, and rows that it holds already
        are not run again. A file holds the rows of one function and is used by one sweep at a time.
      batch: rows of a traced function that run, and are written, at once; rounded up to a multiple of the number of
        devices. A row takes the memory of the largest dimension. More rows use a device better and need more memory.
      mesh: a jax.sharding.Mesh; rows are spread over all its axes. The default is all devices.
      progress: show a bar.
      settings: the other arguments of the function. A sequence is swept over. So is a mapping, from the label in a row
        to the value that the function gets. Anything else is a single value. A traced function gets the numbers of a
        sequence traced, and everything else as it is.

    Returns:
      A list of dicts: dim, the settings, seed, then the function's results; in that order, with seeds fastest.

    Raises:
      ValueError: the function does not take what is given or lacks what it takes; a sequence is empty or repeats a
        value; a result is no dict of scalars or repeats a column; `resume` holds another sweep, or another sweep is
        writing to it.

    Rows of a traced function depend on batch and mesh only through rounding. They do not depend on the other dimensions
    if the draws of a coordinate do not depend on the number of coordinates: true of jaxdiff.noise, not of jax.random.
    Where several processes run the same sweep after jax.distributed.initialize(), all get all rows and the first one
    writes.
    """
    if batch < 1:
        raise ValueError(f"batch is how many rows run at once, 1 at least: batch = {batch}.")
    wanted = wanted_by(function, settings, dims, seeds)
    axes = {} if dims is None else {"dim": whole_numbers("dims", dims, 1)}
    axes |= {name: choices_of(name, value) for name, value in settings.items()}
    axes |= {} if seeds is None else {"seed": whole_numbers("seeds", seeds, 0)}
    cells = [dict(zip(axes, cell, strict=True)) for cell in itertools.product(*axes.values())]
    with lock_of(resume):
        rows = Rows(resume, list(axes), wanted)
        missing = rows.lacking(cells)
        work = traced if "mask" in wanted else called
        with counter(len(missing), "sweep", enabled=progress) as moved:
            for some, results in work(function, wanted, axes, missing, batch, mesh):
                rows.add(some, results)
                moved(len(some))
        rows.finish()
    return [rows.of(cell) for cell in cells]
