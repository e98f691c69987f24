"""The pictures: sheets of samples, the loss curve, grids and what their steps cost."""

import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxdiff.files import written
from jaxdiff.path_costs import PER_DIRECTION, label_of, sampler_of, step_cost
from jaxdiff.processes import ou

COLOURS = {
    ("exponential_euler", "Benton"): "#b3492d",
    ("ancestral", "Benton"): "#d99a2b",
    ("ancestral", "planned"): "#4f9d69",
    ("moment_matched", "planned"): "#1f4e79",
    (PER_DIRECTION, "planned"): "#8c6bb1",
}
INK = "#333333"
DECADES = 1e4
MARKED = 100  # nodes; more would make a band


def canvas(width, height):
    """An empty figure, inches."""
    return Figure(figsize=(width, height), layout="constrained")


def saved(figure, path):
    """Write a figure as PNG, its axes without top and right; returns where."""
    for ax in figure.axes:
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
    with written(path) as draft:
        figure.savefig(draft, dpi=130, format="png")
    return path


def label(kernel_name, grid_name):
    """The name of a sampler in legends and tables."""
    return f"{label_of(kernel_name)}, {grid_name}"


def samples(path, generated, real, image_shape=None):
    """Generated beside real rows: image sheets where rows are images, else the first two principal components."""
    figure = canvas(9.2, 4.9)
    axes = figure.subplots(1, 2)
    for ax, rows, title in zip(axes, (generated, real), ("generated", "real (test rows)"), strict=True):
        ax.set_title(title, color=INK, fontsize=11)
        if image_shape is None:
            _components(ax, rows[: len(real)], real)
        else:
            _sheet(ax, rows, image_shape, (real.min(), real.max()))
    saved(figure, path)


def loss_curve(path, curve, train_variance):
    """The held-out loss L against log snr with its 95 % band, under the two bounds that need no network."""
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


def grids(path, curve, samplers, *, of="held-out rows"):
    """The grids of {(kernel, grid name): grid} and the path KL of each of their steps, by the curve of `of`."""
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
                color=COLOURS[kernel_name, grid_name],
                label=name,
            )
        kernel, basis = sampler_of(kernel_name, curve)
        cost = step_cost(kernel, curve, basis=basis)(grid[:-1], grid[1:])
        # matplotlib places a step over [left edge, right edge]; on log snr its width is what the step crosses
        right.stairs(cost, np.log(ou.snr(grid)), color=COLOURS[kernel_name, grid_name], lw=1.5, baseline=None,
                     label=f"{label(kernel_name, grid_name)}: {cost.sum():.3g} nats")  # fmt: skip
        highest = max(highest, cost.max())
    left.set(yscale="log", xlabel="step", ylabel="OU time t")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set(yscale="log", xlabel="log snr (data on the right)", ylabel=f"path KL of the step, nats ({of})")
    right.set_ylim(bottom=max(highest, 1e-12) / DECADES)  # what is cheaper does not show
    for ax in (left, right):
        ax.legend(fontsize=8, framealpha=0.85, edgecolor="none")
    saved(figure, path)


def _sheet(ax, rows, shape, limits):
    side = min(8, math.isqrt(len(rows)))
    tiles = np.pad(
        rows[: side * side].reshape(side, side, *shape), [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=limits[0]
    )
    sheet = tiles.transpose(0, 2, 1, 3).reshape(side * (shape[0] + 2), side * (shape[1] + 2))
    ax.imshow(sheet, cmap="gray_r", vmin=limits[0], vmax=limits[1], interpolation="nearest")
    ax.set_axis_off()


def _components(ax, rows, real):
    if real.shape[1] == 1:
        share = np.full(len(rows), 1 / len(rows))
        ax.hist(rows[:, 0], bins=40, range=(real.min(), real.max()), weights=share, color="#1f4e79")
        ax.set(xlabel="value", ylabel="share of the rows")
        return
    centre, scale = real.mean(0), np.where(real.std(0) > 0, real.std(0), 1)
    _, _, axes = np.linalg.svd((real - centre) / scale, full_matrices=False)
    y = (rows[:1000] - centre) / scale @ axes[:2].T
    ax.plot(y[:, 0], y[:, 1], ".", ms=3, color="#1f4e79", alpha=0.5)
    shown = (real - centre) / scale @ axes[:2].T
    low, high = shown.min(0), shown.max(0)
    room = np.where(high - low > 1e-6, 0.1 * (high - low), 1)  # 1 along an axis on which the real rows do not vary
    ax.set(xlim=(low[0] - room[0], high[0] + room[0]), ylim=(low[1] - room[1], high[1] + room[1]))
    ax.set(xlabel="first principal component", ylabel="second principal component")
