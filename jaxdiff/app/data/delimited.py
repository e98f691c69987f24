"""Tables of numbers in text files. The reader finds the delimiter, the header line and the index column by itself."""

import codecs
import contextlib
import csv
import itertools
from typing import NamedTuple

import numpy as np

from jaxdiff.app.data.cells import number
from jaxdiff.app.data.columns import index_columns, positions_of
from jaxdiff.app.data.conversion import notes_on_rounding, notes_on_separators, to_numbers
from jaxdiff.app.data.headers import header_of
from jaxdiff.app.errors import DataError

DELIMITERS = "\t;,"
MARKS = (  # byte-order marks; that of little-endian UTF-32 begins with that of UTF-16, so it comes first
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


class Table(NamedTuple):
    """A file as it was read. `read` with this `header` and `columns` gives the same rows again.

    Attributes:
      rows: (n, d) float64.
      header: whether the first line gave the names of the columns.
      columns: the d positions in the file, from 0.
      names: the d names; None where the file has none.
      notes: sentences about everything that was assumed.
      labels: the n cells of the column of labels; None without it.
    """

    rows: np.ndarray
    header: bool | None
    columns: tuple[int, ...]
    names: tuple[str, ...] | None
    notes: tuple[str, ...]
    labels: np.ndarray | None = None


def read(path, *, header=None, columns=None, labels=None) -> Table:
    """Read rows of numbers from a text file with commas, semicolons or tabs between them.

    The file is UTF-8, or UTF-16 or UTF-32 with a byte-order mark. Numbers are written as for Python's float, without
    underscores. Between semicolons or tabs they may have decimal commas. Lines at the top that begin with "#" are
    comments; the last of them gives the names if it has as many cells as a row.

    Args:
      path: pathlib.Path of the file.
      header: whether the first line has the names of the columns; None decides by `headers.header_of`.
      columns: names, or positions from 0, of the columns to read; None reads all but index columns, which
        `columns.index_columns` finds.
      labels: name or position of a column of labels, which is not among the columns that are read.

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
    label = None if labels is None else positions_of(path, [labels], names, width)[0]
    raw = None if label is None else np.array([line[label].strip() for line in lines], dtype=str)
    positions = [position for position in positions if position != label]
    if positions != list(range(width)):
        lines = [[line[position] for position in positions] for line in lines]
    rows, about_numbers = to_numbers(path, numbers, lines, positions, delimiter, names)
    about_numbers += notes_on_separators(lines, positions, delimiter) if columns is None else []
    about_numbers += notes_on_rounding(lines, rows, positions)
    chosen = None if names is None else tuple(names[position] for position in positions)
    notes = (*empty, *about_header, *about_index, *about_numbers)
    return Table(rows, header, tuple(positions), chosen, notes, raw)


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
