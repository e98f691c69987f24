"""The record of a plan, which makes the sampler that runs it."""

import dataclasses
from typing import Any

import numpy as np

from jaxdiff import kernels
from jaxdiff.certificate import W2, Certificate
from jaxdiff.curves import Curve
from jaxdiff.planning.model_times import grid_of_times, times_of
from jaxdiff.types import Basis, Grid, Particles, Sampler, ScoreFn


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """The grid and kernel to run for an accuracy or a budget. `sampler` makes the Sampler from a score.

    Attributes:
      horizon: OU time at which sampling starts.
      grid: (evals + 1,) OU times from the horizon to the early stop.
      kernel: name of the planned kernel, a constructor of jaxdiff.kernels.
      evals: score evaluations for each sample.
      certificate: the terms of the bound on KL(q_early_stop || law of the samples); for a plan with metric="w2" on the
        W2 distance of the samples to the data.
      alternatives: the path KL, or the distance in W2, of other kernels and grids, as JSON data.
      basis: the directions, each with its own variance of moment matching: the curve's basis. None: one variance for
        all directions.
      curve: the error curve that moment matching sets its variance from; None for other kernels.
      start_mean: (d,) where the plan was made with center=True, alpha(horizon) times the law's mean. The run then
        starts from N(start_mean, I), else from N(0, I). `start` makes the start from draws of N(0, I).
      options: keyword arguments of the kernel's constructor, for example {"order": 2}.
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
    options: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False)

    def sampler(self, score: ScoreFn) -> Sampler:
        """The planned kernel with a score, down the planned grid: `sample(plan.sampler(score), x, key=key)`."""
        if self.curve is not None:
            return Sampler(kernels.moment_matched(score, self.curve, basis=self.basis), self.grid)
        return Sampler(getattr(kernels, self.kernel)(score, **self.options), self.grid)

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

    def times(self, clock: Any) -> np.ndarray:
        """The nodes of the grid in the time of a model's own process, from noise to data.

        Samplers of other libraries take them: `timesteps=` of the schedulers of diffusers ("ddpm"), the sigmas of
        k-diffusion and of EDM's sampler ("edm", to which they append 0), the times of flow matching ("flow").

        Args:
          clock: "ddpm" (a table of 1,000 rows), "edm" (sigma/alpha), "flow", "vp", "vp_cosine", "ve", or a Process.

        Returns:
          (n_steps + 1,) float64. For a table they are the nearest whole rows, no two of them equal, as int64. Rounding
          to rows moves the nodes: `certify_w2(Sampler(kernel, plan.rounded(clock)), ...)` measures what that costs.

        Raises:
          ValueError: there is no such clock, a node lies outside the process's times, or a table has too few rows.
        """
        return times_of(self.grid, clock)

    def rounded(self, clock: Any) -> Grid:
        """(n_steps + 1,) the OU times of `times(clock)`: the grid itself, unless the clock is a table."""
        return grid_of_times(self.grid, clock)

    @property
    def metric(self) -> str:
        """What the plan minimises: "kl" the path KL, "w2" the distance of the samples in W2."""
        return "w2" if self.certificate.unit == W2 else "kl"

    @property
    def predicted_kl(self) -> Any:
        """The sum of the known terms in nats: initialisation and discretisation; None for a plan in W2."""
        return self.certificate.known if self.metric == "kl" else None

    @property
    def predicted_w2(self) -> Any:
        """The sum of the known terms in W2; None for a plan of path KL."""
        return self.certificate.known if self.metric == "w2" else None

    def __str__(self):
        """Kernel, evaluations and horizon, what the plan minimises, and the certificate."""
        options = "".join(f", {name} {value}" for name, value in self.options.items())
        minimised = {
            "kl": "the path KL; for the look of the samples, plan with metric='w2'",
            "w2": "the distance of the samples in W2; for a guarantee in KL, plan with metric='kl'",
        }[self.metric]
        first = f"{self.kernel}{options}: {self.evals} evaluations a sample, from horizon {self.horizon:.4g}"
        return f"{first}\nminimises {minimised}\n{self.certificate}"

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON data, without curve and basis."""
        return {
            "horizon": self.horizon,
            "grid": [float(t) for t in self.grid],
            "metric": self.metric,
            "kernel": self.kernel,
            "options": self.options,
            "evals": self.evals,
            "per_direction": self.basis is not None,
            "start_mean": None if self.start_mean is None else [float(m) for m in self.start_mean],
            "predicted_kl": self.predicted_kl,
            "predicted_w2": self.predicted_w2,
            "certificate": self.certificate.to_dict(),
            "alternatives": list(self.alternatives),
        }
