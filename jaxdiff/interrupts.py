"""Ctrl-C: deferred until work can stop without loss, and obeyed in time where Python itself cannot react."""

import contextlib
import os
import signal
import sys
import threading

PATIENCE = 2.0  # seconds
CODE = 130  # exit code of a process that was interrupted

_noticed = threading.Event()  # Python has reacted to the last interrupt


@contextlib.contextmanager
def deferred():
    """A function that tells whether Ctrl-C was pressed since. The first Ctrl-C raises nothing, a second one raises.

    Outside the main thread, and where the program has its own handler of SIGINT, the function always returns False.
    """
    ours = signal.getsignal(signal.SIGINT) in (signal.default_int_handler, _raise)
    if not ours or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    pressed = threading.Event()
    before = signal.getsignal(signal.SIGINT)

    def note(number, frame):
        if pressed.is_set():
            _raise(number, frame)
        _noticed.set()
        pressed.set()

    signal.signal(signal.SIGINT, note)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def obeyed(message, patience=PATIENCE):
    """End the process where Python has not reacted to Ctrl-C for some seconds, as in a long compilation.

    Python runs a handler of SIGINT only between two of its own instructions. A thread therefore waits for the signal,
    prints the message and ends the process with exit code 130. Idle outside the main thread and where the program has
    its own handler.
    """
    default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not default or threading.current_thread() is not threading.main_thread():
        yield
        return
    receiving, sending = os.pipe()
    os.set_blocking(sending, False)
    former = signal.set_wakeup_fd(sending, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, _raise)
    threading.Thread(target=_watch, args=(receiving, message, patience), daemon=True).start()
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.set_wakeup_fd(former)
        os.close(sending)  # the thread reads the end of the pipe


def _raise(number, frame):
    _noticed.set()
    signal.default_int_handler(number, frame)


def _watch(receiving, message, patience):
    with open(receiving, "rb", buffering=0) as signals:
        while number := signals.read(1):
            if number[0] != signal.SIGINT:
                continue
            if not _noticed.wait(patience):
                print(f"\n{message}", file=sys.stderr, flush=True)
                os._exit(CODE)
            _noticed.clear()
