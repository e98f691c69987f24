"""Five laws with exact or Monte Carlo curves of E Tr Cov(X_0 | X_t)."""

from typing import NamedTuple

import numpy as np

from benchmarks.laws.by_dimension import digits
from jaxdiff import targets
from jaxdiff.curves import Curve
from jaxdiff.targets import Target

STRIDE = {"quick": 60, "full": 6}  # of the digits
NORMAL, COIN, BUMPS, FLAT, DIGITS = "N(0, 1/4)", "two points", "3 bumps, d = 2", "4-flat, d = 16", "digits, d = 64"


class Law(NamedTuple):
    """A law, and the curve of its mmse, where possible from another representation of the law."""

    target: Target
    curve: Curve


def flat():
    """Two bumps in each of four coordinates and 0 in twelve, rotated.

    The curve is that of the product before the rotation.
    """
    bumps = targets.mixture([0.3, 0.7], [[-1.2], [0.8]], [[0.05], [0.05]])
    corners = np.stack(np.meshgrid(*[[0, 1]] * 4), -1).reshape(-1, 4)
    means, weights = np.array([-1.2, 0.8])[corners], np.prod(np.array([0.3, 0.7])[corners], axis=1)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0][:, :4]
    covs = np.broadcast_to(0.05 * turn @ turn.T, (16, 16, 16))
    nothing = targets.gaussian(np.zeros(12), np.zeros(12))
    return Law(targets.mixture(weights, means @ turn.T, covs), targets.product([bumps] * 4 + [nothing]).mmse)


def laws(quick):
    """Five laws by name, of total variance at most d."""
    bumps = ([0.5, 0.3, 0.2], [[1.0, 0.0], [-0.5, 0.75], [-0.5, -1.25]], [[0.05, 0.02], [0.02, 0.1], [0.03, 0.03]])
    of = {
        NORMAL: targets.gaussian([0.0], [0.25]),
        COIN: targets.point_masses([[-1.0], [1.0]]),
        BUMPS: targets.mixture(*bumps),
        DIGITS: digits(STRIDE["quick" if quick else "full"]),
    }
    found = {name: Law(target, target.mmse) for name, target in of.items()}
    return {name: flat() if name == FLAT else found[name] for name in (NORMAL, COIN, BUMPS, FLAT, DIGITS)}
