"""Every bound of `jaxdiff.bounds` beside the exact value: one row for every law, bound, kernel and grid."""

import jax
import numpy as np

from benchmarks.oracles import exact_values as exactly
from jaxdiff import grids, information, kernels
from jaxdiff.certificate import total_variation
from jaxdiff.guarantees.bounds import any_grid, benton2024, from_nodes, lsi, pedrotti2023
from jaxdiff.guarantees.path_kl import standard_error
from jaxdiff.processes import ou

KERNELS = ("exponential_euler", "ancestral", "moment_matched")
HORIZON, EARLY_STOP = 5.0, 1e-2
STEPS = {"quick": (50,), "full": (50, 200)}
NO_TV = 0.99  # a bound on TV that is called vacuous
TRIVIAL = {"nats": -np.log1p(-(NO_TV**2)), "TV": NO_TV}
CONSTANT, LANGEVIN, STEP = 0.5, 2.0, 0.02  # log-Sobolev constant at T1; running time and step of Langevin
REVERSAL = 50  # steps of ddim
ORDER, UPPER, LOWER = "no bound", "at most", "at least"


def compared(bound, side, value, exact, error=0.0, *, unit="nats", trivial=None, kernel=None, grid=None):
    """A row: a bound and the exact value, known up to `error`."""
    value, exact = float(value), float(exact)
    error = max(float(error), 1e-9 * abs(exact), 1e-12)  # of rounding and quadratures
    trivial = 0.0 if side == LOWER else TRIVIAL.get(unit, np.inf) if trivial is None else trivial
    nothing = value <= trivial < exact - error if side == LOWER else value >= trivial > exact
    return {
        "part": "case",
        "bound": bound,
        "side": side,
        "kernel": kernel,
        "grid": grid,
        "unit": unit,
        "applies": True,
        "value": finite(value),
        "exact": exact,
        "error": error,
        "ratio": value / exact if exact > error and np.isfinite(value) else None,
        "vacuous": bool(nothing),
    }


def left_out(bound, side, reason, kernel=None):
    """A row of a bound that does not apply, or for which there is no exact value."""
    row = {"part": "case", "bound": bound, "side": side, "kernel": kernel}
    return row | {"applies": False, "reason": reason, "vacuous": False}


def by_curve(bound, side, value, exact, case, slack, **about):
    """A row where the exact value, and perhaps the bound, is a function of the mmse curve and of its replicates."""
    bounded = value if callable(value) else lambda curve: value
    curve = case.law.mmse
    spread = standard_error([bounded(one) - exact(one) for one in curve.replicates])
    return compared(bound, side, bounded(curve), exact(curve), max(5 * spread, slack), **about)


def named_grids(case, n_steps):
    """Benton's grid, the grid of least path KL for ancestral sampling, and equal steps of log snr."""
    ends, cost = (HORIZON, EARLY_STOP), information.step_cost("ancestral", case.law.mmse)
    named = {"Benton": grids.exponential_then_uniform(*ends, n_steps), "log snr": grids.log_snr(*ends, n_steps)}
    if case.total_variance >= exactly.SMALL:  # on a point every grid is optimal
        named["optimal"] = grids.optimal(cost, *ends, n_steps)
    return {f"{name}, {n_steps}": grid for name, grid in named.items()}


def rounding(dim, grid):
    """The rounding error of path KLs and their bounds in float64, nats."""
    snr = ou.snr(grid)
    return dim * (1e-13 * np.log(snr[-1] / snr[0]) + 1e-14 * np.max(snr[1:] / snr[:-1]))


def on_grid(case, name, grid):
    """Rows of the path KL and of mutual information on one grid."""
    d, variance, slack = case.law.dim, case.total_variance, rounding(case.law.dim, grid)
    for kernel in KERNELS:
        about = {"kernel": kernel, "grid": name}
        exact = lambda curve, kernel=kernel: information.path_kl(kernel, curve, grid)
        for side, word in ((UPPER, "upper"), (LOWER, "lower")):
            nodes, any_law = getattr(from_nodes, word), getattr(any_grid, word)(kernel, grid, d, variance)
            value = lambda curve, kernel=kernel, nodes=nodes: nodes(kernel, curve, grid).known
            yield by_curve(f"from_nodes.{word}", side, value, exact, case, slack, **about)
            yield by_curve(f"any_grid.{word}", side, any_law.known, exact, case, slack, **about)
    exact = lambda curve: information.information_gain(curve, grid[0], grid[-1])
    for index, side in enumerate((LOWER, UPPER)):
        value = lambda curve, index=index: information.information_bounds(curve, grid)[index]
        about = {"grid": name, "unit": "nats of information"}
        yield by_curve(f"information_bounds, {side}", side, value, exact, case, slack, **about)
    yield from by_theorem1(case, name, grid, slack)


def by_theorem1(case, name, grid, slack):
    """Rows of Benton's theorem, against initial and path KL of exponential Euler."""
    law, kernel = case.law, KERNELS[0]
    names = ("benton2024.theorem1", UPPER), ("benton2024.theorem1_as_printed", ORDER)
    if case.total_variance > law.dim * (1 + 1e-9):
        yield from (left_out(bound, side, "total variance above d", kernel) for bound, side in names)
        return
    exact = lambda curve: exactly.initial_kl(law, curve, grid[0]) + information.path_kl(kernel, curve, grid)
    ours = benton2024.theorem1(grid, law.dim, second_moment=law.second_moment)
    printed = benton2024.theorem1_as_printed(grid, law.dim)
    for (bound, side), certificate in zip(names, (ours, printed), strict=True):
        yield by_curve(bound, side, certificate.known, exact, case, slack, kernel=kernel, grid=name)


def on_geometric(case, n_steps):
    """Rows of the closed forms on the grid they are for."""
    d, variance = case.law.dim, case.total_variance
    for kernel, simplified in ((kernel, simplified) for kernel in KERNELS[1:] for simplified in (False, True)):
        bound = "any_grid.geometric" + (", simplified" if simplified else "")
        if variance < exactly.SMALL:
            yield left_out(bound, UPPER, "needs a positive variance", kernel)
            continue
        grid = any_grid.geometric_grid(HORIZON, EARLY_STOP, n_steps, variance / d)
        value = any_grid.geometric(kernel, HORIZON, EARLY_STOP, n_steps, d, variance, simplified=simplified).known
        exact = lambda curve, kernel=kernel, grid=grid: information.path_kl(kernel, curve, grid)
        about = {"kernel": kernel, "grid": f"geometric, {n_steps}"}
        yield by_curve(bound, UPPER, value, exact, case, rounding(d, grid), **about)


def at_the_ends(case):
    """Rows of the initial KL and of stopping early."""
    law = case.law
    for horizon in (1.0, HORIZON):
        value, slack = information.initial_kl(law.second_moment, law.dim, horizon), 1e-13 * law.dim
        exact = lambda curve, horizon=horizon: exactly.initial_kl(law, curve, horizon)
        yield by_curve("initial_kl", UPPER, value, exact, case, slack, grid=f"T = {horizon:g}")
    if case.normal is None and case.line is None:
        yield left_out("early_stopping_w2", UPPER, "no exact W2 beyond the line and normal laws")
        return
    value, trivial = information.early_stopping_w2(law.second_moment, law.dim, EARLY_STOP), law.second_moment**0.5
    exact = exactly.stopping_w2(case, EARLY_STOP)
    yield compared("early_stopping_w2", UPPER, value, *exact, unit="W2", trivial=trivial)


def on_the_line(case, name, grid):
    """Rows of KL and TV of the end points, which the path KL bounds, by Pinsker or by Bretagnolle and Huber."""
    curve = case.law.mmse
    for kernel in KERNELS:
        given = (curve,) if kernel == "moment_matched" else ()
        end = exactly.chain(case.line, getattr(kernels, kernel)(case.line.score, *given), grid)
        kl, _, tv = end.against(case.line, grid[-1])
        bound = exactly.initial_kl(case.law, curve, grid[0]) + information.path_kl(kernel, curve, grid)
        bound = max(bound, 0.0)  # rounding leaves -1e-15
        about = {"kernel": kernel, "grid": name}
        yield compared("KL of the ends by path KL", UPPER, bound, kl, 1e-9, **about)
        yield compared("total_variation", UPPER, total_variation(bound), tv, 1e-6, unit="TV", **about)


def in_a_ball(case):
    """Rows of the bounds for a finite horizon T1, from which on the formula's constant is 1/2."""
    if case.radius is None:
        yield left_out("pedrotti2023", UPPER, "the data are not in a ball")
        return
    horizon = pedrotti2023.sufficient_horizon(1 - CONSTANT, case.radius)
    yield from constants(case, horizon)
    yield from starts(case, horizon)
    yield from corrected(case, horizon)


def constants(case, horizon):
    """Rows of the log-Sobolev constant, of the horizon it needs, and of the stretch of the score and the ODE."""
    r, law, unit, t = case.radius, case.law, "1/variance", 0.1
    points = np.concatenate([np.zeros((1, law.dim)), law.sample(jax.random.key(0), 500)])  # 0: between the points
    value, seen = pedrotti2023.one_sided_lipschitz(t, r), lsi.one_sided(law.score, points, t)
    yield compared("pedrotti2023.one_sided_lipschitz", UPPER, value, seen, unit=unit, grid=f"t = {t:g}")
    needed = {name: getattr(pedrotti2023, name) for name in ("sufficient_horizon", "simple_horizon")}
    if case.line is None:
        for name in ("lsi_constant", *needed, "log_growth"):
            yield left_out(f"pedrotti2023.{name}", LOWER if name == "lsi_constant" else UPPER, "not on the line")
        return
    for t1 in (horizon, 2 * horizon):
        value, gap = pedrotti2023.lsi_constant(t1, r), exactly.gap(case.line, t1)
        about = {"unit": unit, "grid": f"T1 = {t1:.2g}"}
        yield compared("pedrotti2023.lsi_constant", LOWER, value, gap, 1e-4 * gap, **about)
    exact = exactly.needed_horizon(case.line, CONSTANT)
    for name, formula in needed.items():
        yield compared(f"pedrotti2023.{name}", UPPER, formula(1 - CONSTANT, r), exact, 1e-4, unit="OU time")
    value, exact = pedrotti2023.log_growth(horizon, EARLY_STOP, r), exactly.log_stretch(case.line, horizon, EARLY_STOP)
    yield compared("pedrotti2023.log_growth", UPPER, value, exact, 1e-6, unit="log")


def starts(case, horizon):
    """Rows of the KL at which Langevin starts."""
    for name, moments in (("start_kl", None), ("start_kl, matched", exactly.moments_of(case))):
        value = pedrotti2023.start_kl(horizon, case.law.dim, case.radius, moments=moments)
        yield compared(f"pedrotti2023.{name}", UPPER, value, *exactly.start_kl(case, horizon, moments))


def corrected(case, horizon):
    """Rows of Langevin at T1, and of W2(data, samples) after the reversal from there."""
    law, first = case.law, (horizon, LANGEVIN, case.law.dim, case.radius)
    if case.normal is not None:
        exact = exactly.continuous_kl(case.normal, horizon, LANGEVIN)
        value = pedrotti2023.langevin(*first).known
        yield compared("pedrotti2023.langevin, continuous", UPPER, value, exact)
    if case.line is None:
        for name in ("langevin, steps", "langevin, W2", "w2, exact ODE", "w2, ddim"):
            yield left_out(f"pedrotti2023.{name}", UPPER, "not on the line")
        return
    kl, away, x = exactly.after_steps(case, horizon, LANGEVIN, STEP)
    certificate = pedrotti2023.langevin(*first, step_size=STEP)
    noised = np.sqrt(ou.alpha(horizon) ** 2 * law.second_moment + ou.sigma(horizon) ** 2 * law.dim)
    yield compared("pedrotti2023.langevin, steps", UPPER, certificate.known, kl, 1e-9)
    about = {"unit": "W2", "trivial": noised}
    yield compared("pedrotti2023.langevin, W2", UPPER, certificate["W2 at T1"].value, away, 1e-3, **about)
    grid = grids.log_snr(horizon, EARLY_STOP, REVERSAL)
    ways = zip(exactly.down_the_ode(case, x, grid), ("exact ODE", "ddim"), strict=True)
    for (exact, way), given in zip(ways, ({"early_stop": EARLY_STOP}, {"grid": grid}), strict=True):
        whole = pedrotti2023.w2(*first, step_size=STEP, second_moment=law.second_moment, **given)
        about = {"unit": "W2", "trivial": law.second_moment**0.5}
        yield compared(f"pedrotti2023.w2, {way}", UPPER, whole["W2 in all"].value, exact, 1e-3 * exact, **about)


def finite(number):
    """A float, or None where it is infinite or there is no exact value but 0."""
    return float(number) if np.isfinite(number) else None
