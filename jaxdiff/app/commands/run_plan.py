"""The part of `jaxdiff plan` that plans for a trained run."""

import sys

EVALS = {"w2": 8, "kl": 20}  # evaluations a sample where neither these nor a target is given


def run(options):
    """Make the plan of a run, write plan.json and the pictures, and print it."""
    from jaxdiff import files
    from jaxdiff.app import plots, run_folder
    from jaxdiff.app.comparison_subject import subject_of
    from jaxdiff.app.samplers import path_cost_of, planned_label
    from jaxdiff.app.saving import writing

    metric, goal = _goal(options)
    run = run_folder.load(options.run, network=options.network)
    guidance = 1.0 if options.guidance is None else options.guidance
    run_folder.check_guidance(run, guidance)
    if metric == "w2" and options.early_stop not in (None, run.early_stop):
        raise ValueError(f"--early-stop must be that of the run, {run.early_stop:g}: it is {options.early_stop:g}.")
    curve = run_folder.measure(run, "held_out", guidance=guidance, progress=True)
    moment = run.dataset.second_moment("held_out")
    made, other = _made(run, curve, moment, metric, goal, options, guidance)
    variance = float(run.dataset.train.var(0).sum())
    subject = subject_of(run, curve, curve, guidance)
    drawn = {
        sampler: subject.grid(*sampler, made.evals)
        for sampler in subject.samplers
        if path_cost_of(sampler[0], curve) is not None
    }
    if metric == "w2":
        drawn = {(planned_label(made.kernel, made.options), "planned"): made.grid} | drawn
    record = made.to_dict() | {"target_kl": options.target_kl, "target_w2": options.target_w2}
    record |= {"guidance": guidance, "path_kl_plan": other and other.to_dict() | {"target_kl": None}}
    with writing(run, "plan.json", instead_of=run_folder.OF_THE_PLAN) as drafts:
        run_folder.keep(run, "held_out", curve, into=drafts.folder)
        plots.loss_curve(drafts.folder / "loss_curve.png", curve, variance)
        plots.grids(drafts.folder / "grids.png", curve, drawn)
        files.write_json(drafts.folder / "plan.json", record)
    if drafts.removed:
        print(f"removed, because they belong to the former plan: {', '.join(drafts.removed)}", file=sys.stderr)
    print_plan(made, record, as_json=options.json)


def _goal(options):
    """The metric, and the goal as arguments of `plan`: an accuracy or a number of evaluations."""
    from jaxdiff.planning.goal import check_goal

    if options.second_moment is not None or options.out is not None:
        raise ValueError("--second-moment and --out need --dim: a run has its own data and folder. Leave them out.")
    metric = options.metric or ("kl" if options.target_kl is not None else "w2")
    wrong, right = ("target_w2", "w2") if metric == "kl" else ("target_kl", "kl")
    if getattr(options, wrong) is not None:
        raise ValueError(f"--{wrong.replace('_', '-')} needs --metric {right}: it is {metric}. Leave one of them out.")
    name = f"target_{metric}"
    target = getattr(options, name)
    evals = EVALS[metric] if options.evals is None and target is None else options.evals
    check_goal(target, evals, name, "nats" if metric == "kl" else "units of W2")
    return metric, {name: target, "evals": evals}


def _made(run, curve, moment, metric, goal, options, guidance):
    """The plan, and for a plan in W2 the plan of least path KL with as many evaluations; else None."""
    from jaxdiff.planning.plan import plan
    from jaxdiff.processes import score_from_denoiser

    if metric == "kl":
        known = {"curve": curve, "second_moment": moment, "confidence": options.confidence}
        return plan(early_stop=options.early_stop, **known, **goal), None
    ends = {"horizon": run.horizon, "early_stop": run.early_stop}
    score = score_from_denoiser(run.denoiser(run.labels("held_out"), guidance))
    known = {"score": score, "rows": run.dataset.held_out, "curve": curve}
    how = {"metric": "w2", "confidence": options.confidence, "key": run.key("plan"), "progress": True}
    made = plan(**known, **ends, **how, **goal)
    return made, plan(evals=made.evals, curve=curve, second_moment=moment)


def print_plan(made, record, *, as_json):
    """Print a plan as JSON or as text, with its alternatives."""
    from jaxdiff.app import report
    from jaxdiff.app.samplers import planned_label
    from jaxdiff.files import to_json

    if as_json:
        print(to_json(record), end="")
        return
    variances = ", with a variance for each direction" if made.basis is not None else ""
    name = f"{planned_label(made.kernel, made.options)}{variances}"
    print(f"{name}, on its planned grid: {made.evals} evaluations a sample, from horizon {made.horizon:.4g}")
    if made.metric == "w2":
        print("minimises the W2 distance of the samples (--metric w2); for a guarantee in KL take --metric kl")
    else:
        print(
            "minimises the path KL (--metric kl); for the look of the samples take --metric w2, with a run or a model"
        )
    print(made.certificate)
    print(*report.alternatives(made.alternatives), sep="\n")
