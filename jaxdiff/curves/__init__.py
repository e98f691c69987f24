"""Error curves: the squared error of a denoiser against the snr, exact or measured on data."""

from jaxdiff.curves.curve import Curve
from jaxdiff.curves.directions import principal_axes
from jaxdiff.curves.loss import loss_curve
from jaxdiff.curves.measured import MeasuredCurve, measured_curve

__all__ = ["Curve", "MeasuredCurve", "loss_curve", "measured_curve", "principal_axes"]
