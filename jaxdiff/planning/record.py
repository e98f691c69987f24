"""The record of a plan, and the sampler that runs it."""

import dataclasses

import numpy as np

from jaxdiff import kernels
from jaxdiff.certificate import Certificate
from jaxdiff.curves import Curve
from jaxdiff.types import Basis, Sampler, ScoreFn


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """What to run for an accuracy. `sampler` makes it, from a score.

    Attributes:
      horizon: OU time at which sampling starts.
      grid: (evals + 1,) OU times from the horizon to the early stop.
      kernel: name of the planned kernel, a constructor of jaxdiff.kernels.
      evals: score evaluations for each sample.
      certificate: what the plan promises, term by term.
      alternatives: what other kernels and grids give, as JSON data.
      basis: the directions in which moment matching sets a variance each, the curve's own; None: one for all.
      curve: the error curve that moment matching sets its variance from; None for other kernels.
      start_mean: (d,) where the plan was made with center=True: the run starts from N(start_mean, I), start_mean =
        alpha(horizon) times the law's mean. None: from N(0, I). `start` makes either from draws of N(0, I).
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

    def start(self, x):
        """Where particles of this plan start, from draws x (particles, d) of N(0, I), as noise.initial makes them.

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
    def predicted_kl(self):
        """The sum of the terms that are known: initialisation and discretisation, in nats."""
        return self.certificate.known

    def to_dict(self):
        """Plain JSON data."""
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
