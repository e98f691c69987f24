"""How far is every bound of jaxdiff.bounds from what it bounds?

Each against the exact value (exact_values.py), on eleven laws: the path KL of three kernels down three grids, the
initial KL, mutual information, the W2 of stopping early; on the line also KL and TV of the end points; for data in a
ball what a finite horizon needs and costs. Where the mmse is a Monte Carlo average, `error`, how wrong the exact value
can be, is five standard errors of its difference from the bound.

An upper bound is vacuous where it says nothing and the exact value would have: a KL or TV from which TV may be 0.99, a
W2 that samples all at 0 keep. A lower bound is vacuous at 0. A bound that does not apply has a row that says why.
"""

import jax
import numpy as np

from benchmarks import exact_values as exactly
from benchmarks import figures, studies
from jaxdiff import grids, information, kernels, plots
from jaxdiff.certificate import total_variation
from jaxdiff.guarantees.bounds import any_grid, benton2024, from_nodes, lsi, pedrotti2023
from jaxdiff.guarantees.path_kl import standard_error
from jaxdiff.processes import ou

NAME = "bound_tightness"
QUESTION = "How far is every bound from the exact value?"
KERNELS = ("exponential_euler", "ancestral", "moment_matched")
HORIZON, EARLY_STOP = 5.0, 1e-2
STEPS = {"quick": (50,), "full": (50, 200)}
NO_TV = 0.99  # a bound of it on TV is none
TRIVIAL = {"nats": -np.log1p(-(NO_TV**2)), "TV": NO_TV}
CONSTANT, LANGEVIN, STEP = 0.5, 2.0, 0.02  # of the law at T1; running time there, in steps
REVERSAL = 50  # steps of ddim
ORDER, UPPER, LOWER = "no bound", "at most", "at least"
ENDLESS = 1e12  # a factor that is called infinite


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
        "value": _finite(value),
        "exact": exact,
        "error": error,
        "ratio": value / exact if exact > error and np.isfinite(value) else None,
        "vacuous": bool(nothing),
    }


def left_out(bound, side, reason, kernel=None):
    """A row of a bound that does not apply, or that there is no exact value to hold against."""
    row = {"part": "case", "bound": bound, "side": side, "kernel": kernel}
    return row | {"applies": False, "reason": reason, "vacuous": False}


def by_curve(bound, side, value, exact, case, slack, **about):
    """A row where the exact value, and perhaps the bound, is a function of the mmse curve and of its replicates."""
    bounded = value if callable(value) else lambda curve: value
    curve = case.law.mmse
    spread = standard_error([bounded(one) - exact(one) for one in curve.replicates])
    return compared(bound, side, bounded(curve), exact(curve), max(5 * spread, slack), **about)


def named_grids(case, n_steps):
    """Benton's grid, that of least path KL of ancestral sampling, and equal steps of log snr."""
    ends, cost = (HORIZON, EARLY_STOP), information.step_cost("ancestral", case.law.mmse)
    named = {"Benton": grids.exponential_then_uniform(*ends, n_steps), "log snr": grids.log_snr(*ends, n_steps)}
    if case.total_variance >= exactly.SMALL:  # on a point every grid is optimal
        named["optimal"] = grids.optimal(cost, *ends, n_steps)
    return {f"{name}, {n_steps}": grid for name, grid in named.items()}


def rounding(dim, grid):
    """Nats by which path KLs and their bounds may be wrong in float64."""
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
    """Rows of KL and TV of the end points, which the path KL and Pinsker or Bretagnolle and Huber bound."""
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
    """Rows of what a finite horizon needs and costs, T1 that from which on the constant is 1/2 by the formula."""
    if case.radius is None:
        yield left_out("pedrotti2023", UPPER, "the data are not in a ball")
        return
    horizon = pedrotti2023.sufficient_horizon(1 - CONSTANT, case.radius)
    yield from constants(case, horizon)
    yield from starts(case, horizon)
    yield from corrected(case, horizon)


def constants(case, horizon):
    """Rows of the log-Sobolev constant, the horizon it needs, and how score and ODE pull apart."""
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


def rows(quick, repeats):
    """A row for every law, bound, kernel and grid; then one for every bound and kernel."""
    found = []
    for name, case in exactly.cases().items():
        own = [*at_the_ends(case), *in_a_ball(case)]
        for n_steps in STEPS["quick" if quick else "full"]:
            chosen = named_grids(case, n_steps)
            own += [row for grid in chosen.items() for row in on_grid(case, *grid)]
            own += on_geometric(case, n_steps)
            if case.line is not None and case.copies == 1 and n_steps == STEPS["quick"][0]:
                own += [row for grid in list(chosen.items())[: 1 if quick else 3] for row in on_the_line(case, *grid)]
        found += [{"law": name} | row for row in own]
    return found + summaries(found)


def violated(row):
    """Is the exact value on the wrong side, by more than it may be wrong itself?"""
    if not row["applies"] or row["side"] == ORDER or row["value"] is None:
        return False
    beyond = row["exact"] - row["value"] if row["side"] == UPPER else row["value"] - row["exact"]
    return beyond > row["error"]


def factor(row):
    """How many times off a bound is, inf where it is infinite, or 0 from below; None where the exact value is 0."""
    if not row["applies"] or row["exact"] <= row["error"]:
        return None
    if row["value"] is None or (row["side"] == LOWER and row["ratio"] <= 0):
        return np.inf
    off = 1 / row["ratio"] if row["side"] == LOWER else row["ratio"]
    return off if off < ENDLESS else np.inf


def by_bound(rows):
    """The rows of every bound and kernel: {(bound, kernel): rows}."""
    found = {}
    for row in rows:
        if row["part"] == "case":
            found.setdefault((row["bound"], row["kernel"]), []).append(row)
    return found


def summaries(rows):
    """A row for every bound and kernel that was held against an exact value: how many, how far off."""
    own = {key: some for key, some in by_bound(rows).items() if any(row["applies"] for row in some)}
    return [_summary(*key, some) for key, some in own.items()]


def _summary(bound, kernel, own):
    known = [(number, row["law"]) for row in own if (number := factor(row)) is not None] or [(np.nan, None)]
    (tightest, _), (loosest, law) = min(known), max(known)
    return {
        "part": "bound",
        "bound": bound,
        "side": own[0]["side"],
        "kernel": kernel,
        "compared": sum(row["applies"] for row in own),
        "left_out": len({row["law"] for row in own if not row["applies"]}),
        "violated": sum(map(violated, own)),
        "vacuous": sum(row["vacuous"] for row in own),
        "tightest": _finite(tightest),
        "median": _finite(np.median([number for number, _ in known])),
        "loosest": _finite(loosest),
        "loosest_law": law,
    }


def _finite(number):
    return float(number) if np.isfinite(number) else None  # None: infinite, or no exact value but 0


def verdict(rows):
    """How many bounds were violated, the tightest and the loosest by their medians, the vacuous ones."""
    cases, own = ([row for row in rows if row["part"] == part] for part in ("case", "bound"))
    bounds = [row for row in own if row["side"] != ORDER]
    broken = [f"{label(row['bound'], row['kernel'])} on {row['law']}" for row in cases if violated(row)]
    said = f"VIOLATED in {len(broken)}: {'; '.join(sorted(set(broken)))}" if broken else "none violated"
    ranked = sorted((row for row in bounds if row["median"] is not None), key=lambda row: row["median"])
    worth = lambda row: f"{label(row['bound'], row['kernel'])} {row['median']:.3g}"
    empty = [label(row["bound"], row["kernel"]) for row in bounds if row["vacuous"] > row["compared"] / 2]
    orders = [row["ratio"] for row in cases if row["side"] == ORDER and row.get("ratio")]
    printed = f"; Benton as printed, no bound: {min(orders):.2g} to {max(orders):.2g} times" if orders else ""
    return (
        f"{sum(row['compared'] for row in bounds)} comparisons of {len(bounds)} bounds on "
        f"{len({row['law'] for row in cases})} laws, {said}. By the median factor from the exact value tightest: "
        f"{', '.join(map(worth, ranked[:3]))}; loosest: {', '.join(map(worth, ranked[-3:]))}{printed}. Vacuous in "
        f"most cases: {', '.join(empty) or 'none'}."
    )


def label(bound, kernel):
    """A bound's name, short, with its kernel."""
    short = bound.replace("pedrotti2023.", "Pedrotti ").replace("benton2024.", "Benton ").replace("_", " ")
    return short if kernel is None else f"{short} ({kernel.replace('_', ' ')})"


def draw(rows, path):
    """Ratio of bound and exact value, a dot for each law, the median over grids; bounds of a kernel on the left."""
    groups = by_bound(rows)
    laws = list(dict.fromkeys(row["law"] for row in rows if row["part"] == "case"))
    figure = plots.canvas(12.5, 6.4)
    for ax, of_kernel, limits in zip(figure.subplots(1, 2), (True, False), ((0.05, 3e3), (0.05, 1e8)), strict=True):
        shown = {
            key: ratios for key, own in groups.items() if (key[1] is not None) == of_kernel if (ratios := dots(own))
        }
        for height, ratios in enumerate(shown.values()):
            for law, ratio in ratios.items():
                index = laws.index(law)
                _dot(ax, np.clip(ratio, *limits), height + 0.6 * ((index + 0.5) / len(laws) - 0.5), index)
        ax.set_yticks(range(len(shown)), [label(*key) for key in shown], fontsize=8)
        ax.set(xscale="log", xlim=limits, ylim=(len(shown) - 0.4, -0.6), xlabel="bound / exact value (edge: beyond)")
        ax.axvline(1, color="black", ls="--", lw=1)
        ax.grid(alpha=0.25, lw=0.6)
    handles = [_dot(ax, np.nan, np.nan, index, law)[0] for index, law in enumerate(laws)]
    figure.legend(handles=handles, frameon=False, fontsize=8.5, loc="outside lower center", ncols=6)
    return plots.saved(figure, path)


def dots(rows):
    """{law: median ratio} of a bound, inf where it is infinite."""
    ratios = {}
    for row in rows:
        if factor(row) is not None:
            ratios.setdefault(row["law"], []).append(np.inf if row["value"] is None else row["ratio"])
    return {law: np.median(own) for law, own in ratios.items()}


def _dot(ax, x, y, index, label=None):
    """A law's dot; those beyond the eighth are hollow."""
    colour, marker = (of[index % len(of)] for of in (figures.COLOURS, figures.MARKERS))
    face = colour if index < len(figures.COLOURS) else "white"
    return ax.plot(x, y, marker, ms=4.5, color=colour, mfc=face, ls="", label=label, clip_on=False)


COLUMNS = ("bound", "kernel", "side", "compared", "left_out", "violated", "vacuous", "tightest", "median", "loosest")
STUDY = studies.Study(NAME, QUESTION, rows, (*COLUMNS, "loosest_law"), verdict, draw, ("case",))

if __name__ == "__main__":
    studies.main(STUDY)
