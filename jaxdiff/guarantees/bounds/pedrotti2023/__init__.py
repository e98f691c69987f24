"""Bounds for Langevin at a finite horizon, then the reverse ODE, after Pedrotti, Maas, Mondelli, arXiv:2305.14164.

The scheme noises data up to a finite time T1, samples the law q_T1 by Langevin for a running time T2, and then follows
the reverse ODE. Theorems 4.1 and 4.2 of the paper were not available in full. The bounds here replace them: they are
statements of the same kind with all constants explicit, for data with |X_0| <= R.

Values in nats are KL(sampler || q_T1). The path KL elsewhere in this package is KL(q || sampler), with the arguments
exchanged, so the two are never added.
"""

from jaxdiff.guarantees.bounds.pedrotti2023.langevin_kl import REPLACEMENT, langevin, start_kl
from jaxdiff.guarantees.bounds.pedrotti2023.log_sobolev import lsi_constant, simple_horizon, sufficient_horizon
from jaxdiff.guarantees.bounds.pedrotti2023.planner import FiniteHorizonPlan, plan_w2
from jaxdiff.guarantees.bounds.pedrotti2023.wasserstein import log_growth, one_sided_lipschitz, w2

__all__ = [
    "REPLACEMENT",
    "FiniteHorizonPlan",
    "langevin",
    "log_growth",
    "lsi_constant",
    "one_sided_lipschitz",
    "plan_w2",
    "simple_horizon",
    "start_kl",
    "sufficient_horizon",
    "w2",
]
