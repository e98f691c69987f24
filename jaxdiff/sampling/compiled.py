"""A cache of compiled programs that keeps only the ones used last.

jax.jit keeps a program for every shape and every function that it was ever given, together with the arrays that such a
function holds. After sixty grids of different lengths that is half a gigabyte.
"""

import collections
import functools
import threading
import weakref

import jax
from jax.tree_util import Partial

MOST = 32  # programs that are kept: each takes about 4 MB of memory, and one or two seconds to compile again


class Recent:
    """Calls functions of pytrees under jax.jit and keeps the programs used last.

    At most `most` entries are kept, one for each structure and set of shapes. A structure is a function with its static
    argument and the tree structures of its other arguments; a score's function is part of it.

    JAX keeps traces and programs as long as the Python function that they were compiled from.
    Each structure therefore gets a Python function of its own, which is dropped together with its programs. JAX also
    keeps every static argument that it has seen. The only static argument here is a _Structure, which is emptied when
    its programs are dropped. Nothing but JAX's caches refers to it strongly, so jax.clear_caches() frees everything.
    """

    def __init__(self, most=MOST):
        """Start without any program."""
        self.most, self._kept, self._lock = most, collections.OrderedDict(), threading.RLock()
        self._gone = 0  # programs that were dropped

    def __call__(self, function, static, arguments, donated=(), *, donate=False, compiler_options=None):
        """function(static, arguments, donated), compiled. With donate, XLA may reuse the memory of `donated`.

        static: a hashable value. compiler_options: the same for equal `static` and `donate`.
        """
        leaves, tree = jax.tree.flatten(arguments)
        given, given_tree = jax.tree.flatten(donated)
        what = function, static, tree, given_tree
        # Shapes are part of the place, so that grids of many lengths count as many. jax.jit itself distinguishes the
        # dtypes, of which there are few.
        shapes = [getattr(leaf, "shape", ()) for leaf in leaves + given]
        place = donate, hash((what, _functions(arguments), *shapes))
        while True:
            jitted, structure = self._found(place, what, donate, compiler_options)
            try:
                return jitted(structure, leaves, given)
            except _Emptied:  # another thread dropped the structure between the two lines: look it up again
                continue

    def _found(self, place, what, donate, compiler_options):
        dropped = None
        with self._lock:
            jitted, structure = self._at(place)
            while structure is not None and structure.what != what:  # two structures of the same hash
                place = *place, None
                jitted, structure = self._at(place)
            if structure is None:
                structure, jitted = _Structure(what), _own_jit(_name_of(what), donate, compiler_options)
                self._kept[place] = jitted, weakref.ref(structure)
                if len(self._kept) > self.most:
                    dropped = self._kept.popitem(last=False)[1]
                    self._gone += dropped[0]._cache_size()
            self._kept.move_to_end(place)
        if dropped is not None and (old := dropped[1]()) is not None:
            old.what = None
        del dropped  # frees the programs, outside the lock
        return jitted, structure

    def _at(self, place):
        jitted, structure = self._kept.get(place, (None, _nothing))
        return jitted, structure()

    def compiled(self):
        """How many programs were compiled so far; an equal number later means that nothing was compiled since."""
        with self._lock:
            return self._gone + sum(jitted._cache_size() for jitted, _ in self._kept.values())


class _Structure:
    """A function, its static argument and the structures of its pytrees; equal only to itself."""

    def __init__(self, what):
        self.what = what


class _Emptied(Exception):
    """The structure was emptied before its function could be traced."""


def _nothing():
    return None


def _name_of(what):
    function, static, *_ = what
    return getattr(static[0] if isinstance(static, tuple) else function, "__name__", "run")


def _functions(part):
    """The functions of all Partials in a pytree, which the hash of the tree's structure leaves out."""
    if isinstance(part, Partial):
        return part.func, *map(_functions, part.args)
    return tuple(map(_functions, part)) if isinstance(part, tuple) else None


def _own_jit(name, donate, compiler_options):
    def own(structure, leaves, given):
        if structure.what is None:
            raise _Emptied
        function, static, tree, given_tree = structure.what
        return function(static, jax.tree.unflatten(tree, leaves), jax.tree.unflatten(given_tree, given))

    own.__name__ = own.__qualname__ = name  # as profiles show it
    return jax.jit(own, static_argnums=0, donate_argnums=2 if donate else (), compiler_options=compiler_options)


recent = Recent()


def jitted(function):
    """As jax.jit, with programs kept by `recent`: positional arguments are pytrees, keyword arguments static.

    For functions of a score. Programs of scores that are no longer used are dropped after a while.
    """

    @functools.wraps(function)
    def compiled(*arguments, **static):
        return recent(_applied, (function, tuple(static.items())), arguments)

    return compiled


def _applied(static, arguments, donated):
    function, keywords = static
    return function(*arguments, **dict(keywords))
