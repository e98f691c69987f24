"""The range of OU times, the default early stops, and the check of a horizon and an early stop."""

from typing import Any

import numpy as np

from jaxdiff.checks import check_number

# The OU times between which snr and its square root are normal float32 numbers, neither subnormal nor infinite.
EARLIEST, LATEST = 1e-12, 40.0
EARLY_STOP = 1e-3  # default OU time to stop at: sigma is 0.045 there, in units of the data's standard deviation
EARLY_STOP_OF_A_NETWORK = 2e-3  # default of `jaxdiff train`: sigma is 0.063; few rows say little about less noise


def check_ends(horizon: Any, early_stop: Any) -> None:
    """Raise ValueError unless EARLIEST <= early_stop < horizon <= LATEST."""
    check_number(horizon, "horizon")
    check_number(early_stop, "early_stop")
    if not EARLIEST <= early_stop < np.inf:
        raise ValueError(
            f"early_stop must be a positive time, at least {EARLIEST:g}: early_stop = {early_stop:g}. Take 1e-3, say."
        )
    if not early_stop < horizon < np.inf:
        raise ValueError(f"early_stop must lie below the horizon: early_stop = {early_stop:g}, horizon = {horizon:g}.")
    if horizon > LATEST:
        raise ValueError(
            f"horizon must be at most {LATEST:g}, where snr = e^-{2 * LATEST:g} still is a float32: horizon = "
            f"{horizon:g}. Take 5, say."
        )
