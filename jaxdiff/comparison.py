"""Samplers of one trained model, measured on data that neither the model nor the grids have seen."""

import dataclasses
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import kernels
from jaxdiff.certificates import DISCRETISATION
from jaxdiff.certify import DIFFERENCE, Sampler, certify, certify_difference
from jaxdiff.curves import GROUPS
from jaxdiff.goals import steps_to_reach
from jaxdiff.grids import exponential_then_uniform
from jaxdiff.intervals import row_ids
from jaxdiff.metrics import CLASSIFIER, Estimate, classifier_accuracy, sliced_w2
from jaxdiff.path_costs import PER_DIRECTION, label_of, path_kl, sampler_of
from jaxdiff.processes import forward, score_from_denoiser
from jaxdiff.progress import bar
from jaxdiff.runs import IN_AXES_FROM, Run
from jaxdiff.sample import sample
from jaxdiff.scores import denoiser_in_axes, denoiser_of
from jaxdiff.search import Search
from jaxdiff.types import Curve, DenoiserFn

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
        """The name of the sampler that is planned for: moment matching, in the held-out curve's basis if it has one."""
        return "moment_matched" if self.held_out.basis is None else PER_DIRECTION

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
    return Subject(denoiser_of(run.network), held_out, test, *of_rows, in_axes)


def certified(run: Run, plan, held_out: Curve, test: Curve, *, confidence=0.95, progress=False):
    """The report of a run, JSON data: every sampler's row, the noise floor, the step ratio, the plan's certificate."""
    subject, key = subject_of(run, held_out, test), run.key("compare")
    moment = run.dataset.second_moment("test")
    basis = test.basis if plan["per_direction"] else None
    known = {"curve": test, "matched": held_out, "basis": basis, "second_moment": moment}
    planned = certify(plan["kernel"], plan["grid"], confidence=confidence, **known)
    rows = compare(subject, key, planned=plan["evals"], progress=progress)
    return {
        "data": run.dataset.name,
        "rows": rows,
        "noise_floor": noise_floor(subject, key, progress=progress),
        "step_ratio": step_ratio(subject, HEADLINE_STEPS),
        "plan": {name: plan[name] for name in ("kernel", "per_direction", "evals", "horizon", "predicted_kl")},
        "certificate": planned.to_dict(),
        "certificate_text": str(planned),
        "summary": [_gains(rows, subject.planned), _difference(subject), *_verdict(plan, planned)],
        "notes": _notes(subject),
    }


def _gains(rows, planned):
    rows = [row for row in rows if row["n_steps"] == HEADLINE_STEPS and row["excess"]]
    excess = {(row["kernel"], row["grid"]): row["excess"]["value"] for row in rows}
    if min(value for (name, _), value in excess.items() if name != PER_DIRECTION) <= 0:
        return f"At {HEADLINE_STEPS} steps these test rows cannot tell every sampler's excess from 0: no ratios."
    grid_gain = excess["ancestral", PLANNED] / excess["ancestral", BENTON]
    gain = excess["exponential_euler", BENTON] / excess["moment_matched", PLANNED]
    apart = ""
    if planned == PER_DIRECTION:
        least = excess[PER_DIRECTION, PLANNED]
        ratio = f"1/{excess['exponential_euler', BENTON] / least:.1f}" if least > 0 else "none that these rows can tell"
        apart = f", per direction {ratio}"
    return (
        f"At {HEADLINE_STEPS} steps, ancestral sampling on its planned grid has {grid_gain:.2f} of its excess on "
        f"Benton's grid; moment matching on its planned grid has 1/{gain:.1f} of exponential Euler's on Benton's"
        f"{apart}."
    )


def _difference(subject):
    """How far the planned sampler is below exponential Euler on Benton's grid, measured row by row."""
    names = ((subject.planned, PLANNED), ("exponential_euler", BENTON))
    grids = [subject.grid(*name, HEADLINE_STEPS) for name in names]
    (matched, basis), (euler, _) = (sampler_of(name, subject.test) for name, _ in names)
    first = Sampler(matched, grids[0], subject.test, subject.held_out, basis)
    term = certify_difference(first, Sampler(euler, grids[1], subject.test))[DIFFERENCE]
    return (
        f"On the test rows, paired, the path KL of {label_of(subject.planned)} on its planned grid is "
        f"{-term.value:.4g} ± {term.standard_error:.2g} nats below exponential Euler's on Benton's."
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


def _notes(subject):
    n = len(subject.test_rows)
    return [
        f"Excess: what discretisation adds to the path KL, and the path KL bounds the samples' KL; from the losses on "
        f"{n} test rows, ± one standard error over rows, or over {GROUPS} groups of them per direction. The network's "
        f"own error comes on top: it is the same for every row of the table and cannot be known from data. DDIM is an "
        f"ODE: it has no path law to compare.",
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


def step_ratio(subject: Subject, n_steps):
    """How many times more steps exponential Euler on Benton's grid takes to the excess of the planned sampler."""
    kernel_name, basis = sampler_of(subject.planned, subject.test)
    planned = subject.grid(subject.planned, PLANNED, n_steps)
    goal = path_kl(kernel_name, planned, subject.test, matched=subject.held_out, basis=basis)
    cost = lambda n: path_kl("exponential_euler", subject.grid("exponential_euler", BENTON, n), subject.test)
    needed = steps_to_reach(goal, cost) if goal > 0 else None  # of few rows the best estimate can be negative
    found = {"exponential_euler_steps": needed, "ratio": needed and needed / n_steps}
    return {"n_steps": n_steps, "sampler": subject.planned, "excess": goal, **found}


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
