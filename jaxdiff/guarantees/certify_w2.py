"""Bounds the W2 distance of samples from what the same score gives in the limit of many steps, and from the data."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxdiff import events, noise
from jaxdiff.certificate import (
    CONFIDENCE,
    DISCRETISATION,
    EARLY_STOPPING_W2,
    INITIALISATION,
    REFERENCE,
    SCORE_ERROR,
    UNKNOWN,
    W2,
    Certificate,
    Term,
)
from jaxdiff.checks import check_confidence, check_whole, described
from jaxdiff.grids import check_grid
from jaxdiff.guarantees.end_point_distances import (
    FEWEST,
    SETTLED,
    Starts,
    ends_of,
    gaps_of,
    halving,
    parts_of,
    starts_of,
)
from jaxdiff.guarantees.exact_w2 import exact_terms
from jaxdiff.guarantees.path_kl import standard_error
from jaxdiff.guarantees.two_sample import two_sample_terms
from jaxdiff.intervals import doubts, skewness
from jaxdiff.processes import ou
from jaxdiff.targets import Target
from jaxdiff.types import Numbers, Rows, Sampler, Whole

PARTICLES = 2048  # the standard error of the mean square is then about 3 % of it for Gaussian differences
REFERENCE_STEPS = 512  # the reference has at least so many steps


def certify_w2(
    sampler: Any,
    key: noise.KeyLike,
    *,
    target: Target | None = None,
    rows: Rows | None = None,
    dim: Whole | Sequence[Whole] | None = None,
    particles: Whole = PARTICLES,
    reference_steps: Whole = REFERENCE_STEPS,
    scale: Numbers = 1.0,
    confidence: float | int = CONFIDENCE,
) -> Certificate:
    """The terms of an upper bound on W2(law of the samples, data), measured by running pairs of particles together.

    W2 is at most the root mean square distance under any coupling. A particle of the sampler and one of a fine
    reference of the same score start at one point and follow one Brownian path, and their distance at the end is
    measured. This needs no Lipschitz constant, and holds for every kernel and every score. For an ODE kernel the
    reference is UniPC of order 3; for a kernel with noise it is the same kernel with smaller steps.

    Args:
      sampler: a kernel and its grid, in OU time. The kernel's score is the one that is certified.
      key: a JAX key for starts, noise and rows.
      target: a known law, whose exact score the sampler has. Or give rows, or dim.
      rows: (n, d) or (n, *event) independent rows of the data that did not train the score. A score that is
        scores.conditioned on a label for each row gives the samples of each row its label.
      dim: d or the shape of an event, where neither target nor rows is given. Initialisation and early stopping are
        then unknown.
      particles: how many pairs are run. With rows each row starts particles / n of them, rounded up.
      reference_steps: the reference has at least so many steps: those of the grid, divided into 4, 8, 16, ... parts.
      scale: a number or (d,) or (*event,), the data's units in those of the rows: distances are those of scale times x.
      confidence: that of the intervals, between 0 and 1.

    Returns:
      A Certificate in units of W2, whose terms add up by the triangle inequality. "discretisation" is the distance from
      the reference, "reference" what the reference itself may be off by, from a halving of its steps; "initialisation"
      the distance between runs from noised rows and from noise alone. "score error" is 0 for a target, and else
      unknown. With rows the certificate also lists two distances of the reference from the noised rows: sliced W2 and
      energy distance. Each source says which distance samples of equal laws have. These two are no part of the sum.
      They show the error of the score and do not bound it. `certify_score_error` bounds that error from below. For a
      normal law, and for an ODE kernel on a law on the line, the certificate also has the exact distance, "exact W2".

    Raises:
      TypeError: sampler is not a Sampler.
      ValueError: not exactly one of target, rows and dim is given; fewer than 8 rows; a grid in the kernel's own time;
        a bad number of particles or steps; end points that are not finite, with the time and the share of particles.
    """
    check = {"particles": particles, "reference_steps": reference_steps, "confidence": confidence}
    return certificates_w2(sampler, key, target=target, rows=rows, dim=dim, scales=(scale,), **check)[0]


def certificates_w2(
    sampler: Any,
    key: noise.KeyLike,
    *,
    target: Target | None,
    rows: Rows | None,
    dim: Whole | Sequence[Whole] | None,
    particles: Whole,
    reference_steps: Whole,
    scales: Sequence[Numbers],
    confidence: float | int,
) -> list[Certificate]:
    """The certificates of `certify_w2` in several units, from the same runs: one for each of `scales`."""
    if not isinstance(sampler, Sampler):
        raise TypeError(f"sampler must be a Sampler, as Sampler(kernel, grid): it is {described(sampler)}.")
    if sum(one is not None for one in (target, rows, dim)) != 1:
        raise ValueError(
            "give exactly one of target= (exact score), rows= (of the data) and dim= (nothing else known)."
        )
    check_confidence(confidence)
    check_whole(particles, "particles", least=FEWEST)
    check_whole(reference_steps, "reference_steps")
    kernel, grid = sampler
    if kernel.own_clock:
        raise ValueError(f"a certificate in W2 needs a grid in OU time: that of {kernel.name} is its own running time.")
    grid = check_grid(grid)
    score, rows, dim = events.by_rows(kernel.score, rows, dim)
    kernel = dataclasses.replace(kernel, score=score)
    starts = starts_of(grid, key, target, rows, dim, int(particles))
    ends = ends_of(kernel, grid, starts, key, parts_of(grid, int(reference_steps)))
    subject = f"W2(data, {kernel.name} in {len(grid) - 1} steps)"
    assumptions = () if rows is None else ("rows of the data are independent; intervals are asymptotic",)
    found = []
    for scale in (np.ravel(scale) if np.ndim(scale) > 1 else scale for scale in scales):
        gaps, t = gaps_of(ends, scale), float(grid[-1])
        terms = [measured_term(DISCRETISATION, gaps.coarse, starts.rows, f"distance from {gaps.reference}")]
        terms += [_reference(gaps, starts.rows), _initialisation(gaps, starts), _score_error(target)]
        terms += [
            early_stopping_term(starts, t, scale),
            *two_sample_terms(ends, starts, grid, key, scale),
            *exact_terms(kernel, grid, target, scale),
        ]
        joint = joint_of(_summed(gaps, starts, t, scale), starts.rows)
        more = {"unit": W2, "dim": ends.coarse.shape[1], "joint": joint}
        found.append(Certificate(subject, tuple(terms), confidence, assumptions, _warnings(gaps, starts), **more))
    return found


# Rows are independent of each other. Particles that start from the same row are not.
def _units(squares, rows):
    """(n,) independent means of squares: those of each row, or of each particle."""
    return squares if rows is None else squares.reshape(-1, rows).mean(0)


def measured_term(name: str, squares: Any, rows: int | None, source: str) -> Term:
    """The Term of a root mean square distance, from squared distances (n,); rows: how many of these are independent."""
    units = _units(squares, rows)
    value, error = math.sqrt(np.mean(units)), standard_error(units)
    options = {"degrees": len(units) - 1, "skewness": skewness(units), "root": True}
    return Term(name, value, error, "measured", f"{source}; {len(squares)} particles", unit=W2, **options)


# To first order the root of a mean of squares s moves with the mean of s/(2 root). The sum of several roots, measured
# on the same particles, moves with the mean of the sum of these.
def joint_of(measured: Sequence[Any], rows: int | None) -> float:
    """The standard error of a sum of root mean squares over the sum of their standard errors, at most 1.

    measured: squared distances (n,) of the same particles, one array for each root; rows: as in `measured_term`.
    """
    units = [_units(squares, rows) for squares in measured]
    slopes = [unit / (2 * math.sqrt(np.mean(unit))) for unit in units if np.any(unit)]
    apart = sum(map(standard_error, slopes))
    return standard_error(sum(slopes)) / apart if apart > 0 else 1.0


def _summed(gaps, starts, t, scale):
    """The squared distances (n,) of the known terms."""
    found, ratio = [gaps.coarse], _ratio(gaps)
    if ratio > SETTLED:
        found.append(_left_by_reference(gaps, ratio))
    return found if starts.x0 is None else [*found, gaps.start, _early_stopping(starts, t, scale)]


# Let r be the distance of the reference from a run with half its steps, and q the factor by which such a halving lowers
# the distance. Twice, four times, ... as many steps would move the end points by r/q, r/q^2, ..., which is r/(q - 1) in
# all. The term is never less than r.
def _reference(gaps, rows):
    """What the reference may be off by, from a halving of its steps."""
    ratio = _ratio(gaps)
    gain = f"a halving gains a factor of {ratio:.3g}" if ratio < math.inf else "a rounding error"
    said = f"its distance from half its steps; {gain}"
    if not ratio > SETTLED:
        return Term(REFERENCE, math.nan, 0.0, UNKNOWN, f"{said}: not converged", unit=W2)
    return measured_term(REFERENCE, _left_by_reference(gaps, ratio), rows, said)


def _left_by_reference(gaps, ratio):
    return gaps.fine / min(1.0, ratio - 1) ** 2


def _ratio(gaps):
    return halving(gaps.fine, gaps.halves, gaps.rounding)


def _initialisation(gaps, starts):
    if starts.x0 is None:
        return Term(INITIALISATION, math.nan, 0.0, UNKNOWN, "needs rows= of the data, or target=", unit=W2)
    return measured_term(
        INITIALISATION, gaps.start, starts.rows, "distance of runs from noised rows and from noise alone"
    )


def _score_error(target):
    if target is None:
        how = "distance of the reference from the data at the early stop"
        return Term(SCORE_ERROR, math.nan, 0.0, UNKNOWN, how, unit=W2)
    return Term(SCORE_ERROR, 0.0, 0.0, "assumed", "the score is the target's own", unit=W2)


def early_stopping_term(starts: Starts, t: float, scale: Any) -> Term:
    """The Term of an early stop at OU time t: the root mean square distance of X_0 and the X_t made from it."""
    if starts.x0 is None:
        return Term(EARLY_STOPPING_W2, math.nan, 0.0, UNKNOWN, "needs rows= of the data, or target=", unit=W2)
    source = "distance of X_0 and the X_t made from it"
    return measured_term(EARLY_STOPPING_W2, _early_stopping(starts, t, scale), starts.rows, source)


def _early_stopping(starts, t, scale):
    """(n,) squared distances of X_0 and X_t, averaged over the noise."""
    scale = np.broadcast_to(np.asarray(scale, np.float64), starts.x0.shape[1])
    squares = np.sum((scale * np.asarray(starts.x0, np.float64)) ** 2, axis=1)
    return (1 - ou.alpha(t)) ** 2 * squares + ou.sigma(t) ** 2 * np.sum(scale**2)


def _warnings(gaps, starts):
    """Sentences on a reference that has not converged, and on squares with heavy tails."""
    found, units = (), _units(gaps.coarse, starts.rows)
    if np.any(units) and doubts(units):
        most = np.sort(units)[-math.ceil(len(units) / 100) :]
        found = (
            f"the interval of the discretisation may cover less than it says: the largest 1 % of the squared distances "
            f"make up {most.sum() / units.sum():.0%} of their sum; take more {'rows' if starts.rows else 'particles'}",
        )
    ratio = _ratio(gaps)
    if not ratio > SETTLED:
        found += (
            f"the reference has not converged: a halving of its steps lowers its distance by a factor of {ratio:.3g} "
            f"only, so there is no limit to certify against; take more reference_steps=, or a kernel that converges",
        )
    return found
