"""Samplers of one trained model, measured on data that neither the model nor the grids have seen."""

import dataclasses
import functools
import math
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import kernels
from jaxdiff.app.run_folder import IN_AXES_FROM, Run
from jaxdiff.certificate import BELOW_ZERO, CONFIDENCE, DISCRETISATION, Certificate, rows_to_tell, with_interval
from jaxdiff.curves import Curve, MeasuredCurve
from jaxdiff.curves.measured import GROUPS
from jaxdiff.grids import exponential_then_uniform
from jaxdiff.guarantees.certify import DIFFERENCE, certify, in_groups, measured_term
from jaxdiff.guarantees.path_kl import (
    PER_DIRECTION,
    interpolation_error,
    label_of,
    path_kl,
    path_kl_samples,
    sampler_of,
)
from jaxdiff.intervals import copies, doubts, independent, row_ids
from jaxdiff.metrics import CLASSIFIER, Estimate, classifier_accuracy, sliced_w2
from jaxdiff.planning.best_grid import Search
from jaxdiff.planning.goal import steps_to_reach
from jaxdiff.planning.plan import WIDEST
from jaxdiff.processes import forward, score_from_denoiser
from jaxdiff.progress import bar
from jaxdiff.sampling.sample import sample
from jaxdiff.scores import denoiser_in_axes, denoiser_of
from jaxdiff.types import DenoiserFn

BENTON, PLANNED = "Benton", "planned"
SAMPLERS = (
    ("exponential_euler", BENTON),
    ("ancestral", BENTON),
    ("ancestral", PLANNED),
    ("moment_matched", PLANNED),
    (PER_DIRECTION, PLANNED),
    ("ddim", PLANNED),
)
HEADLINE_STEPS = 20
FEWEST_ROWS = 30  # independent test rows from which on a ratio is given
MOST_STEPS = 20_000  # of exponential Euler, that are counted
BISECTIONS = 40  # of the ends of a ratio
BATCHES = 4  # of as many samples as there are test rows: their spread is the standard error


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """What is compared: a denoiser, its loss curves on held-out rows (to plan) and on test rows (to measure).

    in_axes: the denoiser in the coordinates of axes, and the axes, which are the basis of the held-out curve; or None.
    """

    denoiser: DenoiserFn
    held_out: Curve
    test: Curve
    train_rows: np.ndarray
    test_rows: np.ndarray
    horizon: float
    early_stop: float
    per_direction: bool = True  # whether the plan has a variance for each direction, where the curves have a basis
    in_axes: tuple[DenoiserFn, np.ndarray] | None = None

    @functools.cached_property
    def _curve_in_axes(self):
        """The held-out curve in the coordinates of `in_axes`; one object, so that its kernels recompile nothing."""
        return dataclasses.replace(self.held_out, basis="coordinates")

    def grid(self, name, grid_name, n_steps):
        """Benton's grid, or the optimal one for the sampler by the held-out curve; DDIM runs on moment matching's."""
        if grid_name == BENTON:
            return exponential_then_uniform(self.horizon, self.early_stop, n_steps)
        kernel_name, basis = sampler_of(name if name != "ddim" else "moment_matched", self.held_out)
        return Search(kernel_name, self.held_out, basis).best(n_steps, self.horizon, self.early_stop)

    @property
    def samplers(self):
        """Those of SAMPLERS that the curves allow."""
        return [one for one in SAMPLERS if one[0] != PER_DIRECTION or self.held_out.basis is not None]

    @property
    def planned(self):
        """The name of the sampler that is planned for: moment matching, in the held-out curve's basis or without."""
        return PER_DIRECTION if self.per_direction and self.held_out.basis is not None else "moment_matched"

    def kernel(self, name):
        """The kernel, in the coordinates of `in_axes`; moment matching's variance is set from the held-out curve."""
        curve = self.held_out if self.in_axes is None else self._curve_in_axes
        kernel_name, basis = sampler_of(name, curve)
        score = score_from_denoiser(self.denoiser if self.in_axes is None else self.in_axes[0])
        if kernel_name == "moment_matched":
            return kernels.moment_matched(score, curve, basis=basis)
        return getattr(kernels, kernel_name)(score)

    def excess(self, name, grid):
        """Discretisation excess of path KL by the test rows, nats; None for an ODE, which has no path law."""
        if name == "ddim":
            return None
        kernel_name, basis = sampler_of(name, self.test)
        term = certify(kernel_name, grid, curve=self.test, matched=self.held_out, basis=basis)[DISCRETISATION]
        return Estimate(term.value, term.standard_error)


def subject_of(run: Run, held_out: Curve, test: Curve) -> Subject:
    """The subject of a run folder and its two loss curves."""
    rows, in_axes = run.dataset, None
    if rows.dim >= IN_AXES_FROM:
        in_axes = denoiser_in_axes(run.network)
        in_axes = in_axes if np.array_equal(in_axes[1], held_out.basis) else None
    of_rows = (rows.train, rows.test, run.horizon, run.early_stop)
    return Subject(denoiser_of(run.network), held_out, test, *of_rows, in_axes=in_axes)


def certified(run: Run, plan, held_out: Curve, test: Curve, *, confidence=0.95, progress=False):
    """The report of a run, JSON data: every sampler's row, the noise floor, the step ratio, the plan's certificate."""
    subject, key = subject_of(run, held_out, test), run.key("compare")
    subject = dataclasses.replace(subject, per_direction=plan["per_direction"])
    moment = run.dataset.second_moment("test")
    basis = test.basis if plan["per_direction"] else None
    known = {"curve": test, "matched": held_out, "basis": basis, "second_moment": moment}
    planned = certify(plan["kernel"], plan["grid"], confidence=confidence, **known)
    rows = compare(subject, key, planned=plan["evals"], progress=progress)
    excess = _excesses(subject, HEADLINE_STEPS)
    return {
        "data": run.dataset.name,
        "rows": rows,
        "noise_floor": noise_floor(subject, key, progress=progress),
        "step_ratio": step_ratio(subject, HEADLINE_STEPS, confidence=confidence, excess=excess),
        "plan": {name: plan[name] for name in ("kernel", "per_direction", "evals", "horizon", "predicted_kl")},
        "certificate": planned.to_dict(),
        "certificate_text": str(planned),
        "summary": [
            _gains(subject, excess, confidence),
            _difference(subject, excess, confidence),
            *_verdict(plan, planned),
        ],
        "notes": _notes(subject, rows),
    }


class _Excess(NamedTuple):
    """A sampler's excess by the test rows: value, independent samples, and how far interpolation may move it.

    The integral of the loss, whose error is `bias_of_integral`, is the same for every sampler.
    """

    value: float
    samples: np.ndarray
    bias: float
    bias_of_integral: float


def _excess(subject, name, grid):
    kernel, basis = sampler_of(name, subject.test)
    asked = {"matched": subject.held_out if kernel == "moment_matched" else None, "basis": basis}
    samples, value = path_kl_samples(kernel, grid, subject.test, **asked), path_kl(kernel, grid, subject.test, **asked)
    bias = interpolation_error(kernel, grid, subject.test, **asked, integral=False)
    without, whole = (interpolation_error("ancestral", grid, subject.test, integral=each) for each in (False, True))
    return _Excess(value, samples, bias, whole - without)


def _excesses(subject, n_steps):
    """(name, grid name) -> the sampler's _Excess at n_steps, each measured once."""
    return functools.cache(lambda name, grid_name: _excess(subject, name, subject.grid(name, grid_name, n_steps)))


def _interval(subject, confidence, *weighted):
    """A sum of (weight, excess): its value and the ends of its interval, paired by rows or by groups of them."""
    value, size = sum(weight * one.value for weight, one in weighted), min(len(one.samples) for _, one in weighted)
    if size == 0:
        return value, value, value
    samples = sum(weight * in_groups(one.samples, size) for weight, one in weighted)
    ids = getattr(subject.test, "row_ids", None)
    units = samples if ids is None or size != len(ids) else independent(samples, ids)
    bias = sum(abs(weight) * one.bias for weight, one in weighted)
    bias += abs(sum(weight for weight, _ in weighted)) * weighted[0][1].bias_of_integral
    term = measured_term(DIFFERENCE, value, units, "", bias=bias)
    return value, *map(float, Certificate("", (term,), confidence).interval(DIFFERENCE))


def _independent_rows(subject):
    """Test rows without copies; None for a curve that is known exactly."""
    if not isinstance(subject.test, MeasuredCurve):
        return None
    unit = copies(subject.test.row_ids)
    return subject.test.n if unit is None else int(unit.max()) + 1


# Fieller's interval, found by trial: the ratios r for which the interval of first - r second contains 0. It is finite
# where the interval of the second is above 0.
def _ratio(subject, confidence, first, second):
    """first/second and the ends of its interval; None where the rows do not tell either of them from 0."""
    n = _independent_rows(subject)
    if n is not None and n < FEWEST_ROWS:
        return None
    if min(_interval(subject, confidence, (1, one))[1] for one in (first, second)) <= 0:
        return None
    end_at = lambda end, r: _interval(subject, confidence, (1, first), (-r, second))[end]
    best, ends = first.value / second.value, []
    for end in (1, 2):
        low, high = 0.0, 2 * best
        while end_at(end, high) > 0:
            low, high = high, 2 * high
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            low, high = (middle, high) if end_at(end, middle) > 0 else (low, middle)
        ends.append(high)
    return best, *ends


def _gains(subject, excess, confidence):
    """Ratios of excesses at HEADLINE_STEPS with their intervals, those that the rows carry."""
    moment_matched = ["moment_matched", PER_DIRECTION][: 2 if subject.planned == PER_DIRECTION else 1]
    asked = [("ancestral", PLANNED, "ancestral", BENTON)]
    asked += [("exponential_euler", BENTON, name, PLANNED) for name in moment_matched]
    texts = []
    for name, grid_name, other, other_grid in asked:
        found = _ratio(subject, confidence, excess(name, grid_name), excess(other, other_grid))
        if found is not None:
            whose = "its own excess" if other == name else f"the excess of {label_of(other)}"
            texts.append(
                f"{label_of(name)} on {_grid_of(grid_name)} has {with_interval(*found)} times {whose} on "
                f"{_grid_of(other_grid)}"
            )
    said = [f"At {HEADLINE_STEPS} steps, {'; '.join(texts)} ({confidence:.0%} intervals)."] if texts else []
    if len(texts) < len(asked):
        rest = "other ratio" if texts else "ratio"
        said.append(f"The test rows carry no {rest} of excesses at {HEADLINE_STEPS} steps.")
    return " ".join(said)


def _grid_of(grid_name):
    return "Benton's grid" if grid_name == BENTON else "its planned grid"


def _difference(subject, excess, confidence):
    """How far the planned sampler is below exponential Euler on Benton's grid, measured row by row."""
    pair = (1, excess("exponential_euler", BENTON)), (-1, excess(subject.planned, PLANNED))
    value, low, high = _interval(subject, confidence, *pair)
    planned, other = f"{label_of(subject.planned)} on its planned grid", "exponential Euler's on Benton's"
    if low <= 0 <= high:
        return (
            f"The test rows, paired, do not tell the path KL of {planned} from {other}: the difference is {-value:.3g} "
            f"nats, {confidence:.0%} [{-high:.4g}, {-low:.4g}]."
        )
    side, ends = ("below", (low, high)) if value > 0 else ("above", (-high, -low))
    return (
        f"On the test rows, paired, the path KL of {planned} is {with_interval(abs(value), *ends)} nats {side} {other} "
        f"({confidence:.0%} interval)."
    )


def _verdict(plan, certificate):
    """Whether the accuracy that was asked for was reached on the test rows, where one was."""
    if plan["target_kl"] is None:
        return []
    other = certificate.known - certificate[DISCRETISATION].value
    low, high = (end + other for end in certificate.interval(DISCRETISATION))
    shown = "met" if high <= plan["target_kl"] else "missed" if low > plan["target_kl"] else "not shown to be met"
    return [
        f"Asked for {plan['target_kl']:g} nats; the test rows give {certificate.known:.4g}, "
        f"{certificate.confidence:.0%} [{low:.4g}, {high:.4g}]: {shown}."
    ]


def _notes(subject, rows):
    n = len(subject.test_rows)
    low = any(row["excess"] is not None and row["excess"]["value"] < 0 for row in rows)
    return [
        f"Excess: what discretisation adds to the path KL, and the path KL bounds the samples' KL; from the losses on "
        f"{n} test rows, ± one standard error over rows, or over {GROUPS} groups of them per direction. The network's "
        f"own error comes on top: it is the same for every row of the table and cannot be known from data. DDIM is an "
        f"ODE: it has no path law to compare.",
        *([BELOW_ZERO] if low else []),
        f"Sliced W2 (standardised columns) and accuracy: means over {BATCHES} batches of {n} samples against the test "
        f"rows noised to t = {subject.early_stop:g}; ± is one standard error over batches, without the test rows' "
        f"own, which every row of the table shares. Classifier: {CLASSIFIER}.",
        f"Seconds: one batch of {n} samples, compiled, on {jax.default_backend()} with jax {jax.__version__}.",
        "A smaller excess is a better guarantee, not always better-looking samples: compare the columns.",
    ]


def compare(subject: Subject, key, *, n_steps=(10, 20, 50, 200), planned=None, progress=False):
    """A row for every sampler and number of steps: excess, sliced W2, classifier accuracy, evaluations, seconds.

    Args:
      subject: what is compared.
      key: for start, noise and directions.
      n_steps: of every sampler.
      planned: of moment matching on its planned grid alone, one more row, first, unless it is in n_steps.
      progress: show a bar.

    Returns:
      A list of dicts, JSON data. sliced_w2 and accuracy are against the test rows noised to early_stop, means over
      BATCHES batches of as many samples as test rows; seconds are for one such batch, compiled, median of the batches.
    """
    judge = _Judge(subject, key)
    work = [(n, *sampler) for n in n_steps for sampler in subject.samplers]
    if planned is not None and planned not in n_steps:
        work.insert(0, (planned, subject.planned, PLANNED))
    return [_row(subject, judge, key, *item) for item in bar(work, "compare samplers", enabled=progress)]


def noise_floor(subject: Subject, key, *, progress=False):
    """The two-sample numbers of train rows against test rows, disjoint batches of as many as test rows."""
    judge, n = _Judge(subject, key), len(subject.test_rows)
    z = jax.random.normal(jax.random.fold_in(key, 1), subject.train_rows.shape, jnp.float32)
    rows = np.asarray(forward(jnp.asarray(subject.train_rows), subject.early_stop, z))
    firsts = range(0, max(len(rows) - n, 0) + 1, n)
    batches = [rows[first : first + n] for first in firsts]
    clean = [subject.train_rows[first : first + n] for first in firsts]
    return judge(bar(batches, "noise floor", enabled=progress), clean)


# The interval holds the numbers of steps n for which the rows, paired, do not tell exponential Euler's excess in n
# steps from the planned sampler's. It has an upper end only where the planned sampler's own interval is above 0.
def step_ratio(subject: Subject, n_steps, *, confidence=CONFIDENCE, excess=None):
    """How many times more steps exponential Euler on Benton's grid takes to the excess of the planned sampler.

    Args:
      subject: what is compared.
      n_steps: of the planned sampler.
      confidence: of the intervals.
      excess: (name, grid name) -> excess at n_steps, where it is measured already.

    Returns:
      A dict, JSON data: the planned sampler's excess, exponential_euler_steps and ratio, each with its interval.
      `withheld` says why there is no ratio, or is None: "few" (there are fewer than FEWEST_ROWS test rows), "zero" (the
      rows do not tell the excess from 0), "wide" (the ends of the interval are further apart than a factor of WIDEST),
      "no fewer" (the interval holds a ratio of 1) or "none" (no number of steps tried is enough). `rows_needed` is how
      many test rows would carry the ratio, where that can be said. `heavy_tails`: the interval may cover less.
    """
    planned = (excess or _excesses(subject, n_steps))(subject.planned, PLANNED)
    euler = lambda n: _excess(subject, "exponential_euler", subject.grid("exponential_euler", BENTON, n))
    gap = functools.cache(lambda n: _interval(subject, confidence, (1, euler(n)), (-1, planned)))
    value, low, high = _interval(subject, confidence, (1, planned))
    fewest, needed, most = (
        steps_to_reach(0.0, lambda n, end=end: gap(n)[end], most=MOST_STEPS)
        if of_planned > 0
        else None  # no number of steps reaches an excess of 0
        for end, of_planned in ((1, high), (0, value), (2, low))
    )
    n, withheld = _independent_rows(subject), None
    if n is not None and n < FEWEST_ROWS:
        withheld = "few"
    elif low <= 0:
        withheld = "zero"
    elif needed is None or fewest is None:
        withheld = "none"
    elif most is None or most > WIDEST * fewest:
        withheld = "wide"
    elif fewest <= n_steps:
        withheld = "no fewer"
    ends = [fewest, most]
    return {
        "n_steps": n_steps,
        "sampler": subject.planned,
        "excess": float(value),
        "excess_interval": [low, high],
        "exponential_euler_steps": None if withheld else needed,
        "exponential_euler_steps_interval": ends,
        "ratio": None if withheld or needed is None else needed / n_steps,
        "ratio_interval": [end and end / n_steps for end in ends],
        "confidence": confidence,
        "withheld": withheld,
        "rows": n,
        "rows_needed": _rows_needed(withheld, n, value, low, ends),
        "heavy_tails": _heavy_tails(subject, n_steps),
    }


def _rows_needed(withheld, n, value, low, ends):
    if n is None or withheld not in ("few", "zero", "wide"):
        return None
    if low <= 0:
        needed = rows_to_tell(n, value - low, value) if value > 0 else None
    else:
        needed = None if None in ends else rows_to_tell(n, math.log(ends[1] / ends[0]), math.log(WIDEST))
    return max(needed or 0, FEWEST_ROWS) if withheld == "few" else needed


def _heavy_tails(subject, n_steps):
    """Whether the rows' own path KLs give doubts in an asymptotic interval; of groups of rows that cannot be seen."""
    if not isinstance(subject.test, MeasuredCurve):
        return False
    grid = subject.grid("moment_matched", PLANNED, n_steps)
    samples = path_kl_samples("moment_matched", grid, subject.test, matched=subject.held_out)
    ids = subject.test.row_ids
    return bool(doubts(samples if ids is None else independent(samples, ids)))


@dataclasses.dataclass(frozen=True, eq=False)
class _Judge:
    subject: Subject
    key: jax.Array

    def __call__(self, batches, clean=None):
        """Sliced W2 and accuracy of batches against the noised test rows, each a mean with its standard error.

        clean: the rows of each batch before noise was added to them, where they are rows of data. Rows of data that
        were equal before are copies; samples of a model are not.
        """
        key_noise, key_slices = jax.random.split(jax.random.fold_in(self.key, 0))
        rows = jnp.asarray(self.subject.test_rows)
        test = np.asarray(forward(rows, self.subject.early_stop, jax.random.normal(key_noise, rows.shape, rows.dtype)))
        distances, accuracies = [], []
        for i, batch in enumerate(batches):
            own = self.subject.test_rows[: len(batch)]
            ids = row_ids(own if clean is None else np.concatenate([clean[i], own]))
            ids = np.concatenate([-1 - np.arange(len(batch)), ids]) if clean is None else ids
            distances.append(sliced_w2(batch, test, key_slices).value)
            accuracies.append(classifier_accuracy(batch, test[: len(batch)], seed=i, row_ids=ids).value)
        return {"sliced_w2": _mean(distances)._asdict(), "accuracy": _mean(accuracies)._asdict()}


def _mean(values):
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return Estimate(float(np.mean(values)), float(error))


def _row(subject, judge, key, n_steps, name, grid_name):
    grid, kernel = subject.grid(name, grid_name, n_steps), subject.kernel(name)
    batches, seconds = zip(
        *(_batch(subject, kernel, grid, jax.random.fold_in(key, 100 + i)) for i in range(BATCHES)), strict=True
    )
    excess = subject.excess(name, grid)
    return {
        "kernel": name,
        "grid": grid_name,
        "n_steps": n_steps,
        "excess": excess and excess._asdict(),
        **judge(batches),
        "evals": n_steps * kernel.evals_per_step,
        "seconds": float(np.median(seconds[1:])),
    }


def _batch(subject, kernel, grid, key):
    key_start, key_run = jax.random.split(key)
    x = jax.random.normal(key_start, subject.test_rows.shape, jnp.float32)  # in any coordinates
    started = time.perf_counter()
    x = np.asarray(jax.block_until_ready(sample(kernel, x, grid, key_run)))
    seconds = time.perf_counter() - started
    return x if subject.in_axes is None else (x @ subject.in_axes[1].T).astype(x.dtype), seconds
