"""Does stochastic localisation, on which Benton's proof stands, hold number by number, and where is the proof loose?

Down in OU time t, Sigma_t = Cov(X_0 | X_t) shrinks: d/dt E Tr Sigma_t = (2 e^-2t/sigma^4) E|Sigma_t|_F^2 (Lemma 1; in
the snr, dV/dsnr = -E|Sigma|_F^2). That makes the score drift: E_{v,t} = E|s_v(X_v) - s_t(X_t)|^2 grows from 0 at v = t
at the rate 2 E|Hess log q_t|_F^2, and its integral over a step of exponential Euler is the step's path KL.

Five laws. On one side the curve E Tr Sigma_t of each (closed form, quadrature, or a Monte Carlo average with its
error), its differences in t, and E_{v,t} by the Fisher information made of it; on the other side posterior covariances
of draws, and forward pairs X_v, X_t = e^-(t-v) X_v + sigma_{t-v} Z under the exact score, drawn anew for every
comparison. z is a difference over the standard error of both sides; of fewer than 300 effective draws there is none.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy.stats import chi2

from benchmarks import figures, studies
from benchmarks.dimension_sweep import digits
from jaxdiff import grids, information, plots, targets
from jaxdiff.curves import Curve
from jaxdiff.guarantees.bounds import benton2024
from jaxdiff.guarantees.path_kl import standard_error
from jaxdiff.processes import forward, ou
from jaxdiff.targets import Target
from jaxdiff.targets.posterior_covariance import form_of

NAME = "localization"
QUESTION = "Do E Tr Sigma_t, its derivative and the drift gap E_{s,t} obey the identities of Benton's proof?"
HORIZON, EARLY_STOP = 4.0, 0.02
STEPS = {"quick": 14, "full": 28}
DRAWS = {"quick": 2**12, "full": 2**15}  # a comparison
STRIDE = {"quick": 60, "full": 6}  # of the digits
TIMES, EVERY = np.geomspace(0.05, 3, 37), 4  # where the curve is drawn; every fourth is compared
NODES = 8  # of Gauss' rule over a step
SEED = 0
RESOLVED = 1e-3  # of M: below, Monte Carlo curves of points are made of a few draws
WIDTH = 0.005  # of differences in log t
LEAST, FURTHEST = 300, 5.0  # effective draws; standard errors
NORMAL, COIN, BUMPS, FLAT, DIGITS = "N(0, 1/4)", "two points", "3 bumps, d = 2", "4-flat, d = 16", "digits, d = 64"


class Law(NamedTuple):
    """A law, and the curve of its mmse: where that is possible from another representation of the law."""

    target: Target
    curve: Curve


def flat():
    """Two bumps in each of four coordinates, nothing in twelve, all turned; its curve by the factors."""
    bumps = targets.mixture([0.3, 0.7], [[-1.2], [0.8]], [[0.05], [0.05]])
    corners = np.stack(np.meshgrid(*[[0, 1]] * 4), -1).reshape(-1, 4)
    means, weights = np.array([-1.2, 0.8])[corners], np.prod(np.array([0.3, 0.7])[corners], axis=1)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0][:, :4]
    covs = np.broadcast_to(0.05 * turn @ turn.T, (16, 16, 16))
    nothing = targets.gaussian(np.zeros(12), np.zeros(12))
    return Law(targets.mixture(weights, means @ turn.T, covs), targets.product([bumps] * 4 + [nothing]).mmse)


def laws(quick):
    """Five laws by name, of total variance d at most."""
    bumps = ([0.5, 0.3, 0.2], [[1.0, 0.0], [-0.5, 0.75], [-0.5, -1.25]], [[0.05, 0.02], [0.02, 0.1], [0.03, 0.03]])
    of = {
        NORMAL: targets.gaussian([0.0], [0.25]),
        COIN: targets.point_masses([[-1.0], [1.0]]),
        BUMPS: targets.mixture(*bumps),
        DIGITS: digits(STRIDE["quick" if quick else "full"]),
    }
    found = {name: Law(target, target.mmse) for name, target in of.items()}
    return {name: flat() if name == FLAT else found[name] for name in (NORMAL, COIN, BUMPS, FLAT, DIGITS)}


def of_curve(function, curve):
    """A function of the curve, and the standard error that it has from the curve's replicates."""
    return float(function(curve)), standard_error([float(function(one)) for one in curve.replicates])


def slope_in_time(curve, t):
    """dV/dt by fourth-order differences in log t; relative error below 1e-7."""
    at = lambda shift: curve(ou.snr(np.asarray(t) * np.exp(shift * WIDTH)))
    return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * WIDTH * t)


def localised(t):
    """2 e^-2t/sigma^4, the factor of E|Sigma_t|_F^2 in dV/dt."""
    snr = ou.snr(t)
    return 2 * snr * (1 + snr)


# e^-t s_t(X_t) is a martingale as t falls; with I = e^-2t J the increments of its mean square are those of I.
def drift_gap(curve, t, v):
    """E_{v,t} = E|s_v(X_v) - s_t(X_t)|^2, v < t, from Fisher informations."""
    fisher = lambda t: np.exp(-2 * t) * information.fisher_information(curve, t)
    return np.exp(2 * v) * (fisher(v) - fisher(t)) + (np.exp(t) - np.exp(v)) ** 2 * fisher(t)


def drift_rate(curve, t):
    """2 E|Hess log q_t|_F^2, the slope of E_{v,t} in t - v at 0; Hess = -1/sigma^2 + (alpha^2/sigma^4) Sigma."""
    snr = ou.snr(t)
    squares = slope_in_time(curve, t) / localised(t)
    return 2 * (1 + snr) ** 2 * (curve.dim - 2 * snr * curve(snr) + snr**2 * squares)


def spread(x):
    """Rows over all devices, where there is more than one and they divide evenly."""
    devices = np.array(jax.devices())
    if len(devices) == 1 or len(x) % len(devices):
        return x
    return jax.device_put(x, NamedSharding(Mesh(devices, ("rows",)), PartitionSpec("rows")))


def posterior(target, t, seed, n):
    """Tr Sigma_t and |Sigma_t|_F^2 at n draws of X_t."""
    components, rng = target.score.args[0], np.random.default_rng(seed)
    form, snr = form_of(components, None), ou.snr(t)
    label = rng.choice(len(components.means), size=n, p=np.exp(components.log_weights))
    values = form.eigenvalues(form.noised(label, rng.standard_normal((n, form.width)), snr), snr)
    return values @ form.multiplicity, values**2 @ form.multiplicity


def _one_gap(score, frozen, x0, z, w, t, v):
    x = forward(x0, v, z)
    return jnp.sum((score(x, v) - frozen(forward(x, t - v, w), t)) ** 2)


_gaps = jax.jit(jax.vmap(_one_gap, in_axes=(None, None, 0, 0, 0, 0, 0)))


def gaps(target, t, v, key, frozen=None):
    """|s_v(X_v) - s_t(X_t)|^2 of forward pairs at times (n,); frozen: another score at t. One key, the same pairs."""
    key_data, key_noise = jax.random.split(key)
    t, v = np.broadcast_arrays(np.asarray(t, np.float64), np.asarray(v, np.float64))
    x0, noise = target.sample(key_data, len(v)), jax.random.normal(key_noise, (2, len(v), target.dim))
    return np.asarray(_gaps(target.score, frozen or target.score, *map(spread, map(jnp.asarray, (x0, *noise, t, v)))))


def compared(name, draws, value, error):
    """Columns of a comparison: the mean of draws with its standard error, and z against value, which has an error."""
    mean, own = float(np.mean(draws)), standard_error(draws)
    effective = float(np.sum(draws) ** 2 / np.sum(draws**2)) if np.any(draws) else 0.0
    both = np.hypot(own, error)
    sharp = both > 1e-9 * abs(value)  # else rounding is all there is: E Tr Sigma_t of a normal law
    z = (mean - value) / both if sharp and effective >= LEAST else None
    relative = (mean - value) / value if effective >= LEAST else None
    return {f"{name}_mc": mean, f"{name}_mc_error": own, f"{name}_z": z, f"{name}_off": relative}


def localisation(name, law, n, seed):
    """A row for each time: the curve, its bound and slope, and at every fourth time what posteriors of draws say."""
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
    """Rows of each step: E_{v,t} at Gauss' nodes, middle and end, compared at the last two; then its integral."""
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
    """Of five laws: times, steps, and what their comparisons and the proof's bounds come to."""
    size, key, found = "quick" if quick else "full", jax.random.key(SEED), []
    grid = grids.exponential_then_uniform(HORIZON, EARLY_STOP, STEPS[size])
    for index, (name, law) in enumerate(laws(quick).items()):
        n = DRAWS[size] // (4 if law.target.dim > 16 else 1)  # a posterior covariance costs d^3
        own = [*localisation(name, law, n, (SEED, index)), *steps(name, law, grid, n, jax.random.fold_in(key, index))]
        found += [*own, summary(name, law, own, grid)]
    return found


def summary(name, law, own, grid):
    """A row of a law: its comparisons, and how far the two bounds of the proof are from what they bound."""
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
    """Every z of rows that have one."""
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
        figures.powers(ax)
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=4)
    return plots.saved(figure, path)


def _measured(ax, x, own, column, index, label=None):
    """A column over x in units of M, a line where it is known, and its Monte Carlo values with five standard errors."""
    share = lambda name: [row[name] / row["variance"] for row in seen]
    seen = [row for row in own if row[column] > FURTHEST * row[f"{column}_error"]]
    place = dict(zip((row["t"] for row in own), x, strict=True))
    at = lambda: [place[row["t"]] for row in seen]
    ax.plot(at(), share(column), color=figures.COLOURS[index], lw=1.5)
    seen = [row for row in own if row.get(f"{column}_off") is not None]
    _bars(ax, at(), share(f"{column}_mc"), share(f"{column}_mc_error"), index, label)


def _bars(ax, x, means, errors, index, label=None):
    style = {"color": figures.COLOURS[index], "marker": figures.MARKERS[index], "ms": 4.5, "ls": "", "elinewidth": 1}
    ax.errorbar(x, means, FURTHEST * np.array(errors), label=label, **style)


def _teeth(ax, own, index):
    """E_{v,t} over each step as a line, with its first-order slope and its Monte Carlo values."""
    for k in sorted({row["step"] for row in own}):
        tooth = sorted((row for row in own if row["step"] == k), key=lambda row: -row["v"])
        v = np.array([row["v"] for row in tooth])
        ax.plot(v, [row["gap"] / row["d"] for row in tooth], color=figures.COLOURS[index], lw=1.5)
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
