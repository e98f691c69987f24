"""Which grid of N steps is best for which sampler, and does a better path KL make better samples?

The grids are Benton's, uniform, Karras', cosine, log-snr and geometric ones, the optimal one (shortest path, then
Newton), and grids by gradient descent (samplers/grid_descent.py: Adam, L-BFGS) from each of the six named ones, from
T = 5 to delta = 1e-3. The laws are six with exact scores (laws/mixtures.py), and a network trained on the digits
(delta = 2e-3). The network's grids are made for its loss on held-out rows, and its path KL is the excess on test rows.

The path KL is exact, up to the standard error of a Monte Carlo curve. The samples are judged by the KL of the end
points where the output is Gaussian (rank 8), and elsewhere by sliced W2 with the same draws for every grid. The floor
of sliced W2 is the largest of four exact samples', or that of the train rows against the test rows. Covariance
matching, whose steps cost a log det, runs on the ring alone, with an optimal grid among 241 candidates.
"""

import collections
import functools
import time

import numpy as np
from scipy.stats import spearmanr

from benchmarks.harness import drawing, studies
from benchmarks.laws.mixtures import LAWS
from benchmarks.oracles.flat_gaussian import FLAT
from benchmarks.oracles.planned_cases import DIGITS, HORIZON, digits, flat, mixture
from benchmarks.samplers import grid_descent as descent
from jaxdiff import grids, information, plots
from jaxdiff.app.samplers import label_of

NAME = "schedules"
QUESTION = "Which grid of N steps is best for which sampler, and does a better path KL make better samples?"
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
COVARIANCE, COVARIANCE_LAW, COVARIANCE_CANDIDATES, COVARIANCE_UP_TO = "covariance_matched", "ring of 8", 241, 50
STEPS = {"quick": (5, 20, 50), "full": (5, 10, 20, 50, 100, 200)}
METHODS = {"quick": ("adam",), "full": ("adam", "l-bfgs")}
STUCK = 1e-3  # above the optimum, relatively


def rows(quick, repeats):
    """A row for every law, sampler, number of steps and grid."""
    size = "quick" if quick else "full"
    laws = [COVARIANCE_LAW, FLAT] if quick else list(LAWS)
    cases = [*(functools.partial(flat if name == FLAT else functools.partial(mixture, name), size) for name in laws)]
    found = []
    for case in (make() for make in (*cases, functools.partial(digits, size))):
        for sampler in (*SAMPLERS, *(COVARIANCE,) * (case.name == COVARIANCE_LAW)):
            for n in (n for n in STEPS[size] if sampler != COVARIANCE or n <= COVARIANCE_UP_TO):
                found += _of_grids(case, sampler, n, () if sampler == COVARIANCE else METHODS[size])
    return found


def _of_grids(case, sampler, n, methods):
    """The rows of all grids of n steps."""
    cost = information.step_cost(sampler, case.planned)
    planned = lambda grid: float(np.sum(cost(grid[:-1], grid[1:])))
    made = {name: _timed(lambda make=make: make(HORIZON, case.early_stop, n)) for name, make in NAMED.items()}
    starts = [grid for grid, _ in made.values()]
    planned(starts[0])  # a curve is tabulated when it is first asked for
    options = {"n_candidates": COVARIANCE_CANDIDATES, "polish": False} if sampler == COVARIANCE else {}
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
    """What gradient descent needs: the curve's table, and (1/2) int L dsnr between the ends."""
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
    """{group: (Spearman's rank correlation with path KL, whether the grid of least path KL is best by the measure)}.

    Values below the floor are raised to it, so that such grids tie. Groups in which all grids tie are left out.
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
    """What optimal grids save, whether descent finds them, and whether end points agree with the path KL."""
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
    """Path KL against N on the ring and the digits, and the measure of the end points against path KL."""
    figure = plots.canvas(12, 4.9)
    *lines, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.1))
    for ax, law in zip(lines, (COVARIANCE_LAW, DIGITS), strict=True):
        _against_steps(ax, rows, law)
    for index, law in enumerate(dict.fromkeys(row["law"] for row in rows)):
        look = {"color": drawing.COLOURS[index], "marker": drawing.MARKERS[index], "ls": "", "ms": 4, "mew": 0.8}
        for measure, words in (("marginal_kl", "KL"), ("sliced_w2", "sliced W2")):
            points = _relative([row for row in rows if row["law"] == law], measure)
            if points:
                right.plot(*np.transpose(points), fillstyle="none", label=f"{law}: {words}", **look)
    drawing.powers(right)
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
        drawing.line(ax, {row["N"]: row["path_kl"] for row in shown if row["grid"] == name}, name, index)
    best = {row["N"]: row["path_kl"] for row in shown if row["grid"] == OPTIMAL}
    last = max(best)
    drawing.line(ax, {n: best[last] * last / n for n in best}, "1/N", None)
    covariance = {
        row["N"]: row["path_kl"]
        for row in rows
        if row["law"] == law and row["sampler"] == COVARIANCE and row["grid"] == OPTIMAL
    }
    if covariance:
        drawing.line(ax, covariance, "optimal, covariance matched", 7)
        last = max(covariance)
        ax.plot(list(covariance), [covariance[last] * (last / n) ** 2 for n in covariance], "k:", lw=1.6, label="1/N²")
    drawing.powers(ax, sorted(best))
    ax.set(xlabel="steps N", ylabel="path KL, nats")
    ax.set_title("digits, ancestral: excess on test rows" if law == DIGITS else f"{law}, ancestral", fontsize=10)


def _relative(rows, measure):
    """The path KL over the least one, and the measure over its least value or the floor, of grids above the floor."""
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
