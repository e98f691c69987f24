"""jaxdiff train | plan | sample | certify | sweep. Errors of the user end in one sentence and exit code 2."""

import argparse
import csv
import dataclasses
import importlib
import json
import os
import pathlib
import re
import runpy
import sys
import warnings

from jax.errors import JaxRuntimeError

from jaxdiff import __version__, interrupts


def main(argv=None):
    """Run a command; returns the exit code."""
    options = _parser().parse_args(argv)
    try:
        with interrupts.obeyed("jaxdiff: interrupted"):
            return options.command(options) or 0
    except KeyboardInterrupt:
        print("jaxdiff: interrupted", file=sys.stderr)
        return interrupts.CODE
    except (ValueError, OSError, ModuleNotFoundError, MemoryError, JaxRuntimeError) as error:
        reason = _reason(error)
        if options.traceback or reason is None:
            raise
        print(f"jaxdiff: {reason}", file=sys.stderr)
        return 2


def _reason(error):
    """What to tell the user, or None for an error that is ours."""
    match error:
        case ModuleNotFoundError():
            ours = (error.name or "").startswith("jaxdiff")
            return None if ours else f"{error.name} is not installed: pip install 'jaxdiff[all]'."
        case JaxRuntimeError() if not re.search("RESOURCE_EXHAUSTED|out of memory", str(error), re.IGNORECASE):
            return None
        case MemoryError() | JaxRuntimeError():
            return "not enough memory: choose a smaller --batch-size, --width or --chunk, or give fewer rows."
    return error


def _check_seed(seed):
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must lie between 0 and 2^32 - 1: seed = {seed}.")


def _parser():
    parser = argparse.ArgumentParser(prog="jaxdiff", description="Sample diffusion models with guarantees.")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    parser.add_argument("--version", action="version", version=f"jaxdiff {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")

    train = commands.add_parser("train", help="fit a denoiser to data", formatter_class=_Defaults)
    train.add_argument("source", help="digits, or a .npy, .npz, .csv or .tsv file whose rows are samples")
    train.add_argument(
        "--header",
        action=argparse.BooleanOptionalAction,
        help="the first line of a text file names the columns, or is a row (default: found out, and said in doubt)",
    )
    train.add_argument(
        "--columns",
        metavar="NAME[,NAME...]",
        help="which to read, by names or positions from 0 (default: all but those that number the rows)",
    )
    train.add_argument("--key", metavar="NAME", help="the array to read from an .npz archive of several")
    train.add_argument("--out", type=pathlib.Path, help="run folder (default: runs/NAME)")
    train.add_argument("--steps", type=int, default=4000, help="optimiser steps")
    train.add_argument("--batch-size", type=int, default=256, help="rows a step")
    train.add_argument("--learning-rate", type=float, default=2e-3, help="peak, AdamW")
    train.add_argument("--width", type=int, default=192, help="hidden units")
    train.add_argument("--depth", type=int, default=3, help="residual blocks")
    train.add_argument("--dropout", type=float, default=0.1, help="rate in training")
    train.add_argument("--horizon", type=float, default=5.0, help="OU time to start sampling from")
    train.add_argument("--early-stop", type=float, default=2e-3, help="OU time to stop at")
    train.add_argument("--seed", type=int, default=0, help="of split, weights, training and sampling")
    train.set_defaults(command=_train)

    about = "choose grid and kernel: for a trained run, or for all data of a dimension and second moment"
    plan = commands.add_parser("plan", help=about, description=about, formatter_class=_Defaults)
    plan.add_argument("run", type=pathlib.Path, nargs="?", help="run folder; without one, --dim")
    plan.add_argument(
        "--evals", type=int, help="score evaluations a sample may cost (20 for a run where no --target-kl is given)"
    )
    plan.add_argument("--target-kl", type=float, help="nats that initialisation and discretisation may cost, instead")
    plan.add_argument("--confidence", type=float, help="with which a run's rows must show that --target-kl is reached")
    plan.add_argument("--dim", type=int, help="dimension of the data, in place of a run")
    plan.add_argument("--second-moment", type=float, help="E|X|^2 of the data, with --dim (its value by default)")
    plan.add_argument("--early-stop", type=float, help="OU time to stop at (0.001 with --dim; a run has its own)")
    plan.add_argument("--out", type=pathlib.Path, help="with --dim: folder for plan.json and grids.png")
    plan.add_argument("--json", action="store_true", help="print the plan as JSON")
    plan.set_defaults(command=_plan)

    sample = commands.add_parser("sample", help="draw samples by the plan", formatter_class=_Defaults)
    sample.add_argument("run", type=pathlib.Path, help="run folder")
    sample.add_argument("-n", type=int, default=1000, help="number of samples")
    sample.add_argument("--seed", type=int, default=0, help="of start and noise")
    sample.add_argument("--kernel", metavar="NAME", help="another kernel than the plan's, on a grid of its own")
    sample.add_argument("--evals", type=int, help="score evaluations a sample, if others than the plan's")
    sample.add_argument(
        "--denoise",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="end with the denoiser, which takes away the noise that the early stop leaves",
    )
    sample.add_argument("--round", action="store_true", help="round the columns that hold whole numbers in the data")
    sample.add_argument(
        "--out", type=pathlib.Path, metavar="FILE", help=".npy, .csv or .tsv (default: samples.npy in the run folder)"
    )
    sample.add_argument("--chunk", type=int, metavar="ROWS", help="samples made and written at once, to save memory")
    sample.set_defaults(command=_sample)

    certify = commands.add_parser("certify", help="measure the run on its test rows", formatter_class=_Defaults)
    certify.add_argument("run", type=pathlib.Path, help="run folder")
    certify.add_argument("--confidence", type=float, default=0.95, help="of the certificate's intervals")
    certify.add_argument("--json", action="store_true", help="print the report as JSON")
    certify.set_defaults(command=_certify)

    about = "call a function for dimensions, settings and seeds; a row for each (jaxdiff.sweeps.run)"
    sweep = commands.add_parser("sweep", help=about, description=about, formatter_class=_Defaults)
    sweep.add_argument("function", help="FILE.py:NAME or MODULE:NAME; takes mask and is compiled, or dim and is called")
    sweep.add_argument("--dims", type=int, nargs="+", metavar="D", help="dimensions")
    sweep.add_argument("--seeds", type=int, metavar="N", help="how many seeds: 0 to N - 1")
    sweep.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE[,VALUE...]", dest="settings", help="a setting; repeat"
    )
    sweep.add_argument(
        "--out", type=pathlib.Path, metavar="FILE", help="rows as JSON lines; those there are not run again"
    )
    sweep.add_argument("--batch", type=int, default=64, help="rows of a compiled function at once")
    sweep.add_argument("--json", action="store_true", help="print every row as a line of JSON, not means over seeds")
    sweep.set_defaults(command=_sweep)
    return parser


class _Defaults(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action):
        return action.help if action.default is None else super()._get_help_string(action)


def _train(options):
    import jax
    import orbax.checkpoint  # noqa: F401  # now, so that an interrupted run is saved without delay

    from jaxdiff import files
    from jaxdiff.app import data, records, run_folder
    from jaxdiff.app.saving import save
    from jaxdiff.processes.ou import check_ends
    from jaxdiff.training.fit import Interrupted, fit

    _check_seed(options.seed)
    check_ends(options.horizon, options.early_stop)
    files.check_folder(options.out or "runs")
    dataset = _dataset(options)
    sizes = ", ".join(f"{len(getattr(dataset, name))} {name.replace('_', '-')}" for name in records.SPLITS)
    constant = f", {dataset.constant} of them constant: kept, unscaled" if dataset.constant else ""
    print(f"{dataset.name}: {sizes} rows of {dataset.dim} columns{constant}")
    network = {"width": options.width, "depth": options.depth, "dropout": options.dropout, "seed": options.seed}
    stopped = None
    try:
        trained = fit(
            run_folder.build(dataset, network),
            dataset.train,
            jax.random.key(options.seed),
            steps=options.steps,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            horizon=options.horizon,
            early_stop=options.early_stop,
            held_out=dataset.held_out,
            progress=True,
        )
    except Interrupted as interrupted:
        if not interrupted.fit.history:
            raise
        trained, stopped = interrupted.fit, interrupted.step
    model = {"horizon": options.horizon, "early_stop": options.early_stop, "seed": options.seed}
    model |= {"source": options.source, "network": network, "history": trained.history}
    model["image_shape"] = data.IMAGE_SHAPES.get(options.source)
    model["reading"] = dataclasses.asdict(dataset.reading)
    folder = options.out or pathlib.Path("runs") / dataset.name
    if (folder / "model.json").exists():
        if stopped is None:
            print(f"replacing the run in {folder}", file=sys.stderr)
        else:
            folder = folder.with_name(f"{folder.name}-interrupted")  # the folder holds a finished run
    save(folder, model, dataset, trained.network)
    losses = [row["held_out_loss"] for row in trained.history]
    first, rows = trained.history[0]["step"], f"{trained.held_out_rows} of {len(dataset.held_out)} held-out rows"
    print(
        f"held-out loss {min(losses):.4g} at best, {losses[0]:.4g} after {first} steps, on {rows} at "
        f"{trained.held_out_levels} noise levels each; model in {folder}"
    )
    if stopped is None:
        return None
    print(
        f"jaxdiff: interrupted after {stopped} of {options.steps} steps. {folder} holds the best network so far: go "
        f"on with jaxdiff plan {folder}, or train again.",
        file=sys.stderr,
    )
    return interrupts.CODE


def _dataset(options):
    """The data of the train command. The reader's assumptions about the file are printed on standard error."""
    from jaxdiff.app import data

    columns = None if options.columns is None else next(csv.reader([options.columns], skipinitialspace=True), [])
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        how = {"header": options.header, "columns": columns, "key": options.key}
        dataset = data.load(options.source, seed=options.seed, **how)
    for note in dataset.reading.notes:
        print(f"{options.source}: {note}", file=sys.stderr)
    return dataset


def _plan(options):
    from jaxdiff.planning.goal import check_goal

    if (options.run is None) == (options.dim is None):
        raise ValueError("plan what? Give one of a run folder and --dim.")
    if options.run is None:
        if options.confidence is not None:
            raise ValueError("--confidence goes with a run: a plan for --dim is a bound, without rows.")
        _plan_for_all_data(options)
        return
    if options.second_moment is not None or options.out is not None:
        raise ValueError("--second-moment and --out go with --dim: a run brings its own data and folder.")
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
    from jaxdiff.app import comparison, plots, run_folder
    from jaxdiff.app.saving import writing
    from jaxdiff.guarantees.path_kl import KERNELS, sampler_of
    from jaxdiff.planning.plan import plan

    run = run_folder.load(options.run)
    curve = run_folder.measure(run, "held_out", progress=True)
    moment = run.dataset.second_moment("held_out")
    known = {"curve": curve, "second_moment": moment}
    made = plan(options.target_kl, options.early_stop, evals=evals, confidence=options.confidence, **known)
    variance = float(run.dataset.train.var(0).sum())
    subject = comparison.subject_of(run, curve, curve)
    drawn = {
        sampler: subject.grid(*sampler, made.evals)
        for sampler in subject.samplers
        if sampler_of(sampler[0], curve)[0] in KERNELS
    }
    record = made.to_dict() | {"target_kl": options.target_kl}
    with writing(run, "plan.json", instead_of=run_folder.OF_THE_PLAN) as drafts:
        run_folder.keep(run, "held_out", curve, into=drafts.folder)
        plots.loss_curve(drafts.folder / "loss_curve.png", curve, variance)
        plots.grids(drafts.folder / "grids.png", curve, drawn)
        files.write_json(drafts.folder / "plan.json", record)
    if drafts.removed:
        print(f"removed, of the former plan: {', '.join(drafts.removed)}", file=sys.stderr)
    _print_plan(made, record, options.json)


def _print_plan(made, record, as_json):
    from jaxdiff.app import report
    from jaxdiff.files import to_json

    if as_json:
        print(to_json(record), end="")
        return
    apart = ", a variance for each direction" if made.basis is not None else ""
    print(f"{made.kernel}{apart}, on its own grid: {made.evals} evaluations a sample from horizon {made.horizon:.4g}")
    print(made.certificate)
    print(*report.alternatives(made.alternatives), sep="\n")


def _sample(options):
    from jaxdiff import files
    from jaxdiff.app import plots, run_folder, run_samples
    from jaxdiff.app.saving import writing

    _check_seed(options.seed)
    if options.chunk is not None and options.chunk < 1:
        raise ValueError(f"chunk must be at least 1 sample: chunk = {options.chunk}.")
    run = run_folder.load(options.run)
    plan, dataset = run_folder.load_plan(run), run.dataset
    sampler = run_samples.sampler_of(run, plan, options.kernel, options.evals)
    out = run.folder / "samples.npy" if options.out is None else options.out
    run_samples.check_room(out, options.n, dataset.dim)
    whole = 0 if dataset.whole is None else int(dataset.whole.sum())
    if options.round and not whole:
        raise ValueError("no column of the data holds whole numbers alone: leave --round out.")
    how = {"at_once": options.chunk, "denoise": options.denoise, "rounded": options.round, "progress": True}
    parts = run_samples.parts(run, sampler, options.n, options.seed, **how)
    names = (run.model.get("reading") or {}).get("names")
    if options.out is None:
        with writing(run, "samples.npy", plan=plan) as drafts:
            first = run_samples.write(drafts.folder / "samples.npy", parts, options.n, dataset.dim, names)
            real, train = dataset.restore(dataset.test), dataset.restore(dataset.train)
            shape = run.model["image_shape"]
            plots.samples(drafts.folder / "samples.png", first, real, train, shape, of=options.n)
    else:
        with files.written(out) as draft:
            run_samples.write(draft, parts, options.n, dataset.dim, names)
    print(f"{options.n} samples, {sampler.evals + options.denoise} evaluations each: {out}")
    print(run_samples.early_stopping(run, denoise=options.denoise))
    if not sampler.planned:
        print("This is not the sampler of the plan: the plan's and the certificate's numbers are not of these samples.")
    if whole and not options.round:
        print(f"{whole} columns hold whole numbers in the data: --round rounds them.", file=sys.stderr)


def _certify(options):
    from jaxdiff import files
    from jaxdiff.app import report, run_folder
    from jaxdiff.app.comparison import certified
    from jaxdiff.app.saving import writing

    run = run_folder.load(options.run)
    plan = run_folder.load_plan(run)
    held_out = run_folder.measured(run, "held_out")
    test = run_folder.measure(run, "test", grid=plan["grid"], basis=held_out.basis, progress=True)
    record = certified(run, plan, held_out, test, confidence=options.confidence, progress=True)
    with writing(run, "report.json", plan=plan) as drafts:
        run_folder.keep(run, "test", test, into=drafts.folder)
        files.write_json(drafts.folder / "report.json", record)
        report.write_page(drafts.folder / "report.html", record, pictures=run.folder)
    if options.json:
        print(files.to_json(record), end="")
        return
    print(record["certificate_text"])
    print(report.text_table(record))
    print(report.headline(record))
    print("\n".join(record["summary"]))
    print(f"page: {run.folder / 'report.html'}")


def _sweep(options):
    from jaxdiff import sweeps
    from jaxdiff.app.tables import table

    if options.seeds is not None and options.seeds < 1:
        raise ValueError(f"seeds is how many there are, 1 at least: it is {options.seeds}.")
    rows = sweeps.run(
        _function(options.function),
        dims=options.dims,
        seeds=None if options.seeds is None else range(options.seeds),
        resume=options.out,
        batch=options.batch,
        progress=True,
        **dict(map(_setting, options.settings)),
    )
    if options.json:
        print("\n".join(map(json.dumps, rows)))
    else:
        print(table(rows if options.seeds is None else sweeps.over_seeds(rows)))


def _function(name):
    """The function of FILE.py:NAME or MODULE:NAME."""
    place, _, attribute = name.rpartition(":")
    if not place or not attribute:
        raise ValueError(f"a function is FILE.py:NAME or MODULE:NAME: it is {name}.")
    if place.endswith(".py"):
        there = runpy.run_path(place)
    else:
        sys.path.insert(0, "")  # modules of the working directory, as python -m finds them
        try:
            there = vars(importlib.import_module(place))
        except ModuleNotFoundError as error:
            if error.name is None or not f"{place}.".startswith(f"{error.name}."):
                raise
            raise ValueError(
                f"there is no module {place} here: give FILE.py:{attribute}, or go where it is."
            ) from error
    function = there.get(attribute)
    if not callable(function):
        raise ValueError(f"{place} has no function {attribute}.")
    return function


def _setting(text):
    """NAME=VALUE[,VALUE...] as name and value: numbers where they read as such, a list where there is a comma."""
    name, equals, said = text.partition("=")
    if not name.isidentifier() or not equals:
        raise ValueError(f"a setting is NAME=VALUE[,VALUE...]: it is {text}.")
    values = [_number(value) for value in said.split(",")]
    return name, values if len(values) > 1 else values[0]


def _number(text):
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def program():
    """Run a command as a program and end the process with its exit code."""
    code = main()
    if code == interrupts.CODE:
        # XLA may still be at work: the interpreter would wait for that, and has crashed in doing so.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    program()
