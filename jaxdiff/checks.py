"""Checks of arguments, and their error messages."""

import numbers

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def checked_moment(second_moment, dim):
    """E|X_0|^2 as given, or that of standardised data by default; ValueError where it is negative or not finite."""
    moment = float(dim if second_moment is None else second_moment)
    if not 0 <= moment < np.inf:
        raise ValueError(f"second_moment is E|X_0|^2, finite and not negative: second_moment = {moment:g}.")
    return moment


def described(value):
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


def as_array(x, name, what):
    """x as a JAX array. TypeError where it cannot be one (a pytree, text, None); `what` says what it should be."""
    try:
        if not isinstance(x, str | bytes | dict | set | None) and not callable(x):
            return jnp.asarray(x)
    except (TypeError, ValueError):
        pass
    raise TypeError(f"{name} must be an array {what}: it is {described(x)}.")


def as_host(values, name, what):
    """Rows, times and the like as a NumPy array. TypeError where they cannot be; `what` says what they should be."""
    try:
        found = np.asarray(values)
        if found.dtype.kind == "O":
            found = found.astype(np.float64)
        if found.dtype.kind not in "USMmc" and values is not None:
            return found
    except (TypeError, ValueError):
        pass
    raise TypeError(f"{name} must be {what}: it is {described(values)}.")


def as_numbers(values, name, what):
    """Like `as_host`, in float64."""
    return np.asarray(as_host(values, name, what), np.float64)


def check_number(value, name, what="a number"):
    """Raise TypeError unless value is one number that is not traced."""
    if isinstance(value, Tracer):
        raise TypeError(f"{name} must be {what} that is known when the function is called: it is traced.")
    if getattr(value, "shape", ()) == () and hasattr(value, "item"):
        value = value.item()
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be {what}: it is {described(value)}.")


def check_whole(value, name, least=1):
    """Raise TypeError or ValueError unless value is a whole number, at least `least`."""
    check_number(value, name, "a whole number")
    if value < least or value != int(value):
        raise ValueError(f"{name} must be a whole number, at least {least}: {name} = {value}.")


def value_of(function, x, t, name="score"):
    """function(x, t). TypeError where that is not one array, or where the function calls NumPy on a traced array."""
    try:
        out = function(x, t)
    except jax.errors.TracerArrayConversionError as error:
        raise TypeError(f"the {name} must be written in jax.numpy: it makes a NumPy array of x or t.") from error
    if not hasattr(out, "shape") or not hasattr(out, "dtype"):
        raise TypeError(f"the {name} must return one array, of the shape of x: it returns {described(out)}.")
    return out


def check_agrees(out, shape, dtype):
    """Raise ValueError unless a score's value has the shape and the dtype of its x."""
    if out.shape != shape or out.dtype != dtype:
        came, due = f"{out.dtype}{list(out.shape)}", f"{jnp.dtype(dtype)}{list(shape)}"
        raise ValueError(f"the score returns {came} for x {due}: they must agree.")
