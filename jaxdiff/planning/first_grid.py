"""The grid from which a plan starts: the best one for the goal by the curve, with its horizon where none is given."""

from typing import Any

import numpy as np

from jaxdiff.curves import Curve
from jaxdiff.curves.panels import antiderivative
from jaxdiff.guarantees.information import initial_kl, mutual_information
from jaxdiff.guarantees.step_cost import step_cost
from jaxdiff.planning.best_grid import best, fewest_steps, most_steps
from jaxdiff.planning.goal import check_reachable, too_many_steps
from jaxdiff.processes import ou
from jaxdiff.processes.default_times import LATEST, check_ends
from jaxdiff.types import Grid

# The longest horizon considered is where the initialisation costs so little: nats, and a fraction of target_kl. A later
# start cannot lower the sum by more.
NEGLIGIBLE, NEGLIGIBLE_PART = 1e-6, 1e-3
TIMES = 400  # times at which the initialisation is computed, to find the longest horizon considered


def first_grid(task: Any, horizon: Any, early_stop: Any) -> Grid:
    """The best grid for the goal by the curve. Where no horizon is given, the best one is found too.

    Args:
      task: the task of `plan`, of which cost, known, start, target_kl, evals and hint are read.
      horizon: the first time; or None.
      early_stop: the last time.

    Raises:
      ValueError: the ends are not valid, or no number of steps reaches target_kl.
    """
    start, free = task.start, horizon is None
    check_ends(LATEST if free else horizon, early_stop)
    horizon = _longest(start, early_stop, task.target_kl) if free else horizon
    check_reachable(task.target_kl, start, np.array([horizon]), early_stop)
    curve, start_cost = task.known.curve, start if free else None
    if task.evals is not None:
        return best(task.cost, curve, horizon, early_stop, int(task.evals), start_cost)
    spent = 0.0 if free else float(start(np.array([horizon]))[0])
    grid = fewest_steps(task.cost, curve, horizon, early_stop, task.target_kl - spent, start_cost)
    if grid is None:
        most = most_steps(task.cost)
        grid = best(task.cost, curve, horizon, early_stop, most, start_cost)
        spent += float(np.sum(step_cost(task.cost, curve)(grid[:-1], grid[1:])) + (start(grid[:1])[0] if free else 0.0))
        raise too_many_steps(task.target_kl, most, task.cost.kernel, spent, task.hint)
    return grid


def start_cost_of(curve: Curve, second_moment: Any, exact: bool, t: Any) -> Any:
    """KL(q_t || N(0, I)) in nats where the curve is an exact mmse, else its Gaussian bound; t an array."""
    bound = initial_kl(second_moment, curve.dim, t)
    if not exact:
        return bound
    t = np.asarray(t, np.float64)
    latest = t.max()
    along = antiderivative(curve, ou.snr(np.append(t.ravel(), latest)))
    information = mutual_information(curve, latest) + (along[:-1] - along[-1]).reshape(t.shape) / 2
    return np.maximum(bound - information, 0.0)


def _longest(start, early_stop, target_kl):
    """The horizon beyond which the initialisation costs less than NEGLIGIBLE nats."""
    goal = NEGLIGIBLE if target_kl is None else min(NEGLIGIBLE, NEGLIGIBLE_PART * target_kl)
    times = np.geomspace(early_stop, LATEST, TIMES)[1:]
    enough = times[start(times) <= goal]
    return float(enough[0]) if len(enough) else LATEST
