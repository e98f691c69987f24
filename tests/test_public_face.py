"""The public face: every public function has types on all its arguments and its result, and the wheel ships them."""

import inspect
import pathlib
import types

import pytest

import jaxdiff

PACKAGE = pathlib.Path(jaxdiff.__file__).parent
# Functions without a complete signature, and why.
ALLOWED = {}


def public_names(module):
    """The names in __all__; without one, those that the module itself defines."""
    if hasattr(module, "__all__"):
        return module.__all__
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def public_functions(module, seen=None):
    """(dotted name, function) of a module and of the modules of jaxdiff that it exports."""
    seen = {module.__name__} if seen is None else seen
    for name in public_names(module):
        value = getattr(module, name)
        if isinstance(value, types.ModuleType):
            if value.__name__.startswith("jaxdiff.") and value.__name__ not in seen:
                seen.add(value.__name__)
                yield from public_functions(value, seen)
        elif callable(value) and not inspect.isclass(value) and getattr(value, "__module__", "").startswith("jaxdiff"):
            yield f"{module.__name__}.{name}", value


FUNCTIONS = dict(public_functions(jaxdiff))


def missing_types(function):
    """The parameters without a type, and "return" if the result has none."""
    signature = inspect.signature(function)
    missing = [one.name for one in signature.parameters.values() if one.annotation is one.empty]
    return missing + ["return"] * (signature.return_annotation is signature.empty)


def test_the_reader_finds_functions_of_the_package_its_modules_and_those_loaded_on_first_use():
    assert FUNCTIONS["jaxdiff.sample"] is jaxdiff.sample
    expected = ("grids.log_snr", "sampling.ode.solve", "training.fit.fit", "app.run_folder.load")
    assert {f"jaxdiff.{name}" for name in expected} <= FUNCTIONS.keys()
    assert len(FUNCTIONS) > 100


def test_the_reader_sees_what_lacks_a_type():
    def function(x, y: int, *, z=1):
        return x

    assert missing_types(function) == ["x", "z", "return"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_argument_and_result_has_a_type(name):
    assert missing_types(FUNCTIONS[name]) == ALLOWED.get(name, [])


def test_allowed_exceptions_are_still_needed():
    assert {name: missing_types(FUNCTIONS[name]) for name in ALLOWED} == ALLOWED


def test_the_marker_of_a_typed_package_is_there():
    """The wheel contains every file of the folder, so this one too."""
    assert (PACKAGE / "py.typed").read_text(encoding="utf-8") == ""
