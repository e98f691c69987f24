"""Which grid of N steps is best for which sampler, and does a better path KL make better samples?

Benton's, uniform, Karras', cosine, log-snr and geometric grids, the optimal one (shortest path, then Newton), and grids
by gradient descent (descent.py: Adam, L-BFGS) from each of the six named ones; T = 5 to delta = 1e-3. Six laws with
exact scores (laws.py) and a network trained on the digits, whose grids are made for its loss on held-out rows and whose
path KL is the excess on test rows. Path KL is exact, up to the standard error of a curve known by Monte Carlo. Beside
it, the KL of the end points where the output is Gaussian (rank 8), or sliced W2 of samples, the same draws for every
grid, and its floor: the largest of four exact samples', or that of train rows against test rows. Covariance matching,
whose step costs a log det, on the ring alone, its optimal grid among 241 candidates.
"""

import functools
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import spearmanr

from benchmarks import descent, figures, studies
from benchmarks.laws import LAWS
from benchmarks.work_precision import FLAT, Spectrum, fresh, run
from jaxdiff import grids, information, kernels, metrics, plots, sample
from jaxdiff.processes import forward
from jaxdiff.types import Curve

NAME = "schedules"
QUESTION = "Which grid of N steps is best for which sampler, and does a better path KL make better samples?"
HORIZON, EARLY_STOP = 5.0, 1e-3
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
PARTICLES, PROJECTIONS, FLOORS = {"quick": 1024, "full": 4096}, 128, 4
TRAINING = {"quick": 400, "full": 4000}
STUCK = 1e-3  # above the optimum, relatively


class Case(NamedTuple):
    """A law or a model: the curve its grids are made for, the one they are judged by, how far samples are from data."""

    name: str
    planned: Curve
    judged: Curve
    measured: Callable  # (sampler, grid) -> columns


def flat(size):
    """The flat Gaussian: exact KL of the end points."""
    spectrum = Spectrum.of_flat()
    curve = LAWS[FLAT]().mmse
    return Case(FLAT, curve, curve, lambda sampler, grid: {"marginal_kl": spectrum.kl(spectrum.kernel(sampler), grid)})


def mixture(name, size):
    """A mixture: sliced W2 of samples to exact ones."""
    law, n = LAWS[name](), PARTICLES[size]
    key_exact, key_start, key_run, key_sliced = jax.random.split(jax.random.key(0), 4)
    exact, *others = (
        np.asarray(forward(law.sample(key, n), EARLY_STOP, jax.random.normal(key, (n, law.dim))))
        for key in jax.random.split(key_exact, 1 + FLOORS)
    )
    distance = lambda x: metrics.sliced_w2(x, exact, key_sliced, n_projections=PROJECTIONS).value
    floor = max(map(distance, others))
    start = jax.random.normal(key_start, exact.shape)

    def measured(sampler, grid):
        if len(grid) - 1 not in SAMPLED[size]:
            return {}
        matched = (law.mmse,) if sampler == "moment_matched" else ()
        x = run(getattr(kernels, sampler)(law.score, *matched), grid, start, key=key_run, draw=fresh)
        return {"sliced_w2": distance(np.asarray(x)), "floor": floor}

    return Case(name, law.mmse, law.mmse, measured)


def digits(size):
    """A network trained on the digits: sliced W2 of as many samples as there are train rows to the test rows."""
    from jaxdiff import data, runs, train
    from jaxdiff.comparison import Subject
    from jaxdiff.scores import denoiser_of

    dataset = data.load("digits")
    network = runs.build(dataset, {"width": 256, "depth": 3, "dropout": 0.1, "seed": 0})
    options = {"horizon": HORIZON, "early_stop": EARLY_STOP}
    key, key_start, key_run, key_sliced = jax.random.split(jax.random.key(0), 4)
    fitted = train.fit(network, dataset.train, key, steps=TRAINING[size], held_out=dataset.held_out, **options)
    denoiser = denoiser_of(fitted.network)
    planned, judged = (
        information.loss_curve(denoiser, rows, key, **options) for rows in (dataset.held_out, dataset.test)
    )
    subject = Subject(denoiser, planned, judged, dataset.train, dataset.test, HORIZON, EARLY_STOP)
    distance = lambda x: metrics.sliced_w2(x, dataset.test, key_sliced, n_projections=PROJECTIONS).value
    start = jax.random.normal(key_start, dataset.train.shape, jnp.float32)
    floor = distance(forward(jnp.asarray(dataset.train), EARLY_STOP, start))

    def measured(sampler, grid):
        if len(grid) - 1 not in SAMPLED[size]:
            return {}
        return {"sliced_w2": distance(sample(subject.kernel(sampler), start, grid, key_run)), "floor": floor}

    return Case(DIGITS, planned, judged, measured)


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
    made = {name: _timed(lambda make=make: make(HORIZON, EARLY_STOP, n)) for name, make in NAMED.items()}
    starts = [grid for grid, _ in made.values()]
    planned(starts[0])  # a curve is tabulated when it is first asked for
    options = {"n_candidates": DEAR_CANDIDATES, "polish": False} if sampler == DEAR else {}
    made[OPTIMAL] = _timed(lambda: grids.optimal(cost, n, HORIZON, EARLY_STOP, **options))
    best, more = planned(made[OPTIMAL][0]), {}
    for method in methods:
        table, constant = _table(case.planned)
        ends, seconds, compiling = descent.descended(sampler, method, starts, table, constant)
        reached = [planned(end) for end in ends]
        made[method] = ends[int(np.argmin(reached))], seconds
        more[method] = {"starts": len(starts), "stuck": sum(one > best * (1 + STUCK) for one in reached)}
        more[method] |= {"worst_of_optimal": max(reached) / best, "compile_seconds": compiling}
    judged = {
        name: information.path_kl(sampler, grid, case.judged, matched=case.planned) for name, (grid, _) in made.items()
    }
    named = min(judged[name] for name in NAMED)
    found = []
    for name, (grid, seconds) in made.items():
        row = {"part": "20 steps" if n == 20 else "other", "law": case.name, "sampler": sampler, "grid": name, "N": n}
        row |= {"path_kl": judged[name], "times_named": judged[name] / named, "of_optimal": planned(grid) / best}
        row["standard_error"] = information.path_kl_error(sampler, grid, case.judged, matched=case.planned)
        row |= (case.measured(sampler, grid) if name not in methods else {}) | more.get(name, {})
        found.append(_rounded(row | {"seconds": seconds}))
    return found


@functools.lru_cache(maxsize=1)
def _table(curve):
    """What descends: the curve's table, and (1/2) int L dsnr between the ends."""
    return descent.table_of(curve, HORIZON, EARLY_STOP), information.information_gain(curve, HORIZON, EARLY_STOP)


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
    """For each group in which grids differ by the measure: Spearman's rank correlation with path KL, same winner."""
    found = {}
    for key, group in groups(rows).items():
        pairs = [(row["path_kl"], max(row[measure], row.get("floor", 0))) for row in group.values() if measure in row]
        path, end = np.array(pairs).reshape(-1, 2).T
        if len(pairs) > 2 and np.ptp(end) > 0:  # below the floor samples do not differ
            winner = end[np.argmin(path)] <= end.min()
            found[key] = float(spearmanr(path, end).statistic), bool(winner)
    return found


def verdict(rows):
    """What optimal grids save, whether descent finds them, whether the end points agree with the path KL."""
    gains = {}
    for (_, sampler, _), group in groups(rows).items():
        gains.setdefault(sampler, []).append(group[OPTIMAL]["times_named"])
    saved = [f"{sampler.replace('_', ' ')} {min(of):.2g} to {max(of):.2g}" for sampler, of in gains.items()]
    said = f"Path KL of the optimal grid, times the best named grid's: {', '.join(saved)}. {_of_descent(rows)}"
    for measure, words in (("marginal_kl", "the end point's KL"), ("sliced_w2", "sliced W2")):
        ranked = rankings(rows, measure)
        if ranked:
            rank = np.array([correlation for correlation, _ in ranked.values()])
            said += (
                f" Rank correlation of path KL with {words} over grids: median {np.median(rank):.2f}, "
                f"{rank.min():.2f} to {rank.max():.2f}; the least path KL has the least {words.split()[-1]} in "
                f"{sum(won for _, won in ranked.values())} of {len(ranked)} cases."
            )
    return said


def _of_descent(rows):
    said = []
    for method in descent.STEPS:
        pairs = [(group[method], group[OPTIMAL]) for group in groups(rows).values() if method in group]
        if pairs:
            ratio = [descended["of_optimal"] for descended, _ in pairs]
            lost, stuck = sum(one > 1 + STUCK for one in ratio), sum(one["stuck"] for one, _ in pairs)
            time_of = np.median([one["seconds"] / best["seconds"] for one, best in pairs])
            said.append(
                f"{method} from {pairs[0][0]['starts']} starts misses the optimum by more than {STUCK:.1%} in {lost} "
                f"of {len(pairs)} cases ({min(ratio) - 1:+.1e} to {max(ratio) - 1:+.1e}), single starts in {stuck} of "
                f"{sum(one['starts'] for one, _ in pairs)} (worst {max(one['worst_of_optimal'] for one, _ in pairs):.3g}"
                f" times), in {time_of:.2g} times its seconds, compilation apart"
            )
    return "; ".join(said) + "."


def draw(rows, path):
    """Path KL against N on the ring and the digits; what end points say against path KL."""
    figure = plots.canvas(11, 4.6)
    left, middle, right = figure.subplots(1, 3)
    for ax, law in ((left, DEAR_LAW), (middle, DIGITS)):
        _against_steps(ax, rows, law)
    names = list(dict.fromkeys(row["law"] for row in rows))
    for index, law in enumerate(names):
        own = [row for row in rows if row["law"] == law]
        for measure, style in (("marginal_kl", "full"), ("sliced_w2", "none")):
            points = _relative(own, measure)
            look = {"color": figures.COLOURS[index], "marker": figures.MARKERS[index], "fillstyle": style}
            if points:
                label = f"{law} ({'KL' if measure == 'marginal_kl' else 'W2'})"
                right.plot(*np.transpose(points), ls="", ms=4, label=label, **look)
    figures.powers(right)
    ends = np.array(right.get_xlim())
    right.plot(ends, ends, "k--", lw=1, label="in proportion")
    right.set(xlabel="path KL, times the least", ylabel="KL of the end point or sliced W2, times the least")
    right.set_title("six grids and the optimal one,\nby law, sampler and N", fontsize=10)
    for ax in (left, middle, right):
        ax.legend(frameon=False, fontsize=7)
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
    ax.set(xlabel="steps N", ylabel="path KL, nats" if law != DIGITS else "excess of path KL on test rows, nats")
    ax.set_title(f"{law}, ancestral", fontsize=10)


def _relative(rows, measure):
    """(path KL, measure), each by its least in the group, of grids above the floor."""
    points = []
    for group in groups(rows).values():
        own = [row for row in group.values() if measure in row]
        above = [row for row in own if row[measure] > row.get("floor", 0)]
        points += [
            (row["path_kl"] / min(one["path_kl"] for one in own), row[measure] / min(one[measure] for one in own))
            for row in above
        ]
    return points


COLUMNS = ("law", "sampler", "grid", "N", "path_kl", "standard_error", "times_named", "of_optimal", "worst_of_optimal")
MORE = ("stuck", "marginal_kl", "sliced_w2", "floor", "seconds", "compile_seconds")
STUDY = studies.Study(NAME, QUESTION, rows, (*COLUMNS, *MORE), verdict, draw, ("other",))

if __name__ == "__main__":
    studies.main(STUDY)
