"""The layout of a run, chosen from the score's jaxpr: the axis of the particles, the chunk, the steps an iteration.

The layout never changes the noise of a particle.
"""

import itertools
import math
from typing import NamedTuple

from jax.extend import core

from jaxdiff.convolutions import convolution_p

# Primitives that act coordinate by coordinate. XLA fuses a score of only these with the noise and the steps around it.
ARITHMETIC = frozenset(
    """abs add broadcast_in_dim convert_element_type copy div integer_pow max min mul neg select_n sign sqrt square
    stop_gradient sub""".split()  # noqa: SIM905
)
ELEMENTWISE = ARITHMETIC | frozenset(
    """and atan2 cbrt ceil clamp cos cosh eq erf erfc exp exp2 expm1 floor ge gt is_finite le log log1p logistic lt ne
    not or pow reduce_precision rem round rsqrt sin sinh tan tanh xor""".split()  # noqa: SIM905
)
PRODUCTS = frozenset({"dot_general", "conv_general_dilated", convolution_p.name})
LOOPS = frozenset({"scan", "while", "cond"})
# The most equations in the jaxpr of a score that is fused with its steps. They are compiled once for each step of an
# iteration, so a larger limit means longer compilation. With a smaller one, more scores read their noise from memory.
MOST_EQUATIONS = 64
FEW_EQUATIONS = 12  # the most equations of a fused score that is written out for more than two steps of an iteration
MOST_UNROLLED = 4  # the most steps of an iteration; more run a little faster and compile for a second longer
MARK = 8191  # particles with which a score is traced, or a larger prime: no product of other sizes equals a prime
ROUND_MARK = 384_000  # particles, or a multiple of it: 2^10 3 5^3, which batches of usual sizes divide
# The fewest particles on the fast axis, eight vectors of 16 float32 numbers. With fewer, coordinates lie there, because
# a loop over so few particles would be short.
FAST_AXIS = 128
# The most arrays of a state whose steps are fused with an elementwise score. XLA on a CPU computes a fused loop again
# for each array that it makes.
MOST_FUSED = 2
FEW_COORDINATES = 16  # fewer coordinates do not fill a vector of float32, so particles lie on the fast axis
# Particles times coordinates of a chunk on a CPU: 2 MiB of float32. Shorter loops cost more time than memory does, and
# with larger arrays the several arrays of a step leave the caches. Kernels of a mixture with 2^16 took 1.2 to 2.3 times
# as long, multistep kernels of a normal law with 2^20 up to twice.
CHUNK = 2**19
UNEVEN = 1024  # rows of a multiple of so many particles lie a power of two apart and compete for the same cache lines


class Traits(NamedTuple):
    """What a score computes from its particles.

    Attributes:
      elementwise: it acts on every coordinate by itself.
      arithmetic: it does so by a few additions, multiplications and divisions.
      products: it contains matrix products or convolutions.
    """

    elementwise: bool
    arithmetic: bool
    products: bool


class StepTraits(NamedTuple):
    """Three numbers of a kernel's step: its Gaussian increments, its score evaluations, the arrays of its state."""

    noises: int
    evals: int
    leaves: int


class Layout(NamedTuple):
    """How the particles and steps of a run are arranged.

    Attributes:
      chunk: particles that run down the whole grid before the next ones start.
      particles_last: the loop carries states (d, n), with particles on the fast axis.
      unroll: steps an iteration of the scan.
      fused: these steps are written out, so that XLA makes one loop over particles and coordinates of them.
      stored: scores and new states are written to memory, because a step reads them several times.
    """

    chunk: int
    particles_last: bool
    unroll: int
    fused: bool
    stored: bool


def traits(jaxpr, n) -> Traits:
    """Traits of a score from its jaxpr, traced with n particles; equations without an axis of n do not count."""
    names = list(_primitives(jaxpr, n))
    elementwise = len(names) <= MOST_EQUATIONS and ELEMENTWISE.issuperset(names)
    arithmetic = len(names) <= FEW_EQUATIONS and ARITHMETIC.issuperset(names)
    return Traits(elementwise, arithmetic, not PRODUCTS.isdisjoint(names))


def mark_for(jaxpr) -> int:
    """A number of particles to trace with: the least prime from MARK on of which no size in the jaxpr is a multiple.

    The jaxpr is that of the score with the particles of the run. The score is traced again with the mark. Sizes that do
    not depend on the particles are the same in both jaxprs. So in the second one an axis is an axis of particles if and
    only if its size is a multiple of the mark.
    """
    return next(_that_divide_no_size(jaxpr, filter(_is_prime, itertools.count(MARK))))


def round_mark_for(jaxpr) -> int:
    """As `mark_for`, a multiple of ROUND_MARK."""
    return next(_that_divide_no_size(jaxpr, itertools.count(ROUND_MARK, ROUND_MARK)))


def small_mark_for(jaxpr, n) -> int | None:
    """As `mark_for`, the largest prime below n, for scores that hold tables of n rows; None if there is none."""
    return next(_that_divide_no_size(jaxpr, filter(_is_prime, range(n - 1, 1, -1))), None)


def _is_prime(p):
    return all(p % q for q in range(2, math.isqrt(p) + 1))


def _that_divide_no_size(jaxpr, marks):
    """Those of the marks of which no size in the jaxpr is a multiple."""
    used = _sizes(jaxpr)
    return (mark for mark in marks if not any(size and size % mark == 0 for size in used))


def _sizes(jaxpr):
    """All sizes of axes in a jaxpr and in its inner ones."""
    of_equations = [v for one in jaxpr.eqns for v in (*one.invars, *one.outvars)]
    sizes = {size for v in (*jaxpr.constvars, *jaxpr.invars, *of_equations) for size in getattr(v.aval, "shape", ())}
    return sizes.union(*(_sizes(one) for equation in jaxpr.eqns for one in inner_jaxprs(equation)))


def inner_jaxprs(equation):
    """The jaxprs that an equation calls."""
    return [one for value in equation.params.values() for one in _jaxprs(value)]


def _primitives(jaxpr, n):
    """Names of all equations on particles, also in inner jaxprs. A loop or branch counts itself, a call does not.

    A reshape of each particle by itself, as of an image, moves no value and does not count.
    """
    for equation in jaxpr.eqns:
        inner = inner_jaxprs(equation)
        for one in inner:
            yield from _primitives(one, n)
        shapes = [v.aval.shape for v in (*equation.invars, *equation.outvars) if hasattr(v.aval, "shape")]
        if equation.primitive.name == "reshape" and all(shape[:1] == (n,) for shape in shapes):
            continue
        if any(n in shape for shape in shapes) and (not inner or equation.primitive.name in LOOPS):
            yield equation.primitive.name


def _jaxprs(value):
    for one in value if isinstance(value, tuple | list) else (value,):
        if isinstance(one, core.ClosedJaxpr):
            yield one.jaxpr
        elif isinstance(one, core.Jaxpr):
            yield one


def choose(found: Traits, of_step: StepTraits, shape, n_steps, *, chunk=None, platform="cpu") -> Layout:
    """The layout of a run of (n, d) particles on one device.

    An elementwise score is fused with its noise, two steps in one loop, or four if it is arithmetic alone. For any
    other score the noise is written to memory, two increments a call of the cipher. Particles lie on the fast axis if
    there are few coordinates or the score sums over them. On a CPU a chunk fits into the caches; an accelerator runs
    all particles at once. On a CPU the arrays that a step reads several times are stored: see `storing`.
    """
    n, d = shape
    last = d < FEW_COORDINATES or not (found.elementwise or found.products)
    several = of_step.leaves > MOST_FUSED if found.elementwise else of_step.leaves > 1 or of_step.evals > 1
    stored = several and platform == "cpu"
    if chunk is None:
        chunk = _equal_chunks(n, CHUNK // d, last) if platform == "cpu" else n
    fused = found.elementwise and not stored
    unroll = 2 if (fused and of_step.noises < 2) or of_step.noises == 1 else 1
    if found.arithmetic and fused and not last and of_step.noises < 2:
        unroll = _unrolled(n_steps)
    return Layout(min(chunk, n), last and min(chunk, n) >= FAST_AXIS, unroll, fused, stored)


def _unrolled(n_steps):
    """Steps an iteration of a fused loop, an even number that leaves few iterations and few remaining steps."""
    return min(range(2, MOST_UNROLLED + 1, 2), key=lambda unroll: n_steps // unroll + n_steps % unroll)


def _equal_chunks(n, most, last):
    """Particles a chunk: about n divided by the number of chunks of `most`, in whole vectors, no multiple of UNEVEN.

    last: particles lie on the fast axis. Then a multiple of UNEVEN particles is cut in two, unless halves are short.
    """
    most = max(most, 1)
    competing = last and n % UNEVEN == 0 and n > most * 3 // 4
    if n <= most * 3 // 2 and not competing:
        return n
    chunk = -(-n // max(-(-n // most), 2))
    if chunk > FAST_AXIS:
        chunk = -(-chunk // 16) * 16
    return chunk + 16 if chunk % UNEVEN == 0 else chunk
