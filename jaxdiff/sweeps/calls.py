"""Calls of a sweep's function: once for each row, or traced and in batches of rows on all devices."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxdiff.sampling.static import compiler_options
from jaxdiff.sweeps.settings import GIVEN, name_of


def called(function, wanted, axes, cells, batch, mesh):
    """Yield (cells, results) of a function that is called for one cell at a time."""
    for cell in cells:
        given = {name: choice.value for name, choice in cell.items()}
        yield [cell], [_scalars(function(**_arguments(given, wanted)))]


def traced(function, wanted, axes, cells, batch, mesh):
    """Yield (cells, results) of a function that is traced, batch by batch.

    Cells whose settings agree, except for the traced ones, form a group. The function is compiled once for each group.
    """
    mesh = jax.make_mesh((jax.device_count(),), ("rows",)) if mesh is None else mesh
    names = [name for name, choices in axes.items() if all(choice.number for choice in choices)]
    dtypes = {name: _dtype(name, [choice.value for choice in axes[name]]) for name in names}
    groups = {}
    for cell in cells:
        fixed = {name: choice for name, choice in cell.items() if name not in names}
        groups.setdefault(name_of(fixed), (fixed, []))[1].append(cell)
    width = max(choice.value for choice in axes["dim"])
    for fixed, group in groups.values():
        many = _compiled(function, wanted, {name: choice.value for name, choice in fixed.items()}, width, mesh)
        size = -(-min(batch, len(group)) // mesh.size) * mesh.size
        for first in range(0, len(group), size):
            some = group[first : first + size]
            full = [*some, *some[:1] * (size - len(some))]
            columns = {name: np.array([cell[name].value for cell in full], dtypes[name]) for name in names}
            results = jax.device_get(many(columns))
            yield some, [_scalars(jax.tree.map(lambda column, i=i: column[i], results)) for i in range(len(some))]


def _dtype(name, values):
    """The dtype of traced numbers; raises ValueError for whole numbers that JAX would truncate to 32 bits."""
    if name == "seed":
        return np.dtype(np.uint32)
    dtype = np.result_type(*map(type, values))
    if dtype.kind == "i" and max(map(abs, values)) > np.iinfo(jax.dtypes.canonicalize_dtype(dtype)).max:
        raise ValueError(f"{name} = {max(values, key=abs)} does not fit into 32 bits: set jax_enable_x64.")
    return dtype


def _compiled(function, wanted, fixed, width, mesh):
    """A compiled function from columns (batch,) to columns of results, which every device holds in full."""

    def one(columns):
        mask = jnp.arange(width) < columns["dim"]
        return jax.tree.map(jnp.asarray, function(**_arguments(columns | fixed | {"mask": mask}, wanted)))

    along = PartitionSpec(mesh.axis_names)
    many = jax.shard_map(jax.vmap(one), mesh=mesh, in_specs=along, out_specs=along, check_vma=False)
    compiled = jax.jit(
        many,
        out_shardings=NamedSharding(mesh, PartitionSpec()),
        compiler_options=compiler_options(mesh.devices.flat[0].platform),
    )
    return lambda columns: compiled(jax.device_put(columns, NamedSharding(mesh, along)))


def _arguments(given, wanted):
    """The arguments of a call: the key, and those of `given` that the function takes."""
    if "key" in wanted:
        key = jax.random.key(given["seed"])
        given["key"] = jax.random.fold_in(key, given["dim"]) if "dim" in given else key
    return {name: value for name, value in given.items() if name in wanted or name not in GIVEN}


def _scalars(result):
    """A result as a dict of Python scalars."""
    result = result if isinstance(result, Mapping) else {"value": result}
    return {name: _scalar(name, value) for name, value in result.items()}


def _scalar(name, value):
    value = value.item() if hasattr(value, "item") and np.ndim(value) == 0 else value
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ValueError(
        f"the function of a sweep must return scalars: {name} has shape {np.shape(value)}. Return a mean, for example."
    )
