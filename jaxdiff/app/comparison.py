"""The report of a run: its samplers, measured on test rows that neither the model nor the grids were fitted to."""

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
    """The report of a run as JSON data: a row for each sampler, noise floor, step ratio and certificate of the plan."""
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
    """A sentence on whether the test rows show that target_kl is reached; no sentence if the plan has no target_kl."""
    if plan["target_kl"] is None:
        return []
    other = certificate.known - certificate[DISCRETISATION].value
    low, high = (end + other for end in certificate.interval(DISCRETISATION))
    shown = "met" if high <= plan["target_kl"] else "missed" if low > plan["target_kl"] else "not shown to be met"
    return [
        f"Target: {plan['target_kl']:g} nats; the test rows give {certificate.known:.4g}, "
        f"{certificate.confidence:.0%} [{low:.4g}, {high:.4g}]: {shown}."
    ]


def _notes(subject, rows):
    n = len(subject.test_rows)
    low = any(row["excess"] is not None and row["excess"]["value"] < 0 for row in rows)
    return [
        f"Excess: the part of the path KL that discretisation adds. The path KL is an upper bound on the KL of the "
        f"samples. The excess is computed from the losses on {n} test rows, ± one standard error over the rows; per "
        f"direction, over {GROUPS} groups of rows. The path KL also contains the error of the network. This error is "
        f"the same for every row of the table, and data alone cannot give it. DDIM is an ODE, for which no path KL is "
        f"defined.",
        *([BELOW_ZERO] if low else []),
        f"Sliced W2 (standardised columns) and accuracy compare samples with the test rows noised to t = "
        f"{subject.early_stop:g}; they are means over {BATCHES} batches of {n} samples. ± is one standard error over "
        f"batches. It does not contain the error from the choice of the test rows, which is common to all rows of the "
        f"table. Classifier: {CLASSIFIER}.",
        f"Seconds: time of one batch of {n} samples without compilation, on {jax.default_backend()} with jax "
        f"{jax.__version__}.",
        "A smaller excess is a better guarantee, but the samples need not look better: compare the columns.",
    ]


def compare(subject: Subject, key, *, n_steps=(10, 20, 50, 200), planned=None, progress=False):
    """A row for each sampler and number of steps: excess, sliced W2, classifier accuracy, evaluations, seconds.

    Args:
      subject: the samplers and the data.
      key: a JAX key for starting positions, noise and directions of sliced W2.
      n_steps: the numbers of steps of each sampler.
      planned: the number of steps of the plan. If it is not in n_steps, the first row is the planned sampler with it.
      progress: show a bar.

    Returns:
      A list of dicts, JSON data. sliced_w2 and accuracy compare samples with the test rows noised to early_stop; they
      are means over BATCHES batches of as many samples as test rows. seconds is the median time of such a batch after
      compilation.
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
