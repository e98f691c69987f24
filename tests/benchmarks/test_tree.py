"""The folders of benchmarks/: who may import whom, and how long a file may be."""

import ast

import pytest

from benchmarks.harness import places

FOLDER = places.ROOT / "benchmarks"
FILES = sorted(FOLDER.rglob("*.py"))
ORDER = ("harness", "laws", "samplers", "oracles", "studies")  # each imports from itself and those before it
MOST_LINES = 300


def imported(path):
    """(folder, module) of everything that a file imports from benchmarks."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "benchmarks":
            whole = places.ROOT.joinpath(*node.module.split("."))  # a module, or the folder of those that are named
            for file in (whole.with_suffix(".py"), *(whole / f"{name.name}.py" for name in node.names)):
                if file.exists():
                    yield folder_of(file), file


def folder_of(path):
    """The folder of a file; of a script in benchmarks/ itself, "studies"."""
    return "studies" if path.parent == FOLDER else path.parent.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_a_file_imports_from_its_own_folder_and_those_before_it(path):
    own = ORDER.index(folder_of(path))
    assert all(ORDER.index(folder) <= own for folder, _ in imported(path))
    if own == len(ORDER) - 1:
        assert "studies" not in {folder for folder, _ in imported(path)}, "what two studies need is in a folder"


def test_no_two_files_import_each_other():
    imports = {path: {file for _, file in imported(path)} for path in FILES}
    while True:
        free = [path for path, of in imports.items() if not of & imports.keys()]
        if not free:
            break
        imports = {path: of for path, of in imports.items() if path not in free}
    assert not imports, f"a circle: {[path.name for path in imports]}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_no_file_is_longer_than_a_few_pages(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES
