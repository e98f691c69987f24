"""Plans the sampler whose samples are closest, in W2, to what the same score gives in the limit of many steps.

Three sets of particles take part. Grids are fitted to the first, samplers are chosen by the second, and the third
certifies the choice.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import noise
from jaxdiff.certificate import CONFIDENCE, DISCRETISATION, INITIALISATION, Certificate
from jaxdiff.checks import check_confidence
from jaxdiff.curves import Curve
from jaxdiff.guarantees.certify_w2 import certify_w2, early_stopping_term, measured_term
from jaxdiff.guarantees.end_point_distances import Starts, starts_of
from jaxdiff.planning.goal import check_goal
from jaxdiff.planning.pilots import STEPS, Pilots, pilots_of
from jaxdiff.planning.record import Plan
from jaxdiff.planning.w2_candidates import Contender, Measured, contenders, fitted, least, named, on_grid
from jaxdiff.planning.w2_goal import HORIZON, MOST, bisected, check_feasible, ends_of, unmeasured, unreached, upper
from jaxdiff.processes.default_times import EARLY_STOP
from jaxdiff.progress import bar
from jaxdiff.targets import Target
from jaxdiff.types import Rows, Sampler, Scalar, ScoreFn

PILOTS = 512  # particles of each of the two sets that fit and choose
CERTIFYING = 1024  # particles that certify; more where there are more rows
FITTED_KERNELS = 3  # kernels whose grid is fitted: those that are nearest on named grids
FITTING, CHOOSING, PROVING = 101, 102, 103  # what the keys of the three sets are folded with


class Known(NamedTuple):
    """The inputs of a plan in W2: the score; one of target, rows (n, d) and dim; and a curve or None."""

    score: ScoreFn
    target: Target | None
    rows: Rows | None
    dim: Any
    curve: Curve | None

    @property
    def law(self) -> dict[str, Any]:
        """The arguments target, rows and dim of certify_w2; two of them are None."""
        return {"target": self.target, "rows": self.rows, "dim": self.dim}


@dataclasses.dataclass(frozen=True, eq=False)
class _Task:
    """A plan while it is made: what is known, the contenders, the two sets of pilots, and what they measured so far."""

    known: Known
    found: list[Contender]
    choosing: Pilots
    fitting: Pilots
    key: Any
    confidence: float | int
    progress: bool

    @functools.cached_property
    def _done(self) -> dict[Any, Any]:
        return {}

    def _once(self, make, *place):
        if place not in self._done:
            self._done[place] = make()
        return self._done[place]

    def fit(self, contender, evals):
        """The contender on a grid fitted to the fitting pilots, run by the choosing ones; None where it has no grid."""
        place = contender.kernel if contender.kernel.noises_per_step else "ode"
        reference = self._once(lambda: self.fitting.reference(contender.kernel), place)
        fit = fitted(dataclasses.replace(contender, reference=reference), evals, self.fitting)
        return None if fit is None else on_grid(contender, fit.shape, fit.grid, self.choosing)

    def best(self, evals, fits=FITTED_KERNELS):
        """The contenders with this many evaluations, each on its best grid, nearest first."""
        every = [
            one
            for i, contender in enumerate(self.found)
            for one in self._once(lambda contender=contender: named(contender, evals, self.choosing), "named", i, evals)
        ]
        first = [one.contender for one in least(every) if math.isfinite(one.distance)][:fits]
        for contender in bar(first, f"fit grids, {evals} evaluations", enabled=self.progress and bool(fits)):
            fit = self._once(lambda contender=contender: self.fit(contender, evals), "fit", id(contender), evals)
            every += [] if fit is None else [fit]
        ranked = least(every)
        if not ranked or not math.isfinite(ranked[0].distance):
            raise unmeasured(ranked, evals)
        return ranked

    def certified(self, one: Measured, attempt=0) -> Certificate:
        """The certificate of a sampler, by particles that neither fitted nor chose; each attempt has its own."""
        sampler = Sampler(one.contender.kernel, one.grid)
        key = jax.random.fold_in(self.key, PROVING + attempt)
        options = {"particles": CERTIFYING, "confidence": self.confidence, "reference_steps": STEPS}
        return certify_w2(sampler, key, **self.known.law, **options)


def w2_plan(
    target_w2: Scalar | None,
    evals: Scalar | None,
    known: Known,
    *,
    horizon: Scalar | None = None,
    early_stop: Scalar | None = None,
    kernel: str | None = None,
    confidence: float | int | None = None,
    key: Any = None,
    progress: bool = False,
) -> Plan:
    """The plan for samples: see jaxdiff.plan with metric="w2"."""
    check_goal(target_w2, evals, "target_w2", "units of W2")
    confidence = CONFIDENCE if confidence is None else confidence
    check_confidence(confidence)
    key = jax.random.key(0) if key is None else key
    early = EARLY_STOP if early_stop is None else early_stop
    starts = starts_of(np.array([HORIZON, early]), key, known.target, known.rows, known.dim, PILOTS)
    horizon, early_stop = ends_of(known.score, starts, horizon, early_stop)
    starts = starts_of(np.array([horizon, early_stop]), key, known.target, known.rows, known.dim, PILOTS)
    if target_w2 is not None:
        check_feasible(target_w2, starts, early_stop, confidence)
    sets = [_pilots(starts, horizon, early_stop, jax.random.fold_in(key, one)) for one in (FITTING, CHOOSING)]
    track = lambda names: bar(names, "run references", enabled=progress)
    found = contenders(known.score, known.curve, sets[1], kernel, track)
    task = _Task(known, found, sets[1], sets[0], key, confidence, progress)
    if evals is not None:
        ranked = task.best(int(evals))
        return _record(known, ranked, task.certified(ranked[0]))
    return _record(known, *_fewest(task, float(target_w2), _others(task, starts)))  # pyright: ignore


def _pilots(starts, horizon, early_stop, key):
    x = noise.initial(key, jnp.arange(PILOTS), starts.z.shape[1], starts.z.dtype)
    return pilots_of(x, horizon, early_stop, key)


def _others(task, starts: Starts):
    """What early stopping and initialisation cost, at the upper ends of their intervals."""
    costs = upper(early_stopping_term(starts, float(task.choosing.fine[-1]), 1.0), task.confidence)
    if starts.x0 is None:
        return costs
    kernel, places = task.found[0].kernel, np.arange(STEPS + 1)[::4]
    runs = [Pilots(x, task.choosing.fine, task.key) for x in (starts.x, starts.z)]
    from_rows, from_noise = (one.ends(kernel, one.fine[::4], places) for one in runs)
    squares = np.sum((from_rows - from_noise) ** 2, axis=1)
    return costs + upper(measured_term(INITIALISATION, squares, starts.rows, ""), task.confidence)


def _fewest(task, target_w2, others):
    """(samplers ranked, certificate) of the fewest evaluations whose certificate meets the target."""

    def reaches(ranked):
        term = measured_term(DISCRETISATION, ranked[0].squares, None, "")
        return upper(term, task.confidence) + ranked[0].contender.reference.error + others <= target_w2

    high, least_evals = 2, min(one.kernel.evals_per_step for one in task.found)
    while not reaches(task.best(max(high, least_evals), fits=0)):
        high *= 2
        if high > MOST:
            raise unreached(target_w2, task.best(MOST, fits=0)[0], others)
    low = high // 2
    low, high = bisected(low, high, lambda n: reaches(task.best(n, fits=0)))
    low, high = bisected(max(least_evals - 1, high // 2), high, lambda n: reaches(task.best(n, fits=1)))
    for attempt in range(MOST):
        ranked = task.best(high)
        certificate = task.certified(ranked[0], attempt)
        # Each attempt has half the level of the one before, so that any of them passes by chance with the level itself.
        stricter = dataclasses.replace(certificate, confidence=1 - (1 - task.confidence) / 2 ** (attempt + 1))
        if stricter.known_upper <= target_w2:
            return ranked, certificate
        high += max(1, high // 8)
        if high > MOST:
            raise unreached(target_w2, ranked[0], others)
    raise AssertionError


def _record(known: Known, ranked, certificate) -> Plan:
    best, *others = ranked
    matched = best.contender.name == "moment_matched"
    basis = known.curve.basis if matched and known.curve is not None and known.curve.dim > 1 else None
    return Plan(
        float(best.grid[0]),
        best.grid,
        best.contender.name,
        best.evals,
        certificate,
        tuple(one.to_dict() for one in others),
        basis,
        curve=known.curve if matched else None,
        options=best.contender.options,
    )
