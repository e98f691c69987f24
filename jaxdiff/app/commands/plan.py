"""jaxdiff plan: choose grid and kernel for a trained run, or for all data of a dimension and second moment."""

import pathlib

from jaxdiff.app.commands import foreign_model, run_plan
from jaxdiff.app.commands.options import Defaults


def add(commands):
    """Declare the command and its arguments."""
    about = "choose grid and kernel: for a trained run, or for all data of a dimension and second moment"
    parser = commands.add_parser("plan", help=about, description=about, formatter_class=Defaults)
    parser.add_argument("run", type=pathlib.Path, nargs="?", help="run folder; leave it out with --dim")
    parser.add_argument(
        "--metric",
        choices=("w2", "kl"),
        help="what to minimise: w2, the distance of the samples from those of many steps (the default for a run and "
        "for a model), or kl, the path KL, a guarantee for samplers with noise",
    )
    parser.add_argument(
        "--evals",
        type=int,
        help="score evaluations for each sample (for a run without a target 8, with --metric kl 20)",
    )
    parser.add_argument(
        "--target-kl", type=float, help="limit on the path KL of initialisation and discretisation, in nats"
    )
    parser.add_argument(
        "--target-w2", type=float, help="limit on the known terms of the W2 distance of the samples to the data"
    )
    parser.add_argument(
        "--confidence",
        type=float,
        help="confidence with which --target-kl or --target-w2 is reached by the rows of a run",
    )
    parser.add_argument("--dim", type=int, help="dimension of the data, instead of a run")
    parser.add_argument("--second-moment", type=float, help="E|X|^2 of the data, with --dim (default: the dimension)")
    parser.add_argument(
        "--early-stop", type=float, help="OU time at which sampling stops (0.001 with --dim; a run has its own)"
    )
    parser.add_argument("--out", type=pathlib.Path, help="folder for plan.json and grids.png, with --dim")
    parser.add_argument(
        "--guidance",
        type=float,
        help="weight of classifier-free guidance in a run with labels: 1 is the conditional law (the default), more "
        "makes samples more typical of their label",
    )
    parser.add_argument("--network", metavar="FILE.py:NAME", help="the function of the run's own network, if it moved")
    foreign_model.add(parser)
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    parser.set_defaults(command=run)


def run(options):
    """Make the plan, write it and print it."""
    if options.model is not None:
        if options.run is not None:
            raise ValueError(f"--model is planned for without a run folder: leave {options.run} out.")
        _needs_run(options, "--model")
        foreign_model.run(options)
        return
    foreign_model.refuse(options)
    if (options.run is None) == (options.dim is None):
        raise ValueError("there is nothing to plan for, or two things: give one of a run folder, --dim and --model.")
    if options.run is not None:
        run_plan.run(options)
        return
    _needs_run(options, "--dim")
    if options.confidence is not None:
        raise ValueError("--confidence needs a run folder: a plan for --dim is a bound and has no rows. Leave it out.")
    if options.metric == "w2" or options.target_w2 is not None:
        raise ValueError("a plan in W2 runs samplers: give a run folder or --model. For --dim alone take --metric kl.")
    _plan_for_all_data(options)


def _needs_run(options, instead):
    """Raise ValueError where options of a run are given without one."""
    for name in ("guidance", "network"):
        if getattr(options, name) is not None:
            raise ValueError(f"--{name} needs a run folder, and {instead} was given: leave --{name} out.")


def _plan_for_all_data(options):
    from jaxdiff import files
    from jaxdiff.app import plots
    from jaxdiff.app.commands.run_plan import print_plan
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
    print_plan(made, record, as_json=options.json)
