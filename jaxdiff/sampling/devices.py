"""Particles on the devices of a mesh: along which axes they are spread, and how they get there."""

import math

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def mesh_of(x) -> tuple[Mesh | None, tuple[str, ...]]:
    """The mesh and the axes over which the particles of x are spread already; (None, ()) on one device."""
    sharding = None if isinstance(x, Tracer) else x.sharding
    if not isinstance(sharding, NamedSharding) or not isinstance(sharding.mesh, Mesh) or len(sharding.device_set) == 1:
        return None, ()
    along, *others = (*sharding.spec, None)
    if along is None or any(axis is not None for axis in others):
        raise ValueError(
            f"x must be sharded along its first axis only, the particles: its sharding is {sharding.spec}. Use "
            f"jax.device_put(x, jax.NamedSharding(mesh, jax.P(mesh.axis_names)))."
        )
    return sharding.mesh, along if isinstance(along, tuple) else (along,)


def spread(x, mesh, axes, traced):
    """x spread over the mesh, with particles of zeros added if the number of devices does not divide theirs."""
    devices = math.prod(mesh.shape[axis] for axis in axes)
    if len(x) % devices:
        x = jnp.pad(x, ((0, -len(x) % devices), *[(0, 0)] * (x.ndim - 1)))
    return placed(x, mesh, PartitionSpec(axes), traced)


def placed(x, mesh, spec, traced):
    """x spread over a mesh. Inside a trace the compiler does this, unless the mesh has explicit axes."""
    sharding = NamedSharding(mesh, spec)
    if not traced:
        return jax.device_put(x, sharding)
    return jax.reshard(x, sharding) if AxisType.Explicit in mesh.axis_types else x


def device_of(x):
    """The device that x lies on; the first local one for a traced x."""
    return jax.local_devices()[0] if isinstance(x, Tracer) else next(iter(x.devices()))
