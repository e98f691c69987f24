"""Converts the cells of a text file to numbers; a cell that is no number is an error with a remedy."""

import contextlib
import itertools
import re

import numpy as np

from jaxdiff.app.data.cells import FORTRAN, MINUS, number
from jaxdiff.app.errors import DataError

ENCODE = (
    "encode or drop it, or leave its column out (columns= or --columns); name a column of classes as labels= or "
    "--labels"
)
MISTAKES = (  # patterns of cells that are not numbers, each with its remedy
    (r"[+-]?\d{1,3}([.,'\u2019 \u00a0\u202f]\d{3})+([.,]\d+)?", "it has thousands separators: write it without them"),
    (r"[+-]?\d*,\d+([eE][+-]?\d+)?", "it has a decimal comma: write a point, or separate the columns by semicolons"),
    (r"[+-]?[\d_]+(\.[\d_]+)?", "it has underscores: write it without them"),
    (FORTRAN, "it has a Fortran exponent: write E for D"),
    (r"(\d{4}[-/.]\d\d?[-/.]\d\d?|\d\d?[-/.]\d\d?[-/.]\d{4})([ T].*)?", f"it is a date: {ENCODE}"),
    (r"(?i)true|false", "write 1 and 0 for true and false"),
    (r"(?i)na|n/a|<na>|null|none|missing|[?.-]+", "fill the missing value or drop the row"),
    (r"(?i)0x[0-9a-f]+", "write it as a decimal number"),
    (r"#.*", "remove the comment, or move it to the top of the file"),
    (r"[^;|\t]*\d[;|\t ]+[+-]?\d.*", "separate columns by commas, semicolons or tabs, the same in every row"),
)


def to_numbers(path, numbers, lines, positions, delimiter, names=None):
    """Cells (n lists of d) as (n, d) float64, and a note if commas that were read as decimal could separate thousands.

    Args:
      path: for messages.
      numbers: the line number of each list of cells.
      lines: the lists of cells.
      positions: of the d columns in the file.
      delimiter: between the columns of the file.
      names: of all columns of the file, for messages; None where it has none.

    Raises:
      DataError: a cell is no number.
    """
    with contextlib.suppress(ValueError):
        return _floats(lines, len(positions)), []
    pointed = [[cell.replace(MINUS, "-") for cell in line] for line in lines]
    commas = [cell.strip() for line in lines for cell in line if "," in cell and number(cell) is not None]
    notes = []
    if delimiter != "," and commas:
        point = next((cell.strip() for line in lines for cell in line if "." in cell), None)
        if point is not None:
            raise DataError(
                f"{path} has cells with a comma, {commas[0]!r}, and with a point, {point!r}: write all numbers with a "
                f"point before the decimals and nothing between the thousands."
            )
        pointed = [[cell.replace(",", ".") for cell in line] for line in pointed]
        if all(re.fullmatch(r"[+-]?\d{1,3},\d{3}", cell) for cell in commas):
            notes = [f"Commas are read as decimal commas: {commas[0]} is {commas[0].replace(',', '.')}."]
    with contextlib.suppress(ValueError):
        return _floats(pointed, len(positions)), notes
    raise _first_mistake(path, numbers, lines, pointed, positions, names)


def notes_on_separators(lines, positions, delimiter):
    """Notes on points and commas whose meaning was assumed: they could also separate thousands or decimals."""
    notes = []
    if delimiter == ";":
        pointed = [cell.strip() for line in lines for cell in line if "." in cell]
        if pointed and all(re.fullmatch(r"[+-]?[1-9]\d{0,2}\.\d{3}", cell) for cell in pointed):
            notes.append(f"Points are read as decimal points, not between thousands: {pointed[0]}.")
    for place, position in enumerate(positions):
        cells = (line[place].strip() for line in lines)
        if delimiter == "," and position > 0 and (padded := _padded(cells)):
            notes.append(
                f"Column {position} is written with leading zeros, {padded}: commas are read as ends of columns, not "
                f"as decimal commas or between thousands."
            )
    return notes


def _padded(cells):
    """The first cell with leading zeros, like 05 or 000, if all cells are whole numbers of equally many digits."""
    padded, digits = None, None
    for cell in cells:
        digits = digits or len(cell)
        if digits < 2 or len(cell) != digits or not (cell.isascii() and cell.isdigit()):
            return None
        padded = padded or (cell if cell.startswith("0") else None)
    return padded


def notes_on_rounding(lines, rows, positions):
    """A note on the first whole number that float64 cannot represent."""
    if rows.size == 0 or max(rows.max(), -rows.min()) < 2**53:
        return []
    for row, place in np.argwhere((np.abs(rows) >= 2**53) & np.isfinite(rows)):
        cell = lines[row][place].strip().replace(MINUS, "-")
        if re.fullmatch(r"[+-]?\d+", cell) and int(cell) != int(rows[row, place]):
            return [
                f"Column {positions[place]} has whole numbers beyond 2^53, which are rounded: {cell} is read as "
                f"{int(rows[row, place])}."
            ]
    return []


def _floats(lines, width):
    """Cells (n lists of `width`) as (n, width) float64; ValueError if one is no number."""
    if any("_" in "".join(line) for line in lines):
        raise ValueError("float reads 1_000 as 1000")
    cells = itertools.chain.from_iterable(lines)
    return np.fromiter(map(float, cells), np.float64, len(lines) * width).reshape(len(lines), width)


def _is_float(cell):
    try:
        return len(_floats([[cell]], 1)) == 1
    except ValueError:
        return False


def _first_mistake(path, numbers, lines, pointed, positions, names):
    """The error for the first cell that is no number. If it is empty, the error counts the other empty cells."""
    wrong = (
        (row, position, cell.strip())
        for row, line, new in zip(numbers, lines, pointed, strict=True)
        for position, cell, dotted in zip(positions, line, new, strict=True)
        if not _is_float(dotted)
    )
    row, position, cell = next(wrong)
    what = f"{path}: row {row}, column {position + 1} is {cell[:40]!r}, not a number"
    if not cell:
        others = sum(not cell.strip() for line in lines for cell in line) - 1
        more = f", and {others} more cells are empty" if others else ""
        return DataError(f"{what}{more}: fill or drop the missing values.")
    remedy = next((remedy for pattern, remedy in MISTAKES if re.fullmatch(pattern, cell, re.DOTALL)), ENCODE)
    name = "; if it is a name, say header=True, --header" if row == 1 else ""
    column = f". The column is named {names[position]!r}" if names is not None else ""
    return DataError(f"{what}: {remedy}{name}{column}.")
