"""Compiled programs: the last few that were used are kept, and all others are let go of.

A function under jax.jit keeps a program for every shape and every function that it was ever given, and the arrays that
such a function holds. After sixty grids of different lengths that is half a gigabyte.
"""

import collections
import functools
import threading
import weakref

import jax
from jax.tree_util import Partial

MOST = 32  # programs, and traces of scores; a program takes some 4 MB, and a second or two to make


class Recent:
    """Functions of pytrees under jax.jit, compiled once per structure and shapes; the last `most` used are kept.

    JAX keeps traces and programs for as long as the function exists that they were made of. So each structure gets a
    function of its own, and its programs go with it. The structure holds the score's function. JAX's caches keep
    whatever structure they have seen, but all that they see here is a _Structure, which is emptied when its programs
    go. Only JAX's caches hold it, so that jax.clear_caches() lets go of everything.
    """

    def __init__(self, most=MOST):
        """Nothing is kept yet."""
        self.most, self._kept, self._lock = most, collections.OrderedDict(), threading.RLock()
        self._gone = 0  # programs that were let go of

    def __call__(self, function, static, arguments, donated=(), *, donate=False, compiler_options=None):
        """function(static, arguments, donated), compiled. With donate, XLA may reuse the memory of `donated`.

        static: a hashable value. compiler_options: the same for equal `static` and `donate`.
        """
        leaves, tree = jax.tree.flatten(arguments)
        given, given_tree = jax.tree.flatten(donated)
        what = function, static, tree, given_tree
        # Of values only shapes matter here. Dtypes, of which a run has few, are told apart by jax.jit.
        shapes = [getattr(leaf, "shape", ()) for leaf in leaves + given]
        place = donate, hash((what, _functions(arguments), *shapes))
        while True:
            jitted, structure = self._found(place, what, donate, compiler_options)
            try:
                return jitted(structure, leaves, given)
            except _Emptied:  # by another thread, which has come to need this place
                continue

    def _found(self, place, what, donate, compiler_options):
        dropped = None
        with self._lock:
            jitted, structure = self._at(place)
            while structure is not None and structure.what != what:  # of the same hash
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
        del dropped  # outside of the lock: programs are freed here
        return jitted, structure

    def _at(self, place):
        jitted, structure = self._kept.get(place, (None, _nothing))
        return jitted, structure()

    def compiled(self):
        """Programs that were ever made; an equal number later says that nothing was compiled in between."""
        with self._lock:
            return self._gone + sum(jitted._cache_size() for jitted, _ in self._kept.values())


class _Structure:
    """A function, its static argument and the structures of its pytrees; equal only to itself."""

    def __init__(self, what):
        self.what = what


class _Emptied(Exception):
    """The structure was emptied before its function was traced."""


def _nothing():
    return None


def _name_of(what):
    function, static, *_ = what
    return getattr(static[0] if isinstance(static, tuple) else function, "__name__", "run")


def _functions(part):
    """What the hash of a pytree's structure leaves out: the functions of Partials in it."""
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
    """As jax.jit, by `recent`: positional arguments are pytrees, keyword arguments static.

    For functions of a score: of scores that come and go only the last ones are kept.
    """

    @functools.wraps(function)
    def compiled(*arguments, **static):
        return recent(_applied, (function, tuple(static.items())), arguments)

    return compiled


def _applied(static, arguments, donated):
    function, keywords = static
    return function(*arguments, **dict(keywords))
