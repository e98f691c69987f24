"""How long does each of several functions take on this machine? What every benchmark stands on.

Functions that are compared are timed in turns, round by round, so that whatever slows the machine for a while slows all
of them. Every record says where it was made.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import subprocess
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

import jaxdiff
from jaxdiff.files import to_json, written

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
QUICK_REPEATS, REPEATS = 3, 7
GIT_SECONDS = 30


class Timing(NamedTuple):
    """Seconds: the first call, compilation included; the median of the others and their interquartile range."""

    first: float
    median: float
    spread: float


def interleaved(functions: dict[str, Callable], repeats: int, clock=time.perf_counter) -> dict[str, Timing]:
    """Time functions without arguments: each once, then `repeats` rounds of all of them in order."""
    first = {name: _seconds(function, clock) for name, function in functions.items()}
    rounds = [{name: _seconds(function, clock) for name, function in functions.items()} for _ in range(repeats)]
    return {name: _timing(first[name], [one[name] for one in rounds]) for name in functions}


def _seconds(function, clock):
    began = clock()
    jax.block_until_ready(function())
    return clock() - began


def _timing(first, seconds):
    low, median, high = np.percentile(seconds, [25, 50, 75]).tolist()
    return Timing(first, median, high - low)


def environment(peers=()):
    """Where and with what a benchmark runs; call it at the start, for the load average. Peers: names of packages."""
    device = jax.devices()[0]
    about = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": _commit(),
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in ("jax", "jaxlib", "numpy")},
            "jaxdiff": jaxdiff.__version__,
            **{name: _version(name) for name in peers},
        },
        "platform": device.platform,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "cpu": _cpu(),
        "cores": _cores(),
        "load": [round(load, 2) for load in os.getloadavg()],
    }
    return about | ({"XLA_FLAGS": os.environ["XLA_FLAGS"]} if "XLA_FLAGS" in os.environ else {})


def _commit():
    """The commit, with + if files outside the results differ from it; None outside git."""
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain", "--", ".", f":(exclude){RESULTS.relative_to(ROOT).as_posix()}")
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changed else "")


def _git(*arguments):
    command = ["git", "--no-optional-locks", *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=GIT_SECONDS)
    return run.stdout.strip()


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu():
    info = pathlib.Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else []
    return names[0] if names else platform.processor()


def _cores():
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def platform_slug():
    """What runs are told apart by in file names: cpu, or the kind of device, as nvidia-h200."""
    device = jax.devices()[0]
    return "cpu" if device.platform == "cpu" else re.sub("[^a-z0-9]+", "-", device.device_kind.lower()).strip("-")


def write_rows(name, rows, question, verdict, about=None, path=None):
    """Write a benchmark's record, a row a line, by default to benchmarks/results/NAME-PLATFORM.json; returns where.

    about: the environment at the start; None asks for it now.
    """
    path = pathlib.Path(path or RESULTS / f"{name}-{platform_slug()}.json")
    head = to_json({"question": question, "verdict": verdict, "environment": about or environment()})
    lines = ",\n".join(f"    {json.dumps(row, allow_nan=False)}" for row in rows)
    with written(path) as draft:
        draft.write_text(
            f'{head.rstrip().removesuffix("}").rstrip()},\n  "rows": [\n{lines}\n  ]\n}}\n', encoding="utf-8"
        )
    return path


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
