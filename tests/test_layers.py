"""Who imports whom: a folder or module imports only from those above it."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "jaxdiff"
ROWS = (
    "checks arrays intervals legendre interrupts progress files lanczos box_muller convolutions",
    "types certificate noise metrics events conditions",
    "processes",
    "grids",
    "curves",
    "targets kernels",
    "sampling",
    "guarantees",
    "planning",
    "training",
    "scores sweeps",
    "app",
)
ROW = {name: row for row, names in enumerate(ROWS) for name in names.split()}


def module_of(path):
    """kernels/ddim.py belongs to kernels, guarantees/bounds/lsi.py to guarantees, types.py to types."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = {
    str(path.relative_to(PACKAGE)): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.parent != PACKAGE or path.name not in ("__init__.py", "__main__.py")
}


def imported(source):
    """The modules of jaxdiff that a file imports, in functions too; the package's own __version__ is none."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute here"
            names = [f"jaxdiff.{alias.name}" for alias in node.names] if node.module == "jaxdiff" else [node.module]
        else:
            continue
        found |= {name.split(".")[1] if "." in name else name for name in names if name.split(".")[0] == "jaxdiff"}
    return found - {"__version__"}


def test_the_reader_sees_every_form_of_import():
    source = """
import jaxdiff.report as page, numpy.linalg
from jaxdiff import curves, plan
from jaxdiff.kernels.ddim import ddim
from numpy import sample
def f():
    from jaxdiff.cli import main
    import jaxdiff
"""
    assert imported(source) == {"report", "curves", "plan", "kernels", "cli", "jaxdiff"}


def test_every_module_has_a_row_and_every_row_a_module():
    modules = {module_of(path) for path in FILES.values()}
    assert modules - ROW.keys() == set(), "new modules: give each a row in tests/test_layers.py and ARCHITECTURE.md"
    assert ROW.keys() - modules == set(), "the table has a row for modules that are gone"


@pytest.mark.parametrize("file", FILES)
def test_a_module_imports_only_from_rows_above_its_own(file):
    own = module_of(FILES[file])
    assert own in ROW, f"jaxdiff/{file} is new: give {own} a row in tests/test_layers.py and ARCHITECTURE.md"
    for other in imported(FILES[file].read_text(encoding="utf-8")) - {own}:
        assert other in ROW, f"{file} imports {other}, which has no row: name the module, not the package"
        assert ROW[other] < ROW[own], f"{file} (row {ROW[own]}) imports {other} (row {ROW[other]})"
