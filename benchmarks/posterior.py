"""How far are posterior samples of DPS, Pi-GDM, TMPD and MMPS from the exact posterior, and is it the steps?

All denoisers are exact, so every error belongs to the method or to the steps of the sampler.

Normal law, d = 6, three observations (laws/inverse_problems.py): samples are an affine function of noise and
observation, so mean and covariance are found without a random draw. Reported are the root mean square over
observations of the mean's bias in the worst direction, and the narrowest and widest direction: all in standard
deviations of the exact posterior. The biases with 320 and 640 steps of UniPC are extrapolated to infinitely many, and
compared with the limit of the method's ODE by moment equations (oracles/linear_posteriors.py), which also have the
limit of its SDE. The start N(0, I) at T = 8 alone moves the ODE's mean by 6e-4 deviations.

Mixture in the plane, one observation: sliced W2 and total variation on a grid of cells between samples and the
posterior by quadrature (oracles/plane_posteriors.py), root mean squares over four observations. The floor is that of
exact draws.

Calibration (oracles/calibration.py): with X_0 from the law and y from X_0, the rank of X_0 among exact posterior
samples given y is uniform. The ranks along the directions that are seen best and worst are tested by chi-square. An
exact sampler is rejected with probability 1 % for each law. A method that is not rejected may still be biased in other
directions, or for single observations.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from benchmarks.harness import drawing, studies
from benchmarks.laws.inverse_problems import PLANE_MIXTURE, ROW, six_dimensions
from benchmarks.oracles import calibration, normal_mixtures, plane_posteriors
from benchmarks.oracles import linear_posteriors as moments
from benchmarks.samplers.inverse_problems import METHODS, draws, grid_of, score_of
from jaxdiff import kernels, metrics, plots, sample, targets
from jaxdiff.processes import denoiser_from_score

NAME = "posterior"
QUESTION = "How far are posterior samples of DPS, Pi-GDM, TMPD and MMPS from the exact posterior, and is it the steps?"
HORIZON, EARLY_STOP, PLANE_STOP = 8.0, 1e-5, calibration.EARLY_STOP
NOISES = {"quick": (0.2,), "full": (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)}  # of the normal law
STEPS = (10, 20, 40, 80, 160, 320, 640)
ORDER = 3  # of UniPC-2
PLANE_NOISES, PLANE_STEPS = {"quick": (0.3,), "full": (0.1, 0.3, 1.0)}, (16, 32, 64, 128)
OBSERVATIONS, PARTICLES, FLOORS = 4, {"quick": 1000, "full": 4096}, 4
TRUTHS = {"quick": 200, "full": 1000}
FALSE_ALARM = 0.01  # for a method and a law: half of it for each of the two directions
UNIPC, ANCESTRAL = "UniPC", "ancestral"
NORMAL, MIXTURE = "normal, d = 6", "mixture, d = 2"
BURST = 1e3  # posterior deviations: a run with more has overflowed its stability
CLOSE = 1.1  # times the floor, up to which a distance counts as the floor


def normal_rows(size):
    """A row for each method, noise and number of steps, and one for the limits."""
    mean, cov, matrix = six_dimensions()
    denoiser = denoiser_from_score(targets.gaussian(mean, cov).score)
    for method, noise_std in itertools.product(METHODS, NOISES[size]):
        problem = moments.Problem(mean, cov, matrix, noise_std)
        y = problem.observations()
        exact, found = problem.posterior(y, EARLY_STOP), {}
        about = {"law": NORMAL, "method": method, "noise_std": noise_std}
        for n in STEPS:
            found[n] = affine_samples(method, denoiser, problem, y, grid_of(HORIZON, EARLY_STOP, n))
            yield about | {"part": "steps", "N": n} | told("", found[n], exact)
        last, before = found[STEPS[-1]], found[STEPS[-2]]
        beyond = [a + (a - b) / (2**ORDER - 1) for a, b in zip(last, before, strict=True)]
        yield about | {"part": "limit"} | told("", beyond, exact) | limits(method, problem, y, exact)


def affine_samples(method, denoiser, problem, y, grid):
    """Means (len(y), d) and covariance of samples of a method by UniPC, whose end points are affine in start and y."""
    d = len(problem.mean)
    start = np.vstack([np.zeros((len(y), d)), np.eye(d)])
    given = np.vstack([y, np.tile(y[:1], (d, 1))])
    score = score_of(method, denoiser, problem.matrix, given, problem.noise_std)
    ends = np.asarray(sample(kernels.unipc(score, 2), jnp.asarray(start), grid, jax.random.key(0)))
    root = ends[len(y) :] - ends[0]
    return ends[: len(y)], root.T @ root


def limits(method, problem, y, exact):
    """The biases of a method's ODE and SDE in infinitely many steps, by moment equations."""
    of = lambda noisy: moments.limit(method, problem, y, HORIZON, EARLY_STOP, noisy=noisy)
    return told("ode_", of(False), exact) | told("sde_", of(True), exact)


def told(prefix, found, exact):
    """The three biases as columns; None where a run overflowed."""
    finite = all(np.isfinite(part).all() and np.abs(part).max() < 1e100 for part in found)
    values = moments.in_deviations(found, exact) if finite else (None,) * 3
    return {f"{prefix}{name}": value for name, value in zip(("mean", "narrowest", "widest"), values, strict=True)}


def plane_rows(size):
    """A row for each method, noise, sampler and number of steps on the mixture in the plane."""
    denoiser, n = denoiser_from_score(targets.mixture(*PLANE_MIXTURE).score), PARTICLES[size]
    judges = {noise_std: judge(n, noise_std) for noise_std in PLANE_NOISES[size]}
    for method, noise_std in itertools.product(METHODS, judges):
        y, distance, floor = judges[noise_std]
        score = score_of(method, denoiser, ROW, np.repeat(y, n, axis=0), noise_std)
        for sampler, steps in (*((UNIPC, one) for one in PLANE_STEPS), (ANCESTRAL, PLANE_STEPS[-1])):
            kernel = kernels.ancestral if sampler == ANCESTRAL else kernels.unipc
            grid = grid_of(HORIZON, PLANE_STOP, steps)
            x = draws(score, n * OBSERVATIONS, 2, grid, jax.random.key(2), kernel=kernel)
            found = distance(x.reshape(OBSERVATIONS, n, 2)) if np.isfinite(x).all() else {"sliced_w2": None, "tv": None}
            about = {"part": "plane", "law": MIXTURE, "method": method, "noise_std": noise_std}
            yield about | {"sampler": sampler, "N": steps} | found | floor


def judge(n, noise_std):
    """Observations, the function samples -> distances from their posteriors, and the distances of exact draws."""
    rng = np.random.default_rng(1)
    y = calibration.observed(normal_mixtures.draws(*PLANE_MIXTURE, OBSERVATIONS, rng), ROW, noise_std, rng)
    masses = [plane_posteriors.density(*PLANE_MIXTURE, ROW, one, noise_std) for one in y]
    drawn = lambda n: [plane_posteriors.draws(one, n, rng) for one in masses]
    distance = functools.partial(distances, masses, drawn(4 * n))
    floors = [distance(drawn(n)) for _ in range(FLOORS)]
    return y, distance, {f"{name}_floor": max(one[name] for one in floors) for name in floors[0]}


def distances(masses, exact, x):
    """Root mean squares over the observations of sliced W2 and total variation of samples x[i] (n, 2)."""
    w2 = [metrics.sliced_w2(a, b, jax.random.key(0), n_projections=64).value for a, b in zip(x, exact, strict=True)]
    cells = map(plane_posteriors.cell_masses, masses)
    variation = [plane_posteriors.total_variation(a, b) for a, b in zip(x, cells, strict=True)]
    mean = lambda values: float(np.sqrt(np.mean(np.square(values))))
    return {"sliced_w2": mean(w2), "tv": mean(variation)}


def rank_rows(size):
    """A row for each law, method and direction: how many ranks fall into each bin, and the chance of that."""
    for law, problem in {NORMAL: calibration.normal(), MIXTURE: calibration.mixture()}.items():
        for method in (*METHODS, calibration.EXACT):
            for direction, counts in calibration.counts(problem, method, TRUTHS[size]).items():
                about = {"part": "ranks", "law": law, "method": method, "noise_std": calibration.NOISE}
                about |= {"direction": direction, "N": calibration.STEPS}
                yield about | {"chance": float(stats.chisquare(counts).pvalue), "counts": counts.tolist()}


def rows(quick, repeats):
    """The rows of the three parts."""
    size = "quick" if quick else "full"
    return [*normal_rows(size), *plane_rows(size), *rank_rows(size)]


def verdict(rows):
    """The limits on the normal law, the distances on the mixture, and which methods calibration rejects."""
    return " ".join([of_limits(rows), of_plane(rows), of_ranks(rows)])


def of_limits(rows):
    """Biases in infinitely many steps, and whether the steps agree with them."""
    found = [row for row in rows if row["part"] == "limit"]
    names = ("mean", "narrowest", "widest")
    apart = [
        max(abs(row[name] - row[f"ode_{name}"]) for name in names)
        for row in found
        if row["mean"] is not None and max(row[name] for name in names) < BURST
    ]
    said = []
    for method in dict.fromkeys(row["method"] for row in found):
        own = [row for row in found if row["method"] == method]
        least, most = (pick(row[f"ode_{name}"] for row in own) for pick, name in ((min, "narrowest"), (max, "widest")))
        said.append(f"{method} {max(row['ode_mean'] for row in own):.2g}, {least:.2g} to {most:.2g}")
    better = sum(row["sde_mean"] < row["ode_mean"] for row in found)
    return (
        f"Normal law, in posterior deviations: the mean's largest bias and the range of deviations in the limit of the "
        f"ODE are {'; '.join(said)}. Extrapolated steps agree with these limits to {max(apart):.1g} in {len(apart)} of "
        f"{len(found)} cases and burst in the others. The SDE's mean is less biased in {better} of {len(found)}."
    )


def of_plane(rows):
    """The distances of the most steps over the floor."""
    last = [row for row in rows if row["part"] == "plane" and row["N"] == PLANE_STEPS[-1]]
    over = {}
    for row in last:
        over.setdefault((row["method"], row["sampler"]), []).append(
            (row["sliced_w2"] or np.inf) / row["sliced_w2_floor"]
        )
    least = min(over, key=lambda key: np.mean(over[key]))
    reached = sum(one <= CLOSE for ratios in over.values() for one in ratios)
    pairs = [(over[method, ANCESTRAL], over[method, UNIPC]) for method in dict.fromkeys(key[0] for key in over)]
    closer = sum(a < b for pair in pairs for a, b in zip(*pair, strict=True))
    return (
        f"Mixture, {PLANE_STEPS[-1]} steps: {reached} of {len(last)} runs reach the floor of sliced W2; {least[0]} "
        f"({least[1]}) is closest, at {min(over[least]):.2g} to {max(over[least]):.2g} times the floor. Ancestral is "
        f"closer than UniPC in {closer} of {sum(len(a) for a, _ in pairs)} pairs."
    )


def of_ranks(rows):
    """Which methods calibration rejects."""
    found = [row for row in rows if row["part"] == "ranks"]
    said = []
    for law in dict.fromkeys(row["law"] for row in found):
        own = [row for row in found if row["law"] == law]
        wrong = list(dict.fromkeys(row["method"] for row in own if row["chance"] < FALSE_ALARM / 2))
        right = [name for name in dict.fromkeys(row["method"] for row in own) if name not in wrong]
        said.append(f"{law}: rejected {', '.join(wrong) or 'none'}; not rejected {', '.join(right) or 'none'}")
    return f"Calibration with {FALSE_ALARM:.0%} of false alarms, {'; '.join(said)}."


def draw(rows, path):
    """Biases by noise level on the normal law, sliced W2 on the mixture, and histograms of ranks."""
    figure = plots.canvas(13, 9)
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.1, 1))
    limits, plane = ([row for row in rows if row["part"] == part] for part in ("limit", "plane"))
    mean, spread, w2 = top.subplots(1, 3)
    for index, method in enumerate(METHODS):
        own = [row for row in limits if row["method"] == method]
        for ax, names in ((mean, ("mean",)), (spread, ("narrowest", "widest"))):
            for name in names:
                curves(ax, own, name, method if name in ("mean", "widest") else None, index)
        for sampler, style in ((UNIPC, "-"), (ANCESTRAL, "--")):
            last = [r for r in plane if (r["method"], r["sampler"], r["N"]) == (method, sampler, PLANE_STEPS[-1])]
            points = {row["noise_std"]: row["sliced_w2"] or np.nan for row in last}
            w2.plot(list(points), list(points.values()), style, **look(index))
    floor = {row["noise_std"]: row["sliced_w2_floor"] for row in plane}
    w2.plot(list(floor), list(floor.values()), color="black", ls=":", lw=1.4, label="exact draws (floor)")
    w2.text(
        0.97, 0.97, f"lines: {UNIPC}\ndashed: {ANCESTRAL}", transform=w2.transAxes, ha="right", va="top", fontsize=8
    )
    spread.axhline(1, color="black", lw=1, ls=":")
    mean.set(title=f"{NORMAL}: bias of the mean", ylabel="posterior deviations, worst direction")
    spread.set(title=f"{NORMAL}: narrowest and widest direction", ylabel="deviation over the exact one")
    w2.set(title=f"{MIXTURE}: {PLANE_STEPS[-1]} steps", ylabel="sliced W2 to the posterior")
    for ax, rows_of_ax, low, high in ((mean, limits, 1e-4, 20), (spread, limits, 0.2, 8), (w2, plane, 0.02, 3)):
        drawing.powers(ax, sorted({row["noise_std"] for row in rows_of_ax}))
        ticks = [tick for tick in (1e-4, 1e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10) if low <= tick <= high]
        ticks = [1e-4, 1e-3, 0.01, 0.1, 1, 10] if ax is mean else ticks
        ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.set(xlabel="standard deviation of the noise", ylim=(low, high))
        ax.title.set_fontsize(10)
    title = "marks: extrapolated steps; lines: ODE, dashed: SDE"
    mean.legend(frameon=False, fontsize=8, title=title, title_fontsize=8, ncols=2, loc=(0.02, 0.28))
    histograms(bottom, [row for row in rows if row["part"] == "ranks"])
    return plots.saved(figure, path)


def look(index):
    """The colour and marker of a method."""
    return {"color": drawing.COLOURS[index], "marker": drawing.MARKERS[index], "ms": 4.5, "lw": 1.5}


def curves(ax, rows, name, label, index):
    """A bias against the noise: the ODE's limit, the SDE's, and marks where steps were extrapolated."""
    x, style = [row["noise_std"] for row in rows], look(index) | {"marker": ""}
    ax.plot(x, [max(row[f"ode_{name}"], 1e-9) for row in rows], **style)
    ax.plot(x, [max(row[f"sde_{name}"], 1e-9) for row in rows], ls="--", **(style | {"lw": 1}))
    seen = [row[name] if row[name] is not None and row[name] < BURST else np.nan for row in rows]
    ax.plot(x, seen, ls="", label=label, **{key: value for key, value in look(index).items() if key != "lw"})


def histograms(figure, rows):
    """Counts of ranks for each law (a row) and method (a column), with the band of one bin of exact ranks."""
    laws, methods = (list(dict.fromkeys(row[key] for row in rows)) for key in ("law", "method"))
    axes = figure.subplots(len(laws), len(methods), sharex=True, sharey=True)
    for (i, law), (j, method) in itertools.product(enumerate(laws), enumerate(methods)):
        ax, own = axes[i, j], {r["direction"]: r for r in rows if (r["law"], r["method"]) == (law, method)}
        n = sum(own[calibration.BEST]["counts"])
        ax.axhspan(*stats.binom.ppf([0.005, 0.995], n, 1 / calibration.BINS), color="#999999", alpha=0.3, lw=0)
        colour = (*drawing.COLOURS[:5], "#555555")[j]
        ax.bar(np.arange(calibration.BINS), own[calibration.BEST]["counts"], width=1, color=colour, alpha=0.55, lw=0)
        ax.stairs(own[calibration.WORST]["counts"], np.arange(calibration.BINS + 1) - 0.5, color="black", lw=1)
        wrong = min(row["chance"] for row in own.values()) < FALSE_ALARM / 2
        ax.set_title(f"{method}: {'rejected' if wrong else 'not rejected'}", fontsize=9)
        ax.set(xticks=[], ylim=(0, 3 * n / calibration.BINS))
        if j == 0:
            ax.set_ylabel(f"{law}\ncounts of ranks", fontsize=9)
        if i == len(laws) - 1:
            ax.set_xlabel("rank of the truth", fontsize=9)
    title = "bars along the direction that is seen best, lines along the worst; 99 % of exact counts in grey"
    figure.suptitle(f"Calibration: {title}", fontsize=10)


COLUMNS = (
    "part", "law", "method", "noise_std", "sampler", "N", "mean", "narrowest", "widest", "ode_mean", "ode_narrowest",
    "ode_widest", "sde_mean", "sde_narrowest", "sde_widest", "sliced_w2", "sliced_w2_floor", "tv", "tv_floor",
    "direction", "chance",
)  # fmt: skip
STUDY = studies.Study(NAME, QUESTION, rows, COLUMNS, verdict, draw, ("steps",))

if __name__ == "__main__":
    studies.main(STUDY)
