"""Where a training run's arrays lie: on one device, or on a mesh with batches and parameters spread over an axis."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.arrays import Whole


class OneDevice:
    """Everything on the default device."""

    devices = 1

    def place(self, tree):
        """Arrays of the host, on the device."""
        return jax.tree.map(jnp.asarray, tree)

    state = whole = spread = staticmethod(lambda tree: tree)

    def options(self, carried):
        """Arguments of jax.jit for a block of steps."""
        return {}


class OnMesh:
    """Batches spread over the first axis of a mesh; parameters and optimiser on every device, or spread too.

    Args:
      mesh: a jax.sharding.Mesh.
      spread_parameters: spread every array of the state along its largest axis that the devices divide.
    """

    def __init__(self, mesh, spread_parameters):
        """Use the mesh with axes whose shardings the compiler propagates."""
        self.mesh = jax.sharding.Mesh(mesh.devices, mesh.axis_names)
        self.axis, self.spread_parameters = mesh.axis_names[0], spread_parameters
        self.devices = mesh.shape[self.axis]

    def sharding(self, *axes):
        """The sharding of an array over these axes of the mesh."""
        return jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec(*axes))

    def of_state(self, leaf):
        """The sharding of an array of the state."""
        fits = [axis for axis, length in enumerate(leaf.shape) if length and length % self.devices == 0]
        if not self.spread_parameters or not fits:
            return self.sharding()
        largest = max(fits, key=lambda axis: leaf.shape[axis])
        return self.sharding(*[self.axis if axis == largest else None for axis in range(largest + 1)])

    def place(self, tree):
        """Arrays of the host, copied to every device."""
        return jax.tree.map(lambda leaf: self._put(leaf, self.sharding()), tree)

    def state(self, tree):
        """A state, with its arrays as of_state says."""
        return jax.tree.map(lambda leaf: self._put(leaf, self.of_state(leaf)), tree)

    def _put(self, leaf, sharding):
        if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
            return leaf
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    def whole(self, tree):
        """The arrays, copied to every device."""
        return jax.jit(lambda tree: tree, out_shardings=self.sharding())(tree)

    def spread(self, tree):
        """Arrays of a batch inside a compiled program, spread along their first axis."""
        return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, self.sharding(self.axis)), tree)

    def options(self, carried):
        """Arguments of jax.jit for a block of steps: the results lie where the arguments lay."""
        return {"out_shardings": jax.tree.map(lambda leaf: leaf.sharding, carried)}


def layout_of(mesh: Any, spread_parameters: bool, batch_size: Whole) -> OneDevice | OnMesh:
    """The layout of a mesh, or of one device if mesh is None.

    Raises:
      ValueError: the devices do not divide the batch, or parameters are to be spread without a mesh.
    """
    if mesh is None:
        if spread_parameters:
            raise ValueError("spread_parameters = True needs a mesh: give mesh=jax.make_mesh((devices,), ('batch',)).")
        return OneDevice()
    layout = OnMesh(mesh, spread_parameters)
    if batch_size % layout.devices:
        raise ValueError(
            f"the {layout.devices} devices of axis {layout.axis!r} do not divide batch_size = {batch_size}: use a "
            f"multiple of {layout.devices}, such as {-(-batch_size // layout.devices) * layout.devices}."
        )
    return layout
