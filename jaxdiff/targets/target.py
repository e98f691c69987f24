"""The record of a law with closed forms."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxdiff.curves import Curve
from jaxdiff.types import Numbers, ScoreFn


@dataclasses.dataclass(frozen=True)
class Target:
    """A law with closed forms.

    Attributes:
      name: of its constructor.
      dim: d.
      second_moment: E|X_0|^2.
      score: s(x, t), exact gradient of log q_t; a pytree callable.
      sample: (key, n) -> (n, d).
      log_density: (x, t=0.0) -> (...,), log q_t; float32 where x has 16 bits.
      mmse: the Curve V(snr) = E|X_0 - E[X_0 | X_t]|^2.
      smoothing_kl: t -> an upper bound on KL(q_0 || q_t) in nats; inf for a law without a density.
      mean: (d,) float64, E X_0; None where it is not known.
      total_variance: E|X_0 - mean|^2; None where it is not known.
      cov: the covariance of a normal law, (d,) a diagonal or (d, d) float64; None for other laws.
      quantiles: (levels, t=0.0) -> (n,) float64, those of q_t on the line; None for other laws.
    """

    name: str
    dim: int
    second_moment: float
    score: ScoreFn = dataclasses.field(repr=False)
    sample: Callable[..., Any] = dataclasses.field(repr=False)
    log_density: Callable[..., Any] = dataclasses.field(repr=False)
    mmse: Curve = dataclasses.field(repr=False)
    smoothing_kl: Callable[[float], float] = dataclasses.field(default=lambda t: math.inf, repr=False)
    mean: np.ndarray | None = dataclasses.field(default=None, repr=False, compare=False)  # so that laws hash
    total_variance: float | None = dataclasses.field(default=None, repr=False)
    cov: np.ndarray | None = dataclasses.field(default=None, repr=False, compare=False)
    quantiles: Callable[..., Any] | None = dataclasses.field(default=None, repr=False)

    def moment_about(self, point: Numbers) -> float:
        """E|X_0 - point|^2 for a point (d,), without cancellation where the mean is far from 0.

        Raises:
          ValueError: the target does not know its mean, or the point is not (d,) and finite.
        """
        if self.mean is None or self.total_variance is None:
            raise ValueError(f"the target {self.name!r} does not know its mean: give it mean= and total_variance=.")
        point = np.asarray(point, np.float64)
        if point.shape != (self.dim,) or not np.isfinite(point).all():
            raise ValueError(f"a mean to start from is ({self.dim},) and finite: it is {point}.")
        return float(self.total_variance + np.sum((self.mean - point) ** 2))
