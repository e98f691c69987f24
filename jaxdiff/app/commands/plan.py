"""jaxdiff plan: choose grid and kernel for a trained run, or for all data of a dimension and second moment."""

import pathlib
import sys

from jaxdiff.app.commands.options import Defaults


def add(commands):
    """Declare the command and its arguments."""
    about = "choose grid and kernel: for a trained run, or for all data of a dimension and second moment"
    parser = commands.add_parser("plan", help=about, description=about, formatter_class=Defaults)
    parser.add_argument("run", type=pathlib.Path, nargs="?", help="run folder; leave it out with --dim")
    parser.add_argument(
        "--evals", type=int, help="score evaluations for each sample (20 for a run without --target-kl)"
    )
    parser.add_argument(
        "--target-kl", type=float, help="limit on the path KL of initialisation and discretisation, in nats"
    )
    parser.add_argument(
        "--confidence", type=float, help="confidence with which the rows of a run must show that --target-kl is reached"
    )
    parser.add_argument("--dim", type=int, help="dimension of the data, instead of a run")
    parser.add_argument("--second-moment", type=float, help="E|X|^2 of the data, with --dim (default: the dimension)")
    parser.add_argument(
        "--early-stop", type=float, help="OU time at which sampling stops (0.001 with --dim; a run has its own)"
    )
    parser.add_argument("--out", type=pathlib.Path, help="folder for plan.json and grids.png, with --dim")
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    parser.set_defaults(command=run)


def run(options):
    """Make the plan, write it and print it."""
    from jaxdiff.planning.goal import check_goal

    if (options.run is None) == (options.dim is None):
        raise ValueError("there is nothing to plan for, or two things: give one of a run folder and --dim.")
    if options.run is None:
        if options.confidence is not None:
            raise ValueError(
                "--confidence needs a run folder: a plan for --dim is a bound and has no rows. Leave it out."
            )
        _plan_for_all_data(options)
        return
    if options.second_moment is not None or options.out is not None:
        raise ValueError("--second-moment and --out need --dim: a run has its own data and folder. Leave them out.")
    evals = 20 if options.evals is None and options.target_kl is None else options.evals
    check_goal(options.target_kl, evals)
    _plan_for_a_run(options, evals)


def _plan_for_all_data(options):
    from jaxdiff import files
    from jaxdiff.app import plots
    from jaxdiff.curves import Curve
    from jaxdiff.grids import exponential_then_uniform
    from jaxdiff.planning.plan import plan

    known = {"dim": options.dim, "second_moment": options.second_moment}
    made = plan(options.target_kl, options.early_stop, evals=options.evals, **known)
    record = made.to_dict() | {"target_kl": options.target_kl}
    if options.out is not None:
        files.check_folder(options.out)
        options.out.mkdir(parents=True, exist_ok=True)
        each = (options.second_moment or options.dim) / options.dim
        widest = Curve(lambda snr: options.dim * each / (1 + snr * each), options.dim)
        benton = exponential_then_uniform(made.horizon, made.grid[-1], made.evals)
        drawn = {("exponential_euler", "Benton"): benton, (made.kernel, "planned"): made.grid}
        with files.draft_folder(options.out, "plan.json") as drafts:
            plots.grids(drafts / "grids.png", widest, drawn, of=f"N(0, {each:.3g} I)")
            files.write_json(drafts / "plan.json", record)
            for name in ("grids.png", "plan.json"):
                files.put(drafts / name, options.out / name)
    _print_plan(made, record, options.json)


def _plan_for_a_run(options, evals):
    from jaxdiff import files
    from jaxdiff.app import plots, run_folder
    from jaxdiff.app.comparison_subject import subject_of
    from jaxdiff.app.samplers import path_cost_of
    from jaxdiff.app.saving import writing
    from jaxdiff.planning.plan import plan

    run = run_folder.load(options.run)
    curve = run_folder.measure(run, "held_out", progress=True)
    moment = run.dataset.second_moment("held_out")
    known = {"curve": curve, "second_moment": moment}
    made = plan(options.target_kl, options.early_stop, evals=evals, confidence=options.confidence, **known)
    variance = float(run.dataset.train.var(0).sum())
    subject = subject_of(run, curve, curve)
    drawn = {
        sampler: subject.grid(*sampler, made.evals)
        for sampler in subject.samplers
        if path_cost_of(sampler[0], curve) is not None
    }
    record = made.to_dict() | {"target_kl": options.target_kl}
    with writing(run, "plan.json", instead_of=run_folder.OF_THE_PLAN) as drafts:
        run_folder.keep(run, "held_out", curve, into=drafts.folder)
        plots.loss_curve(drafts.folder / "loss_curve.png", curve, variance)
        plots.grids(drafts.folder / "grids.png", curve, drawn)
        files.write_json(drafts.folder / "plan.json", record)
    if drafts.removed:
        print(f"removed, because they belong to the former plan: {', '.join(drafts.removed)}", file=sys.stderr)
    _print_plan(made, record, options.json)


def _print_plan(made, record, as_json):
    from jaxdiff.app import report
    from jaxdiff.files import to_json

    if as_json:
        print(to_json(record), end="")
        return
    variances = ", with a variance for each direction" if made.basis is not None else ""
    print(
        f"{made.kernel}{variances}, on its planned grid: {made.evals} evaluations a sample, from horizon "
        f"{made.horizon:.4g}"
    )
    print(made.certificate)
    print(*report.alternatives(made.alternatives), sep="\n")
