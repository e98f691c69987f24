"""Posterior moments of a Gaussian mixture seen through noise: Cov(X_0 | y), y = X_0 + Z/sqrt(snr).

y carries the same information as X_t. All is NumPy float64; rows of y are observations at one snr. The two forms,
`Shared` and `Distinct`, have the same methods.
"""

import numpy as np

from jaxdiff.targets.components import Components, centred
from jaxdiff.targets.distinct_covariances import Distinct
from jaxdiff.targets.shared_covariance import Shared, shared_form

__all__ = ["Distinct", "Shared", "form_of"]


def form_of(components: Components, basis: np.ndarray | None) -> Shared | Distinct:
    """The form of a mixture that computes its posterior fastest; basis (d, d) its principal axes, or None."""
    c = components
    if len(c.variances) < len(c.means):
        return shared_form(c, basis)
    return Distinct(c._replace(means=centred(c)), basis)
