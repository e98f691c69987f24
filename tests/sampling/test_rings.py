"""Rings: which arrays of a state lie in one, and that a ring returns the states that a tuple would."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import kernels
from jaxdiff.sampling.rings import no_rings, rings_of

SCORE = lambda x, t: -x
SHAPE = jax.ShapeDtypeStruct((7, 2), jnp.float32)


def rings_for(kernel):
    grid = np.linspace(1.0, 0.1, 6)
    row = jax.tree.map(
        lambda column: jax.ShapeDtypeStruct(np.shape(column)[1:], jnp.float32), kernel.coefficients(grid)
    )
    noises = kernel.noises_per_step
    z = None if noises == 0 else jax.ShapeDtypeStruct((noises,) * (noises > 1) + SHAPE.shape, jnp.float32)
    return rings_of(kernel.step, jax.eval_shape(kernel.init, SHAPE), row, z)


# x, then the outputs at earlier nodes: of order p there are p - 1, or p with a corrector.
@pytest.mark.parametrize(
    ("kernel", "chains"),
    [
        (kernels.ddim(SCORE), ()),
        (kernels.heun(SCORE), ()),
        (kernels.dpm_solver(SCORE, 2), ()),
        (kernels.deis(SCORE, 3), ((1, 2),)),
        (kernels.exponential_adams(SCORE, 4), ((1, 2, 3),)),
        (kernels.unipc(SCORE, 3), ((1, 2, 3),)),
        (kernels.sa_solver(SCORE, 3, 3), ((1, 2),)),
    ],
)
def test_earlier_outputs_lie_in_a_ring(kernel, chains):
    assert rings_for(kernel).chains == chains


@pytest.mark.parametrize("first", range(4))
def test_a_ring_gives_back_what_a_tuple_would(first):
    rings = rings_for(kernels.unipc(SCORE, 3))
    leaf = lambda value: jnp.full((7, 2), value, jnp.float32)
    state = jax.tree.unflatten(rings.tree, map(leaf, (10.0, 1.0, 2.0, 3.0, 11.0)))
    carried = rings.packed(state, np.int32(first))
    for k in range(first, first + 5):
        now = rings.state(carried, jnp.int32(k))
        for one, other in zip(jax.tree.leaves(now), jax.tree.leaves(state), strict=True):
            np.testing.assert_array_equal(one, other)
        state = now._replace(x=leaf(20.0 + k), past=(leaf(30.0 + k), *now.past[:-1]))
        carried = rings.moved(carried, rings.new_leaves(state), jnp.int32(k))


def test_a_state_without_rings_is_carried_as_it_is():
    state = {"x": jnp.ones(3), "y": jnp.zeros(2)}
    rings = no_rings(state)
    assert rings.state(rings.packed(state, np.int32(3)), jnp.int32(3)) == state
