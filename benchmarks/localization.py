"""Do the identities of stochastic localisation in Benton's proof hold numerically, and where is the proof loose?

As OU time t falls, Sigma_t = Cov(X_0 | X_t) shrinks: d/dt E Tr Sigma_t = (2 e^-2t/sigma^4) E|Sigma_t|_F^2 (Lemma 1; in
the snr, dV/dsnr = -E|Sigma|_F^2). The score changes accordingly: E_{v,t} = E|s_v(X_v) - s_t(X_t)|^2 is 0 at v = t,
grows at the rate 2 E|Hess log q_t|_F^2, and its integral over a step of exponential Euler is the path KL of the step.

Both sides of each identity are computed on five laws. One side is a function of the curve E Tr Sigma_t, which is a
closed form, a quadrature or a Monte Carlo average with its error: differences in t, and E_{v,t} from Fisher
informations. The other side is an average over posterior covariances of draws, or over forward pairs X_v and
X_t = e^-(t-v) X_v + sigma_{t-v} Z under the exact score, drawn anew for every comparison. z is the difference over the
standard error of both sides; comparisons with fewer than 300 effective draws have no z.
"""

import itertools

import jax
import numpy as np
from scipy.stats import chi2

from benchmarks.harness import drawing, studies
from benchmarks.laws.localization import laws
from benchmarks.oracles.drift_gaps import drift_gap, drift_rate, gaps, localised, of_curve, posterior, slope_in_time
from jaxdiff import grids, information, plots
from jaxdiff.guarantees.bounds import benton2024
from jaxdiff.guarantees.path_kl import standard_error
from jaxdiff.processes import ou

NAME = "localization"
QUESTION = "Do E Tr Sigma_t, its derivative and the drift gap E_{s,t} obey the identities of Benton's proof?"
HORIZON, EARLY_STOP = 4.0, 0.02
STEPS = {"quick": 14, "full": 28}
DRAWS = {"quick": 2**12, "full": 2**15}  # a comparison
TIMES, EVERY = np.geomspace(0.05, 3, 37), 4  # where the curve is drawn; every fourth is compared
NODES = 8  # of Gauss' rule over a step
SEED = 0
RESOLVED = 1e-3  # of M: below, Monte Carlo curves of points are made of a few draws
LEAST, FURTHEST = 300, 5.0  # effective draws; standard errors


def compared(name, draws, value, error):
    """Columns of a comparison: the mean of the draws, its standard error, and z against a value with an error."""
    mean, own = float(np.mean(draws)), standard_error(draws)
    effective = float(np.sum(draws) ** 2 / np.sum(draws**2)) if np.any(draws) else 0.0
    both = np.hypot(own, error)
    sharp = both > 1e-9 * abs(value)  # else rounding is all there is: E Tr Sigma_t of a normal law
    z = (mean - value) / both if sharp and effective >= LEAST else None
    relative = (mean - value) / value if effective >= LEAST else None
    return {f"{name}_mc": mean, f"{name}_mc_error": own, f"{name}_z": z, f"{name}_off": relative}


def localisation(name, law, n, seed):
    """A row for each time: the curve, its bound, its slope, and at every fourth time averages over posteriors."""
    whole, d = float(law.curve(np.array([1e-30]))[0]), law.target.dim
    for place, t in enumerate(TIMES):
        snr = float(ou.snr(t))
        trace, error = of_curve(lambda curve, snr=snr: curve(np.array([snr]))[0], law.curve)
        slope, slope_error = of_curve(lambda curve, t=t: slope_in_time(curve, t), law.curve)
        row = {"part": "localisation", "law": name, "d": d, "variance": whole, "t": float(t), "snr": snr}
        row |= {"trace": trace, "trace_error": error, "bound": min(whole, d / snr)}
        row |= {"slope": slope, "slope_error": slope_error}
        if place % EVERY == 0:
            traces, squares = posterior(law.target, t, (*seed, place), n)
            row |= compared("trace", traces, trace, error)
            row |= compared("slope", localised(t) * squares, slope, slope_error)
        yield row


def steps(name, law, grid, n, key):
    """Rows of each step: E_{v,t} at Gauss' nodes, in the middle and at the end, and its integral."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    for k, (t, t_next) in enumerate(itertools.pairwise(grid)):
        g, own = t - t_next, jax.random.split(jax.random.fold_in(key, k), 3)
        about = {"law": name, "d": law.target.dim, "step": k, "t": float(t), "t_next": float(t_next)}
        inner = t - g * (1 + nodes) / 2
        rate, _ = of_curve(lambda curve, t=t: drift_rate(curve, t), law.curve)
        for v, draw in [*((v, None) for v in inner), ((t + t_next) / 2, own[0]), (t_next, own[1])]:
            gap, error = of_curve(lambda curve, t=t, v=v: drift_gap(curve, t, v), law.curve)
            row = {"part": "gap", **about, "v": float(v), "gap": gap, "gap_error": error, "rate": rate}
            yield row | ({} if draw is None else compared("gap", gaps(law.target, t, np.full(n, v), draw), gap, error))
        value, error = of_curve(lambda curve, t=t, to=t_next: cost_of(curve)(t, to), law.curve)
        uniform = np.asarray(jax.random.uniform(own[2], (n,)))
        row = {"part": "step", **about, "cost": value, "cost_error": error}
        row["integral"] = float(g / 2 * weights @ drift_gap(law.curve, t, inner))
        yield row | compared("cost", g * gaps(law.target, t, t - g * uniform, own[2]), value, error)


def cost_of(curve):
    """The path KL of a step of exponential Euler."""
    return information.step_cost("exponential_euler", curve)


def rows(quick, repeats):
    """Rows of five laws: times, steps, and a summary of the comparisons and of the proof's two bounds."""
    size, key, found = "quick" if quick else "full", jax.random.key(SEED), []
    grid = grids.exponential_then_uniform(HORIZON, EARLY_STOP, STEPS[size])
    for index, (name, law) in enumerate(laws(quick).items()):
        n = DRAWS[size] // (4 if law.target.dim > 16 else 1)  # a posterior covariance costs d^3
        own = [*localisation(name, law, n, (SEED, index)), *steps(name, law, grid, n, jax.random.fold_in(key, index))]
        found += [*own, summary(name, law, own, grid)]
    return found


def summary(name, law, own, grid):
    """A row of a law: its comparisons, and the ratio of the proof's two bounds to the exact values."""
    z = zs(own)
    times = [row for row in own if row["part"] == "localisation"]
    known = [row for row in times if row["trace"] > RESOLVED * row["variance"]]
    loose = [row["bound"] / row["trace"] for row in known]
    proof = benton2024.theorem1(grid, law.target.dim)
    bound = proof["discretisation"].value + proof["second order"].value
    slopes = [abs(row["slope_off"]) for row in times if row.get("slope_off") is not None]
    exact = sum(row["cost"] for row in own if row["part"] == "step")
    return {
        "part": "law",
        "law": name,
        "exact_curve": not law.curve.replicates,
        "compared": len(z),
        "within": int(sum(abs(one) <= FURTHEST for one in z)),
        "worst_z": max(map(float, z), key=abs, default=None),
        "chi_square": float(np.sum(np.square(z))),
        "slope_off": float(np.median(slopes)) if slopes else None,
        "trace_loosest": max(loose),
        "loosest_t": known[int(np.argmax(loose))]["t"],
        "path_kl": exact,
        "proof": bound,
        "proof_factor": bound / exact,
        "integral_off": max(abs(row["integral"] / row["cost"] - 1) for row in own if row["part"] == "step"),
    }


def zs(rows):
    """All z of rows."""
    return [row[f"{name}_z"] for row in rows for name in KINDS if row.get(f"{name}_z") is not None]


KINDS = {"trace": "E Tr Sigma_t", "slope": "its derivative", "gap": "E_{s,t}", "cost": "step costs"}


def verdict(rows):
    """How many comparisons agree, their chi-square where the curves are exact, and how loose the proof is."""
    own = [row for row in rows if row["part"] == "law"]
    cases = [row for row in rows if row["part"] != "law"]
    far = [
        f"{KINDS[kind]} on {row['law']} at t = {row['t']:.2g} (z = {row[f'{kind}_z']:.1f})"
        for row in cases
        for kind in KINDS
        if abs(row.get(f"{kind}_z") or 0) > FURTHEST
    ]
    exactly = {row["law"] for row in own if row["exact_curve"]}
    z = zs([row for row in cases if row["law"] in exactly])
    p = chi2.sf(np.sum(np.square(z)), len(z))
    tight, loose = (pick(own, key=lambda row: row["proof_factor"]) for pick in (min, max))
    close, wide = (pick(own, key=lambda row: row["trace_loosest"]) for pick in (min, max))
    said = "all" if not far else f"all but {len(far)} ({'; '.join(far[:3])}{' ...' if len(far) > 3 else ''})"
    derivative = ", ".join(f"{row['law']} {row['slope_off']:.1g}" for row in own if row["slope_off"] is not None)
    square = float(np.sum(np.square(z)))
    return (
        f"Of {len(zs(cases))} comparisons {said} agree within {FURTHEST:g} standard errors; chi-square of the {len(z)} "
        f"on laws with exact curves {square:.0f} (p = {p:.2g}{', TOO LARGE' if p < 1e-3 else ''}); the drift gap's "
        f"integral over a step is the step's path KL to {max(row['integral_off'] for row in own):.1g}. Relative error "
        f"of the derivative identity, median over times: {derivative}. While E Tr Sigma_t > {RESOLVED:g} M, its "
        f"bound min(M, d/snr) is within a factor {close['trace_loosest']:.2g} on {close['law']} and is loosest on "
        f"{wide['law']}, {wide['trace_loosest']:.2g} times at t = {wide['loosest_t']:.2g}; the bound on the path KL is "
        f"tightest on {tight['law']} ({tight['proof_factor']:.2g} times) and loosest on {loose['law']} "
        f"({loose['proof_factor']:.2g} times)."
    )


def draw(rows, path):
    """E Tr Sigma_t under its bound, its derivative, and the drift gap along the grid's steps."""
    names = [row["law"] for row in rows if row["part"] == "law"]
    figure = plots.canvas(11.5, 4.5)
    left, middle, right = figure.subplots(1, 3)
    for index, name in enumerate(names):
        own = [row for row in rows if row["law"] == name and row["part"] == "localisation"]
        scaled = [row["snr"] * row["variance"] / row["d"] for row in own]
        _measured(left, scaled, own, "trace", index, name)
        _measured(middle, [row["t"] for row in own], own, "slope", index)
    x = np.geomspace(1e-3, 20, 200)
    left.plot(x, np.minimum(1, 1 / x), color="black", ls="--", lw=1.2, label="bound min(M, d/snr)")
    left.set(ylim=(1e-3, 1.6), xlabel="snr M/d (data on the right)", ylabel="E Tr Sigma$_t$ / M")
    middle.set(ylim=(1e-3, 20), xlabel="OU time t", ylabel="d/dt E Tr Sigma$_t$ / M, per OU time")
    middle.set_title("line: differences; points: (2 e$^{-2t}$/$\\sigma^4$) E|Sigma$_t$|$^2$", fontsize=9)
    for index in sorted({0, len(names) - 1}):
        _teeth(right, [row for row in rows if row["law"] == names[index] and row["part"] == "gap"], index)
    right.set(xlabel="OU time v (time runs to the left)", ylabel="drift gap E$_{v,t}$ / d, nats per OU time")
    left.set_title("line: curve; points: posteriors of draws", fontsize=9)
    right.set_title("line: Fisher information; points: forward pairs", fontsize=9)
    right.plot([], [], color="black", ls="--", lw=1, label=r"2 E|$\nabla^2$ log q$_t$|$^2$ (t - v)")
    for ax in (left, middle, right):
        drawing.powers(ax)
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=4)
    return plots.saved(figure, path)


def _measured(ax, x, own, column, index, label=None):
    """A column over x in units of M: a line for the curve, and Monte Carlo values with five standard errors."""
    share = lambda name: [row[name] / row["variance"] for row in seen]
    seen = [row for row in own if row[column] > FURTHEST * row[f"{column}_error"]]
    place = dict(zip((row["t"] for row in own), x, strict=True))
    at = lambda: [place[row["t"]] for row in seen]
    ax.plot(at(), share(column), color=drawing.COLOURS[index], lw=1.5)
    seen = [row for row in own if row.get(f"{column}_off") is not None]
    _bars(ax, at(), share(f"{column}_mc"), share(f"{column}_mc_error"), index, label)


def _bars(ax, x, means, errors, index, label=None):
    style = {"color": drawing.COLOURS[index], "marker": drawing.MARKERS[index], "ms": 4.5, "ls": "", "elinewidth": 1}
    ax.errorbar(x, means, FURTHEST * np.array(errors), label=label, **style)


def _teeth(ax, own, index):
    """E_{v,t} over each step as a line, with its first-order slope and its Monte Carlo values."""
    for k in sorted({row["step"] for row in own}):
        tooth = sorted((row for row in own if row["step"] == k), key=lambda row: -row["v"])
        v = np.array([row["v"] for row in tooth])
        ax.plot(v, [row["gap"] / row["d"] for row in tooth], color=drawing.COLOURS[index], lw=1.5)
        ax.plot(v, [row["rate"] * (row["t"] - row["v"]) / row["d"] for row in tooth], color="black", ls="--", lw=0.8)
    seen = [row for row in own if row.get("gap_off") is not None]
    means, errors = ([row[f"gap_mc{end}"] / row["d"] for row in seen] for end in ("", "_error"))
    _bars(ax, [row["v"] for row in seen], means, errors, index)


COLUMNS = ("law", "exact_curve", "compared", "within", "worst_z", "chi_square", "slope_off", "trace_loosest")
STUDY = studies.Study(
    NAME,
    QUESTION,
    rows,
    (*COLUMNS, "loosest_t", "path_kl", "proof", "proof_factor", "integral_off"),
    verdict,
    draw,
    ("localisation", "gap", "step"),
    SEED,
    ("scikit-learn",),
)

if __name__ == "__main__":
    studies.main(STUDY)
