"""Sweeps: call a function for all dimensions, settings and seeds, in batches on all devices, and collect the rows."""

from jaxdiff.sweeps.means import over_seeds
from jaxdiff.sweeps.settings import Choice
from jaxdiff.sweeps.sweep import run

__all__ = ["Choice", "over_seeds", "run"]
