"""Convolutions that a CPU computes at full speed inside loops.

XLA on a CPU has a fast convolution for axes in the order (batch, space, features) with kernels (space, in, out). It
brings other orders into this one, but only outside of loops. Inside lax.scan, lax.while_loop and lax.map a convolution
of another order takes about 30 times as long. Derivatives of convolutions have other orders, so a step of training or a
gradient through a loop would be that slow.

`fast_in_loops` replaces the primitive of every convolution in a function by `convolution_p`. This primitive takes the
same parameters, and its values, derivatives and batches are those of the convolution. On a CPU it transposes its
operands to the fast order. On other backends it is the convolution itself.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, Primitive, jaxpr_as_fun
from jax.extend.core.primitives import conv_general_dilated_p
from jax.interpreters import ad, batching, mlir


def fast_in_loops(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function of pytrees of arrays, whose convolutions have full speed in loops on a CPU.

    Each call traces the function, so its Python code sees no values, as under jax.jit. The result can be differentiated
    in both modes, to any order, and batched. The convolutions of derivatives and batches are fast too, except for those
    in the rules of jax.custom_jvp and jax.custom_vjp that are applied later. Results differ by rounding from those of
    the plain convolutions; those of a function without convolutions have the same bits.
    """

    @functools.wraps(function)
    def fast(*arguments):
        # JAX keeps the trace of a function as long as the function, and structures of pytrees in caches of its own.
        leaves, tree = jax.tree.flatten(arguments)
        own = lambda *leaves: function(*jax.tree.unflatten(tree, leaves))
        closed, shapes = jax.make_jaxpr(own, return_shape=True)(*leaves)
        out = jaxpr_as_fun(_replaced(closed, {}))(*leaves)
        return jax.tree.unflatten(jax.tree.structure(shapes), out)

    return fast


def _replaced(part, seen):
    """A parameter of an equation with every convolution in its jaxprs replaced; itself where it has none.

    seen: id of a jaxpr -> (the jaxpr, its replacement). An inner function that is called often stays one function.
    """
    if isinstance(part, tuple | list):
        several = [_replaced(one, seen) for one in part]
        same = all(new is old for new, old in zip(several, part, strict=True))
        return part if same else type(part)(several)
    if isinstance(part, ClosedJaxpr) and part.jaxpr is not part:  # in jax 0.11 every jaxpr is closed
        inner = _replaced(part.jaxpr, seen)
        return part if inner is part.jaxpr else part.replace(jaxpr=inner)
    if not isinstance(part, Jaxpr):
        return part
    if id(part) not in seen:
        equations = [_of_equation(equation, seen) for equation in part.eqns]
        same = all(new is old for new, old in zip(equations, part.eqns, strict=True))
        seen[id(part)] = part, part if same else part.replace(eqns=equations)
    return seen[id(part)][1]


def _of_equation(equation, seen):
    # Under explicit sharding the parameter out_sharding refers to the order of the axes.
    if equation.primitive is conv_general_dilated_p and equation.params.get("out_sharding") is None:
        return equation.replace(primitive=convolution_p)
    params = {name: _replaced(value, seen) for name, value in equation.params.items()}
    same = all(params[name] is value for name, value in equation.params.items())
    return equation if same else equation.replace(params=params)


def _plain(x, kernel, **params):
    return conv_general_dilated_p.bind(x, kernel, **params)


def _in_fast_order(x, kernel, *, dimension_numbers, **params):
    """The convolution of operands that are transposed to the fast order."""
    of_x, of_kernel, of_out = dimension_numbers  # each: places of (batch or out, features or in, *space)
    last = len(of_x) - 1
    batch_first, out_last = (0, last, *range(1, last)), (last, last - 1, *range(last - 1))
    out = _plain(
        lax.transpose(x, (of_x[0], *of_x[2:], of_x[1])),
        lax.transpose(kernel, (*of_kernel[2:], of_kernel[1], of_kernel[0])),
        dimension_numbers=lax.ConvDimensionNumbers(batch_first, out_last, batch_first),
        **params,
    )
    return lax.transpose(out, np.argsort((of_out[0], *of_out[2:], of_out[1])))


# A convolution is linear in each operand. The plain convolution's own rules make its transpositions and batches, in
# which the convolutions are then replaced again.
def _transposed_in_x(cotangent, x, kernel, **params):
    return fast_in_loops(jax.linear_transpose(lambda x: _plain(x, kernel, **params), x.aval))(cotangent)[0]


def _transposed_in_kernel(cotangent, x, kernel, **params):
    return fast_in_loops(jax.linear_transpose(lambda kernel: _plain(x, kernel, **params), kernel.aval))(cotangent)[0]


def _batched(operands, axes, **params):
    return fast_in_loops(jax.vmap(lambda x, kernel: _plain(x, kernel, **params), axes))(*operands), 0


convolution_p = Primitive("convolution_in_fast_order")
convolution_p.def_impl(_plain)
convolution_p.def_abstract_eval(lambda *avals, **params: conv_general_dilated_p.abstract_eval(*avals, **params)[0])
ad.defbilinear(convolution_p, _transposed_in_x, _transposed_in_kernel)
batching.primitive_batchers[convolution_p] = _batched
mlir.register_lowering(convolution_p, mlir.lower_fun(_plain, multiple_results=False))
mlir.register_lowering(convolution_p, mlir.lower_fun(_in_fast_order, multiple_results=False), platform="cpu")
