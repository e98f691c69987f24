"""Should one plan for the samples (W2) or for the paths (path KL), and how far are both certificates from the truth?

Eleven laws with exact scores (oracles/exact_values.py) and the network trained on the digits, from T = 5. Three
samplers have as many evaluations: the plan in W2, the plan of least path KL, and UniPC of order 2 on that named grid
which turns out best. The truth is sliced W2 between end points and exact samples of the law at the early stop, or test
rows, from the same starts. The floor is the largest of four exact samples', or that of train rows. What is above the
floor, sqrt(d (S^2 - floor^2)), estimates a lower bound on W2: d times the mean square along a random direction is the
square in all of them.

A certificate is compared with this number where it is clearly above the floor: in W2 without the cost of early
stopping, which the truth does not have either. The gain of a fitted grid is the distance of the plan's kernel from its
reference on the best named grid, over that on the planned one, for the same 512 particles.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxdiff
from benchmarks.harness import drawing, studies
from benchmarks.oracles import exact_values as exactly
from benchmarks.oracles.planned_cases import DIGITS, DIGITS_EARLY_STOP, HORIZON, TRAINING, trained_on_digits
from jaxdiff import Sampler, certify_w2, kernels, metrics, plots
from jaxdiff.certificate import DISCRETISATION
from jaxdiff.planning.grid_shapes import NAMED
from jaxdiff.processes import forward, score_from_denoiser

NAME = "samples_or_paths"
QUESTION = "Should one plan for the samples or for the paths, and how far are the certificates from the truth?"
W2_PLAN, KL_PLAN, BEST_NAMED = "W2 plan", "KL plan", "best named grid"
EVALS = {"quick": (5,), "full": (5, 10, 20, 50)}
QUICK_LAWS = 2
EARLY_STOP, PARTICLES, PROJECTIONS, FLOORS = 1e-3, 4096, 256, 4
CLEAR = 1.5  # an error is clear where it is so many times the floor


class Case(NamedTuple):
    """A law or a network: its score, what plans know of it, and sliced W2 of end points (n, d) with its floor."""

    name: str
    score: Any
    of_w2: dict
    of_kl: dict
    early_stop: float
    start: Any
    distance: Callable
    floor: float


def law_case(name, law):
    """A law with its exact score."""
    key_exact, key_start, key_slices = jax.random.split(jax.random.key(0), 3)
    drawn = lambda key: np.asarray(_noised(law, key, EARLY_STOP))
    exact, *others = map(drawn, jax.random.split(key_exact, 1 + FLOORS))
    distance = lambda x: metrics.sliced_w2(x, exact, key_slices, n_projections=PROJECTIONS).value
    start = jax.random.normal(key_start, (PARTICLES, law.dim), jnp.float32)
    floor = max(map(distance, others))
    return Case(name, law.score, {"target": law}, {"target": law}, EARLY_STOP, start, distance, floor)


def _noised(law, key, t):
    key_law, key_noise = jax.random.split(key)
    rows = law.sample(key_law, PARTICLES)
    return forward(rows, t, jax.random.normal(key_noise, rows.shape, rows.dtype))


def digits_case(size):
    """The network trained on the digits: planned with held-out rows, judged by test rows."""
    dataset, denoiser, held_out, _ = trained_on_digits(TRAINING[size])
    key_start, key_noise, key_slices = jax.random.split(jax.random.key(1), 3)
    start = jax.random.normal(key_start, dataset.train.shape, jnp.float32)
    test = forward(jnp.asarray(dataset.test), DIGITS_EARLY_STOP, jax.random.normal(key_noise, dataset.test.shape, "f4"))
    distance = lambda x: metrics.sliced_w2(x, test, key_slices, n_projections=PROJECTIONS).value
    floor = distance(forward(jnp.asarray(dataset.train), DIGITS_EARLY_STOP, start))
    of_w2 = {"rows": dataset.held_out, "curve": held_out, "score": score_from_denoiser(denoiser)}
    return Case(DIGITS, of_w2["score"], of_w2, {"curve": held_out}, DIGITS_EARLY_STOP, start, distance, floor)


def rows(quick, repeats):
    """A row for every law, number of evaluations and sampler."""
    size = "quick" if quick else "full"
    laws = [functools.partial(law_case, name, case.law) for name, case in exactly.cases().items()]
    makers = [*(laws[:QUICK_LAWS] if quick else laws), functools.partial(digits_case, size)]
    return [row for case in (make() for make in makers) for n in EVALS[size] for row in of_case(case, n)]


def of_case(case, evals):
    """The rows of the three samplers."""
    w2 = jaxdiff.plan(evals=evals, metric="w2", horizon=HORIZON, early_stop=case.early_stop, **case.of_w2)
    kl = jaxdiff.plan(evals=evals, horizon=HORIZON, early_stop=case.early_stop, **case.of_kl)
    grids = [make(HORIZON, case.early_stop, evals) for make in NAMED]
    unipc = kernels.unipc(case.score, 2)
    reached = [_distance(case, Sampler(unipc, grid)) for grid in grids]
    best = int(np.argmin(reached))
    about = {"part": "case", "law": case.name, "d": case.start.shape[1], "N": evals, "floor": case.floor}
    known = {"target": case.of_w2.get("target"), "rows": case.of_w2.get("rows")}
    found = []
    for name, sampler, more in (
        (W2_PLAN, w2.sampler(case.score), _of_w2(w2, case, known, grids)),
        (KL_PLAN, kl.sampler(case.score), {"kernel": kl.kernel, "path_kl": kl.certificate.known}),
        (BEST_NAMED, Sampler(unipc, grids[best]), {"kernel": "unipc", "grid": NAMED[best].__name__}),
    ):
        sliced = reached[best] if name == BEST_NAMED else _distance(case, sampler)
        true = float(np.sqrt(case.start.shape[1] * max(sliced**2 - case.floor**2, 0.0)))
        found.append(about | {"sampler": name, "sliced_w2": sliced, "w2_at_least": true} | more)
    return found


def _of_w2(plan, case, known, grids):
    """The certificate of a plan in W2 without early stopping, and what its grid gains over the best named one."""
    certificate, key = plan.certificate, jax.random.key(7)
    terms = [certificate[name] for name in ("discretisation", "reference", "initialisation")]
    above = sum(term.value + term.half_width_above(certificate.confidence) for term in terms)
    kernel = plan.sampler(case.score).kernel
    named = [grid for grid in grids if len(grid) == len(plan.grid)]
    measured = lambda grid: certify_w2(Sampler(kernel, grid), key, **known, particles=512)[DISCRETISATION].value
    gain = min(map(measured, named)) / measured(plan.grid) if named else None
    return {"kernel": plan.kernel, "certified": float(above), "gain": gain}


def _distance(case, sampler):
    """Sliced W2 of a sampler's end points; inf where they are not finite."""
    x = np.asarray(jaxdiff.sample(sampler, case.start, key=jax.random.key(3)))
    return case.distance(x) if np.isfinite(x).all() else float("inf")


def pairs(rows, other):
    """Pairs (sliced W2 of the W2 plan, of another sampler), each raised to the floor, for every law and N."""
    of = {(row["law"], row["N"], row["sampler"]): max(row["sliced_w2"], row["floor"]) for row in rows}
    return [(of[law, n, W2_PLAN], of[law, n, other]) for law, n, name in of if name == W2_PLAN]


def looseness(rows):
    """Certificates in W2 over the truth, where the truth is clear."""
    return [
        row["certified"] / row["w2_at_least"]
        for row in rows
        if row["sampler"] == W2_PLAN and row["sliced_w2"] > CLEAR * row["floor"]
    ]


def verdict(rows):
    """Which plan has the better samples, and how far certificates are from the truth."""
    parts = []
    for other in (KL_PLAN, BEST_NAMED):
        ours, theirs = np.array(pairs(rows, other)).T
        better, worse = int(np.sum(ours < 0.95 * theirs)), int(np.sum(ours > 1.05 * theirs))
        parts.append(
            f"against the {other} the W2 plan has less sliced W2 in {better} of {len(ours)} cases, more in {worse}, "
            f"and the same within 5 % in the others (median ratio {np.median(ours / theirs):.2f})"
        )
    loose = looseness(rows)
    said = f"{'; '.join(parts)}."
    if loose:
        said += (
            f" Where its error is clearly above the floor ({len(loose)} cases), the certificate in W2 is "
            f"{np.min(loose):.2g} to {np.max(loose):.2g} times a lower bound on the truth (median "
            f"{np.median(loose):.2g})."
        )
    of_network = [row["gain"] for row in rows if row["law"] == DIGITS and row.get("gain")]
    if of_network:
        said += (
            f" On the network, planned grids lower the distance {min(of_network):.2f} to {max(of_network):.2f} times."
        )
    return said[0].upper() + said[1:]


def draw(rows, path):
    """Sliced W2 against evaluations on the digits; the W2 plan's over the KL plan's on all laws."""
    figure = plots.canvas(11, 4.4)
    left, right = figure.subplots(1, 2)
    shown = [row for row in rows if row["law"] == DIGITS]
    for index, name in enumerate((W2_PLAN, KL_PLAN, BEST_NAMED)):
        drawing.line(left, {row["N"]: row["sliced_w2"] for row in shown if row["sampler"] == name}, name, index)
    left.axhline(shown[0]["floor"], color="black", lw=1, ls=":", label="train rows (floor)")
    left.set(xscale="log", xlabel="evaluations N", ylabel="sliced W2 to test rows", title=DIGITS)
    left.legend(frameon=False)
    for index, law in enumerate(dict.fromkeys(row["law"] for row in rows)):
        own = [row for row in rows if row["law"] == law]
        ratios = dict(zip(sorted({row["N"] for row in own}), (a / b for a, b in pairs(own, KL_PLAN)), strict=True))
        look = {"color": drawing.COLOURS[index % 8], "marker": drawing.MARKERS[index % 8]}
        right.plot(list(ratios), list(ratios.values()), lw=1.2, ms=4, label=law, ls="-" if index < 8 else "--", **look)
    right.axhline(1, color="black", lw=1, ls=":")
    right.set(xscale="log", yscale="log", xlabel="evaluations N", ylabel="sliced W2 of the W2 plan over the KL plan's")
    for ax in (left, right):
        ticks = sorted({row["N"] for row in rows})
        ax.set_xticks(ticks, [str(n) for n in ticks])
        ax.minorticks_off()
    figure.legend(*right.get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside right")
    return plots.saved(figure, path)


COLUMNS = ("law", "N", "sampler", "kernel", "grid", "sliced_w2", "floor", "w2_at_least", "certified", "gain", "path_kl")
STUDY = studies.Study(NAME, QUESTION, rows, COLUMNS, verdict, draw)

if __name__ == "__main__":
    studies.main(STUDY)
