"""Samplers of one trained model, measured on data that neither the model nor the grids have seen."""

import dataclasses

import jax
import numpy as np

from jaxdiff.app.comparison_subject import PLANNED, Subject, subject_of
from jaxdiff.app.excess import HEADLINE_STEPS, difference, excesses, gains, step_ratio
from jaxdiff.app.run_folder import Run
from jaxdiff.app.two_samples import BATCHES, Judge, batch, noise_floor
from jaxdiff.certificate import BELOW_ZERO, DISCRETISATION
from jaxdiff.curves import Curve
from jaxdiff.curves.measured import GROUPS
from jaxdiff.guarantees.certify import certify
from jaxdiff.metrics import CLASSIFIER
from jaxdiff.progress import bar


def certified(run: Run, plan, held_out: Curve, test: Curve, *, confidence=0.95, progress=False):
    """The report of a run, JSON data: every sampler's row, the noise floor, the step ratio, the plan's certificate."""
    subject, key = subject_of(run, held_out, test), run.key("compare")
    subject = dataclasses.replace(subject, per_direction=plan["per_direction"])
    moment = run.dataset.second_moment("test")
    basis = test.basis if plan["per_direction"] else None
    known = {"curve": test, "matched": held_out, "basis": basis, "second_moment": moment}
    planned = certify(plan["kernel"], plan["grid"], confidence=confidence, **known)
    rows = compare(subject, key, planned=plan["evals"], progress=progress)
    excess = excesses(subject, HEADLINE_STEPS)
    return {
        "data": run.dataset.name,
        "rows": rows,
        "noise_floor": noise_floor(subject, key, progress=progress),
        "step_ratio": step_ratio(subject, HEADLINE_STEPS, confidence=confidence, excess=excess),
        "plan": {name: plan[name] for name in ("kernel", "per_direction", "evals", "horizon", "predicted_kl")},
        "certificate": planned.to_dict(),
        "certificate_text": str(planned),
        "summary": [
            gains(subject, excess, confidence),
            difference(subject, excess, confidence),
            *_verdict(plan, planned),
        ],
        "notes": _notes(subject, rows),
    }


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
    judge = Judge(subject, key)
    work = [(n, *sampler) for n in n_steps for sampler in subject.samplers]
    if planned is not None and planned not in n_steps:
        work.insert(0, (planned, subject.planned, PLANNED))
    return [_row(subject, judge, key, *item) for item in bar(work, "compare samplers", enabled=progress)]


def _row(subject, judge, key, n_steps, name, grid_name):
    sampler = subject.sampler(name, grid_name, n_steps)
    batches, seconds = zip(
        *(batch(subject, sampler, jax.random.fold_in(key, 100 + i)) for i in range(BATCHES)), strict=True
    )
    excess = subject.excess(name, sampler.grid)
    return {
        "kernel": name,
        "grid": grid_name,
        "n_steps": n_steps,
        "excess": excess and excess._asdict(),
        **judge(batches),
        "evals": sampler.evals,
        "seconds": float(np.median(seconds[1:])),
    }
