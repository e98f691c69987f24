"""The kernels as tests run them: every constructor of the list, with the arguments that change what it computes."""

import jax
import numpy as np

from jaxdiff import grids, kernels, processes, targets

LAW = targets.mixture([0.3, 0.7], [[0.0, 1.0], [1.0, -1.0]], [[0.1, 0.2], [0.3, 0.1]])
COORDINATES = targets.gaussian([0.0, 0.0], [0.3, 1.2]).mmse
TURNED = targets.gaussian([0.5, -1.0], [[1.0, 0.6], [0.6, 0.5]]).mmse


def isotropic(snr):
    """The mmse of N(0, 0.3 I) in two dimensions."""
    return 2 * 0.3 / (1 + 0.3 * snr)


def _with(name, *args, **options):
    return lambda score: getattr(kernels, name)(score, *args, **options)


def _corrected(predictor, scheme, m, **options):
    def make(score):
        corrector = kernels.langevin(score, 1.0, scheme=scheme)
        return kernels.predictor_corrector(getattr(kernels, predictor)(score), corrector, m, **options)

    return make


CASES = {
    "ancestral": _with("ancestral"),
    "covariance_matched": _with("covariance_matched"),
    "covariance_matched by Lanczos": _with("covariance_matched", products=2),
    "ddim": _with("ddim"),
    "ddim with noise": _with("ddim", 0.6),
    "deis 1": _with("deis", 1),
    "deis 2": _with("deis", 2),
    "deis 3": _with("deis", 3),
    "deis 4": _with("deis", 4),
    "deis 3 in VP time": _with("deis", 3, process=processes.vp_linear()),
    "deis 3, ending low": _with("deis", 3, lower_order_final=True),
    "dpm_solver 1": _with("dpm_solver", 1),
    "dpm_solver 2": _with("dpm_solver", 2),
    "dpm_solver 3": _with("dpm_solver", 3),
    "dpm_solver 3, ending low": _with("dpm_solver", 3, lower_order_final=True),
    "dpm_solver 1 with noise": _with("dpm_solver", 1, eta=1.0),
    "dpm_solver 2 with noise": _with("dpm_solver", 2, eta=1.0),
    "eta_family, score": _with("eta_family", 0.7, frozen="score"),
    "eta_family, noise": _with("eta_family", 1.0, frozen="noise"),
    "eta_family, denoiser": _with("eta_family", 1.5),
    "eta_family, ODE": _with("eta_family", 0.0, frozen="score"),
    "euler": _with("euler"),
    "euler_maruyama": _with("euler_maruyama"),
    "exponential_adams 1": _with("exponential_adams", 1),
    "exponential_adams 2": _with("exponential_adams", 2),
    "exponential_adams 3": _with("exponential_adams", 3),
    "exponential_adams 4": _with("exponential_adams", 4),
    "exponential_adams 4, ending low": _with("exponential_adams", 4, lower_order_final=True),
    "exponential_euler": _with("exponential_euler"),
    "heun": _with("heun"),
    "heun with churn": _with("heun", 4.0, noise_scale=1.02, between=(0.1, 10.0)),
    "langevin": _with("langevin", 0.7),
    "langevin, exponential": _with("langevin", 0.7, scheme="exponential", variance=0.9),
    "langevin, underdamped": _with("langevin", 0.7, scheme="underdamped", friction=1.5),
    "moment_matched": _with("moment_matched", isotropic, dim=2),
    "moment_matched in coordinates": _with("moment_matched", COORDINATES, basis=COORDINATES.basis),
    "moment_matched in a rotation": _with("moment_matched", TURNED, basis=TURNED.basis),
    "ode_then_noise": _with("ode_then_noise"),
    "predictor_corrector": _corrected("ancestral", "plain", 2),
    "predictor_corrector of an ODE": _corrected("ddim", "exponential", 1, step_size=0.02),
    "predictor_corrector with momentum": _corrected("dpm_solver", "underdamped", 3, step_size=lambda t: 0.1 * t),
    "randomized_midpoint": _with("randomized_midpoint", 3),
    "rk4": _with("rk4"),
    "sa_solver": _with("sa_solver"),
    "sa_solver, ODE": _with("sa_solver", eta=0.0),
    "sa_solver, ending low": _with("sa_solver", lower_order_final=True),
    "sa_solver 2 without corrector": _with("sa_solver", 2, 0, eta=1.0),
    "sa_solver 1 1": _with("sa_solver", 1, 1, eta=0.0),
    "seeds": _with("seeds"),
    "stochastic_runge_kutta": _with("stochastic_runge_kutta"),
    "unipc 1": _with("unipc", 1),
    "unipc 2": _with("unipc", 2),
    "unipc 3": _with("unipc", 3),
    "unipc 3, ending low": _with("unipc", 3, lower_order_final=True),
}
PER_DIRECTION = ("moment_matched in coordinates", "moment_matched in a rotation")
MULTISTEP = ("deis", "dpm_solver", "exponential_adams", "sa_solver", "unipc")  # rows that know earlier nodes
LOOKING_AHEAD = ["ode_then_noise", "randomized_midpoint", "heun with churn"]  # rows that know more than their own step
LOOKING_AHEAD += ["langevin, underdamped"]  # or whether it is the first
LOOKING_AHEAD += [name for name in CASES if name.endswith("ending low")]
ONE_EACH = [name for name in CASES if name in kernels.__all__]
ONE_EACH += [next(case for case in CASES if case.startswith(name)) for name in kernels.__all__ if name not in CASES]


def make(name, score=LAW.score):
    """The kernel of a case."""
    return CASES[name](score)


def _state_of(kernel):
    return jax.eval_shape(kernel.init, jax.ShapeDtypeStruct((3, 2), np.float64))


# Many cases differ only in the numbers of their coefficient rows. test_steps and test_orders check these numbers for
# every case. Promises that hold for any row are tested with one case of each step function, the last one. Among the
# multistep methods that is a case of high order.
_MADE = {name: make(name) for name in CASES}
_OF_STEP = {(kernel.step, kernel.noises_per_step, name in PER_DIRECTION): name for name, kernel in _MADE.items()}
BY_STEP = list(_OF_STEP.values())
# What the loop over steps sees of a kernel: whether its state is more than positions, and whether a step takes no
# increment, one or several. The first case of each.
_OF_STATE = {
    (len(jax.tree.leaves(_state_of(kernel))) > 1, min(kernel.noises_per_step, 2)): name
    for name, kernel in reversed(_MADE.items())
}
BY_STATE = list(_OF_STATE.values())


def constructor_of(name):
    """The constructor of a case."""
    return name.split(",")[0].split(" ")[0]


def grid_of(kernel, n_steps=8):
    """A grid that it can run down."""
    if kernel.own_clock:
        return np.linspace(0.1 * n_steps, 0, n_steps + 1)
    return grids.exponential_then_uniform(3, 0.05, n_steps) if n_steps > 1 else np.array([3, 0.05])
