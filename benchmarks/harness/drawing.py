"""One style for the benchmarks' figures: colours that colour-blind readers can distinguish, and markers."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8c564b", "#555555")  # Okabe and Ito
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def line(ax, points, label, index):
    """Draw {x: y} in the colour and marker of an index; with None black and dashed."""
    style = {"color": "black", "ls": "--"} if index is None else {"color": COLOURS[index], "marker": MARKERS[index]}
    ax.plot(list(points), list(points.values()), label=label, lw=1.6, ms=4.5, **style)


def powers(ax, ticks=None):
    """Make both axes logarithmic, with a light grid; ticks: places on the x axis."""
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.grid(alpha=0.25, lw=0.6)
    if ticks is not None:
        ax.set_xticks(ticks, [str(tick) for tick in ticks])
        ax.minorticks_off()
