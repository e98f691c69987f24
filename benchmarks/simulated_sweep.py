"""Do samplers that are run agree with their exact predictions at every dimension from 2 to 16,384?

Every sampler runs in float32 on laws padded to the largest dimension (laws/padded.py), with one compilation for each
kernel and family of laws: dimensions, seeds and laws are batched by vmap and spread over all devices by sweeps.run.

Two things are compared. The moments of the output are compared with linear recursions where the output is Gaussian,
with a density on a lattice where one coordinate is a chain of its own, and for eight bumps, along the span of their
means, with unpadded float64 samples in that span. The path KL, estimated by Girsanov's theorem from pairs (X_v, X_t) of
the forward process with v random in every step, uses no curve; it is compared with information.path_kl of the exact
curve (a Monte Carlo curve for eight bumps, whose standard error is added).

z is the difference in standard errors. They come from the spread over particles, and z is mapped through Student's t
and the particles' skewness to a standard normal number. The verdict requires |z| <= 5 everywhere, and tests chi-square
of all z of each quantity.
"""

import collections
import itertools
import time

import jax
import numpy as np
from scipy import stats

from benchmarks.harness import drawing, studies
from benchmarks.laws import padded as padded_laws
from benchmarks.oracles.padded_predictions import predictions
from benchmarks.samplers.padded_kernels import GRID
from benchmarks.samplers.padded_simulation import FAMILIES, KERNELS, MOMENTS, TRACES, simulation
from jaxdiff import plots, sweeps
from jaxdiff.app.samplers import label_of

NAME = "simulated_sweep"
QUESTION = "Do samplers that are run agree with their exact predictions at every dimension from 2 to 16,384?"
QUICK_DIMS, DIMS, SEEDS = 2 ** np.arange(1, 11), 2 ** np.arange(1, 15), 4
ON_CPU, ELSEWHERE = (32, 4), (256, 32)  # particles of each seed; rows at once
LARGEST, LEVEL = 5.0, 1e-3  # the largest |z|, and the least p of all, that agree
MOST = 37.0  # largest |z| that is reported
ROUNDING = 1e-9  # nats a coordinate


def compared(particles, own, predicted, d):
    """The mean over all seeds' particles, a prediction, and z of their difference."""
    mean, error, skewness = pooled(particles, own)
    n, (value, value_error) = particles * len(own), predicted
    gap, by = mean - value, float(np.hypot(error, value_error))
    row = {"n": n, "simulated": mean, "error": error, "predicted": value, "predicted_error": value_error}
    if by == 0:  # the path KL of all particles is 0; a difference is rounding
        return row | {"z": None if abs(gap) <= ROUNDING * d else float(np.copysign(MOST, gap))}
    return row | {"z": normal_number(gap / by, n, skewness * (error / by) ** 3)}


def pooled(particles, own):
    """Mean, standard error and skewness over equally many particles of several seeds, from the seeds' moments."""
    means, variances, thirds = (np.array([row[of] for row in own]) for of in MOMENTS)
    n, variances = particles * len(own), variances * (particles - 1) / particles  # sums over particles, divided by n
    away = means - means.mean()
    variance = np.mean(variances + away**2)
    third = np.mean(thirds + 3 * away * variances + away**3)
    error = np.sqrt(variance / (n - 1))
    return float(means.mean()), float(error), float(third / variance**1.5) if variance > 0 else 0.0


# A path KL of few rare large terms, or x^4, is so skew that t of 128 draws is -5 too often. Hall (1992, On the removal
# of skewness by transformation) puts, with T = t/sqrt(n) and skewness c, T + c T^2/3 + c^2 T^3/27 + c/(6n) for T.
def normal_number(t, n, skewness):
    """A standard normal number as likely as Student's t of n skew draws."""
    scaled = t / np.sqrt(n)
    t = np.sqrt(n) * (scaled + skewness * scaled**2 / 3 + skewness**2 * scaled**3 / 27 + skewness / (6 * n))
    return float(np.copysign(min(MOST, stats.norm.isf(stats.t.sf(abs(t), n - 1))), t))


def rows(quick, repeats):
    """A row for each kernel, law, dimension and quantity, and one for each compilation."""
    dims = [int(d) for d in (QUICK_DIMS if quick else DIMS)]
    particles, batch = ON_CPU if jax.default_backend() == "cpu" else ELSEWHERE
    found = []
    for family, name in itertools.product(FAMILIES, KERNELS):
        TRACES.clear()
        laws, function = FAMILIES[family], simulation(name, family, dims, particles)
        began = time.perf_counter()
        simulated = sweeps.run(function, dims=dims, seeds=range(SEEDS), batch=batch, law=range(len(laws)))
        seconds = time.perf_counter() - began
        steps = len(simulated) * particles * max(dims) * (len(GRID) - 1)
        found += list(cells(simulated, name, laws, dims, particles))
        found.append(
            {"part": "run", "kernel": name, "family": family, "rows": len(simulated), "particles": particles}
            | {"compilations": TRACES.total(), "devices": jax.device_count(), "seconds": seconds}
            | {"steps_per_second": steps / seconds}
        )
    return found


def cells(simulated, name, laws, dims, particles):
    """The rows of one kernel: each simulated quantity with its prediction."""
    own = collections.defaultdict(list)
    for row in simulated:
        own[laws[row["law"]], row["dim"]].append(row)
    for (law, d), seeds in own.items():
        for quantity, predicted in predictions(name, law, d).items():
            moments = [{of: row[f"{quantity} {of}"] for of in MOMENTS} for row in seeds]
            head = {"part": "cell", "kernel": name, "law": law, "d": d, "quantity": quantity}
            yield head | compared(particles, moments, predicted, d)


def verdict(rows):
    """The number of agreements, the worst z, chi-square.

    The precision of the comparison; compilations, seconds and speed.
    """
    found = [row for row in rows if row["part"] == "cell"]
    runs = [row for row in rows if row["part"] == "run"]
    random = [row for row in found if row["z"] is not None]
    worst = max(random, key=lambda row: abs(row["z"]))
    off = sum(abs(row["z"]) > LARGEST for row in random)
    p = level(random)
    z = np.array([row["z"] for row in random])
    judged = "agree" if off == 0 and p > LEVEL else "do NOT agree"
    dims = [row["d"] for row in found]
    where = f"{label_of(worst['kernel'])}, {worst['law']}, d = {worst['d']:,}, {worst['quantity']}"
    seconds = sum(row["seconds"] for row in runs)
    speed = sum(row["steps_per_second"] * row["seconds"] for row in runs) / seconds
    most = max(row["compilations"] for row in runs)
    sharp = np.array([row["error"] / row["predicted"] for row in random if shown_in_logarithms(row)])
    return (
        f"Simulation and prediction {judged}: {len(found) - off} of {len(found)} numbers within {LARGEST:g} standard "
        f"errors at d = {min(dims)} to {max(dims):,}, {len(found) - len(random)} of them exactly; worst z "
        f"{worst['z']:.2g} ({where}), mean square z {np.mean(z**2):.3f}, chi-square p {p:.2g}. Standard errors "
        f"of path KLs are {np.median(sharp):.1%} of them (median), and more than half in {np.sum(sharp > 0.5)} of "
        f"{len(sharp)}, where agreement says little. Compilations for each "
        f"kernel and family of laws: {most}; {sum(row['rows'] for row in runs):,} rows in {seconds:.0f} s on "
        f"{runs[0]['devices']} device{'s' * (runs[0]['devices'] > 1)}, {speed:.2g} padded particle-coordinate-steps a "
        f"second, each with a pair of forward draws beside it."
    )


def shown_in_logarithms(row):
    """Whether a row has a path KL above 0."""
    return row["quantity"] == "path KL" and row["predicted"] > ROUNDING * row["d"]


def level(cells):
    """Two-sided p of the chi-square of z: the smallest over quantities, times their number."""
    groups = collections.defaultdict(list)
    for cell in cells:
        groups[cell["quantity"]].append(cell["z"])
    sides = lambda z: [tail(np.sum(np.square(z)), len(z)) for tail in (stats.chi2.cdf, stats.chi2.sf)]
    return float(min(1.0, 2 * len(groups) * min(min(sides(z)) for z in groups.values())))


def draw(rows, path):
    """Path KL against d: simulated points on exact lines; all z below; a column for each kernel."""
    found = [row for row in rows if row["part"] == "cell"]
    figure = plots.canvas(11.5, 6.2)
    axes = figure.subplots(2, len(KERNELS), sharex=True, sharey="row", height_ratios=(3, 2))
    for (above, below), name in zip(axes.T, KERNELS, strict=True):
        for index, law in enumerate(padded_laws.LAWS):
            own = [row for row in found if (row["kernel"], row["law"]) == (name, law)]
            _path_kls(above, own, index, law)
            shown = [(row["d"], row["z"]) for row in own if row["z"] is not None]
            d, z = np.array(shown).T if shown else ((), ())
            look = {"color": drawing.COLOURS[index], "marker": drawing.MARKERS[index]}
            below.plot(np.asarray(d) * 2 ** (0.1 * (index - 3)), np.clip(z, -8, 8), ls="", ms=2.6, alpha=0.7, **look)
        d = np.array([2, found[-1]["d"]])
        above.plot(d, 0.03 * d, "k--", lw=1.0, label="slope 1")
        drawing.powers(above)
        above.set_ylim(bottom=0.02)  # long error bars are cut
        above.set_title(label_of(name), fontsize=10)
        below.set_xscale("log", base=2)
        below.grid(alpha=0.25, lw=0.6)
        for end in (-LARGEST, LARGEST):
            below.axhline(end, color="black", lw=0.8, ls=":")
        below.set(ylim=(-8.5, 8.5), xlabel="dimension d")
    axes[0, 0].set_ylabel("path KL, nats")
    axes[1, 0].set_ylabel("(simulated - predicted)\n/ standard error")
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), frameon=False, fontsize=9, loc="outside lower center", ncols=8
    )
    return plots.saved(figure, path)


def _path_kls(ax, rows, index, law):
    """Exact lines, and simulated points with 1.96 standard errors; zeros are left out of the logarithmic axis."""
    rows = [row for row in rows if shown_in_logarithms(row)]
    d, simulated, error, predicted = (
        [row[column] for row in rows] for column in ("d", "simulated", "error", "predicted")
    )
    look = {"color": drawing.COLOURS[index], "marker": drawing.MARKERS[index], "ms": 4}
    ax.plot(d, predicted, color=look["color"], lw=1.0)
    ax.errorbar(d, simulated, 1.96 * np.array(error), ls="", lw=1.0, label=law, **look)


COLUMNS = ("kernel", "family", "rows", "particles", "compilations", "devices", "seconds", "steps_per_second")
STUDY = studies.Study(NAME, QUESTION, rows, COLUMNS, verdict, draw, hidden=("cell",))

if __name__ == "__main__":
    studies.main(STUDY)
