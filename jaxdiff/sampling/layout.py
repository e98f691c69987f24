"""How a run is laid out, read off the score's jaxpr: what fuses, which axis is fast, how many particles at a time.

None of this changes a draw: the noise is the same whatever is chosen here.
"""

import itertools
import math
from typing import NamedTuple

from jax.extend import core

# Primitives that act coordinate by coordinate: a score of these alone fuses with the noise and the steps around it.
ARITHMETIC = frozenset(
    """abs add broadcast_in_dim convert_element_type copy div integer_pow max min mul neg select_n sign sqrt square
    stop_gradient sub""".split()  # noqa: SIM905
)
ELEMENTWISE = ARITHMETIC | frozenset(
    """and atan2 cbrt ceil clamp cos cosh eq erf erfc exp exp2 expm1 floor ge gt is_finite le log log1p logistic lt ne
    not or pow reduce_precision rem round rsqrt sin sinh tan tanh xor""".split()  # noqa: SIM905
)
PRODUCTS, LOOPS = frozenset({"dot_general", "conv_general_dilated"}), frozenset({"scan", "while", "cond"})
MOST_EQUATIONS, FEW_EQUATIONS = 64, 12  # of a score that is fused; that is written out for more than two steps
MOST_WRITTEN_OUT = 4  # steps; more run a little faster and compile a second longer
MARK = 8191  # particles to trace with, or a few more: a prime, so that no product of other sizes is equal to it
ROUND_MARK = 384_000  # particles, or a multiple: 2^10 3 5^3, so that batches of usual sizes leave no rest
FAST_AXIS = 128  # particles that fill a vector unit
FEW_COORDINATES = 16  # below, particles lie on the fast axis whatever the score
# Coordinates a chunk on a CPU: what every step reads again should be in the fastest cache; matrix products and fused
# loops, which read it once in several steps, lose more to short loops than to memory.
CACHED, STREAMED = 2**16, 2**20


class Traits(NamedTuple):
    """What a score does to its particles.

    elementwise: every coordinate by itself. arithmetic: by a few of +, -, x, / alone. products: it holds matrix
    products or convolutions.
    """

    elementwise: bool
    arithmetic: bool
    products: bool


class Schedule(NamedTuple):
    """chunk: particles that run down the whole grid before the next ones start. particles_last: state is (d, n).

    unroll: steps a body of the scan. fused: they are written out, to become one loop over particles and coordinates.
    """

    chunk: int
    particles_last: bool
    unroll: int
    fused: bool


def traits(jaxpr, n) -> Traits:
    """Read the jaxpr of a score, traced with n particles; equations without an axis of n do not count."""
    names = list(_primitives(jaxpr, n))
    elementwise = len(names) <= MOST_EQUATIONS and ELEMENTWISE.issuperset(names)
    arithmetic = len(names) <= FEW_EQUATIONS and ARITHMETIC.issuperset(names)
    return Traits(elementwise, arithmetic, not PRODUCTS.isdisjoint(names))


def mark_beside(jaxpr) -> int:
    """A number of particles to trace with: the least prime from MARK on of which no size in the jaxpr is a multiple.

    The jaxpr is that of the score with the particles of the run. The score is then traced with the mark. An axis is one
    of particles there if and only if its size is a multiple of the mark, because sizes that do not depend on the
    particles are the same in both jaxprs.
    """
    return next(_free(jaxpr, filter(_is_prime, itertools.count(MARK))))


def round_mark_beside(jaxpr) -> int:
    """As `mark_beside`, a multiple of ROUND_MARK."""
    return next(_free(jaxpr, itertools.count(ROUND_MARK, ROUND_MARK)))


def small_mark_beside(jaxpr, n) -> int | None:
    """As `mark_beside`, the greatest prime below n, for scores that hold tables of n rows; None where there is none."""
    return next(_free(jaxpr, filter(_is_prime, range(n - 1, 1, -1))), None)


def _is_prime(p):
    return all(p % q for q in range(2, math.isqrt(p) + 1))


def _free(jaxpr, marks):
    """Those marks of which no size in the jaxpr is a multiple."""
    used = _sizes(jaxpr)
    return (mark for mark in marks if not any(size and size % mark == 0 for size in used))


def _sizes(jaxpr):
    """All sizes of axes in a jaxpr and in its inner ones."""
    beside = [v for one in jaxpr.eqns for v in (*one.invars, *one.outvars)]
    sizes = {size for v in (*jaxpr.constvars, *jaxpr.invars, *beside) for size in getattr(v.aval, "shape", ())}
    return sizes.union(*(_sizes(one) for equation in jaxpr.eqns for one in inner_jaxprs(equation)))


def inner_jaxprs(equation):
    """The jaxprs that an equation calls."""
    return [one for value in equation.params.values() for one in _jaxprs(value)]


def _primitives(jaxpr, n):
    """Names of the equations on particles; those of inner jaxprs in place of a call, and beside a loop or a branch."""
    for equation in jaxpr.eqns:
        inner = inner_jaxprs(equation)
        for one in inner:
            yield from _primitives(one, n)
        shapes = [v.aval.shape for v in (*equation.invars, *equation.outvars) if hasattr(v.aval, "shape")]
        if any(n in shape for shape in shapes) and (not inner or equation.primitive.name in LOOPS):
            yield equation.primitive.name


def _jaxprs(value):
    for one in value if isinstance(value, tuple | list) else (value,):
        if isinstance(one, core.ClosedJaxpr):
            yield one.jaxpr
        elif isinstance(one, core.Jaxpr):
            yield one


def choose(found: Traits, shape, n_steps, noises, *, chunk=None, platform="cpu") -> Schedule:
    """The schedule of a run of (n, d) particles, with so many increments a step, on one device.

    An elementwise score fuses with its noise, two steps into one loop, or four of arithmetic alone.
    Any other sees noise that was written to memory, two steps of it a call of the cipher. Few coordinates, or sums over
    coordinates, go with particles on the fast axis. On a CPU a chunk is what fits its caches; an accelerator takes all
    particles at once.
    """
    n, d = shape
    last = d < FEW_COORDINATES or not (found.elementwise or found.products)
    if chunk is None:
        chunk = _equal_chunks(n, (CACHED if last else STREAMED) // d) if platform == "cpu" else n
    unroll = 2 if found.elementwise or noises == 1 else 1
    if found.arithmetic and not last:
        unroll = _written_out(n_steps)
    return Schedule(min(chunk, n), last and min(chunk, n) >= FAST_AXIS, unroll, found.elementwise)


def _written_out(n_steps):
    """Steps a body of a fused loop, an even number: few bodies, and a short rest, which costs a loop of its own."""
    return min(range(2, MOST_WRITTEN_OUT + 1, 2), key=lambda unroll: n_steps // unroll + n_steps % unroll)


def _equal_chunks(n, most):
    """Particles a chunk: n in equal parts near `most`, whole vectors, not a multiple of 1,024.

    Rows a power of two apart share cache lines.
    """
    most = max(most, 1)
    if n <= most * 3 // 2:
        return n
    chunk = -(-n // -(-n // most))
    if chunk > FAST_AXIS:
        chunk = -(-chunk // 16) * 16
    return chunk + 16 if chunk % 1024 == 0 else chunk
