"""The kernels, one method a file.

Tests check that every kernel of this list satisfies the contract and has a row in the README's table.

A kernel runs in a loop of your own as well as in `jaxdiff.sample`. `kernel.coefficients(grid)` is a table with one row
for each step, and `kernel.init(x)` is the first state for particles x (n, d). For each row,
`kernel.step(kernel.score, state, row, z)` is the next state, from standard normal increments z.
`kernel.position(state)` reads the particles. The section "A loop of your own" of the README shows it in a `lax.scan`.
"""

from jaxdiff.kernels.ancestral import ancestral
from jaxdiff.kernels.covariance_matched import covariance_matched
from jaxdiff.kernels.ddim import ddim
from jaxdiff.kernels.deis import deis
from jaxdiff.kernels.dpm_solver import dpm_solver
from jaxdiff.kernels.eta_family import eta_family
from jaxdiff.kernels.euler import euler
from jaxdiff.kernels.euler_maruyama import euler_maruyama
from jaxdiff.kernels.exponential_adams import exponential_adams
from jaxdiff.kernels.exponential_euler import exponential_euler
from jaxdiff.kernels.heun import heun
from jaxdiff.kernels.langevin import langevin
from jaxdiff.kernels.moment_matched import moment_matched
from jaxdiff.kernels.ode_then_noise import ode_then_noise
from jaxdiff.kernels.path_costs import PATH_COSTS as PATH_COSTS
from jaxdiff.kernels.predictor_corrector import predictor_corrector
from jaxdiff.kernels.randomized_midpoint import randomized_midpoint
from jaxdiff.kernels.rk4 import rk4
from jaxdiff.kernels.sa_solver import sa_solver
from jaxdiff.kernels.seeds import seeds
from jaxdiff.kernels.stochastic_runge_kutta import stochastic_runge_kutta
from jaxdiff.kernels.unipc import unipc

__all__ = [
    "ancestral",
    "covariance_matched",
    "ddim",
    "deis",
    "dpm_solver",
    "eta_family",
    "euler",
    "euler_maruyama",
    "exponential_adams",
    "exponential_euler",
    "heun",
    "langevin",
    "moment_matched",
    "ode_then_noise",
    "predictor_corrector",
    "randomized_midpoint",
    "rk4",
    "sa_solver",
    "seeds",
    "stochastic_runge_kutta",
    "unipc",
]
