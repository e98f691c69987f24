"""Compiled programs: only the last are kept, with their scores; what is kept is found again."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.backend import get_backend
from jax.tree_util import Partial

from jaxdiff import grids, kernels, ode
from jaxdiff.sampling import compiled, score_calls
from jaxdiff.sampling.sample import sample, sample_in_turn, trajectory
from jaxdiff.types import Kernel

KEY, X = jax.random.key(0), np.ones((3, 2), np.float32)
GRID = grids.log_snr(2, 0.1, 2)


class Owned:
    """Something that a score holds, and that can be seen to be gone."""


def decay(rate, x, t):
    return -rate * x


def keep(monkeypatch, most):
    """Of every function's programs only the last `most` are kept."""
    jax.clear_caches()
    monkeypatch.setattr(compiled, "recent", compiled.Recent(most))
    monkeypatch.setattr(score_calls, "_traces", compiled.Recent(2 * most))  # two traces a score
    return compiled.recent


@pytest.fixture
def few(monkeypatch):
    return keep(monkeypatch, 3)


def live():
    return len(get_backend().live_executables())


def holding(owned):
    return lambda x, t, owned=owned: -x


def solved(kernel, x, grid, key):
    return ode.solve(kernel.score, x, 1.0, 0.5)


def saved(kernel, x, grid, key):
    return trajectory(kernel, x, grid, key, grid[1:])


def in_turn(kernel, x, grid, key):
    return sample_in_turn([(kernel, grid)], x, key)


def differentiated(kernel, x, grid, key):
    return jax.grad(lambda x: sample(kernel, x, grid, key).sum())(jnp.asarray(x))


def test_sixty_lengths_of_grids_leave_a_bounded_number_of_programs():
    jax.clear_caches()
    identity, step = lambda x: x, lambda score, x, row, z: x  # which compiles in no time
    kernel = Kernel("still", Partial(decay, 1.0), lambda grid: (grid[:-1],), identity, step, identity, 1, 0)
    sample(kernel, X, np.linspace(2, 1, 3), KEY)
    beside = live() - 1
    for n in range(3, 63):
        sample(kernel, X, np.linspace(2, 1, n), KEY)
    assert compiled.MOST == 32
    assert live() <= compiled.MOST + beside


@pytest.mark.parametrize("run", [sample, saved, in_turn, differentiated, solved])
def test_scores_that_come_and_go_take_their_programs_along(run, monkeypatch):
    keep(monkeypatch, 2)
    alive, programs_then = [], []
    for _ in range(4):
        owned = Owned()
        alive.append(weakref.ref(owned))
        jax.block_until_ready(run(kernels.ddim(holding(owned)), X, GRID, KEY))
        del owned
        gc.collect()
        programs_then.append(live())
    assert programs_then[-1] == programs_then[-2]
    if run is not solved:  # Equinox, beneath diffrax, keeps the score's function in a cache of its own
        assert [one() is None for one in alive] == [True] * 2 + [False] * 2


def test_clearing_the_caches_of_jax_lets_go_of_every_score(few):
    owned = Owned()
    alive = weakref.ref(owned)
    sample(kernels.ddim(holding(owned)), X, GRID, KEY)
    del owned
    jax.clear_caches()
    gc.collect()
    assert alive() is None
    assert live() == 0


def test_the_one_used_last_stays_and_is_found_again(few):
    hot, score = kernels.ddim(Partial(decay, jnp.float32(1.0))), kernels.ddim(lambda x, t: -x)
    sample(hot, X, GRID, KEY)
    for n in range(3, 9):
        sample(score, X, grids.log_snr(2, 0.1, n), KEY)
        before = few.compiled()
        again = kernels.ddim(Partial(decay, jnp.float32(n)))  # rebuilt, with another parameter
        np.testing.assert_allclose(sample(again, X, GRID, KEY)[0], sample(again, X[:1], GRID, KEY)[0], rtol=1e-6)
        assert few.compiled() <= before + 1  # that of one particle


# The hash of a pytree's structure leaves functions out: two scores of one shape must not get one another's program.
def test_equal_hashes_do_not_mix_up_scores(few, monkeypatch):
    monkeypatch.setattr(compiled, "_functions", lambda part: None)
    rates = [0.5, 1.0, 2.0]
    scores = [lambda x, t, rate=rate: -rate * x for rate in rates]
    first = [np.asarray(sample(kernels.euler(score), X, [0.2, 0.1], KEY)) for score in scores]
    # x' = x + h (x + s), s = -rate x
    np.testing.assert_allclose(first, [X * (1 + 0.1 * (1 - rate)) for rate in rates], rtol=1e-6)
    before = few.compiled()
    for score, want in zip(scores, first, strict=True):
        np.testing.assert_array_equal(sample(kernels.euler(score), X, [0.2, 0.1], KEY), want)
    assert few.compiled() == before


def test_a_structure_that_was_emptied_meanwhile_is_made_anew(few, monkeypatch):
    found, emptied = few._found, []

    def emptying(*given):
        jitted, structure = found(*given)
        if not emptied:
            emptied.append(structure)
            structure.what = None
        return jitted, structure

    monkeypatch.setattr(few, "_found", emptying)
    np.testing.assert_allclose(sample(kernels.euler(lambda x, t: -x), X, [0.2, 0.1], KEY), X, rtol=1e-6)
    assert len(emptied) == 1
