"""How do the schemes of the reverse ODE converge, on smooth and rough laws, with exact and with perturbed scores?

Every kernel of the ODE and diffrax's adaptive method, T = 5 to delta, float64: root mean square distance of the end
points to those of the exact flow, over their own root mean square. Flows are closed forms on Gaussians, matched
quantiles on the line, else fine steps of RK4, whose error is the distance to half as many. Starts on the line are
spaced by powers around the point that divides two bumps and weighted by N(0, 1), so that rare particles that end at the
wrong bump are seen; weights are unequal, as under symmetry none do. An order is the least squares slope over the last
four budgets with errors from ten times the reference's to 0.1. A perturbed score predicts a noise that is off by a
vector of length eps at every point and time, which turns with x and log snr: its L2 size is eps exactly.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.tree_util import Partial
from scipy.stats import linregress, t

from benchmarks import figures, harness, line, studies
from benchmarks.dimension_sweep import digits
from benchmarks.work_precision import ODE, geometric_mean, run, silence, walk
from jaxdiff import grids, kernels, ode, plots, sample, targets
from jaxdiff.processes import ou
from jaxdiff.types import as_score

NAME = "reverse_ode_schemes"
QUESTION = (
    "How do the schemes of the reverse ODE converge, on smooth and rough laws, with exact and with perturbed scores?"
)
HORIZON, EARLY_STOP, LATER_STOP = 5.0, 1e-3, 0.05
BUDGETS = (8, 16, 32, 64, 128, 256, 512)
EARLY, LATE, AT = 64, 128, 32  # budgets up to and from which slopes are told apart; whose best kernel is named
DECLARED = {  # of errors on Gaussians; the README's table
    **dict.fromkeys(("euler", "eta_family, score", "ddim"), 1), "heun": 2, "rk4": 4, "randomized_midpoint": 1.5,
    **{f"deis {p}": p for p in (2, 3, 4)}, **{f"dpm_solver {p}": 2 for p in (2, 3)},
    **{f"exponential_adams {p}": p for p in (3, 4)}, **{f"unipc {p}": p + 1 for p in (1, 2, 3)},
}  # fmt: skip
NEAR = 0.2  # how close to the declared order a fitted one is called reached
SEEDS = 16  # of the randomised midpoint's times
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-6, 1e-8)
MOST_ERROR, ABOVE, FITTED, ROUNDING = 0.1, 10.0, 4, 1e-12
FAR = 0.5  # root mean squares of the law from its place, and a particle has strayed
GRIDS = {"log_snr": grids.log_snr, "karras": grids.karras}
ON_LINE, STARTS, FEW_STARTS = 1024, 512, 256
CLOSEST, FARTHEST = 1e-13, 8.0  # starts from the point that divides the bumps
FINE = {"quick": 1024, "full": 4096}  # steps of the reference
EPS, FLOOR_REACHED = 1e-2, 1.1
SIZES = {"quick": (EPS,), "full": (1e-3, EPS, 1e-1)}
FIELDS = {"smooth": (1.0, 0.5), "rough in time": (1.0, 40.0), "rough in space": (30.0, 0.5)}  # radians per x, log snr
PARTICLES, TIMED = 4096, {"quick": (32,), "full": (32, 128)}
SLOPES = ("ddim", "heun", "rk4")
DRAWN = ("ddim", "heun", "rk4", "dpm_solver 2", "deis 3", "exponential_adams 4", "unipc 3", "adaptive")


class Problem(NamedTuple):
    """A law's score, starts with weights that sum to 1, where the exact flow takes them, and how sure that is."""

    law: str
    kind: str
    early_stop: float
    score: Any
    x: Any
    weights: Any
    end: Any
    uncertainty: float


def gaussian_flow(mean, variance, x, delta):
    """Where the reverse ODE of a Gaussian takes x from the horizon to delta, coordinate by coordinate."""
    deviation = lambda time: np.sqrt(ou.alpha(time) ** 2 * variance + ou.sigma(time) ** 2)
    away = (x - ou.alpha(HORIZON) * mean) / deviation(HORIZON)
    return ou.alpha(delta) * mean + deviation(delta) * away


def gaussian(delta, fine):
    """Four coordinates of variances 0.1 to 2."""
    mean, variance = np.array([1.0, -0.5, 0.3, 0.0]), np.array([0.1, 0.25, 0.5, 2.0])
    x = np.random.default_rng(0).normal(size=(STARTS, 4))
    return of_draws(targets.gaussian(mean, variance), x)._replace(end=gaussian_flow(mean, variance, x, delta))


def starts_on_line(divide):
    """Points (n, 1) spaced by powers on both sides of one that divides, and weights of N(0, 1)."""
    steps = np.geomspace(CLOSEST, FARTHEST, ON_LINE // 2)
    x = divide + np.concatenate([-steps[::-1], steps])
    weights = np.exp(-(x**2) / 2) * np.concatenate([steps[::-1], steps])
    return x[:, None], weights / weights.sum()


def on_line(deviation):
    """Two bumps at -1 and 1, of weights 0.3 and 0.7."""
    law = line.Law([0.3, 0.7], [-1.0, 1.0], [deviation**2] * 2)
    x, weights = starts_on_line(law.quantiles(np.array([0.3]), HORIZON)[0])

    def problem(delta, fine):
        end = line.through_the_ode(law, x[:, 0], HORIZON, delta)[:, None]
        return Problem("", "", delta, law.score, x, weights, end, ROUNDING)

    return problem


def of_draws(law, x):
    """The problem of a law from draws of N(0, I), without an end."""
    return Problem("", "", 0.0, law.score, x, np.full(len(x), 1 / len(x)), None, ROUNDING)


def by_fine_steps(law, n):
    """A law whose flow is followed by RK4."""
    x = np.random.default_rng(1).normal(size=(n, law.dim))

    def problem(delta, fine):
        start = of_draws(law, x)
        end, coarse = (fine_end(law.score, x, delta, steps) for steps in (fine, fine // 2))
        return start._replace(end=end, uncertainty=max(ROUNDING, rms(start, coarse, end)))

    return problem


def fine_end(score, x, delta, steps):
    """Where so many steps of RK4 lead."""
    grid = grids.log_snr(HORIZON, delta, steps)
    return np.asarray(run(kernels.rk4(score), grid, spread(x), draw=silence, most=FINE["full"]))


def spread(x):
    """x over all devices."""
    devices = np.array(jax.devices())
    if len(x) % len(devices):
        return jnp.asarray(x)
    return jax.device_put(x, NamedSharding(Mesh(devices, ("particles",)), PartitionSpec("particles")))


def bumps():
    """Three bumps of deviation 0.5 in eight dimensions."""
    means = np.random.default_rng(2).normal(size=(3, 8))
    return targets.mixture([0.2, 0.3, 0.5], means, np.full((3, 8), 0.25))


def ring():
    """Eight points of unequal weights on a circle of radius 2."""
    angles = np.arange(8) * np.pi / 4
    return targets.point_masses(2 * np.c_[np.cos(angles), np.sin(angles)], np.arange(1, 9) / 36)


BROAD, PAIR, RING, DIGITS = "2 broad bumps", "2 points", "ring of 8 points", "225 digits"
NARROW = "2 narrow bumps"
RESOLVED = (PAIR, NARROW)  # rough laws on the line, where particles that stray are seen however few
LAWS = {
    "gaussian": ("smooth", lambda: gaussian),
    BROAD: ("smooth", lambda: on_line(0.5)),
    "3 broad bumps, d = 8": ("smooth", lambda: by_fine_steps(bumps(), STARTS)),
    PAIR: ("rough", lambda: on_line(0.0)),
    NARROW: ("rough", lambda: on_line(0.01)),
    RING: ("rough", lambda: by_fine_steps(ring(), STARTS)),
    DIGITS: ("rough", lambda: by_fine_steps(digits(8), FEW_STARTS)),
}
CASES = {
    "quick": {(law, EARLY_STOP): ("log_snr",) for law in ("gaussian", BROAD, PAIR, RING)},
    "full": {
        **{(law, EARLY_STOP): tuple(GRIDS) if law != DIGITS else ("log_snr",) for law in LAWS},
        **{(law, LATER_STOP): ("log_snr",) for law in (PAIR, RING)},
    },
}
PERTURBED = {"quick": ("gaussian",), "full": ("gaussian", RING)}
TIMED_LAWS = {"quick": (RING,), "full": (RING, DIGITS)}


def problem_of(law, delta, size):
    """The problem of a law down to delta."""
    kind, make = LAWS[law]
    return make()(delta, FINE[size])._replace(law=law, kind=kind, early_stop=delta)


def squares(problem, x, end):
    """Squared distances of particles to where they should be, over the mean square of that."""
    size = problem.weights @ np.sum(end**2, axis=-1)
    return np.sum((np.asarray(x) - end) ** 2, axis=-1) / size


def rms(problem, x, end):
    """Their root mean square; None where a particle is no number."""
    found = problem.weights @ squares(problem, x, end)
    return float(np.sqrt(found)) if np.isfinite(found) else None


def together(problem, ends, end):
    """(rms, median, strayed) over runs and particles, Nones if one diverged; strayed: the share far from its place."""
    each = np.array([squares(problem, x, end) for x in ends])
    if not np.isfinite(each).all():
        return None, None, None
    away, far = each.mean(0), (each > FAR**2).mean(0)
    median = np.quantile(np.sqrt(away), 0.5, weights=problem.weights, method="inverted_cdf")
    return float(np.sqrt(problem.weights @ away)), float(median), float(problem.weights @ far)


def outputs(problem, name, grid):
    """{evaluations: end points of one run or several} of a kernel on a grid, or of the adaptive method."""
    x = spread(problem.x)
    if name == "adaptive":
        solved = (ode.solve(problem.score, x, HORIZON, problem.early_stop, rtol=r, atol=r) for r in TOLERANCES)
        return {float(np.mean(one.evals)): [np.asarray(one.x)] for one in solved}
    kernel = ODE[name].make(problem)
    of = lambda budget: GRIDS[grid](HORIZON, problem.early_stop, budget // kernel.evals_per_step)
    if name != "randomized_midpoint":
        return {n: [np.asarray(run(kernel, of(n), x, draw=silence, most=BUDGETS[-1]))] for n in BUDGETS}
    return {n: list(_with_other_times(kernel, of(n), x)) for n in BUDGETS}


def _with_other_times(kernel, grid, x):
    """End points for every seed of the random times: the tables differ, the compiled program does not."""
    pad = lambda column: jnp.asarray(np.pad(column, (0, BUDGETS[-1] - len(column))))
    for seed in range(SEEDS):
        table = kernels.randomized_midpoint(kernel.score, seed).coefficients(grid)
        yield np.asarray(walk(kernel, jax.tree.map(pad, table), len(grid) - 1, x, None, silence))


def slope(evals, errors):
    """(order, half of its 95 % interval): the least squares slope of -log error on log evaluations."""
    if len(evals) < 2:
        return None, None
    fit, spare = linregress(np.log(evals), -np.log(errors)), len(evals) - 2
    return float(fit.slope), float(t.ppf(0.975, spare) * fit.stderr) if spare else None


def orders(evals, errors, floor):
    """The order in the window and what the window is; the slopes before and behind, whatever the error is there."""
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
    of_median = orders(list(ends), lists["median"], problem.uncertainty)["order"]
    about |= {"kernel": name, "declared": DECLARED.get(name), "uncertainty": problem.uncertainty}
    return about | found | {"median_order": of_median, "evals": list(ends)} | lists


def _perturbed(score, eps, space, times, phases, x, time):
    u = jnp.log(ou.snr(time))
    angle = x @ space.astype(x.dtype) + times.astype(x.dtype) * u + phases.astype(x.dtype)
    wave = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1).reshape(x.shape)
    return score(x, time) - (eps.astype(x.dtype) / ou.sigma(time)) * wave


def perturbed(score, dim, eps, field):
    """A score whose predicted noise, -sigma s, is off by a vector of length eps: half a turn for every two coordinates.

    field: its wave numbers, radians per unit of x and of log snr; directions and phases are drawn once, dim even.
    """
    rng, (wave, frequency) = np.random.default_rng(3), FIELDS[field]
    space = rng.normal(size=(dim, dim // 2))
    space *= wave / np.linalg.norm(space, axis=0)
    times, phases = frequency * rng.uniform(0.5, 1, dim // 2), rng.uniform(0, 2 * np.pi, dim // 2)
    size = np.float64(eps) / np.sqrt(dim // 2)
    return Partial(_perturbed, as_score(score), size, *map(jnp.asarray, (space, times, phases)))


def reached(evals, errors, floor):
    """The least budget from which on the error is at most 1.1 times the floor; None if it is not at the last."""
    found = None
    for n, error in reversed(list(zip(evals, errors, strict=True))):
        if error is None or error > FLOOR_REACHED * floor:
            return found
        found = n
    return found


def perturbed_rows(problem, eps, field, size, names):
    """A row for each method: its distance to the exact flow of the exact score, and to that of the perturbed one."""
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
    """Median wall time of 4,096 particles in float32 through `sample`, and the error the method makes in float64."""
    target = {RING: ring, DIGITS: lambda: digits(8)}[law]()
    x = np.random.default_rng(4).normal(size=(PARTICLES, target.dim)).astype(np.float32)
    mesh = Mesh(np.array(jax.devices()), ("particles",)) if jax.device_count() > 1 else None
    made = {name: method.make(target) for name, method in ODE.items()}
    of = lambda kernel: grids.log_snr(HORIZON, EARLY_STOP, evals // kernel.evals_per_step)
    key = jax.random.key(0)
    runs = {name: lambda k=kernel: sample(k, x, of(k), key, mesh=mesh) for name, kernel in made.items()}
    for name, timing in harness.interleaved(runs, repeats).items():
        exact = next(row for row in found if row["law"] == law and row["kernel"] == name and row["grid"] == "log_snr")
        error = exact["error"][exact["evals"].index(evals)]
        about = {"part": "wall time", "law": law, "kernel": name, "at": evals, "seconds": timing.median}
        yield about | {"us_per_eval": timing.median / evals * 1e6, "at_error": error}


def rows(quick, repeats):
    """Errors with exact and with perturbed scores, and wall times."""
    size = "quick" if quick else "full"
    found = []
    for (law, delta), on in CASES[size].items():
        problem = problem_of(law, delta, size)
        found += [exact_row(problem, name, grid) for grid in on for name in ODE]
        found.append(exact_row(problem, "adaptive", "its own"))
    shaken = []
    for law in PERTURBED[size]:
        problem = problem_of(law, EARLY_STOP, size)
        for eps in SIZES[size]:
            for field in FIELDS:
                shaken += perturbed_rows(problem, eps, field, size, (*ODE, "adaptive"))
    timed = [row for law in TIMED_LAWS[size] for n in TIMED[size] for row in timed_rows(law, n, repeats, found)]
    return found + shaken + timed


def _of(rows, part, **fixed):
    """The rows of a part that have these values."""
    return [row for row in rows if row["part"] == part and all(row[key] == value for key, value in fixed.items())]


def verdict(rows):
    """Orders on smooth and on rough laws, the best kernels at 32 evaluations, where a perturbed score's floor is met."""
    named = _of(rows, "exact", grid="log_snr", early_stop=EARLY_STOP)
    return " ".join([_of_smooth(named), _of_rough(named), _of_best(named), _of_floor(rows)])


def _of_smooth(named):
    smooth = [row for row in named if row["kind"] == "smooth" and row["order"] is not None]
    off = [row for row in smooth if abs(row["order"] - row["declared"]) > NEAR]
    worst = sorted(off, key=lambda row: -abs(row["order"] - row["declared"]))[:3]
    which = "; ".join(f"{row['kernel']} {row['order']:.2f} for {row['declared']:g} on {row['law']}" for row in worst)
    whole = len({row["kernel"] for row in smooth} - {row["kernel"] for row in off})
    return (
        f"Smooth laws, log_snr: {len(smooth) - len(off)} of {len(smooth)} orders are within {NEAR:g} of the declared, "
        f"{whole} of {len({row['kernel'] for row in smooth})} kernels on every law"
        + (f" (furthest off: {which})." if off else ".")
    )


def _of_rough(named):
    rough = [row for row in named if row["law"] in RESOLVED]
    share = lambda column: median([row[column] / row["declared"] for row in rough if row[column] is not None])
    high = [row for row in rough if row["declared"] >= 2]
    early, late = (median([row[part] for row in high if row[part] is not None]) for part in ("early", "late"))
    return (
        f"On {' and '.join(dict.fromkeys(row['law'] for row in rough))} the root mean square has {share('order'):.2f} "
        f"times the declared order in the median over kernels, the median particle {share('median_order'):.2f} times; "
        f"kernels of order 2 and more fall with a median slope of {early:.2f} up to {EARLY} evaluations and "
        f"{late:.2f} from {LATE}."
    )


def median(values):
    """Their median, a plain float; nan of none."""
    return float(np.median(values)) if values else float("nan")


def _of_best(named):
    said = (f"{kind} {' at '.join(best(named, kind))}" for kind in ("smooth", "rough"))
    return f"Least error at {AT} evaluations, geometric mean over laws: {', '.join(said)}."


def best(named, kind):
    """(kernel, its error in words) of the least geometric mean over the laws of a kind at 32 evaluations."""
    errors = {}
    for row in (row for row in named if row["kind"] == kind):
        error = row["error"][row["evals"].index(AT)]
        errors.setdefault(row["kernel"], []).append(np.inf if error is None else error)
    name, error = min(((name, geometric_mean(of)) for name, of in errors.items()), key=lambda pair: pair[1])
    return name, f"{error:.2g}"


def _of_floor(rows):
    laws = list(dict.fromkeys(row["law"] for row in _of(rows, "perturbed")))
    said = "; ".join(_of_field(_of(rows, "perturbed", law=laws[0], eps=EPS, field=field), field) for field in FIELDS)
    return f"A predicted noise off by {EPS:g} on {laws[0]}, budget that comes within 10 % of the floor: {said}."


def _of_field(shaken, field):
    ran = {row["kernel"]: row["reached"] for row in shaken if row["kernel"] != "adaptive"}
    there = {name: n for name, n in ran.items() if n is not None}
    least = min(there.values(), default=None)
    first = "no kernel" if least is None else f"{' and '.join(n for n in there if there[n] == least)} {least}"
    ddim = "not by the last" if ran["ddim"] is None else ran["ddim"]
    return f"{field} (floor {shaken[0]['floor']:.2g}): {first}, ddim {ddim}, {len(there)} of {len(ran)} at all"


def draw(rows, path):
    """Error against evaluations: smooth, rough, and a predicted noise that is off smoothly or roughly in time."""
    figure = plots.canvas(13, 4.7)
    panels = figure.subplots(1, 4)
    exact = _of(rows, "exact", early_stop=EARLY_STOP)
    for ax, law, share in zip(panels, (BROAD, PAIR), (1.0, 0.5), strict=False):
        _curves(ax, [row for row in exact if row["law"] == law and row["grid"] != "karras"], share)
        ax.set_title(f"{law}, exact score; dashed: {'order' if share == 1 else 'half the order'}", fontsize=9)
    law = _of(rows, "perturbed")[0]["law"]
    for ax, field in zip(panels[2:], ("smooth", "rough in time"), strict=True):
        shaken = _of(rows, "perturbed", law=law, eps=EPS, field=field)
        _curves(ax, shaken)
        ax.axhline(shaken[0]["floor"], color="black", ls=":", lw=1.4)
        ax.annotate("exact flow of this score", (BUDGETS[0], shaken[0]["floor"] / 1.1), va="top", fontsize=8)
        ax.set_title(f"{law}, noise off by {EPS:g}, {field}", fontsize=10)
    panels[0].set_ylabel("rms distance to the exact flow, relative")
    figure.legend(
        *panels[0].get_legend_handles_labels(), frameon=False, fontsize=9, loc="outside lower center", ncols=9
    )
    return plots.saved(figure, path)


def _curves(ax, rows, share=0.0):
    for index, name in enumerate(DRAWN):
        for row in (row for row in rows if row["kernel"] == name):
            points = {n: e for n, e in zip(row["evals"], row["error"], strict=True) if e is not None and e < 3}
            figures.line(ax, points, name, index)
    figures.powers(ax, BUDGETS)
    for name in SLOPES if share else ():
        row = next(row for row in rows if row["kernel"] == name)
        at, end, order = np.array(BUDGETS[2:], float), row["error"][-1], share * DECLARED[name]
        if end is not None:
            ax.plot(at, 1.5 * end * (at[-1] / at) ** order, "--", color="black", lw=1)
            ax.annotate(f"{order:g}", (at[-1], 1.5 * end), (3, 0), textcoords="offset points", va="center", fontsize=8)


COLUMNS = ("part", "law", "early_stop", "grid", "eps", "field", "kernel", "declared", "order", "half", "first", "last")
MORE = ("early", "late", "median_order", "floor", "reached", "at", "seconds", "us_per_eval", "at_error")
STUDY = studies.Study(NAME, QUESTION, rows, COLUMNS + MORE, verdict, draw)

if __name__ == "__main__":
    studies.main(STUDY)
