"""The machine, versions and commit that a benchmark ran with: every record says so."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
import re
import subprocess

import jax

import jaxdiff
from benchmarks.harness import places

GIT_SECONDS = 30


def environment(peers=()):
    """The machine, versions, commit and load; call it at the start of a run. Peers: names of packages."""
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
    """The commit, followed by + if files outside the results differ from it; None outside git."""
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        changed = _git(
            "status", "--porcelain", "--", ".", f":(exclude){places.RESULTS.relative_to(places.ROOT).as_posix()}"
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changed else "")


def _git(*arguments):
    command = ["git", "--no-optional-locks", *arguments]
    run = subprocess.run(command, cwd=places.ROOT, capture_output=True, text=True, check=True, timeout=GIT_SECONDS)
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
    """The platform in the names of records: cpu, or the kind of device, such as nvidia-h200."""
    device = jax.devices()[0]
    return "cpu" if device.platform == "cpu" else re.sub("[^a-z0-9]+", "-", device.device_kind.lower()).strip("-")
