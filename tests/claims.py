"""Numbers that README.md states about the studies, computed from the rows of their records.

One function a study: {what is meant: a number or several}. The numbers in a record's verdict are added in `stated_by`.
"""

import functools
import re

import numpy as np
from sklearn.datasets import load_digits

from benchmarks import corrector, dimension_sweep, planning, schedules, t1_t2_tradeoff, work_precision
from benchmarks.harness import places, records
from benchmarks.laws.by_dimension import COINS, FIXED_RANK, FLAT_MIXTURE
from benchmarks.laws.mixtures import RANK
from benchmarks.oracles import steps_needed
from benchmarks.oracles import work_precision_tables as tables
from benchmarks.oracles.flat_gaussian import FLAT
from benchmarks.samplers.padded_tables import BUDGETS

WHOLE, POWER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)", r"10\^[0-9]+"
NUMBER = re.compile(
    rf"(?<![\w.^])(?:{POWER}|{WHOLE}(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?(?: million)?)(?![0-9A-Za-z])"  # in no name, as 2M
)


@functools.cache
def record(name):
    """The record of a benchmark."""
    return records.read(places.RESULTS / f"{name}-cpu.json")


def ends(values):
    """Least and greatest."""
    values = list(values)
    return min(values), max(values)


def of_dimension_sweep(rows):
    """Exponents in d, and steps at d = 16,384."""
    fits = [row for row in rows if row["part"].startswith("exponent")]
    euler = [row for row in fits if row["sampler"] == steps_needed.WORST]
    flat = lambda kernel: [row for row in fits if row["law"] in FIXED_RANK and row["sampler"].startswith(kernel)]
    moment, last = flat("moment matched"), dimension_sweep.DIMS[-1]
    drawn = lambda law, d: {row["sampler"]: row for row in dimension_sweep.drawn(rows, law) if row["dim"] == d}
    coins, bumps, few = drawn(COINS, last), drawn(FLAT_MIXTURE, last), drawn(FLAT_MIXTURE, dimension_sweep.FITTED)
    worst = coins[steps_needed.WORST]["real"]
    kernels = ("ancestral", "moment matched", "covariance matched")
    alone = [coins[f"{kernel}, Benton"]["real"] / coins[f"{kernel}, optimal"]["real"] for kernel in kernels]
    return {
        "exponents of exponential Euler": ends(row["exponent"] for row in euler),
        "exponents of moment matching, all d and large d": (
            *ends(row["exponent"] for row in moment),
            *ends(row["late"] for row in moment),
        ),
        "largest exponent of ancestral and covariance matched": max(
            abs(row["exponent"]) for kernel in kernels[::2] for row in flat(kernel)
        ),
        "the setting of the figure": (*dimension_sweep.DRAWN.values(), steps_needed.HORIZON, last, 8),
        "steps on 8 bumps of rank 8": [of["moment matched, optimal"]["steps"] for of in (few, bumps)],
        "times fewer on coins": [worst / coins[f"{kernel}, optimal"]["real"] for kernel in kernels[1:]],
        "times fewer by the grid alone": ends(alone),
        "steps that are computed": steps_needed.MOST["full"],
    }


def of_schedules(rows):
    """Cases in which descent finds the optimal grid."""
    found = {}
    for method in ("adam", "l-bfgs"):
        own = [group[method]["of_optimal"] for group in schedules.groups(rows).values() if method in group]
        found[method] = (sum(one <= 1 + schedules.STUCK for one in own), len(own))
    return found


def of_bound_tightness(rows):
    """How far the bounds are off."""
    bounds = [row for row in rows if row["part"] == "bound"]
    own_grid = [row for row in bounds if row["bound"].startswith("any_grid.geometric")]
    theorem1 = next(row for row in bounds if row["bound"] == "benton2024.theorem1")
    return {
        "closed forms on their own grid": (
            min(row["tightest"] for row in own_grid),
            max(row["loosest"] for row in own_grid),
        ),
        "Theorem 1": (theorem1["tightest"], theorem1["loosest"]),
    }


def of_interval_coverage(rows):
    """Coverage by law."""
    cover = lambda law, name, n=None: [row[name] for row in rows if row["law"] == law and n in (None, row["n"])]
    twice, student, spike = "normal, every row twice", "Student, 3 degrees", "spike of 2 %"
    return {
        "rows and repetitions": sorted({row["n"] for row in rows} | {row["repetitions"] for row in rows}),
        "rows that occur twice": (*ends(cover(twice, "certificate")), min(cover(twice, "student"))),
        "Student's t": (min(cover(student, "certificate")), min(cover(student, "student")), 3),
        "a spike among 24 rows": (*ends(cover(spike, "certificate", 24)), *ends(cover(spike, "student", 24))),
    }


def of_corrector(rows):
    """W2 with and without Langevin at equal evaluations."""
    equal = [row for row in rows if row["part"] == "equal evaluations" and row["law"] == "two bumps"]
    pairs = {}
    for row in equal:
        pairs.setdefault((row["score"], row["budget"]), {})[row["with"]] = row["w2"]
    gains = [100 * (1 - pair[True] / pair[False]) for (score, _), pair in pairs.items() if score == "off by 0.3"]
    horizons = [row for row in rows if row["part"] == "horizons"]
    moved = [row for row in horizons if row["evals_langevin"]]
    steps = [row["langevin_time"] / row["evals_langevin"] / -np.expm1(-2 * row["horizon"]) for row in moved]
    return {
        "16 evaluations": (16, *pairs["exact", 16].values(), *pairs["off by 1 beyond t = 1", 16].values()),
        "percent gained": np.mean(gains),
        "T1": ends({row["horizon"] for row in horizons}),
        "Langevin steps": ends({row["evals_langevin"] for row in horizons}),
        "a step, over 1 - e^-2T1": ends(steps),
        "evaluations of the reversal": horizons[0]["evals_reversal"],
        "early stop, order of UniPC": (corrector.EARLY_STOP, 2),
        "the score's errors": (0.3, 1),
    }


def of_t1_t2_tradeoff(rows):
    """The T1 that is needed, and the best cells."""
    best = t1_t2_tradeoff.best_cells(rows)
    off = best[t1_t2_tradeoff.PRODUCT, None, "off by 0.1 a coordinate"]
    needed = [row for row in rows if row["part"] == "needed"]
    return {
        "T1 above (1/2) log d": ends(row["apart_w2"] - np.log(row["d"]) / 2 for row in needed),
        "laws and evaluations": (len(best) / 2, t1_t2_tradeoff.BUDGET),
        "exact score: laws on which no Langevin is best": sum(
            cell["share"] == 0 for (*_, score), (cell, _) in best.items() if score == "exact"
        ),
        "the best cell with a wrong score": (off[0]["horizon"], off[0]["w2_by_root_d"], off[1]["w2_by_root_d"]),
        "the share of Langevin times 8": 8 * off[0]["share"],
    }


def of_truncation(rows):
    """The push at T1 = 3."""
    pushed = {row["truncated"]: row for row in rows if row["horizon"] == 3 and row["score"] == "pushed out, L2 0.3"}
    networks = [row for row in rows if row["score"].startswith("network")]
    change = [old["w2"] / new["w2"] - 1 for old, new in zip(networks[::2], networks[1::2], strict=True)]
    return {
        "the push": (pushed[False]["l2"], pushed[False]["horizon"]),
        "W2": [row["w2"] for row in pushed.values()],
        "exponential moment": [row["moment"] for row in pushed.values()],
        "percent by which networks change": 100 * max(map(abs, change)),
    }


def of_work_precision(rows):
    """What fitting a grid gains, and the best pair over the best peer."""
    early = (5, 8, 10)
    ode = tables.over_laws(rows, "ODE", "error")
    mixtures = [row for row in rows if row["law"] != FLAT]
    of_law = lambda law: tables.over_laws([row for row in rows if row["law"] == law], "ODE", "error")
    least = lambda table, b, allowed: tables.best(table, b, allowed)[0]
    gain = lambda table: [least(table, b, tables.named) / least(table, b, tables.fitted) for b in early]
    duels = tables.duels(rows, [b for b in BUDGETS if b >= tables.BEATS_FROM])
    third = lambda grid, b: ode["unipc 3", grid][b]
    named = lambda b: tables.best(ode, b, lambda kernel, grid: kernel == "unipc 3" and tables.named(kernel, grid))[0]
    unfitted = [duel["evals"] for duel in duels if duel["without_fitting"] < tables.BEATS_BY]
    best = {b: tables.best(ode, b, tables.named)[1] for b in BUDGETS}
    within = {row.pop("kernel"): list(row.values()) for row in tables.reaching_the_floor(rows)}
    return {
        "gain of a fitted grid": ends(gain(ode)),
        "on the mixtures": ends(gain(tables.over_laws(mixtures, "ODE", "error"))),
        "in d = 16": ends(gain(of_law("8 components, d = 16"))),
        "budgets of these": early,
        "best pair over best peer, mixtures": ends(duel["times_less"] for duel in duels if duel["law"] != FLAT),
        "from so many evaluations": tables.BEATS_FROM,
        "budgets around the last at which fitting decides": (
            max(unfitted),
            min(b for b in BUDGETS if b > max(unfitted)),
        ),
        "unipc 3 on the grid of least path KL, at 20 and 50": [third("optimal", b) / named(b) for b in (20, 50)],
        "at": (20, 50),
        "the setting": (work_precision.HORIZON, work_precision.EARLY_STOP, 16, 64, 256, RANK),
        "evaluations at which exponential_adams is best": [b for b in BUDGETS if best[b].startswith("exponential")],
        "evaluations from which seeds stays within the floor, on most laws": np.median(within["seeds"]),
        "orders of unipc, and the budgets where they change": (
            2,
            3,
            max(b for b in BUDGETS if best[b] == "unipc 2"),
            min(b for b in BUDGETS if best[b] == "unipc 3"),
        ),
    }


def of_planning(rows):
    """How long planning takes, in seconds, and the settings of the cases."""
    found = {row["work"]: (row["seconds"], 1000 * row["seconds"]) for row in rows if "work" in row}
    cases = [(case.horizon, case.early_stop, case.n_steps) for case in planning.cases()]
    named = [value_of(printed) for name in found for printed in numbers_in(name)]
    return found | {"cases": cases, "in the names of the work": named}


def of_step_throughput(rows):
    """How many times a plain scan's speed, and the memory of a run."""
    ours = [row for row in rows if row["method"] == "jaxdiff" and row["score"] != "mlp"]
    memory = [row["temporary_mib"] for row in rows if "temporary_mib" in row]
    bar = next(row["over_run"] for row in rows if "over_run" in row)
    return {
        "times a plain scan, without the network": ends(row["speedup"] for row in ours),
        "MiB": max(memory),
        "coordinates, 2^24": (2, 24),
        "percent of a run that a bar takes, rounded up": np.ceil(100 * (bar - 1)),
        "dimensions in which parts are exceeded": min(row["d"] for row in ours if row["over_parts"] > 1.1),
    }


def of_kernel_throughput(rows):
    """Times for an evaluation over DDIM's: of all kernels with the network, without noise with exact scores."""
    rows = [row for row in rows if row["part"] == "kernel"]
    of = lambda law, kind: ends(
        row["over_ddim"] for row in rows if (row["score"], row["kind"]) == (law, kind) and not row["noises"]
    )
    return {
        "network": ends(row["over_ddim"] for row in rows if row["score"] == "mlp"),
        **{(law, kind): of(law, kind) for law in ("mixture", "gaussian") for kind in ("stages", "multistep")},
        "gaussian, multistep, median": np.median(
            [
                row["over_ddim"]
                for row in rows
                if (row["score"], row["kind"]) == ("gaussian", "multistep") and not row["noises"]
            ]
        ),
    }


def of_digits(rows):
    """The ratio of steps at equal path KL."""
    steps = next(row for row in rows if row["part"] == "steps")
    last = next(row for row in rows if row["part"] == "early stop")
    samplers = [row for row in rows if row["part"] == "sampler"]
    return {
        "steps of exponential Euler": (steps["exponential_euler_steps"], *steps["exponential_euler_steps_interval"]),
        "times fewer": (steps["ratio"], *steps["ratio_interval"]),
        "confidence, percent": 100 * steps["confidence"],
        "steps of the planned sampler": steps["n_steps"],
        "test rows": steps["rows"],
        "evaluations of a sampler": sorted({row["evals"] for row in rows if row["part"] == "quality"}),
        "steps on the page": sorted({row["n_steps"] for row in samplers if "n_steps" in row}),
        "digits": len(load_digits().data),
        "W2 with and without the last step": (last["denoised_w2"], last["noised_w2"]),
    }


BY_STUDY = {name.removeprefix("of_"): function for name, function in dict(globals()).items() if name.startswith("of_")}


def numbers_in(text):
    """The numbers in a text, as they are printed."""
    return NUMBER.findall(text)


def value_of(printed):
    """A printed number as a float."""
    if printed.startswith("10^"):
        return 10.0 ** int(printed[3:])
    number, _, million = printed.partition(" ")
    return float(number.replace(",", "")) * (1e6 if million else 1)


def unit_of(printed):
    """The unit of the last printed digit; zeros at the end of a whole number are no digits."""
    number, _, million = printed.replace(",", "").partition(" ")
    mantissa, _, exponent = number.partition("e")
    whole, _, decimals = mantissa.partition(".")
    zeros = 0 if decimals else len(whole) - len(whole.rstrip("0")) if whole.strip("0") else 0
    return 10.0 ** (zeros - len(decimals) + int(exponent or 0) + 6 * bool(million))


def agrees(printed, value):
    """Whether a printed number is a value, rounded; a power of ten, the value's order of magnitude."""
    value = abs(float(value))
    if printed.startswith("10^"):
        return value > 0 and round(np.log10(value)) == int(printed[3:])
    near = abs(value - value_of(printed)) <= unit_of(printed) / 2 * (1 + 1e-9)
    counted = value.is_integer() and value <= 1e4  # a count is printed as it is
    return near and (value_of(printed) == value or not counted)


@functools.cache
def stated_by(name):
    """All numbers that a record states: those of its verdict, and those that its rows are reduced to."""
    found = record(name)
    said = [value_of(printed) for printed in numbers_in(found["verdict"])]
    reduced = BY_STUDY[name](found["rows"]).values() if name in BY_STUDY else ()
    return tuple(said) + tuple(float(one) for values in reduced for one in np.ravel(np.asarray(values, dtype=float)))
