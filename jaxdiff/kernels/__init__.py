"""The kernels, one method a file. The contract tests and the README's table are held to this list."""

from jaxdiff.kernels.ancestral import ancestral
from jaxdiff.kernels.covariance_matched import covariance_matched
from jaxdiff.kernels.ddim import ddim
from jaxdiff.kernels.exponential_euler import exponential_euler
from jaxdiff.kernels.langevin import langevin
from jaxdiff.kernels.moment_matched import moment_matched

__all__ = ["ancestral", "covariance_matched", "ddim", "exponential_euler", "langevin", "moment_matched"]
