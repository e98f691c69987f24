"""The command `jaxdiff` and its subcommands. An error of the user prints one sentence and gives exit code 2."""

import argparse
import os
import re
import sys

from jax.errors import JaxRuntimeError

from jaxdiff import __version__, interrupts
from jaxdiff.app.commands import certify, plan, report, sample, sweep, train

OF_SIGNALS = 128  # added to the number of the signal that ended a command, by the convention of shells


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
    """The sentence for the user, or None for an error in jaxdiff itself."""
    match error:
        case ModuleNotFoundError():
            ours = (error.name or "").startswith("jaxdiff")
            return None if ours else f"{error.name} is not installed: pip install 'jaxdiff[all]'."
        case JaxRuntimeError() if not re.search("RESOURCE_EXHAUSTED|out of memory", str(error), re.IGNORECASE):
            return None
        case MemoryError() | JaxRuntimeError():
            return "not enough memory: choose a smaller --batch-size, --width or --chunk, or give fewer rows."
    return error


def _parser():
    parser = argparse.ArgumentParser(prog="jaxdiff", description="Sample diffusion models with guarantees.")
    parser.add_argument("--traceback", action="store_true", help="show the full traceback of an error")
    parser.add_argument("--version", action="version", version=f"jaxdiff {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    for command in (train, plan, sample, certify, report, sweep):
        command.add(commands)
    return parser


def program():
    """Run a command, and end the process with its exit code."""
    code = main()
    if code > OF_SIGNALS:
        # XLA may still be computing. A normal exit waits for it, and has crashed while waiting.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
