"""jaxdiff sweep: call a function of the user for dimensions, settings and seeds."""

import importlib
import json
import pathlib
import runpy
import sys

from jaxdiff.app.commands.options import Defaults


def add(commands):
    """Declare the command and its arguments."""
    about = "call a function for dimensions, settings and seeds; a row for each (jaxdiff.sweeps.run)"
    parser = commands.add_parser("sweep", help=about, description=about, formatter_class=Defaults)
    parser.add_argument(
        "function", help="FILE.py:NAME or MODULE:NAME; takes mask and is compiled, or dim and is called"
    )
    parser.add_argument("--dims", type=int, nargs="+", metavar="D", help="dimensions")
    parser.add_argument("--seeds", type=int, metavar="N", help="how many seeds: 0 to N - 1")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE[,VALUE...]", dest="settings", help="a setting; repeat"
    )
    parser.add_argument(
        "--out", type=pathlib.Path, metavar="FILE", help="rows as JSON lines; those there are not run again"
    )
    parser.add_argument("--batch", type=int, default=64, help="rows of a compiled function at once")
    parser.add_argument("--json", action="store_true", help="print every row as a line of JSON, not means over seeds")
    parser.set_defaults(command=run)


def run(options):
    """Run the sweep, and print its rows."""
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
