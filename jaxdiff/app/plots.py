"""Figures: samples beside data, the loss curve, grids and the path KL of their steps."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Real
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxdiff.app.quality import WORDS
from jaxdiff.app.samplers import PER_DIRECTION, label_of, path_cost_of
from jaxdiff.curves import Curve, MeasuredCurve
from jaxdiff.files import written
from jaxdiff.guarantees.step_cost import step_cost
from jaxdiff.processes import ou

COLOURS = {  # of each (kernel, grid) in all figures
    ("exponential_euler", "Benton"): "#b3492d",
    ("ancestral", "Benton"): "#d99a2b",
    ("ancestral", "planned"): "#4f9d69",
    ("moment_matched", "planned"): "#1f4e79",
    (PER_DIRECTION, "planned"): "#8c6bb1",
}
QUALITY_COLOURS = ("#1f4e79", "#8c6bb1", "#4f9d69", "#b3492d", "#333333", "#777777")
PLANNED_COLOUR = "#c2306b"  # of the sampler of a plan in W2
INK = "#333333"  # of titles and of lines that are no result
BEYOND = 5.0  # medians; larger distances are above a panel of quality
DECADES = 1e4  # the axis of path KL ends at 1/DECADES of the largest step
MARKED = 100  # nodes: a grid of more is drawn as a line, since its dots would touch
SHOWN = 1000  # rows in a panel of samples, and train rows that determine its axes
ON_A_SIDE = 8  # images on a side of a sheet
TAIL = 0.005  # fraction of the rows on either side that the limits of a panel may leave out
MARGIN = 0.25  # free space beside the other rows, in their width; the panel of a normal law ends at 3.9 deviations


def canvas(width: float | int, height: float | int) -> Figure:
    """An empty figure of this size in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def saved(figure: Figure, path: pathlib.Path | str) -> pathlib.Path | str:
    """Write a figure as PNG, without the upper and right borders of its axes; returns the path."""
    for ax in figure.axes:
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
    with written(path) as draft:
        figure.savefig(draft, dpi=130, format="png")
    return path


def label(kernel_name: str, grid_name: str) -> str:
    """The name of a sampler in legends and tables."""
    return f"{label_of(kernel_name)}, {grid_name}"


def samples(
    path: pathlib.Path | str,
    generated: Real[np.ndarray, "n d"],
    real: Real[np.ndarray, "m d"],
    train: Real[np.ndarray, "k d"],
    image_shape: Sequence[int] | None = None,
    *,
    of: int | None = None,
) -> None:
    """Draw generated rows beside equally many real ones: as images, histograms or points.

    Rows of image_shape are shown as images. A single column is shown as a histogram, and two columns as points. More
    columns are projected on the first two principal components of at most SHOWN train rows, standardised by them; no
    row of either panel influences these axes. The limits leave out at most TAIL of the real rows on either side. They
    do the same for the generated rows, but extend at most one width beyond the real ones. The titles say how many rows
    are shown, and how many of them lie outside the limits.

    of: the number of all samples, if `generated` has only the first of them.
    """
    figure = canvas(9.2, 4.9)
    axes = figure.subplots(1, 2, sharey=image_shape is None and real.shape[1] == 1)
    most = SHOWN if image_shape is None else ON_A_SIDE**2
    few = min(len(generated), len(real), most)
    few = few if image_shape is None else math.isqrt(few) ** 2
    shown, outside = (generated[:few], real[:few]), (0, 0)
    if image_shape is None:
        outside = _panels(axes, shown, _spread_out(train))
    else:
        for ax, rows in zip(axes, shown, strict=True):
            _sheet(ax, rows, image_shape, (real.min(), real.max()))
    everything = (("generated", of or len(generated)), ("real (test rows)", len(real)))
    for ax, (title, n), left_out in zip(axes, everything, outside, strict=True):
        beyond = f", {left_out} of them outside" if left_out else ""
        ax.set_title(f"{title}: {few:,} of {n:,}{beyond}", color=INK, fontsize=11)
    saved(figure, path)


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


def _sheet(ax, rows, shape, limits):
    side = math.isqrt(len(rows))
    tiles = np.pad(rows.reshape(side, side, *shape), [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=limits[0])
    sheet = tiles.transpose(0, 2, 1, 3).reshape(side * (shape[0] + 2), side * (shape[1] + 2))
    ax.imshow(sheet, cmap="gray_r", vmin=limits[0], vmax=limits[1], interpolation="nearest")
    ax.set_axis_off()


def _spread_out(rows):
    """At most SHOWN of the rows, evenly spaced, in float64."""
    return np.asarray(rows[:: -(-len(rows) // SHOWN)], np.float64)


def _panels(axes, shown, train):
    """Draw generated and real rows on the axes of train rows; returns how many of each lie outside the limits."""
    along, labels = _axes_of(train)
    points = [along(np.asarray(rows, np.float64)) for rows in shown]
    low, high = _limits(*points)
    for ax, y in zip(axes, points, strict=True):
        ax.set(xlim=(low[0], high[0]), xlabel=labels[0])
        if len(low) == 1:
            inside = y[(y >= low) & (y <= high)]
            ax.hist(inside, bins=40, range=(low[0], high[0]), weights=np.full(len(inside), 1 / len(y)), color="#1f4e79")
            ax.set_ylabel("fraction of the rows shown")
        else:
            ax.plot(y[:, 0], y[:, 1], ".", ms=3, color="#1f4e79", alpha=0.5)
            ax.set(ylim=(low[1], high[1]), ylabel=labels[1])
    return [int(np.sum(~((y >= low) & (y <= high)).all(1))) for y in points]


# With few rows of many columns the first principal components are mostly chance, and the rows that determine them vary
# along them more than other rows do. Train rows therefore determine them, which neither panel shows.
def _axes_of(train):
    """A function from rows (n, d) to the coordinates that are drawn, (n, 1) or (n, 2), and the names of the axes."""
    if train.shape[1] <= 2:
        names = ["value"] if train.shape[1] == 1 else ["first column", "second column"]
        return lambda rows: rows, names
    centre, scale = train.mean(0), np.where(np.ptp(train, axis=0) > 0, train.std(0), 1)
    _, _, axes = np.linalg.svd((train - centre) / scale, full_matrices=False)
    names = [f"{nth} principal component of training rows" for nth in ("first", "second")]
    return lambda rows: (rows - centre) / scale @ axes[:2].T, names


def _limits(generated, real):
    """Lower and upper limits (axes,) of a panel for points (n, axes), by the rules of `samples`."""
    low, high = np.quantile(real, [TAIL, 1 - TAIL], axis=0)
    width = np.where(high - low > 1e-6 * np.abs(real).max(0), high - low, 1)  # 1 if the real rows do not vary
    finite = generated[np.isfinite(generated).all(1)]
    others = np.quantile(finite, [TAIL, 1 - TAIL], axis=0) if len(finite) else np.stack([low, high])
    low, high = (
        np.minimum(low, np.clip(others[0], low - width, high)),
        np.maximum(high, np.clip(others[1], low, high + width)),
    )
    margin = MARGIN * np.maximum(high - low, width)
    return low - margin, high + margin
