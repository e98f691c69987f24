"""The posterior of a law in the plane given one observed number, by quadrature, and the distance of samples from it."""

import numpy as np

HALF, CELLS, FINE = 4.0, 32, 16  # of the square [-HALF, HALF]^2: cells on a side, and points of quadrature on theirs


def density(weights, means, covs, matrix, y, noise_std):
    """(n, n) masses, n = CELLS FINE, of X_0 given y at midpoints of a square grid; they add up to 1."""
    n = CELLS * FINE
    side = (np.arange(n) + 0.5) / n * 2 * HALF - HALF
    z = np.stack(np.meshgrid(side, side, indexing="ij"), -1)
    prior = 0.0
    for weight, mean, cov in zip(weights, means, covs, strict=True):
        off = z - mean
        form = np.einsum("...i,ij,...j", off, np.linalg.inv(cov), off)
        prior = prior + weight * np.exp(-form / 2) / np.sqrt(np.linalg.det(cov))
    mass = prior * np.exp(-((z @ matrix[0] - y[0]) ** 2) / (2 * noise_std**2))
    return mass / mass.sum()


def cell_masses(mass):
    """The masses of the CELLS x CELLS cells."""
    return mass.reshape(CELLS, FINE, CELLS, FINE).sum((1, 3))


def draws(mass, n, rng):
    """n draws (n, 2): a point of the quadrature by its mass, moved uniformly inside its small square."""
    which = rng.choice(mass.size, n, p=mass.ravel())
    places = np.stack(np.unravel_index(which, mass.shape), -1) + rng.random((n, 2))
    return places / len(mass) * 2 * HALF - HALF


def total_variation(x, cells):
    """Half the sum of |share of the samples x (n, 2) - mass| over the cells and what lies outside them."""
    edges = np.linspace(-HALF, HALF, CELLS + 1)
    share = np.histogram2d(*x.T, bins=(edges, edges))[0] / len(x)
    return float((np.abs(share - cells).sum() + 1 - share.sum()) / 2)
