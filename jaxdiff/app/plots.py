"""Figures: samples beside data, the loss curve, the training, grids and the path KL of their steps."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from jaxdiff.app.figures import INK, canvas, saved
from jaxdiff.app.quality import WORDS
from jaxdiff.app.sample_plots import SHOWN, samples
from jaxdiff.app.samplers import PER_DIRECTION, label_of, path_cost_of
from jaxdiff.curves import Curve, MeasuredCurve
from jaxdiff.guarantees.step_cost import step_cost
from jaxdiff.processes import ou

__all__ = ["INK", "SHOWN", "canvas", "grids", "label", "loss_curve", "quality", "samples", "saved", "training"]

COLOURS = {  # of each (kernel, grid) in all figures
    ("exponential_euler", "Benton"): "#b3492d",
    ("ancestral", "Benton"): "#d99a2b",
    ("ancestral", "planned"): "#4f9d69",
    ("moment_matched", "planned"): "#1f4e79",
    (PER_DIRECTION, "planned"): "#8c6bb1",
}
QUALITY_COLOURS = ("#1f4e79", "#8c6bb1", "#4f9d69", "#b3492d", "#333333", "#777777")
PLANNED_COLOUR = "#c2306b"  # of the sampler of a plan in W2
BEYOND = 5.0  # medians; larger distances are above a panel of quality
DECADES = 1e4  # the axis of path KL ends at 1/DECADES of the largest step
MARKED = 100  # nodes: a grid of more is drawn as a line, since its dots would touch


def label(kernel_name: str, grid_name: str) -> str:
    """The name of a sampler in legends and tables."""
    return f"{label_of(kernel_name)}, {grid_name}"


def loss_curve(path: pathlib.Path | str, curve: MeasuredCurve, train_variance: float | int) -> None:
    """Draw the held-out loss L over log snr with its 95 % band, and two bounds that need no network."""
    u = np.linspace(curve.spline.u[0], curve.spline.u[-1], 400)
    snr = np.exp(u)
    loss, error = curve(snr), 1.96 * curve.standard_error(snr)
    figure = canvas(7.2, 4.4)
    ax = figure.subplots()
    ax.fill_between(u, np.maximum(loss - error, 1e-12), loss + error, color="#1f4e79", alpha=0.25, lw=0)
    ax.plot(u, loss, color="#1f4e79", lw=1.8, label=f"held-out loss L, {curve.n} rows, 95 % band")
    ax.plot(u, np.full_like(u, train_variance), color=INK, lw=0.9, ls=":", label="predict the mean: total variance")
    ax.plot(u, curve.dim / snr, color=INK, lw=0.9, ls="--", label="keep the noise: d / snr")
    ax.set(yscale="log", ylim=(loss.min() / 3, 2 * train_variance), xlabel="log snr (data on the right)")
    ax.set_ylabel("E |X$_0$ - D(X$_t$, t)|$^2$, all coordinates")
    top = ax.secondary_xaxis("top", functions=(lambda u: u, lambda u: u))
    times = np.array([5, 2, 1, 0.5, 0.1, 0.02, 0.002])
    times = times[(np.log(ou.snr(times)) >= u[0] - 1e-9) & (np.log(ou.snr(times)) <= u[-1] + 1e-9)]
    top.set_xticks(np.log(ou.snr(times)), [f"{t:g}" for t in times])
    top.set_xlabel("OU time t", fontsize=9)
    ax.legend(frameon=False, fontsize=9, loc="lower left")
    saved(figure, path)


def grids(
    path: pathlib.Path | str, curve: Curve, samplers: Mapping[tuple[str, str], Any], *, of: str = "held-out rows"
) -> None:
    """Draw the grids of {(kernel, grid name): grid}, and the path KL of each of their steps, where it is defined.

    of: the rows that the curve was measured on, for the label.
    """
    figure = canvas(10.4, 4.4)
    left, right = figure.subplots(1, 2)
    drawn, highest = {}, 0.0
    for (kernel_name, grid_name), grid in samplers.items():
        name = "Benton's grid" if grid_name == "Benton" else label(kernel_name, grid_name)
        if name not in drawn:
            drawn[name] = left.plot(
                np.arange(len(grid)),
                grid,
                "o-" if len(grid) <= MARKED else "-",
                ms=3,
                lw=1.2,
                color=COLOURS.get((kernel_name, grid_name), PLANNED_COLOUR),
                label=name,
            )
        if path_cost_of(kernel_name, curve) is None:
            continue
        cost = step_cost(path_cost_of(kernel_name, curve), curve)(grid[:-1], grid[1:])
        # matplotlib draws a stair from edge to edge, so each step of the grid is as wide as its interval of log snr
        right.stairs(cost, np.log(ou.snr(grid)), color=COLOURS[kernel_name, grid_name], lw=1.5, baseline=None,
                     label=f"{label(kernel_name, grid_name)}: {cost.sum():.3g} nats")  # fmt: skip
        highest = max(highest, cost.max())
    left.set(yscale="log", xlabel="step", ylabel="OU time t")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set(yscale="log", xlabel="log snr (data on the right)", ylabel=f"path KL of the step, nats ({of})")
    right.set_ylim(bottom=max(highest, 1e-12) / DECADES)  # cheaper steps are cut off
    for ax, corner in ((left, "lower left"), (right, "lower right")):  # costs begin low, and planned grids cost alike
        ax.legend(fontsize=8, framealpha=0.85, edgecolor="none", loc=corner)
    saved(figure, path)


def quality(path: pathlib.Path | str, rows: Sequence[Mapping[str, Any]], floor: Mapping[str, Any]) -> None:
    """Draw two-sample distances against evaluations, from the rows of `app.quality`, with one standard error.

    Rows of one label and several numbers of evaluations are a line; a row alone is a reference, drawn across. Values
    above BEYOND times the median of their sizes are cut off.
    """
    figure = canvas(12, 4.4)
    panels = figure.subplots(1, len(WORDS))
    labels = dict.fromkeys(row["label"] for row in rows)
    for ax, (measure, words) in zip(panels, WORDS.items(), strict=True):
        for index, label in enumerate(labels):
            own = [row for row in rows if row["label"] == label]
            values, errors = zip(*((row[measure]["value"], row[measure]["standard_error"]) for row in own), strict=True)
            colour = QUALITY_COLOURS[index % len(QUALITY_COLOURS)]
            if len(own) == 1:
                ax.axhline(values[0], color=colour, ls=("--", ":")[index % 2], lw=1.2, label=label)
            else:
                evals = [row["evals"] for row in own]
                ax.errorbar(evals, values, errors, fmt="o-", ms=3.5, lw=1.4, capsize=2, color=colour, label=label)
        value, error = floor[measure]["value"], floor[measure]["standard_error"]
        ax.axhspan(value - error, value + error, color="#999999", alpha=0.3, lw=0, label="train rows (floor)")
        ax.set(xscale="log", xlabel="score evaluations a sample", ylabel=words)
        ticks = sorted({row["evals"] for row in rows if row["evals"] < MARKED})
        ax.set_xticks(ticks, [str(n) for n in ticks])
        ax.minorticks_off()
        every = [row[measure]["value"] for row in rows]
        shown = [value - error, value + error, *(one for one in every if one <= BEYOND * np.median(np.abs(every)))]
        low, high = min(shown), max(shown)
        ax.set_ylim(low - 0.08 * (high - low), high + 0.08 * (high - low))
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, frameon=False, fontsize=8.5, loc="outside lower center", ncols=3)
    saved(figure, path)


def training(path: pathlib.Path | str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw the losses of a training against its steps, from the lines of metrics.jsonl."""
    figure = canvas(7.2, 3.6)
    ax = figure.subplots()
    steps = [row["step"] for row in rows]
    for name, words, colour in (("train_loss", "training", "#999999"), ("held_out_loss", "held-out rows", "#1f4e79")):
        values = [row.get(name) for row in rows]
        if None not in values:
            ax.plot(steps, np.array(values, float), "o-", ms=3, lw=1.4, color=colour, label=words)
    ax.set(xlabel="optimiser step", ylabel="weighted loss")
    if min(row["train_loss"] for row in rows) > 0:
        ax.set_yscale("log")
    ax.legend(frameon=False, fontsize=9)
    saved(figure, path)
