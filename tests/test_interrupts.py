"""Ctrl-C: deferred in the main thread, raised the second time, and obeyed by a process that is deep in XLA."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from jaxdiff import interrupts


@pytest.fixture(autouse=True)
def _as_in_a_shell():
    """SIGINT has Python's own handler, here and in child processes, also where the tests were started without one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press():
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_press_is_noted_and_the_second_raises():
    with interrupts.deferred() as pressed:
        assert not pressed()
        press()
        assert pressed()
        with pytest.raises(KeyboardInterrupt):
            press()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        press()


def test_a_handler_of_the_program_stays():
    seen = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        with interrupts.deferred() as pressed, interrupts.obeyed("unused"):
            press()
            assert not pressed()
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIGINT]


def test_outside_the_main_thread_nothing_is_deferred():
    told = []

    def work():
        with interrupts.deferred() as pressed, interrupts.obeyed("unused"):
            told.append(pressed())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert told == [False]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_within_obeyed_an_interrupt_raises_as_usual_and_the_thread_lets_the_process_live():
    with interrupts.obeyed("unused", patience=0.05):
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                press()
        threading.Event().wait(0.2)
    assert signal.set_wakeup_fd(-1) == -1


ENDLESS = """
import jax
from jaxdiff import interrupts
with interrupts.obeyed("stopped", patience=0.2):
    run = jax.jit(lambda x: jax.lax.fori_loop(0, 2**31 - 1, lambda i, a: a * 0.5 + i, x)).lower(1.0).compile()
    print("ready", flush=True)
    while True:
        jax.block_until_ready(run(1.0))
"""


def test_a_process_ends_though_python_cannot_react():
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            threading.Event().wait(0.5)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == interrupts.CODE
    assert told == "\nstopped\n"


def test_a_command_in_the_background_whose_sigint_is_ignored_still_sees_sigterm():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts.deferred(terminations=True) as pressed:
            os.kill(os.getpid(), signal.SIGINT)
            assert not pressed()
            os.kill(os.getpid(), signal.SIGTERM)
            assert pressed() == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
