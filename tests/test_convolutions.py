"""Convolutions in loops: values and derivatives of the plain ones, in the order of axes that a CPU computes quickly."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import lax

from jaxdiff import kernels, sample
from jaxdiff.convolutions import fast_in_loops
from jaxdiff.curves.antithetic_errors import errors
from jaxdiff.curves.jacobian_spectrum import tridiagonals
from jaxdiff.sampling.ode import solve
from jaxdiff.training.loop import compiled_block
from jaxdiff.training.losses import path_kl_weight
from jaxdiff.training.optimiser import Settings, State, optimiser_step
from jaxdiff.training.sharding import layout_of
from jaxdiff.training.times import times_of
from jaxdiff.training.validation_loss import HeldOutLoss
from jaxdiff.types import as_score

pytestmark = pytest.mark.loose_promotion

# Shapes of x and the kernel, and what lax.conv_general_dilated is given. The axes lie in many orders.
IMAGES = ("NHWC", "HWIO", "NHWC")
CASES = {
    "plain": ((2, 6, 5, 3), (3, 2, 3, 4), {"dimension_numbers": IMAGES, "padding": "SAME"}),
    "channels first": ((2, 3, 6, 5), (4, 3, 3, 2), {"padding": "VALID"}),
    "strides": ((2, 3, 7, 6), (4, 3, 3, 3), {"window_strides": (2, 3), "padding": "SAME"}),
    "uneven padding": ((2, 3, 6, 5), (4, 3, 3, 2), {"padding": ((2, 0), (1, 3))}),
    "dilated kernel": ((2, 7, 8, 3), (3, 2, 3, 4), {"dimension_numbers": IMAGES, "rhs_dilation": (2, 3)}),
    "dilated input": (
        (3, 4, 2, 5),
        (2, 3, 3, 4),
        {"dimension_numbers": ("CHNW", "HIWO", "WCNH"), "lhs_dilation": (2, 3), "padding": ((1, 1), (2, 0))},
    ),
    "groups": ((2, 6, 5, 4), (3, 2, 2, 6), {"dimension_numbers": IMAGES, "feature_group_count": 2}),
    "batch groups": ((4, 3, 5, 4), (6, 3, 2, 2), {"batch_group_count": 2}),
    "one dimension": ((2, 3, 9), (4, 3, 3), {"window_strides": (2,), "padding": ((1, 2),)}),
}


def convolution(case):
    """The convolution (x, kernel) of a case, and its two operands."""
    shape, of_kernel, options = CASES[case]
    given = {"window_strides": (1,) * (len(shape) - 2), "padding": "VALID"} | options
    rng = np.random.default_rng(0)
    operands = (jnp.asarray(rng.normal(size=one)) for one in (shape, of_kernel))
    return lambda x, kernel: lax.conv_general_dilated(x, kernel, **given), *operands


def both(function, case):
    """What `function` makes of the fast convolution and its operands, and what it makes of the plain one."""
    plain, *operands = convolution(case)
    return [jax.jit(lambda *given: function(one, *given))(*operands) for one in (fast_in_loops(plain), plain)]  # noqa: B023


def check_close(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11), found, expected)


def total(function):
    """The function as a number that is not linear in its value."""
    return lambda *given: sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(function(*given)))


def gradient(function):
    return jax.grad(total(function), (0, 1))


@pytest.mark.parametrize("case", CASES)
def test_value_gradient_and_jvp_are_those_of_the_plain_convolution(case):
    def made(function, x, kernel):
        along = jax.jvp(function, (x, kernel), (jnp.cos(x), jnp.sin(kernel)))
        return function(x, kernel), gradient(function)(x, kernel), along

    check_close(*both(made, case))


def test_the_value_is_the_sum_over_the_window():
    _, x, kernel = convolution("channels first")
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(x), (3, 2), axis=(2, 3))
    plain, *_ = convolution("channels first")
    check_close(fast_in_loops(plain)(x, kernel), np.einsum("bihwyx,oiyx->bohw", windows, np.asarray(kernel)))


@pytest.mark.parametrize("axes", [(0, None), (None, 1), (2, 0)])
@pytest.mark.parametrize("case", ["strides", "groups"])
def test_batches_and_their_gradients_are_those_of_the_plain_convolution(case, axes):
    def made(function, x, kernel):
        given = (
            jnp.stack([one, 2 * one], axis) if axis is not None else one
            for one, axis in zip((x, kernel), axes, strict=True)
        )
        return jax.vmap(lambda *one: (function(*one), gradient(function)(*one)), axes)(*given)

    check_close(*both(made, case))


def in_a_scan(function, x, kernel):
    return lax.scan(lambda kernel, x: (kernel, function(x, kernel)), kernel, jnp.stack([x, 2 * x]))[1]


def in_a_while_loop(function, x, kernel):
    below = lambda carried: carried[0] < 2
    body = lambda carried: (carried[0] + 1, jnp.sin(carried[1]) + function(x, kernel))
    return lax.while_loop(below, body, (0, jnp.zeros_like(function(x, kernel))))[1]


def in_a_cond(function, x, kernel):
    return lax.cond(x.sum() < 1e9, function, lambda *given: 0 * function(*given), x, kernel)


def in_a_checkpoint(function, x, kernel):
    return jax.checkpoint(function)(x, kernel)


def in_a_custom_rule(function, x, kernel):
    ruled = jax.custom_vjp(function)
    ruled.defvjp(lambda *given: (function(*given), given), lambda given, back: jax.vjp(function, *given)[1](2 * back))
    return ruled(x, kernel)


def in_a_custom_jvp(function, x, kernel):
    ruled = jax.custom_jvp(function)
    ruled.defjvp(lambda given, along: (function(*given), 3 * jax.jvp(function, given, along)[1]))
    return ruled(x, kernel)


INSIDE = (in_a_scan, in_a_while_loop, in_a_cond, in_a_checkpoint, in_a_custom_rule, in_a_custom_jvp)


def names(jaxpr):
    """The names of the primitives in a jaxpr, as it is printed."""
    return set(re.findall(r"\b(conv_general_dilated|convolution_in_fast_order)\[", str(jaxpr)))


@pytest.mark.parametrize("inside", INSIDE)
def test_convolutions_in_inner_functions_are_replaced_and_keep_values_and_rules(inside):
    plain, *operands = convolution("one dimension")
    whole = lambda *given: inside(plain, *given)
    assert names(jax.make_jaxpr(whole)(*operands)) == {"conv_general_dilated"}
    assert names(jax.make_jaxpr(fast_in_loops(whole))(*operands)) == {"convolution_in_fast_order"}
    reverse = lambda function: jax.grad(total(function), 1)(*operands)
    forward = lambda function: jax.jvp(function, operands, operands)[1]
    derivative = forward if inside is in_a_while_loop else reverse
    check_close(derivative(fast_in_loops(whole)), derivative(whole))
    check_close(fast_in_loops(whole)(*operands), whole(*operands))


def test_second_derivatives_are_those_of_the_plain_convolution():
    check_close(*both(lambda function, *given: gradient(gradient(function))(*given), "one dimension"))


def test_a_function_without_convolutions_keeps_its_equations_and_its_pytrees():
    def function(given, key):
        y = lax.scan(lambda y, row: (jnp.tanh(y @ row), y), given["x"], given["rows"])[0]
        return {"y": y, "none": None, "noise": jax.random.normal(key, y.shape)}

    given = {"x": jnp.ones((2, 3)), "rows": jnp.full((4, 3, 3), 0.3)}, jax.random.key(0)
    assert str(jax.make_jaxpr(fast_in_loops(function))(*given)) == str(jax.make_jaxpr(function)(*given))
    found, expected = (jax.tree.map(np.asarray, one(*given)) for one in (fast_in_loops(function), function))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_other_platforms_get_the_plain_convolution():
    plain, *operands = convolution("channels first")
    there = lambda function: jax.export.export(jax.jit(function), platforms=["cuda"])(*operands).mlir_module()
    lines = lambda text: [re.sub(r" loc\(.*", "", line) for line in text.splitlines() if "stablehlo" in line]
    assert lines(there(fast_in_loops(plain))) == lines(there(plain))


# What follows compiles a part of the package and reads the order of the axes from the compiled program.
ORDER = re.compile(r" convolution\(.*dim_labels=([^,\s]+)")
FAST = {"b01f_01io->b01f", "b0f_0io->b0f"}
FILTERS = [np.random.default_rng(i).normal(size=(*features, 3, 3)).astype(np.float32) / 9
           for i, features in enumerate(((2, 1), (1, 2)))]  # fmt: skip


def slowly_ordered(x, t):
    """A score of images 4 x 4 as rows (n, 16), by two convolutions of features in front of space."""
    hidden = jnp.tanh(lax.conv_general_dilated(x.reshape(-1, 1, 4, 4), FILTERS[0], (1, 1), "SAME"))
    return lax.conv_general_dilated(hidden, FILTERS[1], (1, 1), "SAME").reshape(x.shape) - x


def orders(compiled):
    return set(ORDER.findall(compiled.as_text()))


def of_plain_loop():
    row = jnp.ones((3, 16), jnp.float32)
    return jax.jit(jax.grad(lambda x: lax.fori_loop(0, 3, lambda _, x: slowly_ordered(x, 0), x).sum())).lower(row)


def of_sample():
    kernel, grid = kernels.exponential_euler(as_score(slowly_ordered)), np.linspace(1, 0.1, 5)
    drawn = lambda x: sample(kernel, x, grid, jax.random.key(0)).sum()
    return jax.jit(jax.grad(drawn)).lower(jnp.ones((3, 16), jnp.float32))


def of_ode():
    return jax.jit(lambda x: solve(slowly_ordered, x, 1.0, 0.1).x).lower(jnp.ones((3, 16), jnp.float32))


ROWS, NUMBERS, TIME = jnp.ones((4, 16), jnp.float32), jnp.arange(4, dtype=jnp.uint32), jnp.float32(0.5)


def of_errors():
    given = as_score(slowly_ordered), ROWS, NUMBERS, jax.random.key(0), TIME, None, None
    return errors.lower(*given, n_noises=2, each=False, together=1)


def of_spectrum():
    return tridiagonals.lower(as_score(slowly_ordered), ROWS, NUMBERS, jax.random.key(0), TIME, n_products=2)


OPTIONS = {"weight": path_kl_weight, "horizon": 2.0, "early_stop": 0.1}


def of_held_out_loss():
    held_out = HeldOutLoss(np.ones((4, 16), np.float32), 16, 10, 4, OPTIONS)
    return jax.jit(lambda pieces: held_out.of(slowly_ordered, pieces)).lower(held_out.pieces)


class Convolved(nnx.Module):
    """A denoiser of images by two convolutions."""

    def __init__(self, rngs):
        self.enter, self.leave = (nnx.Conv(a, b, (3, 3), rngs=rngs) for a, b in ((1, 2), (2, 1)))

    def __call__(self, x, t):
        return self.leave(jnp.tanh(self.enter(x)))


def of_training():
    graph, params, others = nnx.split(Convolved(nnx.Rngs(0)), nnx.Param, ...)
    times, optimiser, layout = times_of("log_snr", 2.0, 0.1), optax.sgd(0.1), layout_of(None, False, 4)
    settings = Settings(4, 2, 0.99, times, path_kl_weight, 0.0, None, layout)
    step = optimiser_step(optimiser, lambda params: nnx.merge(graph, params, others), jax.random.key(0), settings)
    state = State(params, optimiser.init(params), params, times.start)
    return step, state, (jnp.ones((8, 4, 4, 1), jnp.float32), None), layout


PLACES = {"a gradient through sample": of_sample, "the ODE": of_ode, "errors of a denoiser": of_errors,
          "the spectrum of a Jacobian": of_spectrum, "the held-out loss": of_held_out_loss}  # fmt: skip


def test_the_order_of_convolutions_in_loops_is_read_from_programs():
    assert orders(of_plain_loop().compile()) - FAST


@pytest.mark.parametrize("place", PLACES)
def test_convolutions_in_the_loops_of_a_program_have_the_fast_order(place):
    found = orders(PLACES[place]().compile())
    assert found
    assert found <= FAST


def test_convolutions_in_training_have_the_fast_order():
    step, state, data, layout = of_training()
    found = orders(compiled_block(step, (state, jnp.zeros(3, jnp.float32)), data, layout))
    assert found
    assert found <= FAST
