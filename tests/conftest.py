"""float64, strict dtype promotion and checked annotations in every test."""

import gc
import pathlib

import jax
import jaxtyping
import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "jaxdiff"
# Modules whose functions run thousands of times within one call of a public function. Checking each of these calls
# doubles the time of plans and certificates; their annotations are checked by pyright alone.
INNER = {
    "arrays",
    "checks",
    "legendre",
    "curves.curve",
    "curves.interpolation",
    "curves.panels",
    "guarantees.bounds.brackets",
    "guarantees.step_cost",
    "processes.ou",
    "processes.process",
    "targets.components",
    "targets.distinct_covariances",
    "targets.mmse",
    "targets.posterior_weights",
    "targets.shared_covariance",
}
MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py")}
CHECKED = [f"jaxdiff.{name}" for name in sorted(MODULES - INNER) if not name.endswith("__init__")]
assert INNER <= MODULES
jaxtyping.install_import_hook(CHECKED, "beartype.beartype")

gc.set_threshold(100_000, 50, 100)  # tracing makes many objects, few of which are garbage
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


@pytest.fixture
def key():
    return jax.random.key(2)
