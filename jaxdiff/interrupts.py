"""Ctrl-C: deferred until work can stop without loss, and obeyed during compilations, in which Python cannot react."""

import contextlib
import os
import signal
import sys
import threading
import time

PATIENCE = 2.0  # seconds that Python gets to react to Ctrl-C before the process is ended
CODE = 130  # exit code of a process that SIGINT ended, by the convention of shells: 128 + 2
_reacted = [0]  # how often a handler of this module has run


@contextlib.contextmanager
def deferred(terminations=False):
    """Yields a function that returns whether Ctrl-C was pressed. The first Ctrl-C raises nothing, the second raises.

    With terminations=True a SIGTERM counts as Ctrl-C, unless the program has its own handler of SIGTERM. The function
    returns the number of the first signal, or False. Outside the main thread, or if the program has its own handler of
    SIGINT, the function always returns False. An ignored SIGINT, which shells give to commands in the background, stays
    ignored.
    """
    of_interrupts = signal.getsignal(signal.SIGINT)
    taken = {signal.SIGINT: of_interrupts} if of_interrupts in (signal.default_int_handler, _raise) else {}
    known = bool(taken) or of_interrupts is signal.SIG_IGN
    if terminations and known and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        taken[signal.SIGTERM] = signal.SIG_DFL
    if not taken or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    pressed = []

    def note(number, frame):
        if pressed:
            _raise(number, frame)
        _note()
        pressed.append(number)

    for number in taken:
        signal.signal(number, note)
    try:
        yield lambda: pressed[0] if pressed else False
    finally:
        for number, before in taken.items():
            signal.signal(number, before)


@contextlib.contextmanager
def obeyed(message, patience=PATIENCE):
    """End the process if Python does not react to Ctrl-C for `patience` seconds, as during a long compilation.

    Python runs a handler of SIGINT only between two of its own instructions. A thread therefore waits for the signal,
    prints the message and ends the process with exit code 130. Outside the main thread, or if the program has its own
    handler, nothing changes.
    """
    default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not default or threading.current_thread() is not threading.main_thread():
        yield
        return
    receiving, sending = os.pipe()
    os.set_blocking(sending, False)
    former = signal.set_wakeup_fd(sending, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, _raise)
    threading.Thread(target=_watch, args=(receiving, message, patience, _reacted[0]), daemon=True).start()
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.set_wakeup_fd(former)
        os.close(sending)  # the thread reads the end of the pipe


def _note():
    _reacted[0] += 1


def _raise(number, frame):
    _note()
    signal.default_int_handler(number, frame)


def _watch(receiving, message, patience, seen):
    """Read signals from the pipe; end the process if no handler runs within `patience` seconds of a SIGINT.

    seen: how often a handler had run before.
    """
    while numbers := os.read(receiving, 4096):
        if signal.SIGINT not in numbers:
            continue
        deadline = time.monotonic() + patience
        while _reacted[0] == seen:
            if time.monotonic() > deadline:
                print(f"\n{message}", file=sys.stderr, flush=True)
                os._exit(CODE)
            time.sleep(0.02)
        # The handler has answered all signals that came before it ran, so they are removed from the pipe. `seen` must
        # be read first: a handler that runs from here on answers the next signal.
        seen = _reacted[0]
        os.set_blocking(receiving, False)
        with contextlib.suppress(BlockingIOError):
            os.read(receiving, 4096)
        os.set_blocking(receiving, True)
    os.close(receiving)
