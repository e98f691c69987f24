"""Sample diffusion models with guarantees: plan the steps for an accuracy, certify what was reached.

Importing this package touches no backend. `networks` and `train` need Flax and Optax (extra `train`) and are loaded
on first use.
"""

import importlib

from jaxdiff import (
    bounds,
    curves,
    data,
    grids,
    information,
    kernels,
    likelihood,
    losses,
    metrics,
    noise,
    ode,
    prediction_correction,
    processes,
    scores,
    sweeps,
    targets,
)
from jaxdiff.certify import certify
from jaxdiff.plan import plan
from jaxdiff.prediction_correction import predict_correct
from jaxdiff.sample import sample, sample_in_turn, trajectory
from jaxdiff.tuning import fit_grid
from jaxdiff.types import Certificate, Curve, Kernel, Plan, Process, Target

__version__ = "0.1.0"

ON_FIRST_USE = ("networks", "train")

__all__ = [
    "Certificate",
    "Curve",
    "Kernel",
    "Plan",
    "Process",
    "Target",
    "bounds",
    "certify",
    "curves",
    "data",
    "fit_grid",
    "grids",
    "information",
    "kernels",
    "likelihood",
    "losses",
    "metrics",
    "noise",
    "ode",
    "plan",
    "predict_correct",
    "prediction_correction",
    "processes",
    "sample",
    "sample_in_turn",
    "scores",
    "sweeps",
    "targets",
    "trajectory",
    *ON_FIRST_USE,
]


def __getattr__(name):
    if name in ON_FIRST_USE:
        return importlib.import_module(f"jaxdiff.{name}")
    raise AttributeError(f"module 'jaxdiff' has no attribute {name!r}")
