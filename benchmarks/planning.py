"""How much path KL does planning save at equal steps, and how long does planning take?

At equal numbers of steps, from T = 5 to delta = 1e-3 (3 to 0.01 for the two points): the path KL of exponential Euler
on Benton's grid, and of the other samplers on their optimal grids. AT_LEAST has the factors that are required. Then the
time of a path KL, of an optimal grid and of a whole plan.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import jaxdiff
from benchmarks.harness import command_line, records
from benchmarks.harness.environment import environment
from benchmarks.harness.timing import interleaved
from jaxdiff import grids, information, tables, targets

NAME = "planning"
QUESTION = "How much path KL does planning save at equal steps, and how long does planning take?"
BENTON = ("exponential_euler", "Benton")
SAMPLERS = ("ancestral", "moment_matched", "moment_matched per direction", "covariance_matched")
FEW_CANDIDATES = 200  # for covariance matching, whose step cost is the slowest

# How many times less path KL than exponential Euler on Benton's grid, by law and sampler.
AT_LEAST = {
    ("N(0, 1)", "ancestral"): 3.6,
    ("N(0, 0.01)", "ancestral"): 60,
    ("8 of variance 1, 56 of 1e-6", "ancestral"): 45,
}
ZERO = 1e-10  # nats: exact on every Gaussian
EXACT = ("moment_matched per direction", "covariance_matched")
AT_MOST_NATS = {("two points", "covariance_matched"): 0.008}
AT_MOST_SECONDS = {"path KL, 1,000 steps": 0.010, "optimal grid, 1,000 candidates, 100 steps": 1.0}


class Case(NamedTuple):
    """A law, the ends of its grids and their number of steps."""

    name: str
    make: Callable[[], Any]
    horizon: float
    early_stop: float
    n_steps: int


def cases():
    """Three Gaussians with diagonal covariance, one with a full covariance, and two points."""
    root = np.random.default_rng(0).standard_normal((16, 16)) / 4
    spiked = np.where(np.arange(64) < 8, 1.0, 1e-6)
    yield Case("N(0, 1)", lambda: targets.gaussian([0.0], [1.0]), 5.0, 1e-3, 50)
    yield Case("N(0, 0.01)", lambda: targets.gaussian([0.0], [0.01]), 5.0, 1e-3, 50)
    yield Case("8 of variance 1, 56 of 1e-6", lambda: targets.gaussian(np.zeros(64), spiked), 5.0, 1e-3, 50)
    yield Case("full covariance, d = 16", lambda: targets.gaussian(np.zeros(16), root @ root.T), 5.0, 1e-3, 50)
    yield Case("two points", lambda: targets.point_masses([[-1.0], [1.0]]), 3.0, 0.01, 20)


def savings(case):
    """A row for every sampler of a case."""
    curve, ends = case.make().mmse, (case.horizon, case.early_stop)
    benton = grids.exponential_then_uniform(*ends, case.n_steps)
    worst = information.path_kl("exponential_euler", curve, benton)
    rows = [_row(case, *BENTON, worst, worst)]
    for sampler in SAMPLERS:
        kernel, _, apart = sampler.partition(" ")
        basis = curve.basis if apart else None
        cost = information.step_cost(kernel, curve, basis=basis)
        few = {"n_candidates": FEW_CANDIDATES} if kernel == "covariance_matched" else {}
        grid = grids.optimal(cost, *ends, case.n_steps, **few)
        kl = max(information.path_kl(kernel, curve, grid, basis=basis), 0.0)  # rounding leaves -1e-15
        rows.append(_row(case, sampler, "optimal", kl, worst))
    return rows


def _row(case, sampler, grid, kl, worst):
    times = worst / kl if kl > ZERO else None
    return {
        "law": case.name,
        "steps": case.n_steps,
        "sampler": sampler,
        "grid": grid,
        "path_kl": kl,
        "times_less": times,
    }


def durations(repeats):
    """A row for every kind of work: medians of interleaved rounds, each computed anew."""
    wide, coin = targets.gaussian(np.zeros(64), np.geomspace(1e-4, 1, 64)), targets.point_masses([[-1.0], [1.0]])
    long = grids.log_snr(5.0, 1e-3, 1000)
    cost = information.step_cost("moment_matched", wide.mmse)
    work = {
        "path KL, 1,000 steps": lambda: information.path_kl("moment_matched", wide.mmse, long),
        "path KL, 1,000 steps, two points": lambda: information.path_kl("moment_matched", coin.mmse, long),
        "optimal grid, 1,000 candidates, 100 steps": lambda: grids.optimal(cost, 5.0, 1e-3, 100),
        "frontier to 100 steps": lambda: grids.frontier(cost, 5.0, 1e-3, 100),
        "plan, known law": lambda: jaxdiff.plan(0.1, target=coin),
        "plan, d = 64 and its second moment": lambda: jaxdiff.plan(0.1, dim=64),
    }
    timings = interleaved(work, repeats)
    return [{"work": name, "seconds": one.median, "spread": one.spread} for name, one in timings.items()]


def verdict(rows, times):
    """The requirements that were missed, in a sentence."""
    by_name = {(row["law"], row["sampler"]): row for row in rows}
    missed = [
        f"{law}, {sampler}: 1/{by_name[law, sampler]['times_less']:.3g} (1/{least} asked)"
        for (law, sampler), least in AT_LEAST.items()
        if (by_name[law, sampler]["times_less"] or np.inf) < least
    ]
    missed += [
        f"{law}, {sampler}: {by_name[law, sampler]['path_kl']:.3g} nats ({most} asked)"
        for (law, sampler), most in AT_MOST_NATS.items()
        if by_name[law, sampler]["path_kl"] > most
    ]
    missed += [
        f"{row['law']}, {row['sampler']}: {row['path_kl']:.3g} nats, not 0"
        for row in rows
        if row["sampler"] in EXACT and row["law"] != "two points" and row["path_kl"] > ZERO
    ]
    seconds = {row["work"]: row["seconds"] for row in times}
    missed += [
        f"{work}: {seconds[work]:.3g} s ({most} asked)"
        for work, most in AT_MOST_SECONDS.items()
        if seconds[work] > most
    ]
    return "Missed: " + "; ".join(missed) + "." if missed else "All figures asked for are reached."


def main(argv=None):
    """Print the two tables and the verdict; write the record."""
    options = command_line.parsed(command_line.parser(QUESTION), argv)
    about = environment()
    print(QUESTION, end="\n\n")
    rows = [row for case in cases() for row in savings(case)]
    times = durations(options.repeats)
    print(tables.table(rows, ("law", "steps", "sampler", "grid", "path_kl", "times_less")), end="\n\n")
    print(tables.table(times, ("work", "seconds", "spread")), end="\n\n")
    said = verdict(rows, times)
    print(said)
    if options.json or not options.quick:
        print(records.write_rows(NAME, [*rows, *times], QUESTION, said, about, options.json))


if __name__ == "__main__":
    main()
