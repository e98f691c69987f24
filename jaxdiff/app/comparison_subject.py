"""The samplers that a report compares, and the curves that they are planned with and measured with."""

import dataclasses
import functools
from typing import Any

import numpy as np

from jaxdiff.app.run_folder import Run
from jaxdiff.app.samplers import MATCHED, PER_DIRECTION, in_axes, kernel_of, path_cost_of, planned_name
from jaxdiff.certificate import CONFIDENCE
from jaxdiff.curves import Curve
from jaxdiff.grids import exponential_then_uniform
from jaxdiff.guarantees.certify import discretisation_of
from jaxdiff.metrics import Estimate
from jaxdiff.planning.best_grid import best
from jaxdiff.planning.grid_shapes import resampled
from jaxdiff.types import DenoiserFn, Sampler

BENTON, PLANNED = "Benton", "planned"  # names of grids
# What a report compares, as pairs (name of the sampler, name of its grid).
SAMPLERS = (
    ("exponential_euler", BENTON),
    ("ancestral", BENTON),
    ("ancestral", PLANNED),
    (MATCHED, PLANNED),
    (PER_DIRECTION, PLANNED),
    ("ddim", PLANNED),
)


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A denoiser whose samplers are compared, with its data.

    Attributes:
      denoiser: D(x, t), for as many rows as there are test rows where it takes labels.
      held_out: its loss curve on held-out rows, which the samplers are planned with.
      test: its loss curve on test rows, which the samplers are measured with.
      train_rows, test_rows: (n, d), standardised.
      horizon, early_stop: OU times between which the samplers run.
      per_direction: whether the plan has a variance for each direction; no effect if the curves have no basis.
      plan: the contents of plan.json; None where only the samplers of SAMPLERS are compared.
      in_axes: the denoiser in the coordinates of axes, and the axes, which are the basis of the held-out curve; or
        None.
    """

    denoiser: DenoiserFn
    held_out: Curve
    test: Curve
    train_rows: np.ndarray
    test_rows: np.ndarray
    horizon: float
    early_stop: float
    per_direction: bool = True
    plan: dict[str, Any] | None = None
    in_axes: tuple[DenoiserFn, np.ndarray] | None = None

    @functools.cached_property
    def _curve_in_axes(self):
        """The held-out curve in the coordinates of `in_axes`; one object, so that its kernels recompile nothing."""
        return dataclasses.replace(self.held_out, basis="coordinates")

    def grid(self, name, grid_name, n_steps):
        """Benton's grid, or the sampler's best grid for the held-out curve; DDIM gets that of moment matching."""
        if grid_name == BENTON:
            return exponential_then_uniform(self.horizon, self.early_stop, n_steps)
        cost = path_cost_of(name, self.held_out) or path_cost_of(MATCHED, self.held_out)
        return best(cost, self.held_out, self.horizon, self.early_stop, n_steps)

    @property
    def samplers(self):
        """The pairs (name, grid name) of SAMPLERS; without PER_DIRECTION if the curves have no basis."""
        return [one for one in SAMPLERS if one[0] != PER_DIRECTION or self.held_out.basis is not None]

    @property
    def planned(self):
        """The name of the planned sampler: moment matching, with a variance for each direction or one for all."""
        return planned_name(MATCHED, self.per_direction and self.held_out.basis is not None)

    def kernel(self, name, options=None):
        """The kernel in the coordinates of `in_axes`. Moment matching sets its variance from the held-out curve."""
        if self.in_axes is None:
            return kernel_of(name, self.denoiser, self.held_out, options)
        return kernel_of(name, self.in_axes[0], self._curve_in_axes, options)

    def of_plan(self, evals=None) -> Sampler:
        """The planned sampler; with another number of evaluations the shape of its grid, resampled."""
        plan = self.plan
        assert plan is not None
        kernel = self.kernel(planned_name(plan["kernel"], plan["per_direction"]), plan["options"])
        same = evals in (None, plan["evals"])
        return Sampler(kernel, plan["grid"] if same else resampled(plan["grid"], evals // kernel.evals_per_step))

    def sampler(self, name, grid_name, n_steps) -> Sampler:
        """The kernel with its grid."""
        return Sampler(self.kernel(name), self.grid(name, grid_name, n_steps))

    def excess(self, name, grid):
        """The excess of path KL on the test rows, in nats; None for an ODE, for which no path KL is defined."""
        cost = path_cost_of(name, self.test)
        if cost is None:
            return None
        cost = cost.with_variance(self.held_out)
        term = discretisation_of(cost, grid, self.test, None, CONFIDENCE, given=True)
        return Estimate(term.value, term.standard_error)


def subject_of(run: Run, held_out: Curve, test: Curve, guidance: float = 1.0) -> Subject:
    """The subject of a run, with its loss curves on held-out rows and test rows.

    The denoiser of a network that takes labels has those of the test rows, in their order, and the weight of guidance.
    """
    rows, labels = run.dataset, run.labels("test")
    of_rows = (rows.train, rows.test, run.horizon, run.early_stop)
    axes = in_axes(run, held_out.basis, labels, guidance) if held_out.basis is not None else None
    return Subject(run.denoiser(labels, guidance), held_out, test, *of_rows, in_axes=axes)
