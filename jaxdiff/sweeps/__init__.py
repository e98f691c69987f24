"""A function over dimensions, settings and seeds: batched, spread over devices, resumable, tidy rows out."""

from jaxdiff.sweeps.means import over_seeds
from jaxdiff.sweeps.settings import Choice
from jaxdiff.sweeps.sweep import run

__all__ = ["Choice", "over_seeds", "run"]
