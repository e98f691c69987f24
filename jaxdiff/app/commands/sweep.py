"""jaxdiff sweep: call a function of the user for all dimensions, settings and seeds."""

import json
import pathlib
from typing import Any

from jaxdiff.app.commands.options import Defaults


def add(commands):
    """Declare the command and its arguments."""
    about = "call a function for all dimensions, settings and seeds, and print a table (see jaxdiff.sweeps.run)"
    parser = commands.add_parser("sweep", help=about, description=about, formatter_class=Defaults)
    parser.add_argument(
        "function", help="FILE.py:NAME or MODULE:NAME; compiled if it takes mask, called for each row if it takes dim"
    )
    parser.add_argument("--dims", type=int, nargs="+", metavar="D", help="dimensions")
    parser.add_argument("--seeds", type=int, metavar="N", help="number of seeds, which are 0 to N - 1")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE[,VALUE...]",
        dest="settings",
        help="a setting; may be repeated",
    )
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        metavar="FILE",
        help="file of JSON lines; rows that it holds already are not run again",
    )
    parser.add_argument("--batch", type=int, default=64, help="how many rows of a compiled function run at once")
    parser.add_argument(
        "--json", action="store_true", help="print every row as a line of JSON instead of a table of means over seeds"
    )
    parser.set_defaults(command=run)


def run(options):
    """Run the sweep and print its rows."""
    from jaxdiff import sweeps
    from jaxdiff.app.functions import function_of
    from jaxdiff.app.tables import table

    if options.seeds is not None and options.seeds < 1:
        raise ValueError(f"--seeds must be a number of seeds, 1 at least: it is {options.seeds}.")
    settings: dict[str, Any] = dict(map(_setting, options.settings))
    rows = sweeps.run(
        function_of(options.function, "function"),
        dims=options.dims,
        seeds=None if options.seeds is None else range(options.seeds),
        resume=options.out,
        batch=options.batch,
        progress=True,
        **settings,
    )
    if options.json:
        print("\n".join(map(json.dumps, rows)))
    else:
        print(table(rows if options.seeds is None else sweeps.over_seeds(rows)))


def _setting(text):
    """Name and value of NAME=VALUE[,VALUE...]. Values become numbers if they can; several values make a list."""
    name, equals, values = text.partition("=")
    if not name.isidentifier() or not equals:
        raise ValueError(f"a setting must be NAME=VALUE[,VALUE...]: it is {text}.")
    values = [_number(value) for value in values.split(",")]
    return name, values if len(values) > 1 else values[0]


def _number(text):
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
