"""Means of a sweep's rows over seeds."""

import json

import numpy as np

from jaxdiff.sweeps.settings import is_number


def over_seeds(rows):
    """Means over seeds: a row for each dimension and setting, every number with its standard error beside it.

    Args:
      rows: those of `run`, with a column "seed". Rows that agree in all columns before "seed" form a group; the numbers
        in the columns after it are averaged over the group.

    Returns:
      A list of dicts, in the order of the groups' first rows: dimension and settings, "seeds", the number of seeds,
      then NAME and NAME_error of every number. The error is None for a single seed.
    """
    groups = {}
    for row in rows:
        names = list(row)
        groups.setdefault(json.dumps({name: row[name] for name in names[: names.index("seed")]}), []).append(row)
    return [json.loads(label) | {"seeds": len(group)} | _means(group) for label, group in groups.items()]


def _means(rows):
    names = list(rows[0])
    means = {}
    for name in names[names.index("seed") + 1 :]:
        values = [row[name] for row in rows]
        if all(map(is_number, values)):
            error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
            means |= {name: float(np.mean(values)), f"{name}_error": error}
    return means
