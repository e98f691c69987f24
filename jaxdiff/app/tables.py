"""Rows as a Markdown table."""

from collections.abc import Sequence
from typing import Any


def table(rows: Sequence[dict[str, Any]], columns: Sequence[str] | None = None) -> str:
    """An aligned Markdown table of rows (dicts). Numbers are right-aligned; a value that a row lacks is left empty.

    columns: the columns to show, in this order; default all.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row)) if columns is None else columns
    number = [all(_is_number(row.get(column)) for row in rows) for column in columns]
    cells = [[column.replace("_", " ") for column in columns]]
    cells += [[_text(row.get(column)) for column in columns] for row in rows]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    rule = ["-" * (width - right) + ":" * right for width, right in zip(widths, number, strict=True)]
    return "\n".join(_line(line, widths, number) for line in [cells[0], rule, *cells[1:]])


def _line(cells, widths, number):
    padded = [c.rjust(w) if right else c.ljust(w) for c, w, right in zip(cells, widths, number, strict=True)]
    return f"| {' | '.join(padded)} |"


def _is_number(value):
    return value is None or isinstance(value, int | float)


def _text(value):
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
