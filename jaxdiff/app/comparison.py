"""The report of a run: its samplers, measured on test rows that neither the model nor the grids were fitted to."""

import dataclasses

import jax
import numpy as np

from jaxdiff.app.comparison_subject import PLANNED, Subject, subject_of
from jaxdiff.app.excess import HEADLINE_STEPS, difference, excesses, gains, step_ratio
from jaxdiff.app.label_check import in_words, label_check
from jaxdiff.app.quality import quality, verdict
from jaxdiff.app.run_folder import Run
from jaxdiff.app.two_samples import BATCHES, Judge, batches_of, noise_floor
from jaxdiff.certificate import BELOW_ZERO, DISCRETISATION
from jaxdiff.curves import Curve
from jaxdiff.curves.measured import GROUPS
from jaxdiff.guarantees.certify import certify
from jaxdiff.guarantees.certify_w2 import PARTICLES, REFERENCE_STEPS, certificates_w2
from jaxdiff.metrics import CLASSIFIER
from jaxdiff.progress import bar

OF_PLAN = ("metric", "kernel", "options", "per_direction", "evals", "horizon", "predicted_kl", "predicted_w2")


def certified(run: Run, plan, held_out: Curve, test: Curve, *, confidence=0.95, progress=False):
    """The report of a run as JSON data: a row for each sampler, noise floor, step ratio and certificate of the plan."""
    subject, key = subject_of(run, held_out, test, plan["guidance"]), run.key("compare")
    of_path = plan["path_kl_plan"] or plan  # the plan of least path KL
    subject = dataclasses.replace(subject, per_direction=of_path["per_direction"], plan=plan)
    moment = run.dataset.second_moment("test")
    basis = test.basis if of_path["per_direction"] else None
    known = {"curve": test, "matched": held_out, "basis": basis, "second_moment": moment}
    planned = certify(of_path["kernel"], of_path["grid"], confidence=confidence, **known)
    in_w2, in_units = _in_w2(run, subject, confidence)
    floor, looks = noise_floor(subject, key, progress=progress), quality(subject, key, progress=progress)
    rows = compare(subject, key, planned=of_path["evals"], progress=progress)
    as_asked = label_check(run, subject, key)
    excess = excesses(subject, HEADLINE_STEPS)
    return {
        "data": run.dataset.name,
        "rows": rows,
        "noise_floor": floor,
        "quality": looks,
        "step_ratio": step_ratio(subject, HEADLINE_STEPS, confidence=confidence, excess=excess),
        "plan": {name: plan[name] for name in (*OF_PLAN, "guidance")},
        "certificate": planned.to_dict(),
        "certificate_text": str(planned),
        "certificate_w2": in_w2.to_dict(),
        "certificate_w2_text": str(in_w2),
        "labels": as_asked,
        "lead": [verdict(looks, floor, plan), *in_words(as_asked), _of_units(in_units), *_verdict_w2(plan, in_w2)],
        "summary": [
            gains(subject, excess, confidence),
            difference(subject, excess, confidence),
            *_verdict(plan, planned),
        ],
        "notes": _notes(subject, rows),
    }


def _in_w2(run, subject, confidence):
    """The certificates in W2 of the planned sampler on the test rows: standardised, and in the data's own units."""
    sampler = dataclasses.replace(subject, in_axes=None).of_plan()
    options = {"particles": PARTICLES, "reference_steps": REFERENCE_STEPS, "confidence": confidence}
    known = {"target": None, "rows": run.dataset.test, "dim": None, "scales": (1.0, run.dataset.scale)}
    return certificates_w2(sampler, run.key("certify W2"), **known, **options)


def _of_units(certificate):
    """A sentence with the bound in the data's own units."""
    return (
        f"In the units of the data the known terms of the W2 distance are {certificate.known:.4g} together, "
        f"{certificate.per_coordinate:.4g} per column (root mean square); {certificate.known_upper:.4g} at most, with "
        f"{certificate.confidence:.0%} confidence."
    )


def _verdict_w2(plan, certificate):
    """A sentence on whether the test rows show that target_w2 is reached; none if the plan has no target_w2."""
    if plan.get("target_w2") is None:
        return []
    shown = "met" if certificate.known_upper <= plan["target_w2"] else "not shown to be met"
    return [
        f"Target: {plan['target_w2']:g} in W2; on the test rows the known terms are {certificate.known_upper:.4g} at "
        f"most ({certificate.confidence:.0%}): {shown}."
    ]


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
        f"Sliced W2, energy distance (standardised columns) and accuracy compare samples with the test rows noised to "
        f"t = {subject.early_stop:g}; they are means over {BATCHES} batches of {n} samples. ± is one standard error "
        f"over batches. It does not contain the error from the choice of the test rows, which is common to all rows of "
        f"the table. Classifier: {CLASSIFIER}.",
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
    batches, seconds = batches_of(subject, sampler, key)
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
