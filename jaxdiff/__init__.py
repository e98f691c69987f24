"""Sample diffusion models with guarantees: plan the steps for an accuracy, and certify the accuracy of the samples.

Importing this package initialises no JAX backend. `load` and the modules in `ON_FIRST_USE` are imported on first use,
because they need Flax and Optax (extra `train`), Matplotlib (extra `plot`) or the run folders of the command line.
"""

import importlib
from typing import Any

from jaxdiff import curves, grids, kernels, metrics, noise, processes, scores, sweeps, targets
from jaxdiff.certificate import Certificate
from jaxdiff.curves import Curve
from jaxdiff.guarantees import bounds, information
from jaxdiff.guarantees.certify import certify
from jaxdiff.guarantees.certify_w2 import certify_w2
from jaxdiff.guarantees.difference import certify_difference
from jaxdiff.guarantees.score_error import certify_score_error
from jaxdiff.planning.fitted_grid import fit_grid
from jaxdiff.planning.plan import plan
from jaxdiff.planning.record import Plan
from jaxdiff.processes import Process
from jaxdiff.sampling import likelihood, ode, prediction_correction
from jaxdiff.sampling.prediction_correction import predict_correct
from jaxdiff.sampling.sample import sample, sample_in_turn, trajectory
from jaxdiff.targets import Target
from jaxdiff.training import losses
from jaxdiff.types import Kernel, Sampler

__version__ = "0.1.0"

ON_FIRST_USE = {
    "data": "jaxdiff.app.data",
    "export": "jaxdiff.training.export",
    "networks": "jaxdiff.training.networks",
    "plots": "jaxdiff.app.plots",
    "runs": "jaxdiff.app.run_folder",
    "tables": "jaxdiff.app.tables",
    "train": "jaxdiff.training.fit",
}

__all__ = [
    "Certificate",
    "Curve",
    "Kernel",
    "Plan",
    "Process",
    "Sampler",
    "Target",
    "bounds",
    "certify",
    "certify_difference",
    "certify_score_error",
    "certify_w2",
    "curves",
    "data",
    "export",
    "fit_grid",
    "grids",
    "information",
    "kernels",
    "likelihood",
    "load",
    "losses",
    "metrics",
    "networks",
    "noise",
    "ode",
    "plan",
    "plots",
    "predict_correct",
    "prediction_correction",
    "processes",
    "runs",
    "sample",
    "sample_in_turn",
    "scores",
    "sweeps",
    "tables",
    "targets",
    "train",
    "trajectory",
]


def __getattr__(name: str) -> Any:
    if name == "load":
        return importlib.import_module("jaxdiff.app.model").load
    if name in ON_FIRST_USE:
        return importlib.import_module(ON_FIRST_USE[name])
    raise AttributeError(f"module 'jaxdiff' has no attribute {name!r}")
