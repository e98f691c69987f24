"""The options that every benchmark has: --quick, --full, --repeats and --json."""

import argparse
import pathlib

QUICK_REPEATS, REPEATS = 3, 7


def parser(question):
    """The options that every benchmark has; a script adds its own and hands it to `parsed`."""
    options = argparse.ArgumentParser(description=question)
    size = options.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="few and small cases; writes no record without --json")
    size.add_argument("--full", action="store_true", help="all cases (default)")
    options.add_argument(
        "--repeats", type=count, help=f"timed rounds (default: {REPEATS}, or {QUICK_REPEATS} with --quick)"
    )
    options.add_argument(
        "--json", type=pathlib.Path, metavar="FILE", help="the record (default: in benchmarks/results)"
    )
    return options


def parsed(options, argv=None):
    """The options given, with the number of repeats that goes with --quick."""
    given = options.parse_args(argv)
    given.repeats = given.repeats or (QUICK_REPEATS if given.quick else REPEATS)
    return given


def count(text):
    """A whole number, at least 1, for argparse."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1: it is {text}.")
    return int(text)
