"""The tables of `work_precision`: errors averaged over laws, the best pair of kernel and grid, the best peer."""

import numpy as np

from benchmarks.oracles.flat_gaussian import FLAT
from jaxdiff import tables

FITTED = "fitted"
PEERS = [(name, grid) for name in ("ddim", "heun", "dpm_solver 2", "unipc 2") for grid in ("karras", "log_snr")]
BEATS_BY, BEATS_ON, BEATS_FROM = 2, 4, 8


def over_laws(rows, kind, metric):
    """{(kernel, grid): {evals: geometric mean over the laws}} of those measured on all laws."""
    laws = {one["law"] for one in rows if one["kind"] == kind and metric in one}
    values = {}
    for one in rows:
        if one["kind"] == kind and metric in one:
            for evals, value in zip(one["evals"], one[metric], strict=True):
                of_evals = values.setdefault((one["kernel"], one["grid"]), {})
                of_evals.setdefault(evals, []).append(np.inf if value is None else value)
    return {
        pair: {evals: geometric_mean(all_) for evals, all_ in of_evals.items() if len(all_) == len(laws)}
        for pair, of_evals in values.items()
    }


def geometric_mean(values):
    with np.errstate(divide="ignore"):
        return float(np.exp(np.mean(np.log(np.maximum(values, 0)))))


def best(table, evals, allowed=lambda kernel, grid: True):
    """The least (value, kernel, grid) at a number of evaluations; None if nothing was measured there."""
    found = [(of[evals], *pair) for pair, of in table.items() if evals in of and allowed(*pair)]
    return min(found, default=None)


def named(kernel, grid):
    return grid != FITTED


def fitted(kernel, grid):
    return grid == FITTED


def knows_no_law(kernel, grid):
    """Whether a kernel is not exact on every Gaussian."""
    return kernel not in ("moment_matched per direction", "covariance_matched")


def duels(rows, budgets):
    """A row for every law and budget: the best peer, our best pair, and the ratio of their errors."""
    found = []
    for law in dict.fromkeys(one["law"] for one in rows if one["kind"] == "ODE"):
        table = over_laws([one for one in rows if one["law"] == law], "ODE", "error")
        for budget in budgets:
            theirs = best(table, budget, lambda *pair: pair in PEERS)
            ours, unfitted = best(table, budget), best(table, budget, named)
            if theirs and ours:
                found.append(
                    {
                        "law": law,
                        "evals": budget,
                        "peer": " on ".join(theirs[1:]),
                        "its_error": theirs[0],
                        "jaxdiff": " on ".join(ours[1:]),
                        "error": ours[0],
                        "times_less": theirs[0] / ours[0],
                        "without_fitting": theirs[0] / unfitted[0],
                    }
                )
    return found


def per_kernel(table, budgets, allowed=named):
    """A row for every kernel: its value on the best grid, by number of evaluations."""
    rows = []
    for kernel in dict.fromkeys(kernel for kernel, _ in table):
        found = {b: best(table, b, lambda k, grid, kernel=kernel: k == kernel and allowed(k, grid)) for b in budgets}
        if any(found.values()):
            rows.append({"kernel": kernel} | {str(b): one[0] for b, one in found.items() if one})
    return rows


def reaching_the_floor(rows):
    """A row for every kernel with noise: the fewest evaluations from which on it stays within the floor."""
    floors = {one["law"]: one for one in rows if one["kind"] == "floor"}
    fewest = {}
    for one in rows:
        if one["kind"] == "SDE" and one["law"] in floors:
            floor, evals = floors[one["law"]], None
            found = list(zip(one["evals"], one["energy"], one["sliced_w2"], strict=True))
            for budget, energy, sliced in reversed(found):
                if energy is None or energy > floor["energy"][0] or sliced > floor["sliced_w2"][0]:
                    break
                evals = budget
            of_kernel = fewest.setdefault(one["kernel"], dict.fromkeys(floors))
            of_kernel[one["law"]] = min((b for b in (evals, of_kernel[one["law"]]) if b), default=None)
    return [{"kernel": kernel} | of_law for kernel, of_law in fewest.items()]


def recommendations(rows, budgets):
    """A row for every number of evaluations: the best kernel and grid."""
    ode, kl, found = over_laws(rows, "ODE", "error"), over_laws(rows, "SDE", "kl"), []
    for budget in budgets:
        choices = best(ode, budget, named), best(ode, budget, fitted), best(kl, budget, knows_no_law)
        found.append({"evals": budget})
        for column, choice in zip(CHOICES, choices, strict=True):
            if choice:
                value, kernel, grid = choice
                found[-1][column] = f"`{kernel}`{'' if grid == FITTED else f', {grid}'}: {value:.2g}"
    return found


CHOICES = ("ODE, median error", "ODE, grid fitted", "SDE, KL on the flat Gaussian")


def report(rows, budgets):
    """The tables, as text."""
    columns, ode, kl = ["kernel", *map(str, budgets)], over_laws(rows, "ODE", "error"), over_laws(rows, "SDE", "kl")
    mixtures = over_laws([one for one in rows if one["law"] != FLAT], "ODE", "error")
    contests = ("law", "evals", "peer", "its_error", "jaxdiff", "error", "times_less", "without_fitting")
    laws = [one["law"] for one in rows if one["kind"] == "floor"]
    parts = [
        ("ODE: median error, geometric mean over the laws, best named grid", per_kernel(ode, budgets), columns),
        ("The same, on fitted grids, from starts they have not seen", per_kernel(ode, budgets, fitted), columns),
        ("The same, fitted, on the mixtures alone", per_kernel(mixtures, budgets, fitted), columns),
        ("SDE: KL on the flat Gaussian, nats, best grid", per_kernel(kl, budgets), columns),
        ("SDE: evaluations until samples are within the floor", reaching_the_floor(rows), ["kernel", *laws]),
        (
            "ODE: the best pair against the best peer on Karras' or the log-snr grid",
            duels(rows, [b for b in budgets if b >= BEATS_FROM]),
            contests,
        ),
        ("Which kernel for which budget", recommendations(rows, budgets), ["evals", *CHOICES]),
    ]
    return "\n\n".join(f"## {title}\n\n{tables.table(table, columns)}" for title, table, columns in parts if table)
