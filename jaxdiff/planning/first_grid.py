"""The best grid for a goal by the curve itself, with its horizon where none is given."""

import numpy as np

from jaxdiff.curves.panels import antiderivative
from jaxdiff.guarantees.information import initial_kl, mutual_information
from jaxdiff.guarantees.step_cost import step_cost
from jaxdiff.planning.best_grid import best, fewest_steps, most_steps
from jaxdiff.planning.goal import check_reachable, out_of_reach
from jaxdiff.processes import ou
from jaxdiff.processes.ou import LATEST, check_ends

NEGLIGIBLE = 1e-6  # nats of initialisation at the longest horizon considered, or 1e-3 of what is asked for


def first_grid(task, horizon, early_stop):
    """The best grid for the goal by the curve itself, from the horizon or from the best time where none is given.

    task: with the fields cost, known, start, target_kl, evals and hint of `plan`'s task.
    """
    start, free = task.start, horizon is None
    check_ends(LATEST if free else horizon, early_stop)
    horizon = _longest(start, early_stop, task.target_kl) if free else horizon
    check_reachable(task.target_kl, start, np.array([horizon]), early_stop)
    curve, start_cost = task.known.curve, start if free else None
    if task.evals is not None:
        return best(task.cost, curve, int(task.evals), horizon, early_stop, start_cost)
    spent = 0.0 if free else float(start(np.array([horizon]))[0])
    grid = fewest_steps(task.cost, curve, task.target_kl - spent, horizon, early_stop, start_cost)
    if grid is None:
        most = most_steps(task.cost)
        grid = best(task.cost, curve, most, horizon, early_stop, start_cost)
        spent += float(np.sum(step_cost(task.cost, curve)(grid[:-1], grid[1:])) + (start(grid[:1])[0] if free else 0.0))
        raise out_of_reach(task.target_kl, most, task.cost.kernel, spent, task.hint)
    return grid


def start_cost_of(curve, second_moment, exact, t):
    """KL(q_t || N(0, I)), or its Gaussian bound; t an array."""
    bound = initial_kl(second_moment, curve.dim, t)
    if not exact:
        return bound
    t = np.asarray(t, np.float64)
    latest = t.max()
    along = antiderivative(curve, ou.snr(np.append(t.ravel(), latest)))
    told = mutual_information(curve, latest) + (along[:-1] - along[-1]).reshape(t.shape) / 2
    return np.maximum(bound - told, 0.0)


def _longest(start, early_stop, target_kl):
    """A horizon beyond which initialisation costs next to nothing."""
    goal = NEGLIGIBLE if target_kl is None else min(NEGLIGIBLE, 1e-3 * target_kl)
    times = np.geomspace(early_stop, LATEST, 400)[1:]
    enough = times[start(times) <= goal]
    return float(enough[0]) if len(enough) else LATEST
