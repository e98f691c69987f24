"""Loss curves measured from held-out data, with the covariance that makes their path KLs' standard errors."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import noise
from jaxdiff.interpolation import Spline
from jaxdiff.processes import check_ends, forward, ou
from jaxdiff.progress import bar
from jaxdiff.types import Curve, DenoiserFn, as_score

ROWS_AT_ONCE = 4096


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

    spline: Spline = dataclasses.field(repr=False)
    losses: np.ndarray = dataclasses.field(repr=False)
    crosses: np.ndarray = dataclasses.field(repr=False)
    covariance: np.ndarray = dataclasses.field(repr=False)
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
        integral=lambda snr: spline.integral(losses, np.log(np.ravel(snr))).reshape(np.shape(snr)),
        spline=spline,
        losses=losses,
        crosses=crosses,
        covariance=covariance,
        n=n,
    )


def _interpolate(spline, values, snr):
    return spline.at(values, np.log(np.ravel(snr))).reshape(np.shape(snr))


def loss_curve(
    denoiser: DenoiserFn, data, key, *, horizon, early_stop, n_nodes=201, n_noises=4, progress=False
) -> MeasuredCurve:
    """The loss of a denoiser on data, L(snr) = E|X_0 - D(X_t, t)|^2, with its covariance over levels.

    Args:
      denoiser: D(x, t), shapes (..., d), () -> (..., d).
      data: (n, d), rows the denoiser was not trained on; whole numbers are taken as float32.
      key: for the noise. A row sees the same noises, and their negatives, at every level: differences between levels,
        which path KL is made of, are then far better known than the levels.
      horizon, early_stop: OU times; the curve is known for snr between theirs.
      n_nodes: levels, uniform in log snr; between them cubic, so the interpolation error falls with the fourth power.
      n_noises: antithetic pairs a row.
      progress: show a bar.

    Returns:
      A MeasuredCurve. Standard errors are over rows, which are assumed independent.

    Raises:
      ValueError: fewer than two rows or five nodes, early_stop not below the horizon, or the denoiser's output is not
        finite or not of the shape of its input.
    """
    check_ends(horizon, early_stop)
    data = np.asarray(data)
    if data.ndim != 2 or len(data) < 2:
        raise ValueError(f"a loss curve needs rows of data, (n, d) with n >= 2: data has shape {data.shape}.")
    if data.dtype.kind != "f":
        data = data.astype(np.float32)
    if n_nodes < 5 or n_noises < 1:
        raise ValueError(
            f"a loss curve needs n_nodes >= 5 and n_noises >= 1: n_nodes = {n_nodes}, n_noises = {n_noises}."
        )
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
