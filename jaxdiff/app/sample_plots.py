"""The figure of samples beside data: images on sheets, histograms, or points along principal components."""

import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Real

from jaxdiff.app.figures import INK, canvas, saved

SHOWN = 1000  # rows in a panel of samples, and train rows that determine its axes
ON_A_SIDE = 8  # images on a side of a sheet
MOST_CLASSES = 10  # lines of a sheet with a line for each class
TAIL = 0.005  # fraction of the rows on either side that the limits of a panel may leave out
MARGIN = 0.25  # free space beside the other rows, in their width; the panel of a normal law ends at 3.9 deviations


def samples(
    path: pathlib.Path | str,
    generated: Real[np.ndarray, "n ..."],
    real: Real[np.ndarray, "m ..."],
    train: Real[np.ndarray, "k ..."],
    image_shape: Sequence[int] | None = None,
    *,
    of: int | None = None,
    labels: tuple[Any, Any] | None = None,
    rows: str = "test rows",
) -> None:
    """Draw generated rows beside equally many real ones: as images, histograms or points.

    Rows of image_shape, (H, W) or (H, W, C) with one or three channels, are shown as images. A single column is shown
    as a histogram, and two columns as points. More columns are projected on the first two principal components of at
    most SHOWN train rows, standardised by them; no row of either panel influences these axes. The limits leave out at
    most TAIL of the real rows on either side. They do the same for the generated rows, but extend at most one width
    beyond the real ones. The titles say how many rows are shown, and how many of them lie outside the limits.

    of: the number of all samples, if `generated` has only the first of them.
    labels: the classes (n,) and (m,) of the generated and the real rows. Images then get a line for each of the first
      MOST_CLASSES classes.
    rows: the name of the real rows in the title.
    """
    generated, real, train = (np.reshape(part, (len(part), -1)) for part in (generated, real, train))
    figure = canvas(9.2, 4.9)
    axes = figure.subplots(1, 2, sharey=image_shape is None and real.shape[1] == 1)
    everything = (("generated", of or len(generated)), (f"real ({rows})", len(real)))
    outside = (0, 0)
    if image_shape is None:
        few = min(len(generated), len(real), SHOWN)
        shown = generated[:few], real[:few]
        outside = _panels(axes, shown, _spread_out(train))
    else:
        shown, columns = _chosen_images(generated, real, labels)
        for ax, images in zip(axes, shown, strict=True):
            _sheet(ax, images, image_shape, (real.min(), real.max()), columns)
    by_class = ", a line for each class" if image_shape is not None and labels is not None else ""
    for ax, (title, n), part, left_out in zip(axes, everything, shown, outside, strict=True):
        beyond = f", {left_out} of them outside" if left_out else ""
        ax.set_title(f"{title}: {len(part):,} of {n:,}{by_class}{beyond}", color=INK, fontsize=11)
    saved(figure, path)


def _chosen_images(generated, real, labels):
    """The images of both sheets, and how many stand in a line."""
    if labels is not None:
        of_class = lambda own, one: np.flatnonzero(np.asarray(own) == one)
        classes = np.unique(np.concatenate([np.asarray(own) for own in labels]))[:MOST_CLASSES]
        columns = min(ON_A_SIDE, *(len(of_class(own, one)) for own in labels for one in classes))
        if columns:
            index = [np.concatenate([of_class(own, one)[:columns] for one in classes]) for own in labels]
            return (generated[index[0]], real[index[1]]), columns
    few = math.isqrt(min(len(generated), len(real), ON_A_SIDE**2)) ** 2
    return (generated[:few], real[:few]), math.isqrt(few)


def _sheet(ax, rows, shape, limits, columns):
    """Images (lines * columns, d) on a sheet; grey ones dark on light, colours as they are."""
    height, width, channels = (*shape, 1)[:3]
    tiles = rows.reshape(-1, columns, height, width, channels)
    tiles = np.pad(tiles, [(0, 0), (0, 0), (1, 1), (1, 1), (0, 0)], constant_values=limits[0])
    sheet = tiles.transpose(0, 2, 1, 3, 4).reshape(len(tiles) * (height + 2), columns * (width + 2), channels)
    if channels == 3:
        low, high = (float(end) for end in limits)
        ax.imshow(np.clip((sheet - low) / max(high - low, 1e-12), 0, 1), interpolation="nearest")
    else:
        ax.imshow(sheet[..., 0], cmap="gray_r", vmin=limits[0], vmax=limits[1], interpolation="nearest")
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
