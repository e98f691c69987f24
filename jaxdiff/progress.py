"""The progress bar of everything that takes longer than a second."""

import contextlib
import sys


def bar(iterable, description, *, enabled=True, total=None):
    """The iterable, with a bar on standard error while it runs. Without tqdm (extra `cli`), or disabled, no bar."""
    tqdm = _tqdm() if enabled else None
    return iterable if tqdm is None else tqdm(iterable, desc=description, total=total, **_look())


@contextlib.contextmanager
def counter(total, description, *, enabled=True):
    """Yields a function (count, note) -> None that moves a bar on standard error by `count`, and shows the note in it.

    Without tqdm (extra `cli`), or disabled, it does nothing.
    """
    tqdm = _tqdm() if enabled else None
    if tqdm is None:
        yield lambda count, note="": None
        return
    with tqdm(total=total, desc=description, **_look()) as moving:

        def move(count, note=""):
            if note:
                moving.set_postfix_str(note, refresh=False)
            moving.update(count)

        yield move


def _look():
    return {"file": sys.stderr, "dynamic_ncols": True, "mininterval": 0.2}


def _tqdm():
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm
