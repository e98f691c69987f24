"""A lower bound on the error of a learned score, from another denoiser with less loss on the same rows."""

from typing import Any

import numpy as np

from jaxdiff.certificate import CONFIDENCE, Certificate
from jaxdiff.curves import MeasuredCurve
from jaxdiff.guarantees.certify import check_confidence
from jaxdiff.guarantees.cross_fit import measured_term, units_of
from jaxdiff.guarantees.difference import check_same_rows
from jaxdiff.guarantees.information import information_gain
from jaxdiff.guarantees.path_kl import level_samples
from jaxdiff.intervals import copied, doubts

AT_LEAST = "score error, at least"
UNIT = "nats, a lower bound"


# The mmse V is the least loss: L_other >= V at every snr. So (1/2) int (L - V) dsnr, the error of the score in
# continuous time, is at least (1/2) int (L - L_other) dsnr.
def certify_score_error(curve: Any, other: Any, *, confidence: float | int = CONFIDENCE) -> Certificate:
    """How far the denoiser of `curve` is at least from the exact one, in nats, because another denoiser is better.

    The error of a learned score, (1/2) int (L - V) dsnr with its loss L and the unknown mmse V, is at least the same
    integral with the loss of any other denoiser in place of V. Both losses are of the same rows, so that the interval
    is that of paired rows.

    Args:
      curve: the MeasuredCurve of the denoiser whose error is bounded.
      other: the MeasuredCurve of another denoiser, on the same rows with the same key.
      confidence: that of the interval, between 0 and 1.

    Returns:
      A Certificate with one term, "score error, at least". The lower end of its interval is the certified bound. Where
      the lower end is not above 0, the rows prove no error.

    Raises:
      ValueError: the curves are not measured, or their rows or their ends differ.
    """
    check_confidence(confidence)
    check_same_rows((curve, other))
    assert isinstance(curve, MeasuredCurve)
    if not np.allclose(curve.ends, other.ends, rtol=1e-9):
        raise ValueError(f"the curves must have the same ends: they are {curve.ends} and {other.ends}.")
    ends = np.array(curve.ends, np.float64)
    value = information_gain(curve, *ends) - information_gain(other, *ends)
    gaps = level_samples(curve, ends) - level_samples(other, ends)
    units = units_of(gaps, curve.row_ids)
    source = f"loss of this denoiser, less that of the other; {curve.n} rows, paired"
    term = measured_term(AT_LEAST, value, units, source, unit=UNIT)
    assumptions = (
        "rows are independent; intervals are asymptotic",
        "both curves saw the same rows with the same noise",
    )
    warnings = copied(curve.row_ids) + tuple(doubts(units))
    return Certificate("error of the score", (term,), confidence, assumptions, warnings)
