"""The dimensions, seeds and settings of a sweep, checked against the parameters of the function."""

import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdiff.checks import MOST_SEED

GIVEN = ("dim", "mask", "seed", "key")  # arguments that the sweep makes from dims and seeds


class Choice(NamedTuple):
    """One value of a setting.

    Attributes:
      label: stands for the value in the rows.
      value: what the function gets.
      number: whether a traced function gets the value as a traced number.
    """

    label: Any
    value: Any
    number: bool


def name_of(cell):
    """A text that identifies a cell, which is a dict of Choices, among all cells of a sweep."""
    return json.dumps([[name, choice.label] for name, choice in cell.items()])


def wanted_by(function, settings, dims, seeds):
    """The names of the function's arguments; raises ValueError unless they agree with the arguments of the sweep."""
    parameters = inspect.signature(function).parameters.values()
    named = {one.name: one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    anything = any(one.kind is one.VAR_KEYWORD for one in parameters)
    lacking = {name for name, one in named.items() if one.default is one.empty} - {*settings, *GIVEN}
    unknown = set() if anything else set(settings) - set(named)
    for names, sentence in (
        (set(settings) & set(GIVEN), "the sweep itself makes {}: choose another name for the setting."),
        (unknown, "the function does not take {}: add it to its parameters."),
        (lacking, "the function needs {}, which is not given: pass it as a setting."),
    ):
        if names:
            raise ValueError(sentence.format(", ".join(sorted(names))))
    for values, what, either in ((dims, "dims", {"dim", "mask"}), (seeds, "seeds", {"seed", "key"})):
        taken = sorted(either & set(named))
        if (values is None) == bool(taken):
            names = taken[0] if taken else " nor ".join(sorted(either))
            raise ValueError(
                f"the function takes {names}: pass {what}=..."
                if taken
                else f"{what} are given, but the function takes neither {names}: leave {what} out."
            )
    if {"dim", "mask"} <= set(named):
        raise ValueError(
            "the function takes both dim and mask, of which a sweep passes one: leave dim out, and use mask.sum()."
        )
    return set(named)


def whole_numbers(name, values, least):
    """The Choices of dims or seeds. Dims have the limit of seeds."""
    values = list(values)
    for value in values:
        if isinstance(value, bool) or not hasattr(value, "__index__") or not least <= value <= MOST_SEED:
            raise ValueError(f"{name} must be whole numbers from {least} to 2^32 - 1: one is {value!r}.")
    return _distinct(name, [Choice(int(value), int(value), True) for value in values])


def choices_of(name, value):
    """The Choices of a setting: all values of a mapping or sequence, or one value of anything else."""
    if isinstance(value, Mapping):
        return _distinct(name, [Choice(label, one, False) for label, one in value.items()])
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        values = value.tolist() if isinstance(value, np.ndarray) else [_plain(one) for one in value]
        return _distinct(name, [Choice(_label(name, one), one, is_number(one)) for one in values])
    return [Choice(_label(name, _plain(value)), value, False)]


def _distinct(name, choices):
    labels = [json.dumps(choice.label) for choice in choices]
    if not labels:
        raise ValueError(f"{name} is empty: give one value at least.")
    if len(set(labels)) < len(labels):
        raise ValueError(f"{name} holds {max(labels, key=labels.count)} more than once: give each value once.")
    return choices


def _label(name, value):
    """The label of a value: the value itself, or its __name__."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    label = getattr(value, "__name__", None)
    if label is None:
        raise ValueError(
            f"{name} = {value!r} has no label for the rows: pass {name} as a mapping from a label to the value."
        )
    return label


def _plain(value):
    """The value; a scalar of NumPy becomes one of Python."""
    return value.item() if isinstance(value, np.generic) else value


def is_number(value):
    """Whether a value is an int or a float. A bool is not a number here."""
    return isinstance(value, int | float) and not isinstance(value, bool)
