"""plan: budget and accuracy invert each other, alternatives are what they say, bad requests are refused."""

import numpy as np
import pytest

from jaxdiff import grids, information, plan, targets
from jaxdiff.curves import loss_curve
from jaxdiff.plan import steps_to_reach
from jaxdiff.processes import denoiser_from_score

COIN = targets.point_masses([[-1.0], [1.0]])
WIDE = targets.gaussian(np.zeros(3), [0.01, 0.3, 2.0])


@pytest.mark.parametrize("law", [COIN, WIDE])
def test_plan_for_an_accuracy_reaches_it_with_the_fewest_steps(law):
    made = plan(0.2, 1e-2, target=law)
    assert made.predicted_kl <= 0.2
    assert plan(evals=made.evals - 1, early_stop=1e-2, target=law, horizon=made.horizon).predicted_kl > 0.2
    assert made.grid[0] == made.horizon
    assert made.grid[-1] == 1e-2
    assert len(made.grid) == made.evals + 1


def test_plan_for_a_budget_is_no_worse_than_named_grids():
    made = plan(evals=12, early_stop=1e-2, target=COIN, horizon=3.0)
    reached = information.path_kl(made.kernel, made.grid, COIN.mmse)
    for other in (grids.exponential_then_uniform, grids.log_snr, grids.uniform):
        assert reached <= information.path_kl(made.kernel, other(3.0, 1e-2, 12), COIN.mmse)
    start = information.initial_kl(COIN.second_moment, 1, 3.0)
    assert made.predicted_kl == pytest.approx(start + reached, rel=1e-12)


def test_last_alternative_is_exponential_euler_as_good_as_the_plan_and_one_step_less_is_not():
    made = plan(evals=6, early_stop=1e-2, target=COIN, horizon=3.0)
    last, reached = made.alternatives[-1], made.certificate["discretisation"].value
    assert (last["kernel"], last["grid"]) == ("exponential_euler", "exponential_then_uniform")
    cost = lambda n: information.path_kl("exponential_euler", grids.exponential_then_uniform(3.0, 1e-2, n), COIN.mmse)
    assert last["path_kl"] == cost(last["evals"]) <= reached < cost(last["evals"] - 1)


def test_one_evaluation_from_the_default_horizon_is_a_plan():
    made = plan(evals=1, early_stop=1e-2, target=COIN)
    np.testing.assert_allclose(made.grid, [5.0, 1e-2])
    assert made.horizon == 5.0


def test_a_measured_curve_brings_its_own_ends_and_none_may_contradict_them(key):
    law = targets.gaussian([0.0], [0.5])
    ends = {"horizon": 3.0, "early_stop": 0.01}
    curve = loss_curve(denoiser_from_score(law.score), law.sample(key, 200), key, **ends, n_nodes=31)
    made = plan(evals=4, curve=curve, **ends)
    assert (made.horizon, made.grid[-1]) == (pytest.approx(3.0), pytest.approx(0.01))
    with pytest.raises(ValueError, match=r"measured with early_stop = 0\.01, not 0\.001"):
        plan(evals=4, early_stop=1e-3, curve=curve)
    with pytest.raises(ValueError, match="measured with horizon = 3, not 5"):
        plan(evals=4, horizon=5.0, curve=curve)


def test_records_print_in_a_line():
    made = plan(evals=3, target=COIN)
    assert repr(made) == f"Plan(horizon=5.0, kernel={made.kernel!r}, evals=3)"
    assert repr(COIN.mmse) == "Curve(dim=1)"
    assert len(repr(COIN)) < 100
    assert "together" in str(made.certificate)


def test_alternatives_at_equal_evaluations_are_no_better():
    made = plan(evals=8, early_stop=1e-2, target=WIDE)
    for row in made.alternatives[:-1]:
        assert row["evals"] == 8
        assert row["path_kl"] >= made.certificate["discretisation"].value


def test_horizon_for_an_accuracy_leaves_a_tenth_to_the_initialisation():
    made = plan(0.05, 1e-2, target=WIDE)
    at = lambda horizon: information.initial_kl(WIDE.second_moment, 3, horizon)
    assert at(made.horizon) <= 0.005 < at(made.horizon - 0.1)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"target_kl": 0.1}, "exactly one of target= "),
        ({"target": COIN}, "exactly one of target_kl"),
        ({"target": COIN, "target_kl": 0.1, "evals": 3}, "exactly one of target_kl"),
        ({"target": COIN, "evals": 0}, "evals = 0"),
        ({"target": COIN, "evals": 2.5}, "evals = 2.5"),
        ({"target": COIN, "evals": 5000}, "evals = 5000"),
        ({"target": COIN, "target_kl": -1.0}, "target_kl = -1"),
        ({"target": COIN, "target_kl": 1e-9, "horizon": 2.0}, "longer horizon"),
        ({"target": COIN, "target_kl": 0.1, "early_stop": 3.0, "horizon": 2.0}, "early_stop must lie below"),
    ],
)
def test_bad_requests_say_what_would_do(request_, message):
    with pytest.raises(ValueError, match=message):
        plan(**request_)


def test_steps_to_reach_finds_the_first_number_that_is_enough():
    cost = lambda n: 10 / n
    for goal in (0.3, 1.0, 2.5, 10.0, 11.0):
        assert steps_to_reach(goal, cost) == next(n for n in range(1, 100) if cost(n) <= goal)
    assert steps_to_reach(1e-3, cost, most=500) is None
