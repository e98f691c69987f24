"""The arguments of `jaxdiff train`."""

import argparse
import pathlib

from jaxdiff.app.commands.options import Defaults
from jaxdiff.processes.default_times import EARLY_STOP_OF_A_NETWORK


def add(commands):
    """Declare the command and its arguments; returns its parser."""
    parser = commands.add_parser("train", help="fit a denoiser to data", formatter_class=Defaults)
    parser.add_argument(
        "source",
        help="digits, digit_images, wine, breast_cancer or patches; a .npy, .npz, .csv, .tsv or .parquet file whose "
        "rows are samples; an array file of images; or a folder of PNG or JPEG images",
    )
    _of_the_data(parser)
    _of_the_network(parser)
    _of_the_training(parser)
    _of_the_run(parser)
    return parser


def _of_the_data(parser):
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
        help="classes of the rows: a column, or a .npy, .csv, .tsv or .txt file with one label a row. Built-in sets "
        "and subfolders of images have labels of their own",
    )
    parser.add_argument("--no-labels", action="store_true", help="train a network that takes no labels")


def _of_the_network(parser):
    parser.add_argument(
        "--network",
        metavar="mlp|unet|dit|FILE.py:NAME",
        help="the network (default: mlp for rows, unet for images); or a function that builds a Flax NNX module from "
        "the shape of an event",
    )
    parser.add_argument("--width", type=int, help="hidden units, channels, or numbers in a token (192, 32, 128)")
    parser.add_argument("--depth", type=int, help="residual blocks, in a U-Net of each level (3, 1, 4)")
    parser.add_argument("--dropout", type=float, default=0.1, help="dropout rate during training")


def _of_the_training(parser):
    parser.add_argument("--steps", type=int, default=4000, help="optimiser steps")
    parser.add_argument("--batch-size", type=int, default=256, help="rows in each part of an optimiser step")
    parser.add_argument("--accumulate", type=int, default=1, help="parts of an optimiser step, one in memory at a time")
    parser.add_argument("--optimiser", choices=("adamw", "muon"), default="adamw", help="the optimiser")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--ema-decay", type=float, default=0.999, help="decay of the average of the parameters")
    parser.add_argument(
        "--weight",
        help="weight of the loss by the noise level, a name of jaxdiff.losses.WEIGHTS (default: snr + 0.1, nearly "
        "that of the path KL)",
    )
    parser.add_argument(
        "--times",
        choices=("log_snr", "low_discrepancy", "importance"),
        default="log_snr",
        help="how noise levels are drawn: spread over log snr, or where the loss is large",
    )
    parser.add_argument("--horizon", type=float, default=5.0, help="OU time at which sampling starts")
    parser.add_argument(
        "--early-stop", type=float, default=EARLY_STOP_OF_A_NETWORK, help="OU time at which sampling stops"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the split, the weights, training, plan and certificate"
    )


def _of_the_run(parser):
    parser.add_argument("--out", type=pathlib.Path, help="run folder (default: runs/NAME)")
    again = parser.add_mutually_exclusive_group()
    again.add_argument(
        "--resume", action="store_true", help="go on with the training in the run folder, if there is one"
    )
    again.add_argument("--overwrite", action="store_true", help="replace the run in the run folder")
    parser.add_argument(
        "--watch-every",
        type=int,
        metavar="STEPS",
        default=1000,
        help="draw samples and the held-out loss curve into RUN/training after every so many steps; 0: never",
    )
