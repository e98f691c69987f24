"""The report as text: headline, tables of samplers, alternatives of a plan."""

import math

from jaxdiff.app.plots import label
from jaxdiff.app.quality import WORDS
from jaxdiff.app.samplers import label_of, planned_label
from jaxdiff.app.two_samples import MEASURES
from jaxdiff.certificate import BELOW_ZERO, below_zero
from jaxdiff.intervals import with_interval

DISCRETISATION_ALONE = (
    "This compares discretisation alone: both samplers also have the error of the network, which is unknown."
)


def text_table(report):
    """The table for a terminal."""
    rows = [("sampler, grid", "steps", "excess, nats", "sliced W2", "accuracy", "energy", "evals", "seconds")]
    rows += [cells(row) for row in report["rows"]]
    rows.append(("train rows (noise floor)", "", "", *two_sample(report["noise_floor"]), "", ""))
    return _lined_up(rows)


def quality_table(report):
    """The distances of samples from test rows for a terminal: the plan, others, and the floor."""
    rows = [("sampler", "evals", *(WORDS[name] for name in MEASURES))]
    rows += [(row["label"], str(row["evals"]), *two_sample(row)) for row in report["quality"]]
    rows.append(("train rows (noise floor)", "", *two_sample(report["noise_floor"])))
    return _lined_up(rows)


def _lined_up(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    line = lambda row: "  ".join(
        cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
    )
    return "\n".join(line(row) for row in rows)


def headline(report):
    """The ratio of steps at equal excess with its interval; or why the test rows give none, and how many rows would."""
    ratio = report["step_ratio"]
    name, n, confidence = label_of(ratio["sampler"]), ratio["n_steps"], f"{ratio['confidence']:.0%}"
    low, high = ratio["excess_interval"]
    sampler = f"{name} on its planned grid in {n} steps"
    excess = f"{ratio['excess']:.3g} nats" + (f", {confidence} [{low:.3g}, {high:.3g}]" if high > low else "")
    of_planned = f"the excess of path KL of {sampler} ({excess})"
    more = f" About {ratio['rows_needed']:,} test rows would be enough." if ratio["rows_needed"] else ""
    fewest, most = ratio["exponential_euler_steps_interval"]
    match ratio["withheld"]:
        case None:
            return _with_ratio(ratio, name)
        case "none":
            return (
                f"Exponential Euler on Benton's grid does not reach {of_planned} with any number of steps tried. "
                f"{DISCRETISATION_ALONE}"
            )
        case "few":
            return (
                f"{ratio['rows']} test rows are too few to estimate how many steps the planned grid saves: use "
                f"{ratio['rows_needed']:,} or more. On these rows the excess of path KL of {sampler} is {excess}."
            )
        case "zero":
            at_least = (
                "" if fewest is None else f" Exponential Euler on Benton's grid needs at least {fewest:,} steps for it."
            )
            why = f" Below 0: {below_zero(high)}." if ratio["excess"] < 0 else ""
            reason = "may be 0" if high >= 0 else "is below 0, so that numbers of steps cannot be compared by it"
            return f"On these test rows {of_planned} {reason}.{why}{more}{at_least}"
        case "wide":
            between = f"{fewest:,} to {most:,}" if most else f"{fewest:,} or more"
            return (
                f"These test rows are too few to estimate how many steps the planned grid saves: for {of_planned} "
                f"exponential Euler on Benton's grid needs {between} steps ({confidence}).{more}"
            )
    return (
        f"These test rows do not show that the planned grid saves steps: for {of_planned} exponential Euler on "
        f"Benton's grid needs {fewest:,} to {most:,} steps ({confidence})."
    )


def _with_ratio(ratio, name):
    """The headline with a ratio."""
    (low, high), steps = ratio["ratio_interval"], ratio["exponential_euler_steps"]
    fewest, most = ratio["exponential_euler_steps_interval"]
    times, _, interval = with_interval(ratio["ratio"], low, high).partition(" (")
    about, interval = ("About ", f" ({interval[:-1]}, {ratio['confidence']:.0%})") if interval else ("", "")
    caution = ""
    if ratio["heavy_tails"]:
        caution = " The tails of the test rows are heavy: the coverage of the interval may be below its confidence."
    return (
        f"{about}{times} times fewer steps{interval} for the same excess of path KL: on the test rows {name} on its "
        f"planned grid has {with_interval(ratio['excess'], *ratio['excess_interval'])} nats in {ratio['n_steps']} "
        f"steps, exponential Euler on Benton's grid in {with_interval(steps, fewest, most)} steps. "
        f"{DISCRETISATION_ALONE}{caution}"
    )


def cells(row):
    """The cells of a sampler in the table."""
    excess = "not defined" if row["excess"] is None else _plus_minus(row["excess"])
    name = label(row["kernel"], row["grid"])
    return (name, str(row["n_steps"]), excess, *two_sample(row), str(row["evals"]), f"{row['seconds']:.2f}")


def two_sample(row):
    """The two-sample measures of a row, each with its error."""
    return tuple(_plus_minus(row[name]) for name in MEASURES)


def _plus_minus(estimate):
    """Value and standard error, rounded to two digits of the error."""
    error = estimate["standard_error"]
    places = 3 if error == 0 else max(0, 1 - math.floor(math.log10(error)))
    return f"{estimate['value']:.{places}f} ± {error:.{places}f}"


def alternatives(rows):
    """A line for each alternative sampler of a plan, with its path KL and its evaluations."""
    lines = [_alternative(row) for row in rows]
    return lines + ([f"  {BELOW_ZERO}"] if any(row.get("path_kl", 0) < 0 for row in rows) else [])


def _alternative_in_w2(row):
    name = planned_label(row["kernel"], row["options"])
    if row["w2"] is None:
        distance = f"unknown, because its reference does not converge (a halving of its steps gains {row['gain']:.3g})"
    else:
        distance = f"{row['w2']:.4g} from its reference"
    return f"  alternative: {name}, {row['grid']} grid: {distance}, with {row['evals']} evaluations (pilots)"


def _alternative(row):
    if "w2" in row:
        return _alternative_in_w2(row)
    name = row["kernel"] + (" per direction" if row["per_direction"] else "")
    how = f", by bounds.{row['bound']}" if "bound" in row else ""
    error, interval = row.get("standard_error", 0.0), row.get("evals_interval")
    nats = _plus_minus({"value": row["path_kl"], "standard_error": error}) if error > 0 else f"{row['path_kl']:.4g}"
    evals = with_interval(row["evals"], *interval) if interval else str(row["evals"])
    return f"  alternative: {name} on {row['grid']}: {nats} nats with {evals} evaluations{how}"
