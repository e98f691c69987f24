"""Should one plan for the samples (W2) or for the paths (path KL), and how far are both certificates from the truth?

Eleven laws with exact scores (oracles/exact_values.py) and the network trained on the digits, from T = 5. Three
samplers have as many evaluations: the plan in W2, the plan of least path KL, and UniPC of order 2 on that named grid
which turns out best. On eight laws the error is the exact W2 distance of the end points from the law at the early stop
(oracles/end_point_truth.py). On the others it is sliced W2 between 4,096 end points and exact samples, or test rows;
its floor is the largest of four exact samples', or that of train rows.

The certificate in W2 is compared with the exact distance without the cost of early stopping, which that distance does
not have either. The certificate in path KL is compared with the exact KL of the end points. The gain of a fitted grid
is the distance of the plan's kernel from its reference on the best named grid, over that on the planned one, for the
same 512 particles.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxdiff
from benchmarks.harness import drawing, studies
from benchmarks.oracles import end_point_truth as truth
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
EXACT, SLICED = "exact W2", "sliced W2"
NONE = 1e-4  # an exact distance per coordinate below this counts as none
LEAST_KL = 1e-6  # nats; below this a KL of end points is a rounding error


class Case(NamedTuple):
    """A law or a network: its score, what plans know of it, and sliced W2 of end points (n, d) with its floor.

    exact: the law's case of exact_values, where it has exact distances; else None.
    """

    name: str
    score: Any
    of_w2: dict
    of_kl: dict
    early_stop: float
    start: Any
    distance: Callable
    floor: float
    exact: Any = None


def law_case(name, case):
    """A law with its exact score."""
    law = case.law
    key_exact, key_start, key_slices = jax.random.split(jax.random.key(0), 3)
    drawn = lambda key: np.asarray(_noised(law, key, EARLY_STOP))
    exact, *others = map(drawn, jax.random.split(key_exact, 1 + FLOORS))
    distance = lambda x: metrics.sliced_w2(x, exact, key_slices, n_projections=PROJECTIONS).value
    start = jax.random.normal(key_start, (PARTICLES, law.dim), jnp.float32)
    floor = max(map(distance, others))
    known = None if case.line is None and case.normal is None else case
    return Case(name, law.score, {"target": law}, {"target": law}, EARLY_STOP, start, distance, floor, known)


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
    laws = [functools.partial(law_case, name, case) for name, case in exactly.cases().items()]
    makers = [*(laws[:QUICK_LAWS] if quick else laws), functools.partial(digits_case, size)]
    return [row for case in (make() for make in makers) for n in EVALS[size] for row in of_case(case, n)]


def of_case(case, evals):
    """The rows of the three samplers."""
    w2 = jaxdiff.plan(evals=evals, metric="w2", horizon=HORIZON, early_stop=case.early_stop, **case.of_w2)
    kl = jaxdiff.plan(evals=evals, horizon=HORIZON, early_stop=case.early_stop, **case.of_kl)
    grids = [make(HORIZON, case.early_stop, evals) for make in NAMED]
    unipc = kernels.unipc(case.score, 2)
    planned = [w2.sampler(case.score), kl.sampler(case.score)]
    samplers = [*planned, *(Sampler(unipc, grid) for grid in grids)]
    kind, floor, errors = errors_of(case, samplers)
    best = int(np.argmin(errors[2:]))
    about = {"part": "case", "law": case.name, "d": case.start.shape[1], "N": evals, "distance": kind, "floor": floor}
    known = {"target": case.of_w2.get("target"), "rows": case.of_w2.get("rows")}
    exact_kl = None if case.exact is None else truth.end_kl(case.exact, planned[1], case.early_stop)
    of_each = (
        (W2_PLAN, errors[0], _of_w2(w2, case, known, grids)),
        (KL_PLAN, errors[1], {"kernel": kl.kernel, "path_kl": kl.certificate.known, "exact_kl": exact_kl}),
        (BEST_NAMED, errors[2 + best], {"kernel": "unipc", "grid": NAMED[best].__name__}),
    )
    return [about | {"sampler": name, "error": float(error)} | more for name, error, more in of_each]


def errors_of(case, samplers):
    """How the samplers are judged, the floor of this distance, and the distance of each of them."""
    if case.exact is not None:
        exact = [truth.end_w2(case.exact, one, case.early_stop) for one in samplers]
        if None not in exact:
            return EXACT, NONE * case.start.shape[1] ** 0.5, exact
    return SLICED, case.floor, [_distance(case, one) for one in samplers]


def _of_w2(plan, case, known, grids):
    """The certificate of a plan in W2 without early stopping, and what its grid gains over the best named one."""
    certificate, key = plan.certificate, jax.random.key(7)
    terms = [certificate[name] for name in ("discretisation", "reference", "initialisation")]
    half_widths = sum(term.half_width_above(certificate.confidence) for term in terms)
    above = sum(term.value for term in terms) + certificate.joint * half_widths
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
    """Pairs (error of the W2 plan, of another sampler), each raised to the floor, for every law and N."""
    of = {(row["law"], row["N"], row["sampler"]): max(row["error"], row["floor"]) for row in rows}
    return [(of[law, n, W2_PLAN], of[law, n, other]) for law, n, name in of if name == W2_PLAN]


def looseness(rows):
    """Certificates over exact values, where these are not 0: in W2 of the W2 plans, in KL of the KL plans."""
    w2 = [row for row in rows if row["sampler"] == W2_PLAN and row["distance"] == EXACT and row["error"] > row["floor"]]
    kl = [row for row in rows if row["sampler"] == KL_PLAN and (row["exact_kl"] or 0) > LEAST_KL]
    return [row["certified"] / row["error"] for row in w2], [row["path_kl"] / row["exact_kl"] for row in kl]


def verdict(rows):
    """Which plan has the better samples, and how far certificates are from the truth."""
    parts = []
    for other in (KL_PLAN, BEST_NAMED):
        ours, theirs = np.array(pairs(rows, other)).T
        better, worse = int(np.sum(ours < 0.95 * theirs)), int(np.sum(ours > 1.05 * theirs))
        parts.append(
            f"against the {other} the W2 plan has a smaller error in {better} of {len(ours)} cases, a larger one in "
            f"{worse}, and the same within 5 % in the others (median ratio {np.median(ours / theirs):.2f})"
        )
    said = f"{'; '.join(parts)}."
    for name, loose in zip(("W2", "path KL"), looseness(rows), strict=True):
        if loose:
            said += (
                f" The certificate in {name} is {np.min(loose):.3g} to {np.max(loose):.3g} times the exact value, in "
                f"{len(loose)} cases (median {np.median(loose):.3g})."
            )
    of_network = [row["gain"] for row in rows if row["law"] == DIGITS and row.get("gain")]
    if of_network:
        said += (
            f" On the network, planned grids lower the distance {min(of_network):.2f} to {max(of_network):.2f} times."
        )
    return said[0].upper() + said[1:]


def draw(rows, path):
    """Sliced W2 against evaluations on the digits; errors of the two plans on all laws; certificates over the truth."""
    figure = plots.canvas(15, 4.4)
    left, middle, right = figure.subplots(1, 3)
    shown = [row for row in rows if row["law"] == DIGITS]
    for index, name in enumerate((W2_PLAN, KL_PLAN, BEST_NAMED)):
        drawing.line(left, {row["N"]: row["error"] for row in shown if row["sampler"] == name}, name, index)
    left.axhline(shown[0]["floor"], color="black", lw=1, ls=":", label="train rows (floor)")
    left.set(xlabel="evaluations N", ylabel="sliced W2 to test rows", title=DIGITS)
    left.legend(frameon=False)
    for index, law in enumerate(dict.fromkeys(row["law"] for row in rows)):
        own = [row for row in rows if row["law"] == law]
        style = {"color": drawing.COLOURS[index % 8], "marker": drawing.MARKERS[index % 8], "lw": 1.2, "ms": 4}
        style |= {"label": law, "ls": "-" if index < 8 else "--"}
        ratios = dict(zip(sorted({row["N"] for row in own}), (a / b for a, b in pairs(own, KL_PLAN)), strict=True))
        middle.plot(list(ratios), list(ratios.values()), **style)
        loose = {row["N"]: found[0] for row in own if (found := looseness([row])[0])}
        right.plot(list(loose), list(loose.values()), **style)
    middle.set(yscale="log", xlabel="evaluations N", ylabel="error of the W2 plan over the KL plan's")
    right.set(yscale="log", xlabel="evaluations N", ylabel="certificate in W2 over the exact distance")
    for ax in (middle, right):
        ax.axhline(1, color="black", lw=1, ls=":")
    ticks = sorted({row["N"] for row in rows})
    for ax in (left, middle, right):
        ax.set_xscale("log")
        ax.set_xticks(ticks, [str(n) for n in ticks])
        ax.minorticks_off()
    figure.legend(*middle.get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside right")
    return plots.saved(figure, path)


COLUMNS = (
    "law", "N", "sampler", "kernel", "grid", "distance", "error", "floor", "certified", "gain", "path_kl", "exact_kl",
)  # fmt: skip
STUDY = studies.Study(NAME, QUESTION, rows, COLUMNS, verdict, draw)

if __name__ == "__main__":
    studies.main(STUDY)
