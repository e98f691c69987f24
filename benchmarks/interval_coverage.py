"""How often does a certificate's 95 % interval contain the true path KL, on rows with outliers, copies and heavy tails?

A denoiser x -> c(t) x has a loss on a row that is linear in |X_0|^2 and in the squares of the noise. Curves of many
data sets are therefore drawn without a network, and the true value is the path KL of the mean row. Rows are normal, or
they have heavy tails, a rare spike or copies. Student's interval for independent rows is given for comparison.
"""

import functools

import numpy as np

from benchmarks.harness import drawing, studies
from jaxdiff import grids, plots
from jaxdiff.curves import measured_curve
from jaxdiff.guarantees.certify import certify
from jaxdiff.guarantees.path_kl import path_kl
from jaxdiff.intervals import student_quantile
from jaxdiff.processes import ou

NAME = "interval_coverage"
QUESTION = "How often does a certificate's 95 % interval contain the truth, on rows as people have them?"
SEED = 0
HORIZON, EARLY_STOP, STEPS, NODES, NOISES = 3.0, 0.01, 15, 101, 4
SIZES, KERNELS = (24, 200, 1000), ("ancestral", "exponential_euler", "moment_matched")
ASKED, PROBABILITY = 0.95, 0.975
TWICE = "normal, every row twice"
# E X_0^2, and draws of X_0^2 from a generator.
LAWS = {
    "normal": (1.0, lambda rng, n: rng.standard_normal(n) ** 2),
    "uniform": (1.0, lambda rng, n: 3 * rng.uniform(-1, 1, n) ** 2),
    "Laplace": (2.0, lambda rng, n: rng.laplace(size=n) ** 2),
    "lognormal": (np.exp(2.0), lambda rng, n: np.exp(2 * rng.standard_normal(n))),
    "Student, 3 degrees": (3.0, lambda rng, n: rng.standard_t(3, n) ** 2),
    "spike of 2 %": (0.5, lambda rng, n: np.where(rng.random(n) < 0.02, 25 * rng.standard_normal(n) ** 2, 0.0)),
    TWICE: (1.0, lambda rng, n: np.repeat(rng.standard_normal(n // 2) ** 2, 2)),
}
U = np.linspace(np.log(ou.snr(HORIZON)), np.log(ou.snr(EARLY_STOP)), NODES)


def rows_of(square, noise, variance):
    """(n, 2 NODES) rows of a measured curve of the best linear denoiser for a variance.

    Args:
      square: (n,) X_0^2. noise: (n,) means of Z^2 over the noises of each row.
    """
    snr = np.exp(U)
    alpha, sigma = ou.alpha(ou.time(snr)), ou.sigma(ou.time(snr))
    c = alpha * variance / (alpha**2 * variance + sigma**2)
    loss = (1 - c * alpha) ** 2 * square[:, None] + (c * sigma) ** 2 * noise[:, None]
    return np.concatenate([snr * loss, np.sqrt(snr) * c * sigma * noise[:, None]], axis=1)


@functools.cache
def grid():
    """The grid whose path KL is estimated."""
    return grids.exponential_then_uniform(HORIZON, EARLY_STOP, STEPS)


@functools.cache
def mean_curve(law):
    """The curve of a law's mean row at the levels of the other curves, for the same interpolation error."""
    variance, _ = LAWS[law]
    return measured_curve(U, np.repeat(rows_of(np.array([variance]), np.ones(1), variance), 2, axis=0), 1)


def ends(law, n, kernel, rng):
    """The true value for one data set, the two ends of each interval, and whether the certificate warns."""
    variance, draw = LAWS[law]
    losses = rows_of(draw(rng, n), rng.chisquare(NOISES, n) / NOISES, variance)
    curve = measured_curve(U, losses, 1, row_ids=np.arange(n) // 2 if law == TWICE else None)
    truth = path_kl(kernel, mean_curve(law), grid(), matched=curve if kernel == "moment_matched" else None)
    certificate = certify(kernel, grid(), curve=curve)
    unaware = certificate if curve.row_ids is None else certify(kernel, grid(), curve=measured_curve(U, losses, 1))
    term = unaware["discretisation"]
    reach = student_quantile(PROBABILITY, n - 1) * term.standard_error
    warned = any("interval" in text or "copies" in text for text in certificate.warnings)
    return truth, (term.value - reach, term.value + reach), certificate.interval("discretisation"), warned


def rows(quick, repeats):
    """A row for every law, number of rows and kernel."""
    repetitions = 20 if quick else 300
    return [_row(law, n, kernel, repetitions) for law in LAWS for n in SIZES for kernel in KERNELS]


def _row(law, n, kernel, repetitions):
    rng = np.random.default_rng([SEED, list(LAWS).index(law), n])
    found = zip(*(ends(law, n, kernel, rng) for _ in range(repetitions)), strict=True)
    truth, student, own, warned = map(np.array, found)
    inside = lambda pair: float(np.mean((pair[:, 0] <= truth) & (truth <= pair[:, 1])))
    return {
        "law": law,
        "n": n,
        "kernel": kernel,
        "student": inside(student),
        "certificate": inside(own),
        "width": float(np.median(own[:, 1] - own[:, 0])),
        "wider": float(np.median((own[:, 1] - own[:, 0]) / (student[:, 1] - student[:, 0]))),
        "warned": float(np.mean(warned)),
        "repetitions": repetitions,
    }


def verdict(rows):
    """How many cells cover 95 % within two standard errors, for both intervals, and the warnings in the others."""
    error = 2 * np.sqrt(ASKED * (1 - ASKED) / rows[0]["repetitions"])
    good = lambda column: sum(row[column] >= ASKED - error for row in rows)
    poor = [row for row in rows if row["certificate"] < ASKED - error]
    said = (
        f"{good('certificate')} of {len(rows)} cells cover {ASKED:.0%} within two standard errors, Student's "
        f"{good('student')}."
    )
    if not poor:
        return said
    worst = min(poor, key=lambda row: row["certificate"])
    silent = min(poor, key=lambda row: row["warned"])
    return (
        f"{said} The least coverage is {worst['certificate']:.2f} ({worst['law']}, {worst['n']} rows, "
        f"{worst['kernel']}; Student's {worst['student']:.2f}). Of the {len(poor)} cells that cover less, the one with "
        f"the fewest warnings ({silent['law']}, {silent['n']} rows, {silent['kernel']}, coverage "
        f"{silent['certificate']:.2f}) warns in {silent['warned']:.0%} of data sets."
    )


def draw(rows, path):
    """Coverage by number of rows, a panel a kernel; dashed: Student's."""
    figure = plots.canvas(12.5, 4.4)
    axes = figure.subplots(1, len(KERNELS), sharey=True)
    for ax, kernel in zip(axes, KERNELS, strict=True):
        for index, law in enumerate(LAWS):
            own = [row for row in rows if row["law"] == law and row["kernel"] == kernel]
            drawing.line(ax, {row["n"]: row["certificate"] for row in own}, law, index)
            ax.plot([r["n"] for r in own], [r["student"] for r in own], color=drawing.COLOURS[index], lw=1, ls="--")
        ax.axhline(ASKED, color=plots.INK, lw=0.8, ls=":")
        ax.set(xscale="log", xlabel="rows", title=kernel.replace("_", " "), ylim=(0.25, 1.01))
        ax.set_xticks(SIZES, [str(n) for n in SIZES])
        ax.minorticks_off()
    axes[0].set_ylabel("share of intervals that contain the truth")
    axes[-1].legend(frameon=False, fontsize=8, loc="lower right")
    return plots.saved(figure, path)


COLUMNS = ("law", "n", "kernel", "student", "certificate", "width", "wider", "warned")
STUDY = studies.Study(NAME, QUESTION, rows, COLUMNS, verdict, draw, seed=SEED)

if __name__ == "__main__":
    studies.main(STUDY)
