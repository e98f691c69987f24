"""One progress bar for everything that takes longer than a second."""

import sys


def bar(iterable, description, *, enabled=True, total=None):
    """Iterate with a bar on standard error; without tqdm (extra `cli`), or disabled, iterate alone."""
    if not enabled:
        return iterable
    try:
        from tqdm import tqdm
    except ImportError:
        return iterable
    return tqdm(iterable, desc=description, total=total, file=sys.stderr, dynamic_ncols=True, mininterval=0.2)
