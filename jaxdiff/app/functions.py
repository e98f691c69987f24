"""Functions of the user by name, from a file or a module."""

import importlib
import runpy
import sys


def function_of(name, what):
    """The function of FILE.py:NAME or MODULE:NAME; messages call it by the word `what`.

    Raises:
      ValueError: there is no such module or function.
    """
    place, _, attribute = name.rpartition(":")
    if not place or not attribute:
        raise ValueError(f"the {what} must be given as FILE.py:NAME or MODULE:NAME: it is {name}.")
    if place.endswith(".py"):
        there = runpy.run_path(place)
    else:
        sys.path.insert(0, "")  # modules of the working directory, as python -m finds them
        try:
            there = vars(importlib.import_module(place))
        except ModuleNotFoundError as error:
            if error.name is None or not f"{place}.".startswith(f"{error.name}."):
                raise
            raise ValueError(
                f"there is no module {place} here: give FILE.py:{attribute}, or run this in the folder of the module."
            ) from error
    function = there.get(attribute)
    if not callable(function):
        raise ValueError(f"{place} has no function {attribute}: check the name after the colon.")
    return function
