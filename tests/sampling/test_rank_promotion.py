"""What users forbid by jax_numpy_rank_promotion="raise", no kernel and no law does."""

import family
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import noise, sample, targets

KEY = jax.random.key(0)
TURNED = [[1.0, 0.3], [0.3, 0.5]]
CENTRES = np.random.default_rng(0).normal(size=(40, 2))
LAWS = {
    "gaussian": targets.gaussian([0.0, 1.0], [1.0, 0.5]),
    "gaussian with axes": targets.gaussian([0.0, 1.0], TURNED),
    "few components": family.LAW,
    "few with axes": targets.mixture([0.5, 0.5], CENTRES[:2], [TURNED, TURNED]),
    "many components": targets.mixture(np.full(40, 1 / 40), CENTRES, np.linspace(0.1, 1, 80).reshape(40, 2)),
    "points": targets.point_masses(CENTRES),
}


# Traced and not compiled: ranks are compared while tracing.
@pytest.mark.parametrize("name", family.BY_STEP)
def test_kernels_promote_no_ranks(name):
    kernel = family.make(name)
    grid = family.grid_of(kernel, 3)
    with jax.numpy_rank_promotion("raise"):
        found = jax.eval_shape(lambda x: sample(kernel, x, grid, KEY), jax.ShapeDtypeStruct((8, 2), jnp.float32))
    assert found.shape == (8, 2)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("shape", [(2,), (5, 2), (3, 5, 2)], ids=str)
def test_laws_promote_no_ranks(law, shape):
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    with jax.numpy_rank_promotion("raise"):
        assert jax.eval_shape(lambda x: law.score(x, 0.3), x).shape == shape
        assert jax.eval_shape(lambda x: law.log_density(x, 0.3), x).shape == shape[:-1]
        assert jax.eval_shape(lambda: law.sample(KEY, 4)).shape == (4, 2)
        assert jax.eval_shape(lambda: noise.initial(KEY, jnp.arange(4), 2)).shape == (4, 2)
