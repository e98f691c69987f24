"""What each method for inverse problems samples in the limit of many steps on a normal law, by moment equations.

With X_0 ~ N(m, C), S = alpha^2 C + sigma^2 I and J = alpha C S^-1, the denoiser is D = m + J (x - alpha m). Every
method has D_y = D + (sigma^2/alpha) J^T A^T W (y - A D) with a matrix W of its own, so its score s = K x + k is affine.
Down in time, with tau = -t:
    ODE: d mean = (mean + s(mean)) dtau,    P = F F^T with dF = (I + K) F dtau,
    SDE: d mean = (mean + 2 s(mean)) dtau,  dP = ((I + 2 K) P + P (I + 2 K)^T + 2 I) dtau.
They are integrated over log t by SciPy from N(0, I) at the horizon. No code of jaxdiff is used.
"""

from typing import NamedTuple

import numpy as np
from scipy import integrate

from benchmarks.samplers.inverse_problems import DPS, MMPS, PI_GDM, SCALED, TMPD

ACCURACY = 1e-9


class Problem(NamedTuple):
    """X_0 ~ N(mean, cov) is observed as A X_0 + noise_std Z."""

    mean: np.ndarray
    cov: np.ndarray
    matrix: np.ndarray
    noise_std: float

    def observations(self):
        """(1 + m, m): the mean of y, and the mean plus each column of a root of its covariance."""
        seen = self.matrix @ self.cov @ self.matrix.T + self.noise_std**2 * np.eye(len(self.matrix))
        return self.matrix @ self.mean + np.vstack([np.zeros(len(self.matrix)), np.linalg.cholesky(seen).T])

    def posterior(self, y, t):
        """Means (len(y), d) and covariance of the law of X_0 given y, noised to t."""
        seen = self.matrix @ self.cov @ self.matrix.T + self.noise_std**2 * np.eye(len(self.matrix))
        gain = self.cov @ self.matrix.T @ np.linalg.inv(seen)
        means = self.mean + (y - self.matrix @ self.mean) @ gain.T
        cov = self.cov - gain @ self.matrix @ self.cov
        return np.exp(-t) * means, np.exp(-2 * t) * cov - np.expm1(-2 * t) * np.eye(len(cov))


def precision(method, problem, jacobian, t):
    """The matrix W of a method, (m, m)."""
    alpha2, sigma2, matrix = np.exp(-2 * t), -np.expm1(-2 * t), problem.matrix
    known, cov = problem.noise_std**2 * np.eye(len(matrix)), sigma2 / np.sqrt(alpha2) * jacobian
    unknown = {
        DPS: lambda: 0 * known,
        SCALED: lambda: sigma2 / alpha2 * np.eye(len(matrix)),
        PI_GDM: lambda: sigma2 * matrix @ matrix.T,  # for data of variance 1
        TMPD: lambda: np.diag((matrix @ cov @ matrix.T).sum(1)),
        MMPS: lambda: matrix @ cov @ matrix.T,
    }
    return np.linalg.inv(known + unknown[method]())


def affine_score(method, problem, y, t):
    """(K, k) of the score K x + k of a method; k (len(y), d)."""
    alpha, sigma2, eye = np.exp(-t), -np.expm1(-2 * t), np.eye(len(problem.mean))
    jacobian = alpha * problem.cov @ np.linalg.inv(alpha**2 * problem.cov + sigma2 * eye)
    back = sigma2 / alpha * jacobian.T @ problem.matrix.T @ precision(method, problem, jacobian, t)
    shift = problem.mean - alpha * jacobian @ problem.mean  # D = J x + shift
    slope = jacobian - back @ problem.matrix @ jacobian
    constant = shift - back @ problem.matrix @ shift + y @ back.T
    return (alpha * slope - eye) / sigma2, alpha * constant / sigma2


def limit(method, problem, y, horizon, early_stop, *, noisy):
    """Means (len(y), d) and covariance at the early stop of the reverse SDE (noisy) or ODE of a method's score."""
    d, eye = len(problem.mean), np.eye(len(problem.mean))

    def rate(log_t, state):
        slope, constant = affine_score(method, problem, y, t := np.exp(log_t))
        means, more = state[: len(y) * d].reshape(-1, d), state[len(y) * d :].reshape(d, d)
        times = 2 if noisy else 1
        drift = eye + times * slope
        grown = drift @ more + more @ drift.T + 2 * eye if noisy else drift @ more
        return -t * np.concatenate([(means @ drift.T + times * constant).ravel(), grown.ravel()])

    start = np.concatenate([np.zeros(len(y) * d), eye.ravel()])
    times = np.log([horizon, early_stop])
    end = integrate.solve_ivp(rate, times, start, "LSODA", rtol=ACCURACY, atol=ACCURACY).y[:, -1]
    means, more = end[: len(y) * d].reshape(-1, d), end[len(y) * d :].reshape(d, d)
    return means, more if noisy else more @ more.T


def in_deviations(found, exact):
    """How far (means, covariance) are from the exact ones, in deviations of the posterior, in the worst direction.

    Returns: the root mean square over y of the mean's bias, for means at `Problem.observations`; the least and the
    largest ratio of deviations.
    """
    values, vectors = np.linalg.eigh(exact[1])
    white = vectors / np.sqrt(values)  # white.T @ cov @ white = I
    off = (found[0] - exact[0]) @ white
    off = np.vstack([off[:1], off[1:] - off[:1]])
    ratios = np.sqrt(np.maximum(np.linalg.eigvalsh(white.T @ found[1] @ white), 0))
    return float(np.linalg.norm(off, 2)), float(ratios[0]), float(ratios[-1])
