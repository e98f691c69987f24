"""Trainings that are killed and started again end with the bits of one that was left alone."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
OF_SIGTERM = 143  # 128 + 15, by the convention of shells


def of_the_loop(folder):
    """The command of the small loop."""
    return [sys.executable, str(ROOT / "tests" / "resumable_loop.py"), str(folder), "1000"]


def bits_of_the_loop(printed):
    return printed.split()[-1]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The bits of a training that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return bits_of_the_loop(run(of_the_loop(folder)))


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def newest(folder):
    """The step of the last checkpoint in a folder; 0 if there is none."""
    return max((int(path.name.removeprefix("step_")) for path in folder.glob("step_*")), default=0)


def signalled(command, folder, number, wait):
    """Start a command, wait for its next checkpoint and then `wait` seconds, send a signal; returns the exit code."""
    before, limit = newest(folder), time.monotonic() + 120
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT) as process:
        while newest(folder) == before and process.poll() is None:
            assert time.monotonic() < limit, "no checkpoint was written"
            time.sleep(0.005)
        time.sleep(wait)
        process.send_signal(number)
    return process.returncode


@pytest.mark.slow
def test_kill_9_at_ten_random_moments_changes_no_bit(expected, tmp_path):
    moments, folder = random.Random(1), tmp_path / "run"
    for _ in range(10):
        assert signalled(of_the_loop(folder), folder, signal.SIGKILL, 0.1 * moments.random()) == -signal.SIGKILL
    assert bits_of_the_loop(run(of_the_loop(folder))) == expected


@pytest.mark.slow
def test_sigterm_saves_first_and_changes_no_bit(expected, tmp_path):
    folder = tmp_path / "run"
    assert signalled(of_the_loop(folder), folder, signal.SIGTERM, 0.1) == OF_SIGTERM
    assert newest(folder) > 0
    assert bits_of_the_loop(run(of_the_loop(folder))) == expected
