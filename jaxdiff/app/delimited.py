"""Tables of numbers in text files. The reader finds the delimiter, the header line and the index column by itself."""

import codecs
import contextlib
import csv
import itertools
import re
from typing import NamedTuple

import numpy as np

from jaxdiff.app.cells import FORTRAN, MINUS, number
from jaxdiff.app.columns import index_columns, positions_of
from jaxdiff.app.errors import DataError
from jaxdiff.app.headers import header_of

DELIMITERS = "\t;,"
MARKS = (  # byte-order marks; that of little-endian UTF-32 begins with that of UTF-16, so it comes first
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
ENCODE = "encode or drop it, or leave its column out (columns= or --columns)"
MISTAKES = (  # a pattern of cells that are not numbers, and the remedy
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


class Table(NamedTuple):
    """A file as it was read. `read` with this `header` and `columns` gives the same rows again.

    Attributes:
      rows: (n, d) float64.
      header: whether the first line gave the names of the columns.
      columns: the d positions in the file, from 0.
      names: the d names; None where the file has none.
      notes: sentences about everything that was assumed.
    """

    rows: np.ndarray
    header: bool
    columns: tuple[int, ...]
    names: tuple[str, ...] | None
    notes: tuple[str, ...]


def read(path, *, header=None, columns=None) -> Table:
    """Read rows of numbers from a text file with commas, semicolons or tabs between them.

    The file is UTF-8, or UTF-16 or UTF-32 with a byte-order mark. Numbers are written as for Python's float, without
    underscores. Between semicolons or tabs they may have decimal commas. Lines at the top that begin with "#" are
    comments; the last of them gives the names if it has as many cells as a row.

    Args:
      path: pathlib.Path of the file.
      header: whether the first line has the names of the columns; None decides by `headers.header_of`.
      columns: names, or positions from 0, of the columns to read; None reads all but index columns, which
        `columns.index_columns` finds.

    Raises:
      DataError: the text cannot be decoded, rows differ in length, a cell is no number, or the first line or first
        column can be read in two ways.
    """
    delimiter = _delimiter(path)
    numbers, lines, empty = _records(path, delimiter)
    header, names, numbers, lines, about_header = header_of(path, numbers, lines, header)
    width = len(names if names is not None else lines[0] if lines else ())
    _check_widths(path, numbers, lines, width)
    if columns is None:
        left_out, about_index = index_columns(path, names, lines)
        positions = [position for position in range(width) if position not in left_out]
    else:
        positions, about_index = positions_of(path, columns, names, width), []
    if positions != list(range(width)):
        lines = [[line[position] for position in positions] for line in lines]
    rows, about_numbers = _converted(path, numbers, lines, positions, delimiter)
    about_numbers += _doubts(lines, positions, delimiter) if columns is None else []
    about_numbers += _rounded(lines, rows, positions)
    chosen = None if names is None else tuple(names[position] for position in positions)
    notes = (*empty, *about_header, *about_index, *about_numbers)
    return Table(rows, header, tuple(positions), chosen, notes)


def _encoding(path):
    """The encoding, from the byte-order mark. Raises DataError for a NUL character without one."""
    with path.open("rb") as stream:
        content = stream.read(4096)
    encoding = next((name for mark, name in MARKS if content.startswith(mark)), "UTF-8-sig")
    if encoding == "UTF-8-sig" and b"\0" in content:
        raise DataError(
            f"{path} has NUL characters, as UTF-16 without a byte-order mark has: export it as CSV in UTF-8."
        )
    return encoding


@contextlib.contextmanager
def _text(path):
    """The file, opened and decoded. Raises DataError if the file is not text or not a table."""
    encoding = _encoding(path)
    try:
        with path.open(encoding=encoding, newline="") as stream:
            yield stream
    except (UnicodeDecodeError, csv.Error) as error:
        kind = encoding.removesuffix("-sig")
        raise DataError(f"{path} is no {kind} text of a table ({error}): export it as CSV in UTF-8.") from error


def _records(path, delimiter):
    """Line numbers from 1 and the cells of all lines that are not blank, and a note on rows without any value."""
    numbers, lines, empty, blank = [], [], [], []
    with _text(path) as stream:
        reader = csv.reader(stream, delimiter=delimiter, skipinitialspace=True, strict=True)
        for line in reader:
            if any(map(str.strip, line)):
                numbers.append(reader.line_num)
                lines.append(line)
            elif line:
                (empty if len(line) > 1 else blank).append(reader.line_num)
    if all(len(line) == 1 for line in lines):
        empty = blank  # in a table of one column "" is a missing value; in a wider one such a line separates rows
    if lines and lines[0][0].startswith("sep=") and len("".join(lines[0])) <= len("sep=;"):
        del numbers[0], lines[0]  # this line tells spreadsheets the delimiter
    notes = [f"{len(empty)} row(s) of empty cells are left out, the first in line {empty[0]}."] if empty else []
    return numbers, lines, notes


def _delimiter(path):
    """Of tab, semicolon and comma the one for which the most cells of the second line are numbers, in proportion."""
    with _text(path) as stream:
        shown = (line for line in stream if line.strip() and not line.startswith(("#", "sep=")))
        line = (list(itertools.islice(shown, 2)) or [""])[-1]
    best, most = ",", -1.0
    for delimiter in DELIMITERS:
        cells = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
        proportion = sum(number(cell) is not None for cell in cells) / max(len(cells), 1)
        if len(cells) > 1 and proportion > most:
            best, most = delimiter, proportion
    return best


def _check_widths(path, numbers, lines, width):
    for row, line in zip(numbers, lines, strict=True):
        if len(line) != width:
            raise DataError(f"{path}: row {row} has {len(line)} cells, the first has {width}: make the rows equal.")


def _converted(path, numbers, lines, positions, delimiter):
    """Cells (n lists of d) to (n, d) float64, and a note on decimal commas that could separate thousands."""
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
    raise _first_mistake(path, numbers, lines, pointed, positions)


def _doubts(lines, positions, delimiter):
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


def _rounded(lines, rows, positions):
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
    """Cells (n lists of `width`) to (n, width) float64; ValueError where one is no number."""
    if any("_" in "".join(line) for line in lines):
        raise ValueError("float reads 1_000 as 1000")
    cells = itertools.chain.from_iterable(lines)
    return np.fromiter(map(float, cells), np.float64, len(lines) * width).reshape(len(lines), width)


def _is_float(cell):
    try:
        return len(_floats([[cell]], 1)) == 1
    except ValueError:
        return False


def _first_mistake(path, numbers, lines, pointed, positions):
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
    return DataError(f"{what}: {remedy}{name}.")
