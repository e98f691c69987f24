"""The kernels that can be planned and certified by name: those with a path KL, and what a step of each costs.

A kernel's cost stands beside its step, in the kernel's own file. `plan(kernel=...)`, `certify(...)` and
`information.path_kl(...)` find the cost here by the kernel's name.
"""

from jaxdiff.kernels.ancestral import PATH_COST as ANCESTRAL
from jaxdiff.kernels.covariance_matched import PATH_COST as COVARIANCE_MATCHED
from jaxdiff.kernels.exponential_euler import PATH_COST as EXPONENTIAL_EULER
from jaxdiff.kernels.moment_matched import PATH_COST as MOMENT_MATCHED

PATH_COSTS = {cost.kernel: cost for cost in (EXPONENTIAL_EULER, ANCESTRAL, MOMENT_MATCHED, COVARIANCE_MATCHED)}
