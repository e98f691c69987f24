"""How do the schemes of the reverse ODE converge, on smooth and rough laws, with exact and with perturbed scores?

Every kernel of the ODE and diffrax's adaptive method run from T = 5 to delta, in float64. The error is the root mean
square (rms) distance of the end points to those of the exact flow (oracles/reverse_ode_problems.py), divided by the rms
size of the exact end points. The order of a method is the slope of -log error against log evaluations, by least
squares. It is fitted to the four largest budgets whose errors lie between ten times the error of the reference and 0.1.
The column "half" has half the length of the slope's 95 % interval. With a perturbed score, the order is measured
towards the flow of that score.

On point masses the flow is steep between two points. A method of order p sends a fraction of order p of the particles
to the wrong point, so the rms has order p/2, unless delta is so large that the points merge. In more dimensions there
are only some hundred draws, too few to show a fraction below one in some hundred. There the order of the median
particle says more. A perturbed score predicts a noise that is wrong by a vector of length eps at every point and time.
The vector's direction changes with x and log snr, and its L2 size is exactly eps.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from scipy.stats import linregress, t

from benchmarks.harness import drawing, studies
from benchmarks.harness.timing import interleaved
from benchmarks.oracles.reverse_ode_problems import (
    BROAD,
    CLOSEST,
    DIGITS,
    FIELDS,
    GAUSSIAN,
    HORIZON,
    LAWS,
    PAIR,
    RESOLVED,
    RING,
    ROUNDING,
    fine_end,
    perturbed,
    problem_of,
    rms,
    target_of,
    together,
)
from benchmarks.oracles.work_precision_tables import geometric_mean
from benchmarks.samplers.methods import ODE
from benchmarks.samplers.reverse_ode import BUDGETS, GRIDS, outputs
from jaxdiff import grids, plots, sample

NAME = "reverse_ode_schemes"
QUESTION = (
    "How do the schemes of the reverse ODE converge, on smooth and rough laws, with exact and with perturbed scores?"
)
EARLY_STOP, LATER_STOP = 1e-3, 0.05
EARLY, LATE, AT = 64, 128, 32  # early slopes up to, late ones from; budget of the best kernel
DECLARED = {  # of errors on Gaussians; the README's table
    **dict.fromkeys(("euler", "eta_family, score", "ddim"), 1), "heun": 2, "rk4": 4, "randomized_midpoint": 1.5,
    **{f"deis {p}": p for p in (2, 3, 4)}, **{f"dpm_solver {p}": 2 for p in (2, 3)},
    **{f"exponential_adams {p}": p for p in (3, 4)}, **{f"unipc {p}": p + 1 for p in (1, 2, 3)},
}  # fmt: skip
NEAR = 0.2  # a fitted order this close to the declared one agrees
MOST_ERROR, ABOVE, FITTED = 0.1, 10.0, 4
FINE = {"quick": 1024, "full": 4096}  # steps of the reference
EPS, FLOOR_REACHED = 1e-2, 1.1
SIZES = {"quick": (EPS,), "full": (1e-3, EPS, 1e-1)}
PARTICLES, TIMED = 4096, {"quick": (32,), "full": (32, 128)}
SLOPES = ("ddim", "heun", "rk4")
DRAWN = ("ddim", "heun", "rk4", "dpm_solver 2", "deis 3", "exponential_adams 4", "unipc 3", "adaptive")


CASES = {
    "quick": {
        **{(law, EARLY_STOP): ("log_snr",) for law in (GAUSSIAN, BROAD, PAIR, RING)},
        (PAIR, LATER_STOP): ("log_snr",),
    },
    "full": {
        **{(law, EARLY_STOP): tuple(GRIDS) if law != DIGITS else ("log_snr",) for law in LAWS},
        **{(law, LATER_STOP): ("log_snr",) for law in (PAIR, RING)},
    },
}
PERTURBED = {"quick": (GAUSSIAN,), "full": (GAUSSIAN, RING)}
TIMED_LAWS = {"quick": (RING,), "full": (RING, DIGITS)}


def slope(evals, errors):
    """(order, half of its 95 % interval): the least squares slope of -log error on log evaluations."""
    if len(evals) < 2:
        return None, None
    fit, spare = linregress(np.log(evals), -np.log(errors)), len(evals) - 2
    return float(fit.slope), float(t.ppf(0.975, spare) * fit.stderr) if spare else None


def orders(evals, errors, floor):
    """The order in the window and the window's ends; then the slopes at small and at large budgets, for any error."""
    known = [(n, e) for n, e in zip(evals, errors, strict=True) if e is not None and e > ABOVE * floor]
    window = [pair for pair in known if pair[1] <= MOST_ERROR][-FITTED:]
    found = dict.fromkeys(("order", "half", "first", "last"))
    if len(window) > 2:
        order, half = slope(*zip(*window, strict=True))
        found = {"order": order, "half": half, "first": window[0][0], "last": window[-1][0]}
    of_part = lambda part: slope(*zip(*part, strict=True))[0] if len(part) > 1 else None
    early, late = [p for p in known if p[0] <= EARLY], [p for p in known if p[0] >= LATE]
    return found | {"early": of_part(early), "late": of_part(late)}


def exact_row(problem, name, grid):
    """Errors of a method with the exact score, and their orders."""
    ends = outputs(problem, name, grid)
    measured = zip(*(together(problem, x, problem.end) for x in ends.values()), strict=True)
    lists = dict(zip(("error", "median", "strayed"), map(list, measured), strict=True))
    about = {"part": "exact", "law": problem.law, "kind": problem.kind, "early_stop": problem.early_stop, "grid": grid}
    found = orders(list(ends), lists["error"], problem.uncertainty)
    of = lambda name, floor: {f"{name}_order": orders(list(ends), lists[name], floor)["order"]}
    also = of("median", problem.uncertainty) | of("strayed", CLOSEST)
    about |= {"kernel": name, "declared": DECLARED.get(name), "uncertainty": problem.uncertainty}
    return about | found | also | {"evals": list(ends)} | lists


def reached(evals, errors, floor):
    """The least budget from which on the error is at most 1.1 times the floor; None if the last budget exceeds that."""
    found = None
    for n, error in reversed(list(zip(evals, errors, strict=True))):
        if error is None or error > FLOOR_REACHED * floor:
            return found
        found = n
    return found


def perturbed_rows(problem, eps, field, size, names):
    """A row for each method: its distances to the flow of the exact score and to the flow of the perturbed score."""
    wrong = problem._replace(score=perturbed(problem.score, problem.x.shape[1], eps, field))
    own, coarse = (fine_end(wrong.score, wrong.x, wrong.early_stop, n) for n in (FINE[size], FINE[size] // 2))
    floor, unsure = rms(problem, own, problem.end), max(ROUNDING, rms(problem, coarse, own))
    for name in names:
        ends = outputs(wrong, name, "log_snr")
        errors, owns = ([together(problem, x, end)[0] for x in ends.values()] for end in (problem.end, own))
        about = {"part": "perturbed", "law": problem.law, "kind": problem.kind, "early_stop": problem.early_stop}
        about |= {"grid": "log_snr", "eps": eps, "field": field, "kernel": name, "declared": DECLARED.get(name)}
        about |= orders(list(ends), owns, unsure) | {"floor": floor, "reached": reached(ends, errors, floor)}
        yield about | {"uncertainty": unsure, "evals": list(ends), "error": errors, "own": owns}


def timed_rows(law, evals, repeats, found):
    """Median wall time of 4,096 particles in float32 through `sample`, beside the method's error in float64."""
    target = target_of(law)
    x = jnp.asarray(np.random.default_rng(4).normal(size=(PARTICLES, target.dim)), jnp.float32)
    mesh = Mesh(np.array(jax.devices()), ("particles",)) if jax.device_count() > 1 else None
    of = lambda kernel: grids.log_snr(HORIZON, EARLY_STOP, evals // kernel.evals_per_step)
    run_of = lambda kernel: lambda: sample(kernel, x, of(kernel), jax.random.key(0), mesh=mesh)
    runs = {name: run_of(method.make(target)) for name, method in ODE.items()}
    for name, timing in interleaved(runs, repeats).items():
        exact = next(row for row in found if row["law"] == law and row["kernel"] == name and row["grid"] == "log_snr")
        error = exact["error"][exact["evals"].index(evals)]
        about = {"part": "wall time", "law": law, "early_stop": EARLY_STOP, "grid": "log_snr", "kernel": name}
        yield about | {"at": evals, "seconds": timing.median, "us": timing.median / evals * 1e6, "at_error": error}


def rows(quick, repeats):
    """Errors with exact and with perturbed scores, and wall times."""
    size = "quick" if quick else "full"
    found = []
    for (law, delta), on in CASES[size].items():
        problem = problem_of(law, delta, FINE[size])
        found += [exact_row(problem, name, grid) for grid in on for name in ODE]
        found.append(exact_row(problem, "adaptive", "its own"))
    shaken = []
    for law in PERTURBED[size]:
        problem = problem_of(law, EARLY_STOP, FINE[size])
        for eps in SIZES[size]:
            for field in FIELDS:
                shaken += perturbed_rows(problem, eps, field, size, (*ODE, "adaptive"))
    timed = [row for law in TIMED_LAWS[size] for n in TIMED[size] for row in timed_rows(law, n, repeats, found)]
    return found + shaken + timed


def _of(rows, part, **fixed):
    """The rows of a part with given values."""
    return [row for row in rows if row["part"] == part and all(row[key] == value for key, value in fixed.items())]


def verdict(rows):
    """Orders on smooth and rough laws, the best kernels, and the budgets that reach a perturbed score's floor."""
    named = _of(rows, "exact", grid="log_snr", early_stop=EARLY_STOP)
    return " ".join([f"{_of_smooth(named)}; {_of_best(named)}.", _of_rough(named, rows), _of_floor(rows)])


def _of_smooth(named):
    smooth = [row for row in named if row["kind"] == "smooth" and row["order"] is not None]
    off = [row for row in smooth if abs(row["order"] - row["declared"]) > NEAR]
    worst = sorted(off, key=lambda row: -abs(row["order"] - row["declared"]))[:3]
    which = "; ".join(f"{row['kernel']} {row['order']:.2f} for {row['declared']:g} on {row['law']}" for row in worst)
    whole = len({row["kernel"] for row in smooth} - {row["kernel"] for row in off})
    return (
        f"Smooth laws, log_snr: {len(smooth) - len(off)} of {len(smooth)} orders are within {NEAR:g} of the declared, "
        f"{whole} of {len({row['kernel'] for row in smooth})} kernels on every law"
        + (f" (furthest off: {which})" if off else "")
    )


def _of_rough(named, rows):
    rough = [row for row in named if row["law"] in RESOLVED]
    later = [row for row in _of(rows, "exact", early_stop=LATER_STOP) if row["declared"] is not None]
    share = lambda column, of=rough: _median(row[column] and row[column] / row["declared"] for row in of)
    high = [row for row in rough if row["declared"] is not None and row["declared"] >= 2]
    early, late = (_median(row[part] for row in high) for part in ("early", "late"))
    return (
        f"On {' and '.join(dict.fromkeys(row['law'] for row in rough))} the rms has {share('order')} times the "
        f"declared order (median over kernels), the share of particles that stray {share('strayed_order')} times, the "
        f"median particle {share('median_order')} times, the rms of laws stopped at {LATER_STOP:g} "
        f"{share('order', later)} times; in kernels of order 2 and more the rms falls with slope "
        f"{early} up to {EARLY} evaluations and {late} from {LATE} (medians)."
    )


def _median(values):
    known = [value for value in values if value is not None]
    return f"{np.median(known):.2f}" if known else "(no fitted order)"


def _of_best(named):
    said = (f"{kind} {' at '.join(best(named, kind))}" for kind in ("smooth", "rough"))
    return f"least error at {AT} evaluations, geometric mean over laws: {', '.join(said)}"


def best(named, kind):
    """(kernel, its error as text) with the least geometric mean over the laws of a kind, at 32 evaluations."""
    errors = {}
    for row in (row for row in named if row["kind"] == kind):
        error = row["error"][row["evals"].index(AT)]
        errors.setdefault(row["kernel"], []).append(np.inf if error is None else error)
    name, error = min(((name, geometric_mean(of)) for name, of in errors.items()), key=lambda pair: pair[1])
    return name, f"{error:.2g}"


def _of_floor(rows):
    laws = list(dict.fromkeys(row["law"] for row in _of(rows, "perturbed")))
    said = "; ".join(_of_field(_of(rows, "perturbed", law=laws[0], eps=EPS, field=field), field) for field in FIELDS)
    return f"A predicted noise off by {EPS:g} on {laws[0]}, within 10 % of its flow's floor: {said}."


def _of_field(shaken, field):
    ran = {row["kernel"]: row["reached"] for row in shaken if row["kernel"] != "adaptive"}
    there = {name: n for name, n in ran.items() if n is not None}
    least = min(there.values(), default=None)
    first = "no kernel" if least is None else f"from {least} {' and '.join(n for n in there if there[n] == least)}"
    ddim = "not by the last" if ran["ddim"] is None else f"from {ran['ddim']}"
    return f"{field} (floor {shaken[0]['floor']:.2g}): {first}, ddim {ddim}, {len(there)} of {len(ran)} at all"


def draw(rows, path):
    """Error against evaluations: a smooth law, a rough law, and noise that is wrong smoothly or roughly in time."""
    figure = plots.canvas(13, 4.8)
    panels = figure.subplots(1, 4)
    exact = [row for row in _of(rows, "exact", early_stop=EARLY_STOP) if row["grid"] != "karras"]
    for ax, law, share in zip(panels, (BROAD, PAIR), (1.0, 0.5), strict=False):
        _curves(ax, [row for row in exact if row["law"] == law], share)
        ax.set_title(f"{law}, exact score\ndashed: {'orders' if share == 1 else 'half the orders'}", fontsize=10)
    law = _of(rows, "perturbed")[0]["law"]
    for ax, field in zip(panels[2:], ("smooth", "rough in time"), strict=True):
        shaken = _of(rows, "perturbed", law=law, eps=EPS, field=field)
        _curves(ax, shaken)
        ax.axhline(shaken[0]["floor"], color="black", ls=":", lw=1.6, label="floor: exact flow of the perturbed score")
        ax.set_title(f"{law}, noise off by {EPS:g},\n{field}", fontsize=10)
    panels[0].set_ylabel("rms distance to the exact flow, relative")
    figure.legend(
        *panels[2].get_legend_handles_labels(), frameon=False, fontsize=9, loc="outside lower center", ncols=9
    )
    return plots.saved(figure, path)


def _curves(ax, rows, share=0.0):
    for index, name in enumerate(DRAWN):
        for row in (row for row in rows if row["kernel"] == name):
            points = {n: e for n, e in zip(row["evals"], row["error"], strict=True) if e is not None and e < 3}
            drawing.line(ax, points, name, index)
    drawing.powers(ax, BUDGETS)
    ax.set(xlabel="score evaluations", xlim=(BUDGETS[0] / 1.2, BUDGETS[-1] * 1.2))
    for name in SLOPES if share else ():
        row = next(row for row in rows if row["kernel"] == name)
        at, end, order = np.array(BUDGETS[2:], float), row["error"][-1], share * DECLARED[name]
        if end is not None:
            ax.plot(at, 1.5 * end * (at[-1] / at) ** order, "--", color="black", lw=1)
            ax.annotate(f"{order:g}", (at[-1], 1.5 * end), (3, 0), textcoords="offset points", va="center", fontsize=8)


COLUMNS = ("part", "law", "early_stop", "grid", "eps", "field", "kernel", "declared", "order", "half", "first", "last")
MORE = ("early", "late", "median_order", "strayed_order", "floor", "reached", "at", "seconds", "us", "at_error")
STUDY = studies.Study(NAME, QUESTION, rows, COLUMNS + MORE, verdict, draw)

if __name__ == "__main__":
    studies.main(STUDY)
