"""The laws that samplers are compared on: two mixtures in the plane, three in more dimensions, a flat Gaussian."""

import numpy as np

from jaxdiff import targets

RANK = 8


def ring():
    """Eight components on a circle of radius 2."""
    angles = np.arange(8) * np.pi / 4
    return targets.mixture(np.full(8, 1 / 8), 2 * np.c_[np.cos(angles), np.sin(angles)], np.full((8, 2), 0.01))


def lattice():
    """Twenty-five components a unit apart."""
    means = np.stack(np.meshgrid(np.arange(-2, 3), np.arange(-2, 3)), -1).reshape(-1, 2)
    return targets.mixture(np.full(25, 1 / 25), means, np.full((25, 2), 0.01))


def anisotropic(d):
    """Eight components with variances from 1e-3 to 1, in a different order of the axes for each."""
    rng = np.random.default_rng(d)
    variances = rng.permuted(np.tile(np.geomspace(1e-3, 1, d), (8, 1)), axis=1)
    return targets.mixture(np.full(8, 1 / 8), rng.normal(size=(8, d)), variances)


def flat(d=256, rank=RANK):
    """A Gaussian of variance 1 in `rank` directions and 0 in the others."""
    return targets.gaussian(np.zeros(d), np.where(np.arange(d) < rank, 1.0, 0.0))


LAWS = {
    "ring of 8": ring,
    "lattice of 25": lattice,
    "8 components, d = 16": lambda: anisotropic(16),
    "8 components, d = 64": lambda: anisotropic(64),
    "8 components, d = 256": lambda: anisotropic(256),
    "rank 8, d = 256": flat,
}
