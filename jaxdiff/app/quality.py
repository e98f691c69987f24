"""How good samples look against the evaluations that they cost, for the plan and for samplers in common use."""

import numpy as np

from jaxdiff.app.comparison_subject import BENTON, PLANNED, Subject
from jaxdiff.app.samplers import label_of, planned_label
from jaxdiff.app.two_samples import MEASURES, Judge, batches_of
from jaxdiff.grids import log_snr
from jaxdiff.progress import bar
from jaxdiff.types import Sampler

EVALS = (5, 8, 12, 20, 50)
REFERENCE_STEPS = 1000
REFERENCES = ("unipc", "ancestral")
WORDS = {"sliced_w2": "sliced W2", "accuracy": "classifier accuracy", "energy_distance": "energy distance"}
PLAN, PATH_KL, DDIM, PAPERS = "the plan", "least path KL", "DDIM, log snr grid", "exponential Euler, Benton's grid"


def quality(subject: Subject, key, *, evals=EVALS, progress=False):
    """Rows of two-sample distances to the noised test rows, JSON data: sampler, label, evals, and the MEASURES.

    The samplers are the plan, the one of least path KL, DDIM and the papers' scheme, and two references in
    REFERENCE_STEPS steps: the probability-flow ODE and the reverse SDE of the same network. All start at the same
    positions.
    """
    assert subject.plan is not None
    judge, work = Judge(subject, key), []
    for n in sorted({*evals, subject.plan["evals"]}):
        work += [(name, sampler, n) for name, sampler in _samplers(subject, n).items()]
    fine = log_snr(subject.horizon, subject.early_stop, REFERENCE_STEPS)
    work += [(name, Sampler(subject.kernel(name), fine), REFERENCE_STEPS) for name in REFERENCES]
    return [
        {"sampler": name, "label": _label(subject, name), "evals": n, **judge(next(batches_of(subject, sampler, key)))}
        for name, sampler, n in bar(work, "quality", enabled=progress)
    ]


def _samplers(subject, evals):
    """The samplers that make a step with so many evaluations."""
    plan, ends = subject.plan, (subject.horizon, subject.early_stop)
    found = {PLAN: subject.of_plan(evals)}
    if plan["metric"] == "w2":
        found[PATH_KL] = subject.sampler(subject.planned, PLANNED, evals)
    found[DDIM] = Sampler(subject.kernel("ddim"), log_snr(*ends, evals))
    found[PAPERS] = subject.sampler("exponential_euler", BENTON, evals)
    return found


def _label(subject, name):
    if name == PLAN:
        return f"{PLAN}: {planned_label(subject.plan['kernel'], subject.plan['options'])}"
    if name == PATH_KL:
        return f"{PATH_KL}: {label_of(subject.planned)}"
    return f"{label_of(name)} in {REFERENCE_STEPS:,} steps" if name in REFERENCES else name


def verdict(rows, floor, plan):
    """A sentence on the planned sampler: its measures beside those of the reference and of train rows."""
    of = {(row["sampler"], row["evals"]): row for row in rows}
    planned, reference = of[PLAN, plan["evals"]], of["unipc", REFERENCE_STEPS]
    parts, worse = [], []
    for name in MEASURES:
        ours, theirs, least = (one[name] for one in (planned, reference, floor))
        parts.append(f"{WORDS[name]} {_said(ours)} (reference {_said(theirs)}, train rows {_said(least)})")
        error = np.hypot(ours["standard_error"], theirs["standard_error"])
        if ours["value"] > theirs["value"] + error:
            worse.append(WORDS[name])
    than = f"the same network in {REFERENCE_STEPS:,} steps"
    if worse:
        where = " and ".join(worse)
        said = f"are further from the test rows than those of {than}, by more than a standard error, in {where}"
    else:
        said = f"are as close to the test rows as those of {than}, within a standard error, in all three measures"
    return f"Samples of the plan, at {plan['evals']} evaluations each, {said}: {', '.join(parts)}."


def _said(estimate):
    return f"{estimate['value']:.3f} ± {estimate['standard_error']:.3f}"
