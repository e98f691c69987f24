"""jaxdiff train: fit a denoiser to data and write the run folder."""

import argparse
import csv
import dataclasses
import pathlib
import sys
import warnings

from jaxdiff import interrupts
from jaxdiff.app.commands.options import Defaults, check_seed
from jaxdiff.processes.default_times import EARLY_STOP_OF_A_NETWORK


def add(commands):
    """Declare the command and its arguments."""
    parser = commands.add_parser("train", help="fit a denoiser to data", formatter_class=Defaults)
    parser.add_argument(
        "source",
        help="digits, wine or breast_cancer, or a .npy, .npz, .csv, .tsv or .parquet file whose rows are samples",
    )
    parser.add_argument(
        "--header",
        action=argparse.BooleanOptionalAction,
        help="whether the first line of a text file holds the names of the columns (default: decided from the file)",
    )
    parser.add_argument(
        "--columns",
        metavar="NAME[,NAME...]",
        help="columns to read, by name or by position from 0 (default: all except columns that number the rows)",
    )
    parser.add_argument("--key", metavar="NAME", help="array to read from an .npz file that holds several")
    parser.add_argument(
        "--labels",
        metavar="COLUMN|FILE",
        help="classes of the rows: a column, or a .npy, .csv, .tsv or .txt file with one label a row",
    )
    parser.add_argument("--out", type=pathlib.Path, help="run folder (default: runs/NAME)")
    parser.add_argument("--steps", type=int, default=4000, help="optimiser steps")
    parser.add_argument("--batch-size", type=int, default=256, help="rows in each optimiser step")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="peak learning rate of AdamW")
    parser.add_argument("--width", type=int, default=192, help="hidden units")
    parser.add_argument("--depth", type=int, default=3, help="residual blocks")
    parser.add_argument("--dropout", type=float, default=0.1, help="dropout rate during training")
    parser.add_argument("--horizon", type=float, default=5.0, help="OU time at which sampling starts")
    parser.add_argument(
        "--early-stop", type=float, default=EARLY_STOP_OF_A_NETWORK, help="OU time at which sampling stops"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the split, the weights, training, plan and certificate"
    )
    parser.set_defaults(command=run)


def run(options):
    """Fit a denoiser and write the run folder."""
    import orbax.checkpoint  # noqa: F401  # imported now, so that an interrupted run is saved without delay

    from jaxdiff import files
    from jaxdiff.app import data, records
    from jaxdiff.app.saving import save
    from jaxdiff.processes.default_times import check_ends

    check_seed(options.seed)
    check_ends(options.horizon, options.early_stop)
    files.check_folder(options.out or "runs")
    dataset = _dataset(options)
    sizes = ", ".join(f"{len(getattr(dataset, name))} {name.replace('_', '-')}" for name in records.SPLITS)
    constant = f", {dataset.constant} of them constant, which are kept and not scaled" if dataset.constant else ""
    print(f"{dataset.name}: {sizes} rows of {dataset.dim} columns{constant}")
    network = {"width": options.width, "depth": options.depth, "dropout": options.dropout, "seed": options.seed}
    trained, stopped = _fitted(options, dataset, network)
    model = {"horizon": options.horizon, "early_stop": options.early_stop, "seed": options.seed}
    model |= {"source": options.source, "network": network, "history": trained.history}
    model["image_shape"] = data.IMAGE_SHAPES.get(options.source)
    model["reading"] = dataclasses.asdict(dataset.reading)
    folder = _folder(options, dataset, stopped)
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
        f"jaxdiff: interrupted after {stopped} of {options.steps} steps. {folder} holds the best network so far: "
        f"continue with jaxdiff plan {folder}, or train again.",
        file=sys.stderr,
    )
    return interrupts.CODE


def _fitted(options, dataset, network):
    """The Fit, and the step at which Ctrl-C ended training; None if it was not interrupted."""
    import jax

    from jaxdiff.app import run_folder
    from jaxdiff.training.fit import Interrupted, fit

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
        return interrupted.fit, interrupted.step
    return trained, None


def _folder(options, dataset, stopped):
    """The run folder to write; an interrupted run does not replace a finished one."""
    folder = options.out or pathlib.Path("runs") / dataset.name
    if not (folder / "model.json").exists():
        return folder
    if stopped is not None:
        return folder.with_name(f"{folder.name}-interrupted")
    print(f"replacing the run in {folder}", file=sys.stderr)
    return folder


def _dataset(options):
    """The data of the train command. The reader's assumptions about the file are printed on standard error."""
    from jaxdiff.app import data
    from jaxdiff.app.errors import DataError

    columns = None if options.columns is None else next(csv.reader([options.columns], skipinitialspace=True), [])
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        how = {"header": options.header, "columns": columns, "key": options.key, "labels": options.labels}
        dataset = data.load(options.source, seed=options.seed, **how)
    for note in dataset.reading.notes:
        print(f"{options.source}: {note}", file=sys.stderr)
    if dataset.pixels is not None:
        shape = (len(dataset.train) + len(dataset.held_out) + len(dataset.test), *dataset.event_shape)
        raise DataError(
            f"{options.source} holds images of shape {dataset.event_shape}, and jaxdiff train takes rows of numbers: "
            f"save them as rows, x.reshape({shape[0]}, {dataset.dim})."
        )
    return dataset
