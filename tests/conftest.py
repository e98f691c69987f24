"""float64 and strict dtype promotion in every test."""

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(autouse=True)
def _promotion(request):
    """Tests marked loose_promotion run under standard promotion: Optax's adam and ema raise under strict."""
    if request.node.get_closest_marker("loose_promotion") is None:
        yield
        return
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(autouse=True, scope="module")
def _few_programs():
    """Compiled programs are let go of with their file: thousands of them reach the limit of a process's memory maps."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def compile_quickly():
    """Half the compile time, for files whose tests compile much and time nothing."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def key():
    return jax.random.key(2)
