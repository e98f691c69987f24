"""Checks arguments and says in an error message which value came and what to pass."""

import numbers
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

MOST_SEED = 2**32 - 1  # the largest seed: JAX gets seeds as numbers of 32 bits


def checked_moment(second_moment: Any, dim: Any) -> float:
    """E|X_0|^2 as given, by default d, that of standardised data. ValueError where it is negative or not finite."""
    moment = float(dim if second_moment is None else second_moment)
    if not 0 <= moment < np.inf:
        raise ValueError(f"second_moment is E|X_0|^2, finite and not negative: second_moment = {moment:g}.")
    return moment


def check_confidence(confidence: float | int) -> None:
    """Raise ValueError unless the confidence is a probability between 0 and 1."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be a probability between 0 and 1, as 0.95 is: confidence = {confidence:g}.")


def described(value: Any) -> str:
    """A short description of a value for a message."""
    if value is None or isinstance(value, bool | int | float | complex | str):
        return repr(value) if len(repr(value)) <= 60 else f"a {type(value).__name__} of length {len(str(value))}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"an array of shape {tuple(value.shape)} and dtype {value.dtype}"
    name = getattr(value, "__name__", None)
    if callable(value) and isinstance(name, str):
        return f"the function {name}"
    kind = type(value).__name__
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}" + (
        f" of {len(value)}" if isinstance(value, list | tuple | dict | set) else ""
    )


def as_array(x: Any, name: str, what: str) -> jax.Array:
    """x as a JAX array. TypeError where it cannot be one (a pytree, text, None); `what` says what it should be."""
    several = isinstance(x, tuple) and any(hasattr(one, "shape") for one in x)  # of arrays, as a state is
    try:
        if not isinstance(x, str | bytes | dict | set | None) and not callable(x) and not several:
            return jnp.asarray(x)
    except (TypeError, ValueError):
        pass
    raise TypeError(f"{name} must be an array {what}: it is {described(x)}.")


def as_host(values: Any, name: str, what: str) -> np.ndarray:
    """Rows or times as a NumPy array. TypeError where they cannot be one; `what` says what they should be."""
    try:
        found = np.asarray(values)
        if found.dtype.kind == "O":
            found = found.astype(np.float64)
        if found.dtype.kind not in "USMmc" and values is not None:
            return found
    except (TypeError, ValueError):
        pass
    raise TypeError(f"{name} must be {what}: it is {described(values)}.")


def as_numbers(values: Any, name: str, what: str) -> np.ndarray:
    """Rows or times as a NumPy array in float64; see `as_host`."""
    return np.asarray(as_host(values, name, what), np.float64)


def check_number(value: Any, name: str, what: str = "a number") -> None:
    """Raise TypeError unless the value is one number that is not traced."""
    if isinstance(value, Tracer):
        raise TypeError(f"{name} must be {what} that is known when the function is called: it is traced.")
    if getattr(value, "shape", ()) == () and hasattr(value, "item"):
        value = value.item()
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be {what}: it is {described(value)}.")


def check_whole(value: Any, name: str, least: int = 1) -> None:
    """Raise TypeError or ValueError unless the value is a whole number, at least `least`."""
    check_number(value, name, "a whole number")
    if value < least or value != int(value):
        raise ValueError(f"{name} must be a whole number, at least {least}: {name} = {value}.")


def value_of(function: Callable[..., Any], x: Any, t: Any, name: str = "score") -> Any:
    """function(x, t). TypeError where it does not return one array, or calls NumPy on a traced array."""
    try:
        out = function(x, t)
    except jax.errors.TracerArrayConversionError as error:
        raise TypeError(f"the {name} must be written in jax.numpy: it converts x or t to a NumPy array.") from error
    if not hasattr(out, "shape") or not hasattr(out, "dtype"):
        raise TypeError(f"the {name} must return one array, of the shape of x: it returns {described(out)}.")
    return out


def check_agrees(out: Any, shape: tuple[int, ...], dtype: Any) -> None:
    """Raise ValueError unless a score's value has the shape and the dtype of its x."""
    if out.shape != shape or out.dtype != dtype:
        found, expected = f"{out.dtype}{list(out.shape)}", f"{jnp.dtype(dtype)}{list(shape)}"
        raise ValueError(f"the score returns {found} for x {expected}: they must agree.")
