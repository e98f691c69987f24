"""The exact KL of a kernel's output on a Gaussian with variance 1 in 8 of 256 directions and 0 in the others."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from benchmarks.laws.mixtures import RANK
from benchmarks.samplers.methods import SDE
from benchmarks.samplers.padded_tables import BUDGETS, impulses, run
from jaxdiff import kernels, targets
from jaxdiff.processes import ou

FLAT = "rank 8, d = 256"


def output_variances(kernel, grid):
    """Variances of the output from N(0, I), where the score is linear and acts on each coordinate by itself."""
    x = jnp.zeros((1 + (len(grid) - 1) * kernel.noises_per_step, 2)).at[0].set(1.0)
    x = jnp.concatenate([x, jnp.zeros((1 + BUDGETS[-1] * kernel.noises_per_step - len(x), 2))])
    return np.sum(np.asarray(run(kernel, grid, x, draw=impulses)) ** 2, axis=0)


class Spectrum(NamedTuple):
    """The flat Gaussian by its two variances, which are all that its kernels depend on."""

    law: Any
    multiplicity: np.ndarray
    score: Any
    mmse: Any

    @classmethod
    def of_flat(cls, d=256):
        law, counts = targets.gaussian(np.zeros(2), [1.0, 0.0]), np.array([RANK, d - RANK])
        whole = targets.gaussian(np.zeros(d), np.where(np.arange(d) < RANK, 1.0, 0.0)).mmse
        return cls(law, counts, law.score, whole)

    def kernel(self, name):
        """A kernel on the two variances; moment matching takes the mean mmse of all directions, or one for each."""
        if name == "moment_matched":
            return kernels.moment_matched(self.score, lambda snr: self.mmse(snr), dim=int(self.multiplicity.sum()))
        return SDE[name].make(self.law)

    def kl(self, kernel, grid):
        """KL of the law at early_stop to the output, nats."""
        t = grid[-1]
        ratio = (np.exp(-2 * t) * np.array([1.0, 0.0]) + ou.sigma(t) ** 2) / output_variances(kernel, grid)
        return float(self.multiplicity @ (ratio - 1 - np.log(ratio)) / 2)
