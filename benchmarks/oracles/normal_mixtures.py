"""The exact posterior of a mixture of normal laws given a linear observation with normal noise: a mixture again."""

import numpy as np


def posterior(weights, means, covs, matrix, y, noise_std):
    """Weights (k,), means (k, d) and covariances (k, d, d) of X_0 given y = A X_0 + noise."""
    found = []
    for weight, mean, cov in zip(weights, means, covs, strict=True):
        seen = matrix @ cov @ matrix.T + noise_std**2 * np.eye(len(matrix))
        gain, off = cov @ matrix.T @ np.linalg.inv(seen), y - matrix @ mean
        log = np.log(weight) - off @ np.linalg.solve(seen, off) / 2 - np.linalg.slogdet(seen)[1] / 2
        found.append((log, mean + gain @ off, cov - gain @ matrix @ cov))
    logs, means, covs = (np.array(part) for part in zip(*found, strict=True))
    weights = np.exp(logs - logs.max())
    return weights / weights.sum(), means, covs


def moments(weights, means, covs):
    """Mean (d,) and covariance (d, d) of a mixture."""
    mean = weights @ means
    return mean, np.einsum("k,kij->ij", weights, covs) + np.einsum("k,ki,kj->ij", weights, means - mean, means - mean)


def draws(weights, means, covs, n, rng):
    """n draws (n, d) of a mixture."""
    which = rng.choice(len(weights), n, p=weights)
    roots = np.linalg.cholesky(covs)
    return means[which] + np.einsum("nij,nj->ni", roots[which], rng.normal(size=(n, means.shape[1])))
