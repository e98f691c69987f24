"""Means of a sweep's rows over seeds."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxdiff.sweeps.settings import is_number


def over_seeds(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over seeds, with their standard errors: one row for each dimension and setting.

    Args:
      rows: the rows that `run` returned, with a column "seed". Rows with equal values in all columns before "seed" form
        a group. The numbers in the columns after "seed" are averaged over the group.

    Returns:
      A list of dicts, in the order of the groups' first rows. The columns are dimension and settings, "seeds" for the
      number of seeds, then NAME and NAME_error for every number. The error is None for a single seed.
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
