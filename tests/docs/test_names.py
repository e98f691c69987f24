"""ARCHITECTURE.md and the pages of docs/ name files, folders and parts of jaxdiff that exist, and the true rows."""

import functools
import importlib
import pathlib
import re

import pytest
from test_layers import ROWS

import jaxdiff

ROOT = pathlib.Path(__file__).parents[2]
PAGES = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in ("ARCHITECTURE.md", "docs/design.md", "docs/contributing.md", "docs/theory.md")
}
ARCHITECTURE = PAGES["ARCHITECTURE.md"]
MOST_LINES = 80  # of ARCHITECTURE.md: one page
ENDINGS = (".py", ".md", ".png", ".json", ".toml", ".ipynb")
FOREIGN = ("jax", "os")  # first parts of dotted names that are not jaxdiff's
MADE_LATER = (".venv", "--")  # words of commands that are no files of the repository

FENCE = re.compile(r"^```[a-z]*\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)\)")
DOTTED = re.compile(r"(?<![\w./=-])[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+(?![\w/])")


def words(text):
    """The words of all code in a page: of spans, without the arguments of calls, and of blocks."""
    spans = SPAN.findall(FENCE.sub("", text))
    pieces = [re.sub(r"(?<=\w)\([^)]*\)", "", span) for span in spans] + FENCE.findall(text)
    return [word.strip(",;:") for piece in pieces for word in piece.split()]


def is_path(word):
    """Whether a word of code is written as a file or a folder."""
    if not re.fullmatch(r"[\w.<>-]+(?:/[\w.<>-]+)*/?", word) or word.startswith(MADE_LATER):
        return False
    return word.endswith((*ENDINGS, "/")) or ("/" in word and (ROOT / word.split("/")[0]).is_dir())


def paths_in(text):
    """Files and folders that a page names; <method> stands for any name."""
    return sorted({word for word in words(text) if is_path(word)})


def names_in(text):
    """Dotted names of jaxdiff in a page."""
    found = {name for word in words(text) if not is_path(word) for name in DOTTED.findall(word)}
    return sorted(name for name in found if name.split(".")[0] not in FOREIGN)


def exists(path):
    """Whether a file or folder exists in the repository, or in jaxdiff/; of jaxdiff/kernels/<method>.py the folder."""
    path = re.sub(r"[^/]*<.*", "", path)
    there = [folder / path for folder in (ROOT, ROOT / "jaxdiff")]
    return any(one.is_dir() if path.endswith("/") else one.exists() for one in there)


def resolves(name):
    """Whether a dotted name is a module, or a part of a module or class, of jaxdiff."""
    try:
        functools.reduce(part_of, name.removeprefix("jaxdiff.").split("."), jaxdiff)
    except AttributeError:
        return False
    return True


def part_of(whole, part):
    """A module in a package, an attribute, or the type of a field without a default. AttributeError: there is none."""
    for folder in map(pathlib.Path, getattr(whole, "__path__", ())):
        if (folder / f"{part}.py").exists() or (folder / part / "__init__.py").exists():
            return importlib.import_module(f"{whole.__name__}.{part}")
    fields = getattr(whole, "__annotations__", {})
    return fields[part] if part in fields else getattr(whole, part)


@pytest.mark.parametrize("page", PAGES)
def test_every_file_and_folder_of_a_page_exists(page):
    assert [path for path in paths_in(PAGES[page]) if not exists(path)] == []
    beside = (ROOT / page).parent
    assert [link for link in LINK.findall(PAGES[page]) if not (beside / link).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_dotted_name_of_a_page_is_a_part_of_jaxdiff(page):
    assert [name for name in names_in(PAGES[page]) if not resolves(name)] == []


def test_the_pages_are_read():
    assert "jaxdiff/kernels/<method>.py" in paths_in(ARCHITECTURE)
    assert "kernels/" in paths_in(ARCHITECTURE)
    assert {"app.data.load", "Plan.sampler"} <= set(names_in(ARCHITECTURE))
    assert len(names_in(PAGES["docs/design.md"])) > 50
    assert len(paths_in(PAGES["docs/contributing.md"])) > 40


@pytest.mark.parametrize("path", ["jaxdiff/kernels/eulr.py", "tests/kernel/", "kernel/<method>.py", "docs/desing.md"])
def test_a_wrong_path_is_noticed(path):
    assert paths_in(f"See `{path}`.") == [path]
    assert not exists(path)


@pytest.mark.parametrize("name", ["kernels.eulr", "planning.goal.MOST", "Curve.logdet", "curves.loss.loss_curves"])
def test_a_wrong_name_is_noticed(name):
    assert names_in(f"As `{name}(x, t)` does.") == [name]
    assert not resolves(name)


def test_the_rows_of_imports_are_those_that_are_checked():
    assert tuple(FENCE.findall(ARCHITECTURE)[0].splitlines()) == ROWS


def test_every_folder_has_a_line():
    listed = re.findall(r"^\| `(\w+)/`", ARCHITECTURE, flags=re.MULTILINE)
    folders = [path.parent.name for path in sorted((ROOT / "jaxdiff").glob("*/__init__.py"))]
    assert sorted(listed) == folders


def test_the_architecture_is_one_page():
    assert len(ARCHITECTURE.splitlines()) <= MOST_LINES
