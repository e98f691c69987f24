"""Checks of the arguments of `plan` that depend on each other."""

from typing import Any

import numpy as np

from jaxdiff.checks import check_confidence
from jaxdiff.curves import MeasuredCurve
from jaxdiff.planning.from_dimension import KERNEL as DATA_FREE_KERNEL
from jaxdiff.types import Kernel, ScoreFn, as_score


def check_centred(center: bool, target: Any) -> None:
    """Raise ValueError for center=True without a target."""
    if center and target is None:
        raise ValueError(
            "center=True needs target=, whose mean is known. Without one centre the data, and give second_moment= "
            "about their mean."
        )


def check_planned_confidence(confidence: Any, target_kl: Any, data_free: bool) -> None:
    """Raise ValueError where `confidence` has no accuracy or no rows to refer to."""
    if confidence is None:
        return
    if target_kl is None or data_free:
        raise ValueError(
            "confidence= is how surely target_kl= is reached, by a curve= or a target=: give both, or leave "
            "confidence= out."
        )
    check_confidence(confidence)


def check_data_free(dim: Any, kernel: Any, center: bool) -> None:
    """Raise ValueError unless a plan from the dimension alone can be made."""
    check_centred(center, None)
    if dim is None:
        raise ValueError("give what is known of the data: dim= (with second_moment=), target= or curve=.")
    if kernel not in (None, DATA_FREE_KERNEL):
        name = kernel.name if isinstance(kernel, Kernel) else kernel
        raise ValueError(f"with dim alone a plan is for {DATA_FREE_KERNEL}: {name} needs target= or curve=.")


def ends_of(curve: MeasuredCurve, *asked: Any) -> tuple[float, ...]:
    """Horizon and early stop of a measured curve. ValueError where others were asked for."""
    for name, asks, has in zip(("horizon", "early_stop"), asked, curve.ends, strict=True):
        if asks is not None and not np.isclose(asks, has, rtol=1e-6):
            raise ValueError(
                f"the curve was measured with {name} = {has:g}, not {asks:g}: leave {name}= out, or measure the curve "
                f"with this {name}."
            )
    return curve.ends


def check_w2_only(target_kl: Any, metric: Any, second_moment: Any, center: Any) -> None:
    """Raise ValueError for arguments that a plan in W2 does not take."""
    if metric not in (None, "w2"):
        raise ValueError(f"target_w2= needs metric='w2': metric = {metric!r}. Leave metric= out.")
    given = {"target_kl": target_kl, "second_moment": second_moment, "center": center or None}
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"a plan in W2 does not take {name}=: {name} = {value!r}. Leave {name}= out.")


def checked_score(score: Any) -> ScoreFn:
    """The score of a plan in W2 as a pytree. ValueError where there is none."""
    if score is None:
        raise ValueError("a plan in W2 runs samplers, so that it needs score= (s(x, t)), or target=: both are None.")
    return as_score(score)


def check_kl_only(metric: Any, score: Any, rows: Any, key: Any) -> None:
    """Raise ValueError for arguments that only a plan in W2 takes."""
    if metric not in (None, "kl"):
        raise ValueError(f"metric must be 'kl' (path KL) or 'w2' (the samples): metric = {metric!r}.")
    for name, value in (("score", score), ("rows", rows), ("key", key)):
        if value is not None:
            raise ValueError(f"{name}= is for a plan in W2: pass metric='w2' too, or leave {name}= out.")
