"""The sweep: runs all cells except those whose rows are in the file already."""

import itertools
import os
from collections.abc import Callable, Iterable
from typing import Any

from jax.sharding import Mesh

from jaxdiff.arrays import Whole
from jaxdiff.progress import counter
from jaxdiff.sweeps.calls import called, traced
from jaxdiff.sweeps.rows import Rows, lock_of
from jaxdiff.sweeps.settings import choices_of, wanted_by, whole_numbers


def run(
    function: Callable[..., Any],
    *,
    dims: Iterable[Any] | None = None,
    seeds: Iterable[Any] | None = None,
    resume: str | os.PathLike | None = None,
    batch: Whole = 64,
    mesh: Mesh | None = None,
    progress: bool = False,
    **settings: Any,
) -> list[dict[str, Any]]:
    """Call a function for every dimension, setting and seed, and make a row, which is a dict, of each call.

    The function is called by keyword. Its parameters are the settings, and those of the following that it needs:

    - `mask`, (max(dims),) bool: *the function is traced.* Only the first d = mask.sum() coordinates exist, so sums over
      coordinates must leave out the others. Dimensions, seeds and numbers are batched with vmap and spread over
      devices. The function is compiled once for each combination of the other settings.
    - `dim`, an int: the function is not traced, and called once for each row with concrete values.
    - `key`: a JAX key made from seed and dimension, random.fold_in(random.key(seed), dim). `seed`: the seed itself.

    Args:
      function: returns a dict of numbers (also strings, bools and None where it is not traced), or one number, which
        becomes the column "value".
      dims: dimensions, for a function with `mask` or `dim`.
      seeds: whole numbers, for a function with `key` or `seed`.
      resume: a file of JSON lines. Every row or batch is added to it as soon as it is finished, and rows that the file
        holds already are not run again. A file is for one function, and for one sweep at a time.
      batch: how many rows of a traced function run and are written at once, rounded up to a multiple of the number of
        devices. A row takes the memory of the largest dimension. Larger batches use a device better and need more
        memory.
      mesh: a jax.sharding.Mesh; rows are spread over all its axes. The default is all devices.
      progress: show a bar.
      settings: the other arguments of the function. The sweep goes over the values of a sequence, or of a mapping from
        labels, which stand in the rows, to values, which the function gets. Anything else is a single value. For a
        traced function the numbers of a sequence are traced, and other values are not.

    Returns:
      A list of dicts with the columns dim, settings, seed and results of the function. Seeds vary fastest, then the
      last setting.

    Raises:
      ValueError: the function does not take an argument that is given, or needs one that is not; a sequence is empty or
        repeats a value; a result is not a dict of scalars, or has the name of a column; `resume` holds the rows of
        another sweep, or another sweep is writing to it.

    Rows of a traced function depend on batch and mesh only through rounding. They do not depend on the other dimensions
    if the draws of a coordinate do not depend on the number of coordinates, as those of jaxdiff.noise; the draws of
    jax.random do depend on it. If several processes run the same sweep after jax.distributed.initialize(), each of them
    returns all rows, and the first one writes the file.
    """
    if batch < 1:
        raise ValueError(f"batch must be a number of rows, 1 at least: batch = {batch}.")
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
