"""Every kernel by name: how it is made from a law, and the evaluations of a step beyond the kernel's own."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxdiff import kernels

PRODUCTS = 2  # of Lanczos' method in covariance matching; each is one with the Jacobian and one with its transpose


class Method(NamedTuple):
    """How a kernel is made from a law, and the evaluations of a step beyond the kernel's own."""

    make: Callable[[Any], Any]
    products: int = 0


def of_score(name, *args, **options):
    return Method(lambda law: getattr(kernels, name)(law.score, *args, **options))


def corrected(law):
    corrector = kernels.langevin(law.score, 1.0, scheme="exponential")
    return kernels.predictor_corrector(kernels.ancestral(law.score), corrector, 1)


ODE = {
    "euler": of_score("euler"),
    "eta_family, score": of_score("eta_family", 0.0, frozen="score"),
    "ddim": of_score("ddim"),
    "heun": of_score("heun"),
    "rk4": of_score("rk4"),
    "randomized_midpoint": of_score("randomized_midpoint"),
    **{f"deis {p}": of_score("deis", p) for p in (2, 3, 4)},
    **{f"dpm_solver {p}": of_score("dpm_solver", p) for p in (2, 3)},
    **{f"exponential_adams {p}": of_score("exponential_adams", p) for p in (3, 4)},
    **{f"unipc {p}": of_score("unipc", p) for p in (1, 2, 3)},
}
SDE = {
    "euler_maruyama": of_score("euler_maruyama"),
    "exponential_euler": of_score("exponential_euler"),
    "eta_family, noise": of_score("eta_family", 1.0, frozen="noise"),
    "ancestral": of_score("ancestral"),
    "moment_matched": Method(lambda law: kernels.moment_matched(law.score, law.mmse)),
    "moment_matched per direction": Method(
        lambda law: kernels.moment_matched(law.score, law.mmse, basis=law.mmse.basis)
    ),
    "covariance_matched": Method(
        lambda law: kernels.covariance_matched(law.score, products=PRODUCTS), products=2 * PRODUCTS
    ),
    "dpm_solver 2, eta = 1": of_score("dpm_solver", 2, eta=1.0),
    "sa_solver, eta = 0.4": of_score("sa_solver"),
    "sa_solver, eta = 1": of_score("sa_solver", eta=1.0),
    "seeds": of_score("seeds"),
    "stochastic_runge_kutta": of_score("stochastic_runge_kutta"),
    "heun, churn 5": of_score("heun", 5.0),
    "ode_then_noise": of_score("ode_then_noise"),
    "predictor_corrector": Method(corrected),
}
