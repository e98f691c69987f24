"""Figures of a size in inches, and their PNG files."""

import pathlib

from matplotlib.figure import Figure

from jaxdiff.files import written

INK = "#333333"  # of titles and of lines that are no result


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
