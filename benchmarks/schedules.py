"""Which grid of N steps is best for which sampler, and does a better path KL make better samples?

Benton's, uniform, Karras', cosine, log-snr and geometric grids, the optimal one (shortest path, then Newton), and grids
by gradient descent (descent.py: Adam, L-BFGS) from each of the six named ones; T = 5 to delta = 1e-3. Six laws with
exact scores (laws.py) and a network trained on the digits (delta = 2e-3), whose grids are made for its loss on
held-out rows and whose path KL is the excess on test rows. Path KL is exact, up to the standard error of a curve known
by Monte Carlo. Beside it, the KL of the end points where the output is Gaussian (rank 8), or sliced W2 of samples, the
same draws for every grid, and its floor: the largest of four exact samples', or that of train rows against test rows.
Covariance matching, whose step costs a log det, on the ring alone, its optimal grid among 241 candidates.
"""

import collections
import functools
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy.stats import spearmanr

from benchmarks import descent, figures, studies
from benchmarks.laws import LAWS
from benchmarks.work_precision import FLAT, Spectrum, fresh, run
from jaxdiff import grids, information, kernels, metrics, plots, sample
from jaxdiff.app.samplers import label_of
from jaxdiff.curves import Curve
from jaxdiff.processes import forward

NAME = "schedules"
QUESTION = "Which grid of N steps is best for which sampler, and does a better path KL make better samples?"
HORIZON, EARLY_STOP, DIGITS_EARLY_STOP = 5.0, 1e-3, 2e-3
NAMED = {
    "Benton": grids.exponential_then_uniform,
    "uniform": grids.uniform,
    "Karras": grids.karras,
    "cosine": grids.cosine,
    "log-snr": grids.log_snr,
    "geometric": grids.geometric,
}
OPTIMAL = "optimal"
SAMPLERS = ("exponential_euler", "ancestral", "moment_matched")
DEAR, DEAR_LAW, DEAR_CANDIDATES, DEAR_UP_TO = "covariance_matched", "ring of 8", 241, 50
DIGITS = "digits"
STEPS = {"quick": (5, 20, 50), "full": (5, 10, 20, 50, 100, 200)}
SAMPLED = {"quick": (5, 20), "full": (5, 10, 20, 50)}  # numbers of steps after which samples are drawn
METHODS = {"quick": ("adam",), "full": ("adam", "l-bfgs")}
PARTICLES, COORDINATES = 2**13, 2**19  # of a sample, at most
REFERENCE, PROJECTIONS, FLOORS = 4, 128, 4  # the exact sample is so many times as large
TRAINING = {"quick": 400, "full": 4000}
STUCK = 1e-3  # above the optimum, relatively


class Case(NamedTuple):
    """A law or a model: the curve its grids are made for, the one they are judged by, how far samples are from data."""

    name: str
    planned: Curve
    judged: Curve
    measured: Callable  # (sampler, grid) -> columns
    early_stop: float = EARLY_STOP


def flat(size):
    """The flat Gaussian: exact KL of the end points."""
    spectrum = Spectrum.of_flat()
    curve = LAWS[FLAT]().mmse
    return Case(FLAT, curve, curve, lambda sampler, grid: {"marginal_kl": spectrum.kl(spectrum.kernel(sampler), grid)})


def mixture(name, size):
    """A mixture: sliced W2 of samples to exact ones."""
    law = LAWS[name]()
    n = min(PARTICLES, COORDINATES // law.dim)
    key_exact, key_start, key_run, key_sliced = jax.random.split(jax.random.key(0), 4)
    drawn = lambda key, n: forward(law.sample(key, n), EARLY_STOP, jax.random.normal(key, (n, law.dim)))
    exact, *others = map(drawn, jax.random.split(key_exact, 1 + FLOORS), (REFERENCE * n, *(n,) * FLOORS))
    distance = lambda x: metrics.sliced_w2(x, exact, key_sliced, n_projections=PROJECTIONS).value
    floor = max(map(distance, others))
    start = _spread(jax.random.normal(key_start, (n, law.dim)))

    def measured(sampler, grid):
        if len(grid) - 1 not in SAMPLED[size]:
            return {}
        matched = (law.mmse,) if sampler == "moment_matched" else ()
        x = run(getattr(kernels, sampler)(law.score, *matched), grid, start, key=key_run, draw=fresh)
        return {"sliced_w2": distance(x), "floor": floor}

    return Case(name, law.mmse, law.mmse, measured)


def _spread(x):
    """Particles over all devices, where there is more than one and they divide evenly."""
    devices = np.array(jax.devices())
    if len(devices) == 1 or len(x) % len(devices):
        return x
    return jax.device_put(x, NamedSharding(Mesh(devices, ("particles",)), PartitionSpec("particles")))


def digits(size):
    """A network trained on the digits: sliced W2 of as many samples as there are train rows to the test rows."""
    from jaxdiff import data, runs, train
    from jaxdiff.app.comparison_subject import Subject
    from jaxdiff.scores import denoiser_of

    dataset = data.load("digits")
    network = runs.build(dataset, {"width": 192, "depth": 3, "dropout": 0.1, "seed": 0})
    options = {"horizon": HORIZON, "early_stop": DIGITS_EARLY_STOP}
    key, key_start, key_run, key_sliced = jax.random.split(jax.random.key(0), 4)
    fitted = train.fit(network, dataset.train, key, steps=TRAINING[size], held_out=dataset.held_out, **options)
    denoiser = denoiser_of(fitted.network)
    planned, judged = (
        information.loss_curve(denoiser, rows, key, **options) for rows in (dataset.held_out, dataset.test)
    )
    subject = Subject(denoiser, planned, judged, dataset.train, dataset.test, **options)
    distance = lambda x: metrics.sliced_w2(x, dataset.test, key_sliced, n_projections=PROJECTIONS).value
    start = jax.random.normal(key_start, dataset.train.shape, jnp.float32)
    floor = distance(forward(jnp.asarray(dataset.train), DIGITS_EARLY_STOP, start))
    start = _spread(start)

    def measured(sampler, grid):
        if len(grid) - 1 not in SAMPLED[size]:
            return {}
        return {"sliced_w2": distance(sample(subject.kernel(sampler), start, grid, key_run)), "floor": floor}

    return Case(DIGITS, planned, judged, measured, DIGITS_EARLY_STOP)


def rows(quick, repeats):
    """A row for every law, sampler, number of steps and grid."""
    size = "quick" if quick else "full"
    laws = [DEAR_LAW, FLAT] if quick else list(LAWS)
    cases = [*(functools.partial(flat if name == FLAT else functools.partial(mixture, name), size) for name in laws)]
    found = []
    for case in (make() for make in (*cases, functools.partial(digits, size))):
        for sampler in (*SAMPLERS, *(DEAR,) * (case.name == DEAR_LAW)):
            for n in (n for n in STEPS[size] if sampler != DEAR or n <= DEAR_UP_TO):
                found += _of_grids(case, sampler, n, () if sampler == DEAR else METHODS[size])
    return found


def _of_grids(case, sampler, n, methods):
    """The rows of all grids of n steps."""
    cost = information.step_cost(sampler, case.planned)
    planned = lambda grid: float(np.sum(cost(grid[:-1], grid[1:])))
    made = {name: _timed(lambda make=make: make(HORIZON, case.early_stop, n)) for name, make in NAMED.items()}
    starts = [grid for grid, _ in made.values()]
    planned(starts[0])  # a curve is tabulated when it is first asked for
    options = {"n_candidates": DEAR_CANDIDATES, "polish": False} if sampler == DEAR else {}
    made[OPTIMAL] = _timed(lambda: grids.optimal(cost, HORIZON, case.early_stop, n, **options))
    best, more = planned(made[OPTIMAL][0]), {}
    for method in methods:
        table, constant = _table(case.planned, case.early_stop)
        ends, seconds, compiling = descent.descended(sampler, method, starts, table, constant)
        reached = [planned(end) for end in ends]
        made[method] = ends[int(np.argmin(reached))], seconds
        more[method] = {"starts": len(starts), "stuck": sum(one > best * (1 + STUCK) for one in reached)}
        more[method] |= {"worst_of_optimal": max(reached) / best, "compile_seconds": compiling}
    judged = {
        name: information.path_kl(sampler, case.judged, grid, matched=case.planned) for name, (grid, _) in made.items()
    }
    named = min(judged[name] for name in NAMED)
    found = []
    for name, (grid, seconds) in made.items():
        row = {"part": "20 steps" if n == 20 else "other", "law": case.name, "sampler": sampler, "grid": name, "N": n}
        row |= {"path_kl": judged[name], "times_named": judged[name] / named, "of_optimal": planned(grid) / best}
        row["standard_error"] = information.path_kl_error(sampler, case.judged, grid, matched=case.planned)
        row |= (case.measured(sampler, grid) if name not in methods else {}) | more.get(name, {})
        found.append(_rounded(row | {"seconds": seconds}))
    return found


@functools.lru_cache(maxsize=1)
def _table(curve, early_stop):
    """What descent needs: the curve's table, and (1/2) int L dsnr between the ends."""
    return descent.table_of(curve, HORIZON, early_stop), information.information_gain(curve, HORIZON, early_stop)


def _timed(make):
    began = time.perf_counter()
    return make(), time.perf_counter() - began


def _rounded(row):
    digits = {"of_optimal": 12, "worst_of_optimal": 12}
    return {k: float(f"{v:.{digits.get(k, 7)}g}") if isinstance(v, float) else v for k, v in row.items()}


def groups(rows):
    """{(law, sampler, N): {grid: row}}."""
    found = {}
    for row in rows:
        found.setdefault((row["law"], row["sampler"], row["N"]), {})[row["grid"]] = row
    return found


def rankings(rows, measure):
    """{group: (Spearman's rank correlation with path KL, whether the grid of least path KL is least by the measure)}.

    What is below the floor is raised to it, so that grids tie there; groups in which all do are left out.
    """
    found = {}
    for key, group in groups(rows).items():
        pairs = [(row["path_kl"], max(row[measure], row.get("floor", 0))) for row in group.values() if measure in row]
        path, end = np.array(pairs).reshape(-1, 2).T
        if len(pairs) > 2 and np.ptp(end) > 0:
            winner = end[np.argmin(path)] <= end.min()
            found[key] = float(spearmanr(path, end).statistic), bool(winner)
    return found


def verdict(rows):
    """What optimal grids save, whether descent finds them, whether the end points agree with the path KL."""
    gains, winners = {}, collections.Counter()
    for (_, sampler, _), group in groups(rows).items():
        gains.setdefault(sampler, []).append(group[OPTIMAL]["times_named"])
        winners[min(NAMED, key=lambda name, group=group: group[name]["path_kl"])] += 1
    saved = [f"{label_of(sampler)} {min(of):.3f} to {max(of):.3f}" for sampler, of in gains.items()]
    (name, times), *_ = winners.most_common(1)
    parts = [
        f"Path KL of the optimal grid, times that of the best named one ({name} in {times} of {winners.total()} "
        f"cases): {', '.join(saved)}.",
        f"Descent: {'; '.join(filter(None, (_of_descent(rows, method) for method in descent.STEPS)))}.",
        f"Spearman's rank correlation with path KL over grids: {'; '.join(filter(None, _of_ends(rows)))}.",
    ]
    return " ".join(parts)


def _of_descent(rows, method):
    pairs = [(group[method], group[OPTIMAL]) for group in groups(rows).values() if method in group]
    if not pairs:
        return None
    of_optimal, worst = ([one[column] for one, _ in pairs] for column in ("of_optimal", "worst_of_optimal"))
    starts, stuck = (sum(one[column] for one, _ in pairs) for column in ("starts", "stuck"))
    seconds = np.median([one["seconds"] / best["seconds"] for one, best in pairs])
    return (
        f"{method}, best of {pairs[0][0]['starts']} starts, is more than {STUCK:.1%} above the optimal grid in "
        f"{sum(one > 1 + STUCK for one in of_optimal)} of {len(pairs)} cases ({min(of_optimal) - 1:+.1e} to "
        f"{max(of_optimal) - 1:+.1e}), single starts in {stuck} of {starts} (worst {max(worst):.3g} times), and takes "
        f"{seconds:.2g} times as long, compilation apart"
    )


def _of_ends(rows):
    for measure, words in (("marginal_kl", "KL of the end points"), ("sliced_w2", "sliced W2")):
        ranked = rankings(rows, measure)
        if ranked:
            rank, won = np.array(list(ranked.values())).T
            yield (
                f"{words} {np.median(rank):.2f} in the median ({rank.min():.2f} to {rank.max():.2f}), the grid of "
                f"least path KL has the least of it in {int(won.sum())} of {len(won)} cases"
            )


def draw(rows, path):
    """Path KL against N on the ring and the digits; what end points say against path KL."""
    figure = plots.canvas(12, 4.9)
    *lines, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.1))
    for ax, law in zip(lines, (DEAR_LAW, DIGITS), strict=True):
        _against_steps(ax, rows, law)
    for index, law in enumerate(dict.fromkeys(row["law"] for row in rows)):
        look = {"color": figures.COLOURS[index], "marker": figures.MARKERS[index], "ls": "", "ms": 4, "mew": 0.8}
        for measure, words in (("marginal_kl", "KL"), ("sliced_w2", "sliced W2")):
            points = _relative([row for row in rows if row["law"] == law], measure)
            if points:
                right.plot(*np.transpose(points), fillstyle="none", label=f"{law}: {words}", **look)
    figures.powers(right)
    ends = np.array(right.get_xlim())
    right.plot(ends, ends, "--", color="black", lw=1.2, label="in proportion")
    right.set(xlabel="path KL, times the least grid's", ylabel="KL of end points or sliced W2, times the least")
    right.set_title("end points (above their floor), by law, sampler, N", fontsize=10)
    labelled = dict(zip(*reversed(lines[0].get_legend_handles_labels()), strict=True))
    figure.legend(labelled.values(), labelled, frameon=False, fontsize=8, loc="outside lower left", ncols=5)
    figure.legend(*right.get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside lower right", ncols=2)
    return plots.saved(figure, path)


def _against_steps(ax, rows, law):
    shown = [row for row in rows if row["law"] == law and row["sampler"] == "ancestral"]
    for index, name in enumerate((*NAMED, OPTIMAL)):
        figures.line(ax, {row["N"]: row["path_kl"] for row in shown if row["grid"] == name}, name, index)
    best = {row["N"]: row["path_kl"] for row in shown if row["grid"] == OPTIMAL}
    last = max(best)
    figures.line(ax, {n: best[last] * last / n for n in best}, "1/N", None)
    dear = {
        row["N"]: row["path_kl"]
        for row in rows
        if row["law"] == law and row["sampler"] == DEAR and row["grid"] == OPTIMAL
    }
    if dear:
        figures.line(ax, dear, "optimal, covariance matched", 7)
        last = max(dear)
        ax.plot(list(dear), [dear[last] * (last / n) ** 2 for n in dear], "k:", lw=1.6, label="1/N²")
    figures.powers(ax, sorted(best))
    ax.set(xlabel="steps N", ylabel="path KL, nats")
    ax.set_title("digits, ancestral: excess on test rows" if law == DIGITS else f"{law}, ancestral", fontsize=10)


def _relative(rows, measure):
    """(path KL, measure) of the grids above the floor, each over the least in its group, or over the floor."""
    points = []
    for group in groups(rows).values():
        own = [row for row in group.values() if measure in row]
        least_path = min((row["path_kl"] for row in own), default=None)
        least = max(min((row[measure] for row in own), default=0), own[0].get("floor", 0) if own else 0)
        points += [(row["path_kl"] / least_path, row[measure] / least) for row in own if row[measure] >= least]
    return points


COLUMNS = ("law", "sampler", "grid", "N", "path_kl", "standard_error", "times_named", "of_optimal", "worst_of_optimal")
MORE = ("stuck", "marginal_kl", "sliced_w2", "floor", "seconds", "compile_seconds")
STUDY = studies.Study(NAME, QUESTION, rows, (*COLUMNS, *MORE), verdict, draw, ("other",))

if __name__ == "__main__":
    studies.main(STUDY)
