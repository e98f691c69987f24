"""Does Langevin at T1 bring samples closer to the data, and for which scores and horizons?

W2 to q_delta (delta = 0.001) after prediction-correction with UniPC, against T1, with 0, 16 and 64 plain Langevin steps
at T1. The score is exact, or it has an L2 error of 0.3 at every time, or an L2 error of 1 at times beyond 1 only, like
a network that was never trained there. The error is a constant vector along (1, ..., 1), with the sign that leaves the
larger W2. On the laws that need no samples, the same number of evaluations is then spent with and without Langevin,
each time with the best T1, start and step length.

Gaussian, d = 8: closed form. Two bumps: on the line, by densities and quantiles (laws/line.py). Three modes in the
plane: samples and an optimal assignment; the floor is the distance between two exact samples.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import drawing, studies
from benchmarks.laws import line, wrong_scores
from benchmarks.oracles.assignment import assignment_w2
from benchmarks.samplers import prediction_correction
from jaxdiff import grids, kernels, noise, plots, predict_correct, sample, targets
from jaxdiff.kernels.langevin_limits import default_step
from jaxdiff.processes import forward, ou

NAME = "corrector"
QUESTION = "When does Langevin at a finite horizon T1 bring samples closer to the data, and when does it not pay?"
EARLY_STOP = 1e-3
REVERSAL, LANGEVIN = 32, (0, 16, 64)  # evaluations of the first part
BUDGETS, SHARES, LENGTHS = (8, 16, 32, 64), (0.0, 0.25, 0.5, 0.75), (1, 4, 10)  # of the second; steps to the default's
SHIFT, LATE_SHIFT, TRAINED = 0.3, 1.0, 1.0
PAYS = 0.9  # Langevin pays if its W2 is less than this times the W2 without
FLOORS = 4

SCORES = {
    "exact": (0.0, 0.0),
    f"off by {SHIFT}": (SHIFT, 0.0),
    f"off by {LATE_SHIFT:g} beyond t = {TRAINED:g}": (LATE_SHIFT, TRAINED),
}


class Pipeline(NamedTuple):
    """One run: T1, the start's name, Langevin steps and their length, evaluations of the reversal."""

    horizon: float
    start: str
    n_steps: int
    step_size: float
    reversal: int


class Subject(NamedTuple):
    """A law: its exact score, the function (score, Pipeline) -> W2, and the floor of that W2."""

    dim: int
    score: Any
    w2: Callable
    floor: float


def reverse(score, x, horizon, n_steps):
    """The particles (n, d) at the end of UniPC's grid."""
    grid = grids.log_snr(horizon, EARLY_STOP, n_steps)
    return np.asarray(sample(kernels.unipc(score, 2), jnp.asarray(x), grid, jax.random.key(0)))


def gaussian():
    """Eight variances from 0.01 to 4, mean 1: every step is affine."""
    mean, variance = np.ones(8), np.geomspace(0.01, 4, 8)
    law = targets.gaussian(mean, variance)

    def w2(score, run):
        t = run.horizon
        noised = ou.alpha(t) ** 2 * variance + ou.sigma(t) ** 2
        m, v = (np.zeros(8), np.ones(8)) if run.start == "N(0, I)" else (ou.alpha(t) * mean, noised)
        keep = 1 - run.step_size / noised
        for _ in range(run.n_steps):
            m = m + run.step_size * np.asarray(line.evaluated(score, jnp.asarray(m), jnp.asarray(t)))
            v = keep**2 * v + 2 * run.step_size
        m, further = reverse(score, np.stack([m, m + np.sqrt(v)]), t, run.reversal)
        end = ou.alpha(EARLY_STOP) ** 2 * variance + ou.sigma(EARLY_STOP) ** 2
        return np.hypot(np.linalg.norm(m - ou.alpha(EARLY_STOP) * mean), np.linalg.norm(further - m - np.sqrt(end)))

    return Subject(8, law.score, w2, 0.0)


def two_bumps():
    """0.3 N(-2, 0.05) + 0.7 N(2, 0.05)."""
    law = line.Law([0.3, 0.7], [-2.0, 2.0], [0.05, 0.05])
    end = law.quantiles(line.LEVELS_AT, EARLY_STOP)

    def w2(score, run):
        start = line.gaussian_start(law, run.horizon, run.start != "N(0, I)")
        x = line.after_langevin(law, score, run.horizon, start, run.step_size, run.n_steps)
        return line.w2(reverse(score, x[:, None], run.horizon, run.reversal)[:, 0], end)

    return Subject(1, law.score, w2, 0.0)


def three_modes(n):
    """Three modes in the plane, of weights 0.6, 0.3 and 0.1, n samples."""
    weights, means = [0.6, 0.3, 0.1], np.array([[2.0, 0.0], [-1.0, 1.5], [-1.0, -2.5]])
    law, key = targets.mixture(weights, means, np.full((3, 2), 0.05)), jax.random.key(3)
    exact = [
        np.asarray(forward(law.sample(k, n), EARLY_STOP, jax.random.normal(k, (n, 2))))
        for k in jax.random.split(key, FLOORS + 1)
    ]
    floor = float(np.mean([assignment_w2(exact[0], other) for other in exact[1:]]))
    mean = weights @ means
    moments = mean, (np.asarray(weights) * (means - mean).T) @ (means - mean) + 0.05 * np.eye(2)

    def w2(score, run):
        x = predict_correct(
            score,
            noise.initial(key, jnp.arange(n), 2),
            key,
            horizon=run.horizon,
            langevin_time=run.n_steps * run.step_size,
            step_size=run.step_size,
            moments=None if run.start == "N(0, I)" else moments,
            reversal=kernels.unipc(score, 2),
            grid=grids.log_snr(run.horizon, EARLY_STOP, run.reversal),
        )
        return assignment_w2(np.asarray(x), exact[0])

    return Subject(2, law.score, w2, floor)


def steps_at(subject, horizon):
    """The default step of Langevin at T1."""
    return default_step(kernels.langevin(subject.score, horizon))


def rows(quick, repeats):
    """A row for each law, score, T1 and number of Langevin steps; then one for each law, score and budget."""
    horizons = np.geomspace(0.05, 5, 6 if quick else 14)
    subjects = {
        "Gaussian, d = 8": gaussian(),
        "two bumps": two_bumps(),
        "three modes, d = 2": three_modes(500 if quick else 1000),
    }
    found = []
    for law, subject in subjects.items():
        clock = functools.cache(lambda langevin, reversal, subject=subject: timed(subject, langevin, reversal, repeats))
        for name, shift in SCORES.items():
            w2 = functools.partial(worst, subject, *shift)
            about = {"law": law, "score": name, "floor": subject.floor}
            for t, n_steps in itertools.product(horizons, LANGEVIN):
                run = Pipeline(float(t), "N(0, I)", n_steps, steps_at(subject, t), REVERSAL)
                found.append(about | row(w2(run), run, clock) | {"part": "horizons"})
            for budget in () if subject.floor else BUDGETS[1::2] if quick else BUDGETS:  # the best of noise is noise
                found += [about | one for one in at_equal_evaluations(subject, w2, budget, horizons, clock)]
    return found


def worst(subject, size, after, run):
    """The larger of the W2 with an error of either sign."""
    signs = (size, -size) if size else (size,)
    return max(subject.w2(wrong_scores.shifted(subject.score, signed, after), run) for signed in signs)


def timed(subject, langevin, reversal, repeats):
    """Seconds of predict_correct with the exact score, by the numbers of Langevin and reversal evaluations."""
    h = steps_at(subject, 1.0)
    grid = grids.log_snr(1.0, EARLY_STOP, reversal)
    options = {"horizon": 1.0, "langevin_time": langevin * h, "step_size": h, "grid": grid}
    return prediction_correction.seconds(subject.score, subject.dim, repeats, **options)


def row(w2, run, clock):
    """A row: the settings of a pipeline, its W2 and its seconds."""
    return {
        "horizon": run.horizon,
        "start": run.start,
        "langevin_time": run.n_steps * run.step_size,
        "evals_langevin": run.n_steps,
        "evals_reversal": run.reversal,
        "w2": float(f"{w2:.6g}"),
        "seconds": clock(run.n_steps, run.reversal),
    }


def at_equal_evaluations(subject, w2_of, budget, horizons, clock):
    """The best pipelines without and with Langevin at one number of evaluations, and the number of settings tried."""
    best, tried = {}, {False: 0, True: 0}
    for share, t, start in itertools.product(SHARES, horizons, ("N(0, I)", "matched Gaussian")):
        n_steps = round(share * budget)
        for length in LENGTHS if n_steps else LENGTHS[:1]:
            run = Pipeline(float(t), start, n_steps, length * steps_at(subject, t), budget - n_steps)
            w2, kind = w2_of(run), n_steps > 0
            tried[kind] += 1
            if kind not in best or w2 < best[kind][0]:
                best[kind] = w2, run
    return [
        row(*best[kind], clock) | {"part": "equal evaluations", "budget": budget, "with": kind, "tried": tried[kind]}
        for kind in (False, True)
    ]


def pairs(rows):
    """(without, with) for each law, score and budget."""
    found = [one for one in rows if one["part"] == "equal evaluations"]
    return list(zip(found[::2], found[1::2], strict=True))


def verdict(rows):
    """Where Langevin wins and loses at equal evaluations, and how much of the error at a small T1 it removes."""
    compared = pairs(rows)
    won = [(plain, more) for plain, more in compared if more["w2"] < PAYS * plain["w2"]]
    lost = [(plain, more) for plain, more in compared if more["w2"] >= plain["w2"]]
    tried = [sum(pair[i]["tried"] for pair in compared) for i in (0, 1)]
    where = sorted({f"{plain['law']}, {plain['score']}" for plain, _ in won})
    at = lambda n: {(r["law"], r["horizon"]): r["w2"] for r in rows if _of_floor(r, n)}
    without, long = at(0), at(LANGEVIN[-1])
    law, t = max(without, key=lambda k: without[k] / long[k])
    return (
        f"At equal evaluations Langevin leaves less than {PAYS:g} of the W2 in {len(won)} of {len(compared)} cases "
        f"({'; '.join(where) or 'none'}) and does not pay in {len(lost)}; "
        f"{tried[0]} settings without and {tried[1]} with it searched. Exact score, "
        f"fixed reversal: it removes most at T1 = {t:.2g} ({law}: {without[law, t]:.3g} to {long[law, t]:.3g})."
    )


def _of_floor(one, n_steps):
    return one["part"] == "horizons" and one["score"] == "exact" and one["evals_langevin"] == n_steps


def draw(rows, path):
    """W2 against T1: a panel for each law and score."""
    of_horizons = [one for one in rows if one["part"] == "horizons"]
    laws, names = (list(dict.fromkeys(one[key] for one in of_horizons)) for key in ("law", "score"))
    figure = plots.canvas(12.5, 9)
    axes = figure.subplots(len(laws), len(names), sharex=True, sharey="row", squeeze=False)
    for ax, (law, name) in zip(axes.ravel(), itertools.product(laws, names), strict=True):
        own = [one for one in of_horizons if (one["law"], one["score"]) == (law, name)]
        for index, n_steps in enumerate(LANGEVIN):
            points = {one["horizon"]: one["w2"] for one in own if one["evals_langevin"] == n_steps}
            drawing.line(ax, points, f"{n_steps} Langevin steps", index)
        if own[0]["floor"]:
            ax.axhline(own[0]["floor"], color=plots.INK, lw=0.9, ls=":", label="floor of two samples")
        drawing.powers(ax)
        ax.set_title(f"{law}, score {name}", fontsize=10)
    for ax in axes[-1]:
        ax.set_xlabel("T1")
    for ax in axes[:, 0]:
        ax.set_ylabel("W2")
        ax.legend(frameon=False, fontsize=8)
    return plots.saved(figure, path)


COLUMNS = ("law", "score", "horizon", "start", "langevin_time", "evals_langevin", "evals_reversal", "w2", "floor")
STUDY = studies.Study(NAME, QUESTION, rows, (*COLUMNS, "seconds", "tried"), verdict, draw, ("horizons",))

if __name__ == "__main__":
    studies.main(STUDY)
