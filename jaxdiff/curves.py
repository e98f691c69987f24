"""Error curves as values: measured from held-out data with their covariance, interpolated, integrated."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from numpy.polynomial import legendre

from jaxdiff import noise
from jaxdiff.processes import forward, ou
from jaxdiff.progress import bar
from jaxdiff.types import Curve, DenoiserFn, as_score

DEGREE = 11
PANEL = 0.5  # in log snr
ROWS_AT_ONCE = 4096


def antiderivative(curve, snr):
    """An antiderivative of a curve over snr, at an array of snr values; float64.

    The curve's own where it has one. Else snr times the curve is fitted on panels of 0.5 in log snr by Legendre series
    of degree 11 and integrated term by term: relative error below 1e-13 for a curve analytic within 1.5 of the real
    log-snr axis (a Gaussian's mmse is, within pi). The curve is called at 12 points a panel however many are asked.
    """
    if curve.integral is not None:
        return curve.integral(snr)
    u = np.log(snr)
    n_panels = max(1, int(np.ceil((u.max() - u.min()) / PANEL)))
    width = max(u.max() - u.min(), 1e-300) / n_panels
    nodes, weights = legendre.leggauss(DEGREE + 1)
    centres = u.min() + width * (np.arange(n_panels) + 0.5)
    points = np.exp(centres[:, None] + width / 2 * nodes)
    values = points * curve(points.ravel()).reshape(points.shape)
    degrees = np.arange(DEGREE + 1)
    series = values @ (weights[:, None] * legendre.legvander(nodes, DEGREE) * (degrees + 0.5))
    primitive = legendre.legint(series.T, lbnd=-1) * width / 2  # (degree + 2, panels)
    before = np.concatenate([[0.0], np.cumsum(legendre.legval(1.0, primitive))])
    panel = np.clip(((u - u.min()) / width).astype(int), 0, n_panels - 1)
    place = (u - centres[panel]) * 2 / width
    return before[panel] + legendre.legval(place, primitive[:, panel], tensor=False)


@dataclasses.dataclass(frozen=True, eq=False)
class Spline:
    """Cubic Hermite interpolation on equidistant nodes u, slopes by fourth-order differences: linear in the values."""

    u: np.ndarray

    @property
    def width(self):
        """Distance of two nodes."""
        return (self.u[-1] - self.u[0]) / (len(self.u) - 1)

    def slopes(self):
        """(nodes, nodes): values -> width times derivatives at the nodes; exact on quartics."""
        n = len(self.u)
        matrix = np.zeros((n, n))
        for i in range(n):
            first = min(max(i - 2, 0), n - 5)
            matrix[i, first : first + 5] = STENCILS[i - first]
        return matrix

    def basis(self, u):
        """(points, nodes): values -> interpolant at the points u."""
        i, x = self._locate(u)
        eye, slope = np.eye(len(self.u)), self.slopes()
        value = ((1 + 2 * x) * (1 - x) ** 2) * eye[i] + (x**2 * (3 - 2 * x)) * eye[i + 1]
        return value + (x * (1 - x) ** 2) * slope[i] + (x**2 * (x - 1)) * slope[i + 1]

    def integral_basis(self, u):
        """(points, nodes): values -> integral of the interpolant from the first node to the points u."""
        i, x = self._locate(u)
        eye, slope = np.eye(len(self.u)), self.slopes()
        panel = (eye[:-1] + eye[1:]) / 2 + (slope[:-1] - slope[1:]) / 12
        before = np.concatenate([np.zeros((1, len(self.u))), np.cumsum(panel, axis=0)])
        part = (x - x**3 + x**4 / 2) * eye[i] + (x**3 - x**4 / 2) * eye[i + 1]
        part += (x**2 / 2 - 2 * x**3 / 3 + x**4 / 4) * slope[i] + (x**4 / 4 - x**3 / 3) * slope[i + 1]
        return self.width * (before[i] + part)

    def _locate(self, u):
        slack = 1e-9 * (self.u[-1] - self.u[0])
        if u.min() < self.u[0] - slack or u.max() > self.u[-1] + slack:
            raise ValueError(
                f"the curve was measured for log snr in [{self.u[0]:.4g}, {self.u[-1]:.4g}], asked in "
                f"[{u.min():.4g}, {u.max():.4g}]: measure it with a longer horizon or an earlier early_stop."
            )
        place = np.clip((u - self.u[0]) / self.width, 0, len(self.u) - 1)
        i = np.minimum(place.astype(int), len(self.u) - 2)
        return i, (place - i)[:, None]


# Rows: derivative at point 0..4 of the quartic through five equidistant points.
STENCILS = (
    np.array(
        [[-25, 48, -36, 16, -3], [-3, -10, 18, -6, 1], [1, -8, 0, 8, -1], [-1, 6, -18, 10, 3], [3, -16, 36, -48, 25]]
    )
    / 12
)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class MeasuredCurve(Curve):
    """A loss curve from data: splines in log snr of snr L and sqrt(snr) K, so that every path KL is linear in them.

    Attributes:
      spline: over the nodes' log snr.
      losses: (nodes,) snr L at the nodes.
      crosses: (nodes,) sqrt(snr) K at the nodes.
      covariance: (2 nodes, 2 nodes) of (losses, crosses) as means over the data.
      n: independent data points.
    """

    spline: Spline
    losses: np.ndarray
    crosses: np.ndarray
    covariance: np.ndarray
    n: int


def measured_curve(u, losses, crosses, covariance, n, dim):
    """The MeasuredCurve of node values (see its attributes)."""
    spline = Spline(u)
    variance = covariance[: len(u), : len(u)]

    def error(snr):
        rows = spline.basis(np.log(np.ravel(snr)))
        return np.sqrt(np.einsum("ij,jk,ik->i", rows, variance, rows)).reshape(np.shape(snr)) / snr

    return MeasuredCurve(
        value=lambda snr: _interpolate(spline, losses, snr) / snr,
        dim=dim,
        standard_error=error,
        cross=lambda snr: _interpolate(spline, crosses, snr) / np.sqrt(snr),
        integral=lambda snr: (spline.integral_basis(np.log(np.ravel(snr))) @ losses).reshape(np.shape(snr)),
        spline=spline,
        losses=losses,
        crosses=crosses,
        covariance=covariance,
        n=n,
    )


def _interpolate(spline, values, snr):
    return (spline.basis(np.log(np.ravel(snr))) @ values).reshape(np.shape(snr))


def loss_curve(
    denoiser: DenoiserFn, data, key, *, horizon, early_stop, n_nodes=201, n_noises=4, progress=False
) -> MeasuredCurve:
    """The loss of a denoiser on data, L(snr) = E|X_0 - D(X_t, t)|^2, with its covariance over levels.

    Args:
      denoiser: D(x, t), shapes (..., d), () -> (..., d).
      data: (n, d), rows the denoiser was not trained on.
      key: for the noise. A row sees the same noises, and their negatives, at every level: differences between levels,
        which path KL is made of, are then far better known than the levels.
      horizon, early_stop: OU times; the curve is known for snr between theirs.
      n_nodes: levels, uniform in log snr; between them cubic, so the interpolation error falls with the fourth power.
      n_noises: antithetic pairs a row.
      progress: show a bar.

    Returns:
      A MeasuredCurve. Standard errors are over rows, which are assumed independent.

    Raises:
      ValueError: fewer than two rows, or the denoiser's output is not finite or not of the shape of its input.
    """
    data = np.asarray(data)
    if data.ndim != 2 or len(data) < 2:
        raise ValueError(f"a loss curve needs rows of data, (n, d) with n >= 2: data has shape {data.shape}.")
    u = np.linspace(np.log(ou.snr(float(horizon))), np.log(ou.snr(float(early_stop))), n_nodes)
    times = ou.time(np.exp(u))
    sums, squares = np.zeros(2 * n_nodes), np.zeros((2 * n_nodes, 2 * n_nodes))
    chunks = range(0, len(data), ROWS_AT_ONCE)
    with_bar = bar(
        ((first, node) for first in chunks for node in range(n_nodes)),
        "loss curve",
        enabled=progress,
        total=len(chunks) * n_nodes,
    )
    denoiser = as_score(denoiser)
    for first, node in with_bar:
        if node == 0:
            rows = jnp.asarray(data[first : first + ROWS_AT_ONCE])
            index = first + np.arange(len(rows), dtype=np.uint32)
            scores = np.empty((len(rows), 2 * n_nodes))
        loss, cross = _errors(denoiser, rows, index, key, jnp.asarray(times[node], rows.dtype), n_noises)
        scores[:, node] = np.exp(u[node]) * np.asarray(loss, np.float64)
        scores[:, n_nodes + node] = np.exp(u[node] / 2) * np.asarray(cross, np.float64)
        if node == n_nodes - 1:
            sums += scores.sum(0)
            squares += scores.T @ scores
    mean = sums / len(data)
    if not np.isfinite(mean).all():
        worst = times[int(np.argmin(np.isfinite(mean[:n_nodes])))]
        raise ValueError(
            f"the denoiser's output is not finite, first at t = {worst:.4g}: check it on the held-out rows."
        )
    covariance = (squares - len(data) * np.outer(mean, mean)) / (len(data) * (len(data) - 1))
    return measured_curve(u, mean[:n_nodes], mean[n_nodes:], covariance, len(data), data.shape[1])


# The pair Z, -Z: K = E<D - beta X_0, Z> for any beta, and over the pair beta drops out.
@jax.jit(static_argnames="n_noises")
def _errors(denoiser, x0, index, key, t, n_noises):
    """(n,), (n,): each row's |X_0 - D|^2 and <D, Z>, averaged over its antithetic pairs."""

    def pair(repeat):
        z = noise.normal(key, index, repeat, x0.shape[1], x0.dtype)
        plus, minus = denoiser(forward(x0, t, z), t), denoiser(forward(x0, t, -z), t)
        if plus.shape != x0.shape:
            raise ValueError(f"the denoiser returns shape {plus.shape} for x of shape {x0.shape}: they must agree.")
        loss = jnp.sum((x0 - plus) ** 2, -1) + jnp.sum((x0 - minus) ** 2, -1)
        return loss / 2, jnp.sum((plus - minus) * z, -1) / 2

    losses, crosses = jax.lax.map(pair, jnp.arange(n_noises, dtype=jnp.uint32))
    return losses.mean(0), crosses.mean(0)
