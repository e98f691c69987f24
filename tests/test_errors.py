"""Every error of the library says which value came, and what to do."""

import ast
import pathlib
import re

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "jaxdiff"
ERRORS = ("ValueError", "TypeError", "RunError", "DataError", "WriteError", "RuntimeError")
REMEDY = re.compile(
    r"\b(must|needs?|pass|give|take|use|leave|make|measure|check|drop|lower|choose|ask|train|pip install|see|add|put|"
    r"say|center|centre|begin|save|plan|clip|rename|divide|scale|cut|is for|are for|goes? with|Run|set|list|write|"
    r"free|start|name|go on|is one of|are one of|between|positive|finite|whole number|exactly one|stop at)\b",
    re.IGNORECASE,
)
# Text that another message quotes, with the value and the remedy beside it.
QUOTED = {
    "it is one .npy array",
    "float reads 1_000 as 1000",
    "it holds no record",
    "its files are not those that were written",
}


def pieces(node):
    """The literal text of a message, and whether values are put into it."""
    match node:
        case ast.Constant():
            return str(node.value), False
        case ast.JoinedStr():
            parts = [pieces(part) for part in node.values]
            return "".join(text for text, _ in parts), any(valued for _, valued in parts)
        case ast.BinOp():
            (left, first), (right, second) = pieces(node.left), pieces(node.right)
            return left + right, first or second
        case ast.IfExp():
            (body, first), (other, second) = pieces(node.body), pieces(node.orelse)
            return f"{body} {other}", first and second
        case _:
            return "...", True


def messages(source):
    """(line, text, whether values are put into it) of the errors that a file raises or returns."""
    for node in ast.walk(ast.parse(source)):
        made = node.exc if isinstance(node, ast.Raise) else node.value if isinstance(node, ast.Return) else None
        if isinstance(made, ast.Call) and isinstance(made.func, ast.Name) and made.func.id in ERRORS and made.args:
            yield node.lineno, *pieces(made.args[0])


FOUND = {
    f"{path.relative_to(PACKAGE)}:{line}": (text, valued)
    for path in sorted(PACKAGE.rglob("*.py"))
    for line, text, valued in messages(path.read_text(encoding="utf-8"))
    if text not in QUOTED
}


def test_the_reader_finds_messages_of_every_form():
    source = """
def f(x):
    if x:
        raise ValueError(f"x must be 0: x = {x}.")
    return TypeError("bad" + f" value {x}")
def g(x):
    raise ValueError("one" if x else f"two {x}")
"""
    assert sorted(found[1:] for found in messages(source)) == [
        ("bad value ...", True),
        ("one two ...", False),
        ("x must be 0: x = ....", True),
    ]
    assert len(FOUND) > 250


# A message without a value is about arguments that contradict one another or are missing: it names them.
@pytest.mark.parametrize("place", FOUND)
def test_a_message_says_what_came_and_what_to_do(place):
    text, valued = FOUND[place]
    if text != "...":
        assert valued or re.search(
            r"\w=|--\w|\b[a-z]+_[a-z]+\b|\b(curves?|predictor|function|denoiser|moments|cov|factors|kernel|grid|plan)\b",
            text,
        ), text
        assert (valued and "..." in text[:3]) or REMEDY.search(text), text
