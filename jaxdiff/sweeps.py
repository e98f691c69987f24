"""A function over dimensions, settings and seeds: batched, sharded over devices, resumable, tidy rows out."""

import contextlib
import inspect
import itertools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from jaxdiff.files import WriteError, locked
from jaxdiff.progress import counter
from jaxdiff.sampling.static import compiler_options

BATCH = 64  # rows of a traced function that run at once
GIVEN = ("dim", "mask", "seed", "key")
MOST_SEED = 2**32


class Choice(NamedTuple):
    """One value of a setting: what rows say, what the function gets, whether a traced function gets it traced."""

    said: Any
    value: Any
    number: bool


def run(function, *, dims=None, seeds=None, resume=None, batch=BATCH, mesh=None, progress=False, **settings):
    """Call a function for every dimension, setting and seed; a row, a dict, for each.

    The function is called by keyword and names what it wants: its settings, and of the following what it needs.

    - `mask`, (max(dims),) bool: *the function is traced.* d = mask.sum() coordinates exist; sums over coordinates leave
      out the others. Dimensions, seeds and numbers are batched with vmap, and spread over devices: one compilation for
      each combination of the settings that are no sequences of numbers.
    - `dim`, an int: the function is called once a row, with concrete values, on the host.
    - `key`: a JAX key of seed and dimension, random.fold_in(random.key(seed), dim). `seed`: the seed itself.

    Args:
      function: returns a dict of numbers (also strings, bools and None where it is not traced), or one number, which
        becomes the column "value".
      dims: dimensions, for a function with `mask` or `dim`.
      seeds: whole numbers, for a function with `key` or `seed`.
      resume: a file of JSON lines, to which every finished row is added at once, or batch; rows that it holds already
        are not run again. One file for one function, and for one sweep at a time.
      batch: rows of a traced function that run, and are kept, at once; a multiple of the number of devices is made of
        it. A row takes the memory of the largest dimension.
      mesh: a jax.sharding.Mesh over all of whose axes rows are spread; default all devices there are.
      progress: show a bar.
      settings: what else the function takes. A sequence is swept over; a mapping too, from what rows say to what the
        function gets; anything else is one value. In a traced function numbers of a sequence are traced, all else is
        static.

    Returns:
      A list of dicts: dim, the settings, seed, then what the function returned; in that order, seeds fastest.

    Raises:
      ValueError: the function does not take what is given or lacks what it takes, a sequence is empty or says something
        twice, a result is no dict of scalars or repeats a column, or `resume` holds another sweep or is written to by
        one.

    Rows of a traced function do not depend on batch and mesh but for rounding; nor on the other dimensions, if draws of
    a coordinate do not depend on how many there are, as those of jaxdiff.noise do not and those of jax.random do. Where
    several processes run the same sweep after jax.distributed.initialize(), all get all rows and the first one writes.
    """
    if batch < 1:
        raise ValueError(f"batch is how many rows run at once, 1 at least: batch = {batch}.")
    wanted = _wanted(function, settings, dims, seeds)
    axes = {} if dims is None else {"dim": _whole("dims", dims, 1)}
    axes |= {name: _choices(name, value) for name, value in settings.items()}
    axes |= {} if seeds is None else {"seed": _whole("seeds", seeds, 0)}
    cells = [dict(zip(axes, cell, strict=True)) for cell in itertools.product(*axes.values())]
    with _alone(resume):
        rows = _Rows(resume, list(axes), wanted)
        missing = rows.lacking(cells)
        work = _traced if "mask" in wanted else _called
        with counter(len(missing), "sweep", enabled=progress) as moved:
            for some, results in work(function, wanted, axes, missing, batch, mesh):
                rows.add(some, results)
                moved(len(some))
        rows.finish()
    return [rows.of(cell) for cell in cells]


def over_seeds(rows):
    """Means over seeds: a row for each dimension and setting, every number with its standard error beside it.

    Args:
      rows: of `run`, with a column "seed"; what stands before it tells groups apart, numbers after it are averaged.

    Returns:
      A list of dicts, in the order of the groups' first rows: dimension and settings, "seeds", how many there are, then
      NAME and NAME_error of every number, the error None where there is one seed.
    """
    groups = {}
    for row in rows:
        names = list(row)
        groups.setdefault(json.dumps({name: row[name] for name in names[: names.index("seed")]}), []).append(row)
    return [json.loads(said) | {"seeds": len(own)} | _means(own) for said, own in groups.items()]


def _means(rows):
    names = list(rows[0])
    means = {}
    for name in names[names.index("seed") + 1 :]:
        values = [row[name] for row in rows]
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
            means |= {name: float(np.mean(values)), f"{name}_error": error}
    return means


def _wanted(function, settings, dims, seeds):
    """The names of what the function takes, once that fits what is given."""
    parameters = inspect.signature(function).parameters.values()
    named = {one.name: one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    anything = any(one.kind is one.VAR_KEYWORD for one in parameters)
    lacking = {name for name, one in named.items() if one.default is one.empty} - {*settings, *GIVEN}
    unknown = set() if anything else set(settings) - set(named)
    for names, sentence in (
        (set(settings) & set(GIVEN), "the sweep itself gives {}: choose another name for the setting."),
        (unknown, "the function does not take {}: name it among its parameters."),
        (lacking, "the function takes {}, which is not given: pass it as a setting."),
    ):
        if names:
            raise ValueError(sentence.format(", ".join(sorted(names))))
    for values, what, either in ((dims, "dims", {"dim", "mask"}), (seeds, "seeds", {"seed", "key"})):
        taken = sorted(either & set(named))
        if (values is None) == bool(taken):
            names = taken[0] if taken else " nor ".join(sorted(either))
            raise ValueError(
                f"the function takes {names}: give {what}=..."
                if taken
                else f"{what} are given, but the function takes neither {names}."
            )
    if {"dim", "mask"} <= set(named):
        raise ValueError("the function takes dim and mask: with mask it is traced, and d is mask.sum().")
    return set(named)


def _whole(name, values, least):
    """dims or seeds as choices."""
    values = list(values)
    for value in values:
        if isinstance(value, bool) or not hasattr(value, "__index__") or not least <= value < MOST_SEED:
            raise ValueError(f"{name} are whole numbers from {least} to 2^32 - 1: {value!r} is none.")
    return _distinct(name, [Choice(int(value), int(value), True) for value in values])


def _choices(name, value):
    """The choices of a setting."""
    if isinstance(value, Mapping):
        return _distinct(name, [Choice(said, one, False) for said, one in value.items()])
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        values = value.tolist() if isinstance(value, np.ndarray) else [_plain(one) for one in value]
        return _distinct(name, [Choice(_said(name, one), one, _is_number(one)) for one in values])
    return [Choice(_said(name, _plain(value)), value, False)]


def _distinct(name, choices):
    said = [json.dumps(choice.said) for choice in choices]
    if not said:
        raise ValueError(f"{name} is empty: there is nothing to sweep over.")
    if len(set(said)) < len(said):
        raise ValueError(f"{name} holds {max(said, key=said.count)} more than once.")
    return choices


def _said(name, value):
    if value is None or isinstance(value, str | bool | int | float):
        return value
    label = getattr(value, "__name__", None)
    if label is None:
        raise ValueError(f"rows cannot say {value!r}: pass {name} as a mapping from a label to it.")
    return label


def _plain(value):
    """NumPy's scalars as Python's."""
    return value.item() if isinstance(value, np.generic) else value


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def _called(function, wanted, axes, cells, batch, mesh):
    """(cells, results) of a function that is called, one by one."""
    for cell in cells:
        given = {name: choice.value for name, choice in cell.items()}
        yield [cell], [_scalars(function(**_filled(given, wanted)))]


def _traced(function, wanted, axes, cells, batch, mesh):
    """(cells, results) of a function that is traced, in batches."""
    mesh = jax.make_mesh((jax.device_count(),), ("rows",)) if mesh is None else mesh
    traced = [name for name, choices in axes.items() if all(choice.number for choice in choices)]
    kinds = {name: _kind(name, [choice.value for choice in axes[name]]) for name in traced}
    groups = {}
    for cell in cells:
        fixed = {name: choice for name, choice in cell.items() if name not in traced}
        groups.setdefault(_name(fixed), (fixed, []))[1].append(cell)
    width = max(choice.value for choice in axes["dim"])
    for fixed, own in groups.values():
        many = _compiled(function, wanted, {name: choice.value for name, choice in fixed.items()}, width, mesh)
        size = -(-min(batch, len(own)) // mesh.size) * mesh.size
        for first in range(0, len(own), size):
            some = own[first : first + size]
            full = [*some, *some[:1] * (size - len(some))]
            columns = {name: np.array([cell[name].value for cell in full], kinds[name]) for name in traced}
            results = jax.device_get(many(columns))
            yield some, [_scalars(jax.tree.map(lambda column, i=i: column[i], results)) for i in range(len(some))]


def _kind(name, values):
    """The dtype of traced numbers; whole ones that JAX would wrap are refused."""
    if name == "seed":
        return np.dtype(np.uint32)
    kind = np.result_type(*map(type, values))
    if kind.kind == "i" and max(map(abs, values)) > np.iinfo(jax.dtypes.canonicalize_dtype(kind)).max:
        raise ValueError(f"{name} = {max(values, key=abs)} does not fit 32 bits: set jax_enable_x64.")
    return kind


def _compiled(function, wanted, fixed, width, mesh):
    """Columns (batch,) of what is traced -> columns of results, whole on every device."""

    def one(columns):
        mask = jnp.arange(width) < columns["dim"]
        return jax.tree.map(jnp.asarray, function(**_filled(columns | fixed | {"mask": mask}, wanted)))

    along = PartitionSpec(mesh.axis_names)
    many = jax.shard_map(jax.vmap(one), mesh=mesh, in_specs=along, out_specs=along, check_vma=False)
    compiled = jax.jit(
        many,
        out_shardings=NamedSharding(mesh, PartitionSpec()),
        compiler_options=compiler_options(mesh.devices.flat[0].platform),
    )
    return lambda columns: compiled(jax.device_put(columns, NamedSharding(mesh, along)))


def _filled(given, wanted):
    """The arguments of a call: what is given of what is wanted, and the key."""
    if "key" in wanted:
        key = jax.random.key(given["seed"])
        given["key"] = jax.random.fold_in(key, given["dim"]) if "dim" in given else key
    return {name: value for name, value in given.items() if name in wanted or name not in GIVEN}


def _scalars(result):
    """A result as a dict of Python's scalars."""
    result = result if isinstance(result, Mapping) else {"value": result}
    return {name: _scalar(name, value) for name, value in result.items()}


def _scalar(name, value):
    value = value.item() if hasattr(value, "item") and np.ndim(value) == 0 else value
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ValueError(f"a sweep's function returns scalars: {name} has shape {np.shape(value)}.")


def _name(cell):
    """What tells a cell from others."""
    return json.dumps([[name, choice.said] for name, choice in cell.items()])


@contextlib.contextmanager
def _alone(path):
    """Hold the file of a sweep until its end. Of several processes of one sweep the first does, which writes."""
    with contextlib.ExitStack() as stack:
        if path is not None and jax.process_index() == 0:
            path = pathlib.Path(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                path.touch()
            try:
                stack.enter_context(locked(path, wait=False))
            except BlockingIOError:
                raise ValueError(
                    f"another sweep is writing to {path}: wait for its end, or give each a file of its own."
                ) from None
        yield


class _Rows:
    """Rows by cell, in a file too if there is one."""

    def __init__(self, path, names, wanted):
        self.path = None if path is None else pathlib.Path(path)
        self.rows = {}
        if self.path is None:
            return
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        whole = text[: text.rfind("\n") + 1]  # what was cut off while it was written is not whole
        for row in map(json.loads, whole.splitlines()):
            if list(row)[: len(names)] != names or {*wanted, *GIVEN} & set(list(row)[len(names) :]):
                raise ValueError(
                    f"{self.path} holds another sweep, of {', '.join(list(row))}: give each a file of its own."
                )
            self.rows[json.dumps([[name, row[name]] for name in names])] = row
        if whole != text and jax.process_index() == 0:
            self.path.write_text(whole, encoding="utf-8")

    def lacking(self, cells):
        """The cells without a row, the same in every process."""
        there = np.array([_name(cell) in self.rows for cell in cells])
        if self.path is not None and jax.process_count() > 1:
            counts = multihost_utils.process_allgather(np.array([len(there), there.sum()]))
            if (counts != counts[0]).any():
                raise ValueError(f"processes read different rows from {self.path}: put it where all of them see it.")
        return [cell for cell, one in zip(cells, there, strict=True) if not one]

    def add(self, cells, results):
        """Keep rows."""
        rows = []
        for cell, result in zip(cells, results, strict=True):
            if repeated := set(cell) & set(result):
                raise ValueError(f"the function returns {', '.join(sorted(repeated))}, which is a column already.")
            rows.append({name: choice.said for name, choice in cell.items()} | result)
            self.rows[_name(cell)] = rows[-1]
        if self.path is not None and jax.process_index() == 0:
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write("".join(json.dumps(row) + "\n" for row in rows))
            except OSError as error:
                raise WriteError(error.errno, error.strerror, str(self.path)) from error

    def finish(self):
        """Wait until all that is kept is written: the next sweep reads it, in every process."""
        if self.path is not None and jax.process_count() > 1:
            multihost_utils.sync_global_devices("sweep written")

    def of(self, cell):
        """The row of a cell."""
        return self.rows[_name(cell)]
