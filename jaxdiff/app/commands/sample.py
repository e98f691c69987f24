"""jaxdiff sample: draw samples of a run with the planned sampler, or with another one."""

import argparse
import pathlib
import sys

import numpy as np

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
        "--label",
        metavar="CLASS",
        help="class of all samples (default: all classes, with the shares of the train rows)",
    )
    parser.add_argument("--guidance", type=float, help="another weight of guidance than that of the plan")
    parser.add_argument("--network", metavar="FILE.py:NAME", help="the function of the run's own network, if it moved")
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
    from jaxdiff.app import run_folder, run_samples, sample_files

    check_seed(options.seed)
    if options.chunk is not None and options.chunk < 1:
        raise ValueError(f"chunk must be at least 1 sample: chunk = {options.chunk}.")
    run = run_folder.load(options.run, network=options.network)
    plan, dataset = run_folder.load_plan(run), run.dataset
    guidance = plan["guidance"] if options.guidance is None else options.guidance
    run_folder.check_guidance(run, guidance)
    labels = run_samples.labels_of(run, options.label)
    chosen = run_samples.chosen(run, plan, options.kernel, options.evals, guidance)
    out = run.folder / "samples.npy" if options.out is None else options.out
    sample_files.check_room(out, options.n, run.event_shape)
    whole = 0 if dataset.whole is None else int(dataset.whole.sum())
    if options.round and not whole:
        raise ValueError("no column of the data holds only whole numbers: leave --round out.")
    how = {"at_once": options.chunk, "denoise": options.denoise, "rounded": options.round, "progress": True}
    parts = run_samples.parts(run, chosen, options.n, options.seed, labels=labels, **how)
    own = None if labels is None else labels(np.arange(options.n))
    if options.out is None:
        _write_into_run(run, plan, parts, options.n, own)
    else:
        _write_to(out, run, parts, options.n, own)
    twice = " of two networks" if guidance != 1 else ""
    print(f"{options.n} samples, {chosen.sampler.evals + options.denoise} evaluations{twice} each: {out}")
    print(run_samples.early_stopping(run, denoise=options.denoise))
    if not chosen.planned:
        print("This is not the sampler of the plan: the numbers of plan and certificate do not hold for these samples.")
    if whole and not options.round:
        print(f"{whole} columns hold whole numbers in the data: --round rounds them.", file=sys.stderr)


def _write_into_run(run, plan, parts, n, labels):
    """samples.npy with its picture, and samples_labels.npy where the samples have labels."""
    from jaxdiff.app import plots, sample_files
    from jaxdiff.app.saving import writing

    with writing(run, "samples.npy", plan=plan, instead_of=("samples_labels.npy",)) as drafts:
        first = sample_files.write(drafts.folder / "samples.npy", parts, n)
        both = None
        if labels is not None:
            np.save(drafts.folder / "samples_labels.npy", np.array(run.classes)[labels])
            both = labels[: len(first)], run.labels("test")
        real, train = run.restore(run.dataset.test), run.restore(run.dataset.train)
        shape = run.model["image_shape"]
        plots.samples(drafts.folder / "samples.png", first, real, train, shape, of=n, labels=both)


def _write_to(out, run, parts, n, labels):
    """A file of samples. Labels are the last column of a text file, and a file of their own beside a .npy file."""
    from jaxdiff import files
    from jaxdiff.app import sample_files

    names = (run.model.get("reading") or {}).get("names")
    words = None if labels is None else np.array(run.classes)[labels]
    with files.written(out) as draft:
        sample_files.write(draft, parts, n, names, words)
    if words is not None and out.suffix == ".npy":
        with files.written(out.with_name(f"{out.stem}_labels.npy")) as draft, draft.open("wb") as stream:
            np.save(stream, words)
