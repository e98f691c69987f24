"""Rows of an array over all devices."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def spread(x):
    """The rows of x over all devices, where there is more than one and they divide evenly."""
    devices = np.array(jax.devices())
    if len(devices) == 1 or len(x) % len(devices):
        return jnp.asarray(x)
    return jax.device_put(x, NamedSharding(Mesh(devices, ("rows",)), PartitionSpec("rows")))
