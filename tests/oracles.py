"""Expected values from the defining equations, by quadrature and linear algebra alone.

Nothing here knows the package. Times decrease (t > t_next >= 0) on the Ornstein-Uhlenbeck clock
X_t = e^{-t} X_0 + sqrt(1 - e^{-2t}) Z, everything is one-dimensional and float64. A `law` is a finite
Gaussian mixture: a tuple (weights, means, variances) of arrays, a zero variance being an atom.
"""

from itertools import pairwise

import numpy as np
from scipy.integrate import solve_ivp
from scipy.linalg import expm


def _noise_variance(t):
    """sigma_t^2 = 1 - e^{-2t}."""
    return -np.expm1(-2.0 * t)


def _log_normal(x, mean, var):
    """log N(x; mean, var)."""
    return -0.5 * ((x - mean) ** 2 / var + np.log(2.0 * np.pi * var))


def _implied_denoiser(t, score, x):
    """The m with score = (c m - x) / sigma^2."""
    return (x + _noise_variance(t) * score) * np.exp(t)


def _bridge(t, t_next, x_0, x):
    """Mean and variance of X_{t_next} given X_0 = x_0 and X_t = x: a joint Gaussian, conditioned."""
    times = np.array([t_next, t])
    gap = np.abs(times[:, None] - times)
    cov = np.exp(-gap) * _noise_variance(np.minimum(times[:, None], times))
    gain = cov[0, 1] / cov[1, 1]
    mean = np.exp(-t_next) * x_0 + gain * (x - np.exp(-t) * x_0)
    return mean, cov[0, 0] - gain * cov[1, 0]


def _exponential_euler(t, t_next, score, x):
    """Moments of dY = (Y + 2 s) du + sqrt(2) dB, s frozen: m' = m + 2 s and P' = 2 P + 2 over t - t_next."""
    mean_flow = expm((t - t_next) * np.array([[1.0, 2.0], [0.0, 0.0]]))
    var_flow = expm((t - t_next) * np.array([[2.0, 2.0], [0.0, 0.0]]))
    return mean_flow[0, 0] * x + mean_flow[0, 1] * score, var_flow[0, 1]


def _ancestral(t, t_next, score, x):
    """The OU bridge from X_0 = m to X_t = x."""
    return _bridge(t, t_next, _implied_denoiser(t, score, x), x)


def _moment_matched(t, t_next, score, x, variance):
    """The OU bridge from X_0 ~ N(m, variance): law of total variance."""
    mean, bridge_var = _ancestral(t, t_next, score, x)
    slope = _bridge(t, t_next, 1.0, 0.0)[0] - _bridge(t, t_next, 0.0, 0.0)[0]
    return mean, bridge_var + slope**2 * variance


def _reverse_ode(t, t_next, denoised, x):
    """dx/du = x + (c m - x) / sigma^2 at time t - u, m frozen, integrated over u in [0, t - t_next]."""

    def velocity(u, y):
        return y + (np.exp(u - t) * np.ravel(denoised) - y) / _noise_variance(t - u)

    span = (0.0, t - t_next)
    path = solve_ivp(velocity, span, np.ravel(x), method="DOP853", rtol=3e-14, atol=1e-15)
    return path.y[:, -1].reshape(np.shape(x))[()]


def _ddim(t, t_next, score, x, eta):
    """The reverse ODE if eta = 0, else (Song et al.) estimated noise mixed with fresh noise."""
    denoised = _implied_denoiser(t, score, x)
    if eta == 0.0:
        return _reverse_ode(t, t_next, denoised, x), 0.0
    fresh = eta**2 * _bridge(t, t_next, 0.0, 0.0)[1]
    noise = (x - np.exp(-t) * denoised) / np.sqrt(_noise_variance(t))
    return np.exp(-t_next) * denoised + np.sqrt(_noise_variance(t_next) - fresh) * noise, fresh


def _langevin(t, t_next, score, x):
    """Euler-Maruyama on dX = s dt + sqrt(2) dB over the running time t - t_next."""
    return x + (t - t_next) * score, 2.0 * (t - t_next)


def one_step(kernel, t, t_next, score_value, x, variance=0.0, eta=0.0):
    """Mean and variance of the next position, given the position x and the score's value there.

    x and score_value may be arrays of one shape. `variance` is that of X_0 in "moment_matched", `eta`
    is that of "ddim".
    """
    match kernel:
        case "exponential_euler":
            return _exponential_euler(t, t_next, score_value, x)
        case "ancestral":
            return _ancestral(t, t_next, score_value, x)
        case "moment_matched":
            return _moment_matched(t, t_next, score_value, x, variance)
        case "ddim":
            return _ddim(t, t_next, score_value, x, eta)
        case "langevin":
            return _langevin(t, t_next, score_value, x)
    raise ValueError(f"no oracle for kernel {kernel!r}")


def chain_law(kernel, grid, mean, var, start_mean, start_var, time=None, eta=0.0):
    """Mean and variance of the chain's output on data N(mean, var) with the exact score.

    Each step's mean is affine in x, so its values at x = 0 and x = 1 give the recursion. For "langevin"
    the grid is one of running time and the score is that of the fixed `time`.
    """
    law = ([1.0], [mean], [var])
    ends = np.array([0.0, 1.0])
    for t, t_next in pairwise(grid):
        score_time = t
        if kernel == "langevin":
            t, t_next, score_time = abs(t_next - t), 0.0, time
        spread = mixture_posterior_variance(law, 0.0, score_time)
        image, noise = one_step(kernel, t, t_next, mixture_score(law, ends, score_time), ends, spread, eta)
        slope = image[1] - image[0]
        start_mean, start_var = image[0] + slope * start_mean, slope**2 * start_var + noise
    return start_mean, start_var


def gaussian_kl(mean_p, var_p, mean_q, var_q):
    """KL(N(mean_p, var_p) || N(mean_q, var_q))."""
    excess = (var_p - var_q) / var_q
    return 0.5 * (excess - np.log1p(excess) + (mean_p - mean_q) ** 2 / var_q)


def _columns(law, x):
    """The law's three arrays with components on a first axis that broadcasts against x."""
    return (np.reshape(np.asarray(part, float), (-1,) + (1,) * np.ndim(x)) for part in law)


def _posterior(law, x, t):
    """log q_t(x), and per component its posterior weight, the residual x - c mean and the variance of X_t."""
    weights, means, variances = _columns(law, x)
    c = np.exp(-t)
    total = c**2 * variances + _noise_variance(t)
    log_terms = np.log(weights) + _log_normal(x, c * means, total)
    top = log_terms.max(axis=0)
    log_density = top + np.log(np.exp(log_terms - top).sum(axis=0))
    return log_density, np.exp(log_terms - log_density), x - c * means, total


def _denoised_components(law, x, t):
    """Per component: posterior weight, and mean and variance of X_0 given X_t = x."""
    _, means, variances = _columns(law, x)
    _, share, residual, total = _posterior(law, x, t)
    return share, means + np.exp(-t) * variances * residual / total, variances * _noise_variance(t) / total


def mixture_score(law, x, t):
    """(log q_t)'(x), by differentiating the density's sum term by term."""
    _, share, residual, total = _posterior(law, x, t)
    return -(share * residual / total).sum(axis=0)


def mixture_density(law, x, t):
    """q_t(x) = sum_i w_i N(x; e^{-t} mean_i, e^{-2t} var_i + 1 - e^{-2t})."""
    return np.exp(_posterior(law, x, t)[0])


def mixture_denoiser(law, x, t):
    """E[X_0 | X_t = x], by Bayes over the components (no use of the score)."""
    share, centres, _ = _denoised_components(law, x, t)
    return (share * centres).sum(axis=0)


def mixture_posterior_variance(law, x, t):
    """Var(X_0 | X_t = x), by Bayes over the components."""
    share, centres, spreads = _denoised_components(law, x, t)
    centre = (share * centres).sum(axis=0)
    return (share * (spreads + (centres - centre) ** 2)).sum(axis=0)


def _axis(law, t, fineness):
    """Trapezoid nodes and spacing: every component of q_t out to 9 deviations, `fineness` of the smallest."""
    _, means, variances = (np.asarray(part, float) for part in law)
    centres, scales = np.exp(-t) * means, np.sqrt(np.exp(-2.0 * t) * variances + _noise_variance(t))
    low, high = np.min(centres - 9.0 * scales), np.max(centres + 9.0 * scales)
    return np.linspace(low, high, int((high - low) / (fineness * scales.min())) + 2, retstep=True)


def _expectation(law, t, values):
    """E values(X_t) by a dense trapezoid rule."""
    x, spacing = _axis(law, t, 0.01)
    return spacing * np.sum(mixture_density(law, x, t) * values(x))


def mixture_mmse(law, snr):
    """E Var(X_0 | X_t) at the t where e^{-2t} / (1 - e^{-2t}) = snr > 0."""
    t = 0.5 * np.log1p(1.0 / snr)
    return _expectation(law, t, lambda x: mixture_posterior_variance(law, x, t))


def fisher_information(law, t):
    """J(t) = E |(log q_t)'(X_t)|^2."""
    return _expectation(law, t, lambda x: mixture_score(law, x, t) ** 2)


def _pair(law, early, late):
    """Nodes and weights of the joint law of (X_early, X_late), X_late = e^{-gap} X_early + sigma_gap e."""
    x, spacing = _axis(law, early, 0.04)
    e, e_spacing = np.linspace(-9.0, 9.0, 161, retstep=True)
    weights = np.outer(spacing * mixture_density(law, x, early), e_spacing * np.exp(_log_normal(e, 0.0, 1.0)))
    late_x = np.exp(early - late) * x[:, None] + np.sqrt(_noise_variance(late - early)) * e
    return x[:, None], late_x, weights


def _score_gap(law, t, v):
    """E|s_v(X_v) - s_t(X_t)|^2 for v < t: square expanded, cross term in two dimensions."""
    x_v, x_t, weights = _pair(law, v, t)
    cross = np.sum(weights * mixture_score(law, x_v, v) * mixture_score(law, x_t, t))
    return fisher_information(law, v) + fisher_information(law, t) - 2.0 * cross


def _frozen_score_kl(law, t, t_next):
    """int_{t_next}^t E|s_v(X_v) - s_t(X_t)|^2 dv, Gauss-Legendre in log v."""
    nodes, weights = np.polynomial.legendre.leggauss(16)
    half = 0.5 * np.log(t / t_next)
    v = t_next * np.exp(half * (1.0 + nodes))
    return half * np.sum(weights * v * [_score_gap(law, t, node) for node in v])


def _transition_kl(kernel, law, t, t_next):
    """E KL(q(X_{t_next} | X_t) || the kernel's Gaussian), the true transition by Bayes."""
    x_next, x, weights = _pair(law, t_next, t)
    forward = _log_normal(x, np.exp(t_next - t) * x_next, _noise_variance(t - t_next))
    log_true = _posterior(law, x_next, t_next)[0] + forward - _posterior(law, x, t)[0]
    mmse = mixture_mmse(law, 1.0 / np.expm1(2.0 * t))
    mean, var = one_step(kernel, t, t_next, mixture_score(law, x, t), x, mmse)
    return np.sum(weights * (log_true - _log_normal(x_next, mean, var)))


def path_kl(kernel, law, grid):
    """KL of the true reverse path from the chain's with the exact score, both started from q_{grid[0]}.

    "exponential_euler": Girsanov's integral, in continuous time. "ancestral", "moment_matched": the sum
    over steps of the expected KL between transitions (variance from the mmse). The last time is > 0.
    """
    if kernel == "exponential_euler":
        return sum(_frozen_score_kl(law, t, t_next) for t, t_next in pairwise(grid))
    return sum(_transition_kl(kernel, law, t, t_next) for t, t_next in pairwise(grid))
