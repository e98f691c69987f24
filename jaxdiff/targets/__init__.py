"""Known laws: Gaussians, mixtures, point masses and products, with score, samples, density and mmse curve."""

from jaxdiff.targets.mixtures import gaussian, mixture, point_masses
from jaxdiff.targets.product import product
from jaxdiff.targets.target import Target

__all__ = ["Target", "gaussian", "mixture", "point_masses", "product"]
