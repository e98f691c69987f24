"""The tests of steps are able to fail: they kill every broken variant of every kernel (mutants.py)."""

import pytest
from mutants import mutants
from test_steps import GRID, ORACLES, RUNNING, follows_its_equation, make, traced


def grid_of(kernel):
    return RUNNING if kernel.own_clock else GRID


@pytest.mark.parametrize("name", ORACLES)
def test_the_step_test_kills_every_mutant(name):
    kernel = make(name, traced)
    broken = dict(mutants(kernel, grid_of(kernel)))
    assert len(broken) >= 4, list(broken)
    assert [what for what, mutant in broken.items() if lives(name, mutant)] == []


def lives(name, kernel):
    try:
        follows_its_equation(name, kernel)
    except AssertionError as error:
        return f" of {name}" not in str(error)  # finite, and at another place than its equation leads to
    return True
