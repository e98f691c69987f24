"""The mmse curve of a Gaussian mixture: the mean posterior variance given a noised observation."""

import dataclasses
import functools

import numpy as np

from jaxdiff.curves import Curve
from jaxdiff.curves.log_det import compress, log_det_of_spectra
from jaxdiff.curves.panels import Panels, tabulated
from jaxdiff.legendre import gauss
from jaxdiff.targets.components import Components, axes_of_mixture, centred
from jaxdiff.targets.posterior_covariance import Distinct, form_of

# Quadrature: panels around every component, in its standard deviations, with a Gauss rule on each. Panels are a quarter
# wide, since posterior weights can change within a third of a deviation.
EDGES, PANEL_NODES = np.linspace(-9, 9, 73), 12
MOST_COMPONENTS = 16  # the most components of a quadrature; for more, Monte Carlo takes less time
MOST_COORDINATES = 2048  # the largest d for which principal axes are computed: an eigenvalue problem of seconds
# Monte Carlo: independent replicates give the standard error, which then has 15 degrees of freedom. In all there are
# PAIRS/K antithetic pairs of draws, between LEAST_DRAWS and MOST_DRAWS. Where a level would then take more
# multiplications than PRODUCTS, there are fewer, but FEWEST_DRAWS at least.
REPLICATES = 16
LEAST_DRAWS, MOST_DRAWS, PAIRS = 2048, 8192, 2**20
FEWEST_DRAWS, PRODUCTS = 128, 2**33
MOST_WORK = 2**38  # multiplications that a level's log_det may take, about ten seconds; beyond, it is refused


def mmse_of(components: Components) -> Curve:
    """The mmse curve: in closed form for one component, by quadrature for few in one dimension, else by Monte Carlo."""
    k, d = components.means.shape
    if k == 1:
        return _gaussian_mmse(components)
    return _quadrature_mmse(components) if d == 1 and k <= MOST_COMPONENTS else _monte_carlo_mmse(components)


def _gaussian_mmse(components):
    s, axes = components.variances[0], components.axes
    each, copies = np.unique(s, return_counts=True)
    directions = lambda snr: s / (1 + np.asarray(snr, np.float64)[..., None] * s)
    integral = lambda snr: np.log1p(np.asarray(snr, np.float64)[..., None] * each) @ copies
    return Curve(
        lambda snr: (each / (1 + np.asarray(snr, np.float64)[..., None] * each)) @ copies,
        len(s),
        integral=integral,
        log_det=lambda snr, h: integral(snr + h) - integral(snr),
        directions=directions,
        basis="coordinates" if axes is None else axes[0],
    )


def _quadrature_mmse(components):
    means, weights = centred(components), np.exp(components.log_weights)
    variances = np.broadcast_to(components.variances, means.shape)
    form = Distinct(components._replace(means=means, variances=variances, axes=None), None)

    def known(snr):
        """Posterior variances at quadrature nodes of the noised law, and the nodes' weights."""
        widths = np.sqrt(variances + 1 / snr)
        edges = np.unique(means + widths * EDGES)
        y, weight = (part.ravel() for part in gauss(edges[:-1], edges[1:], PANEL_NODES))
        normal = np.exp(-(((y - means) / widths) ** 2) / 2) / (widths * np.sqrt(2 * np.pi))
        return form.trace(y[:, None], snr), weight * (weights @ normal)

    curve = tabulated(lambda snr: np.array([np.dot(*known(level)) for level in snr.tolist()]), 1)
    log_det = log_det_of_spectra(functools.cache(lambda snr: compress(*map(np.atleast_2d, known(snr)))))
    return dataclasses.replace(
        curve,
        log_det=lambda snr, h: log_det(snr, h)[..., 0],
        directions=lambda snr: curve(snr)[..., None],
        basis="coordinates",
    )


def _monte_carlo_mmse(components):
    d = components.means.shape[1]
    known = _Draws(components, axes_of_mixture(components) if d <= MOST_COORDINATES else None)
    each_log_det = log_det_of_spectra(known.spectrum)
    each_direction = Panels(lambda snr: np.array([known.along(level) for level in snr.tolist()]))

    def curve(value, integral, error, pick, **fields):
        """A Curve. `pick` reduces arrays (..., replicates) and (..., replicates, d) over the axis of replicates."""
        return Curve(
            value,
            d,
            integral=integral,
            integral_error=error,
            log_det=lambda snr, h: pick(each_log_det(snr, h), -1),
            directions=None if known.basis is None else lambda snr: pick(each_direction(snr), -2),
            basis=known.basis,
            **fields,
        )

    def replicate(r):
        return curve(own[r], own[r].integral, own[r].error, lambda all_of_them, axis: all_of_them.take(r, axis))

    traces = lambda r: lambda snr: np.array([known.trace(level)[r] for level in snr.tolist()])
    own = [Panels(traces(r)) for r in range(REPLICATES)]
    replicates = tuple(map(replicate, range(REPLICATES)))
    each = lambda snr: np.array([one(snr) for one in replicates])
    return curve(
        lambda snr: each(snr).mean(0),
        lambda snr: np.mean([one.integral(snr) for one in own], axis=0),
        lambda snr: np.mean([one.error(snr) for one in own]),
        lambda all_of_them, axis: all_of_them.mean(axis),
        standard_error=lambda snr: each(snr).std(0, ddof=1) / np.sqrt(REPLICATES),
        replicates=replicates,
    )


# Components are drawn by systematic sampling, rare ones more often than they occur. Noise comes in antithetic pairs and
# is the same at every level, so that a replicate is a smooth curve. Replicates are independent, so their spread gives
# the standard error.
class _Draws:
    """Posterior covariances of a mixture at fixed draws, averaged within each replicate, level by level.

    trace (replicates,), along (replicates, d) and spectrum are computed once for each level, from the same draws.
    """

    def __init__(self, components, basis):
        self.components = components
        self.basis = "coordinates" if components.means.shape[1] == 1 else basis
        self.axes = basis
        self.trace, self.along, self.spectrum = map(functools.cache, (self._trace, self._along, self._spectrum))

    @functools.cached_property
    def form(self):
        """How posterior covariances are computed."""
        return form_of(self.components, self.axes)

    @functools.cached_property
    def drawn(self):
        """Components (n,) and normal draws (n, r), replicate after replicate."""
        n, rng = _draws(*self.components.means.shape), np.random.default_rng(0)
        place = (np.arange(n) + rng.uniform(size=(REPLICATES, 1))) / n
        often = np.exp(self.components.log_weights) * (1 if self._often is None else self._often)
        label = np.searchsorted(np.cumsum(often)[:-1], place).ravel()
        return label, rng.standard_normal((len(label), self.form.width))

    @functools.cached_property
    def _often(self):
        """How often components are drawn divided by how often they occur, (K,); None where all ratios are 1.

        Every component is drawn often enough: a rare one can dominate the error.
        """
        weights = np.exp(self.components.log_weights)
        often = np.maximum(weights, 0.5 / len(weights))
        return None if (often == weights).all() else often / often.sum() / weights

    def _importance(self, snr):
        """(replicates, 2, draws): importance weights, the density of an observation over that of its draw, sum 1."""
        often = self._often
        if often is None:
            weight = np.ones((REPLICATES, 2, len(self.drawn[0]) // REPLICATES))
        else:
            weight = 1 / self._of_pairs(lambda y, snr: self.form.expected(often, y, snr), snr)
        return weight / weight.sum((1, 2), keepdims=True)

    def _trace(self, snr):
        return np.einsum("rpn,rpn->r", self._importance(snr), self._of_pairs(self.form.trace, snr))

    def _along(self, snr):
        return np.einsum("rpn,rpnd->rd", self._importance(snr), self._of_pairs(self.form.along, snr))

    def _spectrum(self, snr):
        form, cost = self.form, self.form.cost * 2 * len(self.drawn[0])
        if cost > MOST_WORK:
            raise ValueError(
                f"log det of the posterior covariances of {len(self.components.means)} components in {form.width} "
                f"dimensions would take {cost:.0e} multiplications a level: use moment_matched, or a target that is "
                f"smaller."
            )
        values = self._of_pairs(form.eigenvalues, snr).reshape(REPLICATES, -1, len(form.multiplicity))
        weights = self._importance(snr).reshape(REPLICATES, -1, 1) * form.multiplicity
        return compress(values.reshape(REPLICATES, -1), weights.reshape(REPLICATES, -1))

    def _of_pairs(self, function, snr):
        """function(y, snr) at all observations, (replicates, 2, draws, ...)."""
        label, z = self.drawn
        both = [function(self.form.noised(label, sign * z, snr), snr) for sign in (1, -1)]
        return np.stack([one.reshape(REPLICATES, -1, *one.shape[1:]) for one in both], axis=1)


def _draws(k, d):
    """Draws of one replicate; fewer for many components, since every draw is compared with all of them."""
    n = np.clip(PAIRS // k, LEAST_DRAWS, MOST_DRAWS)
    return int(np.clip(PRODUCTS // (k * d), FEWEST_DRAWS, n)) // REPLICATES
