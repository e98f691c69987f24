"""The progress bar of everything that takes longer than a second."""

import contextlib
import sys


def bar(iterable, description, *, enabled=True, total=None):
    """The iterable, with a bar on standard error while it runs. Without tqdm (extra `cli`), or disabled, no bar."""
    tqdm = _tqdm() if enabled else None
    return iterable if tqdm is None else tqdm(iterable, desc=description, total=total, **_look())


@contextlib.contextmanager
def counter(total, description, *, enabled=True):
    """Yields a function count -> None that moves a bar on standard error by `count`.

    Without tqdm (extra `cli`), or disabled, it does nothing.
    """
    tqdm = _tqdm() if enabled else None
    if tqdm is None:
        yield lambda count: None
        return
    with tqdm(total=total, desc=description, **_look()) as moving:
        yield moving.update


def _look():
    return {"file": sys.stderr, "dynamic_ncols": True, "mininterval": 0.2}


def _tqdm():
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm
