"""What the file of a loss curve may hold, checked when it is read."""

import numpy as np

from jaxdiff.app.records import TOLERANCE, demand, finite_array
from jaxdiff.curves.interpolation import SAME
from jaxdiff.processes import ou


def curve_of(arrays, dim, horizon, early_stop):
    """The arguments of `curves.measured_curve`, from the arrays of a file.

    The curve must have `dim` coordinates and run between these times.

    Raises:
      ValueError: an array is missing, has another shape or type, is not finite, or has values that no loss curve has.
    """
    u = finite_array(arrays, "u", ("nodes",))
    demand((f"u has {len(u)} nodes, fewer than five", len(u) >= 5))
    extra = finite_array(arrays, "extra", ("levels",)) if "extra" in arrays else np.zeros(0)  # older files lack it
    levels = len(u) + len(extra)
    rows = finite_array(arrays, "rows", ("rows", 2 * levels))
    shapes = {"by_group": ("groups", levels, dim), "squares": (len(rows),), "row_ids": (len(rows),)}
    more = {name: finite_array(arrays, name, shape) if name in arrays else None for name, shape in shapes.items()}
    basis = _basis(arrays, dim)
    by_group, squares = more["by_group"], more["squares"]
    width = (u[-1] - u[0]) / (len(u) - 1)
    within = np.abs(extra - (u[0] + u[-1]) / 2) <= (0.5 + SAME) * (u[-1] - u[0])
    with np.errstate(all="ignore"):  # in times that raise an error below
        ends = ou.time(np.exp(u[[0, -1]]))
    demand(
        ("u is not increasing and equidistant", (np.abs(np.diff(u) - width) <= TOLERANCE * width).all()),
        (
            f"it was measured from t = {ends[0]:.6g} to {ends[1]:.6g}, the model runs from {horizon:.6g} to "
            f"{early_stop:.6g}",
            np.allclose(ends, [horizon, early_stop], rtol=TOLERANCE, atol=0),
        ),
        ("extra leaves the range of u", within.all()),
        (f"it has {len(rows)} rows, fewer than two", len(rows) >= 2),
        ("rows has negative losses", (rows[:, :levels] >= 0).all()),
        ("it has only one of by_group and basis, which belong together", (by_group is None) == (basis is None)),
        ("by_group has no groups, or more than rows", by_group is None or 1 <= len(by_group) <= len(rows)),
        ("by_group has negative losses", by_group is None or (by_group >= 0).all()),
        ("squares has negative values", squares is None or (squares >= 0).all()),
    )
    return {"u": u, "extra": extra, "rows": rows, "basis": basis, **more}


def _basis(arrays, dim):
    """The basis in a file: orthonormal columns or "coordinates"; None if the file has no basis."""
    if "basis" not in arrays:
        return None
    if arrays["basis"].ndim == 0:
        said = str(arrays["basis"])
        demand((f"basis is {said[:60]!r}, not 'coordinates' or an array", said == "coordinates"))
        return said
    basis = finite_array(arrays, "basis", (dim, dim))
    orthonormal = np.abs(basis.T @ basis - np.eye(dim)).max() <= TOLERANCE
    demand(("the columns of basis are not orthonormal", orthonormal))
    return basis
