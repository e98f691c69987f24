"""The record of a plan, which makes the sampler that runs it."""

import dataclasses
from typing import Any

import numpy as np

from jaxdiff import kernels
from jaxdiff.certificate import Certificate
from jaxdiff.curves import Curve
from jaxdiff.types import Basis, Particles, Sampler, ScoreFn


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """The grid and kernel to run for an accuracy or a budget. `sampler` makes the Sampler from a score.

    Attributes:
      horizon: OU time at which sampling starts.
      grid: (evals + 1,) OU times from the horizon to the early stop.
      kernel: name of the planned kernel, a constructor of jaxdiff.kernels.
      evals: score evaluations for each sample.
      certificate: the terms of the bound on KL(q_early_stop || law of the samples).
      alternatives: the path KL of other kernels and grids, as JSON data.
      basis: the directions, each with its own variance of moment matching: the curve's basis. None: one variance for
        all directions.
      curve: the error curve that moment matching sets its variance from; None for other kernels.
      start_mean: (d,) where the plan was made with center=True, alpha(horizon) times the law's mean. The run then
        starts from N(start_mean, I), else from N(0, I). `start` makes the start from draws of N(0, I).
    """

    horizon: float
    grid: np.ndarray = dataclasses.field(repr=False)
    kernel: str
    evals: int
    certificate: Certificate = dataclasses.field(repr=False)
    alternatives: tuple[dict, ...] = dataclasses.field(default=(), repr=False)
    basis: Basis = dataclasses.field(default=None, repr=False)
    start_mean: np.ndarray | None = dataclasses.field(default=None, repr=False)
    curve: Curve | None = dataclasses.field(default=None, repr=False)

    def sampler(self, score: ScoreFn) -> Sampler:
        """The planned kernel with a score, down the planned grid: `sample(plan.sampler(score), x, key=key)`."""
        if self.curve is not None:
            return Sampler(kernels.moment_matched(score, self.curve, basis=self.basis), self.grid)
        return Sampler(getattr(kernels, self.kernel)(score), self.grid)

    def start(self, x: Particles) -> Particles:
        """The particles at the horizon, from draws x (particles, d) of N(0, I), as noise.initial makes them.

        Returns:
          x + start_mean in the dtype of x; x itself where the plan starts from N(0, I).

        Raises:
          ValueError: x is not (particles, d) for the d of the plan.
        """
        if self.start_mean is None:
            return x
        if x.ndim != 2 or x.shape[1] != len(self.start_mean):
            raise ValueError(f"x must be (particles, {len(self.start_mean)}) for this plan: its shape is {x.shape}.")
        return x + np.asarray(self.start_mean, x.dtype)[None]

    @property
    def predicted_kl(self) -> Any:
        """The sum of the known terms in nats: initialisation and discretisation."""
        return self.certificate.known

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON data, without curve and basis."""
        return {
            "horizon": self.horizon,
            "grid": [float(t) for t in self.grid],
            "kernel": self.kernel,
            "evals": self.evals,
            "per_direction": self.basis is not None,
            "start_mean": None if self.start_mean is None else [float(m) for m in self.start_mean],
            "predicted_kl": self.predicted_kl,
            "certificate": self.certificate.to_dict(),
            "alternatives": list(self.alternatives),
        }
