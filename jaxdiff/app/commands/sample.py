"""jaxdiff sample: draw samples of a run with the planned sampler, or with another one."""

import argparse
import pathlib
import sys

from jaxdiff.app.commands.options import Defaults, check_seed


def add(commands):
    """Declare the command and its arguments."""
    parser = commands.add_parser("sample", help="draw samples with the planned sampler", formatter_class=Defaults)
    parser.add_argument("run", type=pathlib.Path, help="run folder")
    parser.add_argument("-n", type=int, default=1000, help="number of samples")
    parser.add_argument("--seed", type=int, default=0, help="seed of the starting positions and of the noise")
    parser.add_argument("--kernel", metavar="NAME", help="another kernel than that of the plan, with its own grid")
    parser.add_argument(
        "--evals", type=int, help="another number of score evaluations for each sample than that of the plan"
    )
    parser.add_argument(
        "--denoise",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="end with the denoiser, which removes the noise that is left at the early stop",
    )
    parser.add_argument("--round", action="store_true", help="round the columns that hold whole numbers in the data")
    parser.add_argument(
        "--out", type=pathlib.Path, metavar="FILE", help=".npy, .csv or .tsv (default: samples.npy in the run folder)"
    )
    parser.add_argument(
        "--chunk", type=int, metavar="ROWS", help="make and write so many samples at a time, to save memory"
    )
    parser.set_defaults(command=run)


def run(options):
    """Draw the samples and write them."""
    from jaxdiff import files
    from jaxdiff.app import plots, run_folder, run_samples
    from jaxdiff.app.saving import writing

    check_seed(options.seed)
    if options.chunk is not None and options.chunk < 1:
        raise ValueError(f"chunk must be at least 1 sample: chunk = {options.chunk}.")
    run = run_folder.load(options.run)
    plan, dataset = run_folder.load_plan(run), run.dataset
    chosen = run_samples.chosen(run, plan, options.kernel, options.evals)
    out = run.folder / "samples.npy" if options.out is None else options.out
    run_samples.check_room(out, options.n, dataset.dim)
    whole = 0 if dataset.whole is None else int(dataset.whole.sum())
    if options.round and not whole:
        raise ValueError("no column of the data holds only whole numbers: leave --round out.")
    how = {"at_once": options.chunk, "denoise": options.denoise, "rounded": options.round, "progress": True}
    parts = run_samples.parts(run, chosen, options.n, options.seed, **how)
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
    print(f"{options.n} samples, {chosen.sampler.evals + options.denoise} evaluations each: {out}")
    print(run_samples.early_stopping(run, denoise=options.denoise))
    if not chosen.planned:
        print("This is not the sampler of the plan: the numbers of plan and certificate do not hold for these samples.")
    if whole and not options.round:
        print(f"{whole} columns hold whole numbers in the data: --round rounds them.", file=sys.stderr)
